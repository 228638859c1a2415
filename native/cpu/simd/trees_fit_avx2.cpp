#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/trees_fit_block.inc"

}  // namespace

// Histograms are bound by loads and stores of single words: wider registers do not help them. See with_scalar_fit().
const TreesFitKernels kTreesFitAvx2 = {nullptr, flush_kernel, subtract_kernel, gains_kernel,
                                       nullptr, nullptr,      logistic_kernel};

}  // namespace waggle::cpu
