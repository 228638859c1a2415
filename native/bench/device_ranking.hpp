// Batches of requests for timing: what the accelerator and the processor are given alike.
#pragma once

#include <memory>
#include <vector>

#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "waggle/ops/rank_batch.hpp"

namespace waggle::bench {

/// 64 dimensions of similarity, 30 features of items and 9 of requests, 200 trees of 64 leaves, half of the items
/// eligible to each request, all columns, one item per group.
class Ranking {
 public:
  Ranking(int64_t n_requests, int64_t n_items, int32_t k) : n_requests_(n_requests), n_items_(n_items), k_(k) {
    conformance::Random random(11);
    const auto floats = [&](int64_t n) {
      std::vector<float> made(static_cast<size_t>(n));
      for (float& v : made) v = static_cast<float>(random.uniform());
      return made;
    };
    queries_ = floats(n_requests * kDim);
    embeddings_ = floats(n_items * kDim);
    item_features_ = floats(n_items * kItemFeatures);
    request_features_ = floats(n_requests * kRequestFeatures);
    for (auto& column : columns_) column = floats(n_items);
    for (int64_t i = 0; i < n_items; ++i) group_.push_back(static_cast<int32_t>(random.below(n_items / 4 + 1)));
    bits_.resize(static_cast<size_t>(n_requests * ((n_items + 7) / 8)));
    for (uint8_t& byte : bits_) byte = static_cast<uint8_t>(random.next());
    conformance::TreesShape shape;
    shape.n_trees = 200;
    shape.n_leaves = 64;
    shape.complete = true;
    shape.n_features = kItemFeatures + kRequestFeatures + 1;
    trees::Ensemble ensemble = conformance::random_ensemble(shape);
    ensemble.transform = trees::Transform::kLogistic;
    made_ = trees::Model::create(std::move(ensemble), &model_);
  }

  const Status& made() const { return made_; }

  struct Answer {
    std::vector<int32_t> items, counts;
    std::vector<double> scores, terms;
    std::vector<float> predictions;
  };

  RankBatchArgs args(Answer* to) const {
    const size_t n = static_cast<size_t>(n_requests_ * k_);
    to->items.resize(n);
    to->counts.resize(static_cast<size_t>(2 * n_requests_));
    to->scores.resize(n);
    to->terms.resize(n * kScoreTerms);
    to->predictions.resize(n);
    RankBatchArgs a;
    a.n_requests = n_requests_;
    a.n_items = n_items_;
    a.k = k_;
    a.filter = RowFilter::per_query(bits_.data(), (n_items_ + 7) / 8, n_requests_);
    a.queries = {queries_.data(), n_requests_, kDim};
    a.embeddings = {embeddings_.data(), n_items_, kDim};
    a.item_features = {item_features_.data(), n_items_, kItemFeatures};
    a.request_features = {request_features_.data(), n_requests_, kRequestFeatures};
    a.similarity_is_feature = true;
    a.trees = model_.get();
    const float** const columns[] = {&a.price,      &a.fixed_spend, &a.payout_share, &a.q,
                                     &a.advertiser, &a.explore,     &a.goal_units,   &a.frequency,
                                     &a.mu,         &a.omega,       &a.rho};
    for (size_t c = 0; c < kColumns; ++c) *columns[c] = columns_[c].data();
    a.weights = {0.3, 1.7, 0.9, 0.01, 2.5};
    a.group = group_.data();
    a.max_per_group = 1;
    a.items = to->items.data();
    a.scores = to->scores.data();
    a.terms = to->terms.data();
    a.predictions = to->predictions.data();
    a.counts = to->counts.data();
    return a;
  }

  DeviceItemsArgs items() const {
    DeviceItemsArgs a;
    a.n_items = n_items_;
    a.embeddings = {embeddings_.data(), n_items_, kDim};
    a.item_features = {item_features_.data(), n_items_, kItemFeatures};
    return a;
  }

 private:
  static constexpr int64_t kDim = 64;
  static constexpr int32_t kItemFeatures = 30;
  static constexpr int32_t kRequestFeatures = 9;
  static constexpr size_t kColumns = 11;

  int64_t n_requests_;
  int64_t n_items_;
  int32_t k_;
  std::vector<float> queries_, embeddings_, item_features_, request_features_, columns_[kColumns];
  std::vector<int32_t> group_;
  std::vector<uint8_t> bits_;
  Status made_;
  std::shared_ptr<const trees::Model> model_;
};

}  // namespace waggle::bench
