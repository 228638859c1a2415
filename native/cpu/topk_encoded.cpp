// A low-precision scan brackets every score (score_bounds.hpp); the k-th largest lower end is a threshold that k rows
// reach for certain, so a row whose upper end is below it can be dropped. What is left when all rows were seen is
// re-scored from floats with the arithmetic of topk. Nothing about the split, the order or the time at which a
// threshold rose shows in the answer.
//
// Candidates of a query are shared by all threads behind a mutex: after the first tiles a row in thousands is one, and
// a shared threshold is the tightest. Scratch is then the same for any number of threads but for a tile each.
#include "cpu/topk_encoded.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include "cpu/encoded_queries.hpp"
#include "cpu/halves.hpp"
#include "cpu/kernel_tables.hpp"
#include "cpu/score_bounds.hpp"
#include "cpu/topk_blocks.hpp"
#include "src/bitmap.hpp"
#include "src/top_heap.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kEntryBudget = int64_t{2} << 20;  // candidates of all queries of a pass: 32 MiB
constexpr int64_t kMaxQueriesPerPass = 1024;
constexpr int64_t kUnitBudget = int64_t{4} << 20;  // packed units of all queries of a pass: 16 MiB at most
constexpr int64_t kMaxQueriesWithoutFloats = 64;   // leaves each room for what cannot be decided
constexpr int64_t kMaxEntries = 1 << 18;
constexpr int64_t kPanelBytes = 192 * 1024;  // a packed tile, half of a second-level cache at most
constexpr int32_t kPanelTileStep = 48;       // whole groups of panels at every level
constexpr int32_t kMaxPanelTileRows = 480;
constexpr int32_t kRowTileRows = 512;
constexpr int64_t kSerialWork = 1 << 18;  // multiply-adds below which threads cost more than they bring
constexpr int64_t kChunkWork = 1 << 23;   // multiply-adds per chunk
constexpr int64_t kRescoreChunk = 256;
constexpr int64_t kJoinedBytes = 48 * 1024;  // floats put together of their halves at once
constexpr int64_t kMaxJoinedRows = 64;
constexpr int64_t kCrowd = 2;  // candidates per answer above which re-scoring the likeliest pays
// Below this share of allowed rows, queries with bitmaps of their own pick their rows one by one.
constexpr double kShareToScanTogether = 0.125;
constexpr int64_t kApartBytes = 2 << 20;  // rows of a block that they share in cache
constexpr int64_t kApartRows = 48;        // rows that a query should find in a block
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Entry {
  float low;
  float high;
  float score;  // of the float row, or of the decoded one; known when `known`
  int32_t row;  // ~row when the score is known

  bool known() const { return row < 0; }
  int32_t number() const { return row < 0 ? ~row : row; }
};

double middle(const Entry& e) { return static_cast<double>(e.low) + static_cast<double>(e.high); }

uint64_t key_of(const Entry& e) { return ranking_key(e.score, e.number()); }

// One query's candidates.
struct Candidates {
  std::mutex mutex;
  Entry* entries = nullptr;
  int64_t size = 0;
  int64_t trigger = 0;  // compacted when this long
  float threshold = -kInfinity;
  std::atomic<float> moving{0};  // the filter's coefficient for the threshold
  bool forgot = false;           // without floats: rows in doubt were dropped for want of room
};

template <typename T>
struct Aligned {
  // 64 bytes of slack let the first element start a cache line.
  explicit Aligned(int64_t n) : memory(static_cast<size_t>(n) * sizeof(T) + 64) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(memory.data());
    data = reinterpret_cast<T*>((at + 63) / 64 * 64);
  }
  std::vector<uint8_t> memory;
  T* data;
};

// What one thread needs of its own, allocated once.
struct Worker {
  Aligned<int32_t> panels;
  Aligned<int32_t> sums;
  Aligned<float> scale;
  Aligned<float> error;
  Aligned<float> norm;
  std::vector<const void*> rows;
  std::vector<int32_t> row_numbers;
  int32_t n = 0;  // rows of the tile
  std::vector<int32_t> hits;
  std::vector<float> hit_sums;
  std::vector<Entry> entries;
  std::vector<float> values;
  std::vector<int32_t> numbers;
  std::vector<float> joined;            // rows put together of their halves …
  std::vector<int32_t> joined_numbers;  // … in order

  Worker(int64_t panel_units, int32_t sum_rows, int32_t tile_rows, int64_t joined_rows, int64_t dim)
      : panels(panel_units),
        sums(static_cast<int64_t>(sum_rows) * tile_rows),
        scale(tile_rows + 16),
        error(tile_rows + 16),
        norm(tile_rows + 16),
        rows(static_cast<size_t>(tile_rows)),
        row_numbers(static_cast<size_t>(tile_rows)),
        hits(static_cast<size_t>(tile_rows)),
        hit_sums(static_cast<size_t>(tile_rows)),
        entries(static_cast<size_t>(tile_rows)),
        joined(static_cast<size_t>(joined_rows * dim)),
        joined_numbers(static_cast<size_t>(joined_rows)) {
    std::iota(joined_numbers.begin(), joined_numbers.end(), 0);
  }
};

class Pass {
 public:
  Pass(const Table& table, const TopkEncodedArgs& args, const RunContext& context, int64_t first, int64_t count)
      : table_(table),
        args_(args),
        context_(context),
        first_(first),
        count_(count),
        dim_(args.encoded.cols),
        scan_(args.encoded.dtype == Dtype::kF16    ? table.encoded.f16
              : args.encoded.dtype == Dtype::kBf16 ? table.encoded.bf16
                                                   : table.encoded.int8),
        integer_(has_integer_sums(scan_.unit)),
        has_floats_(args.has_floats()),
        has_halves_(has_floats_ && args.matrix.data == nullptr) {}

  /// Bitmap of the rows scanned, and what share of all it allows.
  void scan_only(const uint8_t* bits, double share) {
    bits_ = bits;
    share_ = std::max(share, 1e-9);
  }

  /// Each query scans the rows of its own bitmap; `share` of all rows is the mean of what they allow.
  void scan_apart(double share) {
    apart_ = true;
    share_ = std::max(share, 1e-9);
  }

  Status run(TopkEncodedReport* report) {
    prepare_queries();
    prepare_candidates();
    plan();
    ThreadPool* pool = serial_ ? nullptr : &ThreadPool::instance();
    workers_.resize(static_cast<size_t>(serial_ ? 1 : pool->max_workers()));
    for_each(pool, n_chunks_, [this](int64_t chunk, int worker) { run_chunk(chunk, worker); });
    if (Status status = outcome(); !status.ok()) return status;
    if (count_ > 1) {
      for_each(pool, count_, [this](int64_t q, int worker) {
        if (Worker* w = worker_at(worker)) finish(q, *w, nullptr);
      });
    } else if (Worker* w = worker_at(0)) {
      finish(0, *w, pool);
    }
    if (Status status = outcome(); !status.ok()) return status;
    for (int64_t q = 0; q < count_; ++q) {
      if (!candidates_[q].forgot) continue;
      if (Status status = count_doubts_again(q, pool); !status.ok()) return status;
    }
    report->n_rescored += n_rescored_.load();
    for (int64_t q = 0; q < count_; ++q) {
      report->certified = report->certified && certified_[static_cast<size_t>(q)] != 0;
      if (args_.is_certified != nullptr) args_.is_certified[first_ + q] = certified_[static_cast<size_t>(q)];
    }
    return {};
  }

 private:
  template <typename Body>
  void for_each(ThreadPool* pool, int64_t n, const Body& body) {
    if (pool != nullptr) {
      pool->for_each_chunk(n, context_, body);
    } else {
      for (int64_t i = 0; i < n && !context_.stop_requested(); ++i) body(i, 0);
    }
  }

  Status outcome() const {
    if (out_of_memory_.load()) return fail(Code::kOutOfMemory, "not enough memory for the candidates of topk");
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (const int64_t row = bad_row_.load(); row >= 0) {
      return fail(Code::kNotFinite, "matrix row %lld holds NaN or infinity, or its score overflows",
                  static_cast<long long>(row));
    }
    return {};
  }

  const float* query(int64_t q) const { return args_.queries.row(first_ + q); }

  void prepare_queries() {
    const int64_t values = values_of(scan_.unit);
    n_units_ = (dim_ + values - 1) / values;
    padded_units_ = (n_units_ + kUnitsPerStep - 1) / kUnitsPerStep * kUnitsPerStep;
    const bool quads = scan_.unit == QueryUnit::kInt8Quad;
    by_rows_ = apart_ || scan_.panel_rows == 0 || count_ <= scan_.most_by_rows;
    const bool two_terms = by_rows_ && quads;
    const int64_t n_terms = two_terms ? 2 : 1;
    const int64_t block = by_rows_ ? 1 : scan_.block_queries;
    const int64_t n_blocks = (count_ + block - 1) / block;
    units_.assign(static_cast<size_t>(n_blocks * block * n_terms * padded_units_), 0);
    starts_.assign(static_cast<size_t>(n_blocks * block * n_terms), 0);
    std::vector<int32_t> one(static_cast<size_t>(n_terms * padded_units_));
    for (int64_t q = 0; q < count_; ++q) {
      const EncodedQuery encoded = encode_query(scan_.unit, two_terms, query(q), dim_, padded_units_, one.data());
      bounds_.emplace_back(args_.metric, query(q), dim_, encoded.step, encoded.lost, encoded.arithmetic);
      decoded_bounds_.emplace_back(args_.metric, query(q), dim_, 1.0, 0.0, ScanArithmetic::kDouble);
      lines_.push_back(bounds_.back().filter());
      for (int64_t t = 0; t < n_terms; ++t) starts_[static_cast<size_t>(q * n_terms + t)] = encoded.starts[t];
      if (by_rows_) {
        std::copy(one.begin(), one.end(), units_.begin() + q * n_terms * padded_units_);
        continue;
      }
      int32_t* to = units_.data() + q / block * block * n_units_ + q % block;
      for (int64_t u = 0; u < n_units_; ++u) to[u * block] = one[static_cast<size_t>(u)];
    }
    if (!by_rows_) return;
    for (int64_t t = 0; t < count_ * n_terms; ++t) terms_.push_back(units_.data() + t * padded_units_);
    n_terms_ = n_terms;
  }

  void prepare_candidates() {
    capacity_ =
        std::clamp(kEntryBudget / count_, least_entries(args_.k), std::max(kMaxEntries, least_entries(args_.k)));
    candidates_ = std::make_unique<Candidates[]>(static_cast<size_t>(count_));
    // Not a vector: pages that no candidate reaches are never touched.
    entries_.reset(new Entry[static_cast<size_t>(count_ * capacity_)]);
    for (int64_t q = 0; q < count_; ++q) {
      Candidates& c = candidates_[q];
      c.entries = entries_.get() + q * capacity_;
      c.trigger = std::min<int64_t>(capacity_, 2 * args_.k + 64);
      c.moving.store(bounds_[static_cast<size_t>(q)].moving(-kInfinity), std::memory_order_relaxed);
    }
    certified_.assign(static_cast<size_t>(count_), 1);
  }

 public:
  /// Room for the k best by three orders (see keep_decisive) and as many new ones.
  static int64_t least_entries(int64_t k) { return 6 * k + 256; }

 private:
  void plan() {
    tile_rows_ = kRowTileRows;
    if (!by_rows_) {
      const int64_t fitting = kPanelBytes / (n_units_ * static_cast<int64_t>(sizeof(int32_t)));
      tile_rows_ = static_cast<int32_t>(std::clamp<int64_t>(fitting, kPanelTileStep, kMaxPanelTileRows));
      tile_rows_ -= tile_rows_ % kPanelTileStep;
    }
    n_positions_ = args_.filter.has_list() ? args_.filter.n_rows : args_.encoded.rows;
    const double row_work = static_cast<double>(count_) * static_cast<double>(dim_) * share_;
    serial_ = !context_.parallel || row_work * static_cast<double>(n_positions_) < static_cast<double>(kSerialWork);
    if (apart_) plan_blocks();
    const int64_t step = apart_ ? block_rows_ : tile_rows_;
    if (serial_) {
      chunk_rows_ = std::max<int64_t>(1, n_positions_);
    } else {
      // Enough chunks to keep every thread busy to the end.
      const double even = static_cast<double>(n_positions_) / (8.0 * ThreadPool::instance().n_threads());
      const double rows = std::min(static_cast<double>(kChunkWork) / row_work, even);
      chunk_rows_ = std::max<int64_t>(1, static_cast<int64_t>(rows) / step) * step;
    }
    n_chunks_ = (n_positions_ + chunk_rows_ - 1) / chunk_rows_;
  }

  // Blocks small enough to be shared in cache; where hardly any row is wanted twice, large enough to find some in.
  void plan_blocks() {
    const double wanted = static_cast<double>(kApartRows) / share_;
    const double cached = static_cast<double>(kApartBytes) / static_cast<double>(dim_ * bytes_of(args_.encoded.dtype));
    const bool shares = share_ * static_cast<double>(count_) > 0.5;
    const double rows = std::min(shares ? std::min(wanted, cached) : wanted, static_cast<double>(n_positions_));
    block_rows_ = std::max<int64_t>(64, (static_cast<int64_t>(rows) + 63) / 64 * 64);
  }

  Worker* worker_at(int index) {
    std::unique_ptr<Worker>& slot = workers_[static_cast<size_t>(index)];
    if (slot == nullptr) {
      try {
        const int64_t panel_units = by_rows_ ? 0 : n_units_ * tile_rows_;
        const int64_t sum_rows = by_rows_ ? kMaxTerms : scan_.block_queries;
        const int64_t joined_rows =
            has_halves_ ? std::clamp<int64_t>(kJoinedBytes / (dim_ * sizeof(float)), 1, kMaxJoinedRows) : 0;
        slot = std::make_unique<Worker>(panel_units, static_cast<int32_t>(sum_rows), tile_rows_, joined_rows, dim_);
      } catch (...) {
        out_of_memory_.store(true);
        return nullptr;
      }
    }
    return slot.get();
  }

  bool stopped() const {
    return context_.stop_requested() || out_of_memory_.load(std::memory_order_relaxed) ||
           bad_row_.load(std::memory_order_relaxed) >= 0;
  }

  void run_chunk(int64_t chunk, int worker_index) {
    Worker* w = worker_at(worker_index);
    if (w == nullptr) return;
    const int64_t begin = chunk * chunk_rows_;
    const int64_t end = std::min(n_positions_, begin + chunk_rows_);
    if (apart_) {
      for (int64_t block = begin; block < end; block += block_rows_) {
        run_block(*w, block, std::min(end, block + block_rows_));
      }
      return;
    }
    for (int64_t at = begin; !stopped() && fill(*w, at, end, bits_);) run_tile(*w);
  }

  // The next rows from place `at` on, at most a tile full; false when there is none.
  bool fill(Worker& w, int64_t& at, int64_t end, const uint8_t* bits) const {
    int32_t* numbers = w.row_numbers.data();
    if (bits != nullptr) {
      w.n = take_bits(bits, &at, end, tile_rows_, numbers);
    } else {
      w.n = static_cast<int32_t>(std::min<int64_t>(tile_rows_, end - at));
      const int32_t* list = args_.filter.has_list() ? args_.filter.rows + at : nullptr;
      for (int32_t r = 0; r < w.n; ++r) numbers[r] = list != nullptr ? list[r] : static_cast<int32_t>(at) + r;
      at += w.n;
    }
    for (int32_t r = 0; r < w.n; ++r) w.rows[static_cast<size_t>(r)] = args_.encoded.row(numbers[r]);
    return w.n > 0;
  }

  // Every query picks its own rows of a block, which lies in cache for all of them.
  void run_block(Worker& w, int64_t begin, int64_t end) {
    for (int64_t q = 0; q < count_; ++q) {
      const uint8_t* own = args_.filter.bits_of(first_ + q);
      for (int64_t at = begin; !stopped() && fill(w, at, end, own);) {
        load_row_numbers(w);
        scan_rows(w, q, 1);
      }
    }
  }

  // What the filter reads of each row. Rows it cannot judge get an infinite error and so always pass.
  void load_row_numbers(Worker& w) {
    const EncodedMatrix& e = args_.encoded;
    const int32_t* numbers = w.row_numbers.data();
    const bool contiguous = numbers[w.n - 1] - numbers[0] == w.n - 1;
    const float* norm = e.norm + numbers[0];
    const float* error = e.error + numbers[0];
    const float* scale = e.scale != nullptr ? e.scale + numbers[0] : nullptr;
    if (!contiguous) {
      for (int32_t r = 0; r < w.n; ++r) {
        w.norm.data[r] = e.norm[numbers[r]];
        w.error.data[r] = e.error[numbers[r]];
        w.scale.data[r] = e.scale != nullptr ? e.scale[numbers[r]] : 1.0f;
      }
      norm = w.norm.data;
      error = w.error.data;
      scale = w.scale.data;
    }
    float* to_error = w.error.data;
    float* to_scale = w.scale.data;
    float* to_norm = w.norm.data;
    if (scale == nullptr) {
      std::fill(to_scale, to_scale + w.n, 1.0f);
      scale = to_scale;
    }
    for (int32_t r = 0; r < w.n; ++r) {
      const float length = norm[r];
      const bool judged = (length >= kSmallestFilteredNorm) & (length <= kLargestFilteredNorm);
      const bool fine = judged | (length == 0);
      to_error[r] = fine ? error[r] : kInfinity;
      to_scale[r] = judged ? scale[r] : 0.0f;
      to_norm[r] = judged ? length : 0.0f;
    }
  }

  void run_tile(Worker& w) {
    load_row_numbers(w);
    const int64_t ld = tile_rows_;
    if (by_rows_) {
      const int64_t at_once = scan_.rows_at_once;
      for (int64_t q = 0; q < count_; q += at_once) scan_rows(w, q, std::min(at_once, count_ - q));
      return;
    }
    scan_.pack(w.rows.data(), w.n, dim_, w.panels.data);
    const int32_t n_panels = (w.n + scan_.panel_rows - 1) / scan_.panel_rows;
    for (int64_t q0 = 0; q0 < count_; q0 += scan_.block_queries) {
      const int32_t nq = static_cast<int32_t>(std::min<int64_t>(scan_.block_queries, count_ - q0));
      scan_.panels(w.panels.data, n_panels, n_units_, units_.data() + q0 * n_units_, starts_.data() + q0, nq,
                   w.sums.data, ld);
      for (int32_t q = 0; q < nq; ++q) collect(w, q0 + q, w.sums.data + q * ld, nullptr);
    }
  }

  // Several queries only where each is one term.
  void scan_rows(Worker& w, int64_t first, int64_t n) {
    const int64_t term = first * n_terms_;
    scan_.rows(w.rows.data(), w.n, dim_, terms_.data() + term, starts_.data() + term,
               static_cast<int32_t>(n * n_terms_), w.sums.data, tile_rows_);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t* const sums = w.sums.data + i * tile_rows_;
      collect(w, first + i, sums, n_terms_ == 2 ? sums + tile_rows_ : nullptr);
    }
  }

  void collect(Worker& w, int64_t q, const int32_t* sums, const int32_t* low_sums) {
    Candidates& c = candidates_[q];
    FilterLine line = lines_[static_cast<size_t>(q)];
    const ScoreBounds& bounds = bounds_[static_cast<size_t>(q)];
    const float moving = c.moving.load(std::memory_order_relaxed);
    if (bounds.moves_norm_weight()) {
      line.norm_weight = moving;
    } else {
      line.level = moving;
    }
    const int32_t n_hits = table_.encoded.collect(sums, low_sums, integer_ ? 1 : 0, w.scale.data, w.error.data,
                                                  w.norm.data, w.n, &line, w.hits.data(), w.hit_sums.data());
    if (n_hits == 0) return;
    const EncodedMatrix& e = args_.encoded;
    const bool own_bits = args_.filter.has_bits_per_query();
    const uint8_t* own = own_bits ? args_.filter.bits_of(first_ + q) : nullptr;
    int32_t n = 0;
    for (int32_t h = 0; h < n_hits; ++h) {
      const int32_t row = w.row_numbers[static_cast<size_t>(w.hits[static_cast<size_t>(h)])];
      if (own != nullptr && ((own[row >> 3] >> (row & 7)) & 1) == 0) continue;
      const double scale = e.scale != nullptr ? static_cast<double>(e.scale[row]) : 1.0;
      const Interval interval = bounds.interval(static_cast<double>(w.hit_sums[static_cast<size_t>(h)]), scale,
                                                static_cast<double>(e.error[row]), static_cast<double>(e.norm[row]));
      w.entries[static_cast<size_t>(n++)] = {interval.low, interval.high, 0.0f, row};
    }
    const std::lock_guard<std::mutex> lock(c.mutex);
    for (int32_t i = 0; i < n; ++i) {
      const Entry& entry = w.entries[static_cast<size_t>(i)];
      if (entry.high < c.threshold) continue;
      c.entries[c.size++] = entry;
      if (c.size >= c.trigger) compact(q, w);
    }
  }

  // k rows reach the k-th largest lower end for certain; whoever cannot is out.
  void raise_threshold(int64_t q, Worker& w) {
    Candidates& c = candidates_[q];
    if (c.size < args_.k) return;
    w.values.resize(static_cast<size_t>(c.size));
    for (int64_t i = 0; i < c.size; ++i) w.values[static_cast<size_t>(i)] = c.entries[i].low;
    const auto kth = w.values.begin() + (args_.k - 1);
    std::nth_element(w.values.begin(), kth, w.values.end(), std::greater<float>());
    if (*kth <= c.threshold) return;
    c.threshold = *kth;
    c.moving.store(bounds_[static_cast<size_t>(q)].moving(c.threshold), std::memory_order_relaxed);
    const Entry* end =
        std::remove_if(c.entries, c.entries + c.size, [&](const Entry& entry) { return entry.high < c.threshold; });
    c.size = end - c.entries;
  }

  void compact(int64_t q, Worker& w) {
    Candidates& c = candidates_[q];
    raise_threshold(q, w);
    if (has_floats_ && c.size > kCrowd * args_.k) {
      rescore_likeliest(q, w, nullptr);
      if (bad_row_.load(std::memory_order_relaxed) >= 0) c.size = 0;
    }
    if (c.size > capacity_ / 4 * 3) {
      rescore_unknown(q, w, c.size, nullptr);
      if (bad_row_.load(std::memory_order_relaxed) >= 0) c.size = 0;
      raise_threshold(q, w);
      if (has_floats_) {
        keep_best(c);
      } else if (c.size > capacity_ / 4 * 3) {
        keep_decisive(c);
      }
    }
    c.trigger = std::min(capacity_, std::max(2 * c.size, c.size + args_.k + 64));
  }

  // The k likeliest: with their scores known the threshold no longer sinks by the width of an interval.
  void rescore_likeliest(int64_t q, Worker& w, ThreadPool* pool) {
    Candidates& c = candidates_[q];
    std::nth_element(c.entries, c.entries + args_.k, c.entries + c.size,
                     [](const Entry& a, const Entry& b) { return middle(a) > middle(b); });
    rescore_unknown(q, w, args_.k, pool);
    raise_threshold(q, w);
  }

  // All scores are known to the bit: whoever is not among the k best now never will be.
  void keep_best(Candidates& c) {
    if (c.size <= args_.k) return;
    std::nth_element(c.entries, c.entries + args_.k, c.entries + c.size,
                     [](const Entry& a, const Entry& b) { return key_of(a) > key_of(b); });
    c.size = args_.k;
  }

  // Too many rows in doubt to remember. The answer needs the k best by score; what decides about doubt are the k-th
  // largest lower end and the (k + 1)-th largest upper end. Doubts are counted in another pass (count_doubts_again).
  void keep_decisive(Candidates& c) {
    const auto first = [&](int64_t from, int64_t n, auto&& before) {
      const int64_t end = std::min(c.size, from + n);
      std::nth_element(c.entries + from, c.entries + end, c.entries + c.size, before);
      return end;
    };
    int64_t kept = first(0, args_.k, [](const Entry& a, const Entry& b) { return key_of(a) > key_of(b); });
    kept = first(kept, args_.k, [](const Entry& a, const Entry& b) { return a.low > b.low; });
    kept = first(kept, args_.k + 1, [](const Entry& a, const Entry& b) { return a.high > b.high; });
    c.forgot = c.forgot || kept < c.size;
    c.size = kept;
  }

  // Scores of the first n entries that have none yet, in the order of rows so that memory is read forwards.
  void rescore_unknown(int64_t q, Worker& w, int64_t n, ThreadPool* pool) {
    Candidates& c = candidates_[q];
    Entry* const unknown = std::partition(c.entries, c.entries + n, [](const Entry& e) { return e.known(); });
    Entry* const end = c.entries + n;
    std::sort(unknown, end, [](const Entry& a, const Entry& b) { return a.row < b.row; });
    const int64_t count = end - unknown;
    w.numbers.resize(static_cast<size_t>(count));
    w.values.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) w.numbers[static_cast<size_t>(i)] = unknown[i].row;
    const int64_t n_chunks = (count + kRescoreChunk - 1) / kRescoreChunk;
    for_each(pool, n_chunks, [&](int64_t chunk, int index) {
      const int64_t begin = chunk * kRescoreChunk;
      const int64_t m = std::min(kRescoreChunk, count - begin);
      if (has_floats_) {
        Worker* const own = pool == nullptr ? &w : worker_at(index);
        if (own == nullptr) return;
        score_floats(q, w.numbers.data() + begin, m, w.values.data() + begin, *own);
        for (int64_t i = begin; i < begin + m; ++i) {
          Entry& e = unknown[i];
          e.low = e.high = w.values[static_cast<size_t>(i)];
        }
      } else {
        for (int64_t i = begin; i < begin + m; ++i) bracket_decoded(q, &unknown[i]);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      Entry& e = unknown[i];
      if (has_floats_) e.score = e.low;
      if (!std::isfinite(e.score)) {
        int64_t none = -1;
        bad_row_.compare_exchange_strong(none, e.row);
      }
      e.row = ~e.row;
    }
    n_rescored_.fetch_add(count, std::memory_order_relaxed);
  }

  void score_floats(int64_t q, const int32_t* rows, int64_t n, float* scores, Worker& w) const {
    if (!has_halves_) return rescore(table_, args_.metric, query(q), args_.matrix, rows, n, scores);
    const int64_t at_once = static_cast<int64_t>(w.joined_numbers.size());
    const Matrix<const float> joined{w.joined.data(), at_once, dim_};
    for (int64_t done = 0; done < n; done += at_once) {
      const int64_t count = std::min(at_once, n - done);
      for (int64_t i = 0; i < count; ++i) join_row(args_.encoded, rows[done + i], w.joined.data() + i * dim_);
      rescore(table_, args_.metric, query(q), joined, w.joined_numbers.data(), count, scores + done);
    }
  }

  void bracket_decoded(int64_t q, Entry* e) const {
    const EncodedMatrix& m = args_.encoded;
    const int32_t row = e->number();
    const double scale = m.scale != nullptr ? static_cast<double>(m.scale[row]) : 1.0;
    const double norm = static_cast<double>(m.norm[row]);
    const double sum = decoded_dot(static_cast<int32_t>(m.dtype), m.row(row), query(q), dim_);
    const ScoreBounds& bounds = decoded_bounds_[static_cast<size_t>(q)];
    const Interval interval = bounds.interval(sum, scale, static_cast<double>(m.error[row]), norm);
    e->low = interval.low;
    e->high = interval.high;
    e->score = bounds.decoded_score(sum, scale, norm);
  }

  void finish(int64_t q, Worker& w, ThreadPool* pool) {
    Candidates& c = candidates_[q];
    if (stopped()) return;
    raise_threshold(q, w);
    // The likely best first: their scores raise the threshold and save most of the others.
    if (has_floats_ && c.size > kCrowd * args_.k) rescore_likeliest(q, w, pool);
    rescore_unknown(q, w, c.size, pool);
    if (stopped()) return;
    raise_threshold(q, w);
    const int64_t in_doubt = has_floats_ ? 0 : count_doubts(q, w);
    if (args_.n_in_doubt != nullptr) args_.n_in_doubt[first_ + q] = static_cast<int32_t>(in_doubt);
    const int64_t found = std::min<int64_t>(args_.k, c.size);
    std::partial_sort(c.entries, c.entries + found, c.entries + c.size,
                      [](const Entry& a, const Entry& b) { return key_of(a) > key_of(b); });
    bool in_order = true;
    for (int64_t i = 0; i + 1 < found; ++i) {
      const Entry& a = c.entries[i];
      const Entry& b = c.entries[i + 1];
      in_order = in_order && (a.low > b.high || (a.low == b.high && a.number() < b.number()));
    }
    certified_[static_cast<size_t>(q)] = in_doubt == 0 && in_order ? 1 : 0;
    float* scores = args_.scores + (first_ + q) * args_.k;
    int32_t* rows = args_.rows + (first_ + q) * args_.k;
    for (int64_t i = 0; i < args_.k; ++i) {
      // Through the key, as topk does: −0 becomes +0.
      scores[i] = i < found ? score_of_key(key_of(c.entries[i])) : -kInfinity;
      rows[i] = i < found ? c.entries[i].number() : -1;
    }
  }

  // Sure to be in: at most k − 1 others could reach it, so it is above the (k + 1)-th largest upper end (its own is
  // among the first k then). Sure to be out: below the k-th largest lower end. In doubt: neither.
  float highest_refused(const Candidates& c, Worker& w) const {
    if (c.size <= args_.k) return -kInfinity;
    w.values.resize(static_cast<size_t>(c.size));
    for (int64_t i = 0; i < c.size; ++i) w.values[static_cast<size_t>(i)] = c.entries[i].high;
    const auto next = w.values.begin() + args_.k;
    std::nth_element(w.values.begin(), next, w.values.end(), std::greater<float>());
    return *next;
  }

  int64_t count_doubts(int64_t q, Worker& w) const {
    const Candidates& c = candidates_[q];
    const float refused = highest_refused(c, w);
    return std::count_if(c.entries, c.entries + c.size, [&](const Entry& e) { return e.low <= refused; });
  }

  Status count_doubts_again(int64_t q, ThreadPool* pool) {
    const Candidates& c = candidates_[q];
    const float refused = highest_refused(c, *worker_at(0));
    std::atomic<int64_t> total{0};
    const uint8_t* own = args_.filter.bits != nullptr ? args_.filter.bits_of(first_ + q) : nullptr;
    for_each(pool, n_chunks_, [&](int64_t chunk, int) {
      int64_t count = 0;
      const int64_t end = std::min(n_positions_, (chunk + 1) * chunk_rows_);
      for (int64_t i = chunk * chunk_rows_; i < end && !context_.stop_requested(); ++i) {
        const int64_t row = args_.filter.has_list() ? args_.filter.rows[i] : i;
        if (own != nullptr && ((own[row >> 3] >> (row & 7)) & 1) == 0) continue;
        Entry e = {0, 0, 0, static_cast<int32_t>(row)};
        bracket_decoded(q, &e);
        count += e.high >= c.threshold && e.low <= refused ? 1 : 0;
      }
      total.fetch_add(count);
    });
    if (args_.n_in_doubt != nullptr) args_.n_in_doubt[first_ + q] = static_cast<int32_t>(total.load());
    certified_[static_cast<size_t>(q)] = 0;
    return outcome();
  }

  const Table& table_;
  const TopkEncodedArgs& args_;
  const RunContext& context_;
  const int64_t first_;
  const int64_t count_;
  const int64_t dim_;
  const ScanKernels scan_;
  const bool integer_;
  const bool has_floats_;
  const bool has_halves_;  // the floats are the codes and the lower halves beside them
  bool apart_ = false;
  const uint8_t* bits_ = nullptr;
  double share_ = 1;  // of the rows, that a query scans
  int64_t block_rows_ = 0;

  int64_t n_units_ = 0;
  int64_t padded_units_ = 0;
  int64_t n_terms_ = 1;
  bool by_rows_ = true;
  std::vector<int32_t> units_;  // queries as units: rows of padded units, or blocks
  std::vector<int32_t> starts_;
  std::vector<const void*> terms_;
  std::vector<ScoreBounds> bounds_;
  std::vector<ScoreBounds> decoded_bounds_;
  std::vector<FilterLine> lines_;

  int64_t capacity_ = 0;
  std::unique_ptr<Candidates[]> candidates_;
  std::unique_ptr<Entry[]> entries_;
  std::vector<uint8_t> certified_;

  int32_t tile_rows_ = 0;
  int64_t n_positions_ = 0;
  int64_t chunk_rows_ = 1;
  int64_t n_chunks_ = 0;
  bool serial_ = true;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int64_t> n_rescored_{0};
  std::atomic<int64_t> bad_row_{-1};
  std::atomic<bool> out_of_memory_{false};
};

// Mean share of rows that the bitmaps allow.
double share_allowed(const RowFilter& filter, int64_t n_bitmaps, int64_t n_rows) {
  double sum = 0;
  for (int64_t q = 0; q < n_bitmaps; ++q) sum += share_of(filter.bits_of(q), n_rows);
  return sum / static_cast<double>(std::max<int64_t>(1, n_bitmaps));
}

}  // namespace

Status topk_encoded(const Table& table, const TopkEncodedArgs& args, const RunContext& context,
                    TopkEncodedReport* report) {
  *report = {true, 0};
  const RowFilter& filter = args.filter;
  const bool own_bits = filter.has_bits_per_query();
  const int64_t n_bitmaps = own_bits ? args.queries.rows : 1;
  const double share = filter.bits != nullptr ? share_allowed(filter, n_bitmaps, args.encoded.rows) : 1.0;
  const bool apart = own_bits && share < kShareToScanTogether;
  int64_t per_pass = std::clamp<int64_t>(kEntryBudget / Pass::least_entries(args.k), 1, kMaxQueriesPerPass);
  per_pass = std::clamp<int64_t>(kUnitBudget / args.encoded.cols, 1, per_pass);
  if (!args.has_floats()) per_pass = std::min(per_pass, kMaxQueriesWithoutFloats);
  for (int64_t first = 0; first < args.queries.rows; first += per_pass) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    Pass pass(table, args, context, first, std::min(per_pass, args.queries.rows - first));
    if (filter.bits != nullptr && !own_bits) pass.scan_only(filter.bits, share);
    if (apart) pass.scan_apart(share);
    if (Status status = pass.run(report); !status.ok()) return status;
  }
  return {};
}

}  // namespace waggle::cpu
