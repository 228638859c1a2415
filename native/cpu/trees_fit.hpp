#pragma once

#include "cpu/table.hpp"
#include "src/device_fit.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::cpu {

/// `args` are already checked, but for infinities and categories in x. With a device, rows are there from the first
/// tree on, unless it cannot have them: the model is the same.
Status trees_fit(const Table& table, const TreesFitArgs& args, const RunContext& context, TreesFitResult* result,
                 DeviceFit* device = nullptr);

}  // namespace waggle::cpu
