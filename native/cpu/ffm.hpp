// Field-aware factorisation machines, one row at a time, over the kernels of a level.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/table.hpp"
#include "waggle/ffm.hpp"

namespace waggle::cpu {

/// A weight and the sum of its squared gradients.
struct FfmLinear {
  float weight;
  float square;
};

/// The weights of a model, borrowed.
struct FfmWeights {
  float* blocks = nullptr;      // [n_features × 2 · n_fields · width], see ffm_kernels.hpp
  FfmLinear* linear = nullptr;  // [n_features], null = none
  double* intercept = nullptr;  // weight, sum of squares; null = none
  int32_t n_fields = 0;
  int32_t width = 0;
  bool normalize = false;
  float rate = 0;
  float l2 = 0;
  float linear_l2 = 0;

  int64_t stride() const { return int64_t{2} * n_fields * width; }
  float* block(int64_t feature) const { return blocks + feature * stride(); }
};

/// Lanes that k weights take.
constexpr int32_t ffm_width(int32_t k) { return k <= 4 ? 4 : k <= 8 ? 8 : (k + kFfmLanes - 1) / kFfmLanes * kFfmLanes; }

/// Room for one row.
struct FfmScratch {
  std::vector<float*> blocks;
  std::vector<int32_t> fields;
  std::vector<float> x;

  explicit FfmScratch(int32_t longest)
      : blocks(static_cast<size_t>(longest)), fields(static_cast<size_t>(longest)), x(static_cast<size_t>(longest)) {}
};

struct FfmSum {
  double weight = 0;
  double loss = 0;
};

/// The linear predictor of a row.
double ffm_predictor(const FfmKernels& kernels, const FfmWeights& weights, const SparseRows& rows, int64_t row,
                     double offset, FfmScratch& scratch);

/// The loss of a row, added to `sum`, then one step of AdaGrad.
void ffm_learn(const FfmKernels& kernels, const FfmWeights& weights, const SparseRows& rows,
               const SparseTargets& targets, int64_t row, FfmScratch& scratch, FfmSum* sum);

/// Asks for what a row will touch.
void ffm_prefetch(const FfmWeights& weights, const SparseRows& rows, int64_t row);

}  // namespace waggle::cpu
