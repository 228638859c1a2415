// From requests to their best items in one call: similarity, model, prices, score and choice for a whole batch.
#pragma once

#include <cstdint>

#include "waggle/device_items.hpp"
#include "waggle/ops/score_rank.hpp"
#include "waggle/ops/topk.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/trees.hpp"
#include "waggle/view.hpp"

namespace waggle {

/// p = σ(calibration_a · (intercept + Σ coefficients[j] · x[j]) + calibration_b), summed in double in the order of j.
struct LinearModel {
  const double* coefficients = nullptr;  // [n_features]
  double intercept = 0;
  double calibration_a = 1;
  double calibration_b = 0;
};

struct RankBatchArgs {
  int64_t n_requests = 0;
  int64_t n_items = 0;
  int32_t k = 0;  // ≥ 1

  /// Which items each request may choose from: a bitmap shared or one per request (RowFilter without a list), or lists:
  /// items candidates[offsets[r]] … candidates[offsets[r + 1] − 1] of request r. Neither = all.
  RowFilter filter;
  const int32_t* candidates = nullptr;
  const int32_t* offsets = nullptr;  // [n_requests + 1], ascending from 0

  /// Optional: similarity of request and item, as topk scores it.
  Matrix<const float> queries;     // [n_requests × dim]
  Matrix<const float> embeddings;  // [n_items × dim]
  Metric metric = Metric::kCosine;

  /// The model's columns: the item's features, then the request's, then (where asked for) the similarity.
  Matrix<const float> item_features;     // [n_items × any]
  Matrix<const float> request_features;  // [n_requests × any]
  bool similarity_is_feature = false;
  /// The accelerator's copy of `embeddings` and `item_features`, whose arrays the CPU reads all the same; null: where
  /// an accelerator is used, they travel with the call.
  const DeviceItems* resident = nullptr;

  /// One of the two. NaN among the features is missing to trees, and refused by the linear model.
  const trees::Model* trees = nullptr;
  int32_t output = 0;  // which of the trees' outputs is the prediction p
  const LinearModel* linear = nullptr;

  /// Columns of score.rank, in float: spend = (p · price) · volume + fixed_spend, payout = spend · payout_share, q as
  /// given or 1, fit as given or the similarity or 0. [n_items] but for volume.
  const float* price = nullptr;
  const float* volume = nullptr;        // [n_requests], optional: 1
  const float* fixed_spend = nullptr;   // optional from here
  const float* payout_share = nullptr;  // 0
  const float* q = nullptr;
  const float* fit = nullptr;
  const float* advertiser = nullptr;
  const float* explore = nullptr;
  const float* goal_units = nullptr;
  const float* frequency = nullptr;
  const float* mu = nullptr;
  const float* omega = nullptr;
  const float* rho = nullptr;
  const int32_t* group = nullptr;
  int32_t max_per_group = 0;
  const int32_t* separation = nullptr;
  ScoreWeights weights;

  int32_t* items = nullptr;      // out [n_requests × k], −1 pads
  double* scores = nullptr;      // out [n_requests × k], −infinity pads
  double* terms = nullptr;       // out [n_requests × k × kScoreTerms], 0 pads
  float* predictions = nullptr;  // out [n_requests × k], 0 pads
  int32_t* counts = nullptr;     // out [n_requests × 2]: selected, eligible
};

/// What topk's scores, trees_predict and score_rank give one after the other, to the bit, at any number of threads.
/// Candidates count in ascending order of items, or in the order of their list: the earlier one wins a tie.
/// O(candidates · (dim + trees)); memory O(candidates of the requests in flight, at most about a million or those of
/// one request).
Status rank_batch(const RankBatchArgs& args, const RunContext& context);

}  // namespace waggle
