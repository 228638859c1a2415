#include "src/file/checksum.hpp"

#include <algorithm>
#include <cstring>

namespace waggle {

namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

uint64_t rotate_left(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

template <typename T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) { return rotate_left(lane + input * kPrime2, 31) * kPrime1; }

uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ round(0, lane)) * kPrime1 + kPrime4; }

const uint8_t* consume(uint64_t lanes[4], const uint8_t* p, const uint8_t* end) {
  uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
  for (; end - p >= 32; p += 32) {
    a = round(a, load<uint64_t>(p));
    b = round(b, load<uint64_t>(p + 8));
    c = round(c, load<uint64_t>(p + 16));
    d = round(d, load<uint64_t>(p + 24));
  }
  lanes[0] = a;
  lanes[1] = b;
  lanes[2] = c;
  lanes[3] = d;
  return p;
}

}  // namespace

Checksum::Checksum(uint64_t seed)
    : seed_(seed), lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1} {}

void Checksum::update(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const uint8_t* p = static_cast<const uint8_t*>(data);
  const uint8_t* end = p + bytes;
  total_ += bytes;
  if (n_pending_ > 0) {
    const size_t take = std::min(bytes, sizeof pending_ - n_pending_);
    std::memcpy(pending_ + n_pending_, p, take);
    n_pending_ += take;
    p += take;
    if (n_pending_ < sizeof pending_) return;
    consume(lanes_, pending_, pending_ + sizeof pending_);
    n_pending_ = 0;
  }
  p = consume(lanes_, p, end);
  n_pending_ = static_cast<size_t>(end - p);
  if (n_pending_ > 0) std::memcpy(pending_, p, n_pending_);
}

uint64_t Checksum::value() const {
  uint64_t hash = seed_ + kPrime5;
  if (total_ >= 32) {
    hash =
        rotate_left(lanes_[0], 1) + rotate_left(lanes_[1], 7) + rotate_left(lanes_[2], 12) + rotate_left(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = merge(hash, lane);
  }
  hash += total_;
  const uint8_t* p = pending_;
  const uint8_t* end = pending_ + n_pending_;
  for (; end - p >= 8; p += 8) hash = rotate_left(hash ^ round(0, load<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  if (end - p >= 4) {
    hash = rotate_left(hash ^ (load<uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p < end; ++p) hash = rotate_left(hash ^ (*p * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t checksum_of(const void* data, size_t bytes, uint64_t seed) {
  Checksum sum(seed);
  sum.update(data, bytes);
  return sum.value();
}

}  // namespace waggle
