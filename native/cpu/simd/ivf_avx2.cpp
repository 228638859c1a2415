// Blocks of up to 2 queries × 1 group of sixteen rows: bytes are widened to sixteen bits, and the two products of a row
// stay in two lanes until the end.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr float kSmallest = 1e-30f;
constexpr int32_t kQueries = 2;

inline float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline float largest_of(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline __m256i first_lanes(int64_t n) {
  const __m256i ascending = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : static_cast<int32_t>(n)), ascending);
}

inline __m256 residual(const float* x, __m256 factor, const float* centre, int64_t i, __m256i lanes, __m256* c) {
  *c = centre == nullptr ? _mm256_setzero_ps() : _mm256_maskload_ps(centre + i, lanes);
  return _mm256_sub_ps(_mm256_mul_ps(_mm256_maskload_ps(x + i, lanes), factor), *c);
}

void encode_kernel(const float* x, float factor_value, const float* centre, int64_t dim, int64_t quads, int8_t* codes,
                   IvfEncoding* out) {
  const __m256 factor = _mm256_set1_ps(factor_value);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest_lanes = _mm256_setzero_ps();
  __m256 square = _mm256_setzero_ps();
  __m256 along = _mm256_setzero_ps();
  __m256 c;
  for (int64_t i = 0; i < dim; i += 8) {
    const __m256 v = residual(x, factor, centre, i, first_lanes(dim - i), &c);
    largest_lanes = _mm256_max_ps(largest_lanes, _mm256_andnot_ps(sign, v));
    square = _mm256_fmadd_ps(v, v, square);
    along = _mm256_fmadd_ps(v, c, along);
  }
  const float largest = largest_of(largest_lanes);
  out->square = sum_of(square);
  out->along = sum_of(along);
  const bool zero = !(largest >= kSmallest);
  out->scale = zero ? 0.0f : largest / 127.0f;
  const __m256 inverse = _mm256_set1_ps(zero ? 0.0f : 127.0f / largest);
  int32_t sum = 0;
  for (int64_t i = 0; i < 4 * quads; i += 8) {
    const __m256 v = residual(x, factor, centre, i, first_lanes(dim > i ? dim - i : 0), &c);
    int32_t eight[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(eight), _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
    for (int64_t j = 0; j < 8 && i + j < 4 * quads; ++j) {
      codes[i + j] = static_cast<int8_t>(eight[j]);
      sum += eight[j];
    }
  }
  out->sum = sum;
}

template <int Q>
void block(const uint8_t* group, const int8_t* queries, const int32_t* sums, int64_t quads, int32_t* out, int64_t ld) {
  __m256i sum[Q][4];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) sum[q][part] = _mm256_setzero_si256();
  }
  for (int64_t quad = 0; quad < quads; ++quad) {
    __m256i query[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      int32_t four;
      __builtin_memcpy(&four, queries + (q * quads + quad) * 4, 4);
      query[q] = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
    }
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const __m256i rows =
          _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group + quad * 64 + part * 16)));
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) {
        sum[q][part] = _mm256_add_epi32(sum[q][part], _mm256_madd_epi16(rows, query[q]));
      }
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
    const __m256i start = _mm256_set1_epi32(-128 * sums[q]);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      // hadd works within halves of 128 bits: rows 0 1 4 5 | 2 3 6 7, put back in order by 64-bit lanes.
      const __m256i mixed = _mm256_hadd_epi32(sum[q][2 * half], sum[q][2 * half + 1]);
      const __m256i rows = _mm256_permute4x64_epi64(mixed, 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + q * ld + half * 8), _mm256_add_epi32(rows, start));
    }
  }
}

void dots_kernel(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t* sums, int32_t n_queries,
                 int64_t quads, int32_t* out, int64_t ld) {
  for (int64_t g = 0; g < n_groups; ++g) {
    const uint8_t* group = groups + g * quads * 64;
    int32_t* to = out + g * kIvfGroup;
    int32_t q = 0;
    for (; q + kQueries <= n_queries; q += kQueries) {
      block<kQueries>(group, queries + q * quads * 4, sums + q, quads, to + q * ld, ld);
    }
    if (q < n_queries) block<1>(group, queries + q * quads * 4, sums + q, quads, to + q * ld, ld);
  }
}

inline __m256 scores_of(const int32_t* dots, const float* scale, const float* bias, int32_t i, __m256i lanes,
                        __m256 query_scale) {
  const __m256 dot = _mm256_cvtepi32_ps(_mm256_maskload_epi32(dots + i, lanes));
  const __m256 product = _mm256_mul_ps(dot, _mm256_mul_ps(query_scale, _mm256_maskload_ps(scale + i, lanes)));
  return _mm256_add_ps(product, _mm256_maskload_ps(bias + i, lanes));
}

int32_t collect_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                       float base, float threshold, int32_t* rows, float* scores) {
  const __m256 by_query = _mm256_set1_ps(query_scale);
  const __m256 start = _mm256_set1_ps(base);
  const __m256 bound = _mm256_set1_ps(threshold);
  int32_t count = 0;
  for (int32_t i = 0; i < n; i += 8) {
    const __m256i lanes = first_lanes(n - i);
    const __m256 score = _mm256_add_ps(start, scores_of(dots, scale, bias, i, lanes, by_query));
    const __m256 above = _mm256_and_ps(_mm256_cmp_ps(score, bound, _CMP_GT_OQ), _mm256_castsi256_ps(lanes));
    unsigned bits = static_cast<unsigned>(_mm256_movemask_ps(above));
    if (bits == 0) continue;
    float eight[8];
    _mm256_storeu_ps(eight, score);
    for (; bits != 0; bits &= bits - 1) {
      const int32_t lane = __builtin_ctz(bits);
      rows[count] = i + lane;
      scores[count++] = eight[lane];
    }
  }
  return count;
}

void best_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                 int32_t first, float* score, int32_t* row) {
  const __m256 by_query = _mm256_set1_ps(query_scale);
  const __m256i ascending = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 best = _mm256_set1_ps(*score);
  __m256i at = _mm256_set1_epi32(-1);
  for (int32_t i = 0; i < n; i += 8) {
    const __m256i lanes = first_lanes(n - i);
    const __m256 value = scores_of(dots, scale, bias, i, lanes, by_query);
    const __m256 above = _mm256_and_ps(_mm256_cmp_ps(value, best, _CMP_GT_OQ), _mm256_castsi256_ps(lanes));
    best = _mm256_blendv_ps(best, value, above);
    const __m256i here = _mm256_add_epi32(ascending, _mm256_set1_epi32(i));
    at = _mm256_blendv_epi8(at, here, _mm256_castps_si256(above));
  }
  float values[8];
  int32_t places[8];
  _mm256_storeu_ps(values, best);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(places), at);
  int32_t winner = -1;
  for (int32_t lane = 0; lane < 8; ++lane) {
    if (places[lane] < 0) continue;
    if (values[lane] > *score || (winner >= 0 && values[lane] == *score && places[lane] < winner)) {
      *score = values[lane];
      winner = places[lane];
    }
  }
  if (winner >= 0) *row = first + winner;
}

}  // namespace

const IvfKernels kIvfAvx2 = {encode_kernel, dots_kernel, collect_kernel, best_kernel};

}  // namespace waggle::cpu
