// How long a vector may be where products of two are kept in floats.
#pragma once

#include <cstdint>

namespace waggle {

/// Products of vectors no longer than its root stay far below what a float holds.
constexpr double kLargestSquare = 1e36;

/// In double; NaN or infinity where the vector holds some.
inline double squared_length(const float* x, int64_t n) {
  double square[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int64_t j = 0; j < 4; ++j) square[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (; i < n; ++i) square[0] += static_cast<double>(x[i]) * x[i];
  return (square[0] + square[1]) + (square[2] + square[3]);
}

}  // namespace waggle
