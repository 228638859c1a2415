#include "waggle/ops/trees_fit.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/table.hpp"
#include "cpu/trees_fit.hpp"
#include "cpu/trees_fit_bins.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/tables.hpp"
#include "waggle/ops/trees_predict.hpp"

using namespace waggle;
using conformance::Random;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Problem {
  int64_t n;
  int64_t p;
  std::vector<float> x;
  std::vector<double> y;
  std::vector<int32_t> categorical;
  std::vector<uint32_t> groups;
  TreesFitArgs args;
  TreesFitResult result;

  // Feature 0 has values missing, feature 1 is a category, the rest are numbers.
  Problem(int64_t rows, int64_t features, TreesObjective objective, uint64_t seed = 1)
      : n(rows), p(features), x(static_cast<size_t>(rows * features)), y(static_cast<size_t>(rows)) {
    Random random(seed);
    for (int64_t r = 0; r < n; ++r) {
      double signal = 0;
      for (int64_t f = 0; f < p; ++f) {
        float v = static_cast<float>(random.uniform() * 4 - 2);
        if (f == 1) v = static_cast<float>(random.below(40));
        if (f == 0 && random.uniform() < 0.2) v = kNan;
        x[static_cast<size_t>(r * p + f)] = v;
        if (f == 0) signal += std::isnan(v) ? 0.7 : std::sin(2.0 * static_cast<double>(v));
        if (f == 1) signal += static_cast<int>(v) % 3 == 0 ? 0.8 : -0.4;
        if (f == 2) signal += static_cast<double>(v) * 0.5;
      }
      const double noise = random.uniform();
      double& label = y[static_cast<size_t>(r)];
      switch (objective) {
        case TreesObjective::kLogistic:
          label = noise < 1 / (1 + std::exp(-signal)) ? 1 : 0;
          break;
        case TreesObjective::kSoftmax:
          label = noise < 0.1 ? static_cast<double>(random.below(4)) : std::clamp(std::floor(signal + 2), 0.0, 3.0);
          break;
        case TreesObjective::kPoisson:
          label = std::floor(2 * std::exp(signal) * noise);
          break;
        case TreesObjective::kLambdaRank:
          label = std::clamp(std::floor(signal + 1.5 + noise), 0.0, 4.0);
          break;
        default:
          label = 5 * signal + noise;
      }
    }
    if (p > 1) categorical = {1};
    args.train.x = {x.data(), n, p};
    args.train.y = y.data();
    args.objective = objective;
    args.n_classes = 4;
    args.quantile = 0.8;
    args.categorical = categorical.data();
    args.n_categorical = static_cast<int64_t>(categorical.size());
    args.n_trees = 20;
    args.max_leaves = 15;
    if (objective == TreesObjective::kLambdaRank) {
      for (int64_t left = n; left > 0; left -= groups.back()) {
        groups.push_back(static_cast<uint32_t>(std::min<int64_t>(left, 1 + random.below(30))));
      }
      args.train.groups = groups.data();
      args.train.n_groups = static_cast<int64_t>(groups.size());
    }
  }

  Status fit(const RunContext& context = {}) { return trees_fit(args, context, &result); }

  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> out;
    EXPECT(trees::write(result.ensemble, &out).ok());
    return out;
  }

  double score(int64_t row) const {
    double sum = result.ensemble.base[0];
    trees::sum_leaves(result.ensemble, x.data() + row * p, &sum);
    return sum;
  }
};

bool refused(const Status& status, Code code, const char* with) {
  const bool right = status.code() == code && status.text().find(with) != std::string::npos;
  if (!right) std::printf("  got code %d: %s\n", static_cast<int>(status.code()), status.text().c_str());
  return right;
}

constexpr TreesObjective kAll[] = {TreesObjective::kLogistic, TreesObjective::kSoftmax,  TreesObjective::kSquared,
                                   TreesObjective::kPoisson,  TreesObjective::kQuantile, TreesObjective::kLambdaRank};

}  // namespace

TEST("trees.fit learns every objective, and its losses fall") {
  for (const TreesObjective objective : kAll) {
    Problem problem(6000, 5, objective);
    EXPECT(problem.fit().ok());
    const std::vector<double>& loss = problem.result.train_loss;
    EXPECT(loss.size() == 20);
    EXPECT(loss.back() < loss.front() - 0.1 * std::fabs(loss.front()));
    EXPECT(problem.result.best_round == 20);
    // What the labels were made of is what is split on.
    EXPECT(problem.result.gain[0] > 10 * problem.result.gain[4]);
    EXPECT(problem.result.gain[1] > 10 * problem.result.gain[4]);
  }
}

TEST("a model has the same bits at any number of threads and every instruction set") {
  for (const TreesObjective objective : kAll) {
    Problem problem(30000, 6, objective, 3);
    problem.args.n_trees = 4;
    problem.args.row_sample = 0.8;
    problem.args.feature_sample = 0.7;
    EXPECT(problem.fit().ok());
    const std::vector<uint8_t> first = problem.bytes();
    const std::vector<double> losses = problem.result.train_loss;
    for (const int threads : {1, 2, 3, 7}) {
      problem.args.threads = threads;
      EXPECT(problem.fit().ok());
      EXPECT(problem.bytes() == first);
      EXPECT(problem.result.train_loss == losses);
    }
    for (const cpu::Table* table : tables_here()) {
      TreesFitResult result;
      EXPECT(cpu::trees_fit(*table, problem.args, RunContext{}, &result).ok());
      problem.result = std::move(result);
      EXPECT(problem.bytes() == first);
      EXPECT(problem.result.train_loss == losses);
    }
    problem.args.seed = 2;
    EXPECT(problem.fit().ok());
    EXPECT(problem.bytes() != first);
  }
}

TEST("prediction on floats decides as training did on bins") {
  // Neighbouring floats, both zeros, denormals, the largest ones: leaves of one row each say where a row went.
  const float denormal = std::numeric_limits<float>::denorm_min();
  const float most = std::numeric_limits<float>::max();
  std::vector<float> values{0.0f, -0.0f, denormal, -denormal, 2 * denormal, most, -most, std::nextafter(most, 0.0f)};
  for (float v = 1; values.size() < 60; v = std::nextafter(v, 2.0f)) values.push_back(v);
  values.push_back(kNan);
  for (const bool categorical : {false, true}) {
    Problem problem(static_cast<int64_t>(values.size()) * 24, 1, TreesObjective::kSquared);
    for (int64_t r = 0; r < problem.n; ++r) {
      const size_t v = static_cast<size_t>(r) % values.size();
      problem.x[static_cast<size_t>(r)] =
          !categorical || std::isnan(values[v]) ? values[v] : static_cast<float>(v * v * 4000);
      problem.y[static_cast<size_t>(r)] = static_cast<double>((v * 37) % 101);
    }
    const int32_t zero = 0;
    problem.args.categorical = &zero;
    problem.args.n_categorical = categorical ? 1 : 0;
    problem.args.max_leaves = 64;
    problem.args.l2 = 0;
    problem.args.min_child_rows = 1;
    problem.args.n_trees = 3;
    problem.args.learning_rate = 0.5;
    EXPECT(problem.fit().ok());
    // The loss that training reached by its bins is that of the model's own scores.
    double loss = 0;
    for (int64_t r = 0; r < problem.n; ++r) {
      const double miss = problem.score(r) - problem.y[static_cast<size_t>(r)];
      loss += miss * miss;
    }
    loss /= static_cast<double>(problem.n);
    EXPECT(std::fabs(loss - problem.result.train_loss.back()) <= 1e-9 * loss);
    EXPECT(problem.result.splits[0] > 10);
    EXPECT(loss < problem.result.train_loss.front());
  }
}

TEST("a leaf that a set of categories made is drawn to 0 by 10 more") {
  // One split, one round, squared error: a leaf is −ΣG / (rows + λ), over its rows.
  for (const bool many : {false, true}) {
    Problem problem(3000, 2, TreesObjective::kSquared, 17);
    for (int64_t r = 0; r < problem.n; ++r) {
      const int32_t category = static_cast<int32_t>(r % (many ? 12 : 3));
      problem.x[static_cast<size_t>(2 * r)] = 0;
      problem.x[static_cast<size_t>(2 * r + 1)] = static_cast<float>(category);
      problem.y[static_cast<size_t>(r)] = category < 2 ? 4 : 1;
    }
    problem.args.n_trees = 1;
    problem.args.max_leaves = 2;
    problem.args.learning_rate = 1;
    EXPECT(problem.fit().ok());
    const double base = problem.result.ensemble.base[0];
    const double above = many ? 2.0 / 12 : 2.0 / 3;  // part of the rows with a label of 4
    const auto expected = [&](double label, double part) {
      const double rows = part * static_cast<double>(problem.n);
      return base + rows * (label - base) / (rows + problem.args.l2 + (many ? 10 : 0));
    };
    EXPECT(std::fabs(problem.score(0) - expected(4, above)) < 1e-5);
    EXPECT(std::fabs(problem.score(2) - expected(1, 1 - above)) < 1e-5);
  }
}

TEST("cuts part sorted values into bins of about equal numbers, or into each value") {
  std::vector<float> values;
  for (int i = 0; i < 10000; ++i) values.push_back(static_cast<float>(i));
  const std::vector<float> cuts = cpu::find_cuts(values.data(), 10000, 100);
  EXPECT(cuts.size() == 99);
  for (size_t i = 1; i < cuts.size(); ++i) EXPECT(std::fabs(cuts[i] - cuts[i - 1] - 100) <= 2);
  // A heavy value has a bin of its own.
  std::vector<float> heavy(5000, 3.0f);
  for (int i = 0; i < 5000; ++i) heavy.push_back(4.0f + static_cast<float>(i));
  const std::vector<float> parted = cpu::find_cuts(heavy.data(), 10000, 50);
  EXPECT(!parted.empty() && parted[0] > 3.0f && parted[0] <= 4.0f);
  EXPECT(parted.size() > 40 && parted.size() <= 49);
  const float two[] = {1.0f, 1.0f, std::nextafter(1.0f, 2.0f)};
  EXPECT(cpu::find_cuts(two, 3, 255) == std::vector<float>{std::nextafter(1.0f, 2.0f)});
  EXPECT(cpu::find_cuts(two, 2, 255).empty());
  EXPECT(cpu::find_cuts(two, 0, 255).empty());
}

TEST("early stopping keeps the rounds up to the lowest validation loss") {
  Problem problem(800, 5, TreesObjective::kLogistic);
  Problem held_out(4000, 5, TreesObjective::kLogistic, 9);
  problem.args.validation = held_out.args.train;
  problem.args.n_trees = 400;
  problem.args.learning_rate = 0.3;
  problem.args.early_stopping_rounds = 10;
  EXPECT(problem.fit().ok());
  const TreesFitResult& r = problem.result;
  EXPECT(r.best_round >= 1 && r.best_round < 390);
  EXPECT(static_cast<int32_t>(r.validation_loss.size()) == r.best_round + 10);
  EXPECT(r.train_loss.size() == r.validation_loss.size());
  EXPECT(static_cast<int32_t>(r.ensemble.trees.size()) == r.best_round);
  for (const double loss : r.validation_loss) EXPECT(loss >= r.validation_loss[static_cast<size_t>(r.best_round - 1)]);
  double loss = 0;
  for (int64_t i = 0; i < held_out.n; ++i) {
    double s = r.ensemble.base[0];
    trees::sum_leaves(r.ensemble, held_out.x.data() + i * 5, &s);
    loss += std::log1p(std::exp(held_out.y[static_cast<size_t>(i)] > 0 ? -s : s));
  }
  EXPECT(std::fabs(loss / 4000 - r.validation_loss[static_cast<size_t>(r.best_round - 1)]) < 1e-9);
}

TEST("monotone features never let the score turn") {
  Problem problem(4000, 4, TreesObjective::kLogistic);
  const int8_t monotone[] = {0, 0, 1, -1};
  problem.args.monotone = monotone;
  problem.args.n_trees = 40;
  EXPECT(problem.fit().ok());
  for (int64_t r = 0; r < 300; ++r) {
    for (const int64_t f : {2, 3}) {
      std::vector<float> row(problem.x.begin() + r * 4, problem.x.begin() + r * 4 + 4);
      double before = 0;
      for (int step = 0; step <= 40; ++step) {
        row[static_cast<size_t>(f)] = static_cast<float>(step) * 0.1f - 2;
        double s = 0;
        trees::sum_leaves(problem.result.ensemble, row.data(), &s);
        if (step > 0) EXPECT(f == 2 ? s >= before : s <= before);
        before = s;
      }
    }
  }
}

TEST("every leaf has the rows it must have") {
  Problem problem(3000, 5, TreesObjective::kLogistic);
  problem.args.min_child_rows = 70;
  problem.args.max_leaves = 60;
  problem.args.n_trees = 5;
  EXPECT(problem.fit().ok());
  const trees::Ensemble& e = problem.result.ensemble;
  for (const trees::Tree& tree : e.trees) {
    // Rows of a leaf, by a model that holds nothing but this tree with leaves numbered.
    trees::Ensemble one = e;
    one.trees = {tree};
    std::vector<int64_t> rows(e.values.size(), 0);
    for (size_t v = 0; v < one.values.size(); ++v) one.values[v] = static_cast<float>(v);
    for (int64_t r = 0; r < problem.n; ++r) {
      double leaf = 0;
      trees::sum_leaves(one, problem.x.data() + r * 5, &leaf);
      ++rows[static_cast<size_t>(leaf)];
    }
    for (const int64_t count : rows) EXPECT(count == 0 || count >= 70);
  }
}

TEST("columns that say nothing are harmless") {
  Problem problem(500, 4, TreesObjective::kLogistic);
  for (int64_t r = 0; r < 500; ++r) {
    problem.x[static_cast<size_t>(r * 4)] = kNan;
    problem.x[static_cast<size_t>(r * 4 + 1)] = 7;
    problem.x[static_cast<size_t>(r * 4 + 2)] = 1.5f;
    problem.x[static_cast<size_t>(r * 4 + 3)] = kNan;
  }
  EXPECT(problem.fit().ok());
  EXPECT(problem.result.ensemble.trees.size() == 20);
  for (const double splits : problem.result.splits) EXPECT(splits == 0);
  EXPECT(std::fabs(problem.result.train_loss.back() - problem.result.train_loss.front()) < 1e-9);
}

TEST("missing values alone can part rows") {
  Problem problem(400, 1, TreesObjective::kSquared);
  problem.args.n_categorical = 0;
  for (int64_t r = 0; r < 400; ++r) {
    problem.x[static_cast<size_t>(r)] = r % 4 == 0 ? kNan : 2.0f;
    problem.y[static_cast<size_t>(r)] = r % 4 == 0 ? 10 : -1;
  }
  problem.args.n_trees = 60;
  problem.args.learning_rate = 0.5;
  EXPECT(problem.fit().ok());
  EXPECT(std::fabs(problem.score(0) - 10) < 1e-3 && std::fabs(problem.score(1) + 1) < 1e-3);
}

TEST("trees.fit names the row and feature of what it refuses") {
  const auto with = [](TreesObjective objective, auto&& change) {
    Problem problem(100, 3, objective);
    change(problem);
    return problem.fit();
  };
  const auto kBad = Code::kInvalidArgument;
  using O = TreesObjective;
  EXPECT(refused(with(O::kLogistic, [](Problem& q) { q.y[17] = NAN; }), Code::kNotFinite, "y is NaN at row 17"));
  EXPECT(refused(with(O::kLogistic, [](Problem& q) { q.y[17] = 1.5; }), kBad, "row 17"));
  EXPECT(refused(with(O::kSoftmax, [](Problem& q) { q.y[3] = 4; }), kBad, "row 3"));
  EXPECT(refused(with(O::kPoisson, [](Problem& q) { q.y[4] = -1; }), kBad, "negative at row 4"));
  EXPECT(refused(with(O::kLambdaRank, [](Problem& q) { q.y[5] = 0.5; }), kBad, "row 5"));
  EXPECT(refused(with(O::kLambdaRank, [](Problem& q) { ++q.groups[0]; }), Code::kShape, "groups add up to 101"));
  EXPECT(
      refused(with(O::kSquared, [](Problem& q) { q.x[3 * 8 + 2] = INFINITY; }), Code::kNotFinite, "row 8, feature 2"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.x[3 * 9 + 1] = 1.5f; }), kBad, "row 9, feature 1"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.x[3 * 9 + 1] = -1; }), kBad, "row 9, feature 1"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.x[3 * 9 + 1] = 2e7f; }), kBad, "row 9, feature 1"));
  EXPECT(refused(with(O::kLogistic, [](Problem& q) { q.y.assign(100, 1.0); }), kBad, "both outcomes"));
  EXPECT(refused(with(O::kSoftmax, [](Problem& q) { q.y.assign(100, 1.0); }), kBad, "single class"));
  EXPECT(refused(with(O::kPoisson, [](Problem& q) { q.y.assign(100, 0.0); }), kBad, "0 in every row"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.train.x.rows = 0; }), Code::kShape, "nRows"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.train.x.cols = 0; }), Code::kShape, "nFeatures"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.n_trees = 0; }), kBad, "nTrees"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.learning_rate = NAN; }), kBad, "learningRate"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.row_sample = 0; }), kBad, "rowSample"));
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.early_stopping_rounds = 3; }), kBad, "validation"));
  EXPECT(refused(with(O::kQuantile, [](Problem& q) { q.args.quantile = 1; }), kBad, "quantile"));
  EXPECT(refused(with(O::kSquared,
                      [](Problem& q) {
                        q.y.assign(100, 1e300);
                        q.y[0] = 0;
                      }),
                 Code::kNotFinite, "overflow"));
  static const double weights[100] = {};
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.train.weights = weights; }), kBad, "weight"));
  static const int8_t monotone[] = {0, 1, 0};
  EXPECT(refused(with(O::kSquared, [](Problem& q) { q.args.monotone = monotone; }), kBad, "feature 1"));
}

TEST("trees.fit stops when it is asked to") {
  Problem problem(20000, 5, TreesObjective::kLogistic);
  std::atomic<bool> cancelled{false};
  RunContext context;
  context.cancelled = &cancelled;
  problem.args.n_trees = 100000;
  problem.args.progress = [&](int32_t rounds) { cancelled.store(rounds >= 3); };
  EXPECT(problem.fit(context).code() == Code::kCancelled);
}

TEST("rows of weight 0 and trials of 0 count for nothing") {
  Problem problem(2000, 3, TreesObjective::kLogistic);
  std::vector<double> weights(2000, 1.0);
  for (size_t r = 0; r < 2000; r += 2) weights[r] = 0;
  problem.args.train.weights = weights.data();
  problem.args.min_child_rows = 1;
  problem.args.min_child_weight = 1;
  EXPECT(problem.fit().ok());
  const double base = problem.result.ensemble.base[0];
  double successes = 0;
  for (size_t r = 1; r < 2000; r += 2) successes += problem.y[r];
  EXPECT(std::fabs(base - std::log(successes / (1000 - successes))) < 1e-12);
}
