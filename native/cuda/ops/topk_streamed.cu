// Three steps per block of queries and part of the matrix: scores, then keys sorted by slices in shared memory,
// then the slices merged until one is left. A key is (score, row) as one integer whose ascending order is the
// order of the answer, so selection is exact and independent of how blocks were scheduled.
//
// Correct first; the speed of the hardware is later work. Memory traffic per block of 64 queries: the matrix part
// once, and its scores written and read once (8 bytes per query and row).
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/topk.cuh"
#include "cuda/resources.hpp"

namespace waggle::cuda {

namespace {

constexpr int kTile = 32;     // rows and queries per block of the score kernel
constexpr int kDepth = 32;    // dimensions staged in shared memory at a time
constexpr int kSlice = 4096;  // keys per sort: 32 KiB of shared memory
constexpr int kSortThreads = 512;
constexpr int kNormThreads = 256;
constexpr int64_t kQueryBlock = 64;
#if defined(WAGGLE_CUDA_SMALL_PIECES)
constexpr int64_t kPartRows = 2048;  // so that tests have several parts
#else
// Keeps the grid and the scratch sensible: 2^22 rows × 64 queries are 2 GiB of keys.
constexpr int64_t kPartRows = int64_t{1} << 22;
#endif
constexpr int kMaxK = 2048;  // at most half a slice, so that merging always shrinks

static_assert(2 * kMaxK <= kSlice, "a merge must make fewer keys");

// As on the CPU: squared norms outside this range are recomputed in double.
constexpr double kSmallestSafeSquare = 1e-24;
constexpr double kLargestSafeSquare = 1e24;

__device__ inline bool is_safe(double square) { return square >= kSmallestSafeSquare && square <= kLargestSafeSquare; }

// Squared norm of each vector, in double. Grid: one block per vector; 256 threads; 2 KiB shared; memory bound.
__global__ void square_kernel(const float* d_vectors, int64_t dim, double* d_squares) {
  __shared__ double partial[kNormThreads];
  const float* vector = d_vectors + static_cast<int64_t>(blockIdx.x) * dim;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < dim; i += kNormThreads) sum += static_cast<double>(vector[i]) * vector[i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kNormThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) d_squares[blockIdx.x] = partial[0];
}

// keys[q * ld + r] for a tile of 32 rows × 32 queries. Grid: (row tiles, query tiles); block 32 × 8, each thread
// four queries of one row; 8.25 KiB shared. Each pair is summed in the same order wherever it falls.
// Threads of a filtered or missing row still take part in loading.
__global__ void key_kernel(const float* d_queries, int n_queries, const float* d_matrix, int64_t n_rows, int64_t dim,
                           int metric, const double* d_query_squares, const double* d_row_squares,
                           const uint8_t* d_filter, int64_t first_row, unsigned long long* d_keys, int64_t ld,
                           unsigned long long* d_bad_row) {
  __shared__ float rows[kTile][kDepth + 1];
  __shared__ float queries[kTile][kDepth + 1];
  const int lane = threadIdx.x;   // 0 … 31
  const int group = threadIdx.y;  // 0 … 7
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int query0 = static_cast<int>(blockIdx.y) * kTile;
  constexpr int kPerThread = kTile / 8;
  float sum[kPerThread] = {};
  for (int64_t depth0 = 0; depth0 < dim; depth0 += kDepth) {
    const int64_t depth = depth0 + lane;
    for (int i = group; i < kTile; i += 8) {
      const int64_t row = row0 + i;
      rows[i][lane] = row < n_rows && depth < dim ? d_matrix[row * dim + depth] : 0.0f;
      const int query = query0 + i;
      queries[i][lane] = query < n_queries && depth < dim ? d_queries[static_cast<int64_t>(query) * dim + depth] : 0.0f;
    }
    __syncthreads();
    for (int i = 0; i < kDepth; ++i) {
      const float r = rows[lane][i];
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        const float q = queries[group + 8 * j][i];
        if (metric == WAGGLE_METRIC_L2) {
          const float difference = q - r;
          sum[j] = fmaf(difference, difference, sum[j]);
        } else {
          sum[j] = fmaf(q, r, sum[j]);
        }
      }
    }
    __syncthreads();
  }
  const int64_t row = row0 + lane;
  if (row >= n_rows) return;
  const int64_t global_row = first_row + row;
  const bool allowed = d_filter == nullptr || ((d_filter[global_row >> 3] >> (global_row & 7)) & 1) != 0;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int query = query0 + group + 8 * j;
    if (query >= n_queries) continue;
    unsigned long long key = kNoKey;
    if (allowed) {
      float score = sum[j];
      if (metric == WAGGLE_METRIC_L2) {
        score = -score;
      } else if (metric == WAGGLE_METRIC_COSINE) {
        const double q_square = d_query_squares[query];
        const double r_square = d_row_squares[row];
        if (is_safe(q_square) && is_safe(r_square)) {
          score = static_cast<float>(score / (sqrt(q_square) * sqrt(r_square)));
        } else if (q_square == 0 || r_square == 0) {
          score = 0;
        } else {
          const float* q = d_queries + static_cast<int64_t>(query) * dim;
          const float* r = d_matrix + row * dim;
          double dot = 0;
          for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(q[i]) * r[i];
          score = static_cast<float>(dot / (sqrt(q_square) * sqrt(r_square)));
        }
      }
      if (isfinite(score)) {
        key = key_of(score, static_cast<uint32_t>(global_row));
      } else {
        atomicMin(d_bad_row, static_cast<unsigned long long>(global_row));
      }
    }
    d_keys[static_cast<int64_t>(query) * ld + row] = key;
  }
}

// Sorts slices of 4,096 keys and writes the best `keep` of each, in order. Grid: (slices, queries); 512 threads;
// 32 KiB shared; bound by shared memory. Input and output may not overlap.
__global__ void slice_kernel(const unsigned long long* d_in, int64_t in_ld, int64_t n_in, int keep,
                             unsigned long long* d_out, int64_t out_ld) {
  __shared__ unsigned long long keys[kSlice];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSlice;
  const unsigned long long* in = d_in + static_cast<int64_t>(blockIdx.y) * in_ld;
  for (int i = threadIdx.x; i < kSlice; i += kSortThreads) {
    keys[i] = begin + i < n_in ? in[begin + i] : kNoKey;
  }
  __syncthreads();
  sort_keys(keys, kSlice);
  unsigned long long* out = d_out + static_cast<int64_t>(blockIdx.y) * out_ld + static_cast<int64_t>(blockIdx.x) * keep;
  for (int i = threadIdx.x; i < keep; i += kSortThreads) out[i] = keys[i];
}

int32_t launch_squares(const float* d_vectors, int64_t count, int64_t dim, double* d_squares, cudaStream_t stream,
                       waggle_text* error) {
  if (count == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_LAUNCH(square_kernel, dim3(static_cast<unsigned>(count)), dim3(kNormThreads), 0, stream, d_vectors, dim,
                d_squares);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int64_t slices_of(int64_t n) { return (n + kSlice - 1) / kSlice; }

// Keys per query that the scratch arrays must hold for parts of `part_rows` rows.
int64_t first_width(int64_t part_rows, int k) { return part_rows + k; }
int64_t second_width(int64_t part_rows, int k) { return slices_of(first_width(part_rows, k)) * k; }

bool cancelled(const waggle_topk_f32_args& args) {
  return args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0;
}

}  // namespace

int32_t topk_f32_on_device(State& state, const waggle_topk_f32_args& args, waggle_text* error) {
  if (args.k < 1 || args.k > kMaxK || args.dim < 1 || args.n_rows < 0 || args.n_queries < 0 ||
      args.n_rows > std::numeric_limits<int32_t>::max()) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  if (args.n_queries == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  state.scratch.reset();
  const int64_t dim = args.dim;
  const int64_t n = args.n_rows;
  const int k = args.k;
  const bool cosine = args.metric == WAGGLE_METRIC_COSINE;
  const int64_t query_block = std::min<int64_t>(kQueryBlock, args.n_queries);

  // The part of the matrix that fits, with its keys, into half of what is free (other processes live there too).
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  WAGGLE_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  const double bytes_per_row = static_cast<double>(dim) * sizeof(float) + sizeof(double) +
                               static_cast<double>(query_block) * 8.0 * (1.0 + static_cast<double>(k) / kSlice) + 1.0;
  const double affordable = 0.5 * static_cast<double>(free_bytes) / bytes_per_row;
  int64_t part_rows = std::min(n, kPartRows);
  if (affordable < static_cast<double>(part_rows)) part_rows = static_cast<int64_t>(affordable);
  part_rows = std::max<int64_t>(part_rows, std::min<int64_t>(n, 1024));
  part_rows = std::max<int64_t>(part_rows, 1);

  float* d_queries = nullptr;
  float* d_matrix = nullptr;
  uint8_t* d_filter = nullptr;
  double* d_query_squares = nullptr;
  double* d_row_squares = nullptr;
  unsigned long long* d_first = nullptr;
  unsigned long long* d_second = nullptr;
  unsigned long long* d_best = nullptr;
  unsigned long long* d_bad_row = nullptr;
  WAGGLE_TRY(state.stream.open(error));
  WAGGLE_TRY(state.ahead.open(error));
  const size_t filter_bytes = static_cast<size_t>((n + 7) / 8);
  WAGGLE_TRY(state.scratch.take(&d_queries, args.n_queries * dim, error));
  WAGGLE_TRY(state.scratch.take(&d_matrix, part_rows * dim, error));
  if (args.filter != nullptr) WAGGLE_TRY(state.scratch.take(&d_filter, (n + 7) / 8, error));
  WAGGLE_TRY(state.scratch.take(&d_query_squares, args.n_queries, error));
  WAGGLE_TRY(state.scratch.take(&d_row_squares, part_rows, error));
  WAGGLE_TRY(state.scratch.take(&d_first, query_block * first_width(part_rows, k), error));
  WAGGLE_TRY(state.scratch.take(&d_second, query_block * second_width(part_rows, k), error));
  WAGGLE_TRY(state.scratch.take(&d_best, args.n_queries * k, error));
  WAGGLE_TRY(state.scratch.take(&d_bad_row, 1, error));

  const cudaStream_t s = state.stream.get();
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_queries, args.queries, static_cast<size_t>(args.n_queries * dim) * sizeof(float),
                                    cudaMemcpyHostToDevice, s));
  if (args.filter != nullptr) {
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_filter, args.filter, filter_bytes, cudaMemcpyHostToDevice, s));
  }
  // All bits set: no key yet, no bad row.
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_best, 0xff, static_cast<size_t>(args.n_queries * k) * 8, s));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_bad_row, 0xff, 8, s));
  if (cosine) {
    // Grid x holds up to 2^31 − 1 blocks.
    WAGGLE_TRY(launch_squares(d_queries, args.n_queries, dim, d_query_squares, s, error));
  }

  for (int64_t first_row = 0; first_row < n; first_row += part_rows) {
    const int64_t rows = std::min(part_rows, n - first_row);
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_matrix, args.matrix + first_row * dim,
                                      static_cast<size_t>(rows * dim) * sizeof(float), cudaMemcpyHostToDevice, s));
    if (cosine) WAGGLE_TRY(launch_squares(d_matrix, rows, dim, d_row_squares, s, error));
    for (int64_t q0 = 0; q0 < args.n_queries; q0 += query_block) {
      // One block ahead of the device: asked any earlier, whoever wants to stop would wait for all that was put in.
      if (first_row > 0 || q0 > 0) WAGGLE_CUDA_CHECK(cudaEventSynchronize(state.ahead.get()));
      WAGGLE_CUDA_CHECK(cudaEventRecord(state.ahead.get(), s));
      if (cancelled(args)) {
        WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // nothing may read the caller's memory after we return
        return WAGGLE_BACKEND_CANCELLED;
      }
      const int queries = static_cast<int>(std::min<int64_t>(query_block, args.n_queries - q0));
      const int64_t width = rows + k;
      unsigned long long* d_in = d_first;
      unsigned long long* d_out = d_second;
      unsigned long long* d_best_block = d_best + q0 * k;
      const dim3 tiles(static_cast<unsigned>((rows + kTile - 1) / kTile),
                       static_cast<unsigned>((queries + kTile - 1) / kTile));
      WAGGLE_LAUNCH(key_kernel, tiles, dim3(kTile, 8), 0, s, d_queries + q0 * dim, queries, d_matrix, rows, dim,
                    args.metric, d_query_squares + q0, d_row_squares, d_filter, first_row, d_in, width, d_bad_row);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
      // The best so far stand behind the new keys and are merged with them.
      WAGGLE_CUDA_CHECK(cudaMemcpy2DAsync(d_in + rows, static_cast<size_t>(width) * 8, d_best_block,
                                          static_cast<size_t>(k) * 8, static_cast<size_t>(k) * 8,
                                          static_cast<size_t>(queries), cudaMemcpyDeviceToDevice, s));
      int64_t in_width = width;
      int64_t in_ld = width;
      while (true) {
        const int64_t slices = slices_of(in_width);
        const bool last = slices == 1;
        unsigned long long* d_target = last ? d_best_block : d_out;
        const int64_t out_ld = last ? k : slices * k;
        WAGGLE_LAUNCH(slice_kernel, dim3(static_cast<unsigned>(slices), static_cast<unsigned>(queries)),
                      dim3(kSortThreads), 0, s, d_in, in_ld, in_width, k, d_target, out_ld);
        WAGGLE_CUDA_CHECK(cudaGetLastError());
        if (last) break;
        std::swap(d_in, d_out);
        in_width = out_ld;
        in_ld = out_ld;
      }
    }
  }

  std::vector<unsigned long long> h_best(static_cast<size_t>(args.n_queries * k));
  unsigned long long h_bad_row = kNoKey;
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_best.data(), d_best, h_best.size() * 8, cudaMemcpyDeviceToHost, s));
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(&h_bad_row, d_bad_row, 8, cudaMemcpyDeviceToHost, s));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
  if (h_bad_row != kNoKey) {
    return fail(error, WAGGLE_BACKEND_NOT_FINITE, "matrix row %llu holds NaN or infinity, or its score overflows",
                h_bad_row);
  }
  for (size_t i = 0; i < h_best.size(); ++i) {
    const bool present = h_best[i] != kNoKey;
    args.scores[i] = present ? host_score_of(h_best[i]) : -std::numeric_limits<float>::infinity();
    args.rows[i] = present ? static_cast<int32_t>(h_best[i] & 0xffffffffu) : -1;
  }
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
