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

/// Which rows a query may return: all of them, those of a bitmap (one for all queries, or one each), or those of a
/// list. At most one of `bits` and a list.
struct RowFilter {
  /// Bit r of byte r >> 3; null = no bitmap.
  const uint8_t* bits = nullptr;
  /// From one query's bitmap to the next; 0 = one bitmap shared by all queries.
  int64_t stride_bytes = 0;
  /// Row numbers shared by all queries, ascending and unique; only looked at when n_rows >= 0.
  const int32_t* rows = nullptr;
  /// Length of the list; 0 allows nothing, −1 = no list.
  int64_t n_rows = -1;
  /// Bytes readable at `bits`, over all queries.
  int64_t bits_bytes = 0;

  static RowFilter shared(const uint8_t* bits, int64_t bytes) { return {bits, 0, nullptr, -1, bytes}; }
  static RowFilter per_query(const uint8_t* bits, int64_t stride, int64_t n_queries) {
    return {bits, stride, nullptr, -1, stride * n_queries};
  }
  static RowFilter list(const int32_t* rows, int64_t n_rows) { return {nullptr, 0, rows, n_rows, 0}; }

  bool has_bits_per_query() const { return bits != nullptr && stride_bytes != 0; }
  bool has_list() const { return n_rows >= 0; }
  explicit operator bool() const { return bits != nullptr || has_list(); }
  const uint8_t* bits_of(int64_t query) const { return bits + query * stride_bytes; }
};

/// a × b of non-negative sizes, false when it does not fit int64.
inline bool checked_product(int64_t a, int64_t b, int64_t* out) {
  if (a < 0 || b < 0 || (b != 0 && a > std::numeric_limits<int64_t>::max() / b)) return false;
  *out = a * b;
  return true;
}

}  // namespace waggle
