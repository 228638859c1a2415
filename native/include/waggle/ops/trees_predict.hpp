// Predictions of a tree ensemble for a batch of rows.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/trees.hpp"
#include "waggle/view.hpp"

namespace waggle {

struct TreesPredictArgs {
  const trees::Model* model = nullptr;
  const float* x = nullptr;  // [n_rows × n_features], row-major; NaN = missing
  int64_t n_rows = 0;
  /// true = scores without the transform: n_targets outputs per row.
  bool raw = false;
  /// Most threads that may work on it; 0 = as many as the pool has.
  int32_t threads = 0;
  float* out = nullptr;  // [n_rows × (raw ? n_targets : n_outputs)]
};

/// Leaves are summed in double in the order of the trees, whatever the layout, the batch and the number of threads:
/// a row's answer has the same bits at every batch size, thread count and SIMD level of one machine. Decisions are
/// those of the formats' own libraries on every float, boundary values and NaN included. Against them the sum differs
/// by their rounding: at most n_trees · 2⁻²⁴ · Σ|leaf| where they add in float.
/// O(n_rows · n_trees · depth) or better.
Status trees_predict(const TreesPredictArgs& args, const RunContext& context);

}  // namespace waggle
