#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/topk_encoded.hpp"

namespace waggle::cpu {

/// `args` are already checked.
Status topk_encoded(const Table& table, const TopkEncodedArgs& args, const RunContext& context,
                    TopkEncodedReport* report);

}  // namespace waggle::cpu
