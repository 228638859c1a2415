#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/kmeans.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status kmeans(const Table& table, const KmeansArgs& args, const RunContext& context, KmeansResult* result);

}  // namespace waggle::cpu
