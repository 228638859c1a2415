// Enough independent chains in registers to keep every multiply-add unit busy, and plain wide loads.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kChains = 12;

float fma_kernel(int64_t rounds) {
  __m256 sums[kChains];
#pragma GCC unroll 32
  for (int32_t c = 0; c < kChains; ++c) sums[c] = _mm256_set1_ps(static_cast<float>(c));
  const __m256 half = _mm256_set1_ps(0.5f);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 32
    for (int32_t c = 0; c < kChains; ++c) sums[c] = _mm256_fmadd_ps(sums[c], half, one);
  }
  __m256 sum = sums[0];
#pragma GCC unroll 32
  for (int32_t c = 1; c < kChains; ++c) sum = _mm256_add_ps(sum, sums[c]);
  float lanes[8];
  _mm256_storeu_ps(lanes, sum);
  return lanes[0];
}

uint64_t read_kernel(const unsigned char* bytes, int64_t n) {
  __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t i = 0; i + 4 * static_cast<int64_t>(sizeof(__m256i)) <= n;
       i += 4 * static_cast<int64_t>(sizeof(__m256i))) {
#pragma GCC unroll 4
    for (int32_t c = 0; c < 4; ++c) {
      const __m256i* at = reinterpret_cast<const __m256i*>(bytes + i) + c;
      sums[c] = _mm256_add_epi64(sums[c], _mm256_loadu_si256(at));
    }
  }
  const __m256i sum = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  uint64_t lanes[sizeof(__m256i) / 8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sum);
  return lanes[0];
}

}  // namespace

const ProbeKernels kProbeAvx2 = {fma_kernel, kChains * 8, read_kernel};

}  // namespace waggle::cpu
