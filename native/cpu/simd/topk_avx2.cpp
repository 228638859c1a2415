// Blocks of 3 queries × 4 rows: 12 ymm accumulators, 7 loads per 12 fused multiply-adds. Lanes run along the
// dimension and each pair has exactly one accumulator, so its value is the same in every block shape.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kQueries = 3;
constexpr int32_t kRows = 4;

template <bool kL2>
inline __m256 step(__m256 accumulator, __m256 q, __m256 r) {
  if constexpr (kL2) {
    const __m256 difference = _mm256_sub_ps(q, r);
    return _mm256_fmadd_ps(difference, difference, accumulator);
  } else {
    return _mm256_fmadd_ps(q, r, accumulator);
  }
}

inline float reduce(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(s);
}

alignas(32) const int32_t kTailMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

template <bool kL2, int32_t Q, int32_t R>
void block(const float* const* queries, const float* const* rows, int64_t dim, float* out, int64_t ld) {
  __m256 sum[Q][R];
#pragma GCC unroll 8
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) sum[q][r] = _mm256_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    __m256 a[Q];
#pragma GCC unroll 8
    for (int32_t q = 0; q < Q; ++q) a[q] = _mm256_loadu_ps(queries[q] + i);
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const __m256 b = _mm256_loadu_ps(rows[r] + i);
#pragma GCC unroll 8
      for (int32_t q = 0; q < Q; ++q) sum[q][r] = step<kL2>(sum[q][r], a[q], b);
    }
  }
  if (i < dim) {
    const __m256i tail =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTailMask + 8 - static_cast<int32_t>(dim - i)));
    __m256 a[Q];
#pragma GCC unroll 8
    for (int32_t q = 0; q < Q; ++q) a[q] = _mm256_maskload_ps(queries[q] + i, tail);
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const __m256 b = _mm256_maskload_ps(rows[r] + i, tail);
#pragma GCC unroll 8
      for (int32_t q = 0; q < Q; ++q) sum[q][r] = step<kL2>(sum[q][r], a[q], b);
    }
  }
#pragma GCC unroll 8
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const float value = reduce(sum[q][r]);
      out[q * ld + r] = kL2 ? -value : value;
    }
  }
}

template <bool kL2, int32_t Q>
void row_block(const float* const* queries, const float* const* rows, int32_t n_rows, int64_t dim, float* out,
               int64_t ld) {
  switch (n_rows) {
    case 1:
      return block<kL2, Q, 1>(queries, rows, dim, out, ld);
    case 2:
      return block<kL2, Q, 2>(queries, rows, dim, out, ld);
    case 3:
      return block<kL2, Q, 3>(queries, rows, dim, out, ld);
    default:
      return block<kL2, Q, 4>(queries, rows, dim, out, ld);
  }
}

// Rows outside, queries inside: a group of rows stays in L1 while every query of the tile passes over it.
template <bool kL2>
void tile(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows, int64_t dim,
          float* out, int64_t ld) {
  for (int32_t r = 0; r < n_rows; r += kRows) {
    const int32_t nr = n_rows - r < kRows ? n_rows - r : kRows;
    for (int32_t q = 0; q < n_queries; q += kQueries) {
      float* corner = out + q * ld + r;
      switch (n_queries - q) {
        case 1:
          row_block<kL2, 1>(queries + q, rows + r, nr, dim, corner, ld);
          break;
        case 2:
          row_block<kL2, 2>(queries + q, rows + r, nr, dim, corner, ld);
          break;
        default:
          row_block<kL2, 3>(queries + q, rows + r, nr, dim, corner, ld);
          break;
      }
    }
  }
}

void dot_kernel(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows, int64_t dim,
                float* out, int64_t ld) {
  tile<false>(queries, n_queries, rows, n_rows, dim, out, ld);
}

void neg_l2_kernel(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows,
                   int64_t dim, float* out, int64_t ld) {
  tile<true>(queries, n_queries, rows, n_rows, dim, out, ld);
}

int32_t collect_kernel(const float* scores, int32_t n, float threshold, int32_t* out, int32_t* not_finite) {
  const __m256 bound = _mm256_set1_ps(threshold);
  const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  int32_t count = 0;
  *not_finite = -1;
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 s = _mm256_loadu_ps(scores + i);
    const unsigned finite =
        static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_and_ps(s, magnitude), infinity, _CMP_LT_OQ)));
    if (finite != 0xffu && *not_finite < 0) *not_finite = i + __builtin_ctz(~finite);
    unsigned above = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(s, bound, _CMP_GT_OQ))) & finite;
    while (above != 0) {
      out[count++] = i + __builtin_ctz(above);
      above &= above - 1;
    }
  }
  for (; i < n; ++i) {
    if (!__builtin_isfinite(scores[i])) {
      if (*not_finite < 0) *not_finite = i;
    } else if (scores[i] > threshold) {
      out[count++] = i;
    }
  }
  return count;
}

}  // namespace

const TopkKernels kTopkAvx2 = {dot_kernel, neg_l2_kernel, collect_kernel};

}  // namespace waggle::cpu
