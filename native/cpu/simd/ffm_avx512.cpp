#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

struct Wide {
  typedef __m512 Lanes;
  static constexpr int32_t kLanes = 16;
  static inline Lanes zero() { return _mm512_setzero_ps(); }
  static inline Lanes all(float v) { return _mm512_set1_ps(v); }
  static inline Lanes load(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store(float* p, Lanes v) { _mm512_storeu_ps(p, v); }
  static inline Lanes add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
  static inline Lanes subtract(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
  static inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
  static inline Lanes divide(Lanes a, Lanes b) { return _mm512_div_ps(a, b); }
  static inline Lanes root(Lanes v) { return _mm512_sqrt_ps(v); }
  static inline float sum(Lanes v);
};

#include "cpu/simd/ffm_block.inc"

inline float Wide::sum(Lanes v) {
  return Eight::sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

}  // namespace

const FfmKernels kFfmAvx512 = {interactions_kernel, learn_kernel};

}  // namespace waggle::cpu
