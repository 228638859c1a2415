// The first of a search's two steps: scores of a chunk of rows in low precision on the tensor cores, of which only the
// few rows that could still belong to the answer are written down, per query.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/matrix.hpp"
#include "cuda/ops/bounds.cuh"
#include "cuda/resources.hpp"

namespace waggle::cuda {

constexpr int kListed = 6144;  // rows that a query's list holds
constexpr int kMaxScanOneDim = 8192;

/// What a scan reads and writes.
struct Scan {
  MatrixView matrix;  // what is scanned: the matrix, or gathered rows of it
  const unsigned char* d_query_tiles;
  const QueryTest* d_tests;
  int32_t n_queries;
  int32_t metric;
  float roundoff;
  const uint8_t* d_filter;
  int64_t filter_stride;
  int64_t first_tile;  // of the chunk: every tile_stride-th tile of [first_tile, end_tile)
  int64_t end_tile;
  int64_t tile_stride;
  /// true: every row of the chunk, at its own place among them in the list, untested and unfiltered; d_counts stay as
  /// they are.
  bool dense;
  int32_t listed;               // kListed, or 0 to count only
  unsigned long long* d_lists;  // [n_queries × kListed] entries
  unsigned* d_counts;           // [n_queries], may end beyond `listed`: then the rest is lost
};

/// An entry of a list: the product ⟨stored q, stored x⟩ and the row as scanned.
__device__ inline unsigned long long entry_of(float product, uint32_t row) {
  return (static_cast<unsigned long long>(__float_as_uint(product)) << 32) | row;
}
__device__ inline float product_of_entry(unsigned long long entry) {
  return __uint_as_float(static_cast<unsigned>(entry >> 32));
}
__device__ inline uint32_t row_of_entry(unsigned long long entry) { return static_cast<uint32_t>(entry & 0xffffffffu); }

__device__ inline bool is_allowed(const uint8_t* d_filter, int64_t filter_stride, int query, uint32_t row) {
  if (d_filter == nullptr) return true;
  const uint8_t* bits = d_filter + static_cast<int64_t>(query) * filter_stride;
  return ((bits[row >> 3] >> (row & 7)) & 1) != 0;
}

/// d_query: the one query in f32, or null for the kernels that take many. A dense scan's chunk has at most kListed
/// rows.
int32_t launch_scan(const State& state, const Scan& scan, const float* d_query, cudaStream_t stream,
                    waggle_text* error);

int32_t allow_shared_memory(const void* kernel, int bytes, waggle_text* error);

}  // namespace waggle::cuda
