// Training of trees on the device: what the plugin contract calls a fit (abi/backend_abi.h), and its kernels' data.
//
// Rows keep their places; a tree orders their numbers by node, in two buffers that alternate by depth, so that a node
// is a stretch of one of them. Bins lie in groups of 32 features: a row of a group is 32 bytes, the least that memory
// gives for any of them. Sums of gradients are integers (cpu/trees_fit_kernels.hpp), so it does not matter who adds
// first; whatever is summed in floating point is summed in the CPU's order. So every answer has the CPU's bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "abi/backend_abi.h"
#include "cpu/trees_fit_kernels.hpp"
#include "cuda/resources.hpp"

namespace waggle::cuda {

constexpr int kGroupFeatures = 32;
constexpr int kGroupWords = kGroupFeatures / 4;
/// Of a group's histogram: [g and h][256 slots][32 columns]; see column_of().
constexpr int kGroupSums = cpu::kFitMaxSlots * kGroupFeatures;

/// Byte j of word w is column 8·j + w: see histogram_kernel.
inline int column_of(int feature) { return feature % 4 * kGroupWords + feature % kGroupFeatures / 4; }

struct alignas(8) Quantised {
  int g;
  int h;
};

/// Of the tree that grows.
struct FitRules {
  cpu::FitPenalty penalty;
  double max_step;
  double h_least;
  long long min_child_rows;
  bool bounded;
};

/// Where the rows of a stretch are: numbers at `rows`, or (null) first, first + 1, …
struct Stretch {
  const uint32_t* d_rows;
  uint32_t first;
  uint32_t count;
};

}  // namespace waggle::cuda

/// The opaque handle of the plugin contract.
struct waggle_fit {
  using Sums = waggle::cuda::DeviceArray<unsigned long long>;
  using Splits = waggle::cuda::DeviceArray<waggle_fit_split>;

  int32_t objective = 0;
  double quantile = 0;
  int64_t n_rows = 0;
  int32_t n_features = 0;
  int32_t n_groups = 0;
  waggle::cuda::FitRules rules{};
  std::vector<waggle_fit_feature> features;

  waggle::cuda::DeviceArray<uint32_t> d_bins{"the bins"};  // [groups × rows × 8]
  waggle::cuda::DeviceArray<waggle_fit_feature> d_features{"the features"};
  waggle::cuda::DeviceArray<double> d_y{"the labels"};
  waggle::cuda::DeviceArray<double> d_trials{"the trials"};
  waggle::cuda::DeviceArray<double> d_weights{"the weights"};
  waggle::cuda::DeviceArray<double> d_scores{"the scores"};
  waggle::cuda::DeviceArray<waggle::cpu::FitGradient> d_gradients{"the gradients"};
  waggle::cuda::DeviceArray<waggle::cuda::Quantised> d_quantised{"the rounded gradients"};
  waggle::cuda::DeviceArray<uint32_t> d_even{"the order of the rows"};
  waggle::cuda::DeviceArray<uint32_t> d_odd{"the order of the rows"};
  waggle::cuda::DeviceArray<unsigned long long> d_keys{"the residuals"};  // quantile only
  waggle::cuda::DeviceArray<int32_t> d_used{"the tree's features"};

  // Of the tree that grows.
  bool sampled = false;
  double row_sample = 1;
  uint64_t seed = 0;
  uint64_t round = 0;
  std::vector<int32_t> used;   // features that can be split, by their columns
  std::vector<int32_t> place;  // feature → its place in `used`, or −1

  // Kept from tree to tree; they grow while the first ones need more.
  std::vector<std::unique_ptr<Sums>> slabs;
  std::unique_ptr<Splits> d_candidates;
  int64_t n_candidates = 0;

  bool has_trials = false;
  bool has_weights = false;

  const uint32_t* rows_at(int32_t depth) const {
    if (depth == 0 && !sampled) return nullptr;
    return (depth & 1) == 0 ? d_even.get() : d_odd.get();
  }
  waggle::cuda::Stretch stretch(int64_t begin, int64_t end, int32_t depth) const {
    return {rows_at(depth), static_cast<uint32_t>(begin), static_cast<uint32_t>(end - begin)};
  }
};

namespace waggle::cuda {

int32_t open_fit(State& state, const waggle_fit_args& args, std::unique_ptr<waggle_fit>* out, waggle_text* error);
int32_t fit_gradients_on_device(State& state, waggle_fit& fit, waggle_fit_gradients_args& args, waggle_text* error);
int32_t fit_tree_on_device(State& state, waggle_fit& fit, waggle_fit_tree_args& args, waggle_text* error);
int32_t fit_parts_on_device(State& state, waggle_fit& fit, waggle_fit_parts_args& args, waggle_text* error);
int32_t fit_search_on_device(State& state, waggle_fit& fit, waggle_fit_search_args& args, waggle_text* error);
int32_t fit_leaves_on_device(State& state, waggle_fit& fit, waggle_fit_leaves_args& args, waggle_text* error);
int32_t fit_update_on_device(State& state, waggle_fit& fit, waggle_fit_update_args& args, waggle_text* error);

/// At the start of a call: its device, its stream, and everything that the last call took is free.
inline int32_t begin_call(State& state, waggle_text* error) {
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  state.scratch.reset();
  state.staging.reset();
  return WAGGLE_BACKEND_OK;
}

/// A copy of `values` on the device, for this call.
template <typename T>
int32_t send(State& state, const std::vector<T>& values, T** d_out, waggle_text* error) {
  const int64_t n = static_cast<int64_t>(values.size());
  T* staged = nullptr;
  WAGGLE_TRY(state.staging.take(&staged, n, error));
  WAGGLE_TRY(state.scratch.take(d_out, n, error));
  if (n == 0) return WAGGLE_BACKEND_OK;
  std::copy(values.begin(), values.end(), staged);
  WAGGLE_CUDA_CHECK(
      cudaMemcpyAsync(*d_out, staged, values.size() * sizeof(T), cudaMemcpyHostToDevice, state.stream.get()));
  return WAGGLE_BACKEND_OK;
}

/// n values from the device, once the stream has come there; waits for it.
template <typename T>
int32_t receive(State& state, const T* d_values, int64_t n, T* out, waggle_text* error) {
  T* staged = nullptr;
  WAGGLE_TRY(state.staging.take(&staged, n, error));
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(staged, d_values, static_cast<size_t>(n) * sizeof(T), cudaMemcpyDeviceToHost,
                                    state.stream.get()));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(state.stream.get()));
  std::copy(staged, staged + n, out);
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
