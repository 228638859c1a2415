// What trees.fit asks of an instruction set; as kernels.hpp, which includes it. Every function gives the same bits at
// every level.
#pragma once

#include <stdint.h>

namespace waggle::cpu {

/// Rows of one call of `histogram`, at most: their sums fit 32 bits.
constexpr int32_t kFitChunk = 4096;
/// Gradients and curvatures are rounded to integers of at most this magnitude.
constexpr int32_t kFitLevels = 1 << 18;
/// Slots of a feature's histogram, at most: 255 bins and one for missing values.
constexpr int32_t kFitMaxSlots = 256;

/// Categories: smoothing of the order, more λ for sides made of many (their gains, and their values where growth ends
/// with them), most on the left, and how many a feature may have to be tried one by one. What a node has left of many
/// is ordered like them: a few rare ones in a small node fit any label.
constexpr double kFitCategorySmooth = 10;
constexpr double kFitCategoryL2 = 10;
/// About so many rows make a category worth ordering, and a group worth moving: without, a feature of many categories
/// can fit any label. Rows are estimated by curvature.
constexpr double kFitCategoryRows = 10;
constexpr double kFitGroupRows = 100;
constexpr int32_t kFitMostCategoriesLeft = 32;
constexpr int32_t kFitOneByOne = 4;

struct FitGradient {
  float g;
  float h;
};

/// Rows of a block of features, which lie side by side.
struct FitHistogram {
  const uint32_t* rows;  // [n]; null = 0, 1, 2, …
  int32_t n;
  const uint8_t* bins;  // row r at bins + r · stride
  int64_t stride;
  /// A feature's byte in the row, and its first slot in `sums`.
  const uint16_t* columns;
  const uint32_t* slots;
  int32_t n_features;
  const FitGradient* gradients;
  float g_scale;
  float h_scale;
};

struct FitPenalty {
  double l1;
  double l2;
  double g_unit;  // a sum of rounded gradients times this is G
  double h_unit;
};

/// One loop over binomial rows: score = log-odds.
struct FitLogistic {
  const double* scores;
  const double* successes;
  const double* trials;   // null = 1
  const double* weights;  // null = 1
  FitGradient* gradients;
};

struct FitGradientSummary {
  float g_most;  // largest |g|
  float h_most;
  float h_least;
  double loss;
};

struct TreesFitKernels {
  /// sums[slot of the row's bin] += round(g · g_scale) · 2³² + round(h · h_scale), for every row and feature.
  void (*histogram)(const FitHistogram* h, int64_t* sums);
  /// Adds packed sums to g and h, or (add = 0) stores them there, and clears them. All are integers below 2⁵³: adding
  /// them is exact.
  void (*flush)(int64_t* sums, int32_t n, int32_t add, double* g, double* h);
  /// a −= b
  void (*subtract)(double* a, const double* b, int32_t n);
  /// gains[i] = T(l)²/(h_l + λ) + T(r)²/(h_r + λ) where the sums on the left, in units, are left_g[i] + more_g and
  /// left_h[i] + more_h, and those on the right what is missing to the total; −1 where a side has less curvature than
  /// h_least. Returns the first i with the largest gain. Room for n rounded up to 8.
  int32_t (*gains)(const double* left_g, const double* left_h, int32_t n, double more_g, double more_h, double total_g,
                   double total_h, double h_least, const FitPenalty* penalty, double* gains);
  /// Bit i of masks is left[bin of row i]; returns how many are set.
  int32_t (*decide)(const uint32_t* rows, uint32_t first, int32_t n, const uint8_t* bins, int64_t stride,
                    const uint8_t* left, uint64_t* masks);
  /// Rows (null = first, first + 1, …) with their bit set go to `to_left`, the others to `to_right`, in their order.
  void (*split)(const uint32_t* rows, uint32_t first, int32_t n, const uint64_t* masks, uint32_t* to_left,
                uint32_t* to_right);
  /// Gradients of n rows; sums of eight lanes, lane = row mod 8.
  void (*logistic)(const FitLogistic* rows, int32_t n, FitGradientSummary* out);
};

}  // namespace waggle::cpu
