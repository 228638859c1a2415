// The second of a search's two steps: of the rows that a scan wrote down, those that belong to the answer.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/matrix.hpp"
#include "cuda/ops/bounds.cuh"
#include "cuda/ops/scan.cuh"

namespace waggle::cuda {

constexpr int kMaxK = 2048;

/// What a selection reads and writes. A query whose list overflowed, or whose guess was wrong, raises the flag; with an
/// overflow it keeps its best as they were.
struct Select {
  MatrixView matrix;              // as scanned: facts by scanned row
  const float* d_exact;           // rows to score exactly, or null
  const int32_t* d_row_numbers;   // of gathered rows; null: row i is row i
  const float* d_queries;         // [n_queries × dim]
  const RowFacts* d_query_facts;  // [n_queries]
  QueryTest* d_tests;             // [n_queries], updated
  int32_t n_queries;
  int32_t metric;
  int32_t k;
  float roundoff;
  unsigned long long* d_lists;  // [n_queries × kListed], as Scan's
  unsigned* d_counts;           // [n_queries], updated
  unsigned long long* d_best;   // [n_queries × k] keys, best first, kNoKey pads
  float* d_guesses;  // [n_queries], or null: thresholds that a scan was made with and that the answer must prove right
  int32_t* d_overflow;
  unsigned long long* d_bad_row;
  unsigned long long* d_rescored;
};

/// What a dense scan wrote: its rows, and the filter it did not ask.
struct Dense {
  int32_t n_rows = 0;  // 0: the scan was not dense
  const uint8_t* d_filter = nullptr;
  int64_t filter_stride = 0;
};

/// From a sample's list the threshold for a scan of more: the scanned score of its `rank`-th best, or none where it has
/// fewer. Becomes the tests and the guesses; lists are emptied.
int32_t launch_guess(const Select& select, const Dense& dense, int rank, cudaStream_t stream, waggle_text* error);

/// Throws out of the lists what the lists themselves exclude; the k-th lower bound becomes the threshold of the tests.
/// The best stay as they are.
int32_t launch_narrow(const Select& select, const Dense& dense, cudaStream_t stream, waggle_text* error);

/// After a narrowing: scores exactly what the lists still hold, merges it into the best and leaves the lists empty.
/// Without exact rows (select.d_exact null) no narrowing is needed, and the scanned scores count.
int32_t launch_merge(const Select& select, const Dense& dense, cudaStream_t stream, waggle_text* error);

/// For counting, or writing down, what is in doubt after a search without exact rows: the tests become "could reach the
/// lowest lower bound of the answer", and where the answer has fewer than k rows, "no" to all, or "yes" if `open`.
/// Lists are emptied.
int32_t launch_doubt(const Select& select, const MatrixView& original, bool open, cudaStream_t stream,
                     waggle_text* error);

}  // namespace waggle::cuda
