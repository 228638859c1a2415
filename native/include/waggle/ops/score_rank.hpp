// The one scoring function: nine terms per candidate, their sum, and a greedy constrained choice.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int kScoreTerms = 9;

struct ScoreWeights {
  double margin = 0;
  double fit = 0;
  double advertiser = 0;
  double payout = 0;
  double explore = 0;
};

/// Columns are [n]; a null optional column makes its terms exactly +0.
struct ScoreRankArgs {
  int64_t n = 0;
  int32_t k = 0;  // ≥ 1
  const float* q = nullptr;
  const float* spend = nullptr;
  const float* payout = nullptr;
  const float* fit = nullptr;
  const float* advertiser = nullptr;  // optional from here
  const float* explore = nullptr;
  const float* goal_units = nullptr;
  const float* frequency = nullptr;
  const float* mu = nullptr;
  const float* omega = nullptr;
  const float* rho = nullptr;
  ScoreWeights weights;
  Bitmap filter;
  const int32_t* group = nullptr;
  int32_t max_per_group = 0;  // 0 = no limit
  const int32_t* separation = nullptr;

  int32_t* rows = nullptr;   // out [k]
  double* scores = nullptr;  // out [k]
  double* terms = nullptr;   // out [k × kScoreTerms]
};

struct ScoreRankCounts {
  int32_t n_selected = 0;
  int32_t n_eligible = 0;
};

/// score = q·(margin·spend) + q·(fit_w·fit) + q·(advertiser_w·advertiser) + q·(payout_w·payout) − q·(spend·mu)
///       + q·(goal_units·omega) + q·(payout·rho) + q·(explore_w·explore) − frequency
/// summed left to right in double from float32 columns without contraction: the same bits at every SIMD
/// level, and the terms returned add up to the score exactly. Chosen greedily, best score first, lower row
/// on ties; see ScoreRankArgs for the two constraints. O(n) plus O(k log n).
Status score_rank(const ScoreRankArgs& args, const RunContext& context, ScoreRankCounts* counts);

}  // namespace waggle
