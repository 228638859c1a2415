// 6 rows × 16 queries: 12 ymm sums. Turned around: 8 rows at a time, up to 7 queries.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

using Vector = __m256;
constexpr int32_t kLanes = 8;
constexpr int32_t kRowBlock = 6;
constexpr int32_t kFew = 7;
constexpr bool kFetchRowByRow = true;

alignas(32) const int32_t kTailMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector broadcast(const float* p) { return _mm256_broadcast_ss(p); }
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline Vector load_tail(const float* p, int32_t n) {
  return _mm256_maskload_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTailMask + 8 - n)));
}
inline void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector negate(Vector a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }

inline Vector inverse_norm(Vector square) {
  const Vector safe = _mm256_and_ps(_mm256_cmp_ps(square, _mm256_set1_ps(kTopkSmallestSafeSquare), _CMP_GE_OQ),
                                    _mm256_cmp_ps(square, _mm256_set1_ps(kTopkLargestSafeSquare), _CMP_LE_OQ));
  const Vector inverse = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(square));
  return _mm256_blendv_ps(_mm256_set1_ps(__builtin_nanf("")), inverse, safe);
}

inline unsigned above(Vector score, Vector threshold) {
  // "Not less or equal" is also true of NaN, and of +infinity.
  const Vector lowest = _mm256_set1_ps(-__FLT_MAX__);
  return static_cast<unsigned>(_mm256_movemask_ps(
      _mm256_or_ps(_mm256_cmp_ps(score, threshold, _CMP_NLE_UQ), _mm256_cmp_ps(score, lowest, _CMP_LT_OQ))));
}

#include "cpu/simd/topk_keep.inc"

// Four columns of 8 rows: 128-bit halves {r, r + 4}, then a 4 × 4 transposition in each half.
inline void turn(Vector a, Vector b, Vector c, Vector d, Vector (&out)[4]) {
  const __m256d ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
  const __m256d ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
  const __m256d cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
  const __m256d cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
  out[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low));
  out[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low));
  out[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high));
  out[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high));
}

inline Vector halves(__m128 a, __m128 b) { return _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1); }

inline void columns(const float* const* rows, int64_t i, Vector (&out)[4]) {
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) v[r] = halves(_mm_loadu_ps(rows[r] + i), _mm_loadu_ps(rows[r + 4] + i));
  turn(v[0], v[1], v[2], v[3], out);
}

inline void columns_tail(const float* const* rows, int64_t i, int32_t n, Vector (&out)[4]) {
  const __m128i m = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kTailMask + 8 - n));
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) v[r] = halves(_mm_maskload_ps(rows[r] + i, m), _mm_maskload_ps(rows[r + 4] + i, m));
  turn(v[0], v[1], v[2], v[3], out);
}

#include "cpu/simd/topk_block.inc"

}  // namespace

const TopkKernels kTopkAvx2 = {2 * kLanes,    kLanes,     kFew,          wide_kernel,
                               narrow_kernel, few_kernel, scores_kernel, factors_kernel};

}  // namespace waggle::cpu
