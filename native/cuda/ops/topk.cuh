// Exact top-k on the device; see include/waggle/ops/topk.hpp for what it promises.
#pragma once

#include "abi/backend_abi.h"
#include "cuda/matrix.hpp"
#include "cuda/resources.hpp"

namespace waggle::cuda {

/// Host pointers in, host pointers out; returns when the answer is written. The matrix travels in parts that
/// fit the device's free memory. Polls `is_cancelled` between parts and query blocks.
int32_t topk_f32_on_device(State& state, const waggle_topk_f32_args& args, waggle_text* error);

/// Against a resident matrix. With exact rows the answer is exact: scores are double products rounded once, ties to
/// the lower row, whatever was scanned. Without, scores are approximate and `n_in_doubt` says how far that matters.
/// The caller holds the device (cuda/owner.hpp).
int32_t topk_on_device(State& state, const MatrixView& matrix, waggle_topk_args& args, waggle_text* error);

}  // namespace waggle::cuda
