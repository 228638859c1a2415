// Counting in bitmaps of allowed rows: bit i of byte i >> 3.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace waggle {

/// Bits set among the first n.
inline int64_t count_bits(const uint8_t* bits, int64_t n) {
  int64_t count = 0;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    uint64_t word = 0;
    std::memcpy(&word, bits + i / 8, sizeof word);
    count += std::popcount(word);
  }
  for (; i < n; ++i) count += (bits[i >> 3] >> (i & 7)) & 1;
  return count;
}

}  // namespace waggle
