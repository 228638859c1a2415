// 14 rows × 32 queries: 28 zmm sums. Turned around: 16 rows at a time, up to 8 queries.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

using Vector = __m512;
constexpr int32_t kLanes = 16;
constexpr int32_t kRowBlock = 14;
constexpr int32_t kFew = 8;
constexpr bool kFetchRowByRow = false;

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline Vector load_tail(const float* p, int32_t n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
}
inline void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector negate(Vector a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }

inline Vector inverse_norm(Vector square) {
  const __mmask16 safe = _mm512_cmp_ps_mask(square, _mm512_set1_ps(kTopkSmallestSafeSquare), _CMP_GE_OQ) &
                         _mm512_cmp_ps_mask(square, _mm512_set1_ps(kTopkLargestSafeSquare), _CMP_LE_OQ);
  return _mm512_mask_div_ps(_mm512_set1_ps(__builtin_nanf("")), safe, _mm512_set1_ps(1.0f), _mm512_sqrt_ps(square));
}

inline unsigned above(Vector score, Vector threshold) {
  // "Not less or equal" is also true of NaN, and of +infinity.
  const Vector lowest = _mm512_set1_ps(-__FLT_MAX__);
  return static_cast<unsigned>(_mm512_cmp_ps_mask(score, threshold, _CMP_NLE_UQ)) |
         static_cast<unsigned>(_mm512_cmp_ps_mask(score, lowest, _CMP_LT_OQ));
}

inline int32_t keep(unsigned mask, Vector score, int32_t first_place, int32_t place_step, int32_t count,
                    const TopkTile* t) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i place =
      _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(place_step)), _mm512_set1_epi32(first_place));
  // Compressed in a register: compressing into memory is microcode on some processors.
  const __mmask16 m = static_cast<__mmask16>(mask);
  _mm512_storeu_si512(t->hit_places + count, _mm512_maskz_compress_epi32(m, place));
  _mm512_storeu_ps(t->hit_scores + count, _mm512_maskz_compress_ps(m, score));
  return count + __builtin_popcount(mask);
}

// Four columns of 16 rows: 128-bit quarters {r, r + 4, r + 8, r + 12}, then a 4 × 4 transposition in each quarter.
inline void turn(Vector a, Vector b, Vector c, Vector d, Vector (&out)[4]) {
  const __m512d ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
  const __m512d ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
  const __m512d cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
  const __m512d cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
  out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low));
  out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low));
  out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
  out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
}

inline Vector quarters(__m128 a, __m128 b, __m128 c, __m128 d) {
  Vector v = _mm512_castps128_ps512(a);
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, b);
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, c);
  return _mm512_mask_broadcast_f32x4(v, 0xf000, d);
}

inline void columns(const float* const* rows, int64_t i, Vector (&out)[4]) {
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) {
    v[r] = quarters(_mm_loadu_ps(rows[r] + i), _mm_loadu_ps(rows[r + 4] + i), _mm_loadu_ps(rows[r + 8] + i),
                    _mm_loadu_ps(rows[r + 12] + i));
  }
  turn(v[0], v[1], v[2], v[3], out);
}

inline void columns_tail(const float* const* rows, int64_t i, int32_t n, Vector (&out)[4]) {
  const __mmask8 m = static_cast<__mmask8>((1u << n) - 1u);
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) {
    v[r] = quarters(_mm_maskz_loadu_ps(m, rows[r] + i), _mm_maskz_loadu_ps(m, rows[r + 4] + i),
                    _mm_maskz_loadu_ps(m, rows[r + 8] + i), _mm_maskz_loadu_ps(m, rows[r + 12] + i));
  }
  turn(v[0], v[1], v[2], v[3], out);
}

#include "cpu/simd/topk_block.inc"

}  // namespace

const TopkKernels kTopkAvx512 = {2 * kLanes,    kLanes,     kFew,          wide_kernel,
                                 narrow_kernel, few_kernel, scores_kernel, factors_kernel};

}  // namespace waggle::cpu
