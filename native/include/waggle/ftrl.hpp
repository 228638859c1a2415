// FTRL-proximal logistic regression for streams: McMahan et al., "Ad Click Prediction: a View from the Trenches"
// (KDD 2013), Algorithm 1, on binomial counts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "waggle/sparse.hpp"

namespace waggle {

struct FtrlOptions {
  int64_t n_features = 0;
  double alpha = 0.1;  // 1e-12 to 1e12
  double beta = 1;     // 1e-12 to 1e12
  double l1 = 0;       // ≥ 0
  double l2 = 0;       // ≥ 0
  bool intercept = true;
};

struct FtrlLearned {
  int64_t n_rows = 0;       // of this call; fewer than given only when it was cancelled
  double total_weight = 0;  // Σ w t
  double loss = 0;          // Σ w (−s log p − (t − s) log(1 − p)), p before the row was learned
};

struct FtrlStats {
  FtrlOptions options;
  int64_t n_rows = 0;       // learned so far
  double total_weight = 0;  // of them
  double loss = 0;          // progressive, of them
  int64_t n_touched = 0;    // features seen with a gradient
  int64_t n_nonzero = 0;    // features whose weight is not 0
  int64_t bytes = 0;
};

/// Per-coordinate state of 16 bytes (z and n of Algorithm 1, in double). Not thread-safe: one call at a time.
class Ftrl {
 public:
  static Status create(const FtrlOptions& options, std::unique_ptr<Ftrl>* out);

  /// Learns the rows one after the other on this thread; nothing is learned when an input is wrong. Cancelled, it stops
  /// between two rows and `learned` says after how many: going on from there gives the same bits as never stopping.
  /// With `predictions` [n_rows], each row's probability before it was learned.
  ///
  /// The intercept is a coordinate without penalties. Repeated entries of a row share the row's weights and are
  /// applied in order. O(entries).
  Status learn(const SparseRows& rows, const SparseTargets& targets, double* predictions,
               const std::function<void(double)>& progress, const RunContext& context, FtrlLearned* learned);

  /// probabilities [n_rows]; rows are split over the pool.
  Status predict(const SparseRows& rows, const double* offset, const RunContext& context, double* probabilities) const;

  /// Every weight that is not 0, ascending by index.
  void weights(std::vector<int32_t>* indices, std::vector<double>* values, double* intercept) const;

  /// O(coordinates), for the counts; the two below cost nothing.
  FtrlStats stats() const;
  const FtrlOptions& options() const;
  int64_t bytes() const;

  /// Whole or not at all; only touched coordinates are written. What `load` gives learns on as this one would.
  Status save(const std::string& path, const RunContext& context) const;
  Status to_memory(std::vector<uint8_t>* out) const;
  static Status load(const std::string& path, const RunContext& context, std::unique_ptr<Ftrl>* out);
  /// The same for a copy of `bytes`, for tests and fuzzers.
  static Status from_memory(const void* bytes, int64_t size, const RunContext& context, std::unique_ptr<Ftrl>* out);

  ~Ftrl();
  Ftrl(const Ftrl&) = delete;
  Ftrl& operator=(const Ftrl&) = delete;

  struct State;  // see src/sparse/ftrl.cpp

 private:
  explicit Ftrl(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace waggle
