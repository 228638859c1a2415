#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/encode.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status encode(const Table& table, const EncodeArgs& args, const RunContext& context);

/// The smallest float that is not below a non-negative `value`; infinity beyond the largest.
float float_above(double value);

}  // namespace waggle::cpu
