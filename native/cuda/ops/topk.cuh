// Exact top-k on the device; see include/waggle/ops/topk.hpp for what it promises.
#pragma once

#include "abi/backend_abi.h"
#include "cuda/resources.hpp"

namespace waggle::cuda {

/// Host pointers in, host pointers out; returns when the answer is written. The matrix travels in parts that
/// fit the device's free memory. Polls `is_cancelled` between parts and query blocks.
int32_t topk_f32_on_device(State& state, const waggle_topk_f32_args& args, waggle_text* error);

}  // namespace waggle::cuda
