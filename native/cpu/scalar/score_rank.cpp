#include "cpu/kernel_tables.hpp"
#include "cpu/score_terms.hpp"

namespace waggle::cpu {

namespace {

void score_kernel(const ScoreColumns* columns, int64_t begin, int64_t n, double* out) {
  double terms[9];
  for (int64_t i = 0; i < n; ++i) out[i] = score_terms(*columns, begin + i, terms);
}

int32_t collect_kernel(const double* scores, int32_t n, double threshold, int32_t* out) {
  int32_t count = 0;
  for (int32_t i = 0; i < n; ++i) {
    if (scores[i] > threshold) out[count++] = i;
  }
  return count;
}

}  // namespace

const ScoreKernels kScoreScalar = {score_kernel, collect_kernel};

}  // namespace waggle::cpu
