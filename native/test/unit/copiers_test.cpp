// The threads that bring rows to pinned memory: every byte in its place, whoever copies it and however long a side is
// in use.
#include "cuda/copiers.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"

namespace waggle {

namespace {

using cuda::Copiers;

std::vector<unsigned char> random_bytes(size_t n, uint64_t seed) {
  conformance::Random random(seed);
  std::vector<unsigned char> bytes(n);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.next());
  return bytes;
}

// Takes the pieces as a device would: compares each with its source, then frees its side.
bool pieces_arrive(Copiers& copiers, const std::vector<unsigned char>& from, size_t piece, size_t n_sides,
                   size_t stop_at) {
  std::vector<std::vector<unsigned char>> memory(n_sides, std::vector<unsigned char>(piece + 1, 0xab));
  std::vector<void*> sides;
  for (auto& side : memory) sides.push_back(side.data());
  const size_t n_pieces = (from.size() + piece - 1) / piece;
  Copiers::Pieces copying(copiers, from.data(), from.size(), piece, sides.data(), n_sides);
  copying.allow(n_sides);
  for (size_t p = 0; p < std::min(n_pieces, stop_at); ++p) {
    copying.await(p);
    const size_t bytes = std::min(piece, from.size() - p * piece);
    if (std::memcmp(memory[p % n_sides].data(), from.data() + p * piece, bytes) != 0) return false;
    if (memory[p % n_sides][piece] != 0xab) return false;
    // Nobody may write here before it is allowed again.
    std::memset(memory[p % n_sides].data(), 0xcd, piece);
    if (p % 5 == 0) std::this_thread::yield();
    for (const unsigned char byte : memory[p % n_sides]) {
      if (byte != 0xcd && byte != 0xab) return false;
    }
    copying.allow(p + 1 + n_sides);
  }
  return true;
}

}  // namespace

TEST("copiers: bytes of every length arrive, with helpers and without") {
  for (const size_t n_helpers : {size_t{0}, size_t{1}, size_t{5}}) {
    Copiers copiers(n_helpers);
    for (const size_t n : {size_t{0}, size_t{1}, size_t{131071}, size_t{131073}, size_t{1} << 20, size_t{5000011}}) {
      const std::vector<unsigned char> from = random_bytes(n, n);
      std::vector<unsigned char> to(n + 1, 0xab);
      copiers.copy(to.data(), from.data(), n);
      EXPECT(std::equal(from.begin(), from.end(), to.begin()));
      EXPECT(to[n] == 0xab);
    }
  }
}

TEST("copiers: pieces arrive in the sides that are free, and nowhere else") {
  const std::vector<unsigned char> from = random_bytes(6000007, 3);
  for (const size_t n_helpers : {size_t{0}, size_t{1}, size_t{5}}) {
    Copiers copiers(n_helpers);
    for (const size_t piece : {size_t{100000}, size_t{131072}, size_t{400001}, size_t{7000000}}) {
      for (const size_t n_sides : {size_t{1}, size_t{2}, size_t{8}}) {
        EXPECT(pieces_arrive(copiers, from, piece, n_sides, from.size()));
      }
    }
  }
}

TEST("copiers: a copy given up leaves its memory alone, and the next begins afresh") {
  const std::vector<unsigned char> from = random_bytes(3000000, 4);
  Copiers copiers(4);
  for (size_t round = 0; round < 200; ++round) {
    EXPECT(pieces_arrive(copiers, from, 150000, 3, round % 7));  // its sides are gone when it returns
    if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // helpers sleep
  }
}

}  // namespace waggle
