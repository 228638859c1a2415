// Top-k against a resident matrix: scan, select, look closely, in chunks of rows that grow.
//
// A scan computes scores of a chunk in low precision on the tensor cores and writes down, per query, the few rows that
// could still belong to the answer (bounds.cuh). After each chunk one block per query sorts what was written down,
// drops what the chunk itself excludes, computes the rest exactly and merges it with the best so far, which gives the
// next chunk its threshold. With rows in no particular order a chunk g times as long as everything before it adds
// about k·g rows per query. A list that overflows (rows in ascending order of score, many equal rows) has its
// chunk repeated in parts, down to parts that cannot overflow. No score matrix is ever written.
//
// Traffic per batch of up to 4,096 queries: the matrix once from device memory, once per 128 (Hopper) or 64 queries
// from L2.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/bounds.cuh"
#include "cuda/ops/topk.cuh"
#include "cuda/resources.hpp"
#include "cuda/tensor_core.cuh"

namespace waggle::cuda {

namespace {

constexpr int kMaxK = 2048;
constexpr int kListed = 6144;  // rows written down per query and chunk
constexpr int kSortable = 8192;
constexpr int kSelectThreads = 512;
constexpr int kSelectShared = kSortable * 8 + kListed * 4;
constexpr int64_t kQueriesAtOnce = 4096;
constexpr int64_t kFirstChunkTiles = kListed / kTileRows;
constexpr int64_t kChunkGrowth = 4;
constexpr int kMaxScanOneDim = 8192;

static_assert(kListed + kMaxK <= kSortable, "the list and the best so far are sorted together");

// What a scan reads and writes.
struct Scan {
  MatrixView matrix;             // what is scanned: the matrix, or gathered rows of it
  const int32_t* d_row_numbers;  // of gathered rows; null: row i is row i
  const unsigned char* d_query_tiles;
  const QueryTest* d_tests;
  const RowFacts* d_query_facts;
  int32_t n_queries;
  int32_t metric;
  float roundoff;
  const uint8_t* d_filter;
  int64_t filter_stride;
  int64_t first_tile;
  int64_t end_tile;
  unsigned long long* d_lists;  // [n_queries × kListed] keys of lower bounds
  unsigned* d_counts;           // [n_queries]
  bool count_only;
};

__device__ inline bool is_allowed(const Scan& scan, int query, uint32_t row) {
  if (scan.d_filter == nullptr) return true;
  const uint8_t* bits = scan.d_filter + static_cast<int64_t>(query) * scan.filter_stride;
  return ((bits[row >> 3] >> (row & 7)) & 1) != 0;
}

// The rare path: a row that passed the test of its query.
__device__ inline void write_down(const Scan& scan, int query, int64_t scanned_row, float product) {
  const uint32_t row = scan.d_row_numbers != nullptr ? static_cast<uint32_t>(scan.d_row_numbers[scanned_row])
                                                     : static_cast<uint32_t>(scanned_row);
  if (!is_allowed(scan, query, row)) return;
  const unsigned at = atomicAdd(&scan.d_counts[query], 1u);
  if (scan.count_only || at >= kListed) return;
  const RowFacts r = scan.matrix.d_facts[scanned_row];
  const RowFacts q = scan.d_query_facts[query];
  float lower = scanned_score(scan.metric, product, r, q) - half_width(scan.metric, r, q, scan.roundoff);
  if (!(lower >= -FLT_MAX)) lower = -FLT_MAX;
  if (!(lower <= FLT_MAX)) lower = -FLT_MAX;
  // The list names rows as they are scanned, so that their facts can be found again.
  scan.d_lists[static_cast<int64_t>(query) * kListed + at] = key_of(lower, static_cast<uint32_t>(scanned_row));
}

// ---- scan by mma.sync (sm_80 and newer) -----------------------------------------------------------------------------

constexpr int kScanThreads = 256;
constexpr int kScanQueries = 64;
constexpr int kScanStages = 3;
constexpr int kScanQueryBytes = kScanQueries * kBlockBytes;
constexpr int kScanStageBytes = kTileBytes + kScanQueryBytes;
constexpr int kScanShared = kScanStages * kScanStageBytes;

// Grid: (row tiles in flight, groups of 64 queries); 256 threads: 4 × 2 warps of 32 rows × 32 queries; 72 KiB shared,
// two blocks per multiprocessor; bound by the tensor cores from about 64 queries on, by memory below.
template <Operand kType>
__global__ void __launch_bounds__(kScanThreads, 2) scan_kernel(const Scan scan) {
  using Accumulator = typename OperandTraits<kType>::Accumulator;
  WAGGLE_DYNAMIC_SHARED(shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_row = warp % 4 * 32;
  const int warp_query = warp / 4 * 32;
  const int query0 = static_cast<int>(blockIdx.y) * kScanQueries;
  const int n_blocks = scan.matrix.n_blocks;
  // 64 queries are one half of a query tile.
  const unsigned char* d_queries = scan.d_query_tiles +
                                   static_cast<int64_t>(query0 / kTileRows) * n_blocks * kTileBytes +
                                   query0 % kTileRows * kBlockBytes;

  for (int64_t tile = scan.first_tile + blockIdx.x; tile < scan.end_tile; tile += gridDim.x) {
    const unsigned char* d_rows = scan.matrix.d_tiles + tile * n_blocks * kTileBytes;
    const auto fetch = [&](int block) {
      if (block < n_blocks) {
        unsigned char* to = shared + block % kScanStages * kScanStageBytes;
        const unsigned char* rows = d_rows + static_cast<int64_t>(block) * kTileBytes;
        for (int at = thread * 16; at < kTileBytes; at += kScanThreads * 16) copy_async_16(to + at, rows + at);
        const unsigned char* queries = d_queries + static_cast<int64_t>(block) * kTileBytes;
        for (int at = thread * 16; at < kScanQueryBytes; at += kScanThreads * 16) {
          copy_async_16(to + kTileBytes + at, queries + at);
        }
      }
      copy_async_commit();  // also when empty: waiting counts groups
    };

    Accumulator sum[2][4][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) sum[i][j][v] = 0;
      }
    }
    __syncthreads();  // the last tile's operands are no longer read
#pragma unroll
    for (int stage = 0; stage < kScanStages - 1; ++stage) fetch(stage);
    for (int block = 0; block < n_blocks; ++block) {
      copy_async_wait<kScanStages - 2>();
      __syncthreads();  // the block has arrived for everybody, and the stage to be filled is free
      fetch(block + kScanStages - 1);
      const unsigned char* rows = shared + block % kScanStages * kScanStageBytes;
      const unsigned char* queries = rows + kTileBytes;
#pragma unroll
      for (int step = 0; step < kBlockBytes / 32; ++step) {
        // Lane l addresses row l % 8 (+ 8 for odd matrices) and chunk 2·step (+ 1 for matrices 2 and 3).
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = warp_row + 16 * i + lane % 16;
          const int chunk = 2 * step + lane / 16;
          load_matrix_x4(a[i], rows + row * kBlockBytes + ((chunk ^ (row & 7)) * 16));
        }
        uint32_t b[2][4];  // two groups of 8 queries each: their chunk 2·step, their chunk 2·step + 1
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int query = warp_query + 16 * j + lane / 16 * 8 + lane % 8;
          const int chunk = 2 * step + lane / 8 % 2;
          load_matrix_x4(b[j], queries + query * kBlockBytes + ((chunk ^ (query & 7)) * 16));
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            multiply_accumulate<kType>(sum[i][j], a[i], b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]);
          }
        }
      }
    }

    const int64_t row0 = tile * kTileRows + warp_row + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = row0 + 16 * i + 8 * half;
        if (row >= scan.matrix.n_rows) continue;
        const RowTest row_side = row_test(scan.metric, scan.matrix.d_facts[row], scan.roundoff);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
          for (int v = 0; v < 2; ++v) {
            const int query = query0 + warp_query + 8 * j + 2 * (lane % 4) + v;
            if (query >= scan.n_queries) continue;
            const float product = static_cast<float>(sum[i][j][2 * half + v]);
            if (may_belong(product, row_side, scan.d_tests[query])) write_down(scan, query, row, product);
          }
        }
      }
    }
  }
}

// ---- scan by wgmma (sm_90) ------------------------------------------------------------------------------------------

constexpr int kWideQueries = 128;
constexpr int kWideThreads = 384;  // a producer's warpgroup and two consumers'
constexpr int kWideStages = 6;
constexpr int kWideHeader = 1024 + kWideQueries * static_cast<int>(sizeof(QueryTest));
constexpr int kMaxShared = 227 * 1024;

// Dynamic shared memory for n_blocks of depth: barriers, tests, the queries of the block, stages of rows.
constexpr int wide_shared(int n_blocks, int stages) {
  return 1024 + kWideHeader + n_blocks * kTileBytes + stages * kTileBytes;
}
int wide_stages(int n_blocks) {
  int stages = kWideStages;
  while (stages > 1 && wide_shared(n_blocks, stages) > kMaxShared) --stages;
  return wide_shared(n_blocks, stages) <= kMaxShared && stages >= 2 ? stages : 0;
}

// Grid: (row tiles in flight, groups of 128 queries); 384 threads: warpgroup 0 feeds blocks of rows through bulk copies
// into `stages` buffers, warpgroups 1 and 2 multiply 64 rows each with the block's 128 queries, which stay in shared
// memory; one block per multiprocessor; bound by the tensor cores.
template <Operand kType>
__global__ void __launch_bounds__(kWideThreads, 1) wide_scan_kernel(const Scan scan, int stages) {
#if defined(WAGGLE_HAS_WGMMA)
  using Accumulator = typename OperandTraits<kType>::Accumulator;
  WAGGLE_DYNAMIC_SHARED(shared);
  PhaseBarrier* full = reinterpret_cast<PhaseBarrier*>(shared);
  PhaseBarrier* empty = full + kWideStages;
  PhaseBarrier* queries_here = empty + kWideStages;
  QueryTest* tests = reinterpret_cast<QueryTest*>(shared + 1024);
  const int n_blocks = scan.matrix.n_blocks;
  unsigned char* queries = shared + (kWideHeader + 1023) / 1024 * 1024;
  unsigned char* buffers = queries + n_blocks * kTileBytes;
  const int thread = static_cast<int>(threadIdx.x);
  const int group = thread / 128;
  const int query0 = static_cast<int>(blockIdx.y) * kWideQueries;

  if (thread == 0) {
    for (int stage = 0; stage < stages; ++stage) {
      barrier_init(&full[stage], 1);
      barrier_init(&empty[stage], 8);  // each consumer's warp
    }
    barrier_init(queries_here, 1);
    barrier_init_fence();
  }
  for (int i = thread; i < kWideQueries; i += kWideThreads) {
    // A query that is not there passes no test.
    tests[i] = query0 + i < scan.n_queries ? scan.d_tests[query0 + i] : QueryTest{0, 0, 0, INFINITY};
  }
  __syncthreads();

  if (group == 0) {
    if (thread == 0) {
      barrier_arrive_expect(queries_here, static_cast<uint32_t>(n_blocks * kTileBytes));
      const unsigned char* d_queries = scan.d_query_tiles + static_cast<int64_t>(blockIdx.y) * n_blocks * kTileBytes;
      for (int block = 0; block < n_blocks; ++block) {
        copy_bulk(queries + block * kTileBytes, d_queries + static_cast<int64_t>(block) * kTileBytes, kTileBytes,
                  queries_here);
      }
      int stage = 0;
      int parity = 0;
      for (int64_t tile = scan.first_tile + blockIdx.x; tile < scan.end_tile; tile += gridDim.x) {
        const unsigned char* d_rows = scan.matrix.d_tiles + tile * n_blocks * kTileBytes;
        for (int block = 0; block < n_blocks; ++block) {
          barrier_wait(&empty[stage], parity ^ 1);  // a fresh barrier's phase 0 counts as "parity 1 is complete"
          barrier_arrive_expect(&full[stage], kTileBytes);
          copy_bulk(buffers + stage * kTileBytes, d_rows + static_cast<int64_t>(block) * kTileBytes, kTileBytes,
                    &full[stage]);
          if (++stage == stages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
    }
    return;
  }

  const int lane = thread % 32;
  const int group_row = (group - 1) * 64;
  const int in_group = thread % 128;
  barrier_wait(queries_here, 0);
  int stage = 0;
  int parity = 0;
  for (int64_t tile = scan.first_tile + blockIdx.x; tile < scan.end_tile; tile += gridDim.x) {
    Accumulator sum[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[i] = 0;
    for (int block = 0; block < n_blocks; ++block) {
      barrier_wait(&full[stage], parity);
      const unsigned char* rows = buffers + stage * kTileBytes + group_row * kBlockBytes;
      hold_registers<kType>(sum);
      warpgroup_fence();
#pragma unroll
      for (int step = 0; step < kBlockBytes / 32; ++step) {
        warpgroup_multiply<kType>(sum, matrix_descriptor(rows + 32 * step),
                                  matrix_descriptor(queries + block * kTileBytes + 32 * step), true);
      }
      warpgroup_commit();
      warpgroup_wait<0>();
      hold_registers<kType>(sum);
      __syncwarp();
      if (lane == 0) barrier_arrive(&empty[stage]);
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    }
    const int64_t row0 = tile * kTileRows + group_row + in_group / 32 * 16 + lane / 4;
    RowTest row_side[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = row0 + 8 * half;
      row_side[half] = row < scan.matrix.n_rows ? row_test(scan.metric, scan.matrix.d_facts[row], scan.roundoff)
                                                : RowTest{0, 0, 0, 0};
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const int query = 8 * j + 2 * (lane % 4) + v;
        const QueryTest test = tests[query];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float product = static_cast<float>(sum[4 * j + 2 * half + v]);
          const int64_t row = row0 + 8 * half;
          if (may_belong(product, row_side[half], test) && row < scan.matrix.n_rows &&
              query0 + query < scan.n_queries) {
            write_down(scan, query0 + query, row, product);
          }
        }
      }
    }
  }
#else
  (void)scan;
  (void)stages;
#endif
}

// ---- scan for one query ---------------------------------------------------------------------------------------------

constexpr int kOneThreads = 256;

// Grid: row tiles in flight; 256 threads, a warp per 16 rows of the tile, 8 lanes per row with 16 bytes each; the query
// in shared memory (f32 for float types, bytes for int8); bound by memory: each byte of the matrix is read once, in
// pieces of 512 contiguous bytes per warp.
template <Operand kType>
__global__ void __launch_bounds__(kOneThreads) scan_one_kernel(const Scan scan, const float* d_query) {
  WAGGLE_DYNAMIC_SHARED(shared);
  constexpr int kBytes = OperandTraits<kType>::kBytes;
  constexpr int kPerChunk = 16 / kBytes;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int n_blocks = scan.matrix.n_blocks;
  float* query = reinterpret_cast<float*>(shared);
  if constexpr (kType == Operand::kS8) {
    for (int at = thread * 16; at < n_blocks * kBlockBytes; at += kOneThreads * 16) {
      // Row 0 of a tile is not permuted.
      *reinterpret_cast<uint4*>(shared + at) = *reinterpret_cast<const uint4*>(
          scan.d_query_tiles + static_cast<int64_t>(at / kBlockBytes) * kTileBytes + at % kBlockBytes);
    }
  } else {
    const int depth = n_blocks * (kBlockBytes / kBytes);
    for (int i = thread; i < depth; i += kOneThreads) query[i] = i < scan.matrix.dim ? d_query[i] : 0.0f;
  }
  __syncthreads();

  const QueryTest test = scan.d_tests[0];
  for (int64_t tile = scan.first_tile + blockIdx.x; tile < scan.end_tile; tile += gridDim.x) {
    const unsigned char* d_rows = scan.matrix.d_tiles + tile * n_blocks * kTileBytes;
    float sum[4] = {};
    int whole[4] = {};
#pragma unroll 2
    for (int block = 0; block < n_blocks; ++block) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const int row = 16 * warp + 4 * u + lane / 8;
        const int chunk = (lane % 8) ^ (row & 7);
        const uint4 bits = __ldg(reinterpret_cast<const uint4*>(d_rows + static_cast<int64_t>(block) * kTileBytes +
                                                                row * kBlockBytes + lane % 8 * 16));
        const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
        if constexpr (kType == Operand::kS8) {
          const uint4 other = *reinterpret_cast<const uint4*>(shared + block * kBlockBytes + chunk * 16);
          const unsigned others[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
          for (int w = 0; w < 4; ++w) {
            whole[u] = __dp4a(static_cast<int>(words[w]), static_cast<int>(others[w]), whole[u]);
          }
        } else {
          const float* values = query + (block * 8 + chunk) * kPerChunk;
#pragma unroll
          for (int w = 0; w < 4; ++w) {
            if constexpr (kType == Operand::kTf32) {
              sum[u] = fmaf(__uint_as_float(words[w]), values[w], sum[u]);
            } else if constexpr (kType == Operand::kBf16) {
              sum[u] = fmaf(__uint_as_float(words[w] << 16), values[2 * w], sum[u]);
              sum[u] = fmaf(__uint_as_float(words[w] & 0xffff0000u), values[2 * w + 1], sum[u]);
            } else {
              sum[u] = fmaf(__half2float(__ushort_as_half(static_cast<unsigned short>(words[w] & 0xffffu))),
                            values[2 * w], sum[u]);
              sum[u] = fmaf(__half2float(__ushort_as_half(static_cast<unsigned short>(words[w] >> 16))),
                            values[2 * w + 1], sum[u]);
            }
          }
        }
      }
    }
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
      for (int step = 1; step < 8; step *= 2) {
        sum[u] += __shfl_xor_sync(kFullWarp, sum[u], step);
        whole[u] += __shfl_xor_sync(kFullWarp, whole[u], step);
      }
      const int64_t row = tile * kTileRows + 16 * warp + 4 * u + lane / 8;
      if (lane % 8 != u || row >= scan.matrix.n_rows) continue;
      const float product = kType == Operand::kS8 ? static_cast<float>(whole[u]) : sum[u];
      if (may_belong(product, row_test(scan.metric, scan.matrix.d_facts[row], scan.roundoff), test)) {
        write_down(scan, 0, row, product);
      }
    }
  }
}

// ---- select
// -----------------------------------------------------------------------------------------------------------

// Exact score of a pair by one warp: products and sums in double, rounded once. Every lane gets it.
__device__ inline float exact_score(int metric, const float* d_q, const float* d_x, int64_t dim) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double dot = 0;
  double q2 = 0;
  double x2 = 0;
  for (int64_t i = lane; i < dim; i += 32) {
    const double q = d_q[i];
    const double x = d_x[i];
    if (metric == WAGGLE_METRIC_L2) {
      dot += (q - x) * (q - x);
    } else {
      dot += q * x;
    }
    if (metric == WAGGLE_METRIC_COSINE) {
      q2 += q * q;
      x2 += x * x;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    dot += __shfl_xor_sync(kFullWarp, dot, step);
    q2 += __shfl_xor_sync(kFullWarp, q2, step);
    x2 += __shfl_xor_sync(kFullWarp, x2, step);
  }
  if (metric == WAGGLE_METRIC_L2) return static_cast<float>(-dot);
  if (metric == WAGGLE_METRIC_COSINE) {
    const double norms = sqrt(q2) * sqrt(x2);
    return norms > 0 ? static_cast<float>(dot / norms) : 0.0f;
  }
  return static_cast<float>(dot);
}

struct Select {
  MatrixView matrix;  // as scanned: facts by scanned row
  const float* d_exact;
  const int32_t* d_row_numbers;
  const float* d_queries;  // [n_queries × dim]
  const RowFacts* d_query_facts;
  QueryTest* d_tests;
  int32_t metric;
  int32_t k;
  float roundoff;
  const unsigned long long* d_lists;
  unsigned* d_counts;
  unsigned long long* d_best;  // [n_queries × k], best first, kNoKey pads
  int32_t* d_overflow;
  unsigned long long* d_bad_row;
  unsigned long long* d_rescored;
};

__device__ inline int power_of_two_from(int n) {
  int size = 1;
  while (size < n) size *= 2;
  return size;
}

// Grid: one block per query; 512 threads; 88 KiB shared. A query whose list overflowed keeps its best as they were and
// raises the flag: the host repeats the chunk in parts.
__global__ void __launch_bounds__(kSelectThreads) select_kernel(const Select select) {
  WAGGLE_DYNAMIC_SHARED(shared);
  unsigned long long* keys = reinterpret_cast<unsigned long long*>(shared);
  uint32_t* close = reinterpret_cast<uint32_t*>(shared + kSortable * 8);
  __shared__ int n_close;
  __shared__ int n_best;
  const int query = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned listed = select.d_counts[query];
  unsigned long long* d_best = select.d_best + static_cast<int64_t>(query) * select.k;
  __syncthreads();
  if (listed > kListed) {
    if (thread == 0) {
      atomicExch(select.d_overflow, 1);
      select.d_counts[query] = 0;
    }
    return;
  }
  if (listed == 0) return;
  const int n = static_cast<int>(listed);
  const int size = power_of_two_from(n);
  for (int i = thread; i < size; i += kSelectThreads) {
    keys[i] = i < n ? select.d_lists[static_cast<int64_t>(query) * kListed + i] : kNoKey;
  }
  if (thread == 0) {
    n_close = 0;
    n_best = 0;
  }
  __syncthreads();
  sort_keys(keys, size);

  const RowFacts q = select.d_query_facts[query];
  float threshold = n >= select.k ? score_of_key(keys[select.k - 1]) : -INFINITY;
  const unsigned long long last_best = d_best[select.k - 1];
  if (last_best != kNoKey) threshold = fmaxf(threshold, score_of_key(last_best));
  for (int i = thread; i < n; i += kSelectThreads) {
    const uint32_t row = row_of_key(keys[i]);
    const float width = half_width(select.metric, select.matrix.d_facts[row], q, select.roundoff);
    const float lower = score_of_key(keys[i]);
    const float upper = lower + 2 * width + 1e-6f * (fabsf(lower) + width);
    if (!(upper < threshold)) close[atomicAdd(&n_close, 1)] = row;
  }
  __syncthreads();

  // The keys are read no more: their place takes the exact ones.
  const int found = n_close;
  if (thread == 0) atomicAdd(select.d_rescored, static_cast<unsigned long long>(found));
  const float* d_query = select.d_queries + static_cast<int64_t>(query) * select.matrix.dim;
  for (int i = thread / 32; i < found; i += kSelectThreads / 32) {
    const uint32_t scanned = close[i];
    const uint32_t row =
        select.d_row_numbers != nullptr ? static_cast<uint32_t>(select.d_row_numbers[scanned]) : scanned;
    const float score = exact_score(select.metric, d_query,
                                    select.d_exact + static_cast<int64_t>(row) * select.matrix.dim, select.matrix.dim);
    if (thread % 32 == 0) {
      if (isfinite(score)) {
        keys[i] = key_of(score, row);
      } else {
        keys[i] = kNoKey;
        atomicMin(select.d_bad_row, static_cast<unsigned long long>(row));
      }
    }
  }
  for (int i = thread; i < select.k; i += kSelectThreads) {
    if (d_best[i] != kNoKey) atomicMax(&n_best, i + 1);
  }
  __syncthreads();
  const int before = n_best;
  const int total = found + before;
  const int merged = power_of_two_from(total);
  for (int i = thread; found + i < merged; i += kSelectThreads) keys[found + i] = i < before ? d_best[i] : kNoKey;
  __syncthreads();
  sort_keys(keys, merged);
  for (int i = thread; i < select.k; i += kSelectThreads) d_best[i] = i < total ? keys[i] : kNoKey;
  if (thread == 0) {
    select.d_counts[query] = 0;
    const bool full = total >= select.k && keys[select.k - 1] != kNoKey;
    select.d_tests[query] = query_test(select.metric, q, full ? score_of_key(keys[select.k - 1]) : -INFINITY);
  }
}

// Without exact rows: the list's middles are the scores. Grid, threads and shared memory as select_kernel.
__global__ void __launch_bounds__(kSelectThreads) select_scanned_kernel(const Select select) {
  WAGGLE_DYNAMIC_SHARED(shared);
  unsigned long long* keys = reinterpret_cast<unsigned long long*>(shared);
  __shared__ int n_best;
  const int query = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned listed = select.d_counts[query];
  unsigned long long* d_best = select.d_best + static_cast<int64_t>(query) * select.k;
  __syncthreads();
  if (listed > kListed) {
    if (thread == 0) {
      atomicExch(select.d_overflow, 1);
      select.d_counts[query] = 0;
    }
    return;
  }
  if (listed == 0) return;
  const int n = static_cast<int>(listed);
  const RowFacts q = select.d_query_facts[query];
  if (thread == 0) n_best = 0;
  __syncthreads();
  for (int i = thread; i < select.k; i += kSelectThreads) {
    if (d_best[i] != kNoKey) atomicMax(&n_best, i + 1);
  }
  for (int i = thread; i < n; i += kSelectThreads) {
    const unsigned long long key = select.d_lists[static_cast<int64_t>(query) * kListed + i];
    const uint32_t scanned = row_of_key(key);
    const uint32_t row =
        select.d_row_numbers != nullptr ? static_cast<uint32_t>(select.d_row_numbers[scanned]) : scanned;
    const float width = half_width(select.metric, select.matrix.d_facts[scanned], q, select.roundoff);
    const float score = score_of_key(key) + width;
    if (isfinite(score)) {
      keys[i] = key_of(score, row);
    } else {
      keys[i] = kNoKey;
      atomicMin(select.d_bad_row, static_cast<unsigned long long>(row));
    }
  }
  __syncthreads();
  const int before = n_best;
  const int total = n + before;
  const int merged = power_of_two_from(total);
  for (int i = thread; n + i < merged; i += kSelectThreads) keys[n + i] = i < before ? d_best[i] : kNoKey;
  __syncthreads();
  sort_keys(keys, merged);
  for (int i = thread; i < select.k; i += kSelectThreads) d_best[i] = i < total ? keys[i] : kNoKey;
  if (thread == 0) {
    select.d_counts[query] = 0;
    const bool full = total >= select.k && keys[select.k - 1] != kNoKey;
    select.d_tests[query] = query_test(select.metric, q, full ? score_of_key(keys[select.k - 1]) : -INFINITY);
  }
}

// ---- preparation
// ------------------------------------------------------------------------------------------------------

// Grid: queries / 256. Sets every list empty and every test open. exact_query: the scan multiplies with the query
// itself.
__global__ void prepare_kernel(RowFacts* d_query_facts, int n_queries, int metric, bool exact_query, QueryTest* d_tests,
                               unsigned* d_counts) {
  const int query = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (query >= n_queries) return;
  if (exact_query) {
    d_query_facts[query].scale = 1.0f;
    d_query_facts[query].error = 0.0f;
  }
  d_tests[query] = query_test(metric, d_query_facts[query], -INFINITY);
  d_counts[query] = 0;
}

// For counting what is in doubt: the test becomes "could reach the lowest lower bound of the answer". Grid: queries /
// 256.
__global__ void doubt_kernel(MatrixView matrix, const RowFacts* d_query_facts, int n_queries, int metric, int k,
                             float roundoff, const unsigned long long* d_best, QueryTest* d_tests, unsigned* d_counts) {
  const int query = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (query >= n_queries) return;
  const RowFacts q = d_query_facts[query];
  float lowest = INFINITY;
  for (int i = 0; i < k; ++i) {
    const unsigned long long key = d_best[static_cast<int64_t>(query) * k + i];
    if (key == kNoKey) {
      lowest = INFINITY;  // fewer than k rows: all of them are in the answer, none is in doubt
      break;
    }
    const float width = half_width(metric, matrix.d_facts[row_of_key(key)], q, roundoff);
    lowest = fminf(lowest, score_of_key(key) - width);
  }
  d_tests[query] = query_test(metric, q, lowest);
  if (lowest == INFINITY) d_tests[query].t = INFINITY;
  d_counts[query] = 0;
}

// Rows chosen by number, brought together as tiles of their own. Grid: one block of 8 warps per 8 gathered rows.
__global__ void gather_kernel(MatrixView from, const int32_t* d_numbers, int64_t n_gathered, int64_t padded,
                              unsigned char* d_tiles, RowFacts* d_facts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32;
  if (i >= padded) return;
  const int to_row = static_cast<int>(i % kTileRows);
  unsigned char* to = d_tiles + i / kTileRows * from.n_blocks * kTileBytes + to_row * kBlockBytes;
  const int64_t source = i < n_gathered ? d_numbers[i] : -1;
  const int from_row = static_cast<int>(source % kTileRows);
  const unsigned char* at = from.d_tiles + source / kTileRows * from.n_blocks * kTileBytes + from_row * kBlockBytes;
  for (int piece = lane; piece < from.n_blocks * 8; piece += 32) {
    const int64_t block = piece / 8;
    const int chunk = piece % 8;
    uint4 bits = {0, 0, 0, 0};
    if (source >= 0) {
      bits = *reinterpret_cast<const uint4*>(at + block * kTileBytes + ((chunk ^ (from_row & 7)) * 16));
    }
    *reinterpret_cast<uint4*>(to + block * kTileBytes + ((chunk ^ (to_row & 7)) * 16)) = bits;
  }
  if (lane == 0) d_facts[i] = source >= 0 ? from.d_facts[source] : RowFacts{1, 0, 0, 0};
}

// ---- host
// -------------------------------------------------------------------------------------------------------------

float host_score_of(unsigned long long key) {
  uint32_t bits = ~static_cast<uint32_t>(key >> 32);
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
  float score = 0;
  static_assert(sizeof score == sizeof bits, "float is 32 bits");
  __builtin_memcpy(&score, &bits, sizeof score);
  return score;
}

int32_t allow_shared_memory(const void* kernel, int bytes, waggle_text* error) {
  WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  return WAGGLE_BACKEND_OK;
}

template <Operand kType>
int32_t launch_scan_of(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                       waggle_text* error) {
  const int64_t tiles = scan.end_tile - scan.first_tile;
  if (tiles <= 0) return WAGGLE_BACKEND_OK;
  const int blocks = scan.matrix.n_blocks;
  if (d_query != nullptr) {
    const int shared = blocks * kBlockBytes * (kType == Operand::kS8 ? 1 : 4 / OperandTraits<kType>::kBytes);
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&scan_one_kernel<kType>), shared, error));
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(tiles, int64_t{state.multiprocessors} * 8)));
    WAGGLE_LAUNCH(scan_one_kernel<kType>, grid, dim3(kOneThreads), static_cast<size_t>(shared), stream, scan, d_query);
  } else if (const int stages = state.has_wgmma ? wide_stages(blocks) : 0; stages > 0) {
    const int shared = wide_shared(blocks, stages);
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&wide_scan_kernel<kType>), shared, error));
    const int64_t groups = (scan.n_queries + kWideQueries - 1) / kWideQueries;
    // Blocks of one group of queries lie side by side, and all groups walk over the rows together: a tile comes from
    // device memory once and from L2 for the rest.
    const int64_t wide = std::max<int64_t>(1, state.multiprocessors / groups);
    const dim3 grid(static_cast<unsigned>(std::min(tiles, wide)), static_cast<unsigned>(groups));
    WAGGLE_LAUNCH(wide_scan_kernel<kType>, grid, dim3(kWideThreads), static_cast<size_t>(shared), stream, scan, stages);
  } else {
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&scan_kernel<kType>), kScanShared, error));
    const int64_t groups = (scan.n_queries + kScanQueries - 1) / kScanQueries;
    const int64_t wide = std::max<int64_t>(1, int64_t{state.multiprocessors} * 2 / groups);
    const dim3 grid(static_cast<unsigned>(std::min(tiles, wide)), static_cast<unsigned>(groups));
    WAGGLE_LAUNCH(scan_kernel<kType>, grid, dim3(kScanThreads), static_cast<size_t>(kScanShared), stream, scan);
  }
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t launch_scan(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                    waggle_text* error) {
  switch (scan.matrix.dtype) {
    case WAGGLE_DTYPE_F16:
      return launch_scan_of<Operand::kF16>(state, scan, d_query, stream, error);
    case WAGGLE_DTYPE_BF16:
      return launch_scan_of<Operand::kBf16>(state, scan, d_query, stream, error);
    case WAGGLE_DTYPE_INT8:
      return launch_scan_of<Operand::kS8>(state, scan, d_query, stream, error);
    default:
      return launch_scan_of<Operand::kTf32>(state, scan, d_query, stream, error);
  }
}

int32_t launch_select(const Select& select, int n_queries, cudaStream_t stream, waggle_text* error) {
  const dim3 grid(static_cast<unsigned>(n_queries));
  if (select.d_exact != nullptr) {
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&select_kernel), kSelectShared, error));
    WAGGLE_LAUNCH(select_kernel, grid, dim3(kSelectThreads), static_cast<size_t>(kSelectShared), stream, select);
  } else {
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&select_scanned_kernel), kSelectShared, error));
    WAGGLE_LAUNCH(select_scanned_kernel, grid, dim3(kSelectThreads), static_cast<size_t>(kSelectShared), stream,
                  select);
  }
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

// Rows that a bitmap shared by all queries allows, when they are few enough to be worth gathering.
bool few_allowed_rows(const uint8_t* filter, int64_t n_rows, std::vector<int32_t>* rows) {
  int64_t allowed = 0;
  const int64_t bytes = n_rows / 8;
  for (int64_t i = 0; i < bytes; ++i) allowed += __builtin_popcount(filter[i]);
  for (int64_t r = bytes * 8; r < n_rows; ++r) allowed += (filter[r >> 3] >> (r & 7)) & 1;
  if (allowed * 4 > n_rows) return false;
  rows->reserve(static_cast<size_t>(allowed));
  for (int64_t i = 0; i * 8 < n_rows; ++i) {
    for (unsigned bits = filter[i]; bits != 0; bits &= bits - 1) {
      const int64_t row = i * 8 + __builtin_ctz(bits);
      if (row < n_rows) rows->push_back(static_cast<int32_t>(row));
    }
  }
  return true;
}

// One batch of queries against one matrix, gathered or whole.
class Search {
 public:
  Search(State& state, const MatrixView& matrix, const waggle_topk_args& args, int64_t first_query, int n_queries,
         cudaStream_t stream)
      : state_(state), args_(args), stream_(stream), original_(matrix), first_query_(first_query) {
    scan_.matrix = matrix;
    scan_.n_queries = n_queries;
    scan_.metric = args.metric;
    scan_.roundoff = roundoff_of(matrix.dim, matrix.dtype);
    select_.d_exact = matrix.d_exact;
    select_.metric = args.metric;
    select_.k = args.k;
    select_.roundoff = scan_.roundoff;
  }

  int32_t run(const std::vector<int32_t>* gathered, std::vector<unsigned long long>* best, int64_t* n_rescored,
              int64_t* n_in_doubt, unsigned long long* bad_row, waggle_text* error) {
    const int64_t dim = scan_.matrix.dim;
    const int n = scan_.n_queries;
    const int64_t query_rows = row_tiles(n) * kTileRows;
    Scratch& scratch = state_.scratch;
    scratch.reset();
    float* d_queries = nullptr;
    unsigned char* d_query_tiles = nullptr;
    RowFacts* d_query_facts = nullptr;
    QueryTest* d_tests = nullptr;
    unsigned long long* d_flags = nullptr;
    WAGGLE_TRY(scratch.take(&d_queries, n * dim, error));
    WAGGLE_TRY(scratch.take(&d_query_tiles, row_tiles(n) * scan_.matrix.n_blocks * kTileBytes, error));
    WAGGLE_TRY(scratch.take(&d_query_facts, query_rows, error));
    WAGGLE_TRY(scratch.take(&d_tests, n, error));
    WAGGLE_TRY(scratch.take(&d_counts_, n, error));
    WAGGLE_TRY(scratch.take(&d_lists_, static_cast<int64_t>(n) * kListed, error));
    WAGGLE_TRY(scratch.take(&d_best_, static_cast<int64_t>(n) * args_.k, error));
    WAGGLE_TRY(scratch.take(&d_flags, 3, error));
    d_bad_row_ = d_flags;
    d_rescored_ = d_flags + 1;
    d_overflow_ = reinterpret_cast<int32_t*>(d_flags + 2);

    float* h_queries = nullptr;
    WAGGLE_TRY(state_.staging.take(&h_queries, n * dim, error));
    std::copy_n(args_.queries + first_query_ * dim, n * dim, h_queries);
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(d_queries, h_queries, static_cast<size_t>(n * dim) * 4, cudaMemcpyHostToDevice, stream_));
    WAGGLE_CUDA_CHECK(
        cudaMemsetAsync(d_best_, 0xff, static_cast<size_t>(n) * static_cast<size_t>(args_.k) * 8, stream_));
    WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_bad_row_, 0xff, 8, stream_));
    WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_rescored_, 0, 16, stream_));
    WAGGLE_TRY(launch_encode(d_queries, 0, n, dim, scan_.matrix.dtype, d_query_tiles, d_query_facts, d_bad_row_,
                             stream_, error));
    const bool alone = n == 1 && dim <= kMaxScanOneDim;
    const bool exact_query = alone && scan_.matrix.dtype != WAGGLE_DTYPE_INT8;
    WAGGLE_LAUNCH(prepare_kernel, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, stream_, d_query_facts, n,
                  args_.metric, exact_query, d_tests, d_counts_);
    WAGGLE_CUDA_CHECK(cudaGetLastError());

    scan_.d_query_tiles = d_query_tiles;
    scan_.d_query_facts = d_query_facts;
    scan_.d_tests = d_tests;
    scan_.d_lists = d_lists_;
    scan_.d_counts = d_counts_;
    if (gathered != nullptr) {
      WAGGLE_TRY(gather(*gathered, error));
    } else if (args_.filter != nullptr) {
      const int64_t row_bytes = (scan_.matrix.n_rows + 7) / 8;
      uint8_t* d_filter = nullptr;
      if (args_.filter_stride == 0) {
        WAGGLE_TRY(scratch.take(&d_filter, row_bytes, error));
        WAGGLE_CUDA_CHECK(
            cudaMemcpyAsync(d_filter, args_.filter, static_cast<size_t>(row_bytes), cudaMemcpyHostToDevice, stream_));
      } else {
        WAGGLE_TRY(scratch.take(&d_filter, n * row_bytes, error));
        WAGGLE_CUDA_CHECK(cudaMemcpy2DAsync(d_filter, static_cast<size_t>(row_bytes),
                                            args_.filter + first_query_ * args_.filter_stride,
                                            static_cast<size_t>(args_.filter_stride), static_cast<size_t>(row_bytes),
                                            static_cast<size_t>(n), cudaMemcpyHostToDevice, stream_));
        scan_.filter_stride = row_bytes;
      }
      scan_.d_filter = d_filter;
    }
    select_.matrix = scan_.matrix;
    select_.d_row_numbers = scan_.d_row_numbers;
    select_.d_queries = d_queries;
    select_.d_query_facts = d_query_facts;
    select_.d_tests = d_tests;
    select_.d_lists = d_lists_;
    select_.d_counts = d_counts_;
    select_.d_best = d_best_;
    select_.d_overflow = d_overflow_;
    select_.d_bad_row = d_bad_row_;
    select_.d_rescored = d_rescored_;
    d_query_ = alone ? d_queries : nullptr;

    const int64_t tiles = row_tiles(scan_.matrix.n_rows);
    int64_t first = 0;
    // In one go first, the flag looked at once at the end; from the first overflow on, chunk by chunk.
    std::vector<int64_t> ends;
    for (int64_t end = kFirstChunkTiles; first < tiles; end = first * kChunkGrowth) {
      first = std::min(tiles, std::max(end, first + 1));
      ends.push_back(first);
    }
    bool overflowed = false;
    first = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
      if (cancelled()) return stop(error);
      WAGGLE_TRY(chunk(first, ends[i], error));
      first = ends[i];
    }
    WAGGLE_TRY(read_overflow(&overflowed, error));
    if (overflowed) {
      // Lists that overflowed kept their best: starting again from there repeats rows that are in the best already.
      WAGGLE_CUDA_CHECK(
          cudaMemsetAsync(d_best_, 0xff, static_cast<size_t>(n) * static_cast<size_t>(args_.k) * 8, stream_));
      WAGGLE_LAUNCH(prepare_kernel, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, stream_, d_query_facts,
                    n, args_.metric, exact_query, d_tests, d_counts_);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
      WAGGLE_TRY(carefully(tiles, error));
    }
    if (select_.d_exact == nullptr) {
      WAGGLE_LAUNCH(doubt_kernel, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, stream_, original_,
                    d_query_facts, n, args_.metric, args_.k, scan_.roundoff, d_best_, d_tests, d_counts_);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
      scan_.count_only = true;
      scan_.first_tile = 0;
      scan_.end_tile = tiles;
      WAGGLE_TRY(launch_scan(state_, scan_, d_query_, stream_, error));
    }

    best->resize(static_cast<size_t>(n) * static_cast<size_t>(args_.k));
    std::vector<unsigned> counts(static_cast<size_t>(n));
    unsigned long long rescored = 0;
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(&rescored, d_rescored_, 8, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(best->data(), d_best_, best->size() * 8, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(bad_row, d_bad_row_, 8, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(counts.data(), d_counts_, counts.size() * 4, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
    *n_rescored += static_cast<int64_t>(rescored);
    if (select_.d_exact == nullptr) {
      for (const unsigned count : counts) *n_in_doubt += std::max<int64_t>(0, int64_t{count} - args_.k);
    }
    return WAGGLE_BACKEND_OK;
  }

 private:
  int32_t gather(const std::vector<int32_t>& rows, waggle_text* error) {
    const int64_t count = static_cast<int64_t>(rows.size());
    const int64_t padded = row_tiles(count) * kTileRows;
    int32_t* d_numbers = nullptr;
    unsigned char* d_tiles = nullptr;
    RowFacts* d_facts = nullptr;
    WAGGLE_TRY(state_.scratch.take(&d_numbers, std::max<int64_t>(count, 1), error));
    WAGGLE_TRY(state_.scratch.take(&d_tiles, row_tiles(count) * scan_.matrix.n_blocks * kTileBytes, error));
    WAGGLE_TRY(state_.scratch.take(&d_facts, std::max<int64_t>(padded, 1), error));
    if (count > 0) {
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_numbers, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice, stream_));
      WAGGLE_LAUNCH(gather_kernel, dim3(static_cast<unsigned>((padded + 7) / 8)), dim3(256), 0, stream_, scan_.matrix,
                    d_numbers, count, padded, d_tiles, d_facts);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
    }
    scan_.matrix.d_tiles = d_tiles;
    scan_.matrix.d_facts = d_facts;
    scan_.matrix.n_rows = count;
    scan_.d_row_numbers = d_numbers;
    return WAGGLE_BACKEND_OK;
  }

  int32_t chunk(int64_t first, int64_t end, waggle_text* error) {
    scan_.first_tile = first;
    scan_.end_tile = end;
    WAGGLE_TRY(launch_scan(state_, scan_, d_query_, stream_, error));
    return launch_select(select_, scan_.n_queries, stream_, error);
  }

  int32_t read_overflow(bool* overflowed, waggle_text* error) {
    int32_t flag = 0;
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(&flag, d_overflow_, 4, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
    *overflowed = flag != 0;
    if (flag != 0) WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_overflow_, 0, 4, stream_));
    return WAGGLE_BACKEND_OK;
  }

  // Every chunk either fits every list or is repeated at half its length. A repeated chunk's rows may be in a query's
  // best already (its own list did not overflow): the best are put back first.
  int32_t carefully(int64_t tiles, waggle_text* error) {
    const size_t best_bytes = static_cast<size_t>(scan_.n_queries) * static_cast<size_t>(args_.k) * 8;
    const size_t test_bytes = static_cast<size_t>(scan_.n_queries) * sizeof(QueryTest);
    unsigned long long* d_kept = nullptr;
    QueryTest* d_kept_tests = nullptr;
    WAGGLE_TRY(state_.scratch.take(&d_kept, static_cast<int64_t>(scan_.n_queries) * args_.k, error));
    WAGGLE_TRY(state_.scratch.take(&d_kept_tests, scan_.n_queries, error));
    int64_t length = kFirstChunkTiles;
    for (int64_t first = 0; first < tiles;) {
      if (cancelled()) return stop(error);
      const int64_t end = std::min(tiles, first + length);
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_kept, d_best_, best_bytes, cudaMemcpyDeviceToDevice, stream_));
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_kept_tests, select_.d_tests, test_bytes, cudaMemcpyDeviceToDevice, stream_));
      WAGGLE_TRY(chunk(first, end, error));
      bool overflowed = false;
      WAGGLE_TRY(read_overflow(&overflowed, error));
      if (overflowed) {
        WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_best_, d_kept, best_bytes, cudaMemcpyDeviceToDevice, stream_));
        WAGGLE_CUDA_CHECK(
            cudaMemcpyAsync(select_.d_tests, d_kept_tests, test_bytes, cudaMemcpyDeviceToDevice, stream_));
        length = std::max<int64_t>(1, length / 2);
        continue;
      }
      first = end;
      length = std::min(length * 2, std::max<int64_t>(first * (kChunkGrowth - 1), kFirstChunkTiles));
    }
    return WAGGLE_BACKEND_OK;
  }

  bool cancelled() const { return args_.is_cancelled != nullptr && args_.is_cancelled(args_.cancel_context) != 0; }
  int32_t stop(waggle_text* error) {
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));  // nothing may read the caller's memory after we return
    return WAGGLE_BACKEND_CANCELLED;
  }

  State& state_;
  const waggle_topk_args& args_;
  cudaStream_t stream_;
  const MatrixView original_;
  const int64_t first_query_;
  Scan scan_ = {};
  Select select_ = {};
  const float* d_query_ = nullptr;
  unsigned* d_counts_ = nullptr;
  unsigned long long* d_lists_ = nullptr;
  unsigned long long* d_best_ = nullptr;
  unsigned long long* d_bad_row_ = nullptr;
  unsigned long long* d_rescored_ = nullptr;
  int32_t* d_overflow_ = nullptr;
};

}  // namespace

int32_t topk_on_device(State& state, const MatrixView& matrix, waggle_topk_args& args, waggle_text* error) {
  if (args.k < 1 || args.k > kMaxK || args.n_queries < 0) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  args.n_in_doubt = 0;
  args.n_rescored = 0;
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  std::vector<int32_t> few;
  const bool gathered =
      args.filter != nullptr && args.filter_stride == 0 && few_allowed_rows(args.filter, matrix.n_rows, &few);
  std::vector<unsigned long long> best;
  for (int64_t first = 0; first < args.n_queries; first += kQueriesAtOnce) {
    const int n = static_cast<int>(std::min(kQueriesAtOnce, args.n_queries - first));
    state.staging.reset();
    unsigned long long bad_row = kNoKey;
    Search search(state, matrix, args, first, n, state.stream.get());
    WAGGLE_TRY(search.run(gathered ? &few : nullptr, &best, &args.n_rescored, &args.n_in_doubt, &bad_row, error));
    if (bad_row != kNoKey) {
      return fail(error, WAGGLE_BACKEND_NOT_FINITE, "the score of matrix row %llu overflows", bad_row);
    }
    for (size_t i = 0; i < best.size(); ++i) {
      const bool present = best[i] != kNoKey;
      const size_t at = static_cast<size_t>(first) * static_cast<size_t>(args.k) + i;
      args.scores[at] = present ? host_score_of(best[i]) : -std::numeric_limits<float>::infinity();
      args.rows[at] = present ? static_cast<int32_t>(best[i] & 0xffffffffu) : -1;
    }
  }
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
