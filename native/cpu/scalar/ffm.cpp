#include <cmath>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

double interactions_kernel(const FfmRow* row) {
  const int32_t width = row->width;
  const int32_t lanes = width < kFfmLanes ? width : kFfmLanes;
  double total = 0;
  for (int32_t a = 0; a < row->n; ++a) {
    float sum[kFfmLanes] = {};
    for (int32_t b = a + 1; b < row->n; ++b) {
      const float v = row->x[a] * row->x[b];
      const float* wa = row->blocks[a] + row->fields[b] * width;
      const float* wb = row->blocks[b] + row->fields[a] * width;
      for (int32_t d = 0; d < width; ++d) sum[d % lanes] += wa[d] * wb[d] * v;
    }
    for (int32_t half = lanes / 2; half >= 1; half /= 2) {
      for (int32_t i = 0; i < half; ++i) sum[i] += sum[i + half];
    }
    total += static_cast<double>(sum[0]);
  }
  return total;
}

void learn_kernel(const FfmRow* row, float slope, float rate, float l2) {
  const int32_t width = row->width;
  const int32_t squares = row->n_fields * width;
  for (int32_t a = 0; a < row->n; ++a) {
    for (int32_t b = a + 1; b < row->n; ++b) {
      const float v = slope * (row->x[a] * row->x[b]);
      float* wa = row->blocks[a] + row->fields[b] * width;
      float* wb = row->blocks[b] + row->fields[a] * width;
      for (int32_t d = 0; d < width; ++d) {
        const float ga = l2 * wa[d] + v * wb[d];
        const float gb = l2 * wb[d] + v * wa[d];
        const float sa = wa[d + squares] + ga * ga;
        const float sb = wb[d + squares] + gb * gb;
        const float na = wa[d] - rate * ga / std::sqrt(sa);
        const float nb = wb[d] - rate * gb / std::sqrt(sb);
        wa[d + squares] = sa;
        wa[d] = na;
        wb[d + squares] = sb;
        wb[d] = nb;
      }
    }
  }
}

}  // namespace

const FfmKernels kFfmScalar = {interactions_kernel, learn_kernel};

}  // namespace waggle::cpu
