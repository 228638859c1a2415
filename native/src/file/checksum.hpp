// XXH64, the 64-bit checksum of section data. Written from the published algorithm (Yann Collet, "xxHash fast digest
// algorithm", XXH64); not for adversaries, only for accidents.
#pragma once

#include <cstddef>
#include <cstdint>

namespace waggle {

class Checksum {
 public:
  explicit Checksum(uint64_t seed = 0);
  void update(const void* data, size_t bytes);
  uint64_t value() const;

 private:
  uint64_t seed_;
  uint64_t lanes_[4];
  uint64_t total_ = 0;
  uint8_t pending_[32];
  size_t n_pending_ = 0;
};

uint64_t checksum_of(const void* data, size_t bytes, uint64_t seed = 0);

/// Sections are summed in blocks, so that several threads can check one: the sum of a section is the checksum of its
/// blocks' checksums, seeded with its length.
constexpr int64_t kChecksumBlock = int64_t{1} << 20;

}  // namespace waggle
