// Solving with a symmetric positive definite matrix, in double, lower triangle, row-major.
#pragma once

#include <cstdint>

namespace waggle::cpu {

/// Replaces the lower triangle of a [n × n] by L with L·Lᵀ = a. Returns −1, or the first column whose pivot
/// is not above `relative_floor` times its diagonal entry (then a is not positive definite, to precision).
int64_t cholesky_factor(double* a, int64_t n, double relative_floor);

/// b ← (L·Lᵀ)⁻¹ b
void cholesky_solve(const double* l, int64_t n, double* b);

/// out[i] = ((L·Lᵀ)⁻¹)ᵢᵢ. `scratch` holds n values.
void cholesky_inverse_diagonal(const double* l, int64_t n, double* out, double* scratch);

}  // namespace waggle::cpu
