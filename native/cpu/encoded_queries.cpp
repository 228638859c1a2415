#include "cpu/encoded_queries.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace waggle::cpu {

namespace {

constexpr double kLargestRowCode = 127;
constexpr double kLargestSum = 2147483647.0;

uint16_t to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rounded = std::min(0x7f7fu, (magnitude + 0x7fffu + ((magnitude >> 16) & 1u)) >> 16);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | rounded);
}

double from_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<double>(value);
}

// Lengths are sums in double; what their rounding may have hidden is added back.
double length_above(double squares, int64_t dim) {
  return std::sqrt(squares * (1 + (static_cast<double>(dim) + 16) * 0x1p-51));
}

// A step under which codes stay within ±most and Σ|code| · 127 within int32, rounding included.
double step_for(const float* query, int64_t dim, double most) {
  double largest = 0;
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double magnitude = std::fabs(static_cast<double>(query[i]));
    largest = std::max(largest, magnitude);
    sum += magnitude;
  }
  const double budget = kLargestSum / kLargestRowCode - 0.5 * static_cast<double>(dim);
  if (budget <= 0) return 0;
  return std::max(largest / most, sum / budget) * (1 + 1e-9);
}

template <typename Code>
EncodedQuery encode_codes(double most, const float* query, int64_t dim, int32_t* out) {
  EncodedQuery encoded;
  encoded.arithmetic = ScanArithmetic::kInteger;
  Code* codes = reinterpret_cast<Code*>(out);
  const double step = step_for(query, dim, most);
  encoded.step = step;
  int64_t sum = 0;
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double value = static_cast<double>(query[i]);
    const double code = step > 0 ? std::nearbyint(value / step) : 0.0;
    const double lost = value - code * step;
    squares += lost * lost;
    sum += static_cast<int64_t>(code);
    codes[i] = static_cast<Code>(code);
  }
  // The products code · step round in double: at most an ulp of the value each.
  encoded.lost = length_above(squares, dim) + 0x1p-51 * step * most * std::sqrt(static_cast<double>(dim));
  if (sizeof(Code) == 1) encoded.starts[0] = static_cast<int32_t>(static_cast<uint32_t>(-128 * sum));
  return encoded;
}

EncodedQuery encode_two_terms(const float* query, int64_t dim, int64_t padded_units, int32_t* out) {
  constexpr double kMost = 127.0 * 128.0;
  EncodedQuery encoded;
  encoded.arithmetic = ScanArithmetic::kInteger;
  encoded.n_terms = 2;
  int8_t* high = reinterpret_cast<int8_t*>(out);
  int8_t* low = reinterpret_cast<int8_t*>(out + padded_units);
  // Σ|high| ≤ Σ|code| / 128 + dim / 2 and |low| ≤ 64: both sums fit wherever one term's do.
  const double step = step_for(query, dim, 127.0) / 128.0;
  encoded.step = step;
  int64_t high_sum = 0;
  int64_t low_sum = 0;
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double value = static_cast<double>(query[i]);
    const int32_t code = step > 0 ? static_cast<int32_t>(std::nearbyint(value / step)) : 0;
    const int32_t h = (code + 64) >> 7;
    const double lost = value - static_cast<double>(code) * step;
    squares += lost * lost;
    high[i] = static_cast<int8_t>(h);
    low[i] = static_cast<int8_t>(code - 128 * h);
    high_sum += h;
    low_sum += code - 128 * h;
  }
  encoded.lost = length_above(squares, dim) + 0x1p-51 * step * kMost * std::sqrt(static_cast<double>(dim));
  encoded.starts[0] = static_cast<int32_t>(static_cast<uint32_t>(-128 * high_sum));
  encoded.starts[1] = static_cast<int32_t>(static_cast<uint32_t>(-128 * low_sum));
  return encoded;
}

}  // namespace

int64_t values_of(QueryUnit unit) {
  switch (unit) {
    case QueryUnit::kFloat:
      return 1;
    case QueryUnit::kInt8Quad:
      return 4;
    default:
      return 2;
  }
}

bool has_integer_sums(QueryUnit unit) { return unit == QueryUnit::kInt16Pair || unit == QueryUnit::kInt8Quad; }

EncodedQuery encode_query(QueryUnit unit, bool two_terms, const float* query, int64_t dim, int64_t padded_units,
                          int32_t* out) {
  const bool two = two_terms && unit == QueryUnit::kInt8Quad;
  std::fill(out, out + padded_units * (two ? 2 : 1), 0);
  if (two) return encode_two_terms(query, dim, padded_units, out);
  if (unit == QueryUnit::kInt8Quad) return encode_codes<int8_t>(127.0, query, dim, out);
  if (unit == QueryUnit::kInt16Pair) return encode_codes<int16_t>(127.0 * 128.0, query, dim, out);
  EncodedQuery encoded;
  if (unit == QueryUnit::kFloat) {
    std::memcpy(out, query, static_cast<size_t>(dim) * sizeof(float));
    return encoded;
  }
  uint16_t* halves = reinterpret_cast<uint16_t*>(out);
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) {
    halves[i] = to_bf16(query[i]);
    const double lost = static_cast<double>(query[i]) - from_bf16(halves[i]);
    squares += lost * lost;
  }
  encoded.lost = length_above(squares, dim);
  return encoded;
}

}  // namespace waggle::cpu
