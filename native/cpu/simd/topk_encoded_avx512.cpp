#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/scan_avx512.inc"

struct FloatOp : FloatSums {
  static constexpr int64_t kValues = 1;
  static constexpr int64_t kBytes = 2;
  static inline __m512i step(__m512i sum, __m512i row, __m512i query) {
    return _mm512_castps_si512(
        _mm512_fmadd_ps(_mm512_castsi512_ps(row), _mm512_castsi512_ps(query), _mm512_castsi512_ps(sum)));
  }
};

struct F16 : FloatOp {
  static inline __m512i load(const void* row, int64_t i) {
    const uint16_t* p = static_cast<const uint16_t*>(row) + i;
    return _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static inline __m512i load(const void* row, int64_t i, int64_t n) {
    const uint16_t* p = static_cast<const uint16_t*>(row) + i;
    return _mm512_castps_si512(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first16(n), p)));
  }
};

struct Bf16 : FloatOp {
  static inline __m512i load(const void* row, int64_t i) {
    const uint16_t* p = static_cast<const uint16_t*>(row) + i;
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16);
  }
  static inline __m512i load(const void* row, int64_t i, int64_t n) {
    const uint16_t* p = static_cast<const uint16_t*>(row) + i;
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first16(n), p)), 16);
  }
};

// Without VNNI: pairs of 16-bit codes, so the query keeps 15 bits.
struct Int8 : IntegerSums {
  static constexpr int64_t kValues = 2;
  static constexpr int64_t kBytes = 1;
  static inline __m512i load(const void* row, int64_t i) {
    const int8_t* p = static_cast<const int8_t*>(row) + i;
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static inline __m512i load(const void* row, int64_t i, int64_t n) {
    const int8_t* p = static_cast<const int8_t*>(row) + i;
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(first32(n), p));
  }
  static inline __m512i step(__m512i sum, __m512i row, __m512i query) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(row, query));
  }
};

int32_t collect_kernel(const void* sums, const void* low_sums, int32_t integer, const float* scale, const float* error,
                       const float* norm, int32_t n, const FilterLine* line, int32_t* out, float* out_sums) {
  const __m512 slope = _mm512_set1_ps(line->slope);
  const __m512 error_weight = _mm512_set1_ps(line->error_weight);
  const __m512 norm_weight = _mm512_set1_ps(line->norm_weight);
  const __m512 square_weight = _mm512_set1_ps(line->square_weight);
  const __m512 level = _mm512_set1_ps(line->level);
  int32_t count = 0;
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first16(n - i);
    __m512 sum;
    if (integer == 0) {
      sum = _mm512_maskz_loadu_ps(lanes, static_cast<const float*>(sums) + i);
    } else {
      sum = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(lanes, static_cast<const int32_t*>(sums) + i));
      if (low_sums != nullptr) {
        const __m512i low = _mm512_maskz_loadu_epi32(lanes, static_cast<const int32_t*>(low_sums) + i);
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(128.0f), _mm512_cvtepi32_ps(low));
      }
    }
    const __m512 length = _mm512_maskz_loadu_ps(lanes, norm + i);
    __m512 rest = _mm512_mul_ps(length, _mm512_fnmadd_ps(square_weight, length, norm_weight));
    rest = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, error + i), error_weight, rest);
    const __m512 product = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(lanes, scale + i));
    unsigned passing = _mm512_mask_cmp_ps_mask(lanes, _mm512_fmadd_ps(product, slope, rest), level, _CMP_NLT_UQ);
    if (__builtin_expect(passing == 0, 1)) continue;
    alignas(64) float values[16];
    _mm512_store_ps(values, sum);
    while (passing != 0) {
      const int lane = __builtin_ctz(passing);
      out[count] = i + lane;
      out_sums[count++] = values[lane];
      passing &= passing - 1;
    }
  }
  return count;
}

}  // namespace

const EncodedKernels kEncodedAvx512 = {
    {QueryUnit::kFloat, kPanelRows, kBlockQueries, 3, 1, rows_kernel<F16>, pack_kernel<F16>, panels_kernel<FloatOp>},
    {QueryUnit::kFloat, kPanelRows, kBlockQueries, 3, 1, rows_kernel<Bf16>, pack_kernel<Bf16>, panels_kernel<FloatOp>},
    {QueryUnit::kInt16Pair, kPanelRows, kBlockQueries, 3, 1, rows_kernel<Int8>, pack_kernel<Int8>, panels_kernel<Int8>},
    collect_kernel};

}  // namespace waggle::cpu
