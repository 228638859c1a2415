// The truth the other levels are compared with.
#include <cmath>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr float kSmallest = 1e-30f;

void encode_kernel(const float* x, float factor, const float* centre, int64_t dim, int64_t quads, int8_t* codes,
                   IvfEncoding* out) {
  float largest = 0;
  double square = 0;
  double along = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const float c = centre == nullptr ? 0.0f : centre[i];
    const float v = x[i] * factor - c;
    largest = std::fabs(v) > largest ? std::fabs(v) : largest;
    square += static_cast<double>(v) * v;
    along += static_cast<double>(v) * c;
  }
  out->square = static_cast<float>(square);
  out->along = static_cast<float>(along);
  const bool zero = !(largest >= kSmallest);
  out->scale = zero ? 0.0f : largest / 127.0f;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  int32_t sum = 0;
  for (int64_t i = 0; i < 4 * quads; ++i) {
    int32_t code = 0;
    if (i < dim) {
      const float v = x[i] * factor - (centre == nullptr ? 0.0f : centre[i]);
      code = static_cast<int32_t>(std::nearbyint(v * inverse));
    }
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  out->sum = sum;
}

void dots_kernel(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t* sums, int32_t n_queries,
                 int64_t quads, int32_t* out, int64_t ld) {
  for (int64_t g = 0; g < n_groups; ++g) {
    const uint8_t* group = groups + g * quads * 64;
    for (int32_t q = 0; q < n_queries; ++q) {
      const int8_t* query = queries + q * quads * 4;
      int32_t* to = out + q * ld + g * kIvfGroup;
      for (int32_t r = 0; r < kIvfGroup; ++r) to[r] = -128 * sums[q];
      for (int64_t quad = 0; quad < quads; ++quad) {
        const uint8_t* block = group + quad * 64;
        for (int32_t r = 0; r < kIvfGroup; ++r) {
          for (int32_t i = 0; i < 4; ++i) to[r] += block[r * 4 + i] * query[quad * 4 + i];
        }
      }
    }
  }
}

int32_t collect_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                       float base, float threshold, int32_t* rows, float* scores) {
  int32_t count = 0;
  for (int32_t r = 0; r < n; ++r) {
    const float score = base + (static_cast<float>(dots[r]) * (query_scale * scale[r]) + bias[r]);
    if (score > threshold) {
      rows[count] = r;
      scores[count++] = score;
    }
  }
  return count;
}

void best_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                 int32_t first, float* score, int32_t* row) {
  for (int32_t r = 0; r < n; ++r) {
    const float value = static_cast<float>(dots[r]) * (query_scale * scale[r]) + bias[r];
    if (value > *score) {
      *score = value;
      *row = first + r;
    }
  }
}

}  // namespace

const IvfKernels kIvfScalar = {encode_kernel, dots_kernel, collect_kernel, best_kernel};

}  // namespace waggle::cpu
