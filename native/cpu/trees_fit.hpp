#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::cpu {

/// `args` are already checked, but for infinities and categories in x.
Status trees_fit(const Table& table, const TreesFitArgs& args, const RunContext& context, TreesFitResult* result);

}  // namespace waggle::cpu
