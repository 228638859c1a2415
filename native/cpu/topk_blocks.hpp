// Scores of single pairs, for whoever found candidate rows by other means and re-scores them.
#pragma once

#include <cstdint>

#include "cpu/table.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle::cpu {

/// scores[i] = the score that topk gives `query` against matrix row rows[i], to the bit. Rows may repeat and need no
/// order. A score that is not finite is written as it is: the caller turns it into kNotFinite. O(n · dim).
void rescore(const Table& table, Metric metric, const float* query, const Matrix<const float>& matrix,
             const int32_t* rows, int64_t n, float* scores);

/// One over the query's norm, or NaN where a cosine must be computed in double.
float query_factor(const float* query, int64_t dim);

}  // namespace waggle::cpu
