// Clusters around means.
#pragma once

#include <cstdint>
#include <functional>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int32_t kKmeansMaxClusters = 65536;
constexpr int32_t kKmeansMaxIterations = 10000;

struct KmeansArgs {
  Matrix<const float> x;  // [n × dim]
  int32_t k = 0;          // 1 … min(n, kKmeansMaxClusters)
  uint64_t seed = 1;
  int32_t max_iterations = 25;
  /// Ends when an iteration lowers the objective by less than this part of it.
  double tolerance = 1e-4;
  /// Rows trained on, at most, per cluster; every row is assigned at the end. 0 = all rows.
  int64_t samples_per_cluster = 256;
  /// [k × dim] centroids to start from; null = k-means++.
  const float* start = nullptr;
  float* centroids = nullptr;      // [k × dim]
  int32_t* assignments = nullptr;  // [n]
  /// Called from the working thread with the part done, 0 … 1.
  std::function<void(double)> progress;
};

struct KmeansResult {
  int32_t iterations = 0;
  bool converged = false;
  /// Σ ‖x − its centroid‖² over all rows, for the answer.
  double objective = 0;
  /// Rows trained on.
  int64_t n_sampled = 0;
};

/// Lloyd's algorithm with Euclidean distances. Assignments are those of `topk` with k = 1 and l2 (ties to the lower
/// cluster); means are sums in double in the order of rows, so the answer is the same at any thread count. An empty
/// cluster takes over the row farthest from its centroid, ties to the lower row, as long as such a row is not one
/// already. Starts by greedy k-means++ (Arthur & Vassilvitskii 2007) on at most 64 rows per cluster; beyond 256
/// clusters by k-means|| (Bahmani et al. 2012), whose candidates k-means++ then reduces.
/// O(iterations · sampled rows · k · dim + n · k · dim).
Status kmeans(const KmeansArgs& args, const RunContext& context, KmeansResult* result);

}  // namespace waggle
