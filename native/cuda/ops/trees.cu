// One thread walks every tree for one row, a few at a time. The rows of a block lie transposed in shared memory while
// they fit, so a feature is fetched without conflicts; nodes come through L1, where the upper levels of the tree that a
// block is at stay.
#include "cuda/ops/trees.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/trees_walk.cuh"

namespace waggle::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxSharedBytes = 96 * 1024;
constexpr int64_t kPieceBytes = int64_t{6} << 20;
constexpr int64_t kLeastRows = 4096;  // per piece, unless there are fewer

// Grid: rows / 128; 128 threads, one row each; 512 bytes of shared memory per feature where that fits. d_sums
// [n_rows × n_targets] must be 0 when there is more than one target.
template <bool kPlain>
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
  const auto feature_of = [&](int feature) { return staged ? columns[feature * kThreads + thread] : own[feature]; };
  double sum = 0;
  walk_trees<kPlain>(forest, feature_of, [&](int t, unsigned value) {
    if (forest.n_targets == 1) {
      sum = __dadd_rn(sum, static_cast<double>(forest.d_values[value]));
      return;
    }
    const waggle_forest_tree tree = forest.d_trees[t];
    for (int v = 0; v < tree.n_values; ++v) {
      double* to = d_sums + row * forest.n_targets + tree.first_target + v;
      *to = __dadd_rn(*to, static_cast<double>(forest.d_values[value + static_cast<unsigned>(v)]));
    }
  });
  if (forest.n_targets == 1) d_sums[row] = sum;
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
  forest->is_plain = std::all_of(args.nodes, args.nodes + args.n_nodes, [](const waggle_forest_node& node) {
    return (node.rules & WAGGLE_NODE_LEAF) != 0 ||
           ((node.rules >> 24 & 7u) == WAGGLE_DECISION_LESS_EQUAL && (node.rules >> 27 & 3u) == WAGGLE_MISSING_NAN);
  });
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // the caller's arrays may go
  *out = std::move(forest);
  return WAGGLE_BACKEND_OK;
}

int32_t predict_on_device(State& state, const waggle_forest& forest, const waggle_predict_args& args,
                          waggle_text* error) {
  if (args.n_rows == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  WAGGLE_TRY(state.second.open(error));
  state.scratch.reset();
  state.staging.reset();
  const cudaStream_t streams[] = {state.stream.get(), state.second.get()};
  // Pieces small enough that travelling and computing overlap, large enough to fill the device.
  const int64_t row_bytes = int64_t{forest.n_features} * 4 + int64_t{forest.n_targets} * 8;
  const int64_t in_one = (args.n_rows + kThreads - 1) / kThreads * kThreads;
  const int64_t piece =
      std::clamp<int64_t>(kPieceBytes / row_bytes / kThreads * kThreads, std::min(in_one, kLeastRows), in_one);
  float* d_x[2] = {};
  double* d_sums[2] = {};
  float* h_x[2] = {};
  double* h_sums[2] = {};
  for (int side = 0; side < (piece < args.n_rows ? 2 : 1); ++side) {
    WAGGLE_TRY(state.scratch.take(&d_x[side], piece * forest.n_features, error));
    WAGGLE_TRY(state.scratch.take(&d_sums[side], piece * forest.n_targets, error));
    WAGGLE_TRY(state.staging.take(&h_x[side], piece * forest.n_features, error));
    WAGGLE_TRY(state.staging.take(&h_sums[side], piece * forest.n_targets, error));
  }
  const Forest view = forest_view(forest);
  const int shared = forest.n_features * kThreads * 4;
  const bool staged = shared <= kMaxSharedBytes;
  if (staged) {
    const void* kernel = forest.is_plain ? reinterpret_cast<const void*>(&predict_kernel<true>)
                                         : reinterpret_cast<const void*>(&predict_kernel<false>);
    WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes));
  }
  // What a side computed last, on its way to the caller.
  struct Pending {
    int64_t first = 0;
    int64_t rows = 0;
  } pending[2];
  const auto collect = [&](int side) -> int32_t {
    if (pending[side].rows == 0) return WAGGLE_BACKEND_OK;
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[side]));
    std::copy_n(h_sums[side], pending[side].rows * forest.n_targets,
                args.sums + pending[side].first * forest.n_targets);
    pending[side].rows = 0;
    return WAGGLE_BACKEND_OK;
  };
  int side = 0;
  for (int64_t first = 0; first < args.n_rows; first += piece, side ^= 1) {
    if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) {
      for (const cudaStream_t s : streams) WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
      return WAGGLE_BACKEND_CANCELLED;
    }
    WAGGLE_TRY(collect(side));
    const cudaStream_t s = streams[side];
    const int64_t rows = std::min(piece, args.n_rows - first);
    const size_t x_bytes = static_cast<size_t>(rows * forest.n_features) * 4;
    const size_t sums_bytes = static_cast<size_t>(rows * forest.n_targets) * 8;
    if (x_bytes > 0) {
      state.copiers.copy(h_x[side], args.x + first * forest.n_features, x_bytes);
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_x[side], h_x[side], x_bytes, cudaMemcpyHostToDevice, s));
    }
    if (forest.n_targets > 1) WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_sums[side], 0, sums_bytes, s));
    const dim3 grid(static_cast<unsigned>((rows + kThreads - 1) / kThreads));
    const size_t shared_bytes = staged ? static_cast<size_t>(shared) : 0;
    if (forest.is_plain) {
      WAGGLE_LAUNCH(predict_kernel<true>, grid, dim3(kThreads), shared_bytes, s, view, d_x[side], rows, staged,
                    d_sums[side]);
    } else {
      WAGGLE_LAUNCH(predict_kernel<false>, grid, dim3(kThreads), shared_bytes, s, view, d_x[side], rows, staged,
                    d_sums[side]);
    }
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_sums[side], d_sums[side], sums_bytes, cudaMemcpyDeviceToHost, s));
    pending[side] = {first, rows};
  }
  WAGGLE_TRY(collect(side));
  return collect(side ^ 1);
}

}  // namespace waggle::cuda
