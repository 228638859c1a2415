// Three kernels for three shapes: many queries on Hopper (wgmma, bulk copies), many queries elsewhere (mma.sync), one
// query (no tensor cores: memory is the limit).
//
// Traffic: the matrix once from device memory, once per 128 (Hopper) or 64 queries from L2.
#include "cuda/ops/scan.cuh"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/tensor_core.cuh"

namespace waggle::cuda {

namespace {

// The rare path: a row that passed the test of its query.
__device__ __forceinline__ void write_down(const Scan& scan, int query, int64_t row, float product) {
  if (!is_allowed(scan.d_filter, scan.filter_stride, query, static_cast<uint32_t>(row))) return;
  const unsigned at = atomicAdd(&scan.d_counts[query], 1u);
  if (at < static_cast<unsigned>(scan.listed)) {
    scan.d_lists[static_cast<int64_t>(query) * kListed + at] = entry_of(product, static_cast<uint32_t>(row));
  }
}

// As write_down, in two steps: the place is asked for at once and used when the next row comes, so that nobody waits
// for the atomic's answer.
struct Pending {
  unsigned long long entry = 0;
  unsigned at = 0;
  int query = -1;  // none
};

__device__ __forceinline__ void finish(const Scan& scan, Pending& pending) {
  if (pending.query >= 0 && pending.at < static_cast<unsigned>(scan.listed)) {
    scan.d_lists[static_cast<int64_t>(pending.query) * kListed + pending.at] = pending.entry;
  }
  pending.query = -1;
}

__device__ __forceinline__ void write_down_later(const Scan& scan, int query, int64_t row, float product,
                                                 Pending& pending) {
  if (!is_allowed(scan.d_filter, scan.filter_stride, query, static_cast<uint32_t>(row))) return;
  finish(scan, pending);
  pending.query = query;
  pending.entry = entry_of(product, static_cast<uint32_t>(row));
  pending.at = atomicAdd(&scan.d_counts[query], 1u);
}

__device__ __forceinline__ void write_in_place(const Scan& scan, int query, int64_t row, float product) {
  const int64_t tile = (row / kTileRows - scan.first_tile) / scan.tile_stride;
  scan.d_lists[static_cast<int64_t>(query) * kListed + tile * kTileRows + row % kTileRows] =
      entry_of(product, static_cast<uint32_t>(row));
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
template <Operand kType, bool kDense>
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

  for (int64_t tile = scan.first_tile + blockIdx.x * scan.tile_stride; tile < scan.end_tile;
       tile += gridDim.x * scan.tile_stride) {
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
            if constexpr (kDense) {
              write_in_place(scan, query, row, product);
            } else if (may_belong(product, row_side, scan.d_tests[query])) {
              write_down(scan, query, row, product);
            }
          }
        }
      }
    }
  }
}
// ---- scan by wgmma (sm_90) ------------------------------------------------------------------------------------------

constexpr int kWideQueries = 128;
// A producer's warpgroup and the consumers': two that take the tiles in turn, each alone or (kSplit) as two with half a
// tile each.
template <int kSplit>
constexpr int kWideThreads = 128 + 2 * kSplit * 128;
constexpr int kWideStages = 6;
constexpr int kWideHeader = 1024 + kWideQueries * static_cast<int>(sizeof(QueryTest));
constexpr int kMaxShared = 227 * 1024;
constexpr int kHalfRows = 64;  // rows of one wgmma
constexpr int kHalves = kTileRows / kHalfRows;
template <int kSplit>
constexpr int kThreadRows = 2 * kHalves / kSplit;  // of a tile: in each half t / 4 % 8 and 8 more
// What setmaxnreg may ask for: the block owns (65,536 / threads, rounded down to 8) · threads registers, 168 · 384 or
// 96 · 640. One that asks for more than it owns waits for ever.
template <int kSplit>
constexpr int kProducerRegisters = kSplit == 1 ? 40 : 32;
template <int kSplit>
constexpr int kConsumerRegisters = kSplit == 1 ? 232 : 112;
static_assert(128 * kProducerRegisters<1> + 256 * kConsumerRegisters<1> <= 168 * kWideThreads<1> &&
                  128 * kProducerRegisters<2> + 512 * kConsumerRegisters<2> <= 96 * kWideThreads<2>,
              "more registers than a block owns");

// Dynamic shared memory for n_blocks of depth: barriers, tests, the queries of the block, stages of rows.
constexpr int wide_shared(int n_blocks, int stages) {
  return 1024 + kWideHeader + n_blocks * kTileBytes + stages * kTileBytes;
}
int wide_stages(int n_blocks) {
  int stages = kWideStages;
  while (stages > 1 && wide_shared(n_blocks, stages) > kMaxShared) --stages;
  return wide_shared(n_blocks, stages) <= kMaxShared && stages >= 2 ? stages : 0;
}

#if defined(WAGGLE_HAS_WGMMA)

// What the test needs of a thread's rows: each row's factor, and of the rest the most any of them has. Testing with the
// most lets a few rows more through than testing each, and none less.
template <int kSplit>
struct RowsTest {
  float a[kThreadRows<kSplit>];
  float b = 0;
  float d = 0;
  float c = -INFINITY;
  bool always = false;  // a row without bounds
};

template <int kSplit>
__device__ __forceinline__ RowsTest<kSplit> rows_test(const Scan& scan, int64_t row0) {
  RowsTest<kSplit> test;
#pragma unroll
  for (int i = 0; i < kThreadRows<kSplit>; ++i) {
    // The facts are padded to whole tiles.
    const RowTest row =
        row_test(scan.metric, scan.matrix.d_facts[row0 + kHalfRows * (i / 2) + 8 * (i % 2)], scan.roundoff);
    test.a[i] = row.a;
    test.always = test.always || isnan(row.a);
    test.b = fmaxf(test.b, row.b);
    test.d = fmaxf(test.d, row.d);
    test.c = fmaxf(test.c, row.c);
  }
  return test;
}

// Grid: (row tiles in flight, groups of 128 queries); 384 threads: warpgroup 0 feeds blocks of rows through bulk copies
// into `stages` buffers; warpgroups 1 and 2 take the tiles in turn and multiply all 128 rows of theirs with the block's
// 128 queries, which stay in shared memory. They issue their products one after the other, so that one tests its scores
// while the other has the tensor cores. One block per multiprocessor; bound by the tensor cores.
// kSplit 2: 640 threads, where two warpgroups have half the rows of a tile each, so that twice as many warps hide what
// testing waits for.
template <Operand kType, int kSplit>
__global__ void __launch_bounds__(kWideThreads<kSplit>, 1) wide_scan_kernel(const Scan scan, int stages) {
  constexpr int kRows = kThreadRows<kSplit>;
  constexpr int kOwnHalves = kHalves / kSplit;
  constexpr int kConsumerWarps = 4 * kSplit;  // of a tile
  using Accumulator = typename OperandTraits<kType>::Accumulator;
  WAGGLE_DYNAMIC_SHARED(shared);
  PhaseBarrier* full = reinterpret_cast<PhaseBarrier*>(shared);
  PhaseBarrier* empty = full + kWideStages;
  PhaseBarrier* turns = empty + kWideStages;  // of the two consumers
  PhaseBarrier* queries_here = turns + 2;
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
      barrier_init(&empty[stage], kConsumerWarps);
    }
    barrier_init(&turns[0], kConsumerWarps);
    barrier_init(&turns[1], kConsumerWarps);
    barrier_init(queries_here, 1);
    barrier_init_fence();
  }
  for (int i = thread; i < kWideQueries; i += kWideThreads<kSplit>) {
    // A query that is not there passes no test. The tests below add in another order than may_belong: a little looser.
    QueryTest test = query0 + i < scan.n_queries ? scan.d_tests[query0 + i] : QueryTest{0, 0, 0, INFINITY};
    if (isfinite(test.t)) test.t -= 1e-6f * fabsf(test.t);
    tests[i] = test;
  }
  __syncthreads();

  if (group == 0) {
    registers_give<kProducerRegisters<kSplit>>();
    if (thread == 0) {
      barrier_arrive_expect(queries_here, static_cast<uint32_t>(n_blocks * kTileBytes));
      const unsigned char* d_queries = scan.d_query_tiles + static_cast<int64_t>(blockIdx.y) * n_blocks * kTileBytes;
      for (int block = 0; block < n_blocks; ++block) {
        copy_bulk(queries + block * kTileBytes, d_queries + static_cast<int64_t>(block) * kTileBytes, kTileBytes,
                  queries_here);
      }
      int stage = 0;
      int parity = 0;
      for (int64_t tile = scan.first_tile + blockIdx.x * scan.tile_stride; tile < scan.end_tile;
           tile += gridDim.x * scan.tile_stride) {
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
  } else {
    registers_take<kConsumerRegisters<kSplit>>();
    const int consumer = (group - 1) / kSplit;
    const int first_half = (group - 1) % kSplit;
    const int lane = thread % 32;
    const int in_group = thread % 128;
    int stage = 0;
    int parity = 0;
    const auto next_stage = [&] {
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    };
    if (consumer == 1) {
      for (int block = 0; block < n_blocks; ++block) next_stage();
    }
    barrier_wait(queries_here, 0);
    Accumulator sum[kOwnHalves][64];
#pragma unroll
    for (int half = 0; half < kOwnHalves; ++half) {
#pragma unroll
      for (int i = 0; i < 64; ++i) sum[half][i] = 0;
    }
    Pending pending;
    int turn = 0;
    const int64_t all_blocks = gridDim.x * scan.tile_stride;
    for (int64_t tile = scan.first_tile + blockIdx.x * scan.tile_stride + consumer * all_blocks; tile < scan.end_tile;
         tile += 2 * all_blocks) {
      const int64_t row0 = tile * kTileRows + first_half * kHalfRows + in_group / 32 * 16 + lane / 4;
      const RowsTest<kSplit> rows_side = rows_test<kSplit>(scan, row0);
      // The first consumer's first turn waits for nobody.
      barrier_wait(&turns[consumer], (turn + consumer + 1) & 1);
      ++turn;
      int last_stage = 0;
#pragma unroll
      for (int half = 0; half < kOwnHalves; ++half) hold_registers<kType>(sum[half]);
      for (int block = 0; block < n_blocks; ++block) {
        barrier_wait(&full[stage], parity);
        const unsigned char* rows = buffers + stage * kTileBytes + first_half * kHalfRows * kBlockBytes;
        warpgroup_fence();
#pragma unroll
        for (int step = 0; step < kBlockBytes / 32; ++step) {
          const uint64_t of_queries = matrix_descriptor(queries + block * kTileBytes + 32 * step);
          const bool go_on = block > 0 || step > 0;
#pragma unroll
          for (int half = 0; half < kOwnHalves; ++half) {
            warpgroup_multiply<kType>(sum[half], matrix_descriptor(rows + half * kHalfRows * kBlockBytes + 32 * step),
                                      of_queries, go_on);
          }
        }
        warpgroup_commit();
        if (block > 0) {
          warpgroup_wait<1>();
          __syncwarp();
          if (lane == 0) barrier_arrive(&empty[last_stage]);
        }
        last_stage = stage;
        next_stage();
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(&turns[consumer ^ 1]);
      warpgroup_wait<0>();
#pragma unroll
      for (int half = 0; half < kOwnHalves; ++half) hold_registers<kType>(sum[half]);
      if (lane == 0) barrier_arrive(&empty[last_stage]);
      for (int block = 0; block < n_blocks; ++block) next_stage();  // the other consumer's tile

#pragma unroll
      for (int part = 0; part < 4; ++part) {
        // 8 queries × 4 rows: first which queries any row may belong to, by few instructions and no branch.
        const auto product = [&](int at, int i) {
          const int place = 4 * (4 * part + at / 2) + 2 * (i % 2) + at % 2;
          return static_cast<float>(sum[i / 2][place]);
        };
        const auto query_of = [&](int at) { return 8 * (4 * part + at / 2) + 2 * (lane % 4) + at % 2; };
        const auto rest_of = [&](const QueryTest& test) {
          return fmaf(rows_side.b, test.x, fmaf(rows_side.d, test.y, rows_side.c * test.z)) - test.t;
        };
        unsigned found = rows_side.always ? 0xffu : 0;
#pragma unroll
        for (int at = 0; at < 8; ++at) {
          const float rest = rest_of(tests[query_of(at)]);
          float furthest = -INFINITY;
#pragma unroll
          for (int i = 0; i < kRows; ++i) furthest = max_or_nan(furthest, fmaf(product(at, i), rows_side.a[i], rest));
          found |= furthest < 0 ? 0u : 1u << at;  // NaN stays
        }
        // Then, rarely, which rows. One piece of code for all of them: as many pieces as products would not fit the
        // instruction cache.
        while (found != 0) {
          const int at = __ffs(static_cast<int>(found)) - 1;
          found &= found - 1;
          float products[kRows];
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            products[i] = product(0, i);
#pragma unroll
            for (int other = 1; other < 8; ++other) products[i] = at == other ? product(other, i) : products[i];
          }
          const int query = query_of(at);
          const float rest = rest_of(tests[query]);
          unsigned rows_found = 0;
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            const bool here = row0 + kHalfRows * (i / 2) + 8 * (i % 2) < scan.matrix.n_rows;
            const bool reaches = rows_side.always || !(fmaf(products[i], rows_side.a[i], rest) < 0);
            rows_found |= here && reaches && query0 + query < scan.n_queries ? 1u << i : 0u;
          }
          while (rows_found != 0) {
            const int i = __ffs(static_cast<int>(rows_found)) - 1;
            rows_found &= rows_found - 1;
            float here = products[0];
#pragma unroll
            for (int other = 1; other < kRows; ++other) here = i == other ? products[other] : here;
            write_down_later(scan, query0 + query, row0 + kHalfRows * (i / 2) + 8 * (i % 2), here, pending);
          }
        }
      }
      __syncwarp();
    }
    finish(scan, pending);
  }
}

#else

// Another target than sm_90a: has_registers() says so before it is launched.
template <Operand kType, int kSplit>
__global__ void wide_scan_kernel(const Scan, int) {
#if !defined(WAGGLE_CUDA_EMULATED)
  __trap();
#endif
}

#endif

// ---- scan for one query ---------------------------------------------------------------------------------------------

constexpr int kOneThreads = 256;

// Grid: row tiles in flight; 256 threads, a warp per 16 rows of the tile, 8 lanes per row with 16 bytes each; the query
// in shared memory (f32 for float types, bytes for int8); bound by memory: each byte of the matrix is read once, in
// pieces of 512 contiguous bytes per warp.
template <Operand kType, bool kDense>
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
  for (int64_t tile = scan.first_tile + blockIdx.x * scan.tile_stride; tile < scan.end_tile;
       tile += gridDim.x * scan.tile_stride) {
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
      if constexpr (kDense) {
        write_in_place(scan, 0, row, product);
      } else if (may_belong(product, row_test(scan.metric, scan.matrix.d_facts[row], scan.roundoff), test)) {
        write_down(scan, 0, row, product);
      }
    }
  }
}
// ---- launching ------------------------------------------------------------------------------------------------------

// WAGGLE_CUDA_SCAN=split: int8 tiles are shared by two warpgroups. It has not run on a device yet.
bool splits_tiles() {
  static const bool wanted = [] {
    const char* text = std::getenv("WAGGLE_CUDA_SCAN");
    return text != nullptr && std::strcmp(text, "split") == 0;
  }();
  return wanted;
}

// Whether the code that the driver loaded is that of sm_90a, and the compiler gave its threads what setmaxnreg shares
// out: with less it would wait for ever, and the code for another target is empty.
template <Operand kType, int kSplit>
bool has_registers() {
#if defined(WAGGLE_CUDA_EMULATED)
  return true;
#else
  static const bool enough = [] {
    cudaFuncAttributes attributes = {};
    if (cudaFuncGetAttributes(&attributes, wide_scan_kernel<kType, kSplit>) != cudaSuccess) {
      (void)cudaGetLastError();
      return false;
    }
    const int owned = (attributes.numRegs + 7) / 8 * 8 * kWideThreads<kSplit>;
    return owned >= 128 * kProducerRegisters<kSplit> + (kWideThreads<kSplit> - 128) * kConsumerRegisters<kSplit>;
  }();
  return enough;
#endif
}

template <Operand kType, int kSplit>
int32_t launch_wide(dim3 grid, int shared, const Scan& scan, int stages, cudaStream_t stream, waggle_text* error) {
  WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&wide_scan_kernel<kType, kSplit>), shared, error));
  WAGGLE_LAUNCH((wide_scan_kernel<kType, kSplit>), grid, dim3(kWideThreads<kSplit>), static_cast<size_t>(shared),
                stream, scan, stages);
  return WAGGLE_BACKEND_OK;
}

template <Operand kType, bool kDense>
int32_t launch_scan_of(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                       waggle_text* error) {
  const int64_t tiles = (scan.end_tile - scan.first_tile + scan.tile_stride - 1) / scan.tile_stride;
  if (tiles <= 0) return WAGGLE_BACKEND_OK;
  const int blocks = scan.matrix.n_blocks;
  if (d_query != nullptr) {
    const int shared = blocks * kBlockBytes * (kType == Operand::kS8 ? 1 : 4 / OperandTraits<kType>::kBytes);
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&scan_one_kernel<kType, kDense>), shared, error));
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(tiles, int64_t{state.multiprocessors} * 8)));
    WAGGLE_LAUNCH((scan_one_kernel<kType, kDense>), grid, dim3(kOneThreads), static_cast<size_t>(shared), stream, scan,
                  d_query);
  } else if (const int stages = state.has_wgmma && !kDense && has_registers<kType, 1>() ? wide_stages(blocks) : 0;
             stages > 0) {
    const int shared = wide_shared(blocks, stages);
    const int64_t groups = (scan.n_queries + kWideQueries - 1) / kWideQueries;
    // Blocks of one group of queries lie side by side, and all groups walk over the rows together: a tile comes from
    // device memory once and from L2 for the rest.
    const int64_t wide = std::max<int64_t>(1, state.multiprocessors / groups);
    const dim3 grid(static_cast<unsigned>(std::min(tiles, wide)), static_cast<unsigned>(groups));
    bool launched = false;
    if constexpr (kType == Operand::kS8) {
      if (splits_tiles() && has_registers<kType, 2>()) {
        WAGGLE_TRY((launch_wide<kType, 2>(grid, shared, scan, stages, stream, error)));
        launched = true;
      }
    }
    if (!launched) WAGGLE_TRY((launch_wide<kType, 1>(grid, shared, scan, stages, stream, error)));
  } else {
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&scan_kernel<kType, kDense>), kScanShared, error));
    const int64_t groups = (scan.n_queries + kScanQueries - 1) / kScanQueries;
    const int64_t wide = std::max<int64_t>(1, int64_t{state.multiprocessors} * 2 / groups);
    const dim3 grid(static_cast<unsigned>(std::min(tiles, wide)), static_cast<unsigned>(groups));
    WAGGLE_LAUNCH((scan_kernel<kType, kDense>), grid, dim3(kScanThreads), static_cast<size_t>(kScanShared), stream,
                  scan);
  }
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

template <Operand kType>
int32_t launch_scan_as(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                       waggle_text* error) {
  return scan.dense ? launch_scan_of<kType, true>(state, scan, d_query, stream, error)
                    : launch_scan_of<kType, false>(state, scan, d_query, stream, error);
}

}  // namespace

int32_t allow_shared_memory(const void* kernel, int bytes, waggle_text* error) {
  WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  return WAGGLE_BACKEND_OK;
}

int32_t launch_scan(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                    waggle_text* error) {
  switch (scan.matrix.dtype) {
    case WAGGLE_DTYPE_F16:
      return launch_scan_as<Operand::kF16>(state, scan, d_query, stream, error);
    case WAGGLE_DTYPE_BF16:
      return launch_scan_as<Operand::kBf16>(state, scan, d_query, stream, error);
    case WAGGLE_DTYPE_INT8:
      return launch_scan_as<Operand::kS8>(state, scan, d_query, stream, error);
    default:
      return launch_scan_as<Operand::kTf32>(state, scan, d_query, stream, error);
  }
}

}  // namespace waggle::cuda
