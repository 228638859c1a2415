#include "cpu/ffm.hpp"

#include <cmath>

#include "src/sparse/logistic.hpp"

namespace waggle::cpu {

namespace {

// Rows of many fields touch little of each block.
constexpr int64_t kLargestPrefetch = 4096;
constexpr int64_t kLine = 64;

FfmRow row_of(const FfmWeights& weights, const SparseRows& rows, int64_t row, FfmScratch& scratch) {
  const int64_t first = rows.indptr[row];
  const int32_t n = rows.indptr[row + 1] - rows.indptr[row];
  float scale = 1;
  if (weights.normalize) {
    double square = 0;
    for (int64_t e = first; e < first + n; ++e) square += static_cast<double>(rows.value(e)) * rows.value(e);
    scale = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 0.0f;
  }
  for (int32_t e = 0; e < n; ++e) {
    const size_t at = static_cast<size_t>(e);
    scratch.blocks[at] = weights.block(rows.indices[first + e]);
    scratch.fields[at] = rows.field(row, first + e);
    scratch.x[at] = rows.value(first + e) * scale;
  }
  return {scratch.blocks.data(), scratch.fields.data(), scratch.x.data(), n, weights.n_fields, weights.width};
}

double predictor_of(const FfmKernels& kernels, const FfmWeights& weights, const FfmRow& row, const int32_t* indices,
                    double offset) {
  double eta = offset + kernels.interactions(&row);
  if (weights.linear == nullptr) return eta;
  eta += weights.intercept[0];
  for (int32_t e = 0; e < row.n; ++e) {
    eta += static_cast<double>(weights.linear[indices[e]].weight) * static_cast<double>(row.x[e]);
  }
  return eta;
}

}  // namespace

double ffm_predictor(const FfmKernels& kernels, const FfmWeights& weights, const SparseRows& rows, int64_t row,
                     double offset, FfmScratch& scratch) {
  const FfmRow view = row_of(weights, rows, row, scratch);
  return predictor_of(kernels, weights, view, rows.indices + rows.indptr[row], offset);
}

void ffm_learn(const FfmKernels& kernels, const FfmWeights& weights, const SparseRows& rows,
               const SparseTargets& targets, int64_t row, FfmScratch& scratch, FfmSum* sum) {
  const FfmRow view = row_of(weights, rows, row, scratch);
  const int32_t* indices = rows.indices + rows.indptr[row];
  const double eta = predictor_of(kernels, weights, view, indices, targets.shift(row));
  const LogisticPoint point = logistic_at(eta);
  const double w = targets.weight(row);
  const double t = targets.trial(row);
  const double s = targets.successes[row];
  sum->weight += w * t;
  sum->loss += w * logistic_loss(point, eta, s, t);
  const double slope = w * (t * point.mean - s);
  if (w * t == 0) return;  // a row that says nothing does not shrink weights either
  const float narrow = static_cast<float>(slope);
  if (weights.linear != nullptr) {
    weights.intercept[1] += slope * slope;
    weights.intercept[0] -= static_cast<double>(weights.rate) * slope / std::sqrt(weights.intercept[1]);
    for (int32_t e = 0; e < view.n; ++e) {
      FfmLinear& at = weights.linear[indices[e]];
      const float g = weights.linear_l2 * at.weight + narrow * view.x[e];
      at.square += g * g;
      at.weight -= weights.rate * g / std::sqrt(at.square);
    }
  }
  kernels.learn(&view, narrow, weights.rate, weights.l2);
}

void ffm_prefetch(const FfmWeights& weights, const SparseRows& rows, int64_t row) {
#if defined(__GNUC__)
  const int64_t bytes = weights.stride() * static_cast<int64_t>(sizeof(float));
  for (int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) {
    if (weights.linear != nullptr) __builtin_prefetch(weights.linear + rows.indices[e], 1);
    if (bytes > kLargestPrefetch) continue;
    const char* block = reinterpret_cast<const char*>(weights.block(rows.indices[e]));
    for (int64_t line = 0; line < bytes; line += kLine) __builtin_prefetch(block + line, 1);
  }
#else
  (void)weights, (void)rows, (void)row;
#endif
}

}  // namespace waggle::cpu
