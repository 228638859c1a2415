#include "waggle/ops/rank_batch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/rank_batch.hpp"
#include "cpu/topk_blocks.hpp"
#include "cpu/trees_predict.hpp"
#include "src/bitmap.hpp"
#include "src/device_call.hpp"
#include "src/device_forest.hpp"
#include "src/registry.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

Status check_candidates(const RankBatchArgs& a) {
  if (a.filter.has_list()) return fail(Code::kInvalidArgument, "the filter is a list; pass candidates and offsets");
  if ((a.candidates == nullptr) != (a.offsets == nullptr)) {
    return fail(Code::kInvalidArgument, "candidates and offsets go together");
  }
  if (a.offsets != nullptr && a.filter) return fail(Code::kInvalidArgument, "both a bitmap and candidates are given");
  if (a.filter) {
    const int64_t row = (a.n_items + 7) / 8;
    const int64_t stride = a.filter.stride_bytes;
    if (stride != 0 && stride < row)
      return fail(Code::kShape, "a bitmap of %lld items has fewer bytes", static_cast<long long>(a.n_items));
    if (a.n_requests > 0 && a.filter.bits_bytes < stride * (a.n_requests - 1) + row) {
      return fail(Code::kShape, "the bitmaps are too short");
    }
  }
  if (a.offsets == nullptr) return {};
  if (a.offsets[0] != 0) return fail(Code::kInvalidArgument, "offsets begin with %d, not 0", a.offsets[0]);
  for (int64_t r = 0; r < a.n_requests; ++r) {
    if (a.offsets[r + 1] < a.offsets[r]) {
      return fail(Code::kInvalidArgument, "offsets fall after request %lld", static_cast<long long>(r));
    }
  }
  for (int64_t i = 0; i < a.offsets[a.n_requests]; ++i) {
    if (a.candidates[i] < 0 || a.candidates[i] >= a.n_items) {
      return fail(Code::kInvalidArgument, "candidate %lld is item %d of %lld", static_cast<long long>(i),
                  a.candidates[i], static_cast<long long>(a.n_items));
    }
  }
  return {};
}

// Rows of another number, or no memory though there are values.
bool is_wrong(const Matrix<const float>& m, int64_t rows) {
  return m.cols > 0 && (m.rows != rows || (m.data == nullptr && rows > 0));
}

Status check_model(const RankBatchArgs& a) {
  const bool similar = a.embeddings.cols > 0;
  if (a.queries.cols != a.embeddings.cols)
    return fail(Code::kShape, "queries and embeddings differ in their dimension");
  if (is_wrong(a.queries, a.n_requests) || is_wrong(a.embeddings, a.n_items)) {
    return fail(Code::kShape, "queries or embeddings are missing or of another number of rows");
  }
  if (a.resident != nullptr && (a.resident->n_items() != a.n_items || a.resident->dim() != a.embeddings.cols ||
                                a.resident->n_features() != a.item_features.cols)) {
    return fail(Code::kShape, "the resident items have another number, dimension or number of features");
  }
  if (a.similarity_is_feature && !similar)
    return fail(Code::kInvalidArgument, "there is no similarity to be a feature");
  if (is_wrong(a.item_features, a.n_items) || is_wrong(a.request_features, a.n_requests)) {
    return fail(Code::kShape, "features are missing or of another number of rows");
  }
  if ((a.trees == nullptr) == (a.linear == nullptr)) {
    return fail(Code::kInvalidArgument, "one model is needed: trees or linear");
  }
  const int64_t n_features = a.item_features.cols + a.request_features.cols + (a.similarity_is_feature ? 1 : 0);
  if (a.trees != nullptr) {
    if (a.trees->ensemble().n_features != n_features) {
      return fail(Code::kShape, "the trees take %d features; items, requests and similarity make %lld",
                  a.trees->ensemble().n_features, static_cast<long long>(n_features));
    }
    if (a.output < 0 || a.output >= a.trees->ensemble().n_outputs()) {
      return fail(Code::kInvalidArgument, "output %d of %d", a.output, a.trees->ensemble().n_outputs());
    }
    return {};
  }
  const LinearModel& m = *a.linear;
  if (n_features > 0 && m.coefficients == nullptr) return fail(Code::kShape, "coefficients are missing");
  bool finite = std::isfinite(m.intercept) && std::isfinite(m.calibration_a) && std::isfinite(m.calibration_b);
  for (int64_t j = 0; j < n_features; ++j) finite = finite && std::isfinite(m.coefficients[j]);
  return finite ? Status() : fail(Code::kNotFinite, "the linear model is not finite");
}

Status check(const RankBatchArgs& a) {
  if (a.n_requests < 0 || a.n_requests > kMost || a.n_items < 0 || a.n_items > kMost) {
    return fail(Code::kShape, "nRequests or nItems is out of range");
  }
  if (a.k < 1) return fail(Code::kInvalidArgument, "k is %d; it must be at least 1", a.k);
  int64_t answers = 0;
  if (!checked_product(a.n_requests, a.k, &answers) || answers > kMost) {
    return fail(Code::kShape, "nRequests × k is out of range");
  }
  if (answers > 0 && (a.items == nullptr || a.scores == nullptr || a.terms == nullptr || a.predictions == nullptr ||
                      a.counts == nullptr)) {
    return fail(Code::kShape, "an output is missing");
  }
  if (a.price == nullptr && a.n_items > 0) return fail(Code::kShape, "price is missing");
  if ((a.goal_units == nullptr) != (a.omega == nullptr)) {
    return fail(Code::kInvalidArgument, "goalUnits and omega go together");
  }
  if (a.max_per_group < 0) return fail(Code::kInvalidArgument, "maxPerGroup is negative");
  if (a.max_per_group > 0 && a.group == nullptr) return fail(Code::kInvalidArgument, "maxPerGroup needs group");
  const ScoreWeights& w = a.weights;
  if (!std::isfinite(w.margin) || !std::isfinite(w.fit) || !std::isfinite(w.advertiser) || !std::isfinite(w.payout) ||
      !std::isfinite(w.explore)) {
    return fail(Code::kNotFinite, "a weight is NaN or infinite");
  }
  if (Status status = check_model(a); !status.ok()) return status;
  return check_candidates(a);
}

// Visits of nodes and products below which the copies to a device and back take longer than the ranking does here.
constexpr double kWorkWorthACopy = 1e8;
// ... and for each value of an item that travels.
constexpr double kWorkWorthAValue = 16;

bool is_worth_a_copy(const RankBatchArgs& a, double n_candidates) {
  const double n_trees = a.trees != nullptr ? static_cast<double>(a.trees->ensemble().trees.size()) : 0;
  const double per_item = static_cast<double>(a.embeddings.cols + a.item_features.cols);
  const double work = n_candidates * (8 * n_trees + 0.25 * per_item + 16);
  if (work < kWorkWorthACopy) return false;
  return a.resident != nullptr || work >= kWorkWorthAValue * per_item * static_cast<double>(a.n_items);
}

// The candidates of each request.
std::vector<int32_t> candidate_counts(const RankBatchArgs& a, const RunContext& context) {
  std::vector<int32_t> counts(static_cast<size_t>(a.n_requests), static_cast<int32_t>(a.n_items));
  if (a.offsets != nullptr) {
    for (size_t r = 0; r < counts.size(); ++r) counts[r] = a.offsets[r + 1] - a.offsets[r];
  } else if (a.filter && a.filter.stride_bytes == 0) {
    std::fill(counts.begin(), counts.end(), static_cast<int32_t>(count_bits(a.filter.bits, a.n_items)));
  } else if (a.filter) {
    const auto count = [&](int64_t r, int) {
      counts[static_cast<size_t>(r)] = static_cast<int32_t>(count_bits(a.filter.bits_of(r), a.n_items));
    };
    RunContext uncancelled = context;
    uncancelled.cancelled = nullptr;
    if (!context.parallel) {
      for (int64_t r = 0; r < a.n_requests; ++r) count(r, 0);
    } else {
      ThreadPool::instance().for_each_chunk(a.n_requests, uncancelled, count);
    }
  }
  return counts;
}

// The plugin's `finish`: predictions as the CPU makes them. No exception crosses the line.
int32_t finish_predictions(void* context, int64_t n, const double* sums, float* predictions) {
  const RankBatchArgs& a = *static_cast<const RankBatchArgs*>(context);
  try {
    if (a.trees == nullptr) {
      std::transform(sums, sums + n, predictions, cpu::linear_prediction);
      return WAGGLE_BACKEND_OK;
    }
    const trees::Ensemble& e = a.trees->ensemble();
    const size_t n_outputs = static_cast<size_t>(e.n_outputs());
    const size_t target = e.n_outputs() != e.n_targets ? 0 : static_cast<size_t>(a.output);
    std::vector<double> row(static_cast<size_t>(e.n_targets), 0.0);
    std::vector<float> out(n_outputs);
    for (int64_t i = 0; i < n; ++i) {
      row[target] = sums[i];
      cpu::trees_finish(*a.trees, row.data(), 1, false, out.data());
      predictions[i] = out[static_cast<size_t>(a.output)];
    }
    return WAGGLE_BACKEND_OK;
  } catch (...) {
    return WAGGLE_BACKEND_OUT_OF_MEMORY;
  }
}

static_assert(static_cast<int>(trees::Transform::kLogistic) == WAGGLE_TRANSFORM_LOGISTIC &&
                  static_cast<int>(trees::Transform::kExp) == WAGGLE_TRANSFORM_EXP &&
                  static_cast<int>(trees::Transform::kComplement) == WAGGLE_TRANSFORM_COMPLEMENT &&
                  static_cast<int>(trees::Transform::kTwoLogistic) == WAGGLE_TRANSFORM_TWO_LOGISTIC &&
                  static_cast<int>(trees::Transform::kNegate) == WAGGLE_TRANSFORM_NEGATE,
              "the plugin's numbers are the ensemble's");

// What the plugin is told of the model; false: it is not for the plugin.
bool describe_model(const RankBatchArgs& a, waggle_rank_args* call, Status* status) {
  if (a.trees == nullptr) {
    call->coefficients = a.linear->coefficients;
    call->intercept = a.linear->intercept;
    call->calibration_a = a.linear->calibration_a;
    call->calibration_b = a.linear->calibration_b;
    return true;
  }
  const trees::Ensemble& e = a.trees->ensemble();
  call->forest = a.trees->device().get(e, status);
  if (call->forest == nullptr) return false;
  call->target = e.n_outputs() != e.n_targets ? 0 : a.output;
  call->base = e.base[static_cast<size_t>(call->target)];
  call->scale = e.scale;
  call->transform_parameter = e.transform_parameter;
  call->transform = static_cast<int32_t>(e.transform);
  call->output = a.output;
  return true;
}

// True when the accelerator answered or the caller insists on its failure.
bool run_on_plugin(const Registry& r, const RankBatchArgs& a, const RunContext& context, Status* status) {
  if (r.plugin == nullptr || r.plugin->ops->rank_batch == nullptr || a.n_requests == 0) return false;
  if (!r.plugin_forced && !context.parallel) return false;
  const std::vector<int32_t> counts = candidate_counts(a, context);
  const double n_candidates = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (n_candidates == 0 || (!r.plugin_forced && !is_worth_a_copy(a, n_candidates))) return false;
  waggle_rank_args call = {};
  call.struct_size = sizeof call;
  if (!describe_model(a, &call, status)) return !status->ok();
  std::vector<float> query_factors;
  if (a.embeddings.cols > 0 && a.metric == Metric::kCosine) {
    for (int64_t q = 0; q < a.n_requests; ++q)
      query_factors.push_back(cpu::query_factor(a.queries.row(q), a.queries.cols));
    call.query_factors = query_factors.data();
  }
  std::vector<int32_t> n_selected(counts.size());
  call.k = a.k;
  call.n_requests = a.n_requests;
  call.n_items = a.n_items;
  call.counts = counts.data();
  call.filter = a.filter.bits;
  call.filter_stride = a.filter.stride_bytes;
  call.candidates = a.candidates;
  call.offsets = a.offsets;
  call.items = a.resident != nullptr ? static_cast<waggle_rank_items*>(a.resident->handle()) : nullptr;
  call.metric = static_cast<int32_t>(a.metric);
  call.sums_in_double = r.table->level == cpu::Simd::kScalar ? 1 : 0;
  call.dim = a.embeddings.cols;
  call.queries = a.queries.data;
  call.embeddings = a.embeddings.data;
  call.n_item_features = a.item_features.cols;
  call.n_request_features = a.request_features.cols;
  call.item_features = a.item_features.data;
  call.request_features = a.request_features.data;
  call.similarity_is_feature = a.similarity_is_feature ? 1 : 0;
  call.price = a.price;
  call.volume = a.volume;
  call.fixed_spend = a.fixed_spend;
  call.payout_share = a.payout_share;
  call.q = a.q;
  call.fit = a.fit;
  call.advertiser = a.advertiser;
  call.explore = a.explore;
  call.goal_units = a.goal_units;
  call.frequency = a.frequency;
  call.mu = a.mu;
  call.omega = a.omega;
  call.rho = a.rho;
  call.weights = device_weights(a.weights);
  call.group = a.group;
  call.separation = a.separation;
  call.max_per_group = a.max_per_group;
  call.chosen = a.items;
  call.scores = a.scores;
  call.terms = a.terms;
  call.predictions = a.predictions;
  call.n_selected = n_selected.data();
  call.finish = finish_predictions;
  call.finish_context = const_cast<RankBatchArgs*>(&a);
  call.is_cancelled = poll_stop;
  call.cancel_context = poll_context(context);
  waggle_text text = empty_text();
  const int32_t answer = r.plugin->ops->rank_batch(r.plugin_state, &call, &text);
  if (!has_answered(r, answer, text, status)) return false;
  for (size_t i = 0; i < counts.size(); ++i) {
    a.counts[2 * i] = n_selected[i];
    a.counts[2 * i + 1] = counts[i];
  }
  return true;
}

}  // namespace

Status rank_batch(const RankBatchArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (Status status; run_on_plugin(r, args, context, &status)) return status;
    return cpu::rank_batch(*r.table, args, context);
  });
}

}  // namespace waggle
