#include <cmath>
#include <cstdio>

#include "test/conformance/case.hpp"
#include "test/trees/shap_reference.hpp"
#include "waggle/ops/trees_shap.hpp"

namespace waggle::conformance {

namespace {

// Both sum in double; terms are at most of order 1 each.
constexpr double kTolerance = 1e-11;

class TreesShapCase final : public Case {
 public:
  TreesShapCase(const TreesShape& shape, int64_t n_rows) : s_(shape), n_rows_(n_rows) {}

  std::string name() const override {
    char text[240];
    std::snprintf(text, sizeof text, "trees.shap trees=%d leaves=%d%s f=%d targets=%d values=%d%s n=%lld seed=%llu",
                  s_.n_trees, s_.n_leaves, s_.complete ? " complete" : "", s_.n_features, s_.n_targets, s_.n_values,
                  s_.mixed ? " mixed" : "", static_cast<long long>(n_rows_), static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    trees::Ensemble ensemble = random_ensemble(s_);
    Random random(s_.seed + 99);
    random_covers(&ensemble, random);
    x_ = random_rows(ensemble, n_rows_, random, false);
    out_.assign(static_cast<size_t>(n_rows_ * s_.n_targets * (s_.n_features + 1)), -9.0);
    made_ = trees::Model::create(std::move(ensemble), &model_);
  }

  Status call(const RunContext& context) override {
    if (!made_.ok()) return made_;
    TreesShapArgs args;
    args.model = model_.get();
    args.x = x_.data();
    args.n_rows = n_rows_;
    args.out = out_.data();
    return trees_shap(args, context);
  }

  std::string verify() override {
    const std::vector<double> truth = definition_shap(model_->ensemble(), x_, n_rows_);
    for (size_t i = 0; i < truth.size(); ++i) {
      if (!(std::fabs(truth[i] - out_[i]) <= kTolerance * s_.n_trees)) {
        return "value " + std::to_string(i) + " is " + std::to_string(out_[i]) + ", not " + std::to_string(truth[i]);
      }
    }
    return {};
  }

  double multiply_adds() const override { return static_cast<double>(n_rows_) * s_.n_trees; }
  double bytes() const override { return static_cast<double>(x_.size()) * 4; }

 private:
  TreesShape s_;
  int64_t n_rows_;
  Status made_;
  std::shared_ptr<const trees::Model> model_;
  std::vector<float> x_;
  std::vector<double> out_;
};

}  // namespace

void add_trees_shap_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const TreesShape& shape, int64_t n_rows) {
    cases.push_back(std::make_unique<TreesShapCase>(shape, n_rows));
  };
  if (for_bench) {
    add({200, 64, true, 50}, 1000);
    add({200, 63, false, 50}, 1000);
    return;
  }
  uint64_t seed = 100;
  const auto at = [&](TreesShape shape, std::initializer_list<int64_t> rows) {
    for (const int64_t n : rows) {
      shape.seed = ++seed;
      add(shape, n);
    }
  };
  at({0, 1, true, 3}, {0, 1, 5});  // nothing but the base
  at({2, 1, true, 0}, {1, 3});     // no features
  at({3, 1, true, 2}, {4});        // leaves only
  at({2, 2, true, 1}, {1, 2, 600});
  at({3, 8, true, 5}, {1, 300});
  at({5, 40, false, 6}, {7, 40});  // features asked again and again
  at({4, 64, true, 50}, {9});
  at({3, 60, false, 200}, {5});  // long paths of many features
  at({6, 30, false, 9, 0, 1, 1, true}, {1, 50, 270});
  at({6, 30, false, 9, 0, 5, 3, true}, {20});
  at({4, 30, false, 9, 3, 3}, {20});
}

}  // namespace waggle::conformance
