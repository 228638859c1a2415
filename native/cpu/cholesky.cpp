#include "cpu/cholesky.hpp"

#include <algorithm>
#include <cmath>

namespace waggle::cpu {

int64_t cholesky_factor(double* a, int64_t n, double relative_floor) {
  for (int64_t j = 0; j < n; ++j) {
    double* row_j = a + j * n;
    for (int64_t i = 0; i < j; ++i) {
      const double* row_i = a + i * n;
      double sum = row_j[i];
      for (int64_t k = 0; k < i; ++k) sum -= row_j[k] * row_i[k];
      row_j[i] = sum / row_i[i];
    }
    const double diagonal = row_j[j];
    double pivot = diagonal;
    for (int64_t k = 0; k < j; ++k) pivot -= row_j[k] * row_j[k];
    if (!(pivot > relative_floor * diagonal) || !(diagonal > 0)) return j;
    row_j[j] = std::sqrt(pivot);
  }
  return -1;
}

void cholesky_solve(const double* l, int64_t n, double* b) {
  for (int64_t i = 0; i < n; ++i) {
    double sum = b[i];
    for (int64_t k = 0; k < i; ++k) sum -= l[i * n + k] * b[k];
    b[i] = sum / l[i * n + i];
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    double sum = b[i];
    for (int64_t k = i + 1; k < n; ++k) sum -= l[k * n + i] * b[k];
    b[i] = sum / l[i * n + i];
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
