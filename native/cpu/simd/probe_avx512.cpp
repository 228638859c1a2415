// Enough independent chains in registers to keep every multiply-add unit busy, and plain wide loads.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kChains = 24;

float fma_kernel(int64_t rounds) {
  __m512 sums[kChains];
#pragma GCC unroll 32
  for (int32_t c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 32
    for (int32_t c = 0; c < kChains; ++c) sums[c] = _mm512_fmadd_ps(sums[c], half, one);
  }
  __m512 sum = sums[0];
#pragma GCC unroll 32
  for (int32_t c = 1; c < kChains; ++c) sum = _mm512_add_ps(sum, sums[c]);
  float lanes[16];
  _mm512_storeu_ps(lanes, sum);
  return lanes[0];
}

uint64_t read_kernel(const unsigned char* bytes, int64_t n) {
  __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int64_t i = 0; i + 4 * static_cast<int64_t>(sizeof(__m512i)) <= n;
       i += 4 * static_cast<int64_t>(sizeof(__m512i))) {
#pragma GCC unroll 4
    for (int32_t c = 0; c < 4; ++c) {
      const __m512i* at = reinterpret_cast<const __m512i*>(bytes + i) + c;
      sums[c] = _mm512_add_epi64(sums[c], _mm512_loadu_si512(at));
    }
  }
  const __m512i sum = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
  uint64_t lanes[sizeof(__m512i) / 8];
  _mm512_storeu_si512(reinterpret_cast<__m512i*>(lanes), sum);
  return lanes[0];
}

}  // namespace

const ProbeKernels kProbeAvx512 = {fma_kernel, kChains * 16, read_kernel};

}  // namespace waggle::cpu
