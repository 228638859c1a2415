#pragma once

#include "cpu/table.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::cpu {

Status trees_predict(const Table& table, const TreesPredictArgs& args, const RunContext& context);

/// Base, scale and transform over summed leaves [rows × n_targets]: out [rows × outputs].
void trees_finish(const trees::Model& model, const double* sums, int64_t rows, bool raw, float* out);

/// Scores `rows` rows in one go on the calling thread: out [rows × outputs]. For callers with tiles of their own.
void trees_predict_rows(const Table& table, const trees::Model& model, const float* x, int64_t stride, int64_t rows,
                        bool raw, float* out);

}  // namespace waggle::cpu
