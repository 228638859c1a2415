// Two bf16 products per lane and instruction; denormals count as zero there.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/scan_avx512.inc"

struct Bf16 : FloatSums {
  static constexpr int64_t kValues = 2;
  static constexpr int64_t kBytes = 2;
  static inline __m512i load(const void* row, int64_t i) {
    return _mm512_loadu_si512(static_cast<const uint16_t*>(row) + i);
  }
  static inline __m512i load(const void* row, int64_t i, int64_t n) {
    return _mm512_maskz_loadu_epi16(first32(n), static_cast<const uint16_t*>(row) + i);
  }
  static inline __m512i step(__m512i sum, __m512i row, __m512i query) {
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), __builtin_bit_cast(__m512bh, row),
                                                __builtin_bit_cast(__m512bh, query)));
  }
};

}  // namespace

const ScanKernels kScanBf16Avx512Bf16 = {QueryUnit::kBf16Pair, kPanelRows,        kBlockQueries,      3, 1,
                                         rows_kernel<Bf16>,    pack_kernel<Bf16>, panels_kernel<Bf16>};

}  // namespace waggle::cpu
