#include "cpu/cholesky.hpp"

#include <algorithm>
#include <cmath>

namespace waggle::cpu {

namespace {

// Σ a[k]·b[k] in four chains, so that additions need not wait for each other.
double dot(const double* a, const double* b, int64_t n) {
  double sums[4] = {0, 0, 0, 0};
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    for (int lane = 0; lane < 4; ++lane) sums[lane] += a[k + lane] * b[k + lane];
  }
  for (; k < n; ++k) sums[0] += a[k] * b[k];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

}  // namespace

int64_t cholesky_factor(double* a, int64_t n, double relative_floor) {
  for (int64_t j = 0; j < n; ++j) {
    double* row_j = a + j * n;
    for (int64_t i = 0; i < j; ++i) {
      const double* row_i = a + i * n;
      row_j[i] = (row_j[i] - dot(row_j, row_i, i)) / row_i[i];
    }
    const double diagonal = row_j[j];
    const double pivot = diagonal - dot(row_j, row_j, j);
    if (!(pivot > relative_floor * diagonal) || !(diagonal > 0)) return j;
    row_j[j] = std::sqrt(pivot);
  }
  return -1;
}

void cholesky_solve(const double* l, int64_t n, double* b) {
  for (int64_t i = 0; i < n; ++i) {
    b[i] = (b[i] - dot(l + i * n, b, i)) / l[i * n + i];
  }
  // Lᵀ by its columns, which lie together as rows of L.
  for (int64_t i = n - 1; i >= 0; --i) {
    b[i] /= l[i * n + i];
    for (int64_t k = 0; k < i; ++k) b[k] -= l[i * n + k] * b[i];
  }
}

// (A⁻¹)ⱼⱼ = |L⁻¹ eⱼ|², and L⁻¹ eⱼ starts at j.
void cholesky_inverse_diagonal(const double* l, int64_t n, double* out, double* scratch) {
  for (int64_t j = 0; j < n; ++j) {
    double sum_of_squares = 0;
    for (int64_t i = j; i < n; ++i) {
      double sum = i == j ? 1.0 : 0.0;
      for (int64_t k = j; k < i; ++k) sum -= l[i * n + k] * scratch[k];
      scratch[i] = sum / l[i * n + i];
      sum_of_squares += scratch[i] * scratch[i];
    }
    out[j] = sum_of_squares;
  }
}

}  // namespace waggle::cpu
