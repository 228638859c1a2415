#include "waggle/ops/rank_batch.hpp"

#include <cmath>
#include <limits>

#include "cpu/rank_batch.hpp"
#include "src/registry.hpp"

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

}  // namespace

Status rank_batch(const RankBatchArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    return cpu::rank_batch(*r.table, args, context);
  });
}

}  // namespace waggle
