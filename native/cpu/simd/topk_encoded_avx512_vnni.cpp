// Four 8-bit products per lane and instruction. One side must be unsigned: flipping the sign bit of a row's codes adds
// 128 to each, which the start of every sum takes back.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/scan_avx512.inc"

struct Int8 : IntegerSums {
  static constexpr int64_t kValues = 4;
  static constexpr int64_t kBytes = 1;
  static inline __m512i load(const void* row, int64_t i) {
    return _mm512_xor_si512(_mm512_loadu_si512(static_cast<const int8_t*>(row) + i), _mm512_set1_epi8(-128));
  }
  static inline __m512i load(const void* row, int64_t i, int64_t n) {
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(first64(n), static_cast<const int8_t*>(row) + i),
                            _mm512_set1_epi8(-128));
  }
  static inline __m512i step(__m512i sum, __m512i row, __m512i query) { return _mm512_dpbusd_epi32(sum, row, query); }
};

}  // namespace

const ScanKernels kScanInt8Vnni = {QueryUnit::kInt8Quad, kPanelRows,        kBlockQueries,      2, 1,
                                   rows_kernel<Int8>,    pack_kernel<Int8>, panels_kernel<Int8>};

}  // namespace waggle::cpu
