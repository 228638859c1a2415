// Sums of products in the CPU's order (cpu/kernels.hpp, kTopkDepth), so that they have its bits: in float a chain of
// fused multiply-adds per 512 dimensions and the chains in order, as its vector levels do; in double one after the
// other, as its scalar level does.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace waggle::cuda {

constexpr int kChainDim = 512;

template <bool kDouble>
struct ChainOf {
  using Type = float;
};
template <>
struct ChainOf<true> {
  using Type = double;
};
template <bool kDouble>
using Chain = typename ChainOf<kDouble>::Type;

/// One more product, or with kL2 the square of a difference.
template <bool kDouble, bool kL2>
__device__ inline Chain<kDouble> add_term(Chain<kDouble> sum, float query, float row) {
  if constexpr (kDouble) {
    const double a = query;
    const double b = row;
    // Products of floats are exact in double; squares of differences are not.
    if constexpr (!kL2) return __dadd_rn(sum, __dmul_rn(a, b));
    const double difference = __dadd_rn(a, -b);
    return __dadd_rn(sum, __dmul_rn(difference, difference));
  } else {
    if constexpr (!kL2) return __fmaf_rn(query, row, sum);
    const float difference = __fadd_rn(query, -row);
    return __fmaf_rn(difference, difference, sum);
  }
}

/// Ends a chain where one ends: dimension `at` comes next.
template <bool kDouble>
__device__ inline void next_chain(Chain<kDouble>* sum, float* total, int64_t at) {
  if constexpr (!kDouble) {
    if (at == 0 || at % kChainDim != 0) return;
    *total = at == kChainDim ? *sum : __fadd_rn(*total, *sum);
    *sum = 0;
  }
}

/// The whole sum, in float.
template <bool kDouble>
__device__ inline float end_chains(Chain<kDouble> sum, float total, int64_t dim) {
  if constexpr (kDouble) {
    return static_cast<float>(sum);
  } else {
    return dim > kChainDim ? __fadd_rn(total, sum) : sum;
  }
}

}  // namespace waggle::cuda
