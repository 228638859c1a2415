#include <cmath>
#include <cstring>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/trees_fit_block.inc"

// To nearest, ties to even: one instruction where the processor has one.
inline int64_t rounded(float x) { return static_cast<int64_t>(std::lrintf(x)); }

inline int64_t packed(const FitGradient& gradient, float g_scale, float h_scale) {
  const int64_t g = rounded(gradient.g * g_scale);
  return static_cast<int64_t>(static_cast<uint64_t>(g) << 32) + rounded(gradient.h * h_scale);
}

// kRows at a time: where a feature's slots start is looked up once for all of them.
constexpr int32_t kAhead = 16;  // rows, for what they point to

template <int kRows, bool kListed, bool kLast = false>
inline void add_rows(const FitHistogram& in, int32_t i, int64_t* sums) {
  const uint8_t* row[kRows];
  int64_t value[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int64_t number = kListed ? in.rows[i + r] : i + r;
    row[r] = in.bins + number * in.stride;
    value[r] = packed(in.gradients[number], in.g_scale, in.h_scale);
    if constexpr (kListed && !kLast) {
      const int64_t ahead = in.rows[i + r + kAhead];
      __builtin_prefetch(in.bins + ahead * in.stride);
      __builtin_prefetch(in.bins + ahead * in.stride + in.stride - 1);
      __builtin_prefetch(in.gradients + ahead);
    }
  }
  for (int32_t f = 0; f < in.n_features; ++f) {
    int64_t* const feature = sums + in.slots[f];
    const uint32_t column = in.columns[f];
    for (int r = 0; r < kRows; ++r) feature[row[r][column]] += value[r];
  }
}

template <bool kListed>
void add_all(const FitHistogram& in, int64_t* sums) {
  int32_t i = 0;
  for (; i + 4 + kAhead <= in.n; i += 4) add_rows<4, kListed>(in, i, sums);
  for (; i + 4 <= in.n; i += 4) add_rows<4, kListed, true>(in, i, sums);
  for (; i < in.n; ++i) add_rows<1, kListed, true>(in, i, sums);
}

void histogram_kernel(const FitHistogram* in, int64_t* sums) {
  if (in->rows != nullptr) {
    add_all<true>(*in, sums);
  } else {
    add_all<false>(*in, sums);
  }
}

int32_t decide_kernel(const uint32_t* rows, uint32_t first, int32_t n, const uint8_t* bins, int64_t stride,
                      const uint8_t* left, uint64_t* masks) {
  int32_t count = 0;
  for (int32_t i = 0; i < n; i += 64) {
    const int32_t m = n - i < 64 ? n - i : 64;
    uint64_t mask = 0;
    if (rows != nullptr) {
      for (int32_t k = 0; k < m; ++k) {
        __builtin_prefetch(bins + static_cast<int64_t>(rows[i + k + kAhead < n ? i + k + kAhead : n - 1]) * stride);
        mask |= static_cast<uint64_t>(left[bins[static_cast<int64_t>(rows[i + k]) * stride]]) << k;
      }
    } else {
      const uint8_t* const from = bins + (static_cast<int64_t>(first) + i) * stride;
      for (int32_t k = 0; k < m; ++k) mask |= static_cast<uint64_t>(left[from[k * stride]]) << k;
    }
    masks[i / 64] = mask;
    count += __builtin_popcountll(mask);
  }
  return count;
}

void split_kernel(const uint32_t* rows, uint32_t first, int32_t n, const uint64_t* masks, uint32_t* to_left,
                  uint32_t* to_right) {
  for (int32_t i = 0; i < n; i += 64) {
    const int32_t m = n - i < 64 ? n - i : 64;
    // Both are written and one advances: no branch to guess. Not in place: what lies behind belongs to others.
    uint32_t left[65], right[65];
    int32_t n_left = 0;
    int32_t n_right = 0;
    const uint64_t mask = masks[i / 64];
    for (int32_t k = 0; k < m; ++k) {
      const uint32_t row = rows != nullptr ? rows[i + k] : first + static_cast<uint32_t>(i + k);
      const int32_t bit = static_cast<int32_t>((mask >> k) & 1);
      left[n_left] = row;
      right[n_right] = row;
      n_left += bit;
      n_right += 1 - bit;
    }
    std::memcpy(to_left, left, static_cast<size_t>(n_left) * sizeof(uint32_t));
    std::memcpy(to_right, right, static_cast<size_t>(n_right) * sizeof(uint32_t));
    to_left += n_left;
    to_right += n_right;
  }
}

}  // namespace

const TreesFitKernels kTreesFitScalar = {histogram_kernel, flush_kernel, subtract_kernel, gains_kernel,
                                         decide_kernel,    split_kernel, logistic_kernel};

}  // namespace waggle::cpu
