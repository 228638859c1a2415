#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status topk(const Table& table, const TopkArgs& args, const RunContext& context);

}  // namespace waggle::cpu
