// What a scan in low precision says about the true score of a pair.
//
// With x̂ and q̂ the stored vectors (times their scales), e = x − x̂, f = q − q̂:
//
//   |⟨q,x⟩ − ⟨q̂,x̂⟩| = |⟨q,e⟩ + ⟨f,x̂⟩| ≤ ‖q‖·‖e‖ + ‖f‖·(‖x‖ + ‖e‖)
//
// and the cores' sum of d products adds at most γ·‖q̂‖·‖x̂‖: each instruction aligns its products to the largest and
// truncates, which costs at most 2^-23 of the partial sum per addend (measured behaviour of the cores up to sm_90; the
// constant has half as much again to spare). Integers are summed exactly. A cosine divides this by both norms; a
// squared distance doubles it and adds the rounding of the two squares.
//
// A bound that cannot be had in float (norms that under- or overflow when squared) is infinite: such a row is always
// looked at closely.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "cuda/matrix.hpp"

namespace waggle::cuda {

__host__ __device__ inline float roundoff_of(int64_t dim, int dtype) {
  const float per_value = dtype == WAGGLE_DTYPE_INT8 ? 0.0f : 1.5f * static_cast<float>(dim);
  return (per_value + 64.0f) * 1.1920929e-7f;
}

/// Half the width of the interval around the scanned score.
__device__ inline float half_width(int metric, const RowFacts& r, const RowFacts& q, float roundoff) {
  if (!isfinite(r.norm) || !isfinite(q.norm)) return INFINITY;
  const float reach = r.norm + r.error;
  float e = q.norm * r.error + q.error * reach + roundoff * (q.norm + q.error) * reach;
  if (metric == WAGGLE_METRIC_COSINE) {
    const float norms = q.norm * r.norm;
    return norms > 0 ? e / norms * 1.00001f + 3e-6f : 0.0f;
  }
  if (metric == WAGGLE_METRIC_L2) e = 2 * e + 2e-6f * (q.square_low + r.square_low);
  return e * 1.00001f + FLT_MIN;
}

/// The score as scanned; `product` is ⟨stored q, stored x⟩.
__device__ inline float scanned_score(int metric, float product, const RowFacts& r, const RowFacts& q) {
  const float ip = product * (r.scale * q.scale);
  if (metric == WAGGLE_METRIC_COSINE) {
    const float norms = q.norm * r.norm;
    return norms > 0 ? ip / norms : 0.0f;
  }
  if (metric == WAGGLE_METRIC_L2) return 2 * ip - q.square_low - r.square_low;
  return ip;
}

/// The test "could this row still belong to the answer" with everything that depends on one side alone taken out of the
/// inner loop: product · row.a + row.b · query.x + row.d · query.y + row.c · query.z < query.t means no.
struct RowTest {
  float a, b, d, c;
};
struct alignas(16) QueryTest {
  float x, y, z, t;
};

__device__ inline RowTest row_test(int metric, const RowFacts& r, float roundoff) {
  if (!isfinite(r.norm)) return {NAN, NAN, NAN, NAN};
  const float reach = r.norm + r.error;
  RowTest test = {r.scale, (r.error + roundoff * reach) * 1.00001f, reach * (1.00001f + roundoff), 0.0f};
  if (metric == WAGGLE_METRIC_COSINE) {
    const float inverse = r.norm > 0 ? 1.0f / r.norm : 0.0f;
    test.a *= inverse;
    test.b = test.b * inverse * 1.00001f;
    test.d = test.d * inverse * 1.00001f;
  } else if (metric == WAGGLE_METRIC_L2) {
    test.c = -0.5f * r.square_low * (1.0f - 2e-6f);
  }
  return test;
}

/// `threshold`: a score the k-th best certainly reaches; −infinity while fewer than k rows are known.
__device__ inline QueryTest query_test(int metric, const RowFacts& q, float threshold) {
  QueryTest test;
  const float inverse = 1.0f / q.scale;
  test.x = q.norm * inverse * 1.00001f;
  test.y = q.error * inverse * 1.00001f;
  test.z = inverse;
  if (!isfinite(q.norm)) return {0, 0, 0, -INFINITY};
  if (threshold == -INFINITY) {
    test.t = -INFINITY;
    return test;
  }
  float t = threshold;
  float slack = 2e-6f * fabsf(threshold) + FLT_MIN;
  if (metric == WAGGLE_METRIC_COSINE) {
    t = threshold * q.norm;
    slack = 4e-6f * q.norm;
  } else if (metric == WAGGLE_METRIC_L2) {
    t = 0.5f * (threshold + q.square_low);
    slack = 2e-6f * (fabsf(threshold) + q.square_low) + FLT_MIN;
  }
  test.t = (t - slack) * inverse;
  test.t -= 1e-6f * fabsf(test.t);
  return test;
}

__device__ inline bool may_belong(float product, const RowTest& row, const QueryTest& query) {
  const float reach = fmaf(product, row.a, fmaf(row.b, query.x, fmaf(row.d, query.y, row.c * query.z)));
  return !(reach < query.t);  // NaN stays
}

}  // namespace waggle::cuda
