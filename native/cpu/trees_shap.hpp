#pragma once

#include <cstdint>
#include <vector>

#include "waggle/ops/trees_shap.hpp"

namespace waggle::cpu {

Status trees_shap(const TreesShapArgs& args, const RunContext& context);

/// Points and weights of Gauss–Legendre quadrature on [0, 1]: exact for polynomials of degree 2n − 1.
void gauss_legendre(int32_t n, std::vector<double>* points, std::vector<double>* weights);

}  // namespace waggle::cpu
