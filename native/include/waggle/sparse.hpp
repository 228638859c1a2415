// Sparse rows and what is to be learned from them, as the linear and factorised models take them.
#pragma once

#include <cstdint>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

constexpr int64_t kSparseMaxFeatures = int64_t{1} << 28;
constexpr int32_t kSparseMaxFields = 1024;

/// Compressed rows (CSR): row i is the entries [indptr[i], indptr[i + 1]). A row may name a feature more than once:
/// its entries add up.
struct SparseRows {
  int64_t n_rows = 0;
  const int32_t* indptr = nullptr;   // [n_rows + 1], ascending from 0
  const int32_t* indices = nullptr;  // [n_entries], 0 ≤ index < features of the model
  const float* values = nullptr;     // [n_entries], null = all 1
  const int32_t* fields = nullptr;   // [n_entries], null = place in the row; only field-aware models look
  int64_t n_entries = 0;             // readable at indices, values and fields

  float value(int64_t entry) const { return values != nullptr ? values[entry] : 1.0f; }
  int32_t field(int64_t row, int64_t entry) const {
    return fields != nullptr ? fields[entry] : static_cast<int32_t>(entry - indptr[row]);
  }
};

/// Binomial counts beside the rows; null trials and weights are 1, null offset is 0.
struct SparseTargets {
  const double* successes = nullptr;  // [n_rows], 0 ≤ s ≤ trials, fractions allowed
  const double* trials = nullptr;     // [n_rows], 0 to 1e50
  const double* weights = nullptr;    // [n_rows], 0 to 1e50
  const double* offset = nullptr;     // [n_rows], up to ±1e100, added to the linear predictor

  double trial(int64_t row) const { return trials != nullptr ? trials[row] : 1.0; }
  double weight(int64_t row) const { return weights != nullptr ? weights[row] : 1.0; }
  double shift(int64_t row) const { return offset != nullptr ? offset[row] : 0.0; }
};

/// kInvalidArgument, kNotFinite or kShape naming the first row that is wrong. Every entry is read once, on all threads.
/// `n_fields` 0 = fields do not matter.
Status check_sparse_rows(const SparseRows& rows, int64_t n_features, int32_t n_fields, const RunContext& context);
Status check_sparse_targets(const SparseTargets& targets, int64_t n_rows);
/// The offset alone.
Status check_sparse_offset(const double* offset, int64_t n_rows);

}  // namespace waggle
