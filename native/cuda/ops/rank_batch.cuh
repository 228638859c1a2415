// From requests to their best items without leaving the device between the stages.
#pragma once

#include <memory>

#include "abi/backend_abi.h"
#include "cuda/ops/trees.cuh"
#include "cuda/resources.hpp"

/// The opaque handle of the plugin contract: items that stay on the device.
struct waggle_rank_items {
  waggle::cuda::DeviceArray<float> d_embeddings{"the embeddings of the items"};
  waggle::cuda::DeviceArray<float> d_features{"the features of the items"};
  waggle::cuda::DeviceArray<float> d_factors{"the norms of the items"};
  int64_t n_items = 0;
  int64_t dim = 0;
  int64_t n_features = 0;
};

namespace waggle::cuda {

int32_t open_rank_items(State& state, waggle_rank_items_args& args, std::unique_ptr<waggle_rank_items>* out,
                        waggle_text* error);

int32_t rank_batch_on_device(State& state, waggle_rank_args& args, waggle_text* error);

}  // namespace waggle::cuda
