// trees.fit against boosting written down plainly: rows as lists, every split tried, sums in long double.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "cpu/table.hpp"
#include "cpu/trees_fit.hpp"
#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::conformance {

namespace {

using Real = long double;

struct Shape {
  int64_t n;
  int64_t p;
  TreesObjective objective = TreesObjective::kLogistic;
  int32_t rounds = 3;
  int32_t leaves = 8;
  TreesGrowth growth = TreesGrowth::kLeaf;
  int32_t depth = 0;
  double l1 = 0;
  double l2 = 1;
  double min_weight = 1e-3;
  int64_t min_rows = 5;
  double min_gain = 0;
  double missing = 0;       // part of the values
  int32_t categorical = 0;  // the first features, of three categories each
  bool trials = false;      // fractions of them, too
  bool weights = false;
  bool offset = false;
  bool monotone = false;
  bool for_bench = false;
  uint64_t seed = 1;
};

constexpr int32_t kClasses = 3;
constexpr double kQuantile = 0.7;
constexpr double kRate = 0.3;
// Gradients are rounded to 18 bits to find splits; where the reference finds the same ones, leaves differ by the
// rounding of gradients and leaves to float only.
constexpr double kTolerance = 2e-5;

// Everything but the shape of the data is independent of the code under test.
class Reference {
 public:
  Reference(const Shape& shape, const TreesFitArgs& args) : s_(shape), a_(args) {
    k_ = s_.objective == TreesObjective::kSoftmax ? kClasses : 1;
    scores_.assign(static_cast<size_t>(s_.n * k_), 0);
    base();
    for (int32_t round = 0; round < s_.rounds; ++round) {
      std::vector<std::vector<Real>> g(static_cast<size_t>(k_)), h(static_cast<size_t>(k_));
      for (int32_t t = 0; t < k_; ++t) gradients(t, g[static_cast<size_t>(t)], h[static_cast<size_t>(t)]);
      for (int32_t t = 0; t < k_; ++t) grow(t, g[static_cast<size_t>(t)], h[static_cast<size_t>(t)]);
    }
  }

  // Without the offset.
  Real score(int64_t row, int32_t t) const { return scores_[at(row, t)] - offset(row, t); }

 private:
  struct Cut {
    Real gain = -1;
    std::function<bool(int64_t)> left;
    Real lower_left = 0, upper_left = 0, lower_right = 0, upper_right = 0;
  };
  struct Leaf {
    std::vector<int64_t> rows;
    int32_t depth = 0;
    Real lower = -std::numeric_limits<Real>::infinity();
    Real upper = std::numeric_limits<Real>::infinity();
    Cut cut;
  };

  size_t at(int64_t row, int32_t t) const { return static_cast<size_t>(row * k_ + t); }
  Real weight(int64_t r) const { return a_.train.weights != nullptr ? a_.train.weights[r] : 1; }
  Real trials(int64_t r) const { return a_.train.trials != nullptr ? a_.train.trials[r] : 1; }
  Real offset(int64_t r, int32_t t) const { return a_.train.offset != nullptr ? a_.train.offset[r * k_ + t] : 0; }
  Real y(int64_t r) const { return a_.train.y[r]; }
  float x(int64_t r, int64_t f) const { return a_.train.x.row(r)[f]; }

  // The root of the base's gradient, by bisection; classes one after the other until all are still.
  void base() {
    for (int64_t r = 0; r < s_.n; ++r) {
      for (int32_t t = 0; t < k_; ++t) scores_[at(r, t)] = offset(r, t);
    }
    if (s_.objective == TreesObjective::kQuantile) {
      std::vector<int64_t> all(static_cast<size_t>(s_.n));
      for (int64_t r = 0; r < s_.n; ++r) all[static_cast<size_t>(r)] = r;
      const Real value = residual_quantile(all);
      for (Real& score : scores_) score += value;
      return;
    }
    for (int32_t sweep = 0; sweep < (k_ > 1 ? 40 : 1); ++sweep) {
      for (int32_t t = 0; t < k_; ++t) {
        Real low = -60, high = 60;
        Real now = 0;
        const auto move = [&](Real to) {
          for (int64_t r = 0; r < s_.n; ++r) scores_[at(r, t)] += to - now;
          now = to;
        };
        for (int i = 0; i < 70; ++i) {
          move((low + high) / 2);
          std::vector<Real> g, h;
          gradients(t, g, h);
          Real sum = 0;
          for (const Real v : g) sum += v;
          (sum > 0 ? high : low) = now;
        }
      }
    }
    if (k_ == 1) return;
    // Only differences of classes matter to the loss; the code under test starts from logarithms of shares.
    if (a_.train.offset == nullptr) {
      Real sum = 0;
      for (int32_t t = 0; t < k_; ++t) sum += std::exp(scores_[at(0, t)]);
      for (Real& score : scores_) score -= std::log(sum);
    }
  }

  void gradients(int32_t t, std::vector<Real>& g, std::vector<Real>& h) const {
    g.assign(static_cast<size_t>(s_.n), 0);
    h.assign(static_cast<size_t>(s_.n), 0);
    for (int64_t r = 0; r < s_.n; ++r) {
      const Real s = scores_[at(r, t)];
      const Real w = weight(r);
      Real& gr = g[static_cast<size_t>(r)];
      Real& hr = h[static_cast<size_t>(r)];
      switch (s_.objective) {
        case TreesObjective::kLogistic: {
          const Real p = 1 / (1 + std::exp(-s));
          gr = w * (trials(r) * p - y(r));
          hr = w * trials(r) * p * (1 - p);
          break;
        }
        case TreesObjective::kSoftmax: {
          Real sum = 0;
          for (int32_t c = 0; c < k_; ++c) sum += std::exp(scores_[at(r, c)] - s);
          const Real p = 1 / sum;
          gr = w * (p - (static_cast<int32_t>(y(r)) == t ? 1 : 0));
          hr = w * p * (1 - p) * k_ / (k_ - 1);
          break;
        }
        case TreesObjective::kPoisson:
          gr = w * (std::exp(s) - y(r));
          hr = w * std::exp(s);
          break;
        case TreesObjective::kQuantile:
          gr = w * ((y(r) < s ? 1 : 0) - static_cast<Real>(kQuantile));
          hr = w;
          break;
        default:
          gr = w * (s - y(r));
          hr = w;
      }
    }
  }

  Real value(const Leaf& leaf, Real g, Real h) const {
    const Real pull = std::max<Real>(std::fabs(g) - s_.l1, 0);
    Real v = (g > 0 ? -pull : pull) / (h + s_.l2);
    if (s_.objective == TreesObjective::kPoisson) v = std::clamp<Real>(v, -0.7L, 0.7L);
    return std::clamp(v, leaf.lower, leaf.upper);
  }

  // What the leaf lowers the loss by, twice, to second order.
  Real gain(const Leaf& leaf, Real g, Real h) const {
    const Real v = value(leaf, g, h);
    return -(2 * g * v + (h + s_.l2) * v * v + 2 * s_.l1 * std::fabs(v));
  }

  void try_cut(Leaf& leaf, int64_t f, const std::vector<Real>& g, const std::vector<Real>& h, Real own,
               const std::function<bool(int64_t)>& left) const {
    Real gl = 0, hl = 0, gr = 0, hr = 0;
    int64_t nl = 0;
    for (const int64_t r : leaf.rows) {
      const size_t i = static_cast<size_t>(r);
      (left(r) ? gl : gr) += g[i];
      (left(r) ? hl : hr) += h[i];
      nl += left(r) ? 1 : 0;
    }
    const int64_t least = std::max<int64_t>(1, s_.min_rows);
    if (nl < least || static_cast<int64_t>(leaf.rows.size()) - nl < least) return;
    if (hl < s_.min_weight || hr < s_.min_weight) return;
    const Real vl = value(leaf, gl, hl);
    const Real vr = value(leaf, gr, hr);
    const int direction = a_.monotone != nullptr ? a_.monotone[f] : 0;
    if ((direction > 0 && vl > vr) || (direction < 0 && vl < vr)) return;
    const Real sum = gain(leaf, gl, hl) + gain(leaf, gr, hr);
    // Among equals the first, as long double tells them apart.
    if (!(sum - own > s_.min_gain + 1e-10L * sum) || !(sum - own > leaf.cut.gain * (1 + 1e-9L))) return;
    leaf.cut = {sum - own, left, leaf.lower, leaf.upper, leaf.lower, leaf.upper};
    if (direction > 0) leaf.cut.upper_left = leaf.cut.lower_right = (vl + vr) / 2;
    if (direction < 0) leaf.cut.lower_left = leaf.cut.upper_right = (vl + vr) / 2;
  }

  void search(Leaf& leaf, const std::vector<Real>& g, const std::vector<Real>& h) const {
    if (s_.depth > 0 && leaf.depth >= s_.depth) return;
    Real sum_g = 0, sum_h = 0;
    for (const int64_t r : leaf.rows) {
      sum_g += g[static_cast<size_t>(r)];
      sum_h += h[static_cast<size_t>(r)];
    }
    const Real own = gain(leaf, sum_g, sum_h);
    for (int64_t f = 0; f < s_.p; ++f) {
      std::set<float> values;
      bool missing = false;
      for (const int64_t r : leaf.rows) {
        if (std::isnan(x(r, f))) {
          missing = true;
        } else {
          values.insert(x(r, f));
        }
      }
      // Rows of one label share a gradient at first, so ties are common: missing values right before left, lower cuts
      // before higher ones.
      for (const bool to_left : {false, true}) {
        if (to_left && (!missing || f < s_.categorical)) continue;
        for (const float v : values) {
          if (f < s_.categorical) {
            try_cut(leaf, f, g, h, own, [this, f, v](int64_t r) { return x(r, f) == v; });
          } else {
            try_cut(leaf, f, g, h, own,
                    [this, f, v, to_left](int64_t r) { return std::isnan(x(r, f)) ? to_left : x(r, f) <= v; });
          }
        }
      }
      // With three values and missing ones each of the four is tried alone.
      if (f < s_.categorical && missing) {
        try_cut(leaf, f, g, h, own, [this, f](int64_t r) { return std::isnan(x(r, f)); });
      }
    }
  }

  Real residual_quantile(const std::vector<int64_t>& rows) const {
    std::vector<std::pair<Real, Real>> residuals;
    Real total = 0;
    for (const int64_t r : rows) {
      residuals.emplace_back(y(r) - scores_[at(r, 0)], weight(r));
      total += weight(r);
    }
    std::sort(residuals.begin(), residuals.end());
    Real below = 0;
    for (const auto& [value, w] : residuals) {
      below += w;
      if (below >= kQuantile * total * (1 - 1e-15L)) return value;
    }
    return residuals.back().first;
  }

  void grow(int32_t t, const std::vector<Real>& g, const std::vector<Real>& h) {
    std::vector<Leaf> leaves(1);
    for (int64_t r = 0; r < s_.n; ++r) leaves[0].rows.push_back(r);
    search(leaves[0], g, h);
    while (static_cast<int32_t>(leaves.size()) < s_.leaves) {
      size_t best = leaves.size();
      for (size_t i = 0; i < leaves.size(); ++i) {
        if (!(leaves[i].cut.gain > 0)) continue;
        if (best == leaves.size()) {
          best = i;
        } else if (s_.growth == TreesGrowth::kDepth && leaves[i].depth != leaves[best].depth) {
          if (leaves[i].depth < leaves[best].depth) best = i;
        } else if (leaves[i].cut.gain > leaves[best].cut.gain) {
          best = i;
        }
      }
      if (best == leaves.size()) break;
      const Leaf parent = leaves[best];
      Leaf left, right;
      left.depth = right.depth = parent.depth + 1;
      left.lower = parent.cut.lower_left;
      left.upper = parent.cut.upper_left;
      right.lower = parent.cut.lower_right;
      right.upper = parent.cut.upper_right;
      for (const int64_t r : parent.rows) (parent.cut.left(r) ? left : right).rows.push_back(r);
      search(left, g, h);
      search(right, g, h);
      leaves[best] = left;
      leaves.push_back(right);
    }
    for (const Leaf& leaf : leaves) {
      Real sum_g = 0, sum_h = 0;
      for (const int64_t r : leaf.rows) {
        sum_g += g[static_cast<size_t>(r)];
        sum_h += h[static_cast<size_t>(r)];
      }
      const Real step =
          s_.objective == TreesObjective::kQuantile ? residual_quantile(leaf.rows) : value(leaf, sum_g, sum_h);
      for (const int64_t r : leaf.rows) scores_[at(r, t)] += static_cast<float>(kRate * static_cast<double>(step));
    }
  }

  const Shape& s_;
  const TreesFitArgs& a_;
  int32_t k_ = 1;
  std::vector<Real> scores_;
};

// A model must not depend on the instruction set or device that fitted it, nor on the number of threads.
std::string same_bits_as_scalar(const TreesFitArgs& args, const TreesFitResult& result) {
  const bool has_device_form = args.objective != TreesObjective::kSoftmax &&
                               args.objective != TreesObjective::kLambdaRank &&
                               (args.objective != TreesObjective::kQuantile || args.train.weights == nullptr);
  if (result.on_device != (has_device_form && backend_info().backend == "cuda")) return "not where it was to be fitted";
  TreesFitResult scalar;
  RunContext serial;
  serial.parallel = false;
  if (!cpu::trees_fit(*cpu::table_for(cpu::Simd::kScalar), args, serial, &scalar).ok()) return "scalar fit failed";
  std::vector<uint8_t> found, expected;
  if (!trees::write(result.ensemble, &found).ok() || !trees::write(scalar.ensemble, &expected).ok()) {
    return "a model cannot be written";
  }
  if (found != expected || scalar.train_loss != result.train_loss || scalar.validation_loss != result.validation_loss ||
      scalar.gain != result.gain || scalar.splits != result.splits) {
    return "differs in bits from the scalar fit on one thread";
  }
  return {};
}

class TreesFitCase final : public Case {
 public:
  explicit TreesFitCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    static const char* const objectives[] = {"logistic", "softmax", "squared", "poisson", "quantile", "lambdarank"};
    char text[240];
    std::snprintf(text, sizeof text, "trees.fit/%s n=%lld p=%lld leaves=%d %s%s%s%s%s%s l1=%g missing=%g seed=%llu",
                  objectives[static_cast<int>(s_.objective)], static_cast<long long>(s_.n),
                  static_cast<long long>(s_.p), s_.leaves, s_.growth == TreesGrowth::kLeaf ? "leaf" : "depth",
                  s_.trials ? " trials" : "", s_.weights ? " weights" : "", s_.offset ? " offset" : "",
                  s_.monotone ? " monotone" : "", s_.categorical > 0 ? " categories" : "", s_.l1, s_.missing,
                  static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    const size_t n = static_cast<size_t>(s_.n);
    const size_t p = static_cast<size_t>(s_.p);
    const size_t k = s_.objective == TreesObjective::kSoftmax ? kClasses : 1;
    x_.resize(n * p);
    y_.resize(n);
    trials_.resize(n);
    weights_.resize(n);
    offset_.resize(n * k);
    monotone_.assign(p, 0);
    categorical_.clear();
    for (int32_t f = 0; f < s_.categorical; ++f) categorical_.push_back(f);
    for (size_t f = 0; f < p; ++f) {
      if (static_cast<int32_t>(f) >= s_.categorical) monotone_[f] = static_cast<int8_t>(static_cast<int>(f % 3) - 1);
    }
    for (size_t r = 0; r < n; ++r) {
      double signal = 0;
      for (size_t f = 0; f < p; ++f) {
        const bool category = static_cast<int32_t>(f) < s_.categorical;
        // At most 200 values: each has a bin of its own.
        const float v = category ? static_cast<float>(random.below(3) * 50)
                                 : static_cast<float>(static_cast<double>(random.below(200)) / 37.0 - 2.0);
        const bool missing = random.uniform() < s_.missing;
        x_[r * p + f] = missing ? std::numeric_limits<float>::quiet_NaN() : v;
        const double slope = static_cast<double>(f % 5) - 1.5;
        signal += missing ? 0.4 : category ? (v == 50 ? 0.9 : -0.3) : slope * std::sin(static_cast<double>(v)) * 0.6;
      }
      for (size_t t = 0; t < k; ++t) offset_[r * k + t] = random.uniform() - 0.5;
      if (s_.offset) signal += offset_[r * k];
      weights_[r] = random.uniform() * 2 + 0.01;
      trials_[r] = 1 + static_cast<double>(random.below(9)) / 2;
      const double noise = random.uniform();
      switch (s_.objective) {
        case TreesObjective::kLogistic:
          y_[r] = s_.trials ? trials_[r] * std::clamp(1 / (1 + std::exp(-signal)) + 0.3 * (noise - 0.5), 0.0, 1.0)
                            : (noise < 1 / (1 + std::exp(-signal)) ? 1 : 0);
          break;
        case TreesObjective::kSoftmax:
          y_[r] = noise < 0.2 ? static_cast<double>(random.below(3)) : signal < -0.5 ? 0 : signal < 0.5 ? 1 : 2;
          break;
        case TreesObjective::kPoisson:
          y_[r] = std::floor(std::exp(0.5 * signal) * 3 * noise);
          break;
        default:
          y_[r] = 3 * signal + noise;
      }
    }
  }

  Status call(const RunContext& context) override {
    args_ = args();
    return trees_fit(args_, context, &result_);
  }

  std::string verify() override {
    if (s_.for_bench) return {};
    char text[240];
    const int32_t k = result_.ensemble.n_targets;
    const Reference reference(s_, args_);
    std::vector<double> sums(static_cast<size_t>(k));
    // The base of a softmax is known up to a constant.
    for (int64_t r = 0; r < s_.n; ++r) {
      std::fill(sums.begin(), sums.end(), 0.0);
      trees::sum_leaves(result_.ensemble, x_.data() + r * s_.p, sums.data());
      for (int32_t t = 0; t < k; ++t) {
        const double score = result_.ensemble.base[static_cast<size_t>(t)] + sums[static_cast<size_t>(t)];
        const double first = result_.ensemble.base[0] + sums[0];
        const bool differences = k > 1 && s_.offset;
        const double found = differences ? score - first : score;
        const double expected =
            static_cast<double>(differences ? reference.score(r, t) - reference.score(r, 0) : reference.score(r, t));
        if (!(std::fabs(found - expected) <= kTolerance * (1 + std::fabs(expected)))) {
          std::snprintf(text, sizeof text, "score %d of row %lld is %.9g, the reference's is %.9g", t,
                        static_cast<long long>(r), found, expected);
          return text;
        }
      }
    }
    return same_bits_as_scalar(args_, result_);
  }

  double multiply_adds() const override { return static_cast<double>(s_.n) * static_cast<double>(s_.p) * s_.rounds; }
  double bytes() const override { return static_cast<double>(s_.n) * static_cast<double>(s_.p) * s_.rounds; }

 private:
  TreesFitArgs args() const {
    TreesFitArgs a;
    a.train.x = {x_.data(), s_.n, s_.p};
    a.train.y = y_.data();
    a.train.trials = s_.trials ? trials_.data() : nullptr;
    a.train.weights = s_.weights ? weights_.data() : nullptr;
    a.train.offset = s_.offset ? offset_.data() : nullptr;
    a.objective = s_.objective;
    a.n_classes = kClasses;
    a.quantile = kQuantile;
    a.categorical = categorical_.data();
    a.n_categorical = static_cast<int64_t>(categorical_.size());
    a.monotone = s_.monotone ? monotone_.data() : nullptr;
    a.n_trees = s_.rounds;
    a.learning_rate = kRate;
    a.max_leaves = s_.leaves;
    a.max_depth = s_.depth;
    a.growth = s_.growth;
    a.min_child_weight = s_.min_weight;
    a.min_child_rows = s_.min_rows;
    a.l1 = s_.l1;
    a.l2 = s_.l2;
    a.min_gain = s_.min_gain;
    return a;
  }

  Shape s_;
  std::vector<float> x_;
  std::vector<double> y_, trials_, weights_, offset_;
  std::vector<int8_t> monotone_;
  std::vector<int32_t> categorical_;
  TreesFitArgs args_;
  TreesFitResult result_;
};

struct WideShape {
  int64_t n;
  int64_t p;
  TreesObjective objective = TreesObjective::kLogistic;
  int32_t categorical = 0;  // the first features
  int32_t categories = 0;   // of each
  double missing = 0;
  double row_sample = 1;
  double feature_sample = 1;
  TreesGrowth growth = TreesGrowth::kLeaf;
  int32_t depth = 0;
  int32_t leaves = 16;
  int64_t min_rows = 20;
  bool monotone = false;
  bool weights = false;
  int64_t validation = 0;  // rows
  uint64_t seed = 1;
};

// Rows, features and categories of more than one block, unit or group of whoever fits them: bits against the scalar
// fit.
class WideCase final : public Case {
 public:
  explicit WideCase(const WideShape& shape) : s_(shape) {}

  std::string name() const override {
    char text[240];
    std::snprintf(text, sizeof text,
                  "trees.fit/wide objective=%d n=%lld p=%lld leaves=%d categorical=%dx%d missing=%g rowSample=%g "
                  "featureSample=%g%s%s%s validation=%lld seed=%llu",
                  static_cast<int>(s_.objective), static_cast<long long>(s_.n), static_cast<long long>(s_.p), s_.leaves,
                  s_.categorical, s_.categories, s_.missing, s_.row_sample, s_.feature_sample,
                  s_.growth == TreesGrowth::kDepth ? " depth" : "", s_.monotone ? " monotone" : "",
                  s_.weights ? " weights" : "", static_cast<long long>(s_.validation),
                  static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    const size_t n = static_cast<size_t>(s_.n + s_.validation);
    const size_t p = static_cast<size_t>(s_.p);
    std::vector<double> effects(static_cast<size_t>(s_.categories));
    for (double& effect : effects) effect = 2 * random.uniform() - 1;
    x_.resize(n * p);
    y_.resize(n);
    weights_.resize(n);
    monotone_.resize(p);
    categorical_.clear();
    for (int32_t f = 0; f < s_.categorical; ++f) categorical_.push_back(f);
    for (size_t f = 0; f < p; ++f) {
      monotone_[f] = static_cast<int32_t>(f) >= s_.categorical ? static_cast<int8_t>(static_cast<int>(f % 3) - 1) : 0;
    }
    for (size_t r = 0; r < n; ++r) {
      double signal = 0;
      for (size_t f = 0; f < p; ++f) {
        float& x = x_[r * p + f];
        if (random.uniform() < s_.missing) {
          x = std::numeric_limits<float>::quiet_NaN();
        } else if (static_cast<int32_t>(f) < s_.categorical) {
          const double skewed = random.uniform() * random.uniform() * s_.categories;
          x = static_cast<float>(std::floor(skewed)) * 7;
          signal += effects[static_cast<size_t>(skewed)];
        } else {
          // Of a few values, of one value mostly, of as many as there are rows.
          const double u = random.uniform();
          x = static_cast<float>(f % 3 == 0 ? std::floor(u * 9) : f % 3 == 1 ? std::max(0.0, u - 0.8) : u);
          if (f % 5 == 2) signal += std::sin(5 * u) * 0.7;
        }
      }
      weights_[r] = 0.05 + random.uniform();
      const double noise = random.uniform();
      switch (s_.objective) {
        case TreesObjective::kLogistic:
          y_[r] = noise < 1 / (1 + std::exp(1 - signal)) ? 1 : 0;
          break;
        case TreesObjective::kPoisson:
          y_[r] = std::floor(std::exp(0.5 * signal) * 3 * noise);
          break;
        default:
          y_[r] = signal + noise;
      }
    }
  }

  Status call(const RunContext& context) override {
    args_ = {};
    args_.train = rows(0, s_.n);
    if (s_.validation > 0) args_.validation = rows(s_.n, s_.validation);
    args_.early_stopping_rounds = s_.validation > 0 ? 2 : 0;
    args_.objective = s_.objective;
    args_.quantile = kQuantile;
    args_.categorical = categorical_.data();
    args_.n_categorical = static_cast<int64_t>(categorical_.size());
    args_.monotone = s_.monotone ? monotone_.data() : nullptr;
    args_.n_trees = s_.validation > 0 ? 6 : 3;
    args_.learning_rate = kRate;
    args_.max_leaves = s_.leaves;
    args_.max_depth = s_.depth;
    args_.growth = s_.growth;
    args_.min_child_rows = s_.min_rows;
    args_.row_sample = s_.row_sample;
    args_.feature_sample = s_.feature_sample;
    args_.seed = s_.seed;
    return trees_fit(args_, context, &result_);
  }

  std::string verify() override {
    int32_t n_splits = 0;
    for (const double splits : result_.splits) n_splits += static_cast<int32_t>(splits);
    if (n_splits < result_.best_round * 3) return "hardly a split";
    return same_bits_as_scalar(args_, result_);
  }

 private:
  TreesFitRows rows(int64_t first, int64_t n) const {
    TreesFitRows out;
    out.x = {x_.data() + first * s_.p, n, s_.p};
    out.y = y_.data() + first;
    out.weights = s_.weights ? weights_.data() + first : nullptr;
    return out;
  }

  WideShape s_;
  std::vector<float> x_;
  std::vector<double> y_, weights_;
  std::vector<int8_t> monotone_;
  std::vector<int32_t> categorical_;
  TreesFitArgs args_;
  TreesFitResult result_;
};

}  // namespace

void add_trees_fit_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<TreesFitCase>(shape)); };
  using O = TreesObjective;
  if (for_bench) {
    add({.n = 200000, .p = 40, .rounds = 10, .leaves = 63, .for_bench = true});
    return;
  }
  add({.n = 1, .p = 1, .objective = O::kSquared});
  add({.n = 40, .p = 1, .objective = O::kSquared, .min_rows = 1, .seed = 2});
  add({.n = 300, .p = 3, .seed = 3});
  add({.n = 300, .p = 4, .missing = 0.2, .seed = 4});
  add({.n = 400, .p = 5, .missing = 0.1, .categorical = 2, .trials = true, .weights = true, .offset = true, .seed = 5});
  add({.n = 400, .p = 3, .leaves = 6, .growth = TreesGrowth::kDepth, .depth = 3, .seed = 6});
  add({.n = 350, .p = 4, .leaves = 32, .growth = TreesGrowth::kDepth, .depth = 2, .missing = 0.3, .seed = 7});
  add({.n = 300, .p = 3, .l1 = 0.8, .l2 = 0.1, .min_weight = 4, .seed = 8});
  add({.n = 300, .p = 3, .objective = O::kSquared, .min_rows = 40, .weights = true, .offset = true, .seed = 9});
  add({.n = 400, .p = 6, .objective = O::kSquared, .missing = 0.1, .monotone = true, .seed = 10});
  add({.n = 400, .p = 6, .missing = 0.1, .categorical = 1, .monotone = true, .seed = 11});
  add({.n = 300, .p = 3, .objective = O::kPoisson, .weights = true, .seed = 12});
  add({.n = 300, .p = 4, .objective = O::kPoisson, .missing = 0.2, .offset = true, .seed = 13});
  add({.n = 300, .p = 3, .objective = O::kSoftmax, .weights = true, .seed = 14});
  add({.n = 250, .p = 3, .objective = O::kSoftmax, .categorical = 1, .offset = true, .seed = 15});
  add({.n = 300, .p = 3, .objective = O::kQuantile, .weights = true, .offset = true, .seed = 16});
  add({.n = 300, .p = 4, .min_gain = 3, .categorical = 4, .seed = 17});
  add({.n = 1201, .p = 7, .rounds = 2, .leaves = 20, .missing = 0.05, .categorical = 2, .seed = 18});
  add({.n = 300, .p = 3, .objective = O::kQuantile, .missing = 0.1, .offset = true, .seed = 19});

  const auto wide = [&](const WideShape& shape) { cases.push_back(std::make_unique<WideCase>(shape)); };
  wide({.n = 9000, .p = 5, .leaves = 31, .seed = 30});
  wide({.n = 4097, .p = 37, .missing = 0.1, .weights = true, .seed = 31});
  wide({.n = 6000, .p = 6, .categorical = 3, .categories = 60, .missing = 0.05, .seed = 32});
  wide({.n = 5000, .p = 4, .categorical = 2, .categories = 300, .min_rows = 200, .seed = 33});
  wide({.n = 5000, .p = 8, .categorical = 2, .categories = 9, .missing = 0.1, .row_sample = 0.4, .seed = 34});
  wide({.n = 3000, .p = 40, .feature_sample = 0.3, .growth = TreesGrowth::kDepth, .depth = 4, .seed = 35});
  wide({.n = 3000, .p = 6, .growth = TreesGrowth::kDepth, .leaves = 13, .min_rows = 150, .seed = 36});
  wide({.n = 4000, .p = 9, .objective = O::kSquared, .missing = 0.2, .monotone = true, .weights = true, .seed = 37});
  wide({.n = 4000, .p = 5, .objective = O::kPoisson, .row_sample = 0.5, .leaves = 9, .seed = 38});
  wide({.n = 9500, .p = 5, .objective = O::kQuantile, .missing = 0.1, .row_sample = 0.9, .leaves = 4, .seed = 39});
  wide({.n = 3000, .p = 5, .categorical = 1, .categories = 30, .row_sample = 0.7, .validation = 900, .seed = 40});
}

}  // namespace waggle::conformance
