// Blocks of queries against tiles of rows. A tile and its queries fit the second-level cache, each thread keeps
// its own heaps, and the merged order (score, row) is total: the split never shows in the answer.
#include "cpu/topk.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/topk_blocks.hpp"
#include "src/top_heap.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kQueriesPerPass = 256;  // heaps kept per thread at a time
constexpr int32_t kQueriesPerTile = 64;   // 64 × 384 floats = 96 KiB
constexpr int64_t kTileBytes = 192 * 1024;
constexpr int32_t kMaxTileRows = 512;
constexpr int64_t kSerialWork = 1 << 18;  // multiply-adds below which threads cost more than they bring
constexpr int64_t kChunkWork = 1 << 22;   // multiply-adds per chunk: a few hundred microseconds

// Squared norms outside this range are recomputed in double: in float they under- or overflow.
constexpr float kSmallestSafeSquare = 1e-24f;
constexpr float kLargestSafeSquare = 1e24f;

bool is_safe(float square) { return square >= kSmallestSafeSquare && square <= kLargestSafeSquare; }

double square_in_double(const float* v, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(v[i]) * v[i];
  return sum;
}

float inverse_norm(double square) { return static_cast<float>(1.0 / std::sqrt(square)); }

float cosine_in_double(const float* a, const float* b, int64_t dim) {
  double dot = 0;
  for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(a[i]) * b[i];
  const double norms = std::sqrt(square_in_double(a, dim)) * std::sqrt(square_in_double(b, dim));
  if (norms == 0) return 0.0f;
  return static_cast<float>(dot / norms);
}

// Everything one thread needs, allocated once.
struct Worker {
  std::vector<uint64_t> entries;
  std::vector<TopHeap<uint64_t>> heaps;
  std::vector<float> thresholds;
  std::vector<float> scores;       // [kQueriesPerTile × tile rows]
  std::vector<const float*> rows;  // of the tile, filtered
  std::vector<int32_t> row_numbers;
  std::vector<int32_t> hits;
  std::vector<float> row_squares;

  Worker(int64_t n_queries, int32_t k, int32_t tile_rows)
      : entries(static_cast<size_t>(n_queries * k)),
        heaps(static_cast<size_t>(n_queries)),
        thresholds(static_cast<size_t>(n_queries), -std::numeric_limits<float>::infinity()),
        scores(static_cast<size_t>(kQueriesPerTile) * static_cast<size_t>(tile_rows)),
        rows(static_cast<size_t>(tile_rows)),
        row_numbers(static_cast<size_t>(tile_rows)),
        hits(static_cast<size_t>(tile_rows)),
        row_squares(static_cast<size_t>(tile_rows)) {
    for (int64_t q = 0; q < n_queries; ++q) {
      heaps[static_cast<size_t>(q)] = TopHeap<uint64_t>(entries.data() + q * k, k);
    }
  }
};

class Pass {
 public:
  Pass(const Table& table, const TopkArgs& args, const RunContext& context, Bitmap bits, int64_t first, int64_t count)
      : table_(table), args_(args), context_(context), bits_(bits), first_(first), count_(count) {}

  Status run() {
    const int64_t dim = args_.matrix.cols;
    const int64_t n = args_.matrix.rows;
    queries_.resize(static_cast<size_t>(count_));
    for (int64_t q = 0; q < count_; ++q) queries_[static_cast<size_t>(q)] = args_.queries.row(first_ + q);
    prepare_queries();

    const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(float));
    tile_rows_ = static_cast<int32_t>(std::clamp<int64_t>(kTileBytes / row_bytes, 12, kMaxTileRows));
    tile_rows_ -= tile_rows_ % 12;  // whole blocks at every level
    tile_rows_ = static_cast<int32_t>(std::min<int64_t>(tile_rows_, std::max<int64_t>(n, 1)));
    const double work = static_cast<double>(count_) * static_cast<double>(n) * static_cast<double>(dim);
    const int64_t n_tiles = (n + tile_rows_ - 1) / tile_rows_;
    const double tile_work = static_cast<double>(count_) * tile_rows_ * static_cast<double>(dim);
    tiles_per_chunk_ = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(kChunkWork) / tile_work));
    const bool serial = !context_.parallel || work < static_cast<double>(kSerialWork);
    if (serial) tiles_per_chunk_ = std::max<int64_t>(1, n_tiles);
    const int64_t n_chunks = (n_tiles + tiles_per_chunk_ - 1) / tiles_per_chunk_;

    ThreadPool* pool = serial ? nullptr : &ThreadPool::instance();
    workers_.resize(static_cast<size_t>(serial ? 1 : pool->max_workers()));
    const auto body = [this](int64_t chunk, int worker) { run_chunk(chunk, worker); };
    if (serial) {
      for (int64_t chunk = 0; chunk < n_chunks; ++chunk) body(chunk, 0);
    } else {
      pool->for_each_chunk(n_chunks, context_, body);
    }
    if (out_of_memory_.load()) return fail(Code::kOutOfMemory, "not enough memory for the heaps of topk");
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (const int64_t row = bad_row_.load(); row >= 0) {
      return fail(Code::kNotFinite, "matrix row %lld holds NaN or infinity, or its score overflows",
                  static_cast<long long>(row));
    }
    write_answers();
    return {};
  }

 private:
  void prepare_queries() {
    query_inverse_norms_.assign(static_cast<size_t>(count_), 1.0f);
    query_is_safe_.assign(static_cast<size_t>(count_), 1);
    if (args_.metric != Metric::kCosine) return;
    for (size_t q = 0; q < queries_.size(); ++q) {
      const double square = square_in_double(queries_[q], args_.matrix.cols);
      query_inverse_norms_[q] = inverse_norm(square);
      query_is_safe_[q] = square >= kSmallestSafeSquare && square <= kLargestSafeSquare;
    }
  }

  void run_chunk(int64_t chunk, int worker_index) {
    std::unique_ptr<Worker>& slot = workers_[static_cast<size_t>(worker_index)];
    if (slot == nullptr) {
      try {
        slot = std::make_unique<Worker>(count_, args_.k, tile_rows_);
      } catch (...) {
        out_of_memory_.store(true);
        return;
      }
    }
    const int64_t n = args_.matrix.rows;
    const int64_t begin = chunk * tiles_per_chunk_ * tile_rows_;
    const int64_t end = std::min<int64_t>(n, begin + tiles_per_chunk_ * tile_rows_);
    for (int64_t row = begin; row < end; row += tile_rows_) {
      if (context_.stop_requested() || bad_row_.load(std::memory_order_relaxed) >= 0) return;
      run_tile(*slot, row, std::min<int64_t>(end, row + tile_rows_));
    }
  }

  void run_tile(Worker& w, int64_t begin, int64_t end) {
    int32_t n = 0;
    for (int64_t row = begin; row < end; ++row) {
      if (bits_ && !bits_.test(row)) continue;
      w.rows[static_cast<size_t>(n)] = args_.matrix.row(row);
      w.row_numbers[static_cast<size_t>(n)] = static_cast<int32_t>(row);
      ++n;
    }
    if (n == 0) return;
    const int64_t dim = args_.matrix.cols;
    const bool cosine = args_.metric == Metric::kCosine;
    if (cosine) {
      for (int32_t r = 0; r < n; ++r) {
        const float* row = w.rows[static_cast<size_t>(r)];
        table_.topk.dot(&row, 1, &row, 1, dim, &w.row_squares[static_cast<size_t>(r)], 1);
      }
    }
    const auto similarity = args_.metric == Metric::kL2 ? table_.topk.neg_l2 : table_.topk.dot;
    for (int64_t q0 = 0; q0 < count_; q0 += kQueriesPerTile) {
      const int32_t nq = static_cast<int32_t>(std::min<int64_t>(kQueriesPerTile, count_ - q0));
      similarity(queries_.data() + q0, nq, w.rows.data(), n, dim, w.scores.data(), tile_rows_);
      for (int32_t q = 0; q < nq; ++q) {
        float* scores = w.scores.data() + static_cast<int64_t>(q) * tile_rows_;
        if (cosine) to_cosine(w, q0 + q, scores, n);
        keep_best(w, q0 + q, scores, n);
      }
    }
  }

  void to_cosine(const Worker& w, int64_t q, float* scores, int32_t n) {
    const int64_t dim = args_.matrix.cols;
    const float query_inverse = query_inverse_norms_[static_cast<size_t>(q)];
    const bool query_safe = query_is_safe_[static_cast<size_t>(q)] != 0;
    for (int32_t r = 0; r < n; ++r) {
      const float square = w.row_squares[static_cast<size_t>(r)];
      if (query_safe && is_safe(square)) {
        scores[r] = scores[r] * query_inverse * (1.0f / std::sqrt(square));
      } else {
        scores[r] = cosine_in_double(queries_[static_cast<size_t>(q)], w.rows[static_cast<size_t>(r)], dim);
      }
    }
  }

  void keep_best(Worker& w, int64_t q, const float* scores, int32_t n) {
    TopHeap<uint64_t>& heap = w.heaps[static_cast<size_t>(q)];
    float& threshold = w.thresholds[static_cast<size_t>(q)];
    int32_t not_finite = -1;
    const int32_t n_hits = table_.topk.collect(scores, n, threshold, w.hits.data(), &not_finite);
    if (not_finite >= 0) {
      int64_t none = -1;
      bad_row_.compare_exchange_strong(none, w.row_numbers[static_cast<size_t>(not_finite)]);
      return;
    }
    for (int32_t h = 0; h < n_hits; ++h) {
      const int32_t r = w.hits[static_cast<size_t>(h)];
      heap.push(ranking_key(scores[r], w.row_numbers[static_cast<size_t>(r)]));
    }
    // Rows come in ascending order, so an equal score seen later always loses: strictly above is enough.
    if (heap.full()) threshold = score_of_key(heap.worst());
  }

  void write_answers() {
    std::vector<uint64_t> merged;
    for (int64_t q = 0; q < count_; ++q) {
      merged.clear();
      for (const std::unique_ptr<Worker>& worker : workers_) {
        if (worker == nullptr) continue;
        const TopHeap<uint64_t>& heap = worker->heaps[static_cast<size_t>(q)];
        merged.insert(merged.end(), heap.begin(), heap.end());
      }
      const int64_t found = std::min<int64_t>(args_.k, static_cast<int64_t>(merged.size()));
      std::partial_sort(merged.begin(), merged.begin() + found, merged.end(), std::greater<uint64_t>());
      float* scores = args_.scores + (first_ + q) * args_.k;
      int32_t* rows = args_.rows + (first_ + q) * args_.k;
      for (int64_t i = 0; i < args_.k; ++i) {
        const bool present = i < found;
        scores[i] = present ? score_of_key(merged[static_cast<size_t>(i)]) : -std::numeric_limits<float>::infinity();
        rows[i] = present ? row_of_key(merged[static_cast<size_t>(i)]) : -1;
      }
    }
  }

  const Table& table_;
  const TopkArgs& args_;
  const RunContext& context_;
  const Bitmap bits_;
  const int64_t first_;
  const int64_t count_;
  std::vector<const float*> queries_;
  std::vector<float> query_inverse_norms_;
  std::vector<uint8_t> query_is_safe_;
  std::vector<std::unique_ptr<Worker>> workers_;
  int32_t tile_rows_ = 0;
  int64_t tiles_per_chunk_ = 1;
  std::atomic<int64_t> bad_row_{-1};
  std::atomic<bool> out_of_memory_{false};
};

}  // namespace

void rescore(const Table& table, Metric metric, const float* query, const Matrix<const float>& matrix,
             const int32_t* rows, int64_t n, float* scores) {
  const int64_t dim = matrix.cols;
  const double query_square = square_in_double(query, dim);
  const bool query_safe = query_square >= kSmallestSafeSquare && query_square <= kLargestSafeSquare;
  const auto similarity = metric == Metric::kL2 ? table.topk.neg_l2 : table.topk.dot;
  for (int64_t i = 0; i < n; ++i) {
    const float* row = matrix.row(rows[i]);
    similarity(&query, 1, &row, 1, dim, scores + i, 1);
    if (metric != Metric::kCosine) continue;
    float square = 0;
    table.topk.dot(&row, 1, &row, 1, dim, &square, 1);
    scores[i] = query_safe && is_safe(square) ? scores[i] * inverse_norm(query_square) * (1.0f / std::sqrt(square))
                                              : cosine_in_double(query, row, dim);
  }
}

Status topk(const Table& table, const TopkArgs& args, const RunContext& context) {
  const int64_t bytes = (args.matrix.rows + 7) / 8;
  Bitmap bits{args.filter.bits, bytes};
  std::vector<uint8_t> from_list;
  if (args.filter.has_list()) {
    from_list.assign(static_cast<size_t>(bytes) + 1, 0);
    for (int64_t i = 0; i < args.filter.n_rows; ++i) {
      const int32_t row = args.filter.rows[i];
      from_list[static_cast<size_t>(row >> 3)] |= static_cast<uint8_t>(1 << (row & 7));
    }
    bits = {from_list.data(), bytes};
  }
  const bool each = args.filter.bits != nullptr && args.filter.stride_bytes != 0;
  const int64_t per_pass = each ? 1 : kQueriesPerPass;
  for (int64_t first = 0; first < args.queries.rows; first += per_pass) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (each) bits = {args.filter.bits_of(first), bytes};
    Pass pass(table, args, context, bits, first, std::min(per_pass, args.queries.rows - first));
    if (Status status = pass.run(); !status.ok()) return status;
  }
  return {};
}

}  // namespace waggle::cpu
