#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "test/conformance/case.hpp"
#include "waggle/ops/score_rank.hpp"

namespace waggle::conformance {

namespace {

struct Shape {
  int64_t n;
  int32_t k;
  unsigned optional_columns;  // bit per column from advertiser to rho
  double filter = 1.0;
  int32_t n_groups = 0;  // 0 = no group column
  int32_t max_per_group = 0;
  int32_t n_separations = 0;
  bool integers = false;  // few distinct values: many ties
  uint64_t seed = 1;
};

constexpr int kOptional = 7;

class ScoreRankCase final : public Case {
 public:
  explicit ScoreRankCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text,
                  "score.rank n=%lld k=%d columns=%x filter=%.2f groups=%d×%d separation=%d%s seed=%llu",
                  static_cast<long long>(s_.n), s_.k, s_.optional_columns, s_.filter, s_.n_groups, s_.max_per_group,
                  s_.n_separations, s_.integers ? " integers" : "", static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    const auto column = [&](double scale) {
      std::vector<float> values(static_cast<size_t>(s_.n));
      for (float& v : values) {
        v = s_.integers ? static_cast<float>(random.below(3)) : static_cast<float>((random.uniform() - 0.3) * scale);
      }
      return values;
    };
    q_ = column(1);
    spend_ = column(1e7);
    payout_ = column(7e6);
    fit_ = column(1);
    for (auto& optional : optional_) optional = column(3);
    weights_ = {0.3, 1.7, 0.9, 0.01, 2.5};
    if (s_.integers) weights_ = {1, 2, 1, 1, 3};
    if (s_.filter < 1.0) {
      filter_.assign(static_cast<size_t>((s_.n + 7) / 8), 0);
      for (int64_t i = 0; i < s_.n; ++i) {
        if (random.uniform() < s_.filter) filter_[static_cast<size_t>(i >> 3)] |= static_cast<uint8_t>(1 << (i & 7));
      }
    }
    group_.clear();
    separation_.clear();
    if (s_.n_groups > 0) {
      for (int64_t i = 0; i < s_.n; ++i) group_.push_back(static_cast<int32_t>(random.below(s_.n_groups)) * 500009 - 7);
    }
    if (s_.n_separations > 0) {
      for (int64_t i = 0; i < s_.n; ++i)
        separation_.push_back(static_cast<int32_t>(random.below(s_.n_separations + 1)) - 1);
    }
    rows_.assign(static_cast<size_t>(s_.k), -5);
    scores_.assign(static_cast<size_t>(s_.k), 0);
    terms_.assign(static_cast<size_t>(s_.k) * kScoreTerms, 0);
  }

  Status call(const RunContext& context) override {
    ScoreRankArgs a;
    a.n = s_.n;
    a.k = s_.k;
    a.q = q_.data();
    a.spend = spend_.data();
    a.payout = payout_.data();
    a.fit = fit_.data();
    a.advertiser = optional(0);
    a.explore = optional(1);
    a.goal_units = optional(2);
    a.frequency = optional(3);
    a.mu = optional(4);
    a.omega = optional(5);
    a.rho = optional(6);
    a.weights = weights_;
    if (!filter_.empty()) a.filter = {filter_.data(), static_cast<int64_t>(filter_.size())};
    a.group = group_.empty() ? nullptr : group_.data();
    a.max_per_group = s_.max_per_group;
    a.separation = separation_.empty() ? nullptr : separation_.data();
    a.rows = rows_.data();
    a.scores = scores_.data();
    a.terms = terms_.data();
    return score_rank(a, context, &counts_);
  }

  // Written down from the definition, without a line of the library's.
  std::string verify() override {
    const size_t n = static_cast<size_t>(s_.n);
    std::vector<double> terms(n * kScoreTerms);
    std::vector<double> score(n);
    std::vector<int32_t> order;
    for (size_t i = 0; i < n; ++i) {
      const double q = q_[i];
      const auto has = [&](int c) { return ((s_.optional_columns >> c) & 1) != 0; };
      const auto value = [&](int c) { return static_cast<double>(optional_[c][i]); };
      double* t = terms.data() + i * kScoreTerms;
      t[0] = q * (weights_.margin * static_cast<double>(spend_[i]));
      t[1] = q * (weights_.fit * static_cast<double>(fit_[i]));
      t[2] = has(0) ? q * (weights_.advertiser * value(0)) : 0.0;
      t[3] = q * (weights_.payout * static_cast<double>(payout_[i]));
      t[4] = has(4) ? -(q * (static_cast<double>(spend_[i]) * value(4))) : 0.0;
      t[5] = has(2) && has(5) ? q * (value(2) * value(5)) : 0.0;
      t[6] = has(6) ? q * (static_cast<double>(payout_[i]) * value(6)) : 0.0;
      t[7] = has(1) ? q * (weights_.explore * value(1)) : 0.0;
      t[8] = has(3) ? -value(3) : 0.0;
      score[i] = t[0];
      for (int j = 1; j < kScoreTerms; ++j) score[i] += t[j];
      if (filter_.empty() || ((filter_[i >> 3] >> (i & 7)) & 1) != 0) order.push_back(static_cast<int32_t>(i));
    }
    if (counts_.n_eligible != static_cast<int32_t>(order.size())) return "n_eligible is wrong";
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
    });
    std::vector<int32_t> chosen;
    for (const int32_t row : order) {
      if (static_cast<int32_t>(chosen.size()) == s_.k) break;
      const size_t i = static_cast<size_t>(row);
      int32_t same_group = 0;
      bool separated = true;
      for (const int32_t other_row : chosen) {
        const size_t o = static_cast<size_t>(other_row);
        if (!group_.empty() && group_[o] == group_[i]) ++same_group;
        const bool same_competitor = !separation_.empty() && separation_[i] >= 0 && separation_[o] == separation_[i];
        if (same_competitor && (group_.empty() || group_[o] != group_[i])) separated = false;
      }
      if (s_.max_per_group > 0 && same_group >= s_.max_per_group) continue;
      if (!separated) continue;
      chosen.push_back(row);
    }
    if (counts_.n_selected != static_cast<int32_t>(chosen.size())) return "n_selected is wrong";
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (rows_[i] != chosen[i]) return "rank " + std::to_string(i) + " holds another candidate";
      const size_t row = static_cast<size_t>(chosen[i]);
      if (std::memcmp(&scores_[i], &score[row], sizeof(double)) != 0) {
        return "score of rank " + std::to_string(i) + " differs in its bits";
      }
      if (std::memcmp(&terms_[i * kScoreTerms], &terms[row * kScoreTerms], kScoreTerms * sizeof(double)) != 0) {
        return "terms of rank " + std::to_string(i) + " differ in their bits";
      }
      const double sum = std::accumulate(&terms_[i * kScoreTerms + 1], &terms_[i * kScoreTerms] + kScoreTerms,
                                         terms_[i * kScoreTerms]);
      if (sum != scores_[i]) return "terms do not add up to the score";
    }
    return {};
  }

  double multiply_adds() const override { return static_cast<double>(s_.n) * 9; }
  double bytes() const override { return static_cast<double>(s_.n) * 11 * 4; }

 private:
  const float* optional(int c) const { return ((s_.optional_columns >> c) & 1) != 0 ? optional_[c].data() : nullptr; }

  Shape s_;
  std::vector<float> q_, spend_, payout_, fit_;
  std::vector<float> optional_[kOptional];
  ScoreWeights weights_;
  std::vector<uint8_t> filter_;
  std::vector<int32_t> group_, separation_;
  std::vector<int32_t> rows_;
  std::vector<double> scores_, terms_;
  ScoreRankCounts counts_;
};

}  // namespace

void add_score_rank_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<ScoreRankCase>(shape)); };
  if (for_bench) {
    for (const int64_t n : {200, 1000, 5000, 100000}) {
      add({n, 10, 0x7f, 1.0, 0, 0, 0});
      add({n, 10, 0x7f, 0.8, 50, 1, 20});
    }
    return;
  }
  add({0, 3, 0x7f});
  add({1, 1, 0});
  add({1, 9, 0x7f});
  for (unsigned columns = 0; columns < 128; columns += 9) add({203, 10, columns, 1.0, 0, 0, 0, false, columns + 1});
  add({200, 10, 0x7f, 0.6, 0, 0, 0, false, 2});
  add({200, 10, 0x7f, 0.0, 0, 0, 0, false, 3});
  add({333, 20, 0x7f, 0.8, 17, 2, 0, false, 4});
  add({333, 20, 0x7f, 0.8, 17, 0, 5, false, 5});
  add({333, 20, 0x7f, 0.8, 17, 1, 5, false, 6});
  add({333, 20, 0x7f, 0.8, 0, 0, 5, false, 7});
  add({500, 40, 0x7f, 0.9, 2, 3, 0, false, 8});  // fewer can be chosen than asked for
  add({500, 60, 0x7f, 1.0, 9, 2, 3, true, 9});   // ties everywhere
  add({5000, 50, 0x7f, 1.0, 300, 1, 40, false, 10});
  add({5000, 5000, 0x7f, 0.9, 4000, 1, 2000, false, 11});
  add({100003, 100, 0x7f, 0.5, 1000, 2, 100, false, 12});
  add({4096, 2500, 0x7f, 0.7, 0, 0, 0, false, 13});
  add({2048, 2048, 0x7f, 1.0, 0, 0, 0, true, 14});
  add({6145, 1024, 0x7f, 1.0, 0, 0, 0, true, 15});
}

}  // namespace waggle::conformance
