// The truth the other levels are compared with: sums in double, rounded once.
#include <cmath>
#include <limits>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kWide = 16;
constexpr int32_t kNarrow = 8;

void keep_if_above(const TopkTile& t, int32_t row, float row_factor, int32_t query, double sum, bool l2,
                   int32_t* count) {
  float score = static_cast<float>(l2 ? -sum : sum);
  if (t.query_factors != nullptr) score = score * t.query_factors[query] * row_factor;
  if (std::isfinite(score) && score <= t.thresholds[query]) return;
  t.hit_places[*count] = static_cast<uint32_t>(row << 8 | query);
  t.hit_scores[*count] = score;
  ++*count;
}

double term(float query, float row, bool l2) {
  if (!l2) return static_cast<double>(query) * row;
  const double difference = static_cast<double>(query) - row;
  return difference * difference;
}

template <int32_t kPanel>
int32_t panel_kernel(const TopkTile* t, bool l2) {
  int32_t count = 0;
  for (int32_t r = 0; r < t->n_rows; ++r) {
    double sums[kPanel] = {};
    for (int64_t i = 0; i < t->dim; ++i) {
      const float* queries = t->panel + i * kPanel;
      for (int32_t q = 0; q < kPanel; ++q) sums[q] += term(queries[q], t->rows[r][i], l2);
    }
    const float factor = t->query_factors != nullptr ? t->row_factors[r] : 0.0f;
    for (int32_t q = 0; q < t->n_queries; ++q) keep_if_above(*t, r, factor, q, sums[q], l2, &count);
  }
  return count;
}

double similarity(const float* query, const float* row, int64_t dim, bool l2) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += term(query[i], row[i], l2);
  return sum;
}

float inverse_norm(const float* row, int64_t dim) {
  const float square = static_cast<float>(similarity(row, row, dim, false));
  const bool safe = square >= kTopkSmallestSafeSquare && square <= kTopkLargestSafeSquare;
  return safe ? 1.0f / std::sqrt(square) : std::numeric_limits<float>::quiet_NaN();
}

int32_t few_kernel(const TopkTile* t, bool l2) {
  int32_t count = 0;
  for (int32_t r = 0; r < t->n_rows; ++r) {
    const float factor = t->query_factors != nullptr ? inverse_norm(t->rows[r], t->dim) : 0.0f;
    for (int32_t q = 0; q < t->n_queries; ++q) {
      keep_if_above(*t, r, factor, q, similarity(t->queries[q], t->rows[r], t->dim, l2), l2, &count);
    }
  }
  return count;
}

void scores_kernel(const float* query, const float* const* rows, int32_t n_rows, int64_t dim, bool l2, float* out) {
  for (int32_t r = 0; r < n_rows; ++r) {
    const double sum = similarity(query, rows[r], dim, l2);
    out[r] = static_cast<float>(l2 ? -sum : sum);
  }
}

void factors_kernel(const float* const* rows, int32_t n_rows, int64_t dim, float* out) {
  for (int32_t r = 0; r < n_rows; ++r) out[r] = inverse_norm(rows[r], dim);
}

}  // namespace

const TopkKernels kTopkScalar = {
    kWide, kNarrow, 4, panel_kernel<kWide>, panel_kernel<kNarrow>, few_kernel, scores_kernel, factors_kernel};

}  // namespace waggle::cpu
