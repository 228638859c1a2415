#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

struct Wide {
  struct Lanes {
    __m256 low;
    __m256 high;
  };
  static constexpr int32_t kLanes = 16;
  static inline Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline Lanes all(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static inline void store(float* p, Lanes v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static inline Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static inline Lanes subtract(Lanes a, Lanes b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static inline Lanes multiply(Lanes a, Lanes b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static inline Lanes divide(Lanes a, Lanes b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static inline Lanes root(Lanes v) { return {_mm256_sqrt_ps(v.low), _mm256_sqrt_ps(v.high)}; }
  static inline float sum(Lanes v);
};

#include "cpu/simd/ffm_block.inc"

inline float Wide::sum(Lanes v) { return Eight::sum(_mm256_add_ps(v.low, v.high)); }

}  // namespace

const FfmKernels kFfmAvx2 = {interactions_kernel, learn_kernel};

}  // namespace waggle::cpu
