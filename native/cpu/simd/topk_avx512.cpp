// Blocks of 4 queries × 6 rows: 24 zmm accumulators, 10 loads per 24 fused multiply-adds. Lanes run along the
// dimension and each pair has exactly one accumulator, so its value is the same in every block shape.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kQueries = 4;
constexpr int32_t kRows = 6;

template <bool kL2>
inline __m512 step(__m512 accumulator, __m512 q, __m512 r) {
  if constexpr (kL2) {
    const __m512 difference = _mm512_sub_ps(q, r);
    return _mm512_fmadd_ps(difference, difference, accumulator);
  } else {
    return _mm512_fmadd_ps(q, r, accumulator);
  }
}

template <bool kL2, int32_t Q, int32_t R>
void block(const float* const* queries, const float* const* rows, int64_t dim, float* out, int64_t ld) {
  __m512 sum[Q][R];
#pragma GCC unroll 8
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) sum[q][r] = _mm512_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    __m512 a[Q];
#pragma GCC unroll 8
    for (int32_t q = 0; q < Q; ++q) a[q] = _mm512_loadu_ps(queries[q] + i);
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const __m512 b = _mm512_loadu_ps(rows[r] + i);
#pragma GCC unroll 8
      for (int32_t q = 0; q < Q; ++q) sum[q][r] = step<kL2>(sum[q][r], a[q], b);
    }
  }
  if (i < dim) {
    const __mmask16 tail = static_cast<__mmask16>((1u << (dim - i)) - 1u);
    __m512 a[Q];
#pragma GCC unroll 8
    for (int32_t q = 0; q < Q; ++q) a[q] = _mm512_maskz_loadu_ps(tail, queries[q] + i);
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const __m512 b = _mm512_maskz_loadu_ps(tail, rows[r] + i);
#pragma GCC unroll 8
      for (int32_t q = 0; q < Q; ++q) sum[q][r] = step<kL2>(sum[q][r], a[q], b);
    }
  }
#pragma GCC unroll 8
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; ++r) {
      const float value = _mm512_reduce_add_ps(sum[q][r]);
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
    case 4:
      return block<kL2, Q, 4>(queries, rows, dim, out, ld);
    case 5:
      return block<kL2, Q, 5>(queries, rows, dim, out, ld);
    default:
      return block<kL2, Q, 6>(queries, rows, dim, out, ld);
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
        case 3:
          row_block<kL2, 3>(queries + q, rows + r, nr, dim, corner, ld);
          break;
        default:
          row_block<kL2, 4>(queries + q, rows + r, nr, dim, corner, ld);
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
  const __m512 bound = _mm512_set1_ps(threshold);
  const __m512 infinity = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000));
  int32_t count = 0;
  *not_finite = -1;
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = n - i < 16 ? static_cast<__mmask16>((1u << (n - i)) - 1u) : static_cast<__mmask16>(0xffff);
    const __m512 s = _mm512_maskz_loadu_ps(lanes, scores + i);
    const unsigned finite = _mm512_mask_cmp_ps_mask(lanes, _mm512_abs_ps(s), infinity, _CMP_LT_OQ);
    if (finite != lanes && *not_finite < 0) {
      *not_finite = i + __builtin_ctz(lanes & ~finite);
    }
    unsigned above = _mm512_mask_cmp_ps_mask(lanes, s, bound, _CMP_GT_OQ) & finite;
    while (above != 0) {
      out[count++] = i + __builtin_ctz(above);
      above &= above - 1;
    }
  }
  return count;
}

}  // namespace

const TopkKernels kTopkAvx512 = {dot_kernel, neg_l2_kernel, collect_kernel};

}  // namespace waggle::cpu
