// Memory for int8 codes, owned or mapped, and how a row gets into its group (see IvfKernels in cpu/kernels.hpp).
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/kernels.hpp"

namespace waggle::ivf {

/// An array of T, aligned to 64 bytes: its own, or somebody else's.
template <typename T>
class Store {
 public:
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  const T& operator[](int64_t i) const { return data_[i]; }
  bool owned() const { return own_ != nullptr; }

  /// Zeros, to be filled by the caller. Throws std::bad_alloc.
  T* allocate(int64_t n) {
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    constexpr size_t kLargePage = size_t{1} << 21;
    const bool large = bytes >= 2 * kLargePage;
    const std::align_val_t alignment{large ? kLargePage : 64};
    own_ = {static_cast<T*>(::operator new[](bytes == 0 ? 1 : bytes, alignment)), Free{alignment}};
#if defined(__linux__)
    // Lists and rows are read at places far apart: large pages spare a walk through the page tables at each. Only a
    // wish.
    if (large) (void)::madvise(own_.get(), bytes, MADV_HUGEPAGE);
#endif
    std::memset(static_cast<void*>(own_.get()), 0, bytes);
    data_ = own_.get();
    size_ = n;
    return own_.get();
  }
  void borrow(const T* data, int64_t n) {
    own_.reset();
    data_ = data;
    size_ = n;
  }

 private:
  struct Free {
    std::align_val_t alignment{64};
    void operator()(T* p) const { ::operator delete[](p, alignment); }
  };
  std::unique_ptr<T, Free> own_;
  const T* data_ = nullptr;
  int64_t size_ = 0;
};

constexpr int64_t kGroup = cpu::kIvfGroup;

inline int64_t quads_of(int64_t dim) { return (dim + 3) / 4; }
inline int64_t groups_of(int64_t rows) { return (rows + kGroup - 1) / kGroup; }

/// Writes one row's codes [4 · quads] into place r of its group.
inline void put_row(const int8_t* codes, int64_t quads, int64_t r, uint8_t* group) {
  for (int64_t quad = 0; quad < quads; ++quad) {
    uint32_t four = 0;
    std::memcpy(&four, codes + quad * 4, 4);
    four ^= 0x80808080u;  // + 128 in each byte
    std::memcpy(group + quad * 64 + r * 4, &four, 4);
  }
}

/// splitmix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  uint64_t state_;
};

/// `count` of `n` things, ascending: one from each of `count` equal stretches, so that data in any order is covered
/// evenly, at a place within it that the seed decides, so that no period of the data is met.
inline int64_t stratified(int64_t i, int64_t count, int64_t n, uint64_t seed) {
  const int64_t begin =
      static_cast<int64_t>(static_cast<double>(i) * static_cast<double>(n) / static_cast<double>(count));
  const int64_t end =
      static_cast<int64_t>(static_cast<double>(i + 1) * static_cast<double>(n) / static_cast<double>(count));
  if (end - begin <= 1) return begin;
  Random random(seed + static_cast<uint64_t>(i) * 0x632be59bd9b4e019u);
  return begin + static_cast<int64_t>(random.uniform() * static_cast<double>(end - begin));
}

}  // namespace waggle::ivf
