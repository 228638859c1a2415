// K-means on int8 codes: the coarse quantiser of an IVF index. Codes cost a quarter of the memory traffic of floats and
// a quarter of the multiply instructions, and a list that is a hair off the nearest costs an index nothing. Where exact
// assignments matter, use the operation `kmeans`.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/table.hpp"
#include "src/ivf/codes.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle::ivf {

/// Rows as they are clustered: x · factor − mean.
struct Space {
  Matrix<const float> matrix;
  const float* factor = nullptr;  // [rows], null = 1
  std::vector<float> mean;        // [dim]

  float factor_of(int64_t row) const { return factor == nullptr ? 1.0f : factor[row]; }
};

/// Centroids (less the mean of their space) and their codes. bias = −‖c‖²/2: the best score x · c + bias is the
/// nearest.
struct Centroids {
  int64_t dim = 0;
  int64_t quads = 0;
  std::vector<float> values;  // [n × dim]
  std::vector<uint8_t> groups;
  std::vector<float> scale;
  std::vector<float> bias;

  int64_t count() const { return dim == 0 ? 0 : static_cast<int64_t>(values.size()) / dim; }
  /// Makes codes, scale and bias out of `values`.
  void encode(const cpu::Table& table);
};

struct TrainOptions {
  int64_t n_lists = 0;
  uint64_t seed = 0;
  int64_t samples_per_list = 64;
  int32_t flat_iterations = 4;
  std::function<void(double)> progress;  // 0 … 1
};

/// Trains `n_lists` centroids, fewer when the sample holds fewer distinct rows: k-means++ (greedy, sixteen candidates a
/// step) over √n_lists clusters, again within each, then Lloyd's iterations over all of them. Sums in double in the
/// order of rows: the same bits at any thread count. Sets space.mean. O(sample · n_lists · dim · flat_iterations).
Status train(const cpu::Table& table, Space& space, const TrainOptions& options, const RunContext& context,
             Centroids* out);

/// labels[r] = the centroid nearest row r, to the precision of the codes, ties to the lower.
Status assign(const cpu::Table& table, const Space& space, const Centroids& centroids, const RunContext& context,
              const std::function<void(double)>& progress, int32_t* labels);

}  // namespace waggle::ivf
