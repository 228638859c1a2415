// Logistic regression on binomial counts.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int64_t kGlmMaxFeatures = 2048;

struct GlmFitArgs {
  Matrix<const float> x;              // [n × p]
  const double* successes = nullptr;  // [n], 0 ≤ s ≤ trials, fractions allowed
  const double* trials = nullptr;     // [n], ≥ 0
  const double* weights = nullptr;    // [n], ≥ 0, optional
  const double* offset = nullptr;     // [n], optional
  const double* l2 = nullptr;         // [p], ≥ 0, on the standardised scale
  const double* l1 = nullptr;         // [p], ≥ 0, on the standardised scale, optional
  bool intercept = true;
  bool standardize = true;
  int32_t max_iterations = 50;
  double tolerance = 1e-8;
  const double* start = nullptr;  // [p (+ 1 with intercept, last)] on the raw scale, optional

  double* coefficients = nullptr;     // out [p], raw scale
  double* standard_errors = nullptr;  // out [p], raw scale, NaN for a feature that does not vary
};

struct GlmFitResult {
  double intercept = 0;
  double intercept_standard_error = 0;
  int32_t iterations = 0;
  bool converged = false;
  double deviance = 0;
  double log_likelihood = 0;
  /// Largest |gradient| / λ¹ among coefficients that λ¹ holds at 0: at most 1 at the optimum; 0 without any.
  double l1_activation = 0;
};

/// Maximises Σ wᵢ (sᵢ ηᵢ − tᵢ log(1 + e^ηᵢ)) − ½ Σ λⱼ βⱼ² by Newton's method (IRLS) with step halving and a
/// Cholesky solve in double. Converged when half the Newton decrement gᵀH⁻¹g is ≤ tolerance; that last step
/// is still taken. Standard errors come from the inverse of the penalised Hessian. Rows are reduced in fixed
/// chunks and a fixed order: the same bits at any thread count and SIMD level of one machine.
/// O(iterations · n · p²). A feature without variance gets coefficient 0.
///
/// With any λ¹ above 0 the objective also loses Σ λ¹ⱼ |βⱼ| (elastic net). Each Newton step then minimises its quadratic
/// model with that term by coordinate descent (Friedman, Hastie & Tibshirani 2010) over the Hessian; ½ the decrease the
/// model predicts stands for the decrement. Coefficients at 0 are exactly 0. Standard errors are those of the features
/// that are left, as if they had been chosen beforehand; NaN for the others, or for all where these are collinear.
Status glm_fit(const GlmFitArgs& args, const RunContext& context, GlmFitResult* result);

}  // namespace waggle
