// Clusters around means: nearest centroids, exactly or by int8 codes, and sums of rows.
#pragma once

#include <memory>

#include "abi/backend_abi.h"
#include "cuda/resources.hpp"

/// The opaque handle of the plugin contract: the rows of one clustering.
struct waggle_points {
  waggle::cuda::DeviceArray<float> d_rows{"the rows to cluster"};
  int64_t n_rows = 0;
  int64_t dim = 0;
  bool sums_in_double = false;
};

namespace waggle::cuda {

int32_t open_points(State& state, waggle_points_args& args, std::unique_ptr<waggle_points>* out, waggle_text* error);
int32_t assign_on_device(State& state, waggle_points& points, waggle_assign_args& args, waggle_text* error);
int32_t means_on_device(State& state, waggle_points& points, waggle_means_args& args, waggle_text* error);
int32_t nearest_on_device(State& state, waggle_nearest_args& args, waggle_text* error);

}  // namespace waggle::cuda
