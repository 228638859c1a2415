#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "cpu/topk.hpp"
#include "src/registry.hpp"
#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "waggle/backend.hpp"
#include "waggle/ops/rank_batch.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::conformance {

namespace {

enum class Eligible { kAll, kShared, kOwn, kLists };

struct RankShape {
  int64_t n_requests;
  int64_t n_items;
  int32_t k;
  Eligible eligible = Eligible::kAll;
  double share = 1.0;
  int64_t dim = 0;
  bool similarity_feature = false;
  int64_t n_item_features = 3;
  int64_t n_request_features = 2;
  int32_t n_trees = 0;  // 0 = linear
  int32_t n_leaves = 16;
  unsigned columns = 0;  // bit per optional column
  int32_t max_per_group = 0;
  bool separate = false;
  Metric metric = Metric::kCosine;
  trees::Transform transform = trees::Transform::kNone;
  int32_t n_outputs = 1;  // the last one counts
  bool mixed = false;     // trees with every decision, features with NaN
  bool resident = false;  // items stay on the accelerator where one is in use
  uint64_t seed = 1;
};

constexpr int kColumns = 12;  // volume, fixed_spend, payout_share, q, fit, advertiser, … in the order of RankBatchArgs

// rank_batch against the same stages called one after the other.
class RankBatchCase final : public Case {
 public:
  explicit RankBatchCase(const RankShape& shape) : s_(shape) {}

  std::string name() const override {
    char text[300];
    std::snprintf(text, sizeof text,
                  "rank.batch requests=%lld items=%lld k=%d eligible=%d×%.2f d=%lld%s f=%lld+%lld trees=%d columns=%x "
                  "group=%d%s metric=%d transform=%d outputs=%d%s%s seed=%llu",
                  static_cast<long long>(s_.n_requests), static_cast<long long>(s_.n_items), s_.k,
                  static_cast<int>(s_.eligible), s_.share, static_cast<long long>(s_.dim),
                  s_.similarity_feature ? " feature" : "", static_cast<long long>(s_.n_item_features),
                  static_cast<long long>(s_.n_request_features), s_.n_trees, s_.columns, s_.max_per_group,
                  s_.separate ? " separate" : "", static_cast<int>(s_.metric), static_cast<int>(s_.transform),
                  s_.n_outputs, s_.mixed ? " mixed" : "", s_.resident ? " resident" : "",
                  static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    const auto floats = [&](int64_t n) {
      std::vector<float> made(static_cast<size_t>(n));
      for (float& v : made) v = static_cast<float>(random.uniform());
      return made;
    };
    queries_ = floats(s_.n_requests * s_.dim);
    embeddings_ = floats(s_.n_items * s_.dim);
    item_features_ = floats(s_.n_items * s_.n_item_features);
    request_features_ = floats(s_.n_requests * s_.n_request_features);
    price_ = floats(s_.n_items);
    for (int c = 0; c < kColumns; ++c) optional_[c] = floats(c == 0 ? s_.n_requests : s_.n_items);
    group_.clear();
    separation_.clear();
    for (int64_t i = 0; i < s_.n_items; ++i) {
      group_.push_back(static_cast<int32_t>(random.below(20)));
      separation_.push_back(static_cast<int32_t>(random.below(9)) - 1);
    }
    const int64_t row_bytes = (s_.n_items + 7) / 8;
    bits_.assign(static_cast<size_t>(row_bytes * (s_.eligible == Eligible::kOwn ? s_.n_requests : 1)), 0);
    for (uint8_t& byte : bits_) {
      for (int b = 0; b < 8; ++b) byte |= static_cast<uint8_t>(random.uniform() < s_.share ? 1 << b : 0);
    }
    candidates_.clear();
    offsets_.assign(1, 0);
    for (int64_t r = 0; r < s_.n_requests; ++r) {
      const int64_t n = s_.n_items == 0 ? 0 : random.below(static_cast<int64_t>(s_.share * 2 * s_.n_items) + 1);
      for (int64_t i = 0; i < n; ++i) candidates_.push_back(static_cast<int32_t>(random.below(s_.n_items)));
      offsets_.push_back(static_cast<int32_t>(candidates_.size()));
    }
    TreesShape trees;
    trees.n_trees = s_.n_trees;
    trees.n_leaves = s_.n_leaves;
    trees.complete = true;
    trees.n_features = static_cast<int32_t>(n_features());
    trees.seed = s_.seed;
    trees.n_thresholds = s_.mixed ? 0 : 250;
    trees.mixed = s_.mixed;
    const bool two_of_one = s_.transform == trees::Transform::kComplement ||
                            s_.transform == trees::Transform::kTwoLogistic || s_.transform == trees::Transform::kNegate;
    trees.n_targets = two_of_one ? 1 : s_.n_outputs;
    trees.n_values = (trees.n_targets + 1) / 2;
    trees::Ensemble ensemble = random_ensemble(trees);
    ensemble.transform = s_.transform;
    ensemble.transform_parameter = 1.25;
    ensemble.scale = 0.875;
    made_ = trees::Model::create(std::move(ensemble), &model_);
    if (s_.mixed) {
      for (float& v : item_features_) v = random.below(7) == 0 ? std::numeric_limits<float>::quiet_NaN() : v;
    }
    coefficients_.clear();
    for (int64_t j = 0; j < n_features(); ++j) coefficients_.push_back(random.uniform() * 4 - 2);
    linear_ = {coefficients_.data(), -0.4, 1.3, 0.2};
    const size_t n = static_cast<size_t>(s_.n_requests * s_.k);
    items_.assign(n, -7);
    scores_.assign(n, 0);
    terms_.assign(n * kScoreTerms, 1);
    predictions_.assign(n, 3);
    counts_.assign(static_cast<size_t>(s_.n_requests) * 2, -1);
    resident_.reset();
    if (!s_.resident || backend_info().backend == "cpu") return;
    DeviceItemsArgs items;
    items.n_items = s_.n_items;
    items.embeddings = {embeddings_.data(), s_.n_items, s_.dim};
    items.item_features = {item_features_.data(), s_.n_items, s_.n_item_features};
    made_ = DeviceItems::open(items, RunContext{}, &resident_);
  }

  Status call(const RunContext& context) override {
    if (!made_.ok()) return made_;
    RankBatchArgs a;
    a.n_requests = s_.n_requests;
    a.n_items = s_.n_items;
    a.k = s_.k;
    if (s_.eligible == Eligible::kShared) {
      a.filter = RowFilter::shared(bits_.data(), static_cast<int64_t>(bits_.size()));
    } else if (s_.eligible == Eligible::kOwn) {
      a.filter = RowFilter::per_query(bits_.data(), (s_.n_items + 7) / 8, s_.n_requests);
    } else if (s_.eligible == Eligible::kLists) {
      a.candidates = candidates_.data();
      a.offsets = offsets_.data();
    }
    a.queries = {queries_.data(), s_.n_requests, s_.dim};
    a.embeddings = {embeddings_.data(), s_.n_items, s_.dim};
    a.item_features = {item_features_.data(), s_.n_items, s_.n_item_features};
    a.request_features = {request_features_.data(), s_.n_requests, s_.n_request_features};
    a.similarity_is_feature = s_.similarity_feature;
    a.metric = s_.metric;
    a.resident = resident_.get();
    a.output = s_.n_outputs - 1;
    if (s_.n_trees > 0) {
      a.trees = model_.get();
    } else {
      a.linear = &linear_;
    }
    a.price = price_.data();
    const float** const columns[kColumns] = {&a.volume,    &a.fixed_spend, &a.payout_share, &a.q,
                                             &a.fit,       &a.advertiser,  &a.explore,      &a.goal_units,
                                             &a.frequency, &a.mu,          &a.omega,        &a.rho};
    for (int c = 0; c < kColumns; ++c) *columns[c] = has(c) ? optional_[c].data() : nullptr;
    a.weights = kWeights;
    a.group = s_.max_per_group > 0 || s_.separate ? group_.data() : nullptr;
    a.max_per_group = s_.max_per_group;
    a.separation = s_.separate ? separation_.data() : nullptr;
    a.items = items_.data();
    a.scores = scores_.data();
    a.terms = terms_.data();
    a.predictions = predictions_.data();
    a.counts = counts_.data();
    return rank_batch(a, context);
  }

  std::string verify() override {
    for (int64_t r = 0; r < s_.n_requests; ++r) {
      std::string wrong = verify_request(r);
      if (!wrong.empty()) return "request " + std::to_string(r) + ": " + wrong;
    }
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(s_.n_requests) * static_cast<double>(s_.n_items) * std::max(1, s_.n_trees);
  }
  double bytes() const override { return static_cast<double>(item_features_.size()) * 4; }

 private:
  static constexpr ScoreWeights kWeights{0.3, 1.7, 0.9, 0.01, 2.5};

  int64_t n_features() const { return s_.n_item_features + s_.n_request_features + (s_.similarity_feature ? 1 : 0); }
  bool has(int c) const {
    // goal_units and omega go together.
    return ((s_.columns >> (c == 10 ? 7 : c)) & 1u) != 0;
  }

  std::string verify_request(int64_t r) const {
    std::vector<int32_t> items;
    if (s_.eligible == Eligible::kLists) {
      items.assign(candidates_.begin() + offsets_[static_cast<size_t>(r)],
                   candidates_.begin() + offsets_[static_cast<size_t>(r) + 1]);
    } else {
      const uint8_t* bits = bits_.data() + (s_.eligible == Eligible::kOwn ? r * ((s_.n_items + 7) / 8) : 0);
      for (int64_t i = 0; i < s_.n_items; ++i) {
        if (s_.eligible == Eligible::kAll || ((bits[i >> 3] >> (i & 7)) & 1) != 0)
          items.push_back(static_cast<int32_t>(i));
      }
    }
    const size_t n = items.size();
    if (counts_[static_cast<size_t>(2 * r + 1)] != static_cast<int32_t>(n)) return "eligible items are miscounted";
    const std::vector<float> similarity = similarities(r);
    std::vector<float> x;
    for (const int32_t item : items) {
      const auto f = item_features_.begin() + item * s_.n_item_features;
      x.insert(x.end(), f, f + s_.n_item_features);
      const auto q = request_features_.begin() + r * s_.n_request_features;
      x.insert(x.end(), q, q + s_.n_request_features);
      if (s_.similarity_feature) x.push_back(similarity[static_cast<size_t>(item)]);
    }
    const std::vector<float> p = predict(x, n);
    std::vector<float> spend(n), payout(n), fit(n), q(n, 1.0f), columns[kColumns];
    for (size_t i = 0; i < n; ++i) {
      const size_t item = static_cast<size_t>(items[i]);
      spend[i] = p[i] * price_[item];
      if (has(0)) spend[i] = spend[i] * optional_[0][static_cast<size_t>(r)];
      if (has(1)) spend[i] = spend[i] + optional_[1][item];
      payout[i] = has(2) ? spend[i] * optional_[2][item] : 0.0f;
      if (has(3)) q[i] = optional_[3][item];
      fit[i] = has(4) ? optional_[4][item] : s_.dim > 0 ? similarity[item] : 0.0f;
      for (int c = 5; c < kColumns; ++c) columns[c].push_back(optional_[c][item]);
    }
    std::vector<int32_t> group(n), separation(n);
    for (size_t i = 0; i < n; ++i) {
      group[i] = group_[static_cast<size_t>(items[i])];
      separation[i] = separation_[static_cast<size_t>(items[i])];
    }
    ScoreRankArgs a;
    a.n = static_cast<int64_t>(n);
    a.k = s_.k;
    a.q = q.data();
    a.spend = spend.data();
    a.payout = payout.data();
    a.fit = fit.data();
    const float** const to[kColumns] = {nullptr,    nullptr,       nullptr,      nullptr, nullptr,  &a.advertiser,
                                        &a.explore, &a.goal_units, &a.frequency, &a.mu,   &a.omega, &a.rho};
    for (int c = 5; c < kColumns; ++c) *to[c] = has(c) ? columns[c].data() : nullptr;
    a.weights = kWeights;
    a.group = s_.max_per_group > 0 || s_.separate ? group.data() : nullptr;
    a.max_per_group = s_.max_per_group;
    a.separation = s_.separate ? separation.data() : nullptr;
    const size_t k = static_cast<size_t>(s_.k);
    std::vector<int32_t> rows(k);
    std::vector<double> scores(k), terms(k * kScoreTerms);
    a.rows = rows.data();
    a.scores = scores.data();
    a.terms = terms.data();
    ScoreRankCounts counts;
    if (const Status status = score_rank(a, RunContext{}, &counts); !status.ok()) return status.text();
    const size_t chosen = static_cast<size_t>(counts.n_selected);
    if (counts_[static_cast<size_t>(2 * r)] != counts.n_selected) return "another number was chosen";
    const size_t at = static_cast<size_t>(r) * k;
    for (size_t i = 0; i < k; ++i) {
      if (i >= chosen) {
        if (items_[at + i] != -1 || scores_[at + i] != -std::numeric_limits<double>::infinity())
          return "padding is wrong";
        continue;
      }
      if (items_[at + i] != items[static_cast<size_t>(rows[i])])
        return "rank " + std::to_string(i) + " is another item";
      if (std::memcmp(&predictions_[at + i], &p[static_cast<size_t>(rows[i])], sizeof(float)) != 0) {
        return "the prediction of rank " + std::to_string(i) + " differs";
      }
    }
    if (std::memcmp(&scores_[at], scores.data(), chosen * sizeof(double)) != 0) return "scores differ in their bits";
    if (std::memcmp(&terms_[at * kScoreTerms], terms.data(), chosen * kScoreTerms * sizeof(double)) != 0) {
      return "terms differ in their bits";
    }
    return {};
  }

  // By the processor's topk of everything: an accelerator's own topk sums in double, its rank_batch as the processor.
  std::vector<float> similarities(int64_t r) const {
    std::vector<float> by_item(static_cast<size_t>(s_.n_items));
    if (s_.dim == 0 || s_.n_items == 0) return by_item;
    std::vector<float> scores(static_cast<size_t>(s_.n_items));
    std::vector<int32_t> rows(scores.size());
    TopkArgs a;
    a.queries = {queries_.data() + r * s_.dim, 1, s_.dim};
    a.matrix = {embeddings_.data(), s_.n_items, s_.dim};
    a.k = static_cast<int32_t>(s_.n_items);
    a.metric = s_.metric;
    a.scores = scores.data();
    a.rows = rows.data();
    if (!cpu::topk(*registry().table, a, RunContext{}).ok()) return {};
    for (size_t i = 0; i < rows.size(); ++i) by_item[static_cast<size_t>(rows[i])] = scores[i];
    return by_item;
  }

  std::vector<float> predict(const std::vector<float>& x, size_t n) const {
    std::vector<float> p(n);
    if (s_.n_trees > 0) {
      const size_t n_outputs = static_cast<size_t>(s_.n_outputs);
      std::vector<float> all(n * n_outputs);
      TreesPredictArgs a;
      a.model = model_.get();
      a.x = x.data();
      a.n_rows = static_cast<int64_t>(n);
      a.out = all.data();
      if (!trees_predict(a, RunContext{}).ok()) return {};
      for (size_t i = 0; i < n; ++i) p[i] = all[(i + 1) * n_outputs - 1];
      return p;
    }
    const size_t n_columns = static_cast<size_t>(n_features());
    for (size_t i = 0; i < n; ++i) {
      double sum = linear_.intercept;
      for (size_t j = 0; j < n_columns; ++j) {
        sum += coefficients_[j] * static_cast<double>(x[i * n_columns + j]);
      }
      const double logit = linear_.calibration_a * sum + linear_.calibration_b;
      p[i] =
          static_cast<float>(logit >= 0 ? 1.0 / (1.0 + std::exp(-logit)) : std::exp(logit) / (1.0 + std::exp(logit)));
    }
    return p;
  }

  RankShape s_;
  std::vector<float> queries_, embeddings_, item_features_, request_features_, price_, optional_[kColumns];
  std::vector<int32_t> group_, separation_, candidates_, offsets_;
  std::vector<uint8_t> bits_;
  std::vector<double> coefficients_;
  LinearModel linear_;
  Status made_;
  std::shared_ptr<const trees::Model> model_;
  std::shared_ptr<const DeviceItems> resident_;
  std::vector<int32_t> items_, counts_;
  std::vector<double> scores_, terms_;
  std::vector<float> predictions_;
};

// A number that is not finite is named, whoever meets it.
class RankRefusalCase final : public Case {
 public:
  explicit RankRefusalCase(bool in_embeddings) : in_embeddings_(in_embeddings) {}
  std::string name() const override {
    return std::string("rank.batch refuses ") + (in_embeddings_ ? "an embedding" : "a price");
  }
  void prepare() override {
    features_.assign(40, 0.5f);
    price_.assign(40, 1.0f);
    embeddings_.assign(40 * 3, 0.25f);
    (in_embeddings_ ? embeddings_[17 * 3 + 1] : price_[17]) = std::numeric_limits<float>::infinity();
  }
  Status call(const RunContext& context) override {
    const double coefficient = 1;
    const LinearModel linear = {&coefficient, 0, 1, 0};
    const std::vector<float> queries(3 * 3, 1.0f);
    // The bad item is a candidate of the second request alone.
    const std::vector<int32_t> candidates = {1, 2, 3, 16, 17, 18, 20};
    const std::vector<int32_t> offsets = {0, 3, 6, 7};
    std::vector<int32_t> items(6), counts(6);
    std::vector<double> scores(6), terms(6 * kScoreTerms);
    std::vector<float> predictions(6);
    RankBatchArgs a;
    a.n_requests = 3;
    a.n_items = 40;
    a.k = 2;
    a.candidates = candidates.data();
    a.offsets = offsets.data();
    a.queries = {queries.data(), 3, 3};
    a.embeddings = {embeddings_.data(), 40, 3};
    a.metric = Metric::kInnerProduct;
    a.item_features = {features_.data(), 40, 1};
    a.linear = &linear;
    a.price = price_.data();
    a.weights = {1, 1, 1, 1, 1};
    a.items = items.data();
    a.scores = scores.data();
    a.terms = terms.data();
    a.predictions = predictions.data();
    a.counts = counts.data();
    answer_ = rank_batch(a, context);
    return {};
  }
  std::string verify() override {
    if (answer_.code() != Code::kNotFinite) return "it was not refused: " + answer_.text();
    if (answer_.text().find("request 1") == std::string::npos) return "the request is not named: " + answer_.text();
    return {};
  }

 private:
  bool in_embeddings_;
  std::vector<float> features_, price_, embeddings_;
  Status answer_;
};

}  // namespace

void add_rank_batch_cases(Cases& cases, bool for_bench) {
  uint64_t seed = 0;
  const auto add = [&](RankShape shape) {
    shape.seed = ++seed;
    cases.push_back(std::make_unique<RankBatchCase>(shape));
  };
  if (for_bench) {
    add({64, 1000, 10, Eligible::kAll, 1.0, 64, true, 30, 9, 200, 64, 0xfff});
    add({64, 1000, 10, Eligible::kOwn, 0.5, 64, true, 30, 9, 200, 64, 0xfff, 1, true});
    add({64, 1000, 10, Eligible::kAll, 1.0, 64, true, 30, 9, 0, 64, 0xfff});
    return;
  }
  add({0, 10, 3});
  add({3, 0, 3});
  add({1, 1, 1, Eligible::kAll, 1.0, 0, false, 1, 0, 4});
  add({1, 1, 5, Eligible::kAll, 1.0, 8, true, 0, 0, 4});
  for (const Eligible eligible : {Eligible::kAll, Eligible::kShared, Eligible::kOwn, Eligible::kLists}) {
    for (const int32_t n_trees : {0, 12}) {
      add({5, 130, 7, eligible, 0.5, 0, false, 3, 2, n_trees, 16, 0xfff});
      add({3, 777, 20, eligible, 0.3, 37, true, 4, 1, n_trees, 30, 0x3a5});
      add({4, 1200, 9, eligible, 0.9, 16, false, 9, 0, n_trees, 64, 0xc5a, 1, true});
      add({2, 60, 80, eligible, 0.1, 5, true, 0, 3, n_trees, 8, 0, 2, false});
    }
  }
  using trees::Transform;
  const auto add_transformed = [&](Transform transform, int32_t n_outputs, bool mixed) {
    RankShape shape{3, 500, 12, Eligible::kOwn, 0.6, 9, true, 3, 2, 14, 20, 0xfff};
    shape.transform = transform;
    shape.n_outputs = n_outputs;
    shape.mixed = mixed;
    add(shape);
  };
  add_transformed(Transform::kLogistic, 1, false);
  add_transformed(Transform::kLogistic, 3, true);
  add_transformed(Transform::kExp, 2, false);
  add_transformed(Transform::kComplement, 2, true);
  add_transformed(Transform::kTwoLogistic, 2, false);
  add_transformed(Transform::kNegate, 2, false);
  add_transformed(Transform::kSoftmax, 4, false);  // an accelerator leaves these to the processor
  add_transformed(Transform::kLog1pExp, 1, false);
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const Eligible eligible : {Eligible::kAll, Eligible::kLists}) {
      RankShape shape{6, 140, 9, eligible, 0.7, 1100, true, 5, 0, 9, 16, 0x5a5};  // three chains of a sum
      shape.metric = metric;
      shape.resident = eligible == Eligible::kAll;
      add(shape);
    }
  }
  for (const Eligible eligible : {Eligible::kShared, Eligible::kOwn, Eligible::kLists}) {
    RankShape shape{4, 900, 15, eligible, 0.5, 24, true, 6, 3, 12, 32, 0xfff, 2, true};
    shape.resident = true;
    add(shape);
  }
  add({2, 9000, 40, Eligible::kOwn, 0.9, 0, false, 3, 2, 0, 16, 0xfff});               // several lists to merge
  add({2, 5000, 1500, Eligible::kAll, 1.0, 0, false, 3, 2, 0, 16, 0xfff});             // more than one round can choose
  add({2, 6000, 60, Eligible::kAll, 1.0, 0, false, 3, 2, 0, 16, 0xfff, 1, true});      // nobody is left in the end
  add({2, 3000, 50, Eligible::kShared, 0.9, 0, false, 3, 2, 8, 16, 0xfff, 2, false});  // limits eat up the first list
  add({1, 100, 200, Eligible::kAll, 1.0, 3, false, 200, 2, 5, 16, 0});                 // features beyond shared memory
  cases.push_back(std::make_unique<RankRefusalCase>(false));
  cases.push_back(std::make_unique<RankRefusalCase>(true));
  add({9, 300, 10, Eligible::kOwn, 0.0, 4, true, 2, 2, 6});  // nobody is eligible
  add({40, 1999, 10, Eligible::kAll, 1.0, 20, true, 12, 8, 40, 64, 0xfff});
}

}  // namespace waggle::conformance
