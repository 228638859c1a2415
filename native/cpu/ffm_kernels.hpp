// What field-aware factorisation machines ask of an instruction set; as kernels.hpp, which includes it.
#pragma once

#include <stdint.h>

namespace waggle::cpu {

/// Sums run in this many lanes, or in as many as a vector has: entry d of a product goes to lane d mod lanes.
constexpr int32_t kFfmLanes = 16;

/// One row. A feature's block holds [n_fields × width] weights, then the sums of squared gradients in the same order;
/// weights past k are 0 and stay 0. `width` is 4, 8 or a multiple of 16.
struct FfmRow {
  float* const* blocks;   // [n]
  const int32_t* fields;  // [n]
  const float* x;         // [n]
  int32_t n;
  int32_t n_fields;
  int32_t width;
};

/// Multiply and add stay separate operations, so all levels give the same bits. With ⟨a, b⟩ the product of a's weights
/// for the field of b with b's weights for the field of a:
struct FfmKernels {
  /// Σ over a < b of xₐ x_b ⟨a, b⟩. For each a, lanes in float over b ascending; the lanes halve until one is left
  /// (lane i + lane i + half); over a in double.
  double (*interactions)(const FfmRow* row);
  /// AdaGrad for each pair, a ascending, then b: with v = slope · (xₐ x_b), g = l2 · w + v · the other's w, both from
  /// weights before this pair; the sums of squares += g²; w −= rate · g / √sum. Of weights that are their own other
  /// (a feature twice in a row) b's are kept.
  void (*learn)(const FfmRow* row, float slope, float rate, float l2);
};

}  // namespace waggle::cpu
