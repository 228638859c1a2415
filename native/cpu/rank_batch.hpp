#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/rank_batch.hpp"

namespace waggle::cpu {

/// σ(logit), or NaN where that is not finite.
float linear_prediction(double logit);

/// `args` are already checked.
Status rank_batch(const Table& table, const RankBatchArgs& args, const RunContext& context);

}  // namespace waggle::cpu
