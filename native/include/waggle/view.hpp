// Borrowed memory with a shape. A view owns nothing; whoever makes it keeps the memory alive.
#pragma once

#include <cstdint>
#include <limits>

namespace waggle {

/// [n] contiguous values. `data` may be null when the column is absent.
template <typename T>
struct Vector {
  T* data = nullptr;
  int64_t size = 0;

  explicit operator bool() const { return data != nullptr; }
  T& operator[](int64_t i) const { return data[i]; }
};

/// [rows × cols], row-major, contiguous.
template <typename T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  T* row(int64_t r) const { return data + r * cols; }
};

/// Bit r of byte r >> 3. Null = every row allowed.
struct Bitmap {
  const uint8_t* data = nullptr;
  int64_t bytes = 0;

  explicit operator bool() const { return data != nullptr; }
  bool test(int64_t r) const { return ((data[r >> 3] >> (r & 7)) & 1) != 0; }
};

/// a × b of non-negative sizes, false when it does not fit int64.
inline bool checked_product(int64_t a, int64_t b, int64_t* out) {
  if (a < 0 || b < 0 || (b != 0 && a > std::numeric_limits<int64_t>::max() / b)) return false;
  *out = a * b;
  return true;
}

}  // namespace waggle
