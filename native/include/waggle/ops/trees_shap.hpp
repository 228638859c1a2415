// Shapley values of a tree ensemble: how much each feature moved each row's score.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/trees.hpp"

namespace waggle {

struct TreesShapArgs {
  const trees::Model* model = nullptr;
  const float* x = nullptr;  // [n_rows × n_features], row-major; NaN = missing
  int64_t n_rows = 0;
  /// Rows that stand for "the feature is not known"; n_background = 0: the covers of the trees stand for it.
  const float* background = nullptr;  // [n_background × n_features]
  int64_t n_background = 0;
  /// Most threads that may work on it; 0 = as many as the pool has.
  int32_t threads = 0;
  double* out = nullptr;  // [n_rows × n_targets × (n_features + 1)]; the last one is the expected score
};

/// The game's value of a set S of features is a score of the row of which only S is known. What an unknown feature does
/// at a split is told
/// - without a background by the covers: the row goes both ways, weighted by how the training data went (path-dependent
///   TreeSHAP; Lundberg et al., Nature Machine Intelligence 2020, Algorithm 1 and 2). kModel when the model has none;
/// - with a background by its rows: the mean over them of the score with the background's value for every unknown
/// feature
///   (interventional TreeSHAP, ibid., Algorithm 3).
/// Scores are those before the transform. A row's values and the expected score add up to its score, to rounding in
/// double; a feature on no path has 0. The same bits at every batch size, thread count and SIMD level of one machine.
/// O(n_rows · nodes · min(depth, features)), with a background O(n_rows · n_background · nodes) at most.
Status trees_shap(const TreesShapArgs& args, const RunContext& context);

}  // namespace waggle
