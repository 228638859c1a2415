// A batch of queries is turned round: every list is read once for all the queries that probe it. A query's residual to
// the centroid of a list is encoded as the rows of the list were, so that the error of a score is that of two short
// vectors, and shrinks with the distance between query and row.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "cpu/topk.hpp"
#include "cpu/topk_blocks.hpp"
#include "src/bitmap.hpp"
#include "src/ivf/parts.hpp"
#include "src/top_heap.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::ivf {

namespace {

constexpr int64_t kQueriesPerBlock = 32;  // scored together against a tile
constexpr int64_t kTileGroups = 16;       // rows of a tile stay in the second-level cache: 96 KiB at 384 dimensions
constexpr int64_t kCoarseTileGroups = 64;
constexpr int64_t kHeapBytes = 24 << 20;  // all heaps of a pass
constexpr int64_t kMaxPass = 2048;
constexpr int64_t kSampledBytes = 8192;  // of a filter, to see how many rows of each list it allows
constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// Candidates re-scored for an answer of k: errors of the codes swap neighbours in rank, rarely farther.
int64_t candidates_for(int64_t k) { return k + std::max<int64_t>(16, k / 4); }

/// Scores above the result pass: those of the worst kept and better, since a lower row wins at equal score.
float just_below(float worst) { return std::nextafter(worst, kLowest); }

struct Query {
  const float* x = nullptr;
  float factor = 1.0f;
  const uint8_t* allowed = nullptr;  // its bitmap, or null
  bool exhaustive = false;
  int64_t begin = 0;  // its lists, best first, in Pass::lists_
  int64_t end = 0;
};

struct Worker {
  std::vector<uint64_t> entries;
  std::vector<TopHeap<uint64_t>> heaps;
  std::vector<float> thresholds;
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<float> scales;
  std::vector<float> bases;
  std::vector<int32_t> dots;
  std::vector<int32_t> hit_rows;
  std::vector<float> hit_scores;
  std::vector<uint64_t> merged;
  std::vector<int32_t> rescored_rows;
  std::vector<float> rescored;
  int64_t rows_scanned = 0;
};

class Pass {
 public:
  Pass(const cpu::Table& table, const IvfIndex::Parts& parts, const IvfSearchArgs& args, const RunContext& context,
       const uint8_t* shared_bits, int64_t first, int64_t count, int64_t n_workers)
      : table_(table),
        parts_(parts),
        args_(args),
        context_(context),
        shared_bits_(shared_bits),
        first_(first),
        queries_(static_cast<size_t>(count)),
        workers_(static_cast<size_t>(n_workers)),
        n_candidates_(parts.int8_lists() && parts.values.size() > 0 ? candidates_for(args.k) : args.k) {}

  Status run(IvfSearchReport* report) {
    for (size_t q = 0; q < queries_.size(); ++q) {
      Query& query = queries_[q];
      const int64_t number = first_ + static_cast<int64_t>(q);
      query.x = args_.queries.row(number);
      // Inner products are linear in the query: one of the rows' length has the shortest residuals.
      if (parts_.metric == Metric::kCosine) query.factor = inverse_length(query.x, parts_.dim);
      if (parts_.metric == Metric::kInnerProduct) {
        query.factor = std::min(parts_.typical_length * inverse_length(query.x, parts_.dim), 1e38f);
      }
      if (shared_bits_ != nullptr) query.allowed = shared_bits_;
      if (args_.filter.bits != nullptr) query.allowed = args_.filter.bits_of(number);
    }
    prepare_workers();
    plan();
    if (Status status = search_exhaustively(report); !status.ok()) return status;
    find_lists();
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    trim_to_filter();
    if (Status status = search_exhaustively(report); !status.ok()) return status;
    turn_round();
    scan();
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    answer();
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (const int64_t row = bad_row_.load(); row >= 0) {
      return fail(Code::kNotFinite, "the score of row %lld overflows", static_cast<long long>(row));
    }
    for (const Worker& w : workers_) report->rows_scanned += w.rows_scanned;
    for (const Query& query : queries_) report->lists_probed += query.exhaustive ? 0 : query.end - query.begin;
    return {};
  }

 private:
  int64_t n_queries() const { return static_cast<int64_t>(queries_.size()); }

  void prepare_workers() {
    const size_t q = queries_.size();
    for (Worker& w : workers_) {
      w.entries.resize(q * static_cast<size_t>(n_candidates_));
      w.heaps.resize(q);
      for (size_t i = 0; i < q; ++i) {
        w.heaps[i] = TopHeap<uint64_t>(w.entries.data() + i * static_cast<size_t>(n_candidates_),
                                       static_cast<int32_t>(n_candidates_));
      }
      w.thresholds.assign(q, kLowest);
      w.codes.resize(std::max<size_t>(q, kQueriesPerBlock) * static_cast<size_t>(parts_.quads * 4));
      w.sums.resize(std::max<size_t>(q, kQueriesPerBlock));
      w.scales.resize(w.sums.size());
      w.bases.resize(w.sums.size());
      w.dots.resize(static_cast<size_t>(kQueriesPerBlock * kCoarseTileGroups * kGroup));
      w.hit_rows.resize(static_cast<size_t>(kCoarseTileGroups * kGroup) + 16);
      w.hit_scores.resize(w.hit_rows.size());
      w.merged.resize(workers_.size() * static_cast<size_t>(n_candidates_));
      w.rescored_rows.resize(static_cast<size_t>(n_candidates_));
      w.rescored.resize(static_cast<size_t>(n_candidates_));
    }
  }

  // ---- how many lists -----------------------------------------------------------------------------------------

  double rows_per_probe() const {
    return static_cast<double>(parts_.n_rows) / static_cast<double>(std::max<int64_t>(1, parts_.n_lists()));
  }
  double rows_wanted() const { return rows_per_probe() * args_.n_probe; }

  /// Bytes per dimension that a scan reads.
  double scan_width() const { return parts_.int8_lists() ? 1.0 : 4.0; }

  bool exhaustive_is_cheaper(double allowed, double rows_to_scan) const {
    if (parts_.values.size() == 0) return false;
    return allowed <= 4.0 * args_.k || allowed * 4.0 <= rows_to_scan * scan_width();
  }

  void plan() {
    const int64_t n_lists = parts_.n_lists();
    depth_.assign(queries_.size(), std::min<int64_t>(args_.n_probe, n_lists));
    if (!args_.filter) return;
    double shared_allowed = 0;
    for (size_t q = 0; q < queries_.size(); ++q) {
      double allowed = shared_allowed;
      if (q == 0 || args_.filter.stride_bytes != 0)
        allowed = static_cast<double>(count_bits(queries_[q].allowed, parts_.n_rows));
      shared_allowed = allowed;
      const double share = allowed / static_cast<double>(parts_.n_rows);
      const double to_scan = allowed == 0 ? 0 : rows_wanted() / share;
      if (allowed == 0 || exhaustive_is_cheaper(allowed, to_scan)) {
        queries_[q].exhaustive = true;
        depth_[q] = 0;
      } else {
        // Four times what an even spread would need: the walk in trim_to_filter() stops earlier where it can.
        const double depth = 4.0 * args_.n_probe / share + 16.0;
        depth_[q] = depth >= static_cast<double>(n_lists) ? n_lists : static_cast<int64_t>(depth);
      }
    }
  }

  /// Stops each filtered query's walk along its lists where they hold as many allowed rows as an unfiltered search
  /// reads. A query whose walk ends before that reads all its allowed rows instead, where that is possible.
  void trim_to_filter() {
    if (!args_.filter) return;
    const int64_t n_lists = parts_.n_lists();
    std::vector<int32_t> allowed_in(static_cast<size_t>(n_lists));
    const int64_t bytes = (parts_.n_rows + 7) / 8;
    const int64_t step = std::max<int64_t>(1, bytes / kSampledBytes);
    const uint8_t* counted = nullptr;
    for (size_t q = 0; q < queries_.size(); ++q) {
      Query& query = queries_[q];
      if (query.exhaustive) continue;
      if (query.allowed != counted) {
        counted = query.allowed;
        std::fill(allowed_in.begin(), allowed_in.end(), 0);
        for (int64_t byte = 0; byte < bytes; byte += step) {
          for (unsigned left = counted[byte]; left != 0; left &= left - 1) {
            const int64_t row = byte * 8 + std::countr_zero(left);
            if (row < parts_.n_rows) ++allowed_in[static_cast<size_t>(parts_.list_of[static_cast<size_t>(row)])];
          }
        }
      }
      double seen = 0;
      int64_t scanned = 0;
      int64_t end = query.begin;
      while (end < query.end && (seen < rows_wanted() || end - query.begin < args_.n_probe)) {
        const int32_t list = lists_[static_cast<size_t>(end++)];
        seen += static_cast<double>(allowed_in[static_cast<size_t>(list)]) * static_cast<double>(step);
        scanned += parts_.sizes[list];
      }
      const bool ran_out = end == query.end && seen < rows_wanted() && query.end - query.begin < n_lists;
      query.end = end;
      if (ran_out || exhaustive_is_cheaper(static_cast<double>(count_bits(query.allowed, parts_.n_rows)),
                                           static_cast<double>(scanned))) {
        if (parts_.values.size() > 0) query.exhaustive = true;
      }
    }
  }

  Status search_exhaustively(IvfSearchReport* report) {
    if (parts_.values.size() == 0) return {};
    const bool one_filter = args_.filter.stride_bytes == 0;
    std::vector<size_t> pending;
    for (size_t q = 0; q < queries_.size(); ++q) {
      if (queries_[q].exhaustive && queries_[q].begin >= 0) pending.push_back(q);
    }
    std::vector<float> gathered, scores;
    std::vector<int32_t> rows;
    for (size_t at = 0; at < pending.size();) {
      const size_t n = one_filter ? pending.size() : 1;
      gathered.clear();
      for (size_t i = at; i < at + n; ++i) {
        const float* x = queries_[pending[i]].x;
        gathered.insert(gathered.end(), x, x + parts_.dim);
      }
      scores.resize(n * static_cast<size_t>(args_.k));
      rows.resize(scores.size());
      TopkArgs exact;
      exact.queries = {gathered.data(), static_cast<int64_t>(n), parts_.dim};
      exact.matrix = parts_.matrix();
      exact.k = args_.k;
      exact.metric = parts_.metric;
      exact.filter = args_.filter;
      if (args_.filter.bits != nullptr) {
        exact.filter = RowFilter::shared(queries_[pending[at]].allowed, (parts_.n_rows + 7) / 8);
      }
      exact.scores = scores.data();
      exact.rows = rows.data();
      if (Status status = cpu::topk(table_, exact, context_); !status.ok()) return status;
      for (size_t i = 0; i < n; ++i) {
        const int64_t to = (first_ + static_cast<int64_t>(pending[at + i])) * args_.k;
        std::copy_n(scores.begin() + static_cast<std::ptrdiff_t>(i) * args_.k, args_.k, args_.scores + to);
        std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i) * args_.k, args_.k, args_.rows + to);
        queries_[pending[at + i]].begin = queries_[pending[at + i]].end = -1;  // answered
        report->exhaustive += 1;
      }
      at += n;
    }
    return {};
  }

  // ---- which lists --------------------------------------------------------------------------------------------

  void find_lists() {
    int64_t total = 0;
    for (size_t q = 0; q < queries_.size(); ++q) {
      if (queries_[q].begin < 0) continue;
      queries_[q].begin = total;
      total += depth_[q];
      queries_[q].end = total;
    }
    lists_.resize(static_cast<size_t>(total));
    list_keys_.resize(static_cast<size_t>(total));
    const int64_t n = n_queries();
    const int64_t per_chunk = std::clamp<int64_t>(n / (2 * static_cast<int64_t>(workers_.size())), 4, kQueriesPerBlock);
    for_chunks((n + per_chunk - 1) / per_chunk,
               [&](int64_t chunk, Worker& w) { coarse(chunk * per_chunk, std::min(n, (chunk + 1) * per_chunk), w); });
  }

  void coarse(int64_t begin, int64_t end, Worker& w) {
    const int64_t n_lists = parts_.n_lists();
    const Centroids& c = parts_.coarse;
    const bool distance = parts_.by_distance;
    TopHeap<uint64_t> heaps[kQueriesPerBlock];
    float thresholds[kQueriesPerBlock];
    for (int64_t q = begin; q < end; ++q) {
      const Query& query = queries_[static_cast<size_t>(q)];
      const size_t at = static_cast<size_t>(q - begin);
      cpu::IvfEncoding e;
      table_.ivf.encode(query.x, query.factor, distance ? parts_.mean.data() : nullptr, parts_.dim, parts_.quads,
                        w.codes.data() + static_cast<int64_t>(at) * parts_.quads * 4, &e);
      w.sums[at] = e.sum;
      w.scales[at] = e.scale;
      if (query.begin >= 0) {
        heaps[at] = TopHeap<uint64_t>(list_keys_.data() + query.begin, static_cast<int32_t>(query.end - query.begin));
      }
      thresholds[at] = kLowest;
    }
    constexpr int64_t kLd = kCoarseTileGroups * kGroup;
    const int64_t n_groups = groups_of(n_lists);
    for (int64_t g = 0; g < n_groups; g += kCoarseTileGroups) {
      const int64_t ng = std::min(kCoarseTileGroups, n_groups - g);
      table_.ivf.dots(c.groups.data() + g * parts_.quads * 64, ng, w.codes.data(), w.sums.data(),
                      static_cast<int32_t>(end - begin), parts_.quads, w.dots.data(), kLd);
      const int64_t first = g * kGroup;
      const int32_t rows = static_cast<int32_t>(std::min(ng * kGroup, n_lists - first));
      for (int64_t q = begin; q < end; ++q) {
        const size_t at = static_cast<size_t>(q - begin);
        const Query& query = queries_[static_cast<size_t>(q)];
        if (query.begin < 0 || query.begin == query.end) continue;
        const int32_t hits = table_.ivf.collect(w.dots.data() + static_cast<int64_t>(at) * kLd, c.scale.data() + first,
                                                c.bias.data() + first, rows, w.scales[at], 0.0f, thresholds[at],
                                                w.hit_rows.data(), w.hit_scores.data());
        TopHeap<uint64_t>& heap = heaps[at];
        for (int32_t h = 0; h < hits; ++h) {
          heap.push(ranking_key(w.hit_scores[static_cast<size_t>(h)],
                                static_cast<int32_t>(first) + w.hit_rows[static_cast<size_t>(h)]));
        }
        // Lists come in ascending order: an equal score seen later loses.
        if (heap.full()) thresholds[at] = score_of_key(heap.worst());
      }
    }
    for (int64_t q = begin; q < end; ++q) {
      Query& query = queries_[static_cast<size_t>(q)];
      if (query.begin < 0) continue;
      heaps[q - begin].sort();
      // Fewer than asked for when scores overflow: only a file that no build wrote can hold such centroids.
      query.end = query.begin + heaps[q - begin].size();
      for (int64_t i = query.begin; i < query.end; ++i) {
        lists_[static_cast<size_t>(i)] = row_of_key(list_keys_[static_cast<size_t>(i)]);
      }
    }
  }

  // ---- their rows ---------------------------------------------------------------------------------------------

  /// From the lists of each query to the queries of each list, and chunks of lists of about equal work.
  void turn_round() {
    const size_t n_lists = static_cast<size_t>(parts_.n_lists());
    first_pair_.assign(n_lists + 1, 0);
    for (const Query& query : queries_) {
      for (int64_t i = query.begin; i < query.end; ++i) {
        ++first_pair_[static_cast<size_t>(lists_[static_cast<size_t>(i)]) + 1];
      }
    }
    std::partial_sum(first_pair_.begin(), first_pair_.end(), first_pair_.begin());
    pairs_.resize(static_cast<size_t>(first_pair_[n_lists]));
    std::vector<int64_t> cursor(first_pair_.begin(), first_pair_.end() - 1);
    for (size_t q = 0; q < queries_.size(); ++q) {
      for (int64_t i = queries_[q].begin; i < queries_[q].end; ++i) {
        const size_t list = static_cast<size_t>(lists_[static_cast<size_t>(i)]);
        pairs_[static_cast<size_t>(cursor[list]++)] = static_cast<int32_t>(q);
      }
    }
    double total = 0;
    for (size_t l = 0; l < n_lists; ++l) total += cost(l);
    const double per_chunk = std::clamp(total / (16.0 * static_cast<double>(workers_.size())), 65536.0, 2097152.0);
    chunk_lists_.assign(1, 0);
    double open = 0;
    for (size_t l = 0; l < n_lists; ++l) {
      open += cost(l);
      if (open < per_chunk) continue;
      chunk_lists_.push_back(static_cast<int32_t>(l) + 1);
      open = 0;
    }
    if (open > 0) chunk_lists_.push_back(static_cast<int32_t>(n_lists));
  }

  double cost(size_t list) const {
    const int64_t pairs = first_pair_[list + 1] - first_pair_[list];
    if (pairs == 0) return 0;
    // Reading the rows costs about as much as multiplying them with four queries.
    return static_cast<double>(parts_.sizes[static_cast<int64_t>(list)]) * static_cast<double>(parts_.dim) *
           (1.0 + 0.25 * static_cast<double>(pairs)) * scan_width();
  }

  void scan() {
    for_chunks(static_cast<int64_t>(chunk_lists_.size()) - 1, [&](int64_t chunk, Worker& w) {
      for (int32_t l = chunk_lists_[static_cast<size_t>(chunk)]; l < chunk_lists_[static_cast<size_t>(chunk) + 1];
           ++l) {
        const int64_t begin = first_pair_[static_cast<size_t>(l)];
        const int64_t end = first_pair_[static_cast<size_t>(l) + 1];
        if (begin == end || context_.stop_requested()) continue;
        w.rows_scanned += parts_.sizes[l] * (end - begin);
        if (parts_.int8_lists()) {
          scan_codes(l, pairs_.data() + begin, end - begin, w);
        } else {
          scan_values(l, pairs_.data() + begin, end - begin, w);
        }
      }
    });
  }

  void scan_codes(int32_t list, const int32_t* pairs, int64_t n_pairs, Worker& w) {
    const float* centroid = parts_.centroids.data() + list * parts_.dim;
    const float centroid_square = parts_.centroid_square[static_cast<size_t>(list)];
    const int64_t stride = parts_.quads * 4;
    for (int64_t p = 0; p < n_pairs; ++p) {
      const Query& query = queries_[static_cast<size_t>(pairs[p])];
      cpu::IvfEncoding e;
      table_.ivf.encode(query.x, query.factor, centroid, parts_.dim, parts_.quads, w.codes.data() + p * stride, &e);
      const size_t at = static_cast<size_t>(p);
      w.sums[at] = e.sum;
      if (parts_.metric == Metric::kL2) {
        w.scales[at] = 2.0f * e.scale;
        w.bases[at] = -e.square;
      } else {
        w.scales[at] = e.scale;
        w.bases[at] = e.along + centroid_square;
      }
    }
    constexpr int64_t kLd = kTileGroups * kGroup;
    const int64_t first_group = parts_.first_group[list];
    const int64_t n_groups = parts_.first_group[list + 1] - first_group;
    for (int64_t g = 0; g < n_groups; g += kTileGroups) {
      const int64_t ng = std::min(kTileGroups, n_groups - g);
      const int64_t at_row = (first_group + g) * kGroup;
      const int32_t rows = static_cast<int32_t>(std::min<int64_t>(ng * kGroup, parts_.sizes[list] - g * kGroup));
      for (int64_t p0 = 0; p0 < n_pairs; p0 += kQueriesPerBlock) {
        const int64_t np = std::min(kQueriesPerBlock, n_pairs - p0);
        table_.ivf.dots(parts_.groups.data() + (first_group + g) * parts_.quads * 64, ng, w.codes.data() + p0 * stride,
                        w.sums.data() + p0, static_cast<int32_t>(np), parts_.quads, w.dots.data(), kLd);
        for (int64_t p = p0; p < p0 + np; ++p) {
          const int32_t q = pairs[p];
          const int32_t hits = table_.ivf.collect(w.dots.data() + (p - p0) * kLd, parts_.scale.data() + at_row,
                                                  parts_.bias.data() + at_row, rows, w.scales[static_cast<size_t>(p)],
                                                  w.bases[static_cast<size_t>(p)], w.thresholds[static_cast<size_t>(q)],
                                                  w.hit_rows.data(), w.hit_scores.data());
          if (hits > 0) keep(q, parts_.rows.data() + at_row, hits, w);
        }
      }
    }
  }

  /// Offers the hits in `w`, whose places are relative to `rows`.
  void keep(int32_t q, const int32_t* rows, int32_t hits, Worker& w) {
    const uint8_t* allowed = queries_[static_cast<size_t>(q)].allowed;
    TopHeap<uint64_t>& heap = w.heaps[static_cast<size_t>(q)];
    for (int32_t h = 0; h < hits; ++h) {
      const int32_t row = rows[w.hit_rows[static_cast<size_t>(h)]];
      if (allowed != nullptr && ((allowed[row >> 3] >> (row & 7)) & 1) == 0) continue;
      heap.push(ranking_key(w.hit_scores[static_cast<size_t>(h)], row));
    }
    if (heap.full()) w.thresholds[static_cast<size_t>(q)] = just_below(score_of_key(heap.worst()));
  }

  void scan_values(int32_t list, const int32_t* pairs, int64_t n_pairs, Worker& w) {
    const int32_t* rows = parts_.rows.data() + parts_.first_group[list] * kGroup;
    constexpr int64_t kStep = kCoarseTileGroups * kGroup;
    for (int64_t begin = 0; begin < parts_.sizes[list]; begin += kStep) {
      const int64_t n = std::min<int64_t>(kStep, parts_.sizes[list] - begin);
      for (int64_t p = 0; p < n_pairs; ++p) {
        const int32_t q = pairs[p];
        cpu::rescore(table_, parts_.metric, queries_[static_cast<size_t>(q)].x, parts_.matrix(), rows + begin, n,
                     w.hit_scores.data());
        const float threshold = w.thresholds[static_cast<size_t>(q)];
        int32_t hits = 0;
        for (int64_t i = 0; i < n; ++i) {
          const float score = w.hit_scores[static_cast<size_t>(i)];
          if (!std::isfinite(score)) refuse(rows[begin + i]);
          if (!(score > threshold)) continue;
          w.hit_rows[static_cast<size_t>(hits)] = static_cast<int32_t>(i);
          w.hit_scores[static_cast<size_t>(hits++)] = score;
        }
        if (hits > 0) keep(q, rows + begin, hits, w);
      }
    }
  }

  void refuse(int32_t row) {
    int64_t none = -1;
    bad_row_.compare_exchange_strong(none, row);
  }

  // ---- the answer ---------------------------------------------------------------------------------------------

  void answer() {
    constexpr int64_t kPerChunk = 4;
    const int64_t n = n_queries();
    for_chunks((n + kPerChunk - 1) / kPerChunk, [&](int64_t chunk, Worker& w) {
      for (int64_t q = chunk * kPerChunk; q < std::min(n, (chunk + 1) * kPerChunk); ++q) {
        if (queries_[static_cast<size_t>(q)].begin >= 0) answer_one(q, w);
      }
    });
  }

  void answer_one(int64_t q, Worker& w) {
    size_t n = 0;
    for (const Worker& other : workers_) {
      const TopHeap<uint64_t>& heap = other.heaps[static_cast<size_t>(q)];
      n = static_cast<size_t>(std::copy(heap.begin(), heap.end(), w.merged.begin() + static_cast<std::ptrdiff_t>(n)) -
                              w.merged.begin());
    }
    const auto best_first = std::greater<uint64_t>();
    const size_t candidates = std::min(n, static_cast<size_t>(n_candidates_));
    const auto begin = w.merged.begin();
    std::partial_sort(begin, begin + static_cast<std::ptrdiff_t>(candidates), begin + static_cast<std::ptrdiff_t>(n),
                      best_first);
    if (parts_.int8_lists() && parts_.values.size() > 0) {
      for (size_t i = 0; i < candidates; ++i) w.rescored_rows[i] = row_of_key(w.merged[i]);
      cpu::rescore(table_, parts_.metric, queries_[static_cast<size_t>(q)].x, parts_.matrix(), w.rescored_rows.data(),
                   static_cast<int64_t>(candidates), w.rescored.data());
      for (size_t i = 0; i < candidates; ++i) {
        if (!std::isfinite(w.rescored[i])) refuse(w.rescored_rows[i]);
        w.merged[i] = ranking_key(w.rescored[i], w.rescored_rows[i]);
      }
      std::sort(begin, begin + static_cast<std::ptrdiff_t>(candidates), best_first);
    }
    const bool scaled = parts_.metric == Metric::kInnerProduct && parts_.int8_lists() && parts_.values.size() == 0;
    const float factor = queries_[static_cast<size_t>(q)].factor;
    const float back = !scaled ? 1.0f : factor > 0 ? 1.0f / factor : 0.0f;
    float* scores = args_.scores + (first_ + q) * args_.k;
    int32_t* rows = args_.rows + (first_ + q) * args_.k;
    for (int64_t i = 0; i < args_.k; ++i) {
      const bool present = static_cast<size_t>(i) < candidates;
      scores[i] = present ? score_of_key(w.merged[static_cast<size_t>(i)]) * back : kLowest;
      rows[i] = present ? row_of_key(w.merged[static_cast<size_t>(i)]) : -1;
    }
  }

  void for_chunks(int64_t n, const std::function<void(int64_t, Worker&)>& body) {
    const auto one = [&](int64_t chunk, int worker) { body(chunk, workers_[static_cast<size_t>(worker)]); };
    if (workers_.size() == 1) {
      for (int64_t chunk = 0; chunk < n && !context_.stop_requested(); ++chunk) one(chunk, 0);
      return;
    }
    ThreadPool::instance().for_each_chunk(n, context_, one);
  }

  const cpu::Table& table_;
  const IvfIndex::Parts& parts_;
  const IvfSearchArgs& args_;
  const RunContext& context_;
  const uint8_t* shared_bits_;
  const int64_t first_;
  std::vector<Query> queries_;
  std::vector<Worker> workers_;
  const int64_t n_candidates_;
  std::vector<int64_t> depth_;
  std::vector<int32_t> lists_;
  std::vector<uint64_t> list_keys_;
  std::vector<int64_t> first_pair_;
  std::vector<int32_t> pairs_;
  std::vector<int32_t> chunk_lists_;
  std::atomic<int64_t> bad_row_{-1};
};

}  // namespace

float inverse_length(const float* x, int64_t dim) {
  double square = 0;
  for (int64_t i = 0; i < dim; ++i) square += static_cast<double>(x[i]) * x[i];
  return square < 1e-60 ? 0.0f : static_cast<float>(1.0 / std::sqrt(square));
}

Status search(const cpu::Table& table, const IvfIndex::Parts& parts, const IvfSearchArgs& args,
              const RunContext& context, IvfSearchReport* report) {
  const int64_t n_queries = args.queries.rows;
  std::vector<uint8_t> list_bits;
  if (args.filter.has_list()) {
    list_bits.assign(static_cast<size_t>((parts.n_rows + 7) / 8), 0);
    for (int64_t i = 0; i < args.filter.n_rows; ++i) {
      const int32_t row = args.filter.rows[i];
      list_bits[static_cast<size_t>(row >> 3)] |= static_cast<uint8_t>(1 << (row & 7));
    }
  }
  // Work too small to share is done here: waking a thread costs as much as reading a few lists.
  const double reads = static_cast<double>(n_queries) * static_cast<double>(parts.dim) *
                       (static_cast<double>(parts.n_lists()) +
                        static_cast<double>(parts.n_rows) * args.n_probe / static_cast<double>(parts.n_lists()));
  const bool shared = context.parallel && (reads > 1e6 || args.filter);
  const int64_t n_workers = shared ? ThreadPool::instance().max_workers() : 1;
  const int64_t per_query = candidates_for(args.k) * 8 * n_workers;
  const int64_t per_pass = std::clamp<int64_t>(kHeapBytes / per_query, 1, kMaxPass);
  for (int64_t first = 0; first < n_queries; first += per_pass) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    Pass pass(table, parts, args, context, args.filter.has_list() ? list_bits.data() : nullptr, first,
              std::min(per_pass, n_queries - first), n_workers);
    if (Status status = pass.run(report); !status.ok()) return status;
  }
  return {};
}

}  // namespace waggle::ivf
