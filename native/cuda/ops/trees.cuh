// Sums of leaves of a tree ensemble on the device.
#pragma once

#include <memory>

#include "abi/backend_abi.h"
#include "cuda/resources.hpp"

/// The opaque handle of the plugin contract: an ensemble on the device.
struct waggle_forest {
  waggle::cuda::DeviceArray<waggle_forest_node> d_nodes{"the nodes"};
  waggle::cuda::DeviceArray<waggle_forest_tree> d_trees{"the trees"};
  waggle::cuda::DeviceArray<float> d_values{"the leaf values"};
  waggle::cuda::DeviceArray<float> d_members{"the member values"};
  waggle::cuda::DeviceArray<uint32_t> d_categories{"the category sets"};
  waggle::cuda::DeviceArray<waggle_forest_set> d_sets{"the sets"};
  int32_t n_features = 0;
  int32_t n_targets = 0;
  int32_t n_trees = 0;
  bool is_plain = false;  // every decision is x ≤ threshold, NaN by default
};

namespace waggle::cuda {

int32_t open_forest(State& state, const waggle_forest_args& args, std::unique_ptr<waggle_forest>* out,
                    waggle_text* error);

/// Sums in double in the order of the trees: the bits of the CPU's. The rows travel in pieces, several under way at a
/// time; each piece's sums are handed over as soon as they are there.
int32_t predict_on_device(State& state, const waggle_forest& forest, const waggle_predict_args& args,
                          waggle_text* error);

}  // namespace waggle::cuda
