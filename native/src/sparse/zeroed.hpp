// An array that starts as zero bytes and costs memory only where it is written, in large pages where the system has
// them: a table that is read at random would otherwise wait for the addresses of its pages.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace waggle {

template <typename T>
class Zeroed {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Zeroed() = default;
  /// Throws std::bad_alloc.
  explicit Zeroed(int64_t size) : size_(size) {
    if (size < 0 || size > std::numeric_limits<int64_t>::max() / 2 / static_cast<int64_t>(sizeof(T))) {
      throw std::bad_alloc();
    }
    if (size == 0) return;
    void* memory =
        ::mmap(nullptr, static_cast<size_t>(bytes()), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(memory);
#if defined(MADV_HUGEPAGE)
    if (bytes() >= kLarge) (void)::madvise(memory, static_cast<size_t>(bytes()), MADV_HUGEPAGE);
#endif
  }
  ~Zeroed() {
    if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(bytes()));
  }
  Zeroed(Zeroed&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Zeroed& operator=(Zeroed&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Zeroed(const Zeroed&) = delete;
  Zeroed& operator=(const Zeroed&) = delete;

  Zeroed copy() const {
    Zeroed other(size_);
    if (size_ > 0) std::memcpy(other.data(), data(), static_cast<size_t>(bytes()));
    return other;
  }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  T& operator[](int64_t i) const { return data_[i]; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }

 private:
  static constexpr int64_t kLarge = int64_t{4} << 20;

  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace waggle
