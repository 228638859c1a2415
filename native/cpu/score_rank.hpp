#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/score_rank.hpp"

namespace waggle::cpu {

/// `args` are already checked and n > 0.
Status score_rank(const Table& table, const ScoreRankArgs& args, const RunContext& context, ScoreRankCounts* counts);

}  // namespace waggle::cpu
