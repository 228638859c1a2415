// Exact nearest rows from a low-precision scan.
#pragma once

#include <cstdint>

#include "waggle/ops/encode.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle {

struct TopkEncodedArgs {
  Matrix<const float> queries;  // [n_queries × dim]
  EncodedMatrix encoded;        // [n_rows × dim]
  /// The floats that `encoded` was made from; data null = dropped to save memory, or kept as `encoded.lower`.
  Matrix<const float> matrix;
  int32_t k = 0;  // 1 … kTopkMaxK
  Metric metric = Metric::kInnerProduct;
  RowFilter filter;
  float* scores = nullptr;          // [n_queries × k], best first, -infinity pads
  int32_t* rows = nullptr;          // [n_queries × k], -1 pads
  int32_t* n_in_doubt = nullptr;    // [n_queries], may be null
  uint8_t* is_certified = nullptr;  // [n_queries], may be null

  bool has_floats() const { return matrix.data != nullptr || encoded.lower != nullptr; }
};

struct TopkEncodedReport {
  /// Every query's rows are those of `topk`, in the same order.
  bool certified = false;
  /// Pairs whose score was computed from floats (or, without them, from decoded rows). All pairs of allowed rows where
  /// floats are sooner: where queries share few rows, or are many and the floats lie in halves.
  int64_t n_rescored = 0;
};

/// With `matrix` or `encoded.lower`: what `topk` on the CPU answers, bit for bit, scores and ties included;
/// is_certified is 1 and n_in_doubt 0 for each query, and whatever `topk` refuses is refused. Every row whose score
/// could, within its error bound, be among the k best is re-scored from the floats (cpu/score_bounds.hpp derives the
/// bound).
///
/// Without either: the k best rows by the score of the decoded row, ⟨q, x̂⟩ in double (cosine and l2 take ‖x‖ from
/// `norm`), ties to the lower row. n_in_doubt[q] counts the rows that may or may not be among `topk`'s k best: neither
/// sure to be in nor sure to be out. is_certified[q] is 1 when the rows and their order are surely those of `topk`;
/// scores are approximate in any case.
///
/// O(n_queries · n_rows · dim) in low precision; scratch below 64 MB whatever the sizes.
Status topk_encoded(const TopkEncodedArgs& args, const RunContext& context, TopkEncodedReport* report);

}  // namespace waggle
