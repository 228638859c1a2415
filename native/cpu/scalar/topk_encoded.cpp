// The truth the other levels are compared with: floats against codes, sums in double, rounded once.
#include <bit>
#include <cstdint>

#include "cpu/kernel_tables.hpp"
#include "waggle/ops/encode.hpp"

namespace waggle::cpu {

namespace {

struct F16 {
  using Stored = uint16_t;
  static double decode(uint16_t half) {
    const int exponent = (half >> 10) & 31;
    const int mantissa = half & 1023;
    // (1024 + mantissa) · 2^(exponent − 25), or mantissa · 2⁻²⁴: powers of two straight from their bits.
    const uint64_t power = static_cast<uint64_t>((exponent == 0 ? 1 : exponent) - 25 + 1023) << 52;
    const double magnitude = (exponent == 0 ? mantissa : 1024 + mantissa) * std::bit_cast<double>(power);
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

struct Bf16 {
  using Stored = uint16_t;
  static double decode(uint16_t half) { return static_cast<double>(std::bit_cast<float>(uint32_t{half} << 16)); }
};

struct Int8 {
  using Stored = int8_t;
  static double decode(int8_t code) { return code; }
};

template <typename Code>
double dot(const void* codes, const float* query, int64_t dim) {
  const auto* row = static_cast<const typename Code::Stored*>(codes);
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(query[i]) * Code::decode(row[i]);
  return sum;
}

template <typename Code>
void rows_kernel(const void* const* rows, int32_t n_rows, int64_t dim, const void* const* queries, const int32_t*,
                 int32_t n_queries, void* out, int64_t ld) {
  for (int32_t r = 0; r < n_rows; ++r) {
    for (int32_t q = 0; q < n_queries; ++q) {
      const float* query = static_cast<const float*>(queries[q]);
      static_cast<float*>(out)[q * ld + r] = static_cast<float>(dot<Code>(rows[r], query, dim));
    }
  }
}

int32_t collect_kernel(const void* sums, const void* low_sums, int32_t integer, const float* scale, const float* error,
                       const float* norm, int32_t n, const FilterLine* line, int32_t* out, float* out_sums) {
  int32_t count = 0;
  for (int32_t i = 0; i < n; ++i) {
    float sum = 0;
    if (integer == 0) {
      sum = static_cast<const float*>(sums)[i];
    } else {
      sum = static_cast<float>(static_cast<const int32_t*>(sums)[i]);
      if (low_sums != nullptr) sum = sum * 128.0f + static_cast<float>(static_cast<const int32_t*>(low_sums)[i]);
    }
    const float value = sum * scale[i] * line->slope + error[i] * line->error_weight +
                        norm[i] * (line->norm_weight - line->square_weight * norm[i]);
    if (value < line->level) continue;
    out[count] = i;
    out_sums[count++] = sum;
  }
  return count;
}

}  // namespace

double decoded_dot(int32_t dtype, const void* row, const float* query, int64_t dim) {
  switch (static_cast<Dtype>(dtype)) {
    case Dtype::kF16:
      return dot<F16>(row, query, dim);
    case Dtype::kBf16:
      return dot<Bf16>(row, query, dim);
    default:
      return dot<Int8>(row, query, dim);
  }
}

const EncodedKernels kEncodedScalar = {{QueryUnit::kFloat, 0, 0, 0, 1, rows_kernel<F16>, nullptr, nullptr},
                                       {QueryUnit::kFloat, 0, 0, 0, 1, rows_kernel<Bf16>, nullptr, nullptr},
                                       {QueryUnit::kFloat, 0, 0, 0, 1, rows_kernel<Int8>, nullptr, nullptr},
                                       collect_kernel};

}  // namespace waggle::cpu
