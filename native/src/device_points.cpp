#include "src/device_points.hpp"

#include <limits>

#include "src/device_call.hpp"

namespace waggle {

namespace {

// Pairs × dimensions below which copying the points takes longer than finding their centroids does here, and centroids
// that a copied point should be compared with.
constexpr double kWorkWorthACopy = 1e9;
constexpr int64_t kCentroidsWorthACopy = 32;

bool is_worth_a_copy(int64_t n, int64_t k, int64_t dim) {
  return k >= kCentroidsWorthACopy &&
         static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(dim) >= kWorkWorthACopy;
}

}  // namespace

bool DevicePoints::is_there(const Registry& r) {
  return r.plugin != nullptr && r.plugin->ops->points_open != nullptr && r.plugin->ops->points_close != nullptr &&
         r.plugin->ops->points_assign != nullptr && r.plugin->ops->points_means != nullptr;
}

void DevicePoints::close() {
  if (points_ != nullptr) registry_.plugin->ops->points_close(registry_.plugin_state, points_);
  points_ = nullptr;
}

bool DevicePoints::open(const Matrix<const float>& rows, Status* status) {
  if (points_ != nullptr && data_ == rows.data && n_rows_ == rows.rows) return true;
  close();
  waggle_points_args args = {};
  args.struct_size = sizeof args;
  args.sums_in_double = registry_.table->level == cpu::Simd::kScalar ? 1 : 0;
  args.rows = rows.data;
  args.n_rows = rows.rows;
  args.dim = rows.cols;
  args.is_cancelled = poll_stop;
  args.cancel_context = poll_context(context_);
  waggle_text text = empty_text();
  const int32_t answer = registry_.plugin->ops->points_open(registry_.plugin_state, &args, &points_, &text);
  if (answer == WAGGLE_BACKEND_OK) {
    data_ = rows.data;
    n_rows_ = rows.rows;
    return true;
  }
  points_ = nullptr;
  refused_ = true;
  (void)has_answered(registry_, answer, text, status);
  return false;
}

bool DevicePoints::assign(const Matrix<const float>& rows, const Matrix<const float>& to, int32_t* labels,
                          float* distances, Status* status) {
  if (refused_ || to.rows > std::numeric_limits<int32_t>::max()) return false;
  if (!registry_.plugin_forced && !is_worth_a_copy(rows.rows, to.rows, rows.cols)) return false;
  if (!open(rows, status)) return false;
  waggle_assign_args args = {};
  args.struct_size = sizeof args;
  args.k = static_cast<int32_t>(to.rows);
  args.centroids = to.data;
  args.labels = labels;
  args.distances = distances;
  args.is_cancelled = poll_stop;
  args.cancel_context = poll_context(context_);
  waggle_text text = empty_text();
  const int32_t answer = registry_.plugin->ops->points_assign(registry_.plugin_state, points_, &args, &text);
  refused_ = answer != WAGGLE_BACKEND_OK;
  return has_answered(registry_, answer, text, status) && status->ok();
}

bool DevicePoints::update(const Matrix<const float>& rows, int64_t k, const std::vector<int32_t>& members,
                          const std::vector<int64_t>& begins, float* centroids, Status* status) {
  // Only of rows that are there: sums alone are not worth their way.
  if (refused_ || points_ == nullptr || data_ != rows.data || n_rows_ != rows.rows) return false;
  waggle_means_args args = {};
  args.struct_size = sizeof args;
  args.k = static_cast<int32_t>(k);
  args.members = members.data();
  args.begins = begins.data();
  args.centroids = centroids;
  waggle_text text = empty_text();
  const int32_t answer = registry_.plugin->ops->points_means(registry_.plugin_state, points_, &args, &text);
  refused_ = answer != WAGGLE_BACKEND_OK;
  return has_answered(registry_, answer, text, status) && status->ok();
}

bool is_for_device(int64_t n, int64_t k, int64_t dim, const RunContext& context) {
  const Registry& r = registry();
  if (r.plugin == nullptr || r.plugin->ops->nearest_codes == nullptr || n < 1 || k < 1) return false;
  return r.plugin_forced || (context.parallel && is_worth_a_copy(n, k, dim));
}

bool nearest_on_device(const NearestCodes& nearest, const RunContext& context, int32_t* labels, float* scores,
                       Status* status) {
  const Registry& r = registry();
  waggle_nearest_args args = {};
  args.struct_size = sizeof args;
  args.k = static_cast<int32_t>(nearest.k);
  args.codes = nearest.codes;
  args.scales = nearest.scales;
  args.n_rows = nearest.n;
  args.quads = nearest.quads;
  args.centroids = nearest.centroids;
  args.centroid_scales = nearest.centroid_scales;
  args.biases = nearest.biases;
  args.labels = labels;
  args.scores = scores;
  args.is_cancelled = poll_stop;
  args.cancel_context = poll_context(context);
  waggle_text text = empty_text();
  const int32_t answer = r.plugin->ops->nearest_codes(r.plugin_state, &args, &text);
  return has_answered(r, answer, text, status) && status->ok();
}

}  // namespace waggle
