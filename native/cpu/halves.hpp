// Floats that are kept as the codes of a bf16 matrix and the lower halves beside them (include/waggle/ops/encode.hpp).
#pragma once

#include <bit>
#include <cstdint>

#include "waggle/ops/encode.hpp"

namespace waggle::cpu {

/// The [cols] floats of a row.
inline void join_row(const EncodedMatrix& m, int64_t row, float* out) {
  const uint16_t* const upper = static_cast<const uint16_t*>(m.row(row));
  const uint16_t* const lower = m.lower + row * m.row_stride;
  for (int64_t i = 0; i < m.cols; ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(upper[i]) << 16 | lower[i]);
  }
}

}  // namespace waggle::cpu
