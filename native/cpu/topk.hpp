#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/encode.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle::cpu {

/// `args` are already checked. With `halves` its rows, put together tile by tile, take the place of args.matrix, of
/// which the shape alone is read then; a thread holds a tile of them, some 400 KB up to dim 4,096.
Status topk(const Table& table, const TopkArgs& args, const RunContext& context, const EncodedMatrix* halves = nullptr);

}  // namespace waggle::cpu
