// Gradient-boosted trees, trained.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/trees.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int32_t kTreesFitMaxTrees = 100'000;  // boosting rounds
constexpr int32_t kTreesFitMaxLeaves = 65'536;
constexpr int32_t kTreesFitMaxDepth = 512;
constexpr int32_t kTreesFitMaxClasses = 4'096;
constexpr int32_t kTreesFitMaxRelevance = 30;
/// Categories are integers from 0 to here: every one of them is a float.
constexpr int32_t kTreesFitMaxCategory = 1 << 24;

enum class TreesObjective : int32_t {
  kLogistic = 0,  // −Σ w (s log p + (t − s) log(1 − p)), p = σ(score)
  kSoftmax = 1,   // −Σ w log p[y]
  kSquared = 2,   // Σ w (y − score)²
  kPoisson = 3,   // Σ w (e^score − y · score)
  kQuantile = 4,  // Σ w max(α (y − score), (α − 1)(y − score))
  kLambdaRank = 5,
};
constexpr int kTreesObjectives = 6;

enum class TreesGrowth : int32_t { kLeaf = 0, kDepth = 1 };

struct TreesFitRows {
  Matrix<const float> x;            // [n × p], NaN = missing
  const double* y = nullptr;        // [n]
  const double* trials = nullptr;   // [n], logistic only; null = 1
  const double* weights = nullptr;  // [n], ≥ 0; null = 1
  const double* offset = nullptr;   // [n × targets] on the score's scale; null = 0
  /// lambdarank: rows of each query, one query after the other; they add up to n.
  const uint32_t* groups = nullptr;
  int64_t n_groups = 0;
};

struct TreesFitArgs {
  TreesFitRows train;
  /// x.rows = 0: none.
  TreesFitRows validation;
  TreesObjective objective = TreesObjective::kLogistic;
  int32_t n_classes = 0;  // softmax
  double quantile = 0.5;
  const int32_t* categorical = nullptr;  // feature numbers
  int64_t n_categorical = 0;
  const int8_t* monotone = nullptr;  // [p], −1, 0 or 1; null = 0
  int32_t n_trees = 100;
  double learning_rate = 0.1;
  int32_t max_leaves = 31;
  int32_t max_depth = 0;  // 0 = kTreesFitMaxDepth
  TreesGrowth growth = TreesGrowth::kLeaf;
  int32_t max_bins = 255;
  double min_child_weight = 1e-3;
  int64_t min_child_rows = 20;
  double l1 = 0;
  double l2 = 1;
  double min_gain = 0;
  double row_sample = 1;
  double feature_sample = 1;
  uint64_t seed = 1;
  int32_t threads = 0;
  int32_t early_stopping_rounds = 0;  // 0 = never
  /// Called from the working thread after each round.
  std::function<void(int32_t rounds)> progress;
};

struct TreesFitResult {
  trees::Ensemble ensemble;
  /// Rounds the ensemble holds: n_targets trees each.
  int32_t best_round = 0;
  /// Loss after each round trained, those dropped by early stopping included.
  std::vector<double> train_loss;
  std::vector<double> validation_loss;
  /// Of the ensemble's splits, by feature: the sum of their gains, and their number.
  std::vector<double> gain;
  std::vector<double> splits;
  bool on_device = false;
  /// Where the time went.
  struct Seconds {
    double bin = 0;
    double upload = 0;
    double boost = 0;
  } seconds;
};

/// Second-order boosting on histograms (Friedman 2001; Chen & Guestrin 2016; Ke et al. 2017).
///
/// Features become at most max_bins bins and one for NaN: every value its own while they are that few, quantiles of up
/// to 200,000 sampled rows otherwise. A row's gradient and curvature are rounded to 18 bits of the largest one of the
/// tree, so that sums of them are integers and exact in every order; leaves are computed from the unrounded ones, in a
/// fixed order. So the model has the same bits for a seed at any thread count and SIMD level, and on an accelerator
/// (which takes large trainings of all objectives but softmax, LambdaRank and weighted quantiles).
///
/// A split's gain is T(G_l)²/(H_l + λ) + T(G_r)²/(H_r + λ) − T(G)²/(H + λ), T(G) = sign(G) · max(|G| − l1, 0); ties go
/// to the lower feature, then to missing values on the right, then to the lower cut. Categories are ordered by
/// G / (H + 10) and split in two along that order (Fisher 1958): at most 32 to the left, in groups of about 100 rows or
/// more, with 10 added to λ for the gain and for the value of a leaf that such a split makes: sides picked from many
/// are the better for chance too. Categories of fewer than about 10 rows in the node, those not seen in training and
/// rare ones beyond the bins go right. A feature of up to four categories has them tried one by one instead. A missing
/// value goes where the gain is larger; without any in the node, where more curvature went.
///
/// Leaves are −T(G)/(H + λ) times the learning rate; Poisson's are clipped to ±0.7 before; quantile's are the weighted
/// quantile of the leaf's residuals. Growth 'leaf' splits the leaf of largest gain, 'depth' one level after the other.
/// O(rounds · targets · rows · features · log leaves) in the balanced case; memory beside the input: a byte per value,
/// about 32 per row and target, and a histogram (16 bytes per bin) per leaf up to 512 MiB.
Status trees_fit(const TreesFitArgs& args, const RunContext& context, TreesFitResult* result);

}  // namespace waggle
