#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/glm_fit.hpp"

namespace waggle::cpu {

/// `args` are already checked, x excepted: its values are checked while they are read the first time.
Status glm_fit(const Table& table, const GlmFitArgs& args, const RunContext& context, GlmFitResult* result);

}  // namespace waggle::cpu
