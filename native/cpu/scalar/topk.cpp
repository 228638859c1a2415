// The truth the other levels are compared with: sums in double, rounded once.
#include <cmath>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

void dot_kernel(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows, int64_t dim,
                float* out, int64_t ld) {
  for (int32_t r = 0; r < n_rows; ++r) {
    for (int32_t q = 0; q < n_queries; ++q) {
      double sum = 0;
      for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(queries[q][i]) * rows[r][i];
      out[q * ld + r] = static_cast<float>(sum);
    }
  }
}

void neg_l2_kernel(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows,
                   int64_t dim, float* out, int64_t ld) {
  for (int32_t r = 0; r < n_rows; ++r) {
    for (int32_t q = 0; q < n_queries; ++q) {
      double sum = 0;
      for (int64_t i = 0; i < dim; ++i) {
        const double difference = static_cast<double>(queries[q][i]) - rows[r][i];
        sum += difference * difference;
      }
      out[q * ld + r] = static_cast<float>(-sum);
    }
  }
}

int32_t collect_kernel(const float* scores, int32_t n, float threshold, int32_t* out, int32_t* not_finite) {
  int32_t count = 0;
  *not_finite = -1;
  for (int32_t i = 0; i < n; ++i) {
    if (!std::isfinite(scores[i])) {
      if (*not_finite < 0) *not_finite = i;
    } else if (scores[i] > threshold) {
      out[count++] = i;
    }
  }
  return count;
}

}  // namespace

const TopkKernels kTopkScalar = {dot_kernel, neg_l2_kernel, collect_kernel};

}  // namespace waggle::cpu
