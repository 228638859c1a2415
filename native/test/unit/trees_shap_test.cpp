// Shapley values against all subsets, against LightGBM's and XGBoost's own, and what adds up.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "cpu/trees_shap.hpp"
#include "test/conformance/case.hpp"
#include "test/trees/shap_reference.hpp"
#include "test/unit/check.hpp"
#include "waggle/ops/trees_predict.hpp"
#include "waggle/ops/trees_shap.hpp"

using namespace waggle;
using conformance::Random;

namespace {

using Rows = std::vector<float>;

std::shared_ptr<const trees::Model> model_of(const trees::Ensemble& e) {
  std::shared_ptr<const trees::Model> model;
  EXPECT(trees::Model::create(e, &model).ok());
  return model;
}

std::vector<double> explain(const trees::Model& model, const Rows& x, int64_t n_rows, const Rows& background = {},
                            int32_t threads = 0) {
  const trees::Ensemble& e = model.ensemble();
  std::vector<double> out(static_cast<size_t>(n_rows * e.n_targets * (e.n_features + 1)), -9.0);
  TreesShapArgs args;
  args.model = &model;
  args.x = x.data();
  args.n_rows = n_rows;
  args.background = background.data();
  args.n_background = static_cast<int64_t>(background.size()) / std::max(1, e.n_features);
  args.threads = threads;
  args.out = out.data();
  EXPECT(trees_shap(args, RunContext{}).ok());
  return out;
}

double factorial(int n) { return n <= 1 ? 1.0 : n * factorial(n - 1); }

// Shapley values of a game over subsets of `n` players, and its value of none behind them.
std::vector<double> shapley(int n, const std::function<double(unsigned)>& game) {
  std::vector<double> values(size_t{1} << n);
  for (unsigned s = 0; s < values.size(); ++s) values[s] = game(s);
  std::vector<double> phi(static_cast<size_t>(n) + 1, 0.0);
  for (int i = 0; i < n; ++i) {
    for (unsigned s = 0; s < values.size(); ++s) {
      if ((s >> i & 1u) != 0) continue;
      const int k = __builtin_popcount(s);
      phi[static_cast<size_t>(i)] +=
          factorial(k) * factorial(n - 1 - k) / factorial(n) * (values[s | 1u << i] - values[s]);
    }
  }
  phi.back() = values[0];
  return phi;
}

// The score of a row of which only the features in `known` are known, by the covers.
double path_game(const trees::Ensemble& e, const float* row, unsigned known, int32_t target) {
  double score = e.base[static_cast<size_t>(target)];
  for (const trees::Tree& tree : e.trees) {
    if (target < tree.first_target || target >= tree.first_target + tree.n_values) continue;
    const std::function<double(int32_t)> expected = [&](int32_t at) -> double {
      const trees::Node& node = e.nodes[tree.first_node + static_cast<uint32_t>(at)];
      if (node.is_leaf()) return e.values[node.first + static_cast<uint32_t>(target - tree.first_target)];
      if ((known >> node.feature & 1u) != 0) {
        return expected(conformance::definition_left(e, node, row[node.feature]) ? node.left : node.right);
      }
      double sum = 0;
      for (const int32_t child : {node.left, node.right}) {
        const double share = conformance::cover_share(e, tree, node, child);
        if (share > 0) sum += share * expected(child);
      }
      return sum;
    };
    score += e.scale * expected(0);
  }
  return score;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

std::vector<uint8_t> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

TEST("Shapley values by covers are those of the definition over all subsets") {
  Random random(5);
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    conformance::TreesShape shape{
        3, static_cast<int32_t>(1 + random.below(20)), seed % 2 == 0, 6, 0, 2, 1, seed % 3 == 0, seed};
    trees::Ensemble e = conformance::random_ensemble(shape);
    conformance::random_covers(&e, random);
    e.scale = seed % 5 == 0 ? 0.25 : 1.0;
    constexpr int64_t kRows = 4;
    const Rows x = conformance::random_rows(e, kRows, random, false);
    std::vector<double> truth;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int32_t t = 0; t < 2; ++t) {
        const std::vector<double> phi =
            shapley(6, [&](unsigned known) { return path_game(e, x.data() + r * 6, known, t); });
        truth.insert(truth.end(), phi.begin(), phi.end());
      }
    }
    EXPECT(largest_difference(explain(*model_of(e), x, kRows), truth) < 1e-12);
    // The reference of the conformance cases, held against the same definition.
    EXPECT(largest_difference(conformance::definition_shap(e, x, kRows), truth) < 1e-12);
  }
}

TEST("Shapley values against a background are those of the definition over all subsets") {
  Random random(6);
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    const trees::Ensemble e = conformance::random_ensemble(
        {3, static_cast<int32_t>(1 + random.below(20)), seed % 2 == 0, 6, 0, 2, 2, seed % 3 == 0, seed});
    constexpr int64_t kRows = 3;
    constexpr int64_t kOthers = 5;
    const Rows x = conformance::random_rows(e, kRows, random, false);
    const Rows background = conformance::random_rows(e, kOthers, random, false);
    std::vector<double> truth;
    for (int64_t r = 0; r < kRows; ++r) {
      for (size_t t = 0; t < 2; ++t) {
        const std::vector<double> phi = shapley(6, [&](unsigned known) {
          double sum = 0;
          for (int64_t b = 0; b < kOthers; ++b) {
            Rows mixed(6);
            for (size_t f = 0; f < 6; ++f) {
              mixed[f] = (known >> f & 1u) != 0 ? x[static_cast<size_t>(r) * 6 + f]
                                                : background[static_cast<size_t>(b) * 6 + f];
            }
            std::vector<double> sums(2, 0.0);
            trees::sum_leaves(e, mixed.data(), sums.data());
            sum += e.base[t] + e.scale * sums[t];
          }
          return sum / kOthers;
        });
        truth.insert(truth.end(), phi.begin(), phi.end());
      }
    }
    EXPECT(largest_difference(explain(*model_of(e), x, kRows, background), truth) < 1e-12);
  }
}

TEST("Shapley values and the expected score add up to the score") {
  Random random(7);
  for (const bool mixed : {false, true}) {
    trees::Ensemble e = conformance::random_ensemble({80, 60, false, 11, 0, 2, 1, mixed, 12});
    conformance::random_covers(&e, random);
    e.scale = 0.5;
    constexpr int64_t kRows = 700;
    const Rows x = conformance::random_rows(e, kRows, random, false);
    const Rows background(x.begin(), x.begin() + 11 * 9);
    const std::shared_ptr<const trees::Model> model = model_of(e);
    for (const Rows& others : {Rows{}, background}) {
      const std::vector<double> phi = explain(*model, x, kRows, others);
      for (int64_t r = 0; r < kRows; ++r) {
        std::vector<double> sums(2, 0.0);
        trees::sum_leaves(e, x.data() + r * 11, sums.data());
        for (size_t t = 0; t < 2; ++t) {
          double sum = 0;
          for (size_t f = 0; f < 12; ++f) sum += phi[(static_cast<size_t>(r) * 2 + t) * 12 + f];
          EXPECT(std::fabs(sum - (e.base[t] + e.scale * sums[t])) < 1e-10);
        }
      }
    }
  }
}

TEST("a chain of hundreds of features is explained to rounding") {
  for (const int32_t length : {47, 48, 49, 90, 220}) {
    Random random(static_cast<uint64_t>(length));
    trees::Ensemble e;
    e.n_features = length;
    e.base = {0};
    trees::Tree tree;
    for (int32_t i = 0; i < length; ++i) {  // split i, a leaf to its left, the rest to its right
      trees::Node split;
      split.feature = i;
      split.threshold = 0.5f;
      split.left = 2 * i + 1;
      split.right = 2 * i + 2;
      trees::Node leaf;
      leaf.first = static_cast<uint32_t>(e.values.size());
      e.values.push_back(static_cast<float>(random.uniform()));
      e.nodes.push_back(split);
      e.nodes.push_back(leaf);
    }
    trees::Node last;
    last.first = static_cast<uint32_t>(e.values.size());
    e.values.push_back(1);
    e.nodes.push_back(last);
    tree.n_nodes = static_cast<uint32_t>(e.nodes.size());
    e.trees = {tree};
    conformance::random_covers(&e, random);
    // Shares near 1 down the chain, so that its end matters.
    float cover = 1e6f;
    for (size_t i = 0; i + 2 < e.nodes.size(); i += 2) {
      e.covers[i] = cover;
      e.covers[i + 1] = cover * 0.02f;
      cover *= 0.98f;
    }
    e.covers.back() = cover;
    Rows x;
    for (int32_t r = 0; r < 3; ++r) {
      for (int32_t f = 0; f < length; ++f) x.push_back(r == 0 || random.below(30) > 0 ? 1.0f : 0.0f);
    }
    EXPECT(largest_difference(explain(*model_of(e), x, 3), conformance::definition_shap(e, x, 3)) < 1e-13);
  }
}

TEST("recorded models are explained as their own libraries explain them") {
  int n = 0;
  const std::filesystem::path models = WAGGLE_TREES_MODELS;
  for (const auto& entry : std::filesystem::directory_iterator(models.parent_path() / "contributions")) {
    const std::vector<uint8_t> recorded = bytes_of(entry.path());
    const std::filesystem::path path = models / entry.path().stem();
    const std::vector<uint8_t> bytes = bytes_of(path);
    const std::vector<uint8_t> rows = bytes_of(path.string() + ".rows");
    trees::Ensemble e;
    EXPECT(trees::read(bytes.data(), bytes.size(), trees::Format::kAuto, &e).ok());
    EXPECT(e.covers.size() == e.nodes.size());
    int32_t sizes[3];
    std::memcpy(sizes, recorded.data(), sizeof sizes);
    EXPECT(sizes[1] == e.n_targets && sizes[2] == e.n_features + 1);
    Rows x(static_cast<size_t>(sizes[0]) * static_cast<size_t>(e.n_features));
    std::memcpy(x.data(), rows.data() + 12, x.size() * 4);
    std::vector<float> expected((recorded.size() - sizeof sizes) / 4);
    std::memcpy(expected.data(), recorded.data() + sizeof sizes, expected.size() * 4);
    const std::vector<double> found = explain(*model_of(e), x, sizes[0]);
    EXPECT(found.size() == expected.size());
    // XGBoost adds in float, and unwinds.
    double most = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      most = std::max(most, std::fabs(found[i] - static_cast<double>(expected[i])));
    }
    if (!(most < 4e-6)) std::printf("  %s: %g\n", path.filename().c_str(), most);
    EXPECT(most < 4e-6);
    // Covers survive our own format.
    std::vector<uint8_t> written;
    trees::Ensemble again;
    EXPECT(trees::write(e, &written).ok());
    EXPECT(trees::read(written.data(), written.size(), trees::Format::kWaggle, &again).ok());
    EXPECT(again.covers == e.covers);
    ++n;
  }
  EXPECT(n >= 18);
}

TEST("explanations have the same bits at every batch size and thread count") {
  Random random(8);
  trees::Ensemble e = conformance::random_ensemble({20, 40, false, 7, 0, 2, 1, true, 3});
  conformance::random_covers(&e, random);
  const std::shared_ptr<const trees::Model> model = model_of(e);
  const Rows x = conformance::random_rows(e, 600, random, false);
  const Rows background(x.begin(), x.begin() + 7 * 3);
  for (const Rows& others : {Rows{}, background}) {
    const std::vector<double> all = explain(*model, x, 600, others);
    for (const int32_t threads : {1, 2, 5}) {
      const std::vector<double> found = explain(*model, x, 600, others, threads);
      EXPECT(std::memcmp(found.data(), all.data(), all.size() * 8) == 0);
    }
    for (const int64_t first : {0, 17, 599}) {
      const std::vector<double> one =
          explain(*model, Rows(x.begin() + first * 7, x.begin() + first * 7 + 7), 1, others);
      EXPECT(std::memcmp(one.data(), all.data() + first * 16, one.size() * 8) == 0);
    }
  }
}

TEST("explaining says what is missing, and stops when told") {
  trees::Ensemble e = conformance::random_ensemble({5, 8, true, 3});
  const Rows x(3000, 0.5f);
  std::vector<double> out(4000);
  TreesShapArgs args;
  std::shared_ptr<const trees::Model> model = model_of(e);
  args.model = model.get();
  args.x = x.data();
  args.n_rows = 1000;
  args.out = out.data();
  const Status status = trees_shap(args, RunContext{});
  EXPECT(status.code() == Code::kModel && status.text().find("background") != std::string::npos);
  args.background = x.data();
  args.n_background = 10;
  EXPECT(trees_shap(args, RunContext{}).ok());
  const std::atomic<bool> stop{true};
  RunContext context;
  context.cancelled = &stop;
  EXPECT(trees_shap(args, context).code() == Code::kCancelled);
  args.out = nullptr;
  EXPECT(trees_shap(args, RunContext{}).code() == Code::kShape);
  e.covers.assign(e.nodes.size(), 1.0f);
  e.covers[1] = -1;
  EXPECT(trees::validate(e).code() == Code::kModel);
  e.covers.pop_back();
  EXPECT(trees::validate(e).code() == Code::kModel);
}

TEST("Gauss-Legendre rules integrate polynomials of their degree exactly") {
  std::vector<double> points, weights;
  for (int32_t n = 1; n <= 64; ++n) {
    cpu::gauss_legendre(n, &points, &weights);
    for (int32_t degree = 0; degree < 2 * n; ++degree) {
      double sum = 0;
      for (size_t i = 0; i < points.size(); ++i) sum += weights[i] * std::pow(points[i], degree);
      EXPECT(std::fabs(sum - 1.0 / (degree + 1)) < 1e-14);
    }
  }
}
