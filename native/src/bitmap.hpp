// Counting in bitmaps of allowed rows: bit i of byte i >> 3.
#pragma once

#include <algorithm>
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

/// 64 bits from bit `first`, a multiple of 64; bits beyond `end` are 0.
inline uint64_t word_at(const uint8_t* bits, int64_t first, int64_t end) {
  const int64_t left = end - first;
  uint64_t word = 0;
  if (left >= 64) {
    std::memcpy(&word, bits + (first >> 3), 8);
  } else {
    std::memcpy(&word, bits + (first >> 3), static_cast<size_t>((left + 7) >> 3));
  }
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return left < 64 ? word & ((uint64_t{1} << left) - 1) : word;
}

/// Writes the numbers of the set bits from `*at` on, at most `room` (> 0), and moves `*at` behind the last one looked
/// at.
inline int32_t take_bits(const uint8_t* bits, int64_t* at, int64_t end, int32_t room, int32_t* numbers) {
  int32_t n = 0;
  while (*at < end && n < room) {
    const int64_t base = *at & ~int64_t{63};
    uint64_t word = word_at(bits, base, end) & (~uint64_t{0} << (*at & 63));
    for (; word != 0 && n < room; word &= word - 1) numbers[n++] = static_cast<int32_t>(base + std::countr_zero(word));
    *at = word != 0 ? base + std::countr_zero(word) : base + 64;
  }
  return n;
}

/// Share of set bits among the first n, estimated from words spread evenly: for what only speed depends on.
inline double share_of(const uint8_t* bits, int64_t n) {
  constexpr int64_t kSamples = 2048;
  const int64_t words = (n + 63) / 64;
  if (words == 0) return 0;
  const int64_t samples = std::min(words, kSamples);
  int64_t set = 0;
  for (int64_t s = 0; s < samples; ++s) set += std::popcount(word_at(bits, words * s / samples * 64, n));
  return static_cast<double>(set) / static_cast<double>(std::min(samples * 64, n));
}

}  // namespace waggle
