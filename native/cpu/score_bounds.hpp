// Between what a low-precision scan saw of a pair and the float score that `topk` gives it.
//
// x = x̂ + δ with ‖δ‖ ≤ e (error[r], computed when the row was encoded), q = q̂ + ε with ‖ε‖ ≤ f (computed when the
// query was). Then ⟨q, x⟩ − ⟨q̂, x̂⟩ = ⟨q, δ⟩ + ⟨ε, x̂⟩, and by Cauchy-Schwarz
//
//   |⟨q, x⟩ − ⟨q̂, x̂⟩| ≤ ‖q‖·e + f·‖x̂‖,   ‖x̂‖ ≤ ‖x‖ + e.                                                        (1)
//
// The scan itself rounds: integer sums are exact and round when they become floats; float sums of d products, in any
// order, err by γ_d·‖q̂‖·‖x̂‖, γ_d = d·u / (1 − d·u), u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
// 2nd ed., 3.1), and by at most 2⁻¹²⁶ for each operation that flushes a denormal.                                (2)
//
// The score to be bracketed is not the true one but the one `topk` rounds to: ip within γ_(d+8)·‖q‖·‖x‖ of ⟨q, x⟩,
// cosine within 3γ_(d+8), l2 within 3γ_(d+8) of itself relatively, ip and l2 also by d + 8 denormal steps: the bounds
// under which the conformance cases hold every level of `topk`.                                                  (3)
//
// interval() adds (1), (2) and (3) in double and rounds outward to float. filter() is its weaker form in float, linear
// in what is known of a row, for throwing most rows out sixteen at a time; its coefficients are rounded and widened
// so that it never rejects a row whose interval reaches the threshold.
#pragma once

#include <cstdint>

#include "cpu/kernels.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle::cpu {

/// Both ends belong to it; infinite where nothing can be said.
struct Interval {
  float low;
  float high;
};

/// How the scan computes: what (2) adds.
enum class ScanArithmetic {
  kInteger,  // exact sums, then at most three roundings to float
  kFloat,    // float products and sums; bf16 pairs flush denormals
  kDouble    // decoded rows against the float query, in double
};

/// Rows whose norm lies between these take part in the float filter, as do queries; the others always pass it.
constexpr float kSmallestFilteredNorm = 1e-12f;
constexpr float kLargestFilteredNorm = 1e12f;

class ScoreBounds {
 public:
  ScoreBounds() = default;
  /// @param query [dim], finite; @param step scale of the query's codes; @param lost ≥ ‖q − q̂‖
  ScoreBounds(Metric metric, const float* query, int64_t dim, double step, double lost, ScanArithmetic arithmetic);

  /// Holds the score `topk` gives the pair. `sum` = Σ code(q)·code(x) as the scan made it.
  Interval interval(double sum, double scale, double error, double norm) const;

  /// The score of the decoded row, `sum` in double; l2 and cosine take the length of the row that was encoded.
  float decoded_score(double sum, double scale, double norm) const;

  /// Coefficients of the filter; those that depend on the threshold are left to `moving`.
  FilterLine filter() const;
  /// level (ip, l2) or norm weight (cosine) for scores ≥ threshold.
  float moving(float threshold) const;
  bool moves_norm_weight() const { return metric_ == Metric::kCosine; }

 private:
  Metric metric_ = Metric::kInnerProduct;
  bool filterable_ = false;
  double step_ = 1;
  double norm_ = 0;         // ‖q‖, to a few units of double
  double lost_ = 0;         // f
  double scan_gamma_ = 0;   // (2), relative to (‖q‖ + f)(‖x‖ + e)
  double scan_flush_ = 0;   // (2), per unit of scale · step
  double root_dim_ = 0;     // √dim · 2⁻¹²⁶: what flushed inputs lose, per unit of the other vector's length
  double score_gamma_ = 0;  // (3)
  double score_flush_ = 0;  // (3)
};

}  // namespace waggle::cpu
