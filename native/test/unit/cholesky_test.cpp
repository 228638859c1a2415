#include "cpu/cholesky.hpp"

#include <cmath>
#include <vector>

#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"

using namespace waggle;

TEST("a factored matrix solves, and its inverse's diagonal is that of the inverse") {
  conformance::Random random(3);
  for (int64_t n = 1; n <= 20; ++n) {
    // A = B·Bᵀ + I is positive definite.
    std::vector<double> b(static_cast<size_t>(n * n)), a(b.size());
    for (double& v : b) v = random.uniform() - 0.5;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = i == j ? 1.0 : 0.0;
        for (int64_t k = 0; k < n; ++k) sum += b[static_cast<size_t>(i * n + k)] * b[static_cast<size_t>(j * n + k)];
        a[static_cast<size_t>(i * n + j)] = sum;
      }
    }
    std::vector<double> l = a;
    EXPECT(cpu::cholesky_factor(l.data(), n, 1e-12) == -1);
    std::vector<double> diagonal(static_cast<size_t>(n)), scratch(static_cast<size_t>(n));
    cpu::cholesky_inverse_diagonal(l.data(), n, diagonal.data(), scratch.data());
    for (int64_t column = 0; column < n; ++column) {
      std::vector<double> x(static_cast<size_t>(n), 0.0);
      x[static_cast<size_t>(column)] = 1.0;
      cpu::cholesky_solve(l.data(), n, x.data());
      EXPECT(std::fabs(x[static_cast<size_t>(column)] - diagonal[static_cast<size_t>(column)]) < 1e-12);
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) sum += a[static_cast<size_t>(i * n + k)] * x[static_cast<size_t>(k)];
        EXPECT(std::fabs(sum - (i == column ? 1.0 : 0.0)) < 1e-10);
      }
    }
  }
}

TEST("a singular matrix is refused at the first dependent column") {
  std::vector<double> a = {1, 0, 0, 2, 4, 0, 3, 6, 10};  // second row = 2 × first
  EXPECT(cpu::cholesky_factor(a.data(), 3, 1e-12) == 1);
  std::vector<double> zero(4, 0.0);
  EXPECT(cpu::cholesky_factor(zero.data(), 2, 1e-12) == 0);
}
