#pragma once

#include "waggle/ops/glm_sparse.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status glm_sparse(const GlmSparseArgs& args, const RunContext& context, GlmSparseResult* result);

}  // namespace waggle::cpu
