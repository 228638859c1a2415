#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/glm_block.inc"

}  // namespace

const GlmKernels kGlmAvx512 = {linear_kernel, gradient_kernel, hessian_kernel};

}  // namespace waggle::cpu
