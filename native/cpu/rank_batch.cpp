// Requests in passes that bound the memory. Of each pass first the candidates, in tiles that threads share whatever
// request they belong to: similarity, features, prediction, columns. Then the requests: score, choice, answer.
#include "cpu/rank_batch.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cpu/score_rank.hpp"
#include "cpu/topk_blocks.hpp"
#include "cpu/trees_predict.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kCandidatesPerPass = int64_t{1} << 20;
constexpr int64_t kTile = kTreesTile;

// Columns of the candidates of a pass, one after the other request; absent ones stay empty.
struct Columns {
  std::vector<int32_t> items;
  std::vector<float> prediction, q, spend, payout, fit;
  std::vector<float> advertiser, explore, goal_units, frequency, mu, omega, rho;
  std::vector<int32_t> group, separation;
};

class Pass {
 public:
  Pass(const Table& table, const RankBatchArgs& args, const RunContext& context, int64_t first, int64_t count)
      : table_(table), args_(args), context_(context), first_(first), count_(count) {
    for (const auto& [from, to] : gathered()) {
      if (from != nullptr) columns_.push_back({from, to});
    }
  }

  Status run() {
    collect();
    ThreadPool& pool = ThreadPool::instance();
    pool.for_each_chunk(static_cast<int64_t>(tiles_.size()), context_,
                        [this](int64_t t, int) { guard([&] { predict(tiles_[static_cast<size_t>(t)]); }); });
    if (Status status = outcome(); !status.ok()) return status;
    pool.for_each_chunk(count_, context_, [this](int64_t r, int) { guard([&] { choose(r); }); });
    return outcome();
  }

 private:
  struct Tile {
    int64_t request;  // within the pass
    int64_t begin;    // within the columns
    int64_t end;
  };
  struct Gathered {
    const float* from;
    std::vector<float>* to;
  };

  std::vector<std::pair<const float*, std::vector<float>*>> gathered() {
    return {{args_.q, &c_.q},
            {args_.fit, &c_.fit},
            {args_.advertiser, &c_.advertiser},
            {args_.explore, &c_.explore},
            {args_.goal_units, &c_.goal_units},
            {args_.frequency, &c_.frequency},
            {args_.mu, &c_.mu},
            {args_.omega, &c_.omega},
            {args_.rho, &c_.rho}};
  }

  template <typename Body>
  void guard(Body&& body) {
    if (failed_.load(std::memory_order_relaxed) || context_.stop_requested()) return;
    try {
      body();
    } catch (const std::bad_alloc&) {
      fail_with(std::numeric_limits<int64_t>::max(), fail(Code::kOutOfMemory, "not enough memory"));
    }
  }

  // The failure of the lowest request among those seen.
  void fail_with(int64_t request, Status status) {
    std::lock_guard<std::mutex> lock(mutex_);
    failed_.store(true);
    if (status_.ok() || request < failed_request_) {
      failed_request_ = request;
      status_ = std::move(status);
    }
  }

  Status outcome() {
    if (failed_.load()) return status_;
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return {};
  }

  // Lists the candidates of each request.
  void collect() {
    starts_.assign(1, 0);
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t request = first_ + r;
      if (args_.offsets != nullptr) {
        c_.items.insert(c_.items.end(), args_.candidates + args_.offsets[request],
                        args_.candidates + args_.offsets[request + 1]);
      } else if (args_.filter) {
        add_allowed(args_.filter.bits_of(request));
      } else {
        for (int64_t i = 0; i < args_.n_items; ++i) c_.items.push_back(static_cast<int32_t>(i));
      }
      starts_.push_back(static_cast<int64_t>(c_.items.size()));
      for (int64_t begin = starts_[static_cast<size_t>(r)]; begin < starts_.back(); begin += kTile) {
        tiles_.push_back({r, begin, std::min(begin + kTile, starts_.back())});
      }
    }
    const size_t n = c_.items.size();
    c_.prediction.resize(n);
    c_.q.resize(n);
    c_.spend.resize(n);
    c_.payout.resize(n);
    c_.fit.resize(n);
    for (const Gathered& column : columns_) column.to->resize(n);
    if (args_.group != nullptr) c_.group.resize(n);
    if (args_.separation != nullptr) c_.separation.resize(n);
  }

  void add_allowed(const uint8_t* bits) {
    for (int64_t base = 0; base < args_.n_items; base += 64) {
      const int64_t n = std::min<int64_t>(64, args_.n_items - base);
      uint64_t word = 0;
      std::memcpy(&word, bits + base / 8, static_cast<size_t>((n + 7) / 8));
      if (n < 64) word &= (uint64_t{1} << n) - 1;
      for (; word != 0; word &= word - 1) {
        c_.items.push_back(static_cast<int32_t>(base + __builtin_ctzll(word)));
      }
    }
  }

  void predict(const Tile& tile) {
    const int64_t request = first_ + tile.request;
    const int32_t* const items = c_.items.data() + tile.begin;
    const int64_t n = tile.end - tile.begin;
    const bool similar = args_.embeddings.cols > 0;
    thread_local std::vector<float> kept_similarity, kept_x, kept_out;
    kept_similarity.resize(static_cast<size_t>(kTile));
    float* const similarity = kept_similarity.data();
    if (similar) {
      rescore(table_, args_.metric, args_.queries.row(request), args_.embeddings, items, n, similarity);
      for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(similarity[i])) {
          return fail_with(request, fail(Code::kNotFinite, "the similarity of request %lld and item %d is not finite",
                                         static_cast<long long>(request), items[i]));
        }
      }
    }
    const int64_t n_item = args_.item_features.cols;
    const int64_t n_request = args_.request_features.cols;
    const int64_t n_features = n_item + n_request + (args_.similarity_is_feature ? 1 : 0);
    kept_x.resize(static_cast<size_t>(kTile * n_features));
    float* x = kept_x.data();
    for (int64_t i = 0; i < n; ++i) {
      if (n_item > 0) std::memcpy(x, args_.item_features.row(items[i]), static_cast<size_t>(n_item) * sizeof(float));
      x += n_item;
      if (n_request > 0) {
        std::memcpy(x, args_.request_features.row(request), static_cast<size_t>(n_request) * sizeof(float));
      }
      x += n_request;
      if (args_.similarity_is_feature) *x++ = similarity[i];
    }
    float* const prediction = c_.prediction.data() + tile.begin;
    if (args_.trees != nullptr) {
      const int64_t n_outputs = args_.trees->ensemble().n_outputs();
      if (n_outputs == 1) {
        trees_predict_rows(table_, *args_.trees, kept_x.data(), n_features, n, false, prediction);
      } else {
        kept_out.resize(static_cast<size_t>(kTile * n_outputs));
        trees_predict_rows(table_, *args_.trees, kept_x.data(), n_features, n, false, kept_out.data());
        for (int64_t i = 0; i < n; ++i) {
          prediction[i] = kept_out[static_cast<size_t>(i * n_outputs + args_.output)];
        }
      }
    } else {
      predict_linear(kept_x.data(), n, n_features, prediction);
      for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(prediction[i])) {
          return fail_with(request, fail(Code::kNotFinite, "the features of request %lld and item %d are not finite",
                                         static_cast<long long>(request), items[i]));
        }
      }
    }
    fill_columns(tile, request, similar ? similarity : nullptr);
  }

  // Eight candidates side by side: each sum still runs over the features in their order. NaN where a sum is not finite.
  void predict_linear(const float* x, int64_t n, int64_t n_features, float* out) const {
    constexpr int64_t kLanes = 8;
    const LinearModel& m = *args_.linear;
    for (int64_t begin = 0; begin < n; begin += kLanes) {
      const int64_t lanes = std::min(kLanes, n - begin);
      double sums[kLanes];
      std::fill(sums, sums + kLanes, m.intercept);
      const float* const rows = x + begin * n_features;
      if (lanes == kLanes) {
        for (int64_t j = 0; j < n_features; ++j) {
          for (int64_t l = 0; l < kLanes; ++l) {
            sums[l] += m.coefficients[j] * static_cast<double>(rows[l * n_features + j]);
          }
        }
      } else {
        for (int64_t j = 0; j < n_features; ++j) {
          for (int64_t l = 0; l < lanes; ++l) {
            sums[l] += m.coefficients[j] * static_cast<double>(rows[l * n_features + j]);
          }
        }
      }
      for (int64_t l = 0; l < lanes; ++l) {
        out[begin + l] = linear_prediction(m.calibration_a * sums[l] + m.calibration_b);
      }
    }
  }

  void fill_columns(const Tile& tile, int64_t request, const float* similarity) {
    const int32_t* const items = c_.items.data();
    const float volume = args_.volume != nullptr ? args_.volume[request] : 1.0f;
    for (int64_t i = tile.begin; i < tile.end; ++i) {
      const size_t at = static_cast<size_t>(i);
      const int32_t item = items[i];
      float spend = c_.prediction[at] * args_.price[item] * volume;
      if (args_.fixed_spend != nullptr) spend += args_.fixed_spend[item];
      c_.spend[at] = spend;
      c_.payout[at] = args_.payout_share != nullptr ? spend * args_.payout_share[item] : 0.0f;
    }
    if (args_.q == nullptr) std::fill(c_.q.begin() + tile.begin, c_.q.begin() + tile.end, 1.0f);
    if (args_.fit == nullptr) {
      if (similarity != nullptr) {
        std::copy(similarity, similarity + (tile.end - tile.begin), c_.fit.begin() + tile.begin);
      } else {
        std::fill(c_.fit.begin() + tile.begin, c_.fit.begin() + tile.end, 0.0f);
      }
    }
    for (const Gathered& column : columns_) {
      float* const to = column.to->data();
      for (int64_t i = tile.begin; i < tile.end; ++i) to[i] = column.from[items[i]];
    }
    if (args_.group != nullptr) {
      for (int64_t i = tile.begin; i < tile.end; ++i) c_.group[static_cast<size_t>(i)] = args_.group[items[i]];
    }
    if (args_.separation != nullptr) {
      for (int64_t i = tile.begin; i < tile.end; ++i)
        c_.separation[static_cast<size_t>(i)] = args_.separation[items[i]];
    }
  }

  void choose(int64_t r) {
    const int64_t request = first_ + r;
    const int64_t begin = starts_[static_cast<size_t>(r)];
    const int64_t n = starts_[static_cast<size_t>(r) + 1] - begin;
    const int64_t k = args_.k;
    int32_t* const items = args_.items + request * k;
    double* const scores = args_.scores + request * k;
    double* const terms = args_.terms + request * k * kScoreTerms;
    float* const predictions = args_.predictions + request * k;
    ScoreRankCounts counts;
    if (n > 0) {
      ScoreRankArgs a;
      const auto at = [begin](const std::vector<float>& column) {
        return column.empty() ? nullptr : column.data() + begin;
      };
      a.n = n;
      a.k = static_cast<int32_t>(std::min(k, n));
      a.q = at(c_.q);
      a.spend = at(c_.spend);
      a.payout = at(c_.payout);
      a.fit = at(c_.fit);
      a.advertiser = at(c_.advertiser);
      a.explore = at(c_.explore);
      a.goal_units = at(c_.goal_units);
      a.frequency = at(c_.frequency);
      a.mu = at(c_.mu);
      a.omega = at(c_.omega);
      a.rho = at(c_.rho);
      a.weights = args_.weights;
      a.group = c_.group.empty() ? nullptr : c_.group.data() + begin;
      a.max_per_group = args_.max_per_group;
      a.separation = c_.separation.empty() ? nullptr : c_.separation.data() + begin;
      a.rows = items;
      a.scores = scores;
      a.terms = terms;
      RunContext alone = context_;
      alone.parallel = false;
      if (Status status = score_rank(table_, a, alone, &counts); !status.ok()) {
        if (status.code() == Code::kCancelled) return;
        return fail_with(request, fail(status.code(), "request %lld (candidates in their order): %s",
                                       static_cast<long long>(request), status.text().c_str()));
      }
    }
    for (int32_t i = 0; i < counts.n_selected; ++i) {
      const size_t candidate = static_cast<size_t>(begin + items[i]);
      predictions[i] = c_.prediction[candidate];
      items[i] = c_.items[candidate];
    }
    const int64_t chosen = counts.n_selected;
    std::fill(items + chosen, items + k, -1);
    std::fill(scores + chosen, scores + k, -std::numeric_limits<double>::infinity());
    std::fill(terms + chosen * kScoreTerms, terms + k * kScoreTerms, 0.0);
    std::fill(predictions + chosen, predictions + k, 0.0f);
    args_.counts[2 * request] = counts.n_selected;
    args_.counts[2 * request + 1] = static_cast<int32_t>(n);
  }

  const Table& table_;
  const RankBatchArgs& args_;
  const RunContext& context_;
  const int64_t first_;
  const int64_t count_;
  Columns c_;
  std::vector<Gathered> columns_;
  std::vector<int64_t> starts_;  // [count + 1]
  std::vector<Tile> tiles_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  int64_t failed_request_ = 0;
  Status status_;
};

int64_t most_candidates(const RankBatchArgs& args, int64_t request) {
  return args.offsets != nullptr ? args.offsets[request + 1] - args.offsets[request] : args.n_items;
}

}  // namespace

float linear_prediction(double logit) {
  if (!std::isfinite(logit)) return std::numeric_limits<float>::quiet_NaN();
  if (logit >= 0) return static_cast<float>(1.0 / (1.0 + std::exp(-logit)));
  const double e = std::exp(logit);
  return static_cast<float>(e / (1.0 + e));
}

Status rank_batch(const Table& table, const RankBatchArgs& args, const RunContext& context) {
  for (int64_t first = 0; first < args.n_requests;) {
    int64_t count = 1;
    int64_t total = most_candidates(args, first);
    while (first + count < args.n_requests) {
      const int64_t next = most_candidates(args, first + count);
      if (total + next > kCandidatesPerPass) break;
      total += next;
      ++count;
    }
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    Pass pass(table, args, context, first, count);
    if (Status status = pass.run(); !status.ok()) return status;
    first += count;
  }
  return {};
}

}  // namespace waggle::cpu
