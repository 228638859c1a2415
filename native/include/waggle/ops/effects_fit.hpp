// Crossed effects of a rate with normal priors, by penalised quasi-likelihood.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int32_t kEffectsMaxLevels = 64;
constexpr int64_t kEffectsMaxColumns = 1024;

enum class EffectsLink : int32_t { kLog = 0, kLogit = 1 };

/// A grouping of the rows: its groups' effects are believed to be N(mean, variance).
struct EffectsLevel {
  int64_t size = 0;
  double mean = 0;
  double variance = 0;
};

struct EffectsFitArgs {
  EffectsLink link = EffectsLink::kLog;
  int64_t n_rows = 0;
  const double* successes = nullptr;  // [n_rows], ≥ 0
  const double* exposure = nullptr;   // [n_rows], ≥ 0; rows of exposure 0 are ignored
  const double* offset = nullptr;     // [n_rows], optional
  const EffectsLevel* levels = nullptr;
  int32_t n_levels = 0;
  const int32_t* codes = nullptr;  // [n_rows × n_levels], row-major: group of the row, −1 = the level does not apply
  Matrix<const double> columns;    // [n_rows × n_columns]: what is weighed rather than grouped
  const double* column_means = nullptr;      // [n_columns]
  const double* column_variances = nullptr;  // [n_columns], > 0
  double base_mean = 0;
  double base_variance = 1;
  double dispersion = 0;  // variance of a row on the scale of η beyond counting
  /// Rates are expected ones, what is open about each effect by itself included; only with a log link.
  bool mean_rates = false;
  int32_t max_iterations = 60;
  double tolerance = 1e-5;
  /// Random probes per level behind `traces`; only looked at with these.
  int32_t trace_probes = 0;
  const double* start = nullptr;  // [n_unknowns], optional

  double* state = nullptr;        // out [n_unknowns]: base, columns, the groups of each level
  double* information = nullptr;  // out [n_unknowns]: diagonal of ZᵀWZ
  double* traces = nullptr;       // out [n_levels], optional: posterior variances of groups with rows, added up
};

struct EffectsFitResult {
  int32_t iterations = 0;
  int64_t products = 0;  // of the normal matrix with a vector
  bool converged = false;
};

/// η = base + offset + Σ columns·β + Σ effects; a row is expected to bring exposure · e^η successes (log) or exposure ·
/// sigmoid(η) (logit), with variance v and weight w = v / (1 + dispersion · v). Newton's method on the penalised
/// quasi-likelihood (Breslow & Clayton 1993), each step by conjugate gradients on the sparse normal equations, scaled
/// by their diagonal, and by a Cholesky factor of up to 512 unknowns that many rows share: base, columns, small levels.
/// Converged when no unknown moves by more than `tolerance`; that last step is still taken. Each step is solved to a
/// thousandth, so a fit is off by about that part of the tolerance, from wherever it started.
/// With `mean_rates` a row is expected to bring exposure · e^(η + ½ Σ s²), s² = 1 / (information + 1 / variance) of
/// each of its groups: the mode becomes the mean of a normal posterior of independent effects (Ormerod & Wand 2012),
/// and expectations with these halves add up on the rows themselves, however many levels share what is not known.
/// `traces` adds up posterior variances by Hutchinson's estimator (1989): what other levels leave open included.
/// One thread: callers run fits side by side. O(products · n_rows · (n_levels + n_columns)), 4 bytes a row and level
/// beside the input.
Status effects_fit(const EffectsFitArgs& args, const RunContext& context, EffectsFitResult* result);

/// 1 + columns + groups; −1 when that overflows or a size is negative.
int64_t effects_unknowns(const EffectsLevel* levels, int32_t n_levels, int64_t n_columns);

}  // namespace waggle
