// Tiles of rows × centroids, in registers over the whole dimension and compared there: no distance is written but the
// smallest.
#include "cuda/ops/cluster.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/chain.cuh"
#include "cuda/ops/upload.hpp"

namespace waggle::cuda {

namespace {

constexpr int kThreads = 256;  // 16 × 16, each 4 rows × 4 centroids
constexpr int kSide = 16;
constexpr int kTile = 64;           // rows, and centroids
constexpr int kPiece = 16;          // dimensions, or quads of codes, in shared memory
constexpr int kStride = kTile + 4;  // of a dimension in shared memory; keeps float4 aligned
constexpr int kMeanThreads = 128;
#if defined(WAGGLE_CUDA_SMALL_PIECES)
// What the emulator can do several times within a test.
constexpr double kLaunchWork = 1e6;
constexpr int64_t kCodesPiece = int64_t{64} << 10;
#else
// Multiply-adds of a launch: some ten milliseconds, after each of which somebody may want to stop.
constexpr double kLaunchWork = 1.4e11;
constexpr int64_t kCodesPiece = int64_t{8} << 20;
#endif

// Brings kPiece words of 64 rows, from word `begin` on, into shared memory turned around: word i of row r at
// i · kStride + r. Rows beyond the last repeat
// it, words beyond a row's end are 0. Reads 64 bytes of a row at a time.
template <typename Word>
__device__ inline void fetch_tile(const Word* d_rows, int64_t row0, int64_t n_rows, int64_t length, int64_t begin,
                                  Word* tile) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kPiece; at += kThreads) {
    const int row = at / kPiece;
    const int word = at % kPiece;
    Word value = 0;
    if (begin + word < length) value = d_rows[min(row0 + row, n_rows - 1) * length + begin + word];
    tile[word * kStride + row] = value;
  }
}

// The best of what a thread has seen for one row: the smallest value, or with kLargest the largest, of the lowest
// centroid.
struct Best {
  float value;
  int32_t centroid;
};

template <bool kLargest>
__device__ inline bool is_better(const Best& a, const Best& b) {
  if (a.value != b.value) return kLargest ? a.value > b.value : a.value < b.value;
  return a.centroid < b.centroid;
}

// Of the sixteen threads of a row the best; written by the first of them.
template <bool kLargest>
__device__ inline void write_best(const Best best[4], int64_t row0, int64_t n_rows, Best* shared, int32_t* d_labels,
                                  float* d_values) {
  const int column = static_cast<int>(threadIdx.x) % kSide;
  const int line = static_cast<int>(threadIdx.x) / kSide;
#pragma unroll
  for (int r = 0; r < 4; ++r) shared[(line * 4 + r) * kSide + column] = best[r];
  __syncthreads();
  if (threadIdx.x < kTile) {
    const int row = static_cast<int>(threadIdx.x);
    Best winner = shared[row * kSide];
    for (int c = 1; c < kSide; ++c) {
      if (is_better<kLargest>(shared[row * kSide + c], winner)) winner = shared[row * kSide + c];
    }
    if (row0 + row < n_rows) {
      d_labels[row0 + row] = winner.centroid;
      d_values[row0 + row] = winner.value;
    }
  }
}

// Grid: rows / 64; 256 threads; 17 KiB shared. Distances have the CPU's bits (chain.cuh). Bound by the float units: a
// subtraction and a multiply-add per dimension and pair.
template <bool kDouble>
__global__ void __launch_bounds__(kThreads)
    assign_kernel(const float* d_rows, int64_t first_row, int64_t n_rows, int64_t dim, const float* d_centroids, int k,
                  int32_t* d_labels, float* d_distances, unsigned long long* d_bad_row) {
  __shared__ __align__(16) float rows[kPiece * kStride];
  __shared__ __align__(16) float centroids[kPiece * kStride];
  __shared__ Best bests[kTile * kSide];
  const int column = static_cast<int>(threadIdx.x) % kSide;
  const int line = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row0 = first_row + static_cast<int64_t>(blockIdx.x) * kTile;
  Best best[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) best[r] = {INFINITY, 0x7fffffff};
  bool finite = true;
  for (int centroid0 = 0; centroid0 < k; centroid0 += kTile) {
    Chain<kDouble> sum[4][4];
    float total[4][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sum[r][c] = 0;
        total[r][c] = 0;
      }
    }
    for (int64_t begin = 0; begin < dim; begin += kPiece) {
      fetch_tile(d_rows, row0, n_rows, dim, begin, rows);
      fetch_tile<float>(d_centroids, centroid0, k, dim, begin, centroids);
      __syncthreads();
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) next_chain<kDouble>(&sum[r][c], &total[r][c], begin);
      }
      // Words beyond the dimension are 0 on both sides and add nothing, not even to the sign of a zero.
#pragma unroll 4
      for (int i = 0; i < kPiece; ++i) {
        const float4 row = *reinterpret_cast<const float4*>(rows + i * kStride + line * 4);
        const float4 centroid = *reinterpret_cast<const float4*>(centroids + i * kStride + column * 4);
        const float of_rows[4] = {row.x, row.y, row.z, row.w};
        const float of_centroids[4] = {centroid.x, centroid.y, centroid.z, centroid.w};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sum[r][c] = add_term<kDouble, true>(sum[r][c], of_rows[r], of_centroids[c]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int number = centroid0 + column * 4 + c;
      if (number >= k) continue;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float distance = end_chains<kDouble>(sum[r][c], total[r][c], dim);
        finite = finite && isfinite(distance);
        if (distance < best[r].value) best[r] = {distance, number};  // a thread's centroids ascend
      }
    }
  }
  if (!finite) atomicMin(d_bad_row, static_cast<unsigned long long>(row0));
  write_best<false>(best, row0, n_rows, bests, d_labels, d_distances);
}

// Grid: (clusters, dimensions / 128); 128 threads, a dimension each; bound by memory: each row is read once, 512 bytes
// side by side. The order of the sum is that of the members, so a cluster is one thread's chain.
__global__ void __launch_bounds__(kMeanThreads) means_kernel(const float* d_rows, int64_t dim, const int32_t* d_members,
                                                             const int64_t* d_begins, float* d_centroids) {
  const int64_t i = static_cast<int64_t>(blockIdx.y) * kMeanThreads + threadIdx.x;
  const int64_t cluster = blockIdx.x;
  const int64_t begin = d_begins[cluster];
  const int64_t end = d_begins[cluster + 1];
  if (i >= dim || begin == end) return;
  constexpr int kAhead = 8;  // loads that wait together
  double sum = 0;
  int64_t m = begin;
  for (; m + kAhead <= end; m += kAhead) {
    float x[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) x[a] = d_rows[d_members[m + a] * dim + i];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum = __dadd_rn(sum, static_cast<double>(x[a]));
  }
  for (; m < end; ++m) sum = __dadd_rn(sum, static_cast<double>(d_rows[d_members[m] * dim + i]));
  d_centroids[cluster * dim + i] = static_cast<float>(__ddiv_rn(sum, static_cast<double>(end - begin)));
}

// Grid: rows / 64; 256 threads; 17 KiB shared. Integer sums are exact, the float operations unfused: the CPU's bits.
// Bound by dp4a: four products each.
__global__ void __launch_bounds__(kThreads)
    nearest_kernel(const int* d_codes, const float* d_scales, int64_t n_rows, int64_t quads, const int* d_centroids,
                   const float* d_centroid_scales, const float* d_biases, int k, int32_t* d_labels, float* d_scores) {
  __shared__ __align__(16) int rows[kPiece * kStride];
  __shared__ __align__(16) int centroids[kPiece * kStride];
  __shared__ Best bests[kTile * kSide];
  const int column = static_cast<int>(threadIdx.x) % kSide;
  const int line = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile;
  Best best[4];
  float scales[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    best[r] = {-INFINITY, 0};
    scales[r] = d_scales[min(row0 + line * 4 + r, n_rows - 1)];
  }
  for (int centroid0 = 0; centroid0 < k; centroid0 += kTile) {
    int sum[4][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[r][c] = 0;
    }
    for (int64_t begin = 0; begin < quads; begin += kPiece) {
      fetch_tile(d_codes, row0, n_rows, quads, begin, rows);
      fetch_tile<int>(d_centroids, centroid0, k, quads, begin, centroids);
      __syncthreads();
#pragma unroll 4
      for (int i = 0; i < kPiece; ++i) {
        const int4 row = *reinterpret_cast<const int4*>(rows + i * kStride + line * 4);
        const int4 centroid = *reinterpret_cast<const int4*>(centroids + i * kStride + column * 4);
        const int of_rows[4] = {row.x, row.y, row.z, row.w};
        const int of_centroids[4] = {centroid.x, centroid.y, centroid.z, centroid.w};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sum[r][c] = __dp4a(of_rows[r], of_centroids[c], sum[r][c]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int number = centroid0 + column * 4 + c;
      if (number >= k) continue;
      const float scale = d_centroid_scales[number];
      const float bias = d_biases[number];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float score = __fadd_rn(__fmul_rn(static_cast<float>(sum[r][c]), __fmul_rn(scales[r], scale)), bias);
        if (score > best[r].value) best[r] = {score, number};
      }
    }
  }
  write_best<true>(best, row0, n_rows, bests, d_labels, d_scores);
}

template <typename Args>
bool is_cancelled(const Args& args) {
  return args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0;
}

template <bool kDouble>
int32_t launch_assign(const waggle_points& points, int64_t first, int64_t count, const float* d_centroids, int32_t k,
                      int32_t* d_labels, float* d_distances, unsigned long long* d_bad_row, cudaStream_t stream,
                      waggle_text* error) {
  WAGGLE_LAUNCH(assign_kernel<kDouble>, dim3(static_cast<unsigned>((count + kTile - 1) / kTile)), dim3(kThreads), 0,
                stream, points.d_rows.get(), first, points.n_rows, points.dim, d_centroids, k, d_labels, d_distances,
                d_bad_row);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t ready(State& state, waggle_text* error) {
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  WAGGLE_TRY(state.second.open(error));
  state.scratch.reset();
  state.staging.reset();
  return WAGGLE_BACKEND_OK;
}

}  // namespace

int32_t open_points(State& state, waggle_points_args& args, std::unique_ptr<waggle_points>* out, waggle_text* error) {
  if (args.n_rows < 1 || args.n_rows > std::numeric_limits<int32_t>::max() || args.dim < 1) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  WAGGLE_TRY(ready(state, error));
  auto points = std::make_unique<waggle_points>();
  points->n_rows = args.n_rows;
  points->dim = args.dim;
  points->sums_in_double = args.sums_in_double != 0;
  const size_t values = static_cast<size_t>(args.n_rows) * static_cast<size_t>(args.dim);
  WAGGLE_TRY(points->d_rows.allocate(values, error));
  WAGGLE_TRY(send_in_pieces(state, points->d_rows.get(), args.rows, values * sizeof(float), args.is_cancelled,
                            args.cancel_context, error));
  *out = std::move(points);
  return WAGGLE_BACKEND_OK;
}

int32_t assign_on_device(State& state, waggle_points& points, waggle_assign_args& args, waggle_text* error) {
  if (args.k < 1) return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "no centroids");
  WAGGLE_TRY(ready(state, error));
  const cudaStream_t stream = state.stream.get();
  const FinishedStream finished(stream);
  const int64_t n = points.n_rows;
  const float* d_centroids = nullptr;
  int32_t* d_labels = nullptr;
  float* d_distances = nullptr;
  unsigned long long* d_bad_row = nullptr;
  Upload upload;
  upload.add(&d_centroids, args.centroids, args.k * points.dim);
  WAGGLE_TRY(upload.send(state, stream, error));
  WAGGLE_TRY(state.scratch.take(&d_labels, n, error));
  WAGGLE_TRY(state.scratch.take(&d_distances, n, error));
  WAGGLE_TRY(state.scratch.take(&d_bad_row, 1, error));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_bad_row, 0xff, sizeof *d_bad_row, stream));
  const double row_work = static_cast<double>(args.k) * static_cast<double>(points.dim);
  const int64_t step = std::clamp<int64_t>(static_cast<int64_t>(kLaunchWork / row_work) / kTile * kTile, kTile,
                                           (n + kTile - 1) / kTile * kTile);
  for (int64_t first = 0; first < n; first += step) {
    if (first > 0) WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream));  // or the flag would be looked at too early
    if (is_cancelled(args)) return WAGGLE_BACKEND_CANCELLED;
    const int64_t count = std::min(step, n - first);
    WAGGLE_TRY(points.sums_in_double ? launch_assign<true>(points, first, count, d_centroids, args.k, d_labels,
                                                           d_distances, d_bad_row, stream, error)
                                     : launch_assign<false>(points, first, count, d_centroids, args.k, d_labels,
                                                            d_distances, d_bad_row, stream, error));
  }
  unsigned long long* h_bad_row = nullptr;
  WAGGLE_TRY(state.staging.take(&h_bad_row, 1, error));
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_bad_row, d_bad_row, sizeof *h_bad_row, cudaMemcpyDeviceToHost, stream));
  WAGGLE_CUDA_CHECK(
      cudaMemcpyAsync(args.labels, d_labels, static_cast<size_t>(n) * sizeof(int32_t), cudaMemcpyDeviceToHost, stream));
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(args.distances, d_distances, static_cast<size_t>(n) * sizeof(float),
                                    cudaMemcpyDeviceToHost, stream));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream));
  if (*h_bad_row != kNoKey) {
    return fail(error, WAGGLE_BACKEND_NOT_FINITE, "a distance of rows from %llu on overflows", *h_bad_row);
  }
  return WAGGLE_BACKEND_OK;
}

int32_t means_on_device(State& state, waggle_points& points, waggle_means_args& args, waggle_text* error) {
  if (args.k < 1) return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "no clusters");
  WAGGLE_TRY(ready(state, error));
  const cudaStream_t stream = state.stream.get();
  const FinishedStream finished(stream);
  const int32_t* d_members = nullptr;
  const int64_t* d_begins = nullptr;
  const float* d_before = nullptr;
  Upload upload;
  upload.add(&d_members, args.members, points.n_rows);
  upload.add(&d_begins, args.begins, int64_t{args.k} + 1);
  upload.add(&d_before, args.centroids, args.k * points.dim);
  WAGGLE_TRY(upload.send(state, stream, error));
  // The device's copy is ours to write.
  float* d_centroids = const_cast<float*>(d_before);
  const dim3 grid(static_cast<unsigned>(args.k), static_cast<unsigned>((points.dim + kMeanThreads - 1) / kMeanThreads));
  if (grid.y > 65535) return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "dim is beyond 8 million");
  WAGGLE_LAUNCH(means_kernel, grid, dim3(kMeanThreads), 0, stream, points.d_rows.get(), points.dim, d_members, d_begins,
                d_centroids);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(args.centroids, d_centroids,
                                    static_cast<size_t>(args.k) * static_cast<size_t>(points.dim) * sizeof(float),
                                    cudaMemcpyDeviceToHost, stream));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream));
  return WAGGLE_BACKEND_OK;
}

int32_t nearest_on_device(State& state, waggle_nearest_args& args, waggle_text* error) {
  if (args.n_rows < 1 || args.k < 1 || args.quads < 1) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  WAGGLE_TRY(ready(state, error));
  const cudaStream_t streams[] = {state.stream.get(), state.second.get()};
  const FinishedStream finished[] = {FinishedStream(streams[0]), FinishedStream(streams[1])};
  const int64_t row_bytes = args.quads * 4;
  const int8_t* d_centroids = nullptr;
  const float* d_centroid_scales = nullptr;
  const float* d_biases = nullptr;
  Upload upload;
  upload.add(&d_centroids, args.centroids, args.k * row_bytes);
  upload.add(&d_centroid_scales, args.centroid_scales, args.k);
  upload.add(&d_biases, args.biases, args.k);
  WAGGLE_TRY(upload.send(state, streams[0], error));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[0]));  // both streams read them
  // Pieces small enough that travelling and computing overlap.
  const int64_t piece =
      std::clamp<int64_t>(kCodesPiece / row_bytes / kTile * kTile, kTile, (args.n_rows + kTile - 1) / kTile * kTile);
  struct Side {
    int8_t* d_codes = nullptr;
    float* d_scales = nullptr;
    int32_t* d_labels = nullptr;
    float* d_scores = nullptr;
    int8_t* h_codes = nullptr;
    float* h_scales = nullptr;
    int32_t* h_labels = nullptr;
    float* h_scores = nullptr;
    int64_t first = 0;
    int64_t rows = 0;  // on their way
  } sides[2];
  for (Side& side : sides) {
    WAGGLE_TRY(state.scratch.take(&side.d_codes, piece * row_bytes, error));
    WAGGLE_TRY(state.scratch.take(&side.d_scales, piece, error));
    WAGGLE_TRY(state.scratch.take(&side.d_labels, piece, error));
    WAGGLE_TRY(state.scratch.take(&side.d_scores, piece, error));
    WAGGLE_TRY(state.staging.take(&side.h_codes, piece * row_bytes, error));
    WAGGLE_TRY(state.staging.take(&side.h_scales, piece, error));
    WAGGLE_TRY(state.staging.take(&side.h_labels, piece, error));
    WAGGLE_TRY(state.staging.take(&side.h_scores, piece, error));
  }
  const auto collect = [&](int at) -> int32_t {
    Side& side = sides[at];
    if (side.rows == 0) return WAGGLE_BACKEND_OK;
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[at]));
    std::copy_n(side.h_labels, side.rows, args.labels + side.first);
    std::copy_n(side.h_scores, side.rows, args.scores + side.first);
    side.rows = 0;
    return WAGGLE_BACKEND_OK;
  };
  int at = 0;
  for (int64_t first = 0; first < args.n_rows; first += piece, at ^= 1) {
    if (is_cancelled(args)) return WAGGLE_BACKEND_CANCELLED;
    WAGGLE_TRY(collect(at));
    Side& side = sides[at];
    const cudaStream_t stream = streams[at];
    const int64_t rows = std::min(piece, args.n_rows - first);
    const size_t values = static_cast<size_t>(rows) * 4;
    const size_t code_bytes = static_cast<size_t>(rows * row_bytes);
    state.copiers.copy(side.h_codes, args.codes + first * row_bytes, code_bytes);
    std::copy_n(args.scales + first, rows, side.h_scales);
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(side.d_codes, side.h_codes, code_bytes, cudaMemcpyHostToDevice, stream));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(side.d_scales, side.h_scales, values, cudaMemcpyHostToDevice, stream));
    WAGGLE_LAUNCH(nearest_kernel, dim3(static_cast<unsigned>((rows + kTile - 1) / kTile)), dim3(kThreads), 0, stream,
                  reinterpret_cast<const int*>(side.d_codes), side.d_scales, rows, args.quads,
                  reinterpret_cast<const int*>(d_centroids), d_centroid_scales, d_biases, args.k, side.d_labels,
                  side.d_scores);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(side.h_labels, side.d_labels, values, cudaMemcpyDeviceToHost, stream));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(side.h_scores, side.d_scores, values, cudaMemcpyDeviceToHost, stream));
    side.first = first;
    side.rows = rows;
  }
  WAGGLE_TRY(collect(at));
  return collect(at ^ 1);
}

}  // namespace waggle::cuda
