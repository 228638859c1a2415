// Blocks of up to 8 queries × 2 groups of sixteen rows. With VNNI one instruction multiplies and adds sixty-four bytes;
// without it, bytes are widened to sixteen bits first. Lanes are rows: nothing is summed across them.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr float kSmallest = 1e-30f;

inline __mmask16 lanes_of(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1u); }

inline __m512 residual(const float* x, __m512 factor, const float* centre, int64_t i, __mmask16 lanes, __m512* c) {
  *c = centre == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, centre + i);
  return _mm512_sub_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), factor), *c);
}

void encode_kernel(const float* x, float factor_value, const float* centre, int64_t dim, int64_t quads, int8_t* codes,
                   IvfEncoding* out) {
  const __m512 factor = _mm512_set1_ps(factor_value);
  __m512 largest_lanes = _mm512_setzero_ps();
  __m512 square = _mm512_setzero_ps();
  __m512 along = _mm512_setzero_ps();
  __m512 c;
  for (int64_t i = 0; i < dim; i += 16) {
    const __m512 v = residual(x, factor, centre, i, lanes_of(dim - i), &c);
    largest_lanes = _mm512_max_ps(largest_lanes, _mm512_abs_ps(v));
    square = _mm512_fmadd_ps(v, v, square);
    along = _mm512_fmadd_ps(v, c, along);
  }
  const float largest = _mm512_reduce_max_ps(largest_lanes);
  out->square = _mm512_reduce_add_ps(square);
  out->along = _mm512_reduce_add_ps(along);
  const bool zero = !(largest >= kSmallest);
  out->scale = zero ? 0.0f : largest / 127.0f;
  const __m512 inverse = _mm512_set1_ps(zero ? 0.0f : 127.0f / largest);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < 4 * quads; i += 16) {
    const __m512 v = residual(x, factor, centre, i, i < dim ? lanes_of(dim - i) : static_cast<__mmask16>(0), &c);
    const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
    sum = _mm512_add_epi32(sum, code);
    const __m128i bytes = _mm512_cvtepi32_epi8(code);
    if (i + 16 <= 4 * quads) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), bytes);
    } else {
      _mm_mask_storeu_epi8(codes + i, lanes_of(4 * quads - i), bytes);
    }
  }
  out->sum = _mm512_reduce_add_epi32(sum);
}

inline __m512i quad_of(const int8_t* query, int64_t quad) {
  int32_t four;
  __builtin_memcpy(&four, query + quad * 4, 4);
  return _mm512_set1_epi32(four);
}

template <int Q, int G>
__attribute__((target("avx512vnni"))) void vnni_block(const uint8_t* groups, const int8_t* queries, const int32_t* sums,
                                                      int64_t quads, int32_t* out, int64_t ld) {
  __m512i sum[Q][G];
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) sum[q][g] = _mm512_set1_epi32(-128 * sums[q]);
  }
  const int64_t stride = quads * 64;
  for (int64_t quad = 0; quad < quads; ++quad) {
    __m512i rows[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) rows[g] = _mm512_loadu_si512(groups + g * stride + quad * 64);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      const __m512i query = quad_of(queries + q * quads * 4, quad);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[q][g] = _mm512_dpbusd_epi32(sum[q][g], rows[g], query);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) _mm512_storeu_si512(out + q * ld + g * kIvfGroup, sum[q][g]);
  }
}

// Sixteen bits: the two products of a lane stay in two lanes of 32 bits until the end.
template <int Q, int G>
void wide_block(const uint8_t* groups, const int8_t* queries, const int32_t* sums, int64_t quads, int32_t* out,
                int64_t ld) {
  __m512i low[Q][G];
  __m512i high[Q][G];
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) low[q][g] = high[q][g] = _mm512_setzero_si512();
  }
  const int64_t stride = quads * 64;
  for (int64_t quad = 0; quad < quads; ++quad) {
    __m512i first[G];
    __m512i second[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const uint8_t* block = groups + g * stride + quad * 64;
      first[g] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block)));
      second[g] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 32)));
    }
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      const __m512i query = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(quad_of(queries + q * quads * 4, quad)));
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        low[q][g] = _mm512_add_epi32(low[q][g], _mm512_madd_epi16(first[g], query));
        high[q][g] = _mm512_add_epi32(high[q][g], _mm512_madd_epi16(second[g], query));
      }
    }
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) {
    const __m512i start = _mm512_set1_epi32(-128 * sums[q]);
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const __m512i total = _mm512_add_epi32(_mm512_permutex2var_epi32(low[q][g], even, high[q][g]),
                                             _mm512_permutex2var_epi32(low[q][g], odd, high[q][g]));
      _mm512_storeu_si512(out + q * ld + g * kIvfGroup, _mm512_add_epi32(total, start));
    }
  }
}

using Block = void (*)(const uint8_t*, const int8_t*, const int32_t*, int64_t, int32_t*, int64_t);

// Groups outside, queries inside: two groups stay in L1 while every query of the call passes over them. A lone query
// takes four groups at a time, since one chain of additions per group would wait for itself.
inline void dots(const Block (&by_count)[8], int32_t most, Block wide_one, const uint8_t* groups, int64_t n_groups,
                 const int8_t* queries, const int32_t* sums, int32_t n_queries, int64_t quads, int32_t* out, int64_t ld,
                 const Block (&single_group)[8]) {
  int64_t g = 0;
  if (n_queries == 1) {
    for (; g + 4 <= n_groups; g += 4) wide_one(groups + g * quads * 64, queries, sums, quads, out + g * kIvfGroup, ld);
  }
  for (; g < n_groups; g += 2) {
    const Block* blocks = g + 2 <= n_groups ? by_count : single_group;
    for (int32_t q = 0; q < n_queries; q += most) {
      const int32_t nq = n_queries - q < most ? n_queries - q : most;
      blocks[nq - 1](groups + g * quads * 64, queries + q * quads * 4, sums + q, quads, out + q * ld + g * kIvfGroup,
                     ld);
    }
  }
}

void vnni_dots_kernel(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t* sums,
                      int32_t n_queries, int64_t quads, int32_t* out, int64_t ld) {
  static constexpr Block kPairs[8] = {vnni_block<1, 2>, vnni_block<2, 2>, vnni_block<3, 2>, vnni_block<4, 2>,
                                      vnni_block<5, 2>, vnni_block<6, 2>, vnni_block<7, 2>, vnni_block<8, 2>};
  static constexpr Block kSingles[8] = {vnni_block<1, 1>, vnni_block<2, 1>, vnni_block<3, 1>, vnni_block<4, 1>,
                                        vnni_block<5, 1>, vnni_block<6, 1>, vnni_block<7, 1>, vnni_block<8, 1>};
  dots(kPairs, 8, vnni_block<1, 4>, groups, n_groups, queries, sums, n_queries, quads, out, ld, kSingles);
}

void wide_dots_kernel(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t* sums,
                      int32_t n_queries, int64_t quads, int32_t* out, int64_t ld) {
  static constexpr Block kPairs[8] = {wide_block<1, 2>, wide_block<2, 2>, wide_block<3, 2>, wide_block<4, 2>};
  static constexpr Block kSingles[8] = {wide_block<1, 1>, wide_block<2, 1>, wide_block<3, 1>, wide_block<4, 1>};
  dots(kPairs, 4, wide_block<1, 4>, groups, n_groups, queries, sums, n_queries, quads, out, ld, kSingles);
}

inline __m512 scores_of(const int32_t* dots, const float* scale, const float* bias, int32_t i, __mmask16 lanes,
                        __m512 query_scale) {
  const __m512 dot = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(lanes, dots + i));
  const __m512 product = _mm512_mul_ps(dot, _mm512_mul_ps(query_scale, _mm512_maskz_loadu_ps(lanes, scale + i)));
  return _mm512_add_ps(product, _mm512_maskz_loadu_ps(lanes, bias + i));
}

int32_t collect_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                       float base, float threshold, int32_t* rows, float* scores) {
  const __m512 by_query = _mm512_set1_ps(query_scale);
  const __m512 start = _mm512_set1_ps(base);
  const __m512 bound = _mm512_set1_ps(threshold);
  const __m512i ascending = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int32_t count = 0;
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_of(n - i);
    const __m512 score = _mm512_add_ps(start, scores_of(dots, scale, bias, i, lanes, by_query));
    const __mmask16 above = _mm512_mask_cmp_ps_mask(lanes, score, bound, _CMP_GT_OQ);
    if (above == 0) continue;
    _mm512_storeu_ps(scores + count, _mm512_maskz_compress_ps(above, score));
    _mm512_storeu_si512(rows + count,
                        _mm512_maskz_compress_epi32(above, _mm512_add_epi32(ascending, _mm512_set1_epi32(i))));
    count += __builtin_popcount(above);
  }
  return count;
}

void best_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                 int32_t first, float* score, int32_t* row) {
  const __m512 by_query = _mm512_set1_ps(query_scale);
  __m512 best = _mm512_set1_ps(*score);
  __m512i at = _mm512_set1_epi32(-1);
  const __m512i ascending = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_of(n - i);
    const __m512 value = scores_of(dots, scale, bias, i, lanes, by_query);
    const __mmask16 above = _mm512_mask_cmp_ps_mask(lanes, value, best, _CMP_GT_OQ);
    best = _mm512_mask_mov_ps(best, above, value);
    at = _mm512_mask_mov_epi32(at, above, _mm512_add_epi32(ascending, _mm512_set1_epi32(i)));
  }
  float values[16];
  int32_t places[16];
  _mm512_storeu_ps(values, best);
  _mm512_storeu_si512(places, at);
  int32_t winner = -1;
  for (int32_t lane = 0; lane < 16; ++lane) {
    if (places[lane] < 0) continue;
    if (values[lane] > *score || (winner >= 0 && values[lane] == *score && places[lane] < winner)) {
      *score = values[lane];
      winner = places[lane];
    }
  }
  if (winner >= 0) *row = first + winner;
}

}  // namespace

const IvfKernels kIvfAvx512 = {encode_kernel, wide_dots_kernel, collect_kernel, best_kernel};
const IvfKernels kIvfAvx512Vnni = {encode_kernel, vnni_dots_kernel, collect_kernel, best_kernel};

}  // namespace waggle::cpu
