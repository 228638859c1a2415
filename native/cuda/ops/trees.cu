// One thread walks every tree for one row, a few at a time. The rows of a block lie transposed in shared memory while
// they fit, so a feature is fetched without conflicts; nodes come through L1, where the upper levels of the tree that a
// block is at stay.
#include "cuda/ops/trees.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/trees_walk.cuh"

namespace waggle::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxSharedBytes = 96 * 1024;
// Pieces that travel at the bus's speed while others are computed: small, so that the first is soon there and the last
// soon done; with enough rows in all of them together to fill a device.
#if defined(WAGGLE_CUDA_SMALL_PIECES)
constexpr int64_t kPieceBytes = int64_t{4} << 10;
constexpr int64_t kPieceRows = kThreads;
#else
constexpr int64_t kPieceBytes = int64_t{2} << 20;
constexpr int64_t kPieceRows = 4096;  // at least, unless that takes four times the bytes
#endif
constexpr int64_t kUnderWayBytes = int64_t{64} << 20;

// A row after the other into columns of kThreads values; a lane has a row, so that its stores meet nobody's. kValues:
// floats per load, a divisor of n_features.
template <typename Vector, int kValues>
__device__ inline void transpose_row(const float* own, int n_features, float* column) {
  const Vector* values = reinterpret_cast<const Vector*>(own);
#pragma unroll 4
  for (int i = 0; i < n_features / kValues; ++i) {
    const Vector some = values[i];
    float each[kValues];
    memcpy(each, &some, sizeof some);
#pragma unroll
    for (int v = 0; v < kValues; ++v) column[(i * kValues + v) * kThreads] = each[v];
  }
}

// Grid: rows / 128; 128 threads, one row each; 512 bytes of shared memory per feature where that fits. d_sums
// [n_rows × n_targets] must be 0 when there is more than one target.
template <bool kPlain>
__global__ void __launch_bounds__(kThreads)
    predict_kernel(const Forest forest, const float* d_x, int64_t n_rows, bool staged, double* d_sums) {
  WAGGLE_DYNAMIC_SHARED(shared);
  float* columns = reinterpret_cast<float*>(shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + thread;
  const int n_features = forest.n_features;
  if (row >= n_rows) return;  // the others never wait for it: each reads what it wrote
  const float* own = d_x + row * n_features;
  if (staged) {
    if (n_features % 4 == 0) {
      transpose_row<float4, 4>(own, n_features, columns + thread);
    } else if (n_features % 2 == 0) {
      transpose_row<float2, 2>(own, n_features, columns + thread);
    } else {
      transpose_row<float, 1>(own, n_features, columns + thread);
    }
  }
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
  state.scratch.reset();
  state.staging.reset();
  const int64_t row_bytes = int64_t{forest.n_features} * 4 + int64_t{forest.n_targets} * 8;
  const auto blocks_of = [](int64_t rows) { return (rows + kThreads - 1) / kThreads; };
  const int64_t rows_wanted = std::max(kPieceBytes / row_bytes, std::min(kPieceRows, 4 * kPieceBytes / row_bytes));
  const int64_t piece =
      std::min(std::max<int64_t>(rows_wanted / kThreads, 1), blocks_of(args.n_rows)) * kThreads;  // rows
  const int64_t n_pieces = (args.n_rows + piece - 1) / piece;
  const int64_t n_sides = std::min(n_pieces, std::clamp<int64_t>(kUnderWayBytes / (piece * row_bytes), 2, kMostSides));
  struct Side {
    float* d_x;
    double* d_sums;
    double* h_sums;
  } sides[kMostSides];
  void* h_x[kMostSides];
  for (int64_t i = 0; i < n_sides; ++i) {
    float* h_rows = nullptr;
    WAGGLE_TRY(state.sides[i].open(error));
    WAGGLE_TRY(state.scratch.take(&sides[i].d_x, piece * forest.n_features, error));
    WAGGLE_TRY(state.scratch.take(&sides[i].d_sums, piece * forest.n_targets, error));
    WAGGLE_TRY(state.staging.take(&h_rows, piece * forest.n_features, error));
    WAGGLE_TRY(state.staging.take(&sides[i].h_sums, piece * forest.n_targets, error));
    h_x[i] = h_rows;
  }
  const Forest view = forest_view(forest);
  const int64_t columns_bytes = int64_t{forest.n_features} * kThreads * 4;
  const bool staged = columns_bytes <= kMaxSharedBytes;
  const size_t shared_bytes = staged ? static_cast<size_t>(columns_bytes) : 0;
  if (staged) {
    const void* kernel = forest.is_plain ? reinterpret_cast<const void*>(&predict_kernel<true>)
                                         : reinterpret_cast<const void*>(&predict_kernel<false>);
    WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes));
  }

  const int64_t x_bytes = int64_t{forest.n_features} * 4;
  Copiers::Pieces rows_here(state.copiers, args.x, static_cast<size_t>(args.n_rows * x_bytes),
                            static_cast<size_t>(piece * x_bytes), h_x, static_cast<size_t>(n_sides));
  rows_here.allow(static_cast<size_t>(n_sides));
  const auto rows_of = [&](int64_t p) { return std::min(piece, args.n_rows - p * piece); };
  int64_t collected = 0;  // pieces
  // Hands over the sums of the oldest piece under way, whose side is then free.
  const auto collect = [&]() -> int32_t {
    const int64_t side = collected % n_sides;
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(state.sides[side].get()));
    WAGGLE_TRY(args.take_sums(args.take_context, collected * piece, rows_of(collected), sides[side].h_sums));
    ++collected;
    rows_here.allow(static_cast<size_t>(collected + n_sides));
    return WAGGLE_BACKEND_OK;
  };
  for (int64_t p = 0; p < n_pieces; ++p) {
    if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) return WAGGLE_BACKEND_CANCELLED;
    if (p - collected == n_sides) WAGGLE_TRY(collect());
    while (collected < p && state.sides[collected % n_sides].is_through()) WAGGLE_TRY(collect());
    const Side& side = sides[p % n_sides];
    const cudaStream_t s = state.sides[p % n_sides].get();
    const int64_t rows = rows_of(p);
    const size_t sums_bytes = static_cast<size_t>(rows * forest.n_targets) * 8;
    if (x_bytes > 0) {
      rows_here.await(static_cast<size_t>(p));
      WAGGLE_CUDA_CHECK(
          cudaMemcpyAsync(side.d_x, h_x[p % n_sides], static_cast<size_t>(rows * x_bytes), cudaMemcpyHostToDevice, s));
    }
    if (forest.n_targets > 1) WAGGLE_CUDA_CHECK(cudaMemsetAsync(side.d_sums, 0, sums_bytes, s));
    const dim3 grid(static_cast<unsigned>(blocks_of(rows)));
    if (forest.is_plain) {
      WAGGLE_LAUNCH(predict_kernel<true>, grid, dim3(kThreads), shared_bytes, s, view, side.d_x, rows, staged,
                    side.d_sums);
    } else {
      WAGGLE_LAUNCH(predict_kernel<false>, grid, dim3(kThreads), shared_bytes, s, view, side.d_x, rows, staged,
                    side.d_sums);
    }
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(side.h_sums, side.d_sums, sums_bytes, cudaMemcpyDeviceToHost, s));
  }
  while (collected < n_pieces) WAGGLE_TRY(collect());
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
