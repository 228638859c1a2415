// Groups of queries against tiles of rows. A tile stays in the second-level cache while every group passes over it;
// scores are compared in registers, and only those above a query's threshold are written down. What is kept of a
// query is shared by all threads, and the order (score, row) is total: the split never shows in the answer.
#include "cpu/topk.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "cpu/halves.hpp"
#include "cpu/topk_blocks.hpp"
#include "src/bitmap.hpp"
#include "src/top_heap.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kTileBytes = 344 * 1024;   // of the second-level cache, beside the panels
constexpr int32_t kMaxTileRows = 224;        // whole blocks at every level
constexpr int32_t kMinTileRows = 28;         // so that a panel's way from cache pays
constexpr int64_t kScratchBytes = 40 << 20;  // kept rows and panels of one pass; threads add some 1 MiB each
constexpr int64_t kSerialWork = 1 << 18;     // multiply-adds below which threads cost more than they bring
constexpr int64_t kLeastChunkWork = 1 << 16;
constexpr int64_t kChunkWork = 1 << 22;        // multiply-adds per chunk: a few hundred microseconds
constexpr int64_t kSparseTileBytes = 8 << 20;  // rows that queries with bitmaps of their own share in cache
constexpr int64_t kSparseRows = 48;            // rows a query should find in a sparse tile: three full groups
// Turning rows around for one query costs nine times a lane of a panel: below this share of allowed rows it wins.
constexpr double kSparseShare = 0.11;

constexpr int32_t kTurning = 9;  // what turning rows around costs, in lanes of a panel

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

double square_in_double(const float* v, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(v[i]) * v[i];
  return sum;
}

float cosine_in_double(const float* a, const float* b, int64_t dim) {
  double dot = 0;
  for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(a[i]) * b[i];
  const double norms = std::sqrt(square_in_double(a, dim)) * std::sqrt(square_in_double(b, dim));
  if (norms == 0) return 0.0f;
  return static_cast<float>(dot / norms);
}

// The best rows of one query so far: the k best and a few more, of which the worst are dropped now and then.
struct Kept {
  uint64_t* entries = nullptr;
  int32_t count = 0;
  // Key of the k-th best when last counted, 0 = fewer than k yet. Read without the lock.
  std::atomic<uint64_t> bound{0};

  void add(uint64_t key, int32_t k, int32_t capacity) {
    if (key <= bound.load(std::memory_order_relaxed)) return;
    entries[count++] = key;
    if (count == capacity) {
      std::nth_element(entries, entries + k - 1, entries + count, std::greater<uint64_t>());
      count = k;
      bound.store(entries[k - 1], std::memory_order_relaxed);
    }
  }
};

// Queries that meet a tile together.
struct Group {
  int32_t n = 0;
  int32_t lanes = 0;                 // of the panel; 0 = by pointers
  const int32_t* members = nullptr;  // query numbers within the pass
  const float* panel = nullptr;
  const float* const* queries = nullptr;
  const float* factors = nullptr;
  std::mutex mutex;  // of the members' Kept
};

// A plain piece of memory, cut up once. Nothing in it has a destructor.
class Arena {
 public:
  template <typename T>
  void reserve(int64_t n) {
    bytes_ += (static_cast<size_t>(n) * sizeof(T) + 63) & ~size_t{63};
  }
  void allocate() { memory_.reset(static_cast<std::byte*>(::operator new (bytes_, std::align_val_t{64}))); }
  template <typename T>
  T* take(int64_t n) {
    T* at = reinterpret_cast<T*>(memory_.get() + used_);
    used_ += (static_cast<size_t>(n) * sizeof(T) + 63) & ~size_t{63};
    return at;
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t bytes_ = 0;
  size_t used_ = 0;
};

struct Tile {
  const float** rows = nullptr;  // [tile rows + kTopkAhead]
  int32_t* numbers = nullptr;    // [tile rows]
  int32_t n = 0;
  int64_t group = 0;  // whose rows they are, where each query has its own
};

// Everything one thread needs, allocated once.
struct Worker {
  Tile tiles[2];
  float* factors;
  float* thresholds;
  uint32_t* hit_places;
  float* hit_scores;
  float* joined;  // the rows of the tile at hand, where they lie in halves

  Worker(int32_t tile_rows, int32_t lanes, int64_t joined_dim) {
    const int64_t hits = static_cast<int64_t>(tile_rows) * lanes + kTopkMaxLanes;
    for (int i = 0; i < 2; ++i) {
      arena_.reserve<const float*>(tile_rows + kTopkAhead);
      arena_.reserve<int32_t>(tile_rows);
    }
    arena_.reserve<float>(tile_rows);
    arena_.reserve<float>(kTopkMaxLanes);
    arena_.reserve<uint32_t>(hits);
    arena_.reserve<float>(hits);
    arena_.reserve<float>(tile_rows * joined_dim);
    arena_.allocate();
    for (Tile& tile : tiles) {
      tile.rows = arena_.take<const float*>(tile_rows + kTopkAhead);
      tile.numbers = arena_.take<int32_t>(tile_rows);
    }
    factors = arena_.take<float>(tile_rows);
    thresholds = arena_.take<float>(kTopkMaxLanes);
    hit_places = arena_.take<uint32_t>(hits);
    hit_scores = arena_.take<float>(hits);
    joined = arena_.take<float>(tile_rows * joined_dim);
  }

 private:
  Arena arena_;
};

int32_t capacity_for(int32_t k) { return 2 * k + 64; }

// Bytes a pass needs per query: kept rows, a lane of a panel, and small change.
int64_t bytes_per_query(const TopkArgs& args) {
  return capacity_for(args.k) * static_cast<int64_t>(sizeof(uint64_t)) +
         args.matrix.cols * static_cast<int64_t>(sizeof(float)) + 128;
}

// One block of queries that share a filter, or that each bring a bitmap.
class Pass {
 public:
  Pass(const Table& table, const TopkArgs& args, const EncodedMatrix* halves, const RunContext& context, int64_t first,
       int64_t count)
      : table_(table),
        args_(args),
        halves_(halves),
        context_(context),
        first_(first),
        count_(static_cast<int32_t>(count)),
        dim_(args.matrix.cols),
        n_(args.matrix.rows),
        capacity_(capacity_for(args.k)),
        // With one query its bitmap is a shared one.
        each_(args.filter.has_bits_per_query() && count > 1),
        bits_(args.filter.bits != nullptr && !each_ ? args.filter.bits_of(first) : nullptr) {}

  Status run() {
    prepare();
    Status status = scan_together();
    if (status.ok() && n_sparse_ > 0) status = scan_apart();
    if (!status.ok()) return status;
    write_answers();
    return {};
  }

 private:
  const float* query(int32_t q) const { return args_.queries.row(first_ + q); }
  const uint8_t* bitmap(int32_t q) const { return args_.filter.bits_of(first_ + q); }
  bool serial(double work) const { return !context_.parallel || work < static_cast<double>(kSerialWork); }

  // ---- queries into groups --------------------------------------------------------------------------------------

  void prepare() {
    const bool cosine = args_.metric == Metric::kCosine;
    // Sparse queries last: each is a group of its own.
    std::vector<uint8_t> sparse;
    if (each_) {
      sparse.resize(static_cast<size_t>(count_));
      for (int32_t q = 0; q < count_; ++q) {
        const double share = share_of(bitmap(q), n_);
        sparse[static_cast<size_t>(q)] = share < kSparseShare;
        if (share < kSparseShare) sparse_share_ += share;
        n_sparse_ += share < kSparseShare ? 1 : 0;
      }
      if (n_sparse_ > 0) sparse_share_ /= n_sparse_;
    }
    const int32_t together = count_ - n_sparse_;
    const TopkKernels& kernels = table_.topk;
    const auto lanes_for = [&](int32_t left) {
      if (left <= kernels.max_few) return 0;
      // Half a panel and a few beat a full one with idle lanes only where lanes are many.
      const int32_t half = kernels.narrow_lanes;
      return left > std::max(half - 1, 2 * half - kTurning) ? kernels.wide_lanes : half;
    };
    int64_t n_groups = n_sparse_;
    int64_t panel_lanes = 0;
    for (int32_t left = together; left > 0;) {
      const int32_t lanes = lanes_for(left);
      panel_lanes += lanes;
      left -= lanes == 0 ? left : std::min(left, lanes);
      ++n_groups;
    }
    n_together_ = n_groups - n_sparse_;
    has_panels_ = panel_lanes > 0;
    arena_.reserve<Kept>(count_);
    arena_.reserve<Group>(n_groups);
    arena_.reserve<int32_t>(count_);
    arena_.reserve<const float*>(count_);
    if (cosine) arena_.reserve<float>(count_ + kTopkMaxLanes);
    arena_.reserve<uint64_t>(static_cast<int64_t>(count_) * capacity_);
    arena_.reserve<float>(panel_lanes * dim_);
    arena_.allocate();
    kept_ = arena_.take<Kept>(count_);
    groups_ = arena_.take<Group>(n_groups);
    int32_t* members = arena_.take<int32_t>(count_);
    const float** queries = arena_.take<const float*>(count_);
    float* factors = cosine ? arena_.take<float>(count_ + kTopkMaxLanes) : nullptr;
    uint64_t* entries = arena_.take<uint64_t>(static_cast<int64_t>(count_) * capacity_);
    float* panel = arena_.take<float>(panel_lanes * dim_);

    int32_t dense_at = 0;
    int32_t sparse_at = together;
    for (int32_t q = 0; q < count_; ++q) {
      new (kept_ + q) Kept;
      kept_[q].entries = entries + static_cast<int64_t>(q) * capacity_;
      members[n_sparse_ > 0 && sparse[static_cast<size_t>(q)] != 0 ? sparse_at++ : dense_at++] = q;
    }
    for (int32_t i = 0; i < count_; ++i) {
      queries[i] = query(members[i]);
      if (cosine) factors[i] = query_factor(queries[i], dim_);
    }
    if (cosine) std::fill_n(factors + count_, kTopkMaxLanes, 0.0f);
    int32_t at = 0;
    for (int64_t g = 0; g < n_groups; ++g) {
      Group& group = *new (groups_ + g) Group;
      group.lanes = at < together ? lanes_for(together - at) : 0;
      group.n = at >= together ? 1 : group.lanes == 0 ? together - at : std::min(together - at, group.lanes);
      group.members = members + at;
      group.queries = queries + at;
      group.factors = cosine ? factors + at : nullptr;
      if (group.lanes != 0) {
        group.panel = panel;
        pack(group, panel);
        panel += group.lanes * dim_;
      }
      most_lanes_ = std::max(most_lanes_, std::max(group.lanes, group.n));
      at += group.n;
    }
  }

  void pack(const Group& group, float* panel) const {
    for (int32_t lane = 0; lane < group.lanes; ++lane) {
      const float* query = lane < group.n ? group.queries[lane] : nullptr;
      for (int64_t i = 0; i < dim_; ++i) panel[i * group.lanes + lane] = query != nullptr ? query[i] : 0.0f;
    }
  }

  // ---- scanning ---------------------------------------------------------------------------------------------------

  // Rows that all groups meet: every row, or those of the shared filter.
  Status scan_together() {
    if (n_together_ == 0) return {};
    const bool list = args_.filter.has_list();
    const int64_t extent = list ? args_.filter.n_rows : n_;  // rows, or places in the list
    const double share = bits_ != nullptr ? std::max(share_of(bits_, n_), 1e-9) : 1.0;
    tile_rows_ = static_cast<int32_t>(
        std::clamp<int64_t>(kTileBytes / (dim_ * static_cast<int64_t>(sizeof(float))), kMinTileRows, kMaxTileRows));
    tile_rows_ -= tile_rows_ % 14;
    // Less work than one full tile needs less room.
    tile_rows_ = static_cast<int32_t>(std::clamp<int64_t>(extent, 1, tile_rows_));
    const double row_work = static_cast<double>(count_ - n_sparse_) * static_cast<double>(dim_);
    const double work = row_work * static_cast<double>(extent) * share;
    // A chunk: so many places, a multiple of 64 for whole words of bitmaps and near one of whole tiles.
    double places = std::max(static_cast<double>(kChunkWork) / row_work, static_cast<double>(tile_rows_)) / share;
    // Enough chunks to keep every thread busy to the end, as long as each is worth its hand-over.
    const double even = static_cast<double>(extent) / (8.0 * ThreadPool::instance().n_threads());
    places = std::min(places, std::max(even, static_cast<double>(kLeastChunkWork) / row_work / share));
    if (serial(work)) places = static_cast<double>(extent);
    int64_t chunk = static_cast<int64_t>(std::min(places, static_cast<double>(extent)));
    if (bits_ == nullptr) chunk = std::max<int64_t>(1, chunk / tile_rows_) * tile_rows_;
    if (bits_ != nullptr) chunk = (chunk + 63) / 64 * 64;
    chunk = std::max<int64_t>(chunk, 1);
    return for_each_chunk(extent, chunk, serial(work), [this](Worker& w, int64_t begin, int64_t end) {
      int64_t at = begin;
      Tile* tile = &w.tiles[0];
      Tile* next = &w.tiles[1];
      fill(*tile, at, end, bits_);
      while (tile->n > 0 && !stopped()) {
        fill(*next, at, end, bits_);
        make_ready(w, *tile, *next);
        if (has_panels_ && args_.metric == Metric::kCosine) {
          table_.topk.factors(tile->rows, tile->n, dim_, w.factors);
        }
        for (int64_t g = 0; g < n_together_ && !stopped(); ++g) meet(w, groups_[g], *tile);
        std::swap(tile, next);
      }
    });
  }

  // Queries with few allowed rows each: every one picks its own from a tile that they share in cache.
  Status scan_apart() {
    const double rows_wanted = static_cast<double>(kSparseRows) / std::max(sparse_share_, 1e-9);
    const double rows_in_cache = static_cast<double>(kSparseTileBytes) / (static_cast<double>(dim_) * sizeof(float));
    // Where hardly any row is wanted twice there is nothing to share.
    const bool shares = sparse_share_ * n_sparse_ > 0.5;
    const double places = shares ? std::min(rows_wanted, rows_in_cache) : rows_wanted;
    int64_t chunk = static_cast<int64_t>(std::min(places, static_cast<double>(n_)));
    chunk = std::max<int64_t>(64, (chunk + 63) / 64 * 64);
    tile_rows_ = static_cast<int32_t>(std::clamp<int64_t>(n_, 1, kMaxTileRows));
    const double work = sparse_share_ * n_sparse_ * static_cast<double>(n_) * static_cast<double>(dim_);
    return for_each_chunk(n_, chunk, serial(work), [this](Worker& w, int64_t begin, int64_t end) {
      // One row of tiles through all queries, so that each finds its first rows fetched already.
      const int64_t last = n_together_ + n_sparse_;
      int64_t reading = n_together_;
      int64_t at = begin;
      const auto fill_next = [&](Tile& tile) {
        tile.n = 0;
        while (reading < last) {
          fill(tile, at, end, bitmap(groups_[reading].members[0]));
          tile.group = reading;
          if (tile.n > 0) return;
          ++reading;
          at = begin;
        }
      };
      Tile* tile = &w.tiles[0];
      Tile* next = &w.tiles[1];
      fill_next(*tile);
      while (tile->n > 0 && !stopped()) {
        fill_next(*next);
        make_ready(w, *tile, *next);
        meet(w, groups_[tile->group], *tile);
        std::swap(tile, next);
      }
    });
  }

  template <typename Body>
  Status for_each_chunk(int64_t extent, int64_t chunk, bool alone, const Body& body) {
    const int64_t n_chunks = (extent + chunk - 1) / chunk;
    if (alone) {
      Worker worker(tile_rows_, most_lanes_, joined_dim());
      for (int64_t c = 0; c < n_chunks && !stopped(); ++c) body(worker, c * chunk, std::min(extent, (c + 1) * chunk));
    } else {
      ThreadPool& pool = ThreadPool::instance();
      std::vector<std::unique_ptr<Worker>> workers(static_cast<size_t>(pool.max_workers()));
      std::atomic<bool> out_of_memory{false};
      pool.for_each_chunk(n_chunks, context_, [&](int64_t c, int worker) {
        std::unique_ptr<Worker>& slot = workers[static_cast<size_t>(worker)];
        if (slot == nullptr) {
          try {
            slot = std::make_unique<Worker>(tile_rows_, most_lanes_, joined_dim());
          } catch (...) {
            out_of_memory.store(true);
            return;
          }
        }
        body(*slot, c * chunk, std::min(extent, (c + 1) * chunk));
      });
      if (out_of_memory.load()) return fail(Code::kOutOfMemory, "not enough memory for the tiles of topk");
    }
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (const int64_t row = bad_row_.load(); row >= 0) {
      return fail(Code::kNotFinite, "matrix row %lld holds NaN or infinity, or its score overflows",
                  static_cast<long long>(row));
    }
    return {};
  }

  bool stopped() const { return context_.stop_requested() || bad_row_.load(std::memory_order_relaxed) >= 0; }

  // The next rows from place `at` on, at most a tile full.
  void fill(Tile& tile, int64_t& at, int64_t end, const uint8_t* bits) const {
    int32_t n = 0;
    if (bits != nullptr) {
      n = take_bits(bits, &at, end, tile_rows_, tile.numbers);
    } else {
      n = static_cast<int32_t>(std::min<int64_t>(tile_rows_, end - at));
      for (int32_t i = 0; i < n; ++i) {
        tile.numbers[i] = args_.filter.has_list() ? args_.filter.rows[at + i] : static_cast<int32_t>(at + i);
      }
      at += n;
    }
    if (halves_ == nullptr) {
      for (int32_t i = 0; i < n; ++i) tile.rows[i] = args_.matrix.row(tile.numbers[i]);
    }
    tile.n = n;
  }

  int64_t joined_dim() const { return halves_ == nullptr ? 0 : dim_; }

  // Kernels fetch the rows behind those of a tile. Rows put together of their halves are in cache, and none is behind.
  void make_ready(const Worker& w, Tile& tile, const Tile& next) const {
    if (halves_ != nullptr) {
      for (int32_t i = 0; i < tile.n; ++i) {
        join_row(*halves_, tile.numbers[i], w.joined + i * dim_);
        tile.rows[i] = w.joined + i * dim_;
      }
      std::fill_n(tile.rows + tile.n, kTopkAhead, tile.rows[tile.n - 1]);
      return;
    }
    for (int32_t i = 0; i < kTopkAhead; ++i) {
      tile.rows[tile.n + i] = next.n > 0 ? next.rows[std::min(i, next.n - 1)] : tile.rows[tile.n - 1];
    }
  }

  // A score must be above this to matter. Of an equal one, a row that the k-th best precedes loses the tie.
  float threshold_of(int32_t q, int32_t first_row) const {
    const uint64_t bound = kept_[q].bound.load(std::memory_order_relaxed);
    if (bound == 0) return -kInfinity;
    const float score = score_of_key(bound);
    return row_of_key(bound) < first_row ? score : std::nextafter(score, -kInfinity);
  }

  void meet(Worker& w, Group& group, const Tile& tile) {
    for (int32_t i = 0; i < group.n; ++i) w.thresholds[i] = threshold_of(group.members[i], tile.numbers[0]);
    const TopkKernels& kernels = table_.topk;
    TopkTile t;
    t.rows = tile.rows;
    t.n_rows = tile.n;
    t.n_queries = group.n;
    t.dim = dim_;
    t.panel = group.panel;
    t.queries = group.queries;
    t.thresholds = w.thresholds;
    t.query_factors = group.factors;
    t.row_factors = w.factors;
    t.hit_places = w.hit_places;
    t.hit_scores = w.hit_scores;
    const auto kernel = group.lanes == 0                    ? kernels.few
                        : group.lanes == kernels.wide_lanes ? kernels.wide
                                                            : kernels.narrow;
    const int32_t n_hits = kernel(&t, args_.metric == Metric::kL2);
    if (n_hits > 0) take_hits(w, group, tile, n_hits);
  }

  void take_hits(const Worker& w, Group& group, const Tile& tile, int32_t n_hits) {
    const std::lock_guard<std::mutex> lock(group.mutex);
    for (int32_t h = 0; h < n_hits; ++h) {
      const int32_t q = group.members[w.hit_places[h] & 255u];
      const int32_t r = static_cast<int32_t>(w.hit_places[h] >> 8);
      const int32_t row = tile.numbers[r];
      if (each_ && ((bitmap(q)[row >> 3] >> (row & 7)) & 1) == 0) continue;
      float score = w.hit_scores[h];
      if (!std::isfinite(score)) {
        if (args_.metric == Metric::kCosine) score = cosine_in_double(query(q), tile.rows[r], dim_);
        if (!std::isfinite(score)) {
          int64_t none = -1;
          bad_row_.compare_exchange_strong(none, row);
          return;
        }
      }
      kept_[q].add(ranking_key(score, row), args_.k, capacity_);
    }
  }

  // ---- answers ----------------------------------------------------------------------------------------------------

  void write_answers() {
    constexpr int64_t kPerChunk = 16;
    const int64_t n_chunks = (count_ + kPerChunk - 1) / kPerChunk;
    const auto body = [this](int64_t chunk) {
      const int32_t end = static_cast<int32_t>(std::min<int64_t>(count_, (chunk + 1) * kPerChunk));
      for (int32_t q = static_cast<int32_t>(chunk * kPerChunk); q < end; ++q) write_answer(q);
    };
    if (!context_.parallel || n_chunks == 1) {
      for (int64_t chunk = 0; chunk < n_chunks; ++chunk) body(chunk);
    } else {
      // Without the caller's flag: half an answer is none, and this is soon done.
      ThreadPool::instance().for_each_chunk(n_chunks, RunContext{}, [&](int64_t chunk, int) { body(chunk); });
    }
  }

  void write_answer(int32_t q) {
    Kept& kept = kept_[q];
    const int32_t found = std::min(args_.k, kept.count);
    if (kept.count > found) {
      std::nth_element(kept.entries, kept.entries + found, kept.entries + kept.count, std::greater<uint64_t>());
    }
    std::sort(kept.entries, kept.entries + found, std::greater<uint64_t>());
    float* scores = args_.scores + (first_ + q) * args_.k;
    int32_t* rows = args_.rows + (first_ + q) * args_.k;
    for (int32_t i = 0; i < args_.k; ++i) {
      scores[i] = i < found ? score_of_key(kept.entries[i]) : -kInfinity;
      rows[i] = i < found ? row_of_key(kept.entries[i]) : -1;
    }
  }

  const Table& table_;
  const TopkArgs& args_;
  const EncodedMatrix* const halves_;
  const RunContext& context_;
  const int64_t first_;
  const int32_t count_;
  const int64_t dim_;
  const int64_t n_;
  const int32_t capacity_;
  const bool each_;            // a bitmap per query
  const uint8_t* const bits_;  // the shared one
  Arena arena_;
  Kept* kept_ = nullptr;
  Group* groups_ = nullptr;  // those that scan together, then the sparse
  int64_t n_together_ = 0;
  bool has_panels_ = false;
  int32_t n_sparse_ = 0;
  double sparse_share_ = 0;  // mean share of allowed rows
  int32_t most_lanes_ = 0;
  int32_t tile_rows_ = 0;
  std::atomic<int64_t> bad_row_{-1};
};

}  // namespace

float query_factor(const float* query, int64_t dim) {
  const double square = square_in_double(query, dim);
  const bool safe = square >= kTopkSmallestSafeSquare && square <= kTopkLargestSafeSquare;
  return safe ? static_cast<float>(1.0 / std::sqrt(square)) : kNaN;
}

void rescore(const Table& table, Metric metric, const float* query, const Matrix<const float>& matrix,
             const int32_t* rows, int64_t n, float* scores) {
  constexpr int32_t kBatch = 64;
  const int64_t dim = matrix.cols;
  const float factor = metric == Metric::kCosine ? query_factor(query, dim) : 1.0f;
  const float* at[kBatch + kTopkAhead];
  float factors[kBatch];
  for (int64_t done = 0; done < n; done += kBatch) {
    const int32_t count = static_cast<int32_t>(std::min<int64_t>(kBatch, n - done));
    for (int32_t i = 0; i < count + kTopkAhead; ++i) at[i] = matrix.row(rows[std::min(done + i, n - 1)]);
    float* out = scores + done;
    table.topk.scores(query, at, count, dim, metric == Metric::kL2, out);
    if (metric != Metric::kCosine) continue;
    table.topk.factors(at, count, dim, factors);
    for (int32_t i = 0; i < count; ++i) {
      out[i] = out[i] * factor * factors[i];
      if (!std::isfinite(out[i])) out[i] = cosine_in_double(query, at[i], dim);
    }
  }
}

Status topk(const Table& table, const TopkArgs& args, const RunContext& context, const EncodedMatrix* halves) {
  // As many queries at a time as fit the scratch; whole panels.
  const int64_t fit = std::max<int64_t>(kTopkMaxLanes, kScratchBytes / bytes_per_query(args));
  const int64_t per_pass = fit - fit % kTopkMaxLanes;
  for (int64_t first = 0; first < args.queries.rows; first += per_pass) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    Pass pass(table, args, halves, context, first, std::min(per_pass, args.queries.rows - first));
    if (Status status = pass.run(); !status.ok()) return status;
  }
  return {};
}

}  // namespace waggle::cpu
