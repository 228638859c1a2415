// Histograms and the search for splits.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/trees_fit.cuh"

namespace waggle::cuda {

namespace {

using cpu::FitPenalty;
using cpu::kFitCategoryL2;
using cpu::kFitCategoryRows;
using cpu::kFitCategorySmooth;
using cpu::kFitGroupRows;
using cpu::kFitMaxSlots;
using cpu::kFitMostCategoriesLeft;
using cpu::kFitOneByOne;

#define WAGGLE_FIT_INLINE __device__ inline
#include "cpu/simd/trees_fit_math.inc"

constexpr int kBuildThreads = 512;
constexpr int kBuildWarps = kBuildThreads / 32;
constexpr int kRowsOfWarp = 4;
constexpr int kStep = kBuildWarps * kRowsOfWarp;  // rows that a block takes at a time
constexpr int kAtOnce = 4;                        // steps whose loads are under way together
// Sums of a block are 32 bits wide: 8,128 · 2¹⁸ < 2³¹.
constexpr int kBuildRows = 8128;
static_assert(static_cast<int64_t>(kBuildRows) * cpu::kFitLevels < (int64_t{1} << 31), "sums fit");
constexpr size_t kBuildBytes = 2 * kGroupSums * sizeof(int);  // 64 KiB

constexpr int kCountThreads = 256;
constexpr int kSearchWarps = 4;  // of a block: the columns of 32 bytes of a histogram
constexpr int kSlotsOfLane = kFitMaxSlots / 32;
constexpr int64_t kSlabBytes = int64_t{32} << 20;

struct BuildUnit {
  Stretch rows;
  unsigned long long* d_histogram;  // [groups × 2 × 256 × 32]
};

// Grid: a block of 512 threads per unit and group, groups of a unit side by side; 64 KiB of shared memory, three blocks
// to a multiprocessor.
//
// Eight lanes share a row, a word (four features) each, so a warp takes four rows at a time. They read 32 whole bytes
// of a row. Adding goes byte by byte, each row beginning at another byte: the 32 lanes are then at 32 different
// columns, and a column is a bank of shared memory. So no two lanes ever meet, whatever the values are.
__global__ void __launch_bounds__(kBuildThreads, 3)
    histogram_kernel(const BuildUnit* d_units, const uint32_t* d_bins, int64_t n_rows, int n_features, int n_groups,
                     const Quantised* d_quantised) {
  WAGGLE_DYNAMIC_SHARED(shared);
  int* sums = reinterpret_cast<int*>(shared);  // g, then h
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.x % static_cast<unsigned>(n_groups));
  for (int i = thread; i < static_cast<int>(kBuildBytes / 16); i += kBuildThreads) {
    reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();
  const BuildUnit unit = d_units[blockIdx.x / static_cast<unsigned>(n_groups)];
  const int row_in_warp = thread % 32 / kGroupWords;
  const int word = thread % kGroupWords;
  if (group * kGroupFeatures + word * 4 < n_features) {
    const uint32_t* bins = d_bins + static_cast<int64_t>(group) * n_rows * kGroupWords + word;
    int* column[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) column[k] = sums + (k + row_in_warp) % 4 * kGroupWords + word;
    const int turn = row_in_warp * 8;
    const auto add = [&](uint32_t slots, Quantised of) {
      const uint32_t turned = slots >> turn | slots << ((32 - turn) & 31);
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        int* at = column[b] + (turned >> (8 * b) & 255u) * kGroupFeatures;
        atomicAdd(at, of.g);
        atomicAdd(at + kGroupSums, of.h);
      }
    };
    const uint32_t* d_rows = unit.rows.d_rows;
    WAGGLE_IS_GLOBAL(d_rows);
    const int count = static_cast<int>(unit.rows.count);
    const auto row_at = [&](int i) {
      const uint32_t position = unit.rows.first + static_cast<uint32_t>(i);
      return d_rows != nullptr ? d_rows[position] : position;
    };
    int i = thread / 32 * kRowsOfWarp + row_in_warp;
    for (; i + (kAtOnce - 1) * kStep < count; i += kAtOnce * kStep) {
      uint32_t row[kAtOnce];
      uint32_t slots[kAtOnce];
      Quantised of[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) row[k] = row_at(i + k * kStep);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        slots[k] = bins[static_cast<size_t>(row[k]) * kGroupWords];
        of[k] = d_quantised[row[k]];
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) add(slots[k], of[k]);
    }
    for (; i < count; i += kStep) {
      const uint32_t row = row_at(i);
      add(bins[static_cast<size_t>(row) * kGroupWords], d_quantised[row]);
    }
  }
  __syncthreads();
  unsigned long long* to = unit.d_histogram + static_cast<size_t>(group) * 2 * kGroupSums;
  WAGGLE_IS_GLOBAL(to);
  for (int i = thread; i < 2 * kGroupSums; i += kBuildThreads) {
    if (const int sum = sums[i]; sum != 0) {
      atomicAdd(to + i, static_cast<unsigned long long>(static_cast<long long>(sum)));
    }
  }
}

// Grid: 2,048 sums of a histogram each × histograms; 256 threads.
__global__ void clear_kernel(unsigned long long* const* d_histograms, int64_t size) {
  unsigned long long* to = d_histograms[blockIdx.y];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 2048;
  for (int64_t i = first + threadIdx.x; i < min(first + 2048, size); i += 256) to[i] = 0;
}

struct Subtraction {
  unsigned long long* d_from;
  const unsigned long long* d_less;
};

// Grid: 2,048 sums of a histogram each × pairs; 256 threads.
__global__ void subtract_kernel(const Subtraction* d_pairs, int64_t size) {
  const Subtraction pair = d_pairs[blockIdx.y];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 2048;
  for (int64_t i = first + threadIdx.x; i < min(first + 2048, size); i += 256) pair.d_from[i] -= pair.d_less[i];
}

// ---- the search -----------------------------------------------------------------------------------------------------

struct SearchNode {
  double g;
  double h;
  double lower;
  double upper;
  const unsigned long long* d_histogram;
  long long n_rows;
};

// A feature's sums in a node's histogram.
struct Column {
  const unsigned long long* d_g;
  const unsigned long long* d_h;

  __device__ long long g(int slot) const { return static_cast<long long>(d_g[slot * kGroupFeatures]); }
  __device__ long long h(int slot) const { return static_cast<long long>(d_h[slot * kGroupFeatures]); }
};

__device__ inline Column column_at(const SearchNode& node, int feature) {
  const unsigned long long* d_g = node.d_histogram + static_cast<size_t>(feature / kGroupFeatures) * 2 * kGroupSums +
                                  feature % 4 * kGroupWords + feature % kGroupFeatures / 4;
  return {d_g, d_g + kGroupSums};
}

__device__ inline double gain_of(const SearchNode& node, const FitRules& rules, double g, double h, double l2,
                                 double* value) {
  return leaf_gain(g, h, rules.penalty.l1, l2, rules.max_step, node.lower, node.upper, value);
}

__device__ inline waggle_fit_split no_split(int feature) {
  waggle_fit_split none = {};
  none.gain = -1;
  none.feature = feature;
  return none;
}

template <typename T>
__device__ inline T before_in_warp(T value, int lane) {
  T up_to = value;
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(kFullWarp, up_to, static_cast<unsigned>(step));
    if (lane >= step) up_to += other;
  }
  return up_to - value;
}

// As FitGrower::scan_numbers: a warp, eight neighbouring bins to a lane. Every lane returns the answer.
__device__ waggle_fit_split scan_numbers(const FitRules& rules, const SearchNode& node,
                                         const waggle_fit_feature& feature, int f, const uint32_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Column column = column_at(node, f);
  const int n = feature.n_bins;
  const bool has_missing = feature.has_missing != 0;
  // Up to and with each bin. Sums are below 2⁵³: exact as doubles.
  long long up_to_g[kSlotsOfLane];
  long long up_to_h[kSlotsOfLane];
  long long up_to_rows[kSlotsOfLane];
  long long g = 0;
  long long h = 0;
  long long rows = 0;
#pragma unroll
  for (int k = 0; k < kSlotsOfLane; ++k) {
    const int b = lane * kSlotsOfLane + k;
    if (b < n) {
      g += column.g(b);
      h += column.h(b);
      if (counts != nullptr) rows += counts[b];
    }
    up_to_g[k] = g;
    up_to_h[k] = h;
    up_to_rows[k] = rows;
  }
  const long long before_g = before_in_warp(g, lane);
  const long long before_h = before_in_warp(h, lane);
  const long long before_rows = counts != nullptr ? before_in_warp(rows, lane) : 0;
  const double missing_g = has_missing ? static_cast<double>(column.g(n)) : 0;
  const double missing_h = has_missing ? static_cast<double>(column.h(n)) : 0;
  const long long missing_rows = has_missing && counts != nullptr ? counts[n] : 0;
  const bool missing = missing_h != 0 || missing_g != 0 || missing_rows > 0;
  waggle_fit_split best = no_split(f);
  for (int side = 0; side < (missing ? 2 : 1); ++side) {
    const bool to_left = side == 1;
    const double more_g = to_left ? missing_g : 0;
    const double more_h = to_left ? missing_h : 0;
    const long long more_rows = to_left ? missing_rows : 0;
    const int n_cuts = missing && !to_left ? n : n - 1;
    double gain = -1;
    double best_g = 0;
    double best_h = 0;
    int at = kFitMaxSlots;
#pragma unroll
    for (int k = 0; k < kSlotsOfLane; ++k) {
      const int b = lane * kSlotsOfLane + k;
      if (b >= n_cuts) continue;
      const double left_g = static_cast<double>(before_g + up_to_g[k]) + more_g;
      const double left_h = static_cast<double>(before_h + up_to_h[k]) + more_h;
      double sum = -1;
      if (!rules.bounded && counts == nullptr) {
        sum = cut_gain(left_g, left_h, node.g, node.h, rules.h_least, rules.penalty);
      } else {
        if (counts != nullptr) {
          const long long left_rows = before_rows + up_to_rows[k] + more_rows;
          if (left_rows < rules.min_child_rows || node.n_rows - left_rows < rules.min_child_rows) continue;
        }
        const double right_h = node.h - left_h;
        if (left_h < rules.h_least || right_h < rules.h_least) continue;
        double left_value = 0;
        double right_value = 0;
        sum = gain_of(node, rules, left_g * rules.penalty.g_unit, left_h * rules.penalty.h_unit, rules.penalty.l2,
                      &left_value) +
              gain_of(node, rules, (node.g - left_g) * rules.penalty.g_unit, right_h * rules.penalty.h_unit,
                      rules.penalty.l2, &right_value);
        if ((feature.monotone > 0 && left_value > right_value) || (feature.monotone < 0 && left_value < right_value)) {
          continue;
        }
      }
      if (sum > gain) {
        gain = sum;
        best_g = left_g;
        best_h = left_h;
        at = b;
      }
    }
    // The largest gain, of equal ones the lowest bin.
    for (int step = 16; step > 0; step /= 2) {
      const double other_gain = __shfl_xor_sync(kFullWarp, gain, step);
      const double other_g = __shfl_xor_sync(kFullWarp, best_g, step);
      const double other_h = __shfl_xor_sync(kFullWarp, best_h, step);
      const int other_at = __shfl_xor_sync(kFullWarp, at, step);
      if (other_gain > gain || (other_gain == gain && other_at < at)) {
        gain = other_gain;
        best_g = other_g;
        best_h = other_h;
        at = other_at;
      }
    }
    if (gain > best.gain) {
      best.gain = gain;
      best.bin = at;
      best.missing_left = to_left ? 1 : 0;
      best.left_g = best_g;
      best.left_h = best_h;
    }
  }
  if (!missing) best.missing_left = best.left_h * 2 >= node.h ? 1 : 0;
  return best;
}

// What a warp orders categories with.
struct Categories {
  double g[kFitMaxSlots];
  double h[kFitMaxSlots];
  double key[kFitMaxSlots];
  unsigned char order[kFitMaxSlots];
  unsigned char kept[kFitMaxSlots];
  unsigned long long left[4];
};

// As FitGrower::scan_categories: a warp makes the order, one lane for each end of it tries the sets.
__device__ waggle_fit_split scan_categories(const FitRules& rules, const SearchNode& node,
                                            const waggle_fit_feature& feature, int f, const uint32_t* counts,
                                            Categories* shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Column column = column_at(node, f);
  const int n_slots = feature.n_bins + (feature.has_missing != 0 ? 1 : 0);
  const double rows_per_unit = static_cast<double>(node.n_rows) / (node.h > 1.0 ? node.h : 1.0);
  int n = 0;
  __syncwarp();  // the warp's last search is over
#pragma unroll
  for (int k = 0; k < kSlotsOfLane; ++k) {
    const int s = k * 32 + lane;
    bool kept = false;
    if (s < n_slots) {
      const double g = static_cast<double>(column.g(s));
      const double h = static_cast<double>(column.h(s));
      const bool others = s < feature.n_bins && s >= feature.n_categories;
      kept = !others && h > 0;
      shared->g[s] = g;
      shared->h[s] = h;
      shared->key[s] = g * rules.penalty.g_unit / (h * rules.penalty.h_unit + kFitCategorySmooth);
    }
    shared->kept[s] = kept ? 1 : 0;
    n += __popc(__ballot_sync(kFullWarp, kept ? 1 : 0));
  }
  const bool one_by_one = feature.n_bins <= kFitOneByOne;
  const double l2 = rules.penalty.l2 + (one_by_one ? 0 : kFitCategoryL2);
  if (!one_by_one) {
    n = 0;
#pragma unroll
    for (int k = 0; k < kSlotsOfLane; ++k) {
      const int s = k * 32 + lane;
      const bool kept = shared->kept[s] != 0 && !(shared->h[s] * rows_per_unit < kFitCategoryRows);
      shared->kept[s] = kept ? 1 : 0;
      n += __popc(__ballot_sync(kFullWarp, kept ? 1 : 0));
    }
  }
  __syncwarp();
  // Each finds its place: how many come before it.
  for (int k = 0; k < kSlotsOfLane; ++k) {
    const int s = k * 32 + lane;
    if (shared->kept[s] == 0) continue;
    const double key = shared->key[s];
    int place = 0;
    for (int other = 0; other < n_slots; ++other) {
      if (shared->kept[other] == 0) continue;
      const bool first = one_by_one ? other < s : shared->key[other] < key || (shared->key[other] == key && other < s);
      place += first ? 1 : 0;
    }
    shared->order[place] = static_cast<unsigned char>(s);
  }
  __syncwarp();
  const int most = one_by_one ? n : min(kFitMostCategoriesLeft, (n + 1) / 2);
  double gain = -1;
  double best_g = 0;
  double best_h = 0;
  int best_i = -1;
  if (lane < (one_by_one ? 1 : 2)) {
    double left_g = 0;
    double left_h = 0;
    double in_group = 0;  // rows since the last set that was tried
    long long rows = 0;
    for (int i = 0; i < most; ++i) {
      const int s = shared->order[lane == 0 ? i : n - 1 - i];
      if (one_by_one) {
        left_g = left_h = 0;
        rows = 0;
      }
      left_g += shared->g[s];
      left_h += shared->h[s];
      in_group += shared->h[s] * rows_per_unit;
      if (counts != nullptr) {
        rows += counts[s];
        if (rows < rules.min_child_rows || node.n_rows - rows < rules.min_child_rows) continue;
      }
      const double right_h = node.h - left_h;
      if (left_h < rules.h_least || right_h < rules.h_least) continue;
      if (!one_by_one) {
        if (right_h * rows_per_unit < kFitGroupRows) break;
        if (in_group < kFitGroupRows) continue;
        in_group = 0;
      }
      double value = 0;
      const double sum =
          gain_of(node, rules, left_g * rules.penalty.g_unit, left_h * rules.penalty.h_unit, l2, &value) +
          gain_of(node, rules, (node.g - left_g) * rules.penalty.g_unit, right_h * rules.penalty.h_unit, l2, &value);
      if (sum > gain) {
        gain = sum;
        best_g = left_g;
        best_h = left_h;
        best_i = i;
      }
    }
  }
  __syncwarp();
  const double gain_0 = __shfl_sync(kFullWarp, gain, 0);
  const double gain_1 = __shfl_sync(kFullWarp, gain, 1);
  const int side = gain_1 > gain_0 ? 1 : 0;
  waggle_fit_split best = no_split(f);
  best.gain = side == 1 ? gain_1 : gain_0;
  best.left_g = __shfl_sync(kFullWarp, best_g, side);
  best.left_h = __shfl_sync(kFullWarp, best_h, side);
  best_i = __shfl_sync(kFullWarp, best_i, side);
  best.ordered = one_by_one ? 0 : 1;
  const int missing_slot = feature.n_bins;
  const bool some_missing = feature.has_missing != 0 && (column.h(missing_slot) != 0 || column.g(missing_slot) != 0);
  if (lane == 0) {
    for (int w = 0; w < 4; ++w) shared->left[w] = 0;
    for (int i = one_by_one && best_i >= 0 ? best_i : 0; i <= best_i; ++i) {
      const int s = shared->order[side == 0 ? i : n - 1 - i];
      shared->left[s / 64] |= 1ull << (s % 64);
    }
    const bool was_left = ((shared->left[missing_slot / 64] >> (missing_slot % 64)) & 1u) != 0;
    best.missing_left = (some_missing ? was_left : best.left_h * 2 >= node.h) ? 1 : 0;
    if (best.missing_left != 0 && feature.has_missing != 0) {
      shared->left[missing_slot / 64] |= 1ull << (missing_slot % 64);
    }
  }
  best.missing_left = __shfl_sync(kFullWarp, best.missing_left, 0);
  __syncwarp();
#pragma unroll
  for (int w = 0; w < 4; ++w) best.left[w] = shared->left[w];
  return best;
}

// Whether both sides of a split keep enough rows; a warp.
__device__ bool has_enough_rows(const FitRules& rules, const SearchNode& node, const waggle_fit_feature& feature,
                                const waggle_fit_split& split, const uint32_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int n_slots = feature.n_bins + (feature.has_missing != 0 ? 1 : 0);
  long long rows = 0;
  for (int s = lane; s < n_slots; s += 32) {
    bool left = ((split.left[s / 64] >> (s % 64)) & 1u) != 0;
    if (feature.n_categories < 0) left = s < feature.n_bins ? s <= split.bin : split.missing_left != 0;
    if (left) rows += counts[s];
  }
  for (int step = 16; step > 0; step /= 2) rows += __shfl_xor_sync(kFullWarp, rows, step);
  return rows >= rules.min_child_rows && node.n_rows - rows >= rules.min_child_rows;
}

struct Candidates {
  waggle_fit_split* d_splits;  // [rows × n_used]
  const int32_t* d_used;
  int n_used;
  int n_nodes;
  // Of a recount: a node's row, the place of its feature in d_used, and that one's rows by slot [nodes × 256].
  const int32_t* d_row;
  const int32_t* d_place;
  const uint32_t* d_counts;
};

// Grid: a warp per node and feature, or (recount) per node; 128 threads.
__global__ void __launch_bounds__(kSearchWarps * 32)
    scan_kernel(const FitRules rules, const SearchNode* d_nodes, const waggle_fit_feature* d_features,
                const Candidates candidates) {
  __shared__ Categories categories[kSearchWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kSearchWarps + warp;
  const bool recount = candidates.d_counts != nullptr;
  const int64_t n_tasks = recount ? candidates.n_nodes : static_cast<int64_t>(candidates.n_nodes) * candidates.n_used;
  if (task >= n_tasks) return;
  const int64_t n = recount ? task : task / candidates.n_used;
  const int place = recount ? candidates.d_place[n] : static_cast<int>(task % candidates.n_used);
  const int64_t row = recount ? candidates.d_row[n] : n;
  const uint32_t* counts = recount ? candidates.d_counts + n * kFitMaxSlots : nullptr;
  waggle_fit_split* at = candidates.d_splits + row * candidates.n_used + place;
  const int f = candidates.d_used[place];
  const waggle_fit_feature feature = d_features[f];
  const SearchNode node = d_nodes[n];
  if (recount && has_enough_rows(rules, node, feature, *at, counts)) return;
  const waggle_fit_split best = feature.n_categories < 0
                                    ? scan_numbers(rules, node, feature, f, counts)
                                    : scan_categories(rules, node, feature, f, counts, categories + warp);
  __syncwarp();
  if (threadIdx.x % 32 == 0) *at = best;
}

// Grid: a warp per node, which takes the largest gain, of equal ones the lowest feature.
__global__ void choose_kernel(const Candidates candidates, waggle_fit_split* d_best) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t n = blockIdx.x;
  const int64_t row = candidates.d_row != nullptr ? candidates.d_row[n] : n;
  const waggle_fit_split* splits = candidates.d_splits + row * candidates.n_used;
  double gain = -1;
  int feature = 0x7fffffff;
  int place = -1;
  for (int i = lane; i < candidates.n_used; i += 32) {
    const double own = splits[i].gain;
    const int f = candidates.d_used[i];
    if (own > gain || (own == gain && own > -1 && f < feature)) {
      gain = own;
      feature = f;
      place = i;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const double other_gain = __shfl_xor_sync(kFullWarp, gain, step);
    const int other_feature = __shfl_xor_sync(kFullWarp, feature, step);
    const int other_place = __shfl_xor_sync(kFullWarp, place, step);
    if (other_gain > gain || (other_gain == gain && other_feature < feature)) {
      gain = other_gain;
      feature = other_feature;
      place = other_place;
    }
  }
  if (lane == 0) d_best[n] = place >= 0 ? splits[place] : no_split(-1);
}

struct CountUnit {
  Stretch rows;
  const unsigned char* d_slots;  // of the feature: row r at 32 · r
  uint32_t* d_counts;
};

// Grid: a block of 256 threads per unit.
__global__ void __launch_bounds__(kCountThreads) count_kernel(const CountUnit* d_units) {
  __shared__ uint32_t counts[kFitMaxSlots];
  const int thread = static_cast<int>(threadIdx.x);
  counts[thread] = 0;
  __syncthreads();
  const CountUnit unit = d_units[blockIdx.x];
  WAGGLE_IS_GLOBAL(unit.d_slots);
  WAGGLE_IS_GLOBAL(unit.d_counts);
  for (uint32_t i = static_cast<uint32_t>(thread); i < unit.rows.count; i += kCountThreads) {
    const uint32_t position = unit.rows.first + i;
    const int64_t row = unit.rows.d_rows != nullptr ? unit.rows.d_rows[position] : position;
    atomicAdd(counts + unit.d_slots[row * kGroupFeatures], 1u);
  }
  __syncthreads();
  if (counts[thread] != 0) atomicAdd(unit.d_counts + thread, counts[thread]);
}

// ---- on the host ----------------------------------------------------------------------------------------------------

int64_t histogram_size(const waggle_fit& fit) { return static_cast<int64_t>(fit.n_groups) * 2 * kGroupSums; }

// Histograms lie in slabs of 32 MiB or one, which are there for good once a tree needed them.
int32_t histogram_at(waggle_fit& fit, int32_t number, unsigned long long** d_out, waggle_text* error) {
  const int64_t size = histogram_size(fit);
  const int64_t per_slab = std::max<int64_t>(1, kSlabBytes / 8 / size);
  const size_t slab = static_cast<size_t>(number / per_slab);
  while (fit.slabs.size() <= slab) {
    auto made = std::make_unique<waggle_fit::Sums>("histograms");
    WAGGLE_TRY(made->allocate(static_cast<size_t>(per_slab * size), error));
    fit.slabs.push_back(std::move(made));
  }
  *d_out = fit.slabs[slab]->get() + number % per_slab * size;
  return WAGGLE_BACKEND_OK;
}

int32_t build(State& state, waggle_fit& fit, const waggle_fit_search_args& args, waggle_text* error) {
  if (args.n_builds == 0) return WAGGLE_BACKEND_OK;
  const cudaStream_t s = state.stream.get();
  std::vector<unsigned long long*> histograms;
  std::vector<BuildUnit> units;
  for (int64_t b = 0; b < args.n_builds; ++b) {
    const waggle_fit_node& node = args.nodes[args.builds[b]];
    unsigned long long* d_histogram = nullptr;
    WAGGLE_TRY(histogram_at(fit, node.histogram, &d_histogram, error));
    histograms.push_back(d_histogram);
    for (int64_t at = node.begin; at < node.end; at += kBuildRows) {
      units.push_back({fit.stretch(at, std::min<int64_t>(node.end, at + kBuildRows), node.depth), d_histogram});
    }
  }
  unsigned long long** d_histograms = nullptr;
  BuildUnit* d_units = nullptr;
  WAGGLE_TRY(send(state, histograms, &d_histograms, error));
  WAGGLE_TRY(send(state, units, &d_units, error));
  const int64_t size = histogram_size(fit);
  WAGGLE_LAUNCH(clear_kernel,
                dim3(static_cast<unsigned>((size + 2047) / 2048), static_cast<unsigned>(histograms.size())), dim3(256),
                0, s, d_histograms, size);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  if (units.empty()) return WAGGLE_BACKEND_OK;
  WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&histogram_kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBuildBytes)));
  // Without the latter, the driver may leave too little shared memory for three blocks.
  WAGGLE_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&histogram_kernel),
                                         cudaFuncAttributePreferredSharedMemoryCarveout, 100));
  WAGGLE_LAUNCH(histogram_kernel, dim3(static_cast<unsigned>(units.size()) * static_cast<unsigned>(fit.n_groups)),
                dim3(kBuildThreads), kBuildBytes, s, d_units, fit.d_bins.get(), fit.n_rows, fit.n_features,
                fit.n_groups, fit.d_quantised.get());
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t subtract(State& state, waggle_fit& fit, const waggle_fit_search_args& args, waggle_text* error) {
  if (args.n_subtractions == 0) return WAGGLE_BACKEND_OK;
  std::vector<Subtraction> pairs(static_cast<size_t>(args.n_subtractions));
  for (size_t i = 0; i < pairs.size(); ++i) {
    unsigned long long* d_less = nullptr;
    WAGGLE_TRY(histogram_at(fit, args.subtractions[2 * i], &pairs[i].d_from, error));
    WAGGLE_TRY(histogram_at(fit, args.subtractions[2 * i + 1], &d_less, error));
    pairs[i].d_less = d_less;
  }
  Subtraction* d_pairs = nullptr;
  WAGGLE_TRY(send(state, pairs, &d_pairs, error));
  const int64_t size = histogram_size(fit);
  WAGGLE_LAUNCH(subtract_kernel, dim3(static_cast<unsigned>((size + 2047) / 2048), static_cast<unsigned>(pairs.size())),
                dim3(256), 0, state.stream.get(), d_pairs, size);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t count(State& state, const waggle_fit& fit, const waggle_fit_search_args& args, uint32_t* d_counts,
              waggle_text* error) {
  const cudaStream_t s = state.stream.get();
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_counts, 0, static_cast<size_t>(args.n_nodes) * kFitMaxSlots * 4, s));
  std::vector<CountUnit> units;
  for (int64_t n = 0; n < args.n_nodes; ++n) {
    const waggle_fit_node& node = args.nodes[n];
    const int32_t f = args.recounts[n];
    const unsigned char* d_slots = reinterpret_cast<const unsigned char*>(fit.d_bins.get()) +
                                   static_cast<int64_t>(f / kGroupFeatures) * fit.n_rows * kGroupFeatures +
                                   f % kGroupFeatures;
    for (int64_t at = node.begin; at < node.end; at += kBuildRows) {
      units.push_back({fit.stretch(at, std::min<int64_t>(node.end, at + kBuildRows), node.depth), d_slots,
                       d_counts + n * kFitMaxSlots});
    }
  }
  if (units.empty()) return WAGGLE_BACKEND_OK;
  CountUnit* d_units = nullptr;
  WAGGLE_TRY(send(state, units, &d_units, error));
  WAGGLE_LAUNCH(count_kernel, dim3(static_cast<unsigned>(units.size())), dim3(kCountThreads), 0, s, d_units);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

}  // namespace

int32_t fit_search_on_device(State& state, waggle_fit& fit, waggle_fit_search_args& args, waggle_text* error) {
  if (args.n_nodes == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_TRY(begin_call(state, error));
  const cudaStream_t s = state.stream.get();
  const int64_t n_used = static_cast<int64_t>(fit.used.size());
  if (n_used == 0) {
    for (int64_t n = 0; n < args.n_nodes; ++n) {
      args.splits[n] = {};
      args.splits[n].gain = -1;
    }
    return WAGGLE_BACKEND_OK;
  }
  WAGGLE_TRY(build(state, fit, args, error));
  WAGGLE_TRY(subtract(state, fit, args, error));
  Candidates candidates = {};
  candidates.d_used = fit.d_used.get();
  candidates.n_used = static_cast<int>(n_used);
  candidates.n_nodes = static_cast<int>(args.n_nodes);
  std::vector<SearchNode> nodes(static_cast<size_t>(args.n_nodes));
  for (size_t n = 0; n < nodes.size(); ++n) {
    const waggle_fit_node& node = args.nodes[n];
    unsigned long long* d_histogram = nullptr;
    WAGGLE_TRY(histogram_at(fit, node.histogram, &d_histogram, error));
    nodes[n] = {node.g, node.h, node.lower, node.upper, d_histogram, static_cast<long long>(node.end - node.begin)};
  }
  if (args.recounts == nullptr && (fit.d_candidates == nullptr || fit.n_candidates < args.n_nodes * n_used)) {
    fit.d_candidates.reset();
    auto made = std::make_unique<waggle_fit::Splits>("candidates for splits");
    const int64_t wanted = std::max(args.n_nodes, int64_t{16}) * 2 * fit.n_features;
    WAGGLE_TRY(made->allocate(static_cast<size_t>(wanted), error));
    fit.d_candidates = std::move(made);
    fit.n_candidates = wanted;
  }
  candidates.d_splits = fit.d_candidates->get();
  int64_t n_tasks = args.n_nodes * n_used;
  if (args.recounts != nullptr) {
    n_tasks = args.n_nodes;
    std::vector<int32_t> places;
    for (int64_t n = 0; n < args.n_nodes; ++n) places.push_back(fit.place[static_cast<size_t>(args.recounts[n])]);
    int32_t* d_places = nullptr;
    int32_t* d_rows = nullptr;
    uint32_t* d_counts = nullptr;
    WAGGLE_TRY(send(state, places, &d_places, error));
    WAGGLE_TRY(send(state, std::vector<int32_t>(args.candidates, args.candidates + args.n_nodes), &d_rows, error));
    WAGGLE_TRY(state.scratch.take(&d_counts, args.n_nodes * kFitMaxSlots, error));
    WAGGLE_TRY(count(state, fit, args, d_counts, error));
    candidates.d_place = d_places;
    candidates.d_row = d_rows;
    candidates.d_counts = d_counts;
  }
  SearchNode* d_nodes = nullptr;
  waggle_fit_split* d_best = nullptr;
  WAGGLE_TRY(send(state, nodes, &d_nodes, error));
  WAGGLE_TRY(state.scratch.take(&d_best, args.n_nodes, error));
  WAGGLE_LAUNCH(scan_kernel, dim3(static_cast<unsigned>((n_tasks + kSearchWarps - 1) / kSearchWarps)),
                dim3(kSearchWarps * 32), 0, s, fit.rules, d_nodes, fit.d_features.get(), candidates);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  WAGGLE_LAUNCH(choose_kernel, dim3(static_cast<unsigned>(args.n_nodes)), dim3(32), 0, s, candidates, d_best);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return receive(state, d_best, args.n_nodes, args.splits, error);
}

}  // namespace waggle::cuda
