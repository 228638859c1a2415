// Top-k against a resident matrix: scan, narrow, look closely.
//
// A scan (scan.cuh) computes scores in low precision and writes down, per query, the few rows that could still belong
// to the answer (bounds.cuh). What is written down is narrowed to what it does not itself exclude and that is scored
// exactly (select.cuh). The threshold of the scan comes from samples (Guessing); the answer proves it right, or the
// search is repeated without. Few rows are searched without guessing in chunks that grow (Plan): with rows in no
// particular order a chunk g times as long as everything before it adds about k·g rows per query. A list that overflows
// (many equal rows) has the search repeated in parts, down to parts that cannot overflow. No score matrix is ever
// written.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/scan.cuh"
#include "cuda/ops/select.cuh"
#include "cuda/ops/topk.cuh"
#include "cuda/resources.hpp"

namespace waggle::cuda {

namespace {

constexpr int64_t kQueriesAtOnce = 4096;
constexpr int64_t kBitmapBytes = int64_t{1} << 30;   // of bitmaps that queries bring along, at once
constexpr int64_t kSafeTiles = kListed / kTileRows;  // rows of a chunk that no list can overflow with
constexpr int64_t kCarefulGrowth = 4;

// Places of the flags before the best.
constexpr int kBadRow = 0;
constexpr int kRescored = 1;
constexpr int kOverflow = 2;
constexpr int kFlags = 3;

struct Plan {
  int64_t first_tiles;  // scanned without a test
  double growth;        // chunk i + 1 ends this many times as far as chunk i
  /// Where low precision leaves much in doubt, only exact scores give a threshold that excludes enough.
  bool merges_each_chunk;
};

// Rows listed per row of the answer: 1, and those that only low precision lets through.
double listed_per_row(int32_t dtype) { return dtype == WAGGLE_DTYPE_INT8 ? 5.0 : 1.5; }

Plan plan_of(int32_t dtype, int32_t k, int n_queries, int64_t tiles) {
  Plan plan;
  plan.first_tiles = std::clamp<int64_t>((2 * int64_t{k} + kTileRows - 1) / kTileRows, 16, kSafeTiles);
  // What fits the lists is one limit; the other is that listing costs the scan time, where there are many queries, and
  // each chunk costs its own, where there is one.
  const double most = n_queries == 1 ? 32.0 : dtype == WAGGLE_DTYPE_INT8 ? 6.0 : 9.0;
  const double limit = std::clamp(0.75 * kListed / (listed_per_row(dtype) * k), 2.0, most);
  // As many chunks as that takes, each the same times as long.
  const double ratio = static_cast<double>(std::max(tiles, plan.first_tiles)) / static_cast<double>(plan.first_tiles);
  const double chunks = std::max(1.0, std::ceil(std::log(ratio) / std::log(limit)));
  plan.growth = std::pow(ratio, 1.0 / chunks);
  plan.merges_each_chunk = dtype == WAGGLE_DTYPE_INT8;
  return plan;
}

// For many rows: samples of every so-many-th tile, each larger than the last, whose rank-th best score is the threshold
// for the next and in the end for all rows. One pass over the matrix then writes down a few hundred rows per query.
struct Guessing {
  std::vector<int64_t> tiles;  // of each sample; none: do without guessing
  std::vector<int> ranks;      // from each sample, for the next
};

// The rank in a sample from which, in `ratio` times as many rows, fewer than `needed` are found once in some 10^8 times
// (the count is negative binomial with mean rank · ratio).
int rank_for(double needed, double ratio) {
  const double expected = needed / ratio;
  return static_cast<int>(std::ceil(expected + 5 * std::sqrt(expected) + 5));
}

Guessing guessing_for(int32_t dtype, int32_t k, int64_t tiles) {
#if defined(WAGGLE_CUDA_SMALL_PIECES)
  constexpr int64_t kWorthGuessing = 40;  // tiles; what the emulator can do within a test
#else
  constexpr int64_t kWorthGuessing = 1024;
#endif
  constexpr double kLargestRatio = 64;
  Guessing guessing;
  if (tiles < kWorthGuessing) return guessing;
  const int64_t first = std::clamp<int64_t>(
      static_cast<int64_t>(static_cast<double>(tiles) / (kLargestRatio * kLargestRatio)) + 1, 16, kSafeTiles);
  const double steps =
      std::ceil(std::log(static_cast<double>(tiles) / static_cast<double>(first)) / std::log(kLargestRatio));
  const double ratio = std::pow(static_cast<double>(tiles) / static_cast<double>(first), 1.0 / steps);
  double needed = k;
  for (int step = static_cast<int>(steps) - 1; step >= 0; --step) {
    const int rank = rank_for(needed, ratio);
    if (rank * ratio * listed_per_row(dtype) > 0.75 * kListed) return {};
    guessing.tiles.insert(guessing.tiles.begin(),
                          static_cast<int64_t>(static_cast<double>(first) * std::pow(ratio, step)));
    guessing.ranks.insert(guessing.ranks.begin(), rank);
    needed = rank;
  }
  return guessing;
}

// Grid: results / 256, at most 1,024 blocks. Sets every list empty, every test open, and the results to no key and no
// bad row. exact_query: the scan multiplies with the query itself.
__global__ void prepare_kernel(RowFacts* d_query_facts, int n_queries, int metric, bool exact_query, QueryTest* d_tests,
                               unsigned* d_counts, unsigned long long* d_results, int64_t n_results) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = thread; i < n_results; i += threads) {
    d_results[i] = i == kRescored || i == kOverflow ? 0 : kNoKey;
  }
  const int query = static_cast<int>(thread);
  if (thread >= n_queries) return;
  if (exact_query) {
    d_query_facts[query].scale = 1.0f;
    d_query_facts[query].error = 0.0f;
  }
  d_tests[query] = query_test(metric, d_query_facts[query], -INFINITY);
  d_counts[query] = 0;
}

// Rows chosen by number, brought together as tiles of their own. Grid: one block of 8 warps per 8 gathered rows.
__global__ void gather_kernel(MatrixView from, const int32_t* d_numbers, int64_t n_gathered, int64_t padded,
                              unsigned char* d_tiles, RowFacts* d_facts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32;
  if (i >= padded) return;
  const int to_row = static_cast<int>(i % kTileRows);
  unsigned char* to = d_tiles + i / kTileRows * from.n_blocks * kTileBytes + to_row * kBlockBytes;
  const int64_t source = i < n_gathered ? d_numbers[i] : -1;
  const int from_row = static_cast<int>(source % kTileRows);
  const unsigned char* at = from.d_tiles + source / kTileRows * from.n_blocks * kTileBytes + from_row * kBlockBytes;
  for (int piece = lane; piece < from.n_blocks * 8; piece += 32) {
    const int64_t block = piece / 8;
    const int chunk = piece % 8;
    uint4 bits = {0, 0, 0, 0};
    if (source >= 0) {
      bits = *reinterpret_cast<const uint4*>(at + block * kTileBytes + ((chunk ^ (from_row & 7)) * 16));
    }
    *reinterpret_cast<uint4*>(to + block * kTileBytes + ((chunk ^ (to_row & 7)) * 16)) = bits;
  }
  if (lane == 0) d_facts[i] = source >= 0 ? from.d_facts[source] : RowFacts{1, 0, 0, 0};
}

unsigned long long host_key_of(float score, uint32_t row) {
  const float positive_zero = score + 0.0f;
  uint32_t bits = 0;
  __builtin_memcpy(&bits, &positive_zero, sizeof bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<unsigned long long>(~bits) << 32) | row;
}

// Rows that a bitmap shared by all queries allows, when they are few enough to be worth gathering.
bool few_allowed_rows(const uint8_t* filter, int64_t n_rows, std::vector<int32_t>* rows) {
  int64_t allowed = 0;
  const int64_t bytes = n_rows / 8;
  for (int64_t i = 0; i < bytes; ++i) allowed += __builtin_popcount(filter[i]);
  for (int64_t r = bytes * 8; r < n_rows; ++r) allowed += (filter[r >> 3] >> (r & 7)) & 1;
  if (allowed * 4 > n_rows) return false;
  rows->reserve(static_cast<size_t>(allowed));
  for (int64_t i = 0; i * 8 < n_rows; ++i) {
    for (unsigned bits = filter[i]; bits != 0; bits &= bits - 1) {
      const int64_t row = i * 8 + __builtin_ctz(bits);
      if (row < n_rows) rows->push_back(static_cast<int32_t>(row));
    }
  }
  return true;
}

// One batch of queries against one matrix, gathered or whole.
class Search {
 public:
  Search(State& state, const MatrixView& matrix, const waggle_topk_args& args, int64_t first_query, int n_queries,
         cudaStream_t stream)
      : state_(state), args_(args), stream_(stream), original_(matrix), first_query_(first_query) {
    scan_.matrix = matrix;
    scan_.n_queries = n_queries;
    scan_.metric = args.metric;
    scan_.roundoff = roundoff_of(matrix.dim, matrix.dtype);
    select_.d_exact = matrix.d_exact;
    select_.n_queries = n_queries;
    select_.metric = args.metric;
    select_.k = args.k;
    select_.roundoff = scan_.roundoff;
  }

  /// best: [n_queries × k] keys, valid until the next search.
  int32_t run(const std::vector<int32_t>* gathered, const unsigned long long** best, int64_t* n_rescored,
              int64_t* n_in_doubt, unsigned long long* bad_row, waggle_text* error) {
    const int64_t dim = scan_.matrix.dim;
    const int n = scan_.n_queries;
    const int64_t query_rows = row_tiles(n) * kTileRows;
    Scratch& scratch = state_.scratch;
    scratch.reset();
    float* d_queries = nullptr;
    unsigned char* d_query_tiles = nullptr;
    RowFacts* d_query_facts = nullptr;
    QueryTest* d_tests = nullptr;
    n_results_ = kFlags + static_cast<int64_t>(n) * args_.k;
    WAGGLE_TRY(scratch.take(&d_queries, n * dim, error));
    WAGGLE_TRY(scratch.take(&d_query_tiles, row_tiles(n) * scan_.matrix.n_blocks * kTileBytes, error));
    WAGGLE_TRY(scratch.take(&d_query_facts, query_rows, error));
    WAGGLE_TRY(scratch.take(&d_tests, n, error));
    WAGGLE_TRY(scratch.take(&d_counts_, n, error));
    WAGGLE_TRY(scratch.take(&d_lists_, static_cast<int64_t>(n) * kListed, error));
    WAGGLE_TRY(scratch.take(&d_results_, n_results_, error));
    WAGGLE_TRY(state_.staging.take(&h_results_, n_results_, error));
    d_best_ = d_results_ + kFlags;

    float* h_queries = nullptr;
    WAGGLE_TRY(state_.staging.take(&h_queries, n * dim, error));
    std::copy_n(args_.queries + first_query_ * dim, n * dim, h_queries);
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(d_queries, h_queries, static_cast<size_t>(n * dim) * 4, cudaMemcpyHostToDevice, stream_));
    // The host has seen that the queries are finite: no bad row is found here.
    WAGGLE_TRY(launch_encode(d_queries, 0, n, dim, scan_.matrix.dtype, d_query_tiles, d_query_facts,
                             d_results_ + kBadRow, stream_, error));
    const bool alone = n == 1 && dim <= kMaxScanOneDim;
    const bool exact_query = alone && scan_.matrix.dtype != WAGGLE_DTYPE_INT8;
    const auto prepare = [&]() -> int32_t {
      const int64_t blocks = std::min<int64_t>(1024, (std::max<int64_t>(n_results_, n) + 255) / 256);
      WAGGLE_LAUNCH(prepare_kernel, dim3(static_cast<unsigned>(blocks)), dim3(256), 0, stream_, d_query_facts, n,
                    args_.metric, exact_query, d_tests, d_counts_, d_results_, n_results_);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
      return WAGGLE_BACKEND_OK;
    };
    WAGGLE_TRY(prepare());

    scan_.d_query_tiles = d_query_tiles;
    scan_.d_tests = d_tests;
    scan_.d_lists = d_lists_;
    scan_.d_counts = d_counts_;
    if (gathered != nullptr) {
      const int32_t answer = gather(*gathered, error);
      if (answer != WAGGLE_BACKEND_OUT_OF_MEMORY) WAGGLE_TRY(answer);
      // The allowed rows do not fit beside the matrix: the bitmap does the same where they lie.
      if (answer == WAGGLE_BACKEND_OUT_OF_MEMORY) gathered = nullptr;
    }
    if (gathered == nullptr && args_.filter != nullptr) {
      const int64_t row_bytes = (scan_.matrix.n_rows + 7) / 8;
      uint8_t* d_filter = nullptr;
      if (args_.filter_stride == 0) {
        WAGGLE_TRY(scratch.take(&d_filter, row_bytes, error));
        WAGGLE_CUDA_CHECK(
            cudaMemcpyAsync(d_filter, args_.filter, static_cast<size_t>(row_bytes), cudaMemcpyHostToDevice, stream_));
      } else {
        WAGGLE_TRY(scratch.take(&d_filter, n * row_bytes, error));
        WAGGLE_CUDA_CHECK(cudaMemcpy2DAsync(d_filter, static_cast<size_t>(row_bytes),
                                            args_.filter + first_query_ * args_.filter_stride,
                                            static_cast<size_t>(args_.filter_stride), static_cast<size_t>(row_bytes),
                                            static_cast<size_t>(n), cudaMemcpyHostToDevice, stream_));
        scan_.filter_stride = row_bytes;
      }
      scan_.d_filter = d_filter;
    }
    select_.matrix = scan_.matrix;
    select_.d_queries = d_queries;
    select_.d_query_facts = d_query_facts;
    select_.d_tests = d_tests;
    select_.d_lists = d_lists_;
    select_.d_counts = d_counts_;
    select_.d_best = d_best_;
    select_.d_overflow = reinterpret_cast<int32_t*>(d_results_ + kOverflow);
    select_.d_bad_row = d_results_ + kBadRow;
    select_.d_rescored = d_results_ + kRescored;
    d_query_ = alone ? d_queries : nullptr;

    // In one go first, the flag looked at once at the end; after an overflow or a wrong guess again, chunk by chunk.
    const int64_t tiles = row_tiles(scan_.matrix.n_rows);
    const Guessing guessing = guessing_for(scan_.matrix.dtype, args_.k, tiles);
    WAGGLE_TRY(guessing.tiles.empty() ? growing(tiles, error) : guess(guessing, tiles, error));
    WAGGLE_TRY(fetch_results(error));
    if (has_overflowed()) {
      // Starting again from what is there would repeat rows that are in the best already.
      select_.d_guesses = nullptr;
      WAGGLE_TRY(prepare());
      WAGGLE_TRY(carefully(tiles, error));
      WAGGLE_TRY(fetch_results(error));
    }
    if (select_.d_exact == nullptr && args_.score_pairs != nullptr) {
      WAGGLE_TRY(settle_on_host(tiles, gathered, error));
    } else if (select_.d_exact == nullptr) {
      WAGGLE_TRY(count_doubts(tiles, n_in_doubt, error));
    }
    *n_rescored += static_cast<int64_t>(h_results_[kRescored]);
    *bad_row = h_results_[kBadRow];
    *best = h_results_ + kFlags;
    return WAGGLE_BACKEND_OK;
  }

 private:
  int32_t gather(const std::vector<int32_t>& rows, waggle_text* error) {
    const int64_t count = static_cast<int64_t>(rows.size());
    const int64_t padded = row_tiles(count) * kTileRows;
    int32_t* d_numbers = nullptr;
    unsigned char* d_tiles = nullptr;
    RowFacts* d_facts = nullptr;
    WAGGLE_TRY(state_.scratch.take(&d_numbers, std::max<int64_t>(count, 1), error));
    WAGGLE_TRY(state_.scratch.take(&d_tiles, row_tiles(count) * scan_.matrix.n_blocks * kTileBytes, error));
    WAGGLE_TRY(state_.scratch.take(&d_facts, std::max<int64_t>(padded, 1), error));
    if (count > 0) {
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_numbers, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice, stream_));
      WAGGLE_LAUNCH(gather_kernel, dim3(static_cast<unsigned>((padded + 7) / 8)), dim3(256), 0, stream_, scan_.matrix,
                    d_numbers, count, padded, d_tiles, d_facts);
      WAGGLE_CUDA_CHECK(cudaGetLastError());
    }
    scan_.matrix.d_tiles = d_tiles;
    scan_.matrix.d_facts = d_facts;
    scan_.matrix.n_rows = count;
    select_.d_row_numbers = d_numbers;
    return WAGGLE_BACKEND_OK;
  }

  // One scan of every stride-th tile; `dense` gets what it wrote.
  int32_t scan(int64_t first, int64_t end, int64_t stride, bool is_dense, Dense* dense, waggle_text* error) {
    scan_.first_tile = first;
    scan_.end_tile = end;
    scan_.tile_stride = stride;
    scan_.dense = is_dense;
    scan_.listed = kListed;
    *dense = {};
    if (is_dense) {
      const int64_t last = (end - first - 1) / stride;
      dense->n_rows = static_cast<int32_t>(
          last * kTileRows + std::min<int64_t>(kTileRows, scan_.matrix.n_rows - (first + last * stride) * kTileRows));
      dense->d_filter = scan_.d_filter;
      dense->filter_stride = scan_.filter_stride;
    }
    return launch_scan(state_, scan_, d_query_, stream_, error);
  }

  int32_t chunk(int64_t first, int64_t end, bool is_dense, bool merge, waggle_text* error) {
    Dense dense;
    WAGGLE_TRY(scan(first, end, 1, is_dense, &dense, error));
    if (select_.d_exact != nullptr) WAGGLE_TRY(launch_narrow(select_, dense, stream_, error));
    return merge ? launch_merge(select_, dense, stream_, error) : WAGGLE_BACKEND_OK;
  }

  int32_t growing(int64_t tiles, waggle_text* error) {
    const Plan plan = plan_of(scan_.matrix.dtype, args_.k, scan_.n_queries, tiles);
    for (int64_t first = 0; first < tiles;) {
      if (cancelled()) return stop(error);
      const int64_t grown = static_cast<int64_t>(std::ceil(static_cast<double>(first) * plan.growth));
      const int64_t end = std::min(tiles, first == 0 ? plan.first_tiles : std::max(grown, first + 1));
      const bool merge = plan.merges_each_chunk || select_.d_exact == nullptr || end == tiles;
      WAGGLE_TRY(chunk(first, end, first == 0, merge, error));
      first = end;
    }
    return WAGGLE_BACKEND_OK;
  }

  int32_t guess(const Guessing& guessing, int64_t tiles, waggle_text* error) {
    WAGGLE_TRY(state_.scratch.take(&select_.d_guesses, scan_.n_queries, error));
    for (size_t i = 0; i < guessing.tiles.size(); ++i) {
      if (cancelled()) return stop(error);
      const int64_t stride = tiles / guessing.tiles[i];
      Dense dense;
      WAGGLE_TRY(scan(0, guessing.tiles[i] * stride, stride, i == 0, &dense, error));
      WAGGLE_TRY(launch_guess(select_, dense, guessing.ranks[i], stream_, error));
    }
    if (cancelled()) return stop(error);
    return chunk(0, tiles, false, true, error);
  }

  // Waits for everything before it.
  int32_t fetch_results(waggle_text* error) {
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(h_results_, d_results_, static_cast<size_t>(n_results_) * 8, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
    return WAGGLE_BACKEND_OK;
  }
  bool has_overflowed() const { return static_cast<int32_t>(h_results_[kOverflow]) != 0; }

  // After an answer without exact rows: how many rows might belong to it and are not in it.
  int32_t count_doubts(int64_t tiles, int64_t* n_in_doubt, waggle_text* error) {
    const size_t n = static_cast<size_t>(scan_.n_queries);
    unsigned* h_counts = nullptr;
    WAGGLE_TRY(state_.staging.take(&h_counts, scan_.n_queries, error));
    WAGGLE_TRY(launch_doubt(select_, original_, false, stream_, error));
    scan_.first_tile = 0;
    scan_.end_tile = tiles;
    scan_.tile_stride = 1;
    scan_.dense = false;
    scan_.listed = 0;
    WAGGLE_TRY(launch_scan(state_, scan_, d_query_, stream_, error));
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_counts, d_counts_, n * 4, cudaMemcpyDeviceToHost, stream_));
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
    for (size_t q = 0; q < n; ++q) *n_in_doubt += std::max<int64_t>(0, int64_t{h_counts[q]} - args_.k);
    return WAGGLE_BACKEND_OK;
  }

  // After an answer without exact rows: writes down all that might belong to it, and has the host score that exactly.
  int32_t settle_on_host(int64_t tiles, const std::vector<int32_t>* gathered, waggle_text* error) {
    const size_t n = static_cast<size_t>(scan_.n_queries);
    unsigned* h_counts = nullptr;
    unsigned long long* h_lists = nullptr;
    WAGGLE_TRY(state_.staging.take(&h_counts, scan_.n_queries, error));
    WAGGLE_TRY(launch_doubt(select_, original_, true, stream_, error));
    scan_.dense = false;
    scan_.tile_stride = 1;
    scan_.listed = kListed;
    std::vector<int32_t> queries;
    std::vector<int32_t> rows;
    int64_t listed_most = 0;  // entries per query that h_lists holds
    int64_t length = std::max<int64_t>(tiles, 1);
    for (int64_t first = 0; first < tiles;) {
      if (cancelled()) return stop(error);
      scan_.first_tile = first;
      scan_.end_tile = std::min(tiles, first + length);
      WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_counts_, 0, n * 4, stream_));
      WAGGLE_TRY(launch_scan(state_, scan_, d_query_, stream_, error));
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_counts, d_counts_, n * 4, cudaMemcpyDeviceToHost, stream_));
      WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
      const int64_t most = *std::max_element(h_counts, h_counts + n);
      if (most > kListed) {
        length = std::max(kSafeTiles, length / 2);
        continue;
      }
      if (most > listed_most) {
        listed_most = most;
        WAGGLE_TRY(state_.staging.take(&h_lists, scan_.n_queries * listed_most, error));
      }
      if (most > 0) {
        WAGGLE_CUDA_CHECK(cudaMemcpy2DAsync(h_lists, static_cast<size_t>(listed_most) * 8, d_lists_, kListed * 8,
                                            static_cast<size_t>(most) * 8, n, cudaMemcpyDeviceToHost, stream_));
        WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
      }
      for (size_t q = 0; q < n; ++q) {
        for (unsigned i = 0; i < h_counts[q]; ++i) {
          const auto scanned = static_cast<uint32_t>(h_lists[q * static_cast<size_t>(listed_most) + i] & 0xffffffffu);
          queries.push_back(static_cast<int32_t>(first_query_ + static_cast<int64_t>(q)));
          rows.push_back(gathered != nullptr ? (*gathered)[scanned] : static_cast<int32_t>(scanned));
        }
      }
      first = scan_.end_tile;
    }
    std::vector<float> scores(rows.size());
    if (const int32_t scored = args_.score_pairs(args_.score_context, static_cast<int64_t>(rows.size()), queries.data(),
                                                 rows.data(), scores.data());
        scored != WAGGLE_BACKEND_OK) {
      return fail(error, scored, "the host's rows could not be read");
    }
    std::vector<std::vector<unsigned long long>> keys(n);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!std::isfinite(scores[i])) {
        h_results_[kBadRow] = std::min<unsigned long long>(h_results_[kBadRow], static_cast<uint32_t>(rows[i]));
        continue;
      }
      keys[static_cast<size_t>(queries[i] - first_query_)].push_back(
          host_key_of(scores[i], static_cast<uint32_t>(rows[i])));
    }
    for (size_t q = 0; q < n; ++q) {
      const size_t k = std::min(keys[q].size(), static_cast<size_t>(args_.k));
      std::partial_sort(keys[q].begin(), keys[q].begin() + static_cast<std::ptrdiff_t>(k), keys[q].end());
      unsigned long long* best = h_results_ + kFlags + q * static_cast<size_t>(args_.k);
      std::fill(best, best + args_.k, kNoKey);
      std::copy_n(keys[q].begin(), k, best);
    }
    h_results_[kRescored] = rows.size();
    return WAGGLE_BACKEND_OK;
  }

  // Every chunk either fits every list or is repeated at half its length. A repeated chunk's rows may be in a query's
  // best already (its own list did not overflow): the best are put back first.
  int32_t carefully(int64_t tiles, waggle_text* error) {
    const size_t best_bytes = static_cast<size_t>(scan_.n_queries) * static_cast<size_t>(args_.k) * 8;
    const size_t test_bytes = static_cast<size_t>(scan_.n_queries) * sizeof(QueryTest);
    unsigned long long* d_kept = nullptr;
    QueryTest* d_kept_tests = nullptr;
    WAGGLE_TRY(state_.scratch.take(&d_kept, static_cast<int64_t>(scan_.n_queries) * args_.k, error));
    WAGGLE_TRY(state_.scratch.take(&d_kept_tests, scan_.n_queries, error));
    int64_t length = kSafeTiles;
    for (int64_t first = 0; first < tiles;) {
      if (cancelled()) return stop(error);
      const int64_t end = std::min(tiles, first + length);
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_kept, d_best_, best_bytes, cudaMemcpyDeviceToDevice, stream_));
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_kept_tests, select_.d_tests, test_bytes, cudaMemcpyDeviceToDevice, stream_));
      WAGGLE_TRY(chunk(first, end, false, true, error));
      int32_t overflow = 0;
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(&overflow, select_.d_overflow, 4, cudaMemcpyDeviceToHost, stream_));
      WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
      if (overflow != 0) {
        WAGGLE_CUDA_CHECK(cudaMemsetAsync(select_.d_overflow, 0, 4, stream_));
        WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_best_, d_kept, best_bytes, cudaMemcpyDeviceToDevice, stream_));
        WAGGLE_CUDA_CHECK(
            cudaMemcpyAsync(select_.d_tests, d_kept_tests, test_bytes, cudaMemcpyDeviceToDevice, stream_));
        length = std::max<int64_t>(1, length / 2);
        continue;
      }
      first = end;
      length = std::min(length * 2, std::max<int64_t>(first * (kCarefulGrowth - 1), kSafeTiles));
    }
    return WAGGLE_BACKEND_OK;
  }

  bool cancelled() const { return args_.is_cancelled != nullptr && args_.is_cancelled(args_.cancel_context) != 0; }
  int32_t stop(waggle_text* error) {
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));  // nothing may read the caller's memory after we return
    return WAGGLE_BACKEND_CANCELLED;
  }

  State& state_;
  const waggle_topk_args& args_;
  cudaStream_t stream_;
  const MatrixView original_;
  const int64_t first_query_;
  Scan scan_ = {};
  Select select_ = {};
  const float* d_query_ = nullptr;
  unsigned* d_counts_ = nullptr;
  unsigned long long* d_lists_ = nullptr;
  unsigned long long* d_results_ = nullptr;  // flags, then the best
  unsigned long long* h_results_ = nullptr;
  unsigned long long* d_best_ = nullptr;
  int64_t n_results_ = 0;
};

}  // namespace

int32_t topk_on_device(State& state, const MatrixView& matrix, waggle_topk_args& args, waggle_text* error) {
  if (args.k < 1 || args.k > kMaxK || args.n_queries < 0) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  args.n_in_doubt = 0;
  args.n_rescored = 0;
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  std::vector<int32_t> few;
  const bool gathered =
      args.filter != nullptr && args.filter_stride == 0 && few_allowed_rows(args.filter, matrix.n_rows, &few);
  int64_t at_once = kQueriesAtOnce;
  if (args.filter != nullptr && args.filter_stride != 0) {
    at_once = std::clamp<int64_t>(kBitmapBytes / std::max<int64_t>(1, (matrix.n_rows + 7) / 8), 64, kQueriesAtOnce);
  }
  for (int64_t first = 0; first < args.n_queries; first += at_once) {
    const int n = static_cast<int>(std::min(at_once, args.n_queries - first));
    state.staging.reset();
    unsigned long long bad_row = kNoKey;
    const unsigned long long* best = nullptr;
    Search search(state, matrix, args, first, n, state.stream.get());
    WAGGLE_TRY(search.run(gathered ? &few : nullptr, &best, &args.n_rescored, &args.n_in_doubt, &bad_row, error));
    if (bad_row != kNoKey) {
      return fail(error, WAGGLE_BACKEND_NOT_FINITE, "the score of matrix row %llu overflows", bad_row);
    }
    for (size_t i = 0; i < static_cast<size_t>(n) * static_cast<size_t>(args.k); ++i) {
      const bool present = best[i] != kNoKey;
      const size_t at = static_cast<size_t>(first) * static_cast<size_t>(args.k) + i;
      args.scores[at] = present ? host_score_of(best[i]) : -std::numeric_limits<float>::infinity();
      args.rows[at] = present ? static_cast<int32_t>(best[i] & 0xffffffffu) : -1;
    }
  }
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
