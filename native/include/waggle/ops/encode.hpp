// Matrices in two bytes or one per value, with what is needed to answer as if they were float.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

enum class Dtype : int32_t {
  kF16 = 0,   // IEEE binary16 times a power of two per row
  kBf16 = 1,  // the upper half of a float
  kInt8 = 2,  // −127 … 127 times a scale per row
};

inline int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kInt8 ? 1 : 2; }
/// bf16 has the range of float and needs no scale.
inline bool has_scale(Dtype dtype) { return dtype != Dtype::kBf16; }

/// [rows × cols] codes, row-major: x̂[r][i] = scale[r] · code[r][i]. Rows are independent of each other, so a matrix
/// grows by encoding more rows behind the last.
struct EncodedMatrix {
  Dtype dtype = Dtype::kInt8;
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;        // codes from one row to the next, ≥ cols
  const float* scale = nullptr;  // [rows]; null for bf16
  const float* error = nullptr;  // [rows] ≥ ‖x − x̂‖₂
  const float* norm = nullptr;   // [rows] ‖x‖₂ rounded up; infinity where it exceeds float
  /// bf16 alone, may be null. [rows × cols] with the same stride: the codes are then the upper halves of the floats as
  /// they are, not rounded, and these the lower halves. Together they are the floats, in the memory of the floats.
  const uint16_t* lower = nullptr;

  const void* row(int64_t r) const { return static_cast<const uint8_t*>(data) + r * row_stride * bytes_of(dtype); }
};

struct EncodeArgs {
  Matrix<const float> matrix;  // [rows × cols]
  Dtype dtype = Dtype::kInt8;
  void* data = nullptr;  // [rows × row_stride]
  int64_t row_stride = 0;
  float* scale = nullptr;     // [rows]; not written for bf16
  float* error = nullptr;     // [rows]
  float* norm = nullptr;      // [rows]
  uint16_t* lower = nullptr;  // [rows × row_stride], bf16 alone: cuts floats in halves instead of rounding them
};

/// Rounds each row to nearest: int8 with scale = max|x| / 127, f16 with the power of two that puts max|x| in
/// [2¹⁴, 2¹⁵) (so nothing overflows and small rows keep their digits), bf16 as it is (beyond its range: its largest).
/// With `lower` bf16 codes are cut off instead, which loses up to twice as much, and nothing of a float is lost.
/// error[r] is the length of what was lost, summed in double and rounded up, so that it is a bound and not an estimate.
/// The same bits at every instruction set and thread count. A row that holds NaN or infinity is kNotFinite, and the
/// text names the lowest such row. O(rows · cols).
Status encode(const EncodeArgs& args, const RunContext& context);

}  // namespace waggle
