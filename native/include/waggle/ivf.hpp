// Approximate nearest rows of large sets: rows in lists around trained centroids, of which a search reads the nearest.
// How many it must read for a recall is measured on the caller's data and stored with the index.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "waggle/ops/topk.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int32_t kIvfMaxLists = 65536;
constexpr int64_t kIvfMaxDim = 65536;

struct IvfBuildArgs {
  Matrix<const float> matrix;  // [n_rows × dim], 1 … 2^31 − 1 rows; only read while building
  Metric metric = Metric::kInnerProduct;
  /// 0 = 4·√n_rows. Fewer are made when rows are too few or too alike.
  int32_t n_lists = 0;
  /// Lists as int8 codes (a quarter of the memory), else the rows themselves are scanned.
  bool int8_lists = true;
  /// Keep a copy of the rows: the best candidates are re-scored, so that scores are those of `topk` to the bit. Without
  /// int8 lists the rows are kept in any case.
  bool keep_rows = true;
  /// Lists to probe are chosen so that a search for `recall_k` finds this share of the true answer, on average over
  /// `held_out`, less one standard error.
  double recall = 0.95;
  int32_t recall_k = 10;
  /// [n × dim] queries like those to come, none of them a row. Without any, `n_sample` rows stand in, each ignored in
  /// its own answer.
  Matrix<const float> held_out;
  int32_t n_sample = 256;
  uint64_t seed = 1;
  /// Called from the building thread with a stage (0 train, 1 assign, 2 encode, 3 measure) and its part done, 0 … 1.
  std::function<void(int stage, double done)> progress;
};

struct IvfSearchArgs {
  Matrix<const float> queries;  // [n_queries × dim]
  int32_t k = 0;                // 1 … kTopkMaxK
  /// 0 = what the build chose.
  int32_t n_probe = 0;
  RowFilter filter;
  float* scores = nullptr;  // [n_queries × k], best first, -infinity pads
  int32_t* rows = nullptr;  // [n_queries × k], -1 pads
};

/// What a search did, summed over its queries.
struct IvfSearchReport {
  int64_t rows_scanned = 0;
  int64_t lists_probed = 0;
  /// Queries whose filter was so strong that every allowed row was read instead: their answer is exact (to the
  /// precision of the codes, where no rows were kept).
  int64_t exhaustive = 0;
};

struct IvfRecallPoint {
  int32_t n_probe = 0;
  double recall = 0;
  double standard_error = 0;
};

struct IvfStats {
  int64_t n_rows = 0;
  int64_t dim = 0;
  Metric metric = Metric::kInnerProduct;
  int32_t n_lists = 0;
  bool int8_lists = false;
  bool keeps_rows = false;
  int32_t n_probe = 0;
  double recall_target = 0;
  int32_t recall_k = 0;
  int64_t n_measured = 0;  // queries behind the curve
  bool held_out = false;   // given queries, else rows
  std::vector<IvfRecallPoint> curve;
  int64_t largest_list = 0;
  int64_t bytes = 0;  // memory, mapped memory included
};

/// Immutable; any number of threads may search at once.
class IvfIndex {
 public:
  /// Deterministic for a seed at any thread count. kNotFinite names the first row that holds NaN or infinity or whose
  /// squared length exceeds 1e36. O(n_rows · n_lists · dim) byte operations for the lists, plus an exact search of the
  /// rows for the queries of the measurement.
  static Status build(const IvfBuildArgs& args, const RunContext& context, std::shared_ptr<const IvfIndex>* out);

  /// The k best rows among the probed lists, ties to the lower row. The answer to a query depends neither on the other
  /// queries of the call nor on threads. Scores are those of topk when rows are kept, else approximations.
  ///
  /// Under a filter, lists are probed until they hold as many allowed rows as an unfiltered search would read; when
  /// that costs more than reading all allowed rows, those are read.
  Status search(const IvfSearchArgs& args, const RunContext& context, IvfSearchReport* report) const;

  /// Writes the file whole or not at all. Same bytes for the same index.
  Status save(const std::string& path, const RunContext& context) const;
  Status to_memory(std::vector<uint8_t>* out) const;

  /// Maps a file that `save` wrote; every byte is checked. kFile says what is wrong with it.
  static Status load(const std::string& path, const RunContext& context, std::shared_ptr<const IvfIndex>* out);
  /// The same for a copy of `bytes`, for tests and fuzzers.
  static Status from_memory(const void* bytes, int64_t size, const RunContext& context,
                            std::shared_ptr<const IvfIndex>* out);

  IvfStats stats() const;

  ~IvfIndex();
  IvfIndex(const IvfIndex&) = delete;
  IvfIndex& operator=(const IvfIndex&) = delete;

  struct Parts;  // see src/ivf/parts.hpp

 private:
  explicit IvfIndex(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace waggle
