#pragma once

#include "waggle/ops/effects_fit.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status effects_fit(const EffectsFitArgs& args, const RunContext& context, EffectsFitResult* result);

}  // namespace waggle::cpu
