// What training does per row: gradients and losses, the order of rows, sums of leaves, scores. Memory bound, all of it.
#include "cuda/ops/trees_fit.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"

namespace waggle::cuda {

namespace {

using cpu::FitGradient;
using cpu::FitPenalty;

#define WAGGLE_FIT_INLINE __device__ inline
#include "cpu/simd/trees_fit_math.inc"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChunkRows = WAGGLE_FIT_CHUNK;
constexpr int kChunkWords = kChunkRows / 32;
constexpr int kLogisticLanes = 8;  // partial sums of a chunk's loss, as logistic_kernel of the CPU has them
constexpr int64_t kUploadBytes = int64_t{64} << 20;

__device__ inline int64_t row_at(const Stretch& stretch, uint32_t i) {
  return stretch.d_rows != nullptr ? static_cast<int64_t>(stretch.d_rows[stretch.first + i])
                                   : static_cast<int64_t>(stretch.first) + i;
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>(std::max<int64_t>(1, (n + kThreads - 1) / kThreads)); }

// ---- bins -----------------------------------------------------------------------------------------------------------

// Grid: values / 256; a byte each, from [count × n_block] to its group's rows.
__global__ void place_kernel(const unsigned char* d_part, int64_t first_row, int64_t count, int n_block,
                             int first_feature, int64_t n_rows, unsigned char* d_bins) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count * n_block) return;
  const int64_t row = first_row + i / n_block;
  const int feature = first_feature + static_cast<int>(i % n_block);
  d_bins[(feature / kGroupFeatures * n_rows + row) * kGroupFeatures + feature % kGroupFeatures] = d_part[i];
}

// ---- gradients ------------------------------------------------------------------------------------------------------

struct RowColumns {
  const double* d_y;
  const double* d_trials;
  const double* d_weights;
  const double* d_scores;
  int64_t n_rows;
  int objective;
  double quantile;
};

// Grid: a block of 256 threads per chunk of 4,096 rows; 32 KiB of shared memory hold the rows' losses, which few
// threads then add in the CPU's order while other blocks read. d_summary: bits of the largest |g|, the largest and the
// least h.
__global__ void __launch_bounds__(kThreads, 4)
    gradients_kernel(const RowColumns columns, FitGradient* d_gradients, double* d_losses, unsigned* d_summary) {
  WAGGLE_DYNAMIC_SHARED(shared);
  double* losses = reinterpret_cast<double*>(shared);
  __shared__ double lane_sums[kLogisticLanes];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kChunkRows;
  const int count = static_cast<int>(min(static_cast<int64_t>(kChunkRows), columns.n_rows - first));
  float g_most = 0;
  float h_most = 0;
  float h_least = 3.402823466e38f;
  for (int i = thread; i < count; i += kThreads) {
    const int64_t row = first + i;
    const double s = columns.d_scores[row];
    const double y = columns.d_y[row];
    const double w = columns.d_weights != nullptr ? columns.d_weights[row] : 1.0;
    RowTerms of;
    switch (columns.objective) {
      case WAGGLE_OBJECTIVE_LOGISTIC:
        of = logistic_row(s, y, columns.d_trials != nullptr ? columns.d_trials[row] : 1.0, w);
        break;
      case WAGGLE_OBJECTIVE_POISSON:
        of = poisson_row(s, y, w);
        break;
      case WAGGLE_OBJECTIVE_QUANTILE:
        of = quantile_row(s, y, w, columns.quantile);
        break;
      default:
        of = squared_row(s, y, w);
        break;
    }
    d_gradients[row] = {of.g, of.h};
    losses[i] = of.loss;
    const float size = of.g < 0 ? -of.g : of.g;
    g_most = size > g_most ? size : g_most;
    h_most = of.h > h_most ? of.h : h_most;
    h_least = of.h < h_least ? of.h : h_least;
  }
  for (int step = 16; step > 0; step /= 2) {
    const float g = __shfl_xor_sync(kFullWarp, g_most, step);
    const float h = __shfl_xor_sync(kFullWarp, h_most, step);
    const float least = __shfl_xor_sync(kFullWarp, h_least, step);
    g_most = g > g_most ? g : g_most;
    h_most = h > h_most ? h : h_most;
    h_least = least < h_least ? least : h_least;
  }
  if (thread % 32 == 0) {  // none is negative: their bits are in the order of the numbers
    atomicMax(d_summary, __float_as_uint(g_most));
    atomicMax(d_summary + 1, __float_as_uint(h_most));
    atomicMin(d_summary + 2, __float_as_uint(h_least));
  }
  __syncthreads();
  const bool in_lanes = columns.objective == WAGGLE_OBJECTIVE_LOGISTIC;
  if (thread < kLogisticLanes) {
    double sum = 0;
    if (in_lanes) {
      for (int i = thread; i < count; i += kLogisticLanes) sum += losses[i];
    } else if (thread == 0) {
      for (int i = 0; i < count; ++i) sum += losses[i];
    }
    lane_sums[thread] = sum;
  }
  __syncthreads();
  if (thread != 0) return;
  const double* l = lane_sums;
  d_losses[blockIdx.x] = in_lanes ? ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7])) : l[0];
}

// Grid: rows / 256.
__global__ void quantise_kernel(const FitGradient* d_gradients, int64_t n_rows, float g_scale, float h_scale,
                                Quantised* d_quantised) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n_rows) return;
  const FitGradient of = d_gradients[i];
  d_quantised[i] = {__float2int_rn(of.g * g_scale), __float2int_rn(of.h * h_scale)};
}

// Grid: any number of blocks of 256 threads, which share the rows. d_totals: sums of g and h.
__global__ void totals_kernel(const Stretch rows, const Quantised* d_quantised, unsigned long long* d_totals) {
  long long g = 0;
  long long h = 0;
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < rows.count; i += step) {
    const Quantised of = d_quantised[row_at(rows, i)];
    g += of.g;
    h += of.h;
  }
  for (int by = 16; by > 0; by /= 2) {
    g += __shfl_xor_sync(kFullWarp, g, by);
    h += __shfl_xor_sync(kFullWarp, h, by);
  }
  if (threadIdx.x % 32 == 0) {
    atomicAdd(d_totals, static_cast<unsigned long long>(g));
    atomicAdd(d_totals + 1, static_cast<unsigned long long>(h));
  }
}

// ---- the order of the rows ------------------------------------------------------------------------------------------

// A node whose rows are parted, or all rows, of which those drawn are kept.
struct Part {
  Stretch rows;
  const unsigned char* d_slots;  // of the feature: row r at 32 · r; null: rows are drawn
  uint32_t* d_to;                // position begin is d_to[rows.first]
  uint32_t left[8];
  uint32_t first_unit;
  uint32_t n_units;
};

struct Draw {
  uint64_t seed;
  uint64_t round;
  double share;
};

// At most 4,096 rows of a part.
struct PartUnit {
  uint32_t part;
  uint32_t offset;
};

__device__ inline uint32_t unit_count(const Part& part, const PartUnit& unit) {
  return min(part.rows.count - unit.offset, static_cast<uint32_t>(kChunkRows));
}

// Grid: a block of 256 threads per unit. d_masks [units × 128]: bit i % 32 of word i / 32 says that row i goes left.
__global__ void __launch_bounds__(kThreads) decide_kernel(const Part* d_parts, const PartUnit* d_units, const Draw draw,
                                                          uint32_t* d_masks, uint32_t* d_counts) {
  __shared__ uint32_t left[8];
  __shared__ uint32_t n_left;
  const int thread = static_cast<int>(threadIdx.x);
  const PartUnit unit = d_units[blockIdx.x];
  const Part* part = d_parts + unit.part;
  if (thread < 8) left[thread] = part->left[thread];
  if (thread == 0) n_left = 0;
  __syncthreads();
  const Stretch rows = part->rows;
  const unsigned char* d_slots = part->d_slots;
  WAGGLE_IS_GLOBAL(d_slots);
  const uint32_t count = unit_count(*part, unit);
  uint32_t own = 0;
  constexpr int kAtOnce = 4;
  for (uint32_t i0 = 0; i0 < count; i0 += kThreads * kAtOnce) {
    int64_t row[kAtOnce];
    uint32_t slot[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const uint32_t i = i0 + static_cast<uint32_t>(k * kThreads + thread);
      row[k] = i < count ? row_at(rows, unit.offset + i) : -1;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      slot[k] = row[k] >= 0 && d_slots != nullptr ? d_slots[row[k] * kGroupFeatures] : 0;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      bool goes_left = row[k] >= 0;
      if (d_slots != nullptr) {
        goes_left = goes_left && ((left[slot[k] / 32] >> (slot[k] % 32)) & 1u) != 0;
      } else {
        goes_left = goes_left && in_row_sample(draw.seed, draw.round, static_cast<uint64_t>(row[k]), draw.share);
      }
      const uint32_t mask = __ballot_sync(kFullWarp, goes_left ? 1 : 0);
      const uint32_t word = (i0 + static_cast<uint32_t>(k * kThreads + thread)) / 32;
      if (thread % 32 == 0 && word < kChunkWords) {
        d_masks[static_cast<size_t>(blockIdx.x) * kChunkWords + word] = mask;
        own += static_cast<uint32_t>(__popc(mask));
      }
    }
  }
  if (thread % 32 == 0) atomicAdd(&n_left, own);
  __syncthreads();
  if (thread == 0) d_counts[blockIdx.x] = n_left;
}

// What the threads before this one have, all threads of the block; sums [8] are shared.
__device__ inline uint32_t before_in_block(uint32_t value, uint32_t* sums, uint32_t* total) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  uint32_t up_to = value;
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(kFullWarp, up_to, static_cast<unsigned>(step));
    if (lane >= step) up_to += other;
  }
  __syncthreads();  // sums may still be read
  if (lane == 31) sums[warp] = up_to;
  __syncthreads();
  uint32_t before = up_to - value;
  uint32_t all = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += sums[w];
    all += sums[w];
  }
  *total = all;
  return before;
}

// Grid: a block of 256 threads per part. Counts of units become what their part has before them.
__global__ void __launch_bounds__(kThreads)
    offsets_kernel(const Part* d_parts, uint32_t* d_counts, uint32_t* d_n_left) {
  __shared__ uint32_t sums[kWarps];
  const uint32_t first = d_parts[blockIdx.x].first_unit;
  const uint32_t n = d_parts[blockIdx.x].n_units;
  uint32_t before = 0;
  for (uint32_t i0 = 0; i0 < n; i0 += kThreads) {
    const uint32_t i = i0 + threadIdx.x;
    uint32_t total = 0;
    const uint32_t in_tile = before_in_block(i < n ? d_counts[first + i] : 0, sums, &total);
    if (i < n) d_counts[first + i] = before + in_tile;
    before += total;
  }
  if (threadIdx.x == 0) d_n_left[blockIdx.x] = before;
}

// Grid: a block of 256 threads per unit. Where only those drawn are kept, the others go nowhere.
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const Part* d_parts, const PartUnit* d_units, const uint32_t* d_masks, const uint32_t* d_before,
                   const uint32_t* d_n_left) {
  __shared__ uint32_t sums[kWarps];
  __shared__ uint32_t masks[kChunkWords];
  __shared__ uint32_t ranks[kChunkWords];
  const int thread = static_cast<int>(threadIdx.x);
  const PartUnit unit = d_units[blockIdx.x];
  const Part* part = d_parts + unit.part;
  const Stretch rows = part->rows;
  const bool draws = part->d_slots == nullptr;
  const uint32_t count = unit_count(*part, unit);
  const uint32_t n_words = (count + 31) / 32;
  uint32_t mask = 0;
  if (static_cast<uint32_t>(thread) < n_words) {
    mask = d_masks[static_cast<size_t>(blockIdx.x) * kChunkWords + static_cast<size_t>(thread)];
  }
  uint32_t total = 0;
  const uint32_t rank = before_in_block(static_cast<uint32_t>(__popc(mask)), sums, &total);
  if (thread < kChunkWords) {
    masks[thread] = mask;
    ranks[thread] = rank;
  }
  __syncthreads();
  const uint32_t before = d_before[blockIdx.x];
  uint32_t* to_left = part->d_to + rows.first + before;
  uint32_t* to_right = part->d_to + rows.first + d_n_left[unit.part] + (unit.offset - before);
  for (uint32_t i = static_cast<uint32_t>(thread); i < count; i += kThreads) {
    const uint32_t word = masks[i / 32];
    const uint32_t bit = i % 32;
    const uint32_t lefts = ranks[i / 32] + static_cast<uint32_t>(__popc(word & ((1u << bit) - 1)));
    const uint32_t row = static_cast<uint32_t>(row_at(rows, unit.offset + i));
    if (((word >> bit) & 1u) != 0) {
      to_left[lefts] = row;
    } else if (!draws) {
      to_right[i - lefts] = row;
    }
  }
}

// ---- leaves ---------------------------------------------------------------------------------------------------------

// At most 4,096 rows of a leaf.
struct LeafUnit {
  Stretch rows;
  uint32_t leaf;
  double value;
};

// Grid: a block of 256 threads per unit; 32 KiB of shared memory. Two threads add, in the order of the rows.
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const LeafUnit* d_units, const FitGradient* d_gradients, double* d_sums) {
  WAGGLE_DYNAMIC_SHARED(shared);
  float* values = reinterpret_cast<float*>(shared);  // g, then h
  const int thread = static_cast<int>(threadIdx.x);
  const Stretch rows = d_units[blockIdx.x].rows;
  for (uint32_t i = static_cast<uint32_t>(thread); i < rows.count; i += kThreads) {
    const FitGradient of = d_gradients[row_at(rows, i)];
    values[i] = of.g;
    values[kChunkRows + i] = of.h;
  }
  __syncthreads();
  if (thread != 0 && thread != 32) return;
  const float* from = values + (thread == 0 ? 0 : kChunkRows);
  double sum = 0;
#pragma unroll 8
  for (uint32_t i = 0; i < rows.count; ++i) sum += static_cast<double>(from[i]);
  d_sums[2 * static_cast<size_t>(blockIdx.x) + (thread == 0 ? 0 : 1)] = sum;
}

// Grid: a block of 256 threads per unit.
__global__ void update_kernel(const LeafUnit* d_units, double* d_scores) {
  const LeafUnit unit = d_units[blockIdx.x];
  for (uint32_t i = threadIdx.x; i < unit.rows.count; i += kThreads) {
    double* at = d_scores + row_at(unit.rows, i);
    *at = *at + unit.value;
  }
}

// Grid: rows / 256. Rows that were not drawn walk down the tree.
__global__ void walk_kernel(const waggle_fit_branch* d_branches, const double* d_values, const unsigned char* d_bins,
                            int64_t n_rows, const Draw draw, double* d_scores) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= n_rows || in_row_sample(draw.seed, draw.round, static_cast<uint64_t>(row), draw.share)) return;
  const waggle_fit_branch* at = d_branches;
  while (at->feature >= 0) {
    const int feature = at->feature;
    const unsigned slot = d_bins[(feature / kGroupFeatures * n_rows + row) * kGroupFeatures + feature % kGroupFeatures];
    at = d_branches + (((at->left_slots[slot / 64] >> (slot % 64)) & 1u) != 0 ? at->left : at->right);
  }
  d_scores[row] = d_scores[row] + d_values[at->left];
}

// ---- quantiles of leaves --------------------------------------------------------------------------------------------

// Bits of a double in the order of the numbers.
__device__ inline unsigned long long ordered(double x) {
  const double plus = x + 0.0;  // −0 is 0
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &plus, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | (1ull << 63);
}

// Grid: a block of 256 threads per unit. d_keys lie as the rows do.
__global__ void residuals_kernel(const LeafUnit* d_units, const double* d_y, const double* d_scores,
                                 unsigned long long* d_keys) {
  const Stretch rows = d_units[blockIdx.x].rows;
  for (uint32_t i = threadIdx.x; i < rows.count; i += kThreads) {
    const int64_t row = row_at(rows, i);
    d_keys[rows.first + i] = ordered(d_y[row] - d_scores[row]);
  }
}

// What is known of a leaf's quantile: its upper digits, and its place among the residuals that share them.
struct Search {
  unsigned long long prefix;
  unsigned long long rank;  // from 1
};

// Grid: a block of 256 threads per unit. Counts residuals by the digit below the known ones.
__global__ void digits_kernel(const LeafUnit* d_units, const unsigned long long* d_keys, const Search* d_searches,
                              int shift, uint32_t* d_counts) {
  __shared__ uint32_t counts[256];
  const int thread = static_cast<int>(threadIdx.x);
  counts[thread] = 0;
  __syncthreads();
  const LeafUnit unit = d_units[blockIdx.x];
  const unsigned long long known = shift == 56 ? 0 : d_searches[unit.leaf].prefix >> (shift + 8);
  for (uint32_t i = static_cast<uint32_t>(thread); i < unit.rows.count; i += kThreads) {
    const unsigned long long key = d_keys[unit.rows.first + i];
    if (shift == 56 || key >> (shift + 8) == known) atomicAdd(counts + ((key >> shift) & 255u), 1u);
  }
  __syncthreads();
  if (counts[thread] != 0) atomicAdd(d_counts + static_cast<size_t>(unit.leaf) * 256 + thread, counts[thread]);
}

// Grid: a warp per leaf, which finds the digit that its place falls into; clears the counts.
__global__ void digit_kernel(uint32_t* d_counts, int shift, Search* d_searches) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t* counts = d_counts + static_cast<size_t>(blockIdx.x) * 256 + lane * 8;
  Search search = d_searches[blockIdx.x];
  unsigned long long own = 0;
  for (int k = 0; k < 8; ++k) own += counts[k];
  unsigned long long up_to = own;
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(kFullWarp, up_to, static_cast<unsigned>(step));
    if (lane >= step) up_to += other;
  }
  unsigned long long before = up_to - own;
  if (before < search.rank && search.rank <= up_to) {
    int digit = 0;
    while (before + counts[digit] < search.rank) before += counts[digit++];
    search.prefix |= static_cast<unsigned long long>(lane * 8 + digit) << shift;
    search.rank -= before;
    d_searches[blockIdx.x] = search;
  }
  __syncwarp();
  for (int k = 0; k < 8; ++k) counts[k] = 0;
}

// ---- on the host ----------------------------------------------------------------------------------------------------

int32_t upload_bins(State& state, const waggle_fit_args& args, waggle_fit& fit, waggle_text* error) {
  const cudaStream_t s = state.stream.get();
  const size_t words = static_cast<size_t>(fit.n_groups) * static_cast<size_t>(fit.n_rows) * kGroupWords;
  WAGGLE_TRY(fit.d_bins.allocate(words, error));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(fit.d_bins.get(), 0, words * 4, s));
  const int64_t part = std::min(kUploadBytes, fit.n_rows * std::min<int64_t>(fit.n_features, kUploadBytes));
  unsigned char* d_part = nullptr;
  WAGGLE_TRY(state.scratch.take(&d_part, part, error));
  for (int32_t b = 0; b < args.n_blocks; ++b) {
    const waggle_fit_block& block = args.blocks[b];
    const int64_t rows_at_once = std::max<int64_t>(1, part / block.n_features);
    for (int64_t first = 0; first < fit.n_rows; first += rows_at_once) {
      if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) {
        WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
        return WAGGLE_BACKEND_CANCELLED;
      }
      const int64_t rows = std::min(rows_at_once, fit.n_rows - first);
      const int64_t bytes = rows * block.n_features;
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_part, block.bins + first * block.n_features, static_cast<size_t>(bytes),
                                        cudaMemcpyHostToDevice, s));
      WAGGLE_LAUNCH(place_kernel, dim3(blocks_for(bytes)), dim3(kThreads), 0, s, d_part, first, rows, block.n_features,
                    block.first_feature, fit.n_rows, reinterpret_cast<unsigned char*>(fit.d_bins.get()));
      WAGGLE_CUDA_CHECK(cudaGetLastError());
    }
  }
  return WAGGLE_BACKEND_OK;
}

Draw draw_of(const waggle_fit& fit) { return {fit.seed, fit.round, fit.row_sample}; }

// Parts rows as the parts say; n_left [parts].
int32_t part_rows(State& state, const waggle_fit& fit, std::vector<Part>& parts, uint32_t* n_left, waggle_text* error) {
  const cudaStream_t s = state.stream.get();
  std::vector<PartUnit> units;
  for (size_t p = 0; p < parts.size(); ++p) {
    parts[p].first_unit = static_cast<uint32_t>(units.size());
    for (int64_t at = 0; at < parts[p].rows.count; at += kChunkRows) {
      units.push_back({static_cast<uint32_t>(p), static_cast<uint32_t>(at)});
    }
    parts[p].n_units = static_cast<uint32_t>(units.size()) - parts[p].first_unit;
  }
  const int64_t n_parts = static_cast<int64_t>(parts.size());
  const int64_t n_units = static_cast<int64_t>(units.size());
  Part* d_parts = nullptr;
  PartUnit* d_units = nullptr;
  uint32_t* d_masks = nullptr;
  uint32_t* d_counts = nullptr;
  uint32_t* d_n_left = nullptr;
  WAGGLE_TRY(send(state, parts, &d_parts, error));
  WAGGLE_TRY(send(state, units, &d_units, error));
  WAGGLE_TRY(state.scratch.take(&d_masks, n_units * kChunkWords, error));
  WAGGLE_TRY(state.scratch.take(&d_counts, n_units, error));
  WAGGLE_TRY(state.scratch.take(&d_n_left, n_parts, error));
  const dim3 grid(static_cast<unsigned>(n_units));
  if (n_units > 0) {
    WAGGLE_LAUNCH(decide_kernel, grid, dim3(kThreads), 0, s, d_parts, d_units, draw_of(fit), d_masks, d_counts);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
  }
  WAGGLE_LAUNCH(offsets_kernel, dim3(static_cast<unsigned>(n_parts)), dim3(kThreads), 0, s, d_parts, d_counts,
                d_n_left);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  if (n_units > 0) {
    WAGGLE_LAUNCH(scatter_kernel, grid, dim3(kThreads), 0, s, d_parts, d_units, d_masks, d_counts, d_n_left);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
  }
  return receive(state, d_n_left, n_parts, n_left, error);
}

std::vector<LeafUnit> leaf_units(const waggle_fit& fit, const waggle_fit_leaf* leaves, int64_t n_leaves) {
  std::vector<LeafUnit> units;
  for (int64_t l = 0; l < n_leaves; ++l) {
    const waggle_fit_leaf& leaf = leaves[l];
    for (int64_t at = leaf.begin; at < leaf.end; at += kChunkRows) {
      units.push_back({fit.stretch(at, std::min<int64_t>(leaf.end, at + kChunkRows), leaf.depth),
                       static_cast<uint32_t>(l), leaf.value});
    }
  }
  return units;
}

// The smallest residual up to which at least the quantile of a leaf's rows lies, a byte of it after the other.
int32_t find_quantiles(State& state, const waggle_fit& fit, waggle_fit_leaf* leaves, int64_t n_leaves,
                       waggle_text* error) {
  const cudaStream_t s = state.stream.get();
  const std::vector<LeafUnit> units = leaf_units(fit, leaves, n_leaves);
  std::vector<Search> searches(static_cast<size_t>(n_leaves));
  for (int64_t l = 0; l < n_leaves; ++l) {
    const double wanted = fit.quantile * static_cast<double>(leaves[l].end - leaves[l].begin);
    searches[static_cast<size_t>(l)] = {0, static_cast<unsigned long long>(std::max(1.0, std::ceil(wanted)))};
  }
  LeafUnit* d_units = nullptr;
  Search* d_searches = nullptr;
  uint32_t* d_counts = nullptr;
  WAGGLE_TRY(send(state, units, &d_units, error));
  WAGGLE_TRY(send(state, searches, &d_searches, error));
  WAGGLE_TRY(state.scratch.take(&d_counts, n_leaves * 256, error));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_counts, 0, static_cast<size_t>(n_leaves) * 256 * 4, s));
  if (!units.empty()) {
    const dim3 grid(static_cast<unsigned>(units.size()));
    WAGGLE_LAUNCH(residuals_kernel, grid, dim3(kThreads), 0, s, d_units, fit.d_y.get(), fit.d_scores.get(),
                  fit.d_keys.get());
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    for (int shift = 56; shift >= 0; shift -= 8) {
      WAGGLE_LAUNCH(digits_kernel, grid, dim3(kThreads), 0, s, d_units, fit.d_keys.get(), d_searches, shift, d_counts);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
      WAGGLE_LAUNCH(digit_kernel, dim3(static_cast<unsigned>(n_leaves)), dim3(32), 0, s, d_counts, shift, d_searches);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
    }
  }
  WAGGLE_TRY(receive(state, d_searches, n_leaves, searches.data(), error));
  for (int64_t l = 0; l < n_leaves; ++l) {
    const unsigned long long key = searches[static_cast<size_t>(l)].prefix;
    const unsigned long long bits = (key >> 63) != 0 ? key & ~(1ull << 63) : ~key;
    double value = 0;
    static_assert(sizeof value == sizeof bits, "a double has 64 bits");
    if (leaves[l].end > leaves[l].begin) __builtin_memcpy(&value, &bits, sizeof value);
    leaves[l].value = value;
  }
  return WAGGLE_BACKEND_OK;
}

}  // namespace

int32_t open_fit(State& state, const waggle_fit_args& args, std::unique_ptr<waggle_fit>* out, waggle_text* error) {
  switch (args.objective) {
    case WAGGLE_OBJECTIVE_LOGISTIC:
    case WAGGLE_OBJECTIVE_SQUARED:
    case WAGGLE_OBJECTIVE_POISSON:
      break;
    case WAGGLE_OBJECTIVE_QUANTILE:
      if (args.weights == nullptr) break;
      return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "weighted quantiles of leaves are found on the CPU");
    default:
      return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "softmax and LambdaRank are trained on the CPU");
  }
  if (args.n_rows < 1 || args.n_rows > 0x7fffffff || args.n_features < 1) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  WAGGLE_TRY(begin_call(state, error));
  const cudaStream_t s = state.stream.get();
  auto fit = std::make_unique<waggle_fit>();
  fit->objective = args.objective;
  fit->quantile = args.quantile;
  fit->n_rows = args.n_rows;
  fit->n_features = args.n_features;
  fit->n_groups = (args.n_features + kGroupFeatures - 1) / kGroupFeatures;
  fit->rules.penalty.l1 = args.l1;
  fit->rules.penalty.l2 = args.l2;
  fit->rules.max_step = args.max_step;
  fit->rules.min_child_rows = args.min_child_rows;
  fit->features.assign(args.features, args.features + args.n_features);
  fit->place.assign(static_cast<size_t>(args.n_features), -1);
  fit->has_trials = args.trials != nullptr;
  fit->has_weights = args.weights != nullptr;
  const int64_t n = args.n_rows;
  const size_t size = static_cast<size_t>(n);
  WAGGLE_TRY(upload(fit->d_features, args.features, args.n_features, s, error));
  WAGGLE_TRY(upload(fit->d_y, args.y, n, s, error));
  if (fit->has_trials) WAGGLE_TRY(upload(fit->d_trials, args.trials, n, s, error));
  if (fit->has_weights) WAGGLE_TRY(upload(fit->d_weights, args.weights, n, s, error));
  WAGGLE_TRY(upload(fit->d_scores, args.scores, n, s, error));
  WAGGLE_TRY(fit->d_gradients.allocate(size, error));
  WAGGLE_TRY(fit->d_quantised.allocate(size, error));
  WAGGLE_TRY(fit->d_even.allocate(size, error));
  WAGGLE_TRY(fit->d_odd.allocate(size, error));
  WAGGLE_TRY(fit->d_used.allocate(static_cast<size_t>(args.n_features), error));
  if (args.objective == WAGGLE_OBJECTIVE_QUANTILE) WAGGLE_TRY(fit->d_keys.allocate(size, error));
  WAGGLE_TRY(upload_bins(state, args, *fit, error));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // the caller's arrays may go
  *out = std::move(fit);
  return WAGGLE_BACKEND_OK;
}

int32_t fit_gradients_on_device(State& state, waggle_fit& fit, waggle_fit_gradients_args& args, waggle_text* error) {
  WAGGLE_TRY(begin_call(state, error));
  const cudaStream_t s = state.stream.get();
  const int64_t n_chunks = (fit.n_rows + kChunkRows - 1) / kChunkRows;
  double* d_losses = nullptr;
  unsigned* d_summary = nullptr;
  WAGGLE_TRY(state.scratch.take(&d_losses, n_chunks, error));
  WAGGLE_TRY(send(state, std::vector<unsigned>{0, 0, 0x7f7fffffu}, &d_summary, error));
  const RowColumns columns = {fit.d_y.get(),
                              fit.has_trials ? fit.d_trials.get() : nullptr,
                              fit.has_weights ? fit.d_weights.get() : nullptr,
                              fit.d_scores.get(),
                              fit.n_rows,
                              fit.objective,
                              fit.quantile};
  WAGGLE_LAUNCH(gradients_kernel, dim3(static_cast<unsigned>(n_chunks)), dim3(kThreads), kChunkRows * sizeof(double), s,
                columns, fit.d_gradients.get(), d_losses, d_summary);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  WAGGLE_TRY(receive(state, d_losses, n_chunks, args.losses, error));
  float summary[3];
  WAGGLE_TRY(receive(state, reinterpret_cast<const float*>(d_summary), 3, summary, error));
  args.g_most = summary[0];
  args.h_most = summary[1];
  args.h_least = summary[2];
  return WAGGLE_BACKEND_OK;
}

int32_t fit_tree_on_device(State& state, waggle_fit& fit, waggle_fit_tree_args& args, waggle_text* error) {
  WAGGLE_TRY(begin_call(state, error));
  const cudaStream_t s = state.stream.get();
  fit.rules.penalty.g_unit = args.g_unit;
  fit.rules.penalty.h_unit = args.h_unit;
  fit.rules.h_least = args.h_least;
  fit.rules.bounded = args.bounded != 0;
  fit.sampled = args.row_sample < 1;
  fit.row_sample = args.row_sample;
  fit.seed = args.seed;
  fit.round = args.round;
  fit.used.clear();
  for (int32_t f = 0; f < fit.n_features; ++f) {
    const waggle_fit_feature& feature = fit.features[static_cast<size_t>(f)];
    if (args.features[f] != 0 && feature.n_bins + feature.has_missing >= 2) fit.used.push_back(f);
  }
  // Neighbours in memory are searched side by side.
  std::stable_sort(fit.used.begin(), fit.used.end(), [](int32_t a, int32_t b) {
    return a / kGroupFeatures != b / kGroupFeatures ? a / kGroupFeatures < b / kGroupFeatures
                                                    : column_of(a) < column_of(b);
  });
  std::fill(fit.place.begin(), fit.place.end(), -1);
  for (size_t i = 0; i < fit.used.size(); ++i) fit.place[static_cast<size_t>(fit.used[i])] = static_cast<int32_t>(i);
  int32_t* d_used = nullptr;
  WAGGLE_TRY(send(state, fit.used, &d_used, error));
  if (!fit.used.empty()) {
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(fit.d_used.get(), d_used, fit.used.size() * sizeof(int32_t), cudaMemcpyDeviceToDevice, s));
  }
  WAGGLE_LAUNCH(quantise_kernel, dim3(blocks_for(fit.n_rows)), dim3(kThreads), 0, s, fit.d_gradients.get(), fit.n_rows,
                args.g_scale, args.h_scale, fit.d_quantised.get());
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  args.n_rows = fit.n_rows;
  if (fit.sampled) {
    std::vector<Part> all(1);
    all[0] = {};
    all[0].rows = {nullptr, 0, static_cast<uint32_t>(fit.n_rows)};
    all[0].d_to = fit.d_even.get();
    uint32_t n_drawn = 0;
    WAGGLE_TRY(part_rows(state, fit, all, &n_drawn, error));
    args.n_rows = n_drawn;
  }
  unsigned long long* d_totals = nullptr;
  WAGGLE_TRY(state.scratch.take(&d_totals, 2, error));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_totals, 0, 16, s));
  const unsigned blocks = std::min(blocks_for(args.n_rows), static_cast<unsigned>(state.multiprocessors) * 8);
  WAGGLE_LAUNCH(totals_kernel, dim3(blocks), dim3(kThreads), 0, s, fit.stretch(0, args.n_rows, 0),
                fit.d_quantised.get(), d_totals);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  unsigned long long totals[2];
  WAGGLE_TRY(receive(state, d_totals, 2, totals, error));
  args.g = static_cast<double>(static_cast<long long>(totals[0]));
  args.h = static_cast<double>(static_cast<long long>(totals[1]));
  return WAGGLE_BACKEND_OK;
}

int32_t fit_parts_on_device(State& state, waggle_fit& fit, waggle_fit_parts_args& args, waggle_text* error) {
  if (args.n_parts == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_TRY(begin_call(state, error));
  std::vector<Part> parts(static_cast<size_t>(args.n_parts));
  for (int64_t p = 0; p < args.n_parts; ++p) {
    const waggle_fit_part& wanted = args.parts[p];
    Part& part = parts[static_cast<size_t>(p)];
    part = {};
    part.rows = fit.stretch(wanted.begin, wanted.end, wanted.depth);
    const int64_t group = wanted.feature / kGroupFeatures;
    part.d_slots = reinterpret_cast<const unsigned char*>(fit.d_bins.get()) + group * fit.n_rows * kGroupFeatures +
                   wanted.feature % kGroupFeatures;
    part.d_to = (wanted.depth & 1) == 0 ? fit.d_odd.get() : fit.d_even.get();
    for (int w = 0; w < 8; ++w) part.left[w] = static_cast<uint32_t>(wanted.left[w / 2] >> (w % 2 * 32));
  }
  std::vector<uint32_t> n_left(parts.size());
  WAGGLE_TRY(part_rows(state, fit, parts, n_left.data(), error));
  for (size_t p = 0; p < parts.size(); ++p) args.parts[p].n_left = n_left[p];
  return WAGGLE_BACKEND_OK;
}

int32_t fit_leaves_on_device(State& state, waggle_fit& fit, waggle_fit_leaves_args& args, waggle_text* error) {
  WAGGLE_TRY(begin_call(state, error));
  if (fit.objective == WAGGLE_OBJECTIVE_QUANTILE) return find_quantiles(state, fit, args.leaves, args.n_leaves, error);
  const std::vector<LeafUnit> units = leaf_units(fit, args.leaves, args.n_leaves);
  if (units.empty()) return WAGGLE_BACKEND_OK;
  LeafUnit* d_units = nullptr;
  double* d_sums = nullptr;
  const int64_t n = static_cast<int64_t>(units.size());
  WAGGLE_TRY(send(state, units, &d_units, error));
  WAGGLE_TRY(state.scratch.take(&d_sums, 2 * n, error));
  WAGGLE_LAUNCH(sums_kernel, dim3(static_cast<unsigned>(n)), dim3(kThreads), 2 * kChunkRows * sizeof(float),
                state.stream.get(), d_units, fit.d_gradients.get(), d_sums);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return receive(state, d_sums, 2 * n, args.sums, error);
}

int32_t fit_update_on_device(State& state, waggle_fit& fit, waggle_fit_update_args& args, waggle_text* error) {
  WAGGLE_TRY(begin_call(state, error));
  const cudaStream_t s = state.stream.get();
  const std::vector<LeafUnit> units = leaf_units(fit, args.leaves, args.n_leaves);
  if (!units.empty()) {
    LeafUnit* d_units = nullptr;
    WAGGLE_TRY(send(state, units, &d_units, error));
    WAGGLE_LAUNCH(update_kernel, dim3(static_cast<unsigned>(units.size())), dim3(kThreads), 0, s, d_units,
                  fit.d_scores.get());
    WAGGLE_CUDA_CHECK(cudaGetLastError());
  }
  if (args.n_branches > 0) {
    std::vector<double> values;
    for (int64_t l = 0; l < args.n_leaves; ++l) values.push_back(args.leaves[l].value);
    double* d_values = nullptr;
    waggle_fit_branch* d_branches = nullptr;
    WAGGLE_TRY(send(state, values, &d_values, error));
    WAGGLE_TRY(send(state, std::vector<waggle_fit_branch>(args.branches, args.branches + args.n_branches), &d_branches,
                    error));
    WAGGLE_LAUNCH(walk_kernel, dim3(blocks_for(fit.n_rows)), dim3(kThreads), 0, s, d_branches, d_values,
                  reinterpret_cast<const unsigned char*>(fit.d_bins.get()), fit.n_rows, draw_of(fit),
                  fit.d_scores.get());
    WAGGLE_CUDA_CHECK(cudaGetLastError());
  }
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // what was sent may be overwritten by the next call
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
