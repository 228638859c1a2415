// Exact nearest rows.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int32_t kTopkMaxK = 2048;

enum class Metric : int32_t {
  kInnerProduct = 0,
  kCosine = 1,
  /// Score is the negative squared distance.
  kL2 = 2,
};

struct TopkArgs {
  Matrix<const float> queries;  // [n_queries × dim]
  Matrix<const float> matrix;   // [n_rows × dim]
  int32_t k = 0;                // 1 … kTopkMaxK
  Metric metric = Metric::kInnerProduct;
  RowFilter filter;         // bitmaps of ≥ ceil(n_rows / 8) bytes, or a list of rows
  float* scores = nullptr;  // [n_queries × k], best first, -infinity pads
  int32_t* rows = nullptr;  // [n_queries × k], -1 pads
};

/// The k best rows of each query by score, ties to the lower row. The score of a pair does not depend on how
/// the work was split, so neither does the answer. A zero vector has cosine 0 with everything. Any score
/// that is not finite is kNotFinite. O(n_queries · n_rows · dim), or of the allowed rows alone under a filter.
/// A list out of order, with repeats or out of range is kInvalidArgument.
Status topk(const TopkArgs& args, const RunContext& context);

/// What every operation with a RowFilter demands of it: kInvalidArgument for two filters at once or a bad list,
/// kShape for bitmaps that are too short. O(1), or the length of the list.
Status check_filter(const RowFilter& filter, int64_t n_queries, int64_t n_rows);

}  // namespace waggle
