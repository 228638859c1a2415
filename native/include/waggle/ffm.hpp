// Field-aware factorisation machines: Juan et al., "Field-aware Factorization Machines for CTR Prediction" (RecSys
// 2016), on binomial counts, with linear terms and an intercept.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "waggle/sparse.hpp"

namespace waggle {

constexpr int32_t kFfmMaxK = 128;

/// logit = b + Σⱼ wⱼ xⱼ + Σ over pairs of entries of xⱼ xₗ ⟨v of j for the field of l, v of l for the field of j⟩
struct FfmOptions {
  int64_t n_features = 0;
  int32_t n_fields = 0;
  int32_t k = 4;
  double learning_rate = 0.1;  // of AdaGrad, > 0
  double accumulator = 0.1;    // what its sums of squares start with, > 0
  double l2 = 2e-3;            // ≥ 0, on the interaction weights that a row touches
  double linear_l2 = 1e-5;     // ≥ 0, on the wⱼ that a row touches
  bool normalize = false;      // a row is divided by its length first
  bool linear = true;          // intercept and wⱼ; else interactions alone
  uint64_t seed = 1;           // of the first weights and the order of rows
};

enum class FfmSchedule : int32_t {
  /// Row after row on one thread: the same bits for a seed on one machine.
  kOrdered = 0,
  /// All threads write the same weights without locks (Niu et al. 2011): faster, and different every time.
  kHogwild = 1,
};

struct FfmFitArgs {
  SparseRows rows;
  SparseTargets targets;
  int32_t epochs = 1;
  bool shuffle = true;
  FfmSchedule schedule = FfmSchedule::kOrdered;
  SparseRows validation;  // n_rows 0 = none
  SparseTargets validation_targets;
  int32_t patience = 0;                           // epochs without a better validation loss; 0 = never stop early
  std::function<void(int32_t, double)> progress;  // epochs of this call that are done, part of the next

  double* train_loss = nullptr;       // out [epochs], mean over the rows before each was learned
  double* validation_loss = nullptr;  // out [epochs], with validation rows
};

struct FfmFitResult {
  int32_t epochs_run = 0;
  int32_t best_epoch = 0;  // of this call, from 1; the last one without validation rows
};

struct FfmStats {
  FfmOptions options;
  int64_t epochs = 0;  // behind the weights, over all calls
  int64_t bytes = 0;
};

/// Not thread-safe: one call at a time.
class Ffm {
 public:
  static Status create(const FfmOptions& options, std::unique_ptr<Ffm>* out);

  /// Epochs of AdaGrad, each over all rows in an order that depends on the seed and the number of epochs before it:
  /// 2 epochs, saving, loading and 3 more give the bits of 5. With validation rows the weights of the best epoch are
  /// kept, earlier ones on ties. On failure or when cancelled, the model is what it was before the call.
  /// The first fit starts the intercept at the log-odds of its rows. O(epochs · Σ entries² · k).
  Status fit(const FfmFitArgs& args, const RunContext& context, FfmFitResult* result);

  /// probabilities [n_rows]; rows are split over the pool; the same bits alone and in any batch.
  Status predict(const SparseRows& rows, const double* offset, const RunContext& context, double* probabilities) const;

  /// linear [n_features], interactions [n_features × n_fields × k].
  void weights(double* intercept, float* linear, float* interactions) const;

  FfmStats stats() const;
  const FfmOptions& options() const;
  int64_t bytes() const;

  /// Whole or not at all. What `load` gives is fitted on as this one would be.
  Status save(const std::string& path, const RunContext& context) const;
  Status to_memory(std::vector<uint8_t>* out) const;
  static Status load(const std::string& path, const RunContext& context, std::unique_ptr<Ffm>* out);
  /// The same for a copy of `bytes`, for tests and fuzzers.
  static Status from_memory(const void* bytes, int64_t size, const RunContext& context, std::unique_ptr<Ffm>* out);

  ~Ffm();
  Ffm(const Ffm&) = delete;
  Ffm& operator=(const Ffm&) = delete;

  struct State;  // see src/sparse/ffm_state.hpp

 private:
  explicit Ffm(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace waggle
