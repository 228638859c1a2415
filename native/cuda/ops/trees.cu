// One thread walks every tree for one row. The rows of a block lie transposed in shared memory while they fit, so a
// feature is fetched without conflicts; nodes come through L1, where the upper levels of the tree that a block is at
// stay.
#include "cuda/ops/trees.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/check.cuh"
#include "cuda/device.cuh"

namespace waggle::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxSharedBytes = 96 * 1024;
constexpr int64_t kPartBytes = int64_t{64} << 20;

struct Forest {
  const waggle_forest_node* d_nodes;
  const waggle_forest_tree* d_trees;
  const float* d_values;
  const float* d_members;
  const uint32_t* d_categories;
  const waggle_forest_set* d_sets;
  int n_trees;
  int n_features;
  int n_targets;
};

__device__ inline bool in_bitset(const Forest& forest, const waggle_forest_set& set, float category) {
  if (!(category >= 0) || static_cast<double>(category) >= 32.0 * set.count) return false;
  const unsigned long long c = static_cast<unsigned long long>(category);
  return ((forest.d_categories[set.first + (c >> 5)] >> (c & 31)) & 1u) != 0;
}

// As waggle::trees decides; see include/waggle/trees.hpp.
__device__ inline bool goes_left(const Forest& forest, const waggle_forest_node& node, float x) {
  const unsigned rules = node.rules;
  const unsigned missing = rules >> 27 & 3u;
  const bool default_left = (rules >> 29 & 1u) != 0;
  if (isnan(x)) {
    if (missing != WAGGLE_MISSING_NAN_IS_ZERO) return default_left;
    x = 0;
  }
  if (missing == WAGGLE_MISSING_ZERO_OR_NAN && fabsf(x) <= 1e-35f) return default_left;
  switch (rules >> 24 & 7u) {
    case WAGGLE_DECISION_LESS:
      return x < node.threshold;
    case WAGGLE_DECISION_LESS_EQUAL:
      return x <= node.threshold;
    case WAGGLE_DECISION_EQUAL:
      return x == node.threshold;
    case WAGGLE_DECISION_MEMBER: {
      const waggle_forest_set set = forest.d_sets[__float_as_uint(node.threshold)];
      for (uint32_t i = 0; i < set.count; ++i) {
        if (forest.d_members[set.first + i] == x) return true;
      }
      return false;
    }
    case WAGGLE_DECISION_CATEGORY:
      return x >= 0 && in_bitset(forest, forest.d_sets[__float_as_uint(node.threshold)], truncf(x));
    default:
      return in_bitset(forest, forest.d_sets[__float_as_uint(node.threshold)], truncf(x));
  }
}

// Grid: rows / 128; 128 threads, one row each; 512 bytes of shared memory per feature where that fits. d_sums
// [n_rows × n_targets] must be 0 when there is more than one target.
__global__ void __launch_bounds__(kThreads)
    predict_kernel(const Forest forest, const float* d_x, int64_t n_rows, bool staged, double* d_sums) {
  WAGGLE_DYNAMIC_SHARED(shared);
  float* columns = reinterpret_cast<float*>(shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kThreads;
  const int64_t row = row0 + thread;
  const int n_features = forest.n_features;
  if (staged) {
    const int64_t here = min(static_cast<int64_t>(kThreads), n_rows - row0) * n_features;
    for (int64_t i = thread; i < here; i += kThreads) {
      columns[i % n_features * kThreads + i / n_features] = d_x[row0 * n_features + i];
    }
    __syncthreads();
  }
  if (row >= n_rows) return;
  const float* own = d_x + row * n_features;
  double sum = 0;
  for (int t = 0; t < forest.n_trees; ++t) {
    const waggle_forest_tree tree = forest.d_trees[t];
    waggle_forest_node node = forest.d_nodes[tree.first_node];
    while ((node.rules & WAGGLE_NODE_LEAF) == 0) {
      const int feature = static_cast<int>(node.rules & 0xffffffu);
      const float x = staged ? columns[feature * kThreads + thread] : own[feature];
      node = forest.d_nodes[goes_left(forest, node, x) ? node.left : node.right];
    }
    if (forest.n_targets == 1) {
      sum = __dadd_rn(sum, static_cast<double>(forest.d_values[node.left]));
    } else {
      for (int v = 0; v < tree.n_values; ++v) {
        double* at = d_sums + row * forest.n_targets + tree.first_target + v;
        *at = __dadd_rn(*at, static_cast<double>(forest.d_values[node.left + static_cast<unsigned>(v)]));
      }
    }
  }
  if (forest.n_targets == 1) d_sums[row] = sum;
}

template <typename T>
int32_t upload(DeviceArray<T>& to, const T* from, int64_t count, cudaStream_t stream, waggle_text* error) {
  WAGGLE_TRY(to.allocate(static_cast<size_t>(count), error));
  if (count > 0) {
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(to.get(), from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyHostToDevice, stream));
  }
  return WAGGLE_BACKEND_OK;
}

}  // namespace

int32_t open_forest(State& state, const waggle_forest_args& args, std::unique_ptr<waggle_forest>* out,
                    waggle_text* error) {
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  const cudaStream_t s = state.stream.get();
  auto forest = std::make_unique<waggle_forest>();
  WAGGLE_TRY(upload(forest->d_nodes, args.nodes, args.n_nodes, s, error));
  WAGGLE_TRY(upload(forest->d_trees, args.trees, args.n_trees, s, error));
  WAGGLE_TRY(upload(forest->d_values, args.values, args.n_values, s, error));
  WAGGLE_TRY(upload(forest->d_members, args.members, args.n_members, s, error));
  WAGGLE_TRY(upload(forest->d_categories, args.categories, args.n_categories, s, error));
  WAGGLE_TRY(upload(forest->d_sets, args.sets, args.n_sets, s, error));
  forest->n_features = args.n_features;
  forest->n_targets = args.n_targets;
  forest->n_trees = static_cast<int32_t>(args.n_trees);
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // the caller's arrays may go
  *out = std::move(forest);
  return WAGGLE_BACKEND_OK;
}

int32_t predict_on_device(State& state, const waggle_forest& forest, const waggle_predict_args& args,
                          waggle_text* error) {
  if (args.n_rows == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  state.scratch.reset();
  const cudaStream_t s = state.stream.get();
  const int64_t row_bytes = int64_t{forest.n_features} * 4 + int64_t{forest.n_targets} * 8;
  const int64_t part = std::clamp<int64_t>(kPartBytes / row_bytes / kThreads * kThreads, kThreads,
                                           (args.n_rows + kThreads - 1) / kThreads * kThreads);
  float* d_x = nullptr;
  double* d_sums = nullptr;
  WAGGLE_TRY(state.scratch.take(&d_x, part * forest.n_features, error));
  WAGGLE_TRY(state.scratch.take(&d_sums, part * forest.n_targets, error));
  const Forest view = {forest.d_nodes.get(),   forest.d_trees.get(),      forest.d_values.get(),
                       forest.d_members.get(), forest.d_categories.get(), forest.d_sets.get(),
                       forest.n_trees,         forest.n_features,         forest.n_targets};
  const int shared = forest.n_features * kThreads * 4;
  const bool staged = shared <= kMaxSharedBytes;
  if (staged) {
    WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&predict_kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes));
  }
  for (int64_t first = 0; first < args.n_rows; first += part) {
    if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) {
      WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
      return WAGGLE_BACKEND_CANCELLED;
    }
    const int64_t rows = std::min(part, args.n_rows - first);
    if (forest.n_features > 0) {
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_x, args.x + first * forest.n_features,
                                        static_cast<size_t>(rows * forest.n_features) * 4, cudaMemcpyHostToDevice, s));
    }
    if (forest.n_targets > 1) {
      WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_sums, 0, static_cast<size_t>(rows * forest.n_targets) * 8, s));
    }
    WAGGLE_LAUNCH(predict_kernel, dim3(static_cast<unsigned>((rows + kThreads - 1) / kThreads)), dim3(kThreads),
                  staged ? static_cast<size_t>(shared) : 0, s, view, d_x, rows, staged, d_sums);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(args.sums + first * forest.n_targets, d_sums,
                                      static_cast<size_t>(rows * forest.n_targets) * 8, cudaMemcpyDeviceToHost, s));
  }
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
