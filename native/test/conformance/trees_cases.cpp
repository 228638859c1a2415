#include <cstdio>
#include <cstring>

#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::conformance {

namespace {

class TreesCase final : public Case {
 public:
  TreesCase(const TreesShape& shape, int64_t n_rows, bool plain) : s_(shape), n_rows_(n_rows), plain_(plain) {}

  std::string name() const override {
    char text[240];
    std::snprintf(text, sizeof text,
                  "trees.predict trees=%d leaves=%d%s f=%d thresholds=%d targets=%d values=%d%s n=%lld%s seed=%llu",
                  s_.n_trees, s_.n_leaves, s_.complete ? " complete" : "", s_.n_features, s_.n_thresholds, s_.n_targets,
                  s_.n_values,
                  s_.mixed  ? " mixed"
                  : s_.less ? " less"
                            : "",
                  static_cast<long long>(n_rows_), plain_ ? " plain" : "", static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    trees::Ensemble ensemble = random_ensemble(s_);
    Random random(s_.seed + 77);
    x_ = random_rows(ensemble, n_rows_, random, plain_);
    out_.assign(static_cast<size_t>(n_rows_ * s_.n_targets), -1.0f);
    made_ = trees::Model::create(std::move(ensemble), &model_);
  }

  Status call(const RunContext& context) override {
    if (!made_.ok()) return made_;
    TreesPredictArgs args;
    args.model = model_.get();
    args.x = x_.data();
    args.n_rows = n_rows_;
    args.out = out_.data();
    return trees_predict(args, context);
  }

  std::string verify() override {
    const std::vector<float> truth = definition_scores(model_->ensemble(), x_, n_rows_);
    for (size_t i = 0; i < truth.size(); ++i) {
      if (std::memcmp(&truth[i], &out_[i], sizeof(float)) != 0) {
        return "output " + std::to_string(i) + " is " + std::to_string(out_[i]) + ", not " + std::to_string(truth[i]);
      }
    }
    return {};
  }

  double multiply_adds() const override { return static_cast<double>(n_rows_) * s_.n_trees; }
  double bytes() const override { return static_cast<double>(x_.size()) * 4; }

 private:
  TreesShape s_;
  int64_t n_rows_;
  bool plain_;
  Status made_;
  std::shared_ptr<const trees::Model> model_;
  std::vector<float> x_;
  std::vector<float> out_;
};

}  // namespace

void add_trees_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const TreesShape& shape, int64_t n_rows, bool plain = false) {
    cases.push_back(std::make_unique<TreesCase>(shape, n_rows, plain));
  };
  if (for_bench) {
    for (const int64_t n : {1, 16, 64, 1000, 10000}) add({200, 64, true, 50}, n, true);
    for (const int64_t n : {1, 1000}) add({200, 64, true, 50, 200}, n, true);
    for (const int64_t n : {1, 1000}) add({500, 256, true, 50}, n, true);
    add({500, 256, true, 50, 250}, 1000, true);
    for (const int64_t n : {1, 1000}) add({300, 31, false, 50, 250}, n, true);
    add({300, 255, false, 50, 250}, 1000, true);
    add({100, 4000, false, 50}, 1000, true);
    add({100, 64, true, 50, 200, 10, 10}, 1000, true);
    add({200, 64, true, 50, 250, 1, 1, true}, 1000, true);
    return;
  }
  uint64_t seed = 1;
  const auto at = [&](TreesShape shape, std::initializer_list<int64_t> rows) {
    for (const int64_t n : rows) {
      shape.seed = ++seed;
      add(shape, n);
    }
  };
  at({0, 1, true, 3}, {0, 1, 70});  // nothing but the base
  at({1, 1, true, 0}, {1, 65});     // no features: one leaf
  at({3, 1, true, 2}, {9, 700});    // leaves only
  at({1, 2, true, 1}, {0, 1, 2, 7, 8, 63, 64, 65, 511, 512, 513, 1500});
  at({40, 64, true, 50}, {1, 5, 17, 33, 64, 100, 600, 1024});  // depth 6
  at({40, 64, true, 7, 200}, {1, 30, 1000});                   // few thresholds, shared by trees
  at({30, 256, true, 50}, {1, 600});                           // depth 8
  at({200, 256, true, 20}, {515});                             // more thresholds than a byte counts: many groups
  at({50, 31, false, 10}, {3, 50, 777});                       // leaf by leaf
  at({50, 100, false, 10}, {3, 777});
  at({30, 255, false, 10}, {600});
  at({20, 257, false, 10}, {9, 600});              // too many leaves for planes
  at({9, 5000, false, 10}, {3, 300});              // deep
  at({60, 40, false, 12, 0, 5}, {1, 20, 600});     // several targets
  at({25, 40, false, 12, 0, 7, 3}, {1, 20, 600});  // several values per leaf
  at({25, 200, false, 12, 0, 4, 4}, {600});
  at({80, 20, false, 6, 0, 1, 1, true}, {1, 8, 40, 64, 600, 2000});  // every kind of split
  at({30, 256, true, 6, 0, 3, 2, true}, {1, 40, 600});
  at({30, 90, false, 40, 3, 1, 1, true}, {700});
  at({500, 8, true, 300, 60}, {200, 900});  // many features
  for (int32_t leaves = 2; leaves <= 130; leaves += 9) at({17, leaves, false, 9, 0, 1, 1, leaves % 2 == 1}, {321});
  at({60, 40, false, 5, 0, 1, 1, false, 0, true}, {1, 900, 2500});  // x < t alone: what several trainers make
}

}  // namespace waggle::conformance
