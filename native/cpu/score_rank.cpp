// Scores every candidate, keeps a short list of the best, and chooses greedily from it. Only when the
// constraints eat up the short list is a longer one made.
#include "cpu/score_rank.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/score_terms.hpp"
#include "src/top_heap.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kBlock = 1024;  // rows between two looks at the cancel flag and the heap's threshold
constexpr double kNever = -std::numeric_limits<double>::infinity();

// Kept by each thread between calls, so that the hot path allocates nothing. Given back when large.
struct Scratch {
  std::vector<double> scores;
  std::vector<ScoredRow> entries;
  std::vector<int32_t> hits;
  std::vector<int32_t> chosen;
  std::vector<int64_t> slots;

  void trim() {
    constexpr size_t kKeep = 1 << 16;
    if (scores.capacity() > kKeep) scores = {};
    if (entries.capacity() > kKeep) entries = {};
    if (chosen.capacity() > kKeep) chosen = {};
    if (slots.capacity() > kKeep) slots = {};
  }
};

Scratch& scratch() {
  thread_local Scratch kept;
  return kept;
}

// int32 key → int32 value, open addressing over borrowed slots.
class SmallMap {
 public:
  SmallMap(int64_t* slots, int32_t capacity_bits) : slots_(slots), mask_((1u << capacity_bits) - 1u) {
    std::fill(slots_, slots_ + 2 * (static_cast<size_t>(mask_) + 1), int64_t{kEmpty});
  }
  /// The value of `key`, made with `initial` when new.
  int64_t& at(int32_t key, int64_t initial) {
    uint32_t i = (static_cast<uint32_t>(key) * 2654435761u) & mask_;
    while (slots_[2 * i] != kEmpty && slots_[2 * i] != key) i = (i + 1) & mask_;
    if (slots_[2 * i] == kEmpty) {
      slots_[2 * i] = key;
      slots_[2 * i + 1] = initial;
    }
    return slots_[2 * i + 1];
  }

 private:
  static constexpr int64_t kEmpty = std::numeric_limits<int64_t>::min();
  int64_t* slots_;
  uint32_t mask_;
};

ScoreColumns columns_of(const ScoreRankArgs& a) {
  return {a.q,
          a.spend,
          a.payout,
          a.fit,
          a.advertiser,
          a.explore,
          a.goal_units,
          a.frequency,
          a.mu,
          a.omega,
          a.rho,
          a.weights.margin,
          a.weights.fit,
          a.weights.advertiser,
          a.weights.payout,
          a.weights.explore};
}

Status name_bad_column(const ScoreRankArgs& a, int64_t row) {
  const struct {
    const char* name;
    const float* data;
  } columns[] = {{"q", a.q},
                 {"spend", a.spend},
                 {"payout", a.payout},
                 {"fit", a.fit},
                 {"advertiser", a.advertiser},
                 {"explore", a.explore},
                 {"goalUnits", a.goal_units},
                 {"frequency", a.frequency},
                 {"mu", a.mu},
                 {"omega", a.omega},
                 {"rho", a.rho}};
  for (const auto& column : columns) {
    if (column.data != nullptr && !std::isfinite(column.data[row])) {
      return fail(Code::kNotFinite, "column %s is %s at candidate %lld", column.name,
                  std::isnan(column.data[row]) ? "NaN" : "infinite", static_cast<long long>(row));
    }
  }
  return fail(Code::kNotFinite, "the score of candidate %lld overflows", static_cast<long long>(row));
}

// The exponent of NaN and infinity is all ones: adding one to it carries into the sign bit.
bool all_finite(const double* values, int32_t n) {
  uint64_t carried = 0;
  for (int32_t i = 0; i < n; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    carried |= (bits & 0x7ff0000000000000u) + 0x0010000000000000u;
  }
  return (carried >> 63) == 0;
}

// Sets the scores of filtered candidates to kNever; returns how many remain.
int32_t apply_filter(const Bitmap& filter, double* scores, int64_t n) {
  if (!filter) return static_cast<int32_t>(n);
  int32_t eligible = 0;
  for (int64_t base = 0; base < n; base += 8) {
    const unsigned valid = n - base >= 8 ? 0xffu : (1u << (n - base)) - 1u;
    const unsigned allowed = filter.data[base >> 3] & valid;
    eligible += __builtin_popcount(allowed);
    for (unsigned blocked = valid & ~allowed; blocked != 0; blocked &= blocked - 1) {
      scores[base + __builtin_ctz(blocked)] = kNever;
    }
  }
  return eligible;
}

// Greedy choice from candidates in rank order; stops at k. Returns how many were chosen.
int32_t choose(const ScoreRankArgs& a, const ScoredRow* ordered, int32_t n, Scratch& s) {
  const bool limit_groups = a.group != nullptr && a.max_per_group > 0;
  const bool separate = a.separation != nullptr;
  int32_t bits = 3;
  while ((int64_t{1} << bits) < 2 * static_cast<int64_t>(n)) ++bits;
  const size_t map_slots = size_t{2} << bits;
  s.slots.resize(2 * map_slots);
  SmallMap counts(s.slots.data(), bits);
  SmallMap holders(s.slots.data() + map_slots, bits);
  constexpr int64_t kNobody = std::numeric_limits<int64_t>::max();
  int32_t n_chosen = 0;
  for (int32_t i = 0; i < n && n_chosen < a.k; ++i) {
    const int32_t row = ordered[i].row;
    int64_t* count = nullptr;
    if (limit_groups) {
      count = &counts.at(a.group[row], 0);
      if (*count >= a.max_per_group) continue;
    }
    if (separate && a.separation[row] >= 0) {
      int64_t& holder = holders.at(a.separation[row], kNobody);
      if (holder != kNobody && (a.group == nullptr || holder != a.group[row])) continue;
      holder = a.group != nullptr ? a.group[row] : 0;
    }
    if (count != nullptr) ++*count;
    s.chosen[static_cast<size_t>(n_chosen++)] = row;
  }
  return n_chosen;
}

}  // namespace

Status score_rank(const Table& table, const ScoreRankArgs& args, const RunContext& context, ScoreRankCounts* counts) {
  Scratch& s = scratch();
  const ScoreColumns columns = columns_of(args);
  const int32_t n = static_cast<int32_t>(args.n);
  s.scores.resize(static_cast<size_t>(n));
  s.hits.resize(kBlock);
  double* scores = s.scores.data();
  for (int32_t begin = 0; begin < n; begin += kBlock) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    const int32_t count = std::min(kBlock, n - begin);
    table.score.score(&columns, begin, count, scores + begin);
    if (!all_finite(scores + begin, count)) {
      for (int32_t i = 0; i < count; ++i) {
        if (!std::isfinite(scores[begin + i])) return name_bad_column(args, begin + i);
      }
    }
  }
  counts->n_eligible = apply_filter(args.filter, scores, n);
  const int32_t n_eligible = counts->n_eligible;
  const int32_t wanted = std::min(args.k, n_eligible);
  s.chosen.resize(static_cast<size_t>(std::max(wanted, 1)));
  const bool constrained = (args.group != nullptr && args.max_per_group > 0) || args.separation != nullptr;
  int64_t kept = constrained ? std::min<int64_t>(n_eligible, 2 * static_cast<int64_t>(wanted) + 16) : wanted;
  int32_t n_chosen = 0;
  while (wanted > 0) {
    s.entries.resize(static_cast<size_t>(kept));
    TopHeap<ScoredRow> heap(s.entries.data(), static_cast<int32_t>(kept));
    for (int32_t begin = 0; begin < n; begin += 64) {
      const int32_t count = std::min(64, n - begin);
      const double threshold = heap.full() ? heap.worst().score : kNever;
      const int32_t n_hits = table.score.collect(scores + begin, count, threshold, s.hits.data());
      for (int32_t h = 0; h < n_hits; ++h) {
        const int32_t row = begin + s.hits[static_cast<size_t>(h)];
        heap.push({scores[row], row});
      }
    }
    heap.sort();
    if (constrained) {
      n_chosen = choose(args, s.entries.data(), heap.size(), s);
    } else {
      n_chosen = heap.size();
      for (int32_t i = 0; i < n_chosen; ++i) s.chosen[static_cast<size_t>(i)] = s.entries[static_cast<size_t>(i)].row;
    }
    if (n_chosen == wanted || kept >= n_eligible) break;
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    kept = std::min<int64_t>(n_eligible, kept * 8);
  }
  for (int32_t i = 0; i < n_chosen; ++i) {
    const int32_t row = s.chosen[static_cast<size_t>(i)];
    args.rows[i] = row;
    args.scores[i] = score_terms(columns, row, args.terms + static_cast<int64_t>(i) * kScoreTerms);
  }
  counts->n_selected = n_chosen;
  s.trim();
  return {};
}

}  // namespace waggle::cpu
