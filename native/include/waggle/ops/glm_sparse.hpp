// Logistic regression on binomial counts over sparse rows, with L1 and L2 penalties.
#pragma once

#include <cstdint>

#include "waggle/sparse.hpp"

namespace waggle {

/// One penalty for all features, or one each.
struct SparsePenalty {
  double all = 0;
  const double* each = nullptr;  // [n_features]

  double operator[](int64_t feature) const { return each != nullptr ? each[feature] : all; }
};

struct GlmSparseArgs {
  SparseRows rows;
  SparseTargets targets;
  int64_t n_features = 0;
  SparsePenalty l1;
  SparsePenalty l2;
  bool intercept = true;
  int32_t max_iterations = 50;
  double tolerance = 1e-9;        // of the null deviance
  const double* start = nullptr;  // [n_features (+ 1 with intercept, last)], optional

  double* coefficients = nullptr;  // out [n_features]
};

struct GlmSparseResult {
  double intercept = 0;
  int32_t iterations = 0;
  bool converged = false;
  double deviance = 0;
  double log_likelihood = 0;
  int64_t n_nonzero = 0;
  double l1_activation = 0;  // as in GlmFitResult
};

/// Maximises Σ wᵢ (sᵢ ηᵢ − tᵢ log(1 + e^ηᵢ)) − ½ Σ λ²ⱼ βⱼ² − Σ λ¹ⱼ |βⱼ| on the features as they are: IRLS with step
/// halving, each quadratic model minimised by coordinate descent over columns and an active set (Friedman, Hastie &
/// Tibshirani 2010). Converged when half the decrease that the model predicts is ≤ tolerance times the null deviance;
/// that last step is still taken. Coefficients at 0 are exactly 0, features that do not occur among them.
/// Columns are swept on one thread, rows are reduced in fixed chunks: the same bits at any thread count.
/// O(iterations · sweeps · entries), 12 bytes a entry beside the input.
Status glm_sparse(const GlmSparseArgs& args, const RunContext& context, GlmSparseResult* result);

}  // namespace waggle
