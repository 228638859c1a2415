#include <cstring>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kChains = 16;

float fma_kernel(int64_t rounds) {
  float sums[kChains];
  for (int32_t c = 0; c < kChains; ++c) sums[c] = static_cast<float>(c);
  for (int64_t i = 0; i < rounds; ++i) {
    for (int32_t c = 0; c < kChains; ++c) sums[c] = sums[c] * 0.5f + 1.0f;
  }
  float sum = 0;
  for (const float s : sums) sum += s;
  return sum;
}

uint64_t read_kernel(const unsigned char* bytes, int64_t n) {
  uint64_t sums[4] = {};
  for (int64_t i = 0; i + 32 <= n; i += 32) {
    for (int32_t c = 0; c < 4; ++c) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + i + 8 * c, sizeof word);
      sums[c] += word;
    }
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace

const ProbeKernels kProbeScalar = {fma_kernel, kChains, read_kernel};

}  // namespace waggle::cpu
