// Sparse learners against plain references that share nothing with them but the formulas.
#include <cmath>
#include <cstdio>
#include <map>

#include "test/conformance/case.hpp"
#include "waggle/ffm.hpp"
#include "waggle/ftrl.hpp"
#include "waggle/ops/glm_sparse.hpp"

namespace waggle::conformance {

namespace {

struct Shape {
  int64_t n;
  int64_t features;
  int32_t fields;
  bool ragged = false;  // rows of any length, empty ones and repeated features among them
  bool values = false;
  bool counts = false;  // trials, weights and offsets
  double l1 = 0;
  double l2 = 0;
  int32_t k = 4;
  bool plain = false;  // ffm: no normalisation, no linear terms; else: no intercept
  uint64_t seed = 1;
};

struct Data {
  std::vector<int32_t> indptr, indices, fields;
  std::vector<float> values;
  std::vector<double> successes, trials, weights, offset;

  explicit Data(const Shape& s) {
    Random random(s.seed);
    indptr.push_back(0);
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t length = s.ragged ? random.below(2 * s.fields) : s.fields;
      double eta = -1;
      for (int64_t e = 0; e < length; ++e) {
        const int32_t field = static_cast<int32_t>(s.ragged ? random.below(s.fields) : e);
        // Squared: some features are common, others rare.
        const double u = random.uniform();
        const int32_t index = static_cast<int32_t>(u * u * static_cast<double>(s.features));
        indices.push_back(index);
        fields.push_back(field);
        values.push_back(static_cast<float>(random.uniform() * 2 - 0.5));
        eta += std::sin(index * 1.7 + field) * 0.8;
      }
      indptr.push_back(static_cast<int32_t>(indices.size()));
      trials.push_back(s.counts ? static_cast<double>(random.below(4)) : 1.0);
      weights.push_back(s.counts ? random.uniform() * 2 : 1.0);
      offset.push_back(s.counts ? random.uniform() - 0.5 : 0.0);
      successes.push_back(0);
      for (int t = 0; t < static_cast<int>(trials.back()); ++t) {
        successes.back() += random.uniform() < 1 / (1 + std::exp(-eta)) ? 1 : 0;
      }
    }
  }

  SparseRows rows(const Shape& s) const {
    return {s.n,
            indptr.data(),
            indices.data(),
            s.values ? values.data() : nullptr,
            fields.data(),
            static_cast<int64_t>(indices.size())};
  }
  SparseTargets targets(const Shape& s) const {
    if (!s.counts) return {successes.data(), nullptr, nullptr, nullptr};
    return {successes.data(), trials.data(), weights.data(), offset.data()};
  }
  double value(const Shape& s, int64_t e) const {
    return s.values ? static_cast<double>(values[static_cast<size_t>(e)]) : 1.0;
  }
};

std::string shape_name(const char* what, const Shape& s) {
  char text[200];
  std::snprintf(text, sizeof text, "%s n=%lld features=%lld fields=%d%s%s%s l1=%g l2=%g k=%d%s seed=%llu", what,
                static_cast<long long>(s.n), static_cast<long long>(s.features), s.fields, s.ragged ? " ragged" : "",
                s.values ? " values" : "", s.counts ? " counts" : "", s.l1, s.l2, s.k, s.plain ? " plain" : "",
                static_cast<unsigned long long>(s.seed));
  return text;
}

long double sigmoid(long double eta) { return 1 / (1 + std::exp(-eta)); }

// FTRL as the problem it solves (the paper's equation 3), not as the algorithm that solves it: each weight is the
// minimum of g·w + ½ Σ σ (w − wₛ)² + ½ (β/α + λ₂) w² + λ₁|w| over its history, found by bisection.
class FtrlCase final : public Case {
 public:
  explicit FtrlCase(const Shape& shape) : s_(shape), data_(shape) {}
  std::string name() const override { return shape_name("ftrl.learn", s_); }
  void prepare() override { predictions_.assign(static_cast<size_t>(s_.n), -1); }

  Status call(const RunContext& context) override {
    std::unique_ptr<Ftrl> model;
    const FtrlOptions options{s_.features, kAlpha, kBeta, s_.l1, s_.l2, !s_.plain};
    if (Status status = Ftrl::create(options, &model); !status.ok()) return status;
    if (Status status = model->learn(data_.rows(s_), data_.targets(s_), predictions_.data(), {}, context, &learned_);
        !status.ok()) {
      return status;
    }
    model->weights(&indices_, &weights_, &intercept_);
    return {};
  }

  std::string verify() override {
    std::map<int64_t, History> histories;  // −1 = intercept
    long double loss = 0;
    char text[160];
    for (int64_t row = 0; row < s_.n; ++row) {
      const size_t at = static_cast<size_t>(row);
      std::vector<std::pair<int64_t, long double>> entries;
      if (!s_.plain) entries.emplace_back(-1, 1.0L);
      for (int64_t e = data_.indptr[at]; e < data_.indptr[at + 1]; ++e) {
        entries.emplace_back(data_.indices[static_cast<size_t>(e)], data_.value(s_, e));
      }
      long double eta = data_.offset[at];
      std::vector<long double> weights;
      for (const auto& [feature, x] : entries) {
        weights.push_back(weight_of(histories[feature], feature < 0));
        eta += weights.back() * x;
      }
      const long double p = sigmoid(eta);
      if (!(std::fabs(p - static_cast<long double>(predictions_[at])) <= 1e-11L)) {
        std::snprintf(text, sizeof text, "row %lld: %.15g, not %.15Lg", static_cast<long long>(row), predictions_[at],
                      p);
        return text;
      }
      const long double s = data_.successes[at];
      const long double t = data_.trials[at];
      loss -= data_.weights[at] * (s * std::log(p) + (t - s) * std::log(1 - p));
      for (size_t e = 0; e < entries.size(); ++e) {
        History& h = histories[entries[e].first];
        const long double g = data_.weights[at] * (t * p - s) * entries[e].second;
        const long double sigma = (std::sqrt(h.squares + g * g) - std::sqrt(h.squares)) / kAlpha;
        h.gradients += g;
        h.squares += g * g;
        h.pulls += sigma * weights[e];
        h.sigmas += sigma;
      }
    }
    if (!(std::fabs(loss - learned_.loss) <= 1e-9L * (1 + std::fabs(loss)))) return "the loss differs";
    size_t n = 0;
    for (const auto& [feature, history] : histories) {
      const long double w = weight_of(history, feature < 0);
      if (feature < 0) {
        if (!(std::fabs(w - intercept_) <= 1e-10L * (1 + std::fabs(w)))) return "the intercept differs";
        continue;
      }
      if (std::fabs(w) < 1e-13L) continue;
      while (n < indices_.size() && indices_[n] < feature) ++n;
      if (n == indices_.size() || indices_[n] != feature ||
          !(std::fabs(w - weights_[n]) <= 1e-10L * (1 + std::fabs(w)))) {
        std::snprintf(text, sizeof text, "the weight of feature %lld is not %.12Lg", static_cast<long long>(feature),
                      w);
        return text;
      }
    }
    return {};
  }

 private:
  static constexpr double kAlpha = 0.3;
  static constexpr double kBeta = 0.7;

  struct History {
    long double gradients = 0, squares = 0, pulls = 0, sigmas = 0;
  };

  // The slope of the problem rises with w: bisect where it changes its sign.
  long double weight_of(const History& h, bool intercept) const {
    const long double l1 = intercept ? 0 : s_.l1;
    const long double l2 = intercept ? 0 : s_.l2;
    const auto slope = [&](long double w, long double sign) {
      return h.gradients - h.pulls + (h.sigmas + kBeta / kAlpha + l2) * w + l1 * sign;
    };
    if (slope(0, 1) >= 0 && slope(0, -1) <= 0) return 0;
    const long double sign = slope(0, 1) < 0 ? 1 : -1;
    long double low = 0, high = sign;
    while (sign * slope(high, sign) < 0) high *= 2;
    for (int i = 0; i < 120; ++i) {
      const long double middle = (low + high) / 2;
      (sign * slope(middle, sign) < 0 ? low : high) = middle;
    }
    return (low + high) / 2;
  }

  Shape s_;
  Data data_;
  FtrlLearned learned_;
  std::vector<double> predictions_, weights_;
  std::vector<int32_t> indices_;
  double intercept_ = 0;
};

// FFM in double, from the model's first weights: a table of every coordinate, pairs as one loop over all of them.
class FfmCase final : public Case {
 public:
  explicit FfmCase(const Shape& shape) : s_(shape), data_(shape) {}
  std::string name() const override { return shape_name("ffm.fit", s_); }
  void prepare() override {
    first_.resize(size());
    last_.resize(size());
    linear_.resize(static_cast<size_t>(s_.features));
    predictions_.resize(static_cast<size_t>(s_.n));
  }

  Status call(const RunContext& context) override {
    std::unique_ptr<Ffm> model;
    const FfmOptions options{s_.features, s_.fields, s_.k,      kRate,     kAccumulator,
                             s_.l2,       s_.l2 / 2, !s_.plain, !s_.plain, 7};
    if (Status status = Ffm::create(options, &model); !status.ok()) return status;
    std::vector<float> ignored(static_cast<size_t>(s_.features));
    double intercept = 0;
    model->weights(&intercept, ignored.data(), first_.data());
    FfmFitArgs args;
    args.rows = data_.rows(s_);
    args.targets = data_.targets(s_);
    args.epochs = kEpochs;
    args.shuffle = false;
    args.train_loss = losses_;
    FfmFitResult result;
    if (Status status = model->fit(args, context, &result); !status.ok()) return status;
    model->weights(&intercept_, linear_.data(), last_.data());
    return model->predict(data_.rows(s_), data_.targets(s_).offset, context, predictions_.data());
  }

  std::string verify() override {
    Reference r;
    r.w.assign(first_.begin(), first_.end());
    r.g.assign(first_.size(), kAccumulator);
    r.linear.assign(linear_.size(), 0.0);
    r.linear_g.assign(linear_.size(), kAccumulator);
    double s = 0, t = 0, shift = 0;
    for (size_t i = 0; i < data_.successes.size(); ++i) {
      s += data_.weights[i] * data_.successes[i];
      t += data_.weights[i] * data_.trials[i];
      shift += data_.weights[i] * data_.trials[i] * data_.offset[i];
    }
    if (!s_.plain) r.intercept = std::log((s + 0.5) / (t - s + 0.5)) - shift / t;
    char text[160];
    for (int epoch = 0; epoch < kEpochs; ++epoch) {
      double loss = 0;
      for (int64_t row = 0; row < s_.n; ++row) loss += learn(r, row);
      if (!(std::fabs(loss / t - losses_[epoch]) <= kTolerance)) {
        std::snprintf(text, sizeof text, "loss of epoch %d: %.9g, not %.9g", epoch, losses_[epoch], loss / t);
        return text;
      }
    }
    for (size_t i = 0; i < last_.size(); ++i) {
      if (!(std::fabs(last_[i] - r.w[i]) <= kTolerance)) {
        std::snprintf(text, sizeof text, "weight %zu: %.9g, not %.9g", i, static_cast<double>(last_[i]), r.w[i]);
        return text;
      }
    }
    for (size_t i = 0; i < linear_.size(); ++i) {
      if (!(std::fabs(linear_[i] - r.linear[i]) <= kTolerance)) return "a linear weight differs";
    }
    if (!(std::fabs(intercept_ - r.intercept) <= kTolerance)) return "the intercept differs";
    for (int64_t row = 0; row < s_.n; ++row) {
      const double p = static_cast<double>(sigmoid(predictor(r, row)));
      if (!(std::fabs(p - predictions_[static_cast<size_t>(row)]) <= kTolerance)) return "a prediction differs";
    }
    return {};
  }

  double multiply_adds() const override {
    const double pairs = 0.5 * s_.fields * (s_.fields - 1);
    return s_.n > 10000 ? static_cast<double>(s_.n) * pairs * s_.k * 9 * kEpochs : 0;
  }

 private:
  static constexpr int kEpochs = 3;
  static constexpr double kRate = 0.15;
  static constexpr double kAccumulator = 0.5;
  // Float weights moved some hundred times each by steps rounded to 2⁻²⁴ of them.
  static constexpr double kTolerance = 2e-4;

  struct Reference {
    std::vector<double> w, g, linear, linear_g;
    double intercept = 0, intercept_g = 1;
  };

  size_t size() const {
    return static_cast<size_t>(s_.features) * static_cast<size_t>(s_.fields) * static_cast<size_t>(s_.k);
  }
  size_t slot(int64_t feature, int64_t field) const {
    return (static_cast<size_t>(feature) * static_cast<size_t>(s_.fields) + static_cast<size_t>(field)) *
           static_cast<size_t>(s_.k);
  }

  template <typename Body>
  void for_pairs(int64_t row, Body&& body) const {
    const size_t begin = static_cast<size_t>(data_.indptr[static_cast<size_t>(row)]);
    const size_t end = static_cast<size_t>(data_.indptr[static_cast<size_t>(row) + 1]);
    const double scale = scale_of(row);
    for (size_t a = begin; a < end; ++a) {
      for (size_t b = a + 1; b < end; ++b) {
        body(slot(data_.indices[a], data_.fields[b]), slot(data_.indices[b], data_.fields[a]),
             data_.value(s_, static_cast<int64_t>(a)) * data_.value(s_, static_cast<int64_t>(b)) * scale * scale);
      }
    }
  }

  double scale_of(int64_t row) const {
    if (s_.plain) return 1;
    double square = 0;
    for (int64_t e = data_.indptr[static_cast<size_t>(row)]; e < data_.indptr[static_cast<size_t>(row) + 1]; ++e) {
      square += data_.value(s_, e) * data_.value(s_, e);
    }
    return square > 0 ? 1 / std::sqrt(square) : 0;
  }

  double predictor(const Reference& r, int64_t row) const {
    double eta = data_.offset[static_cast<size_t>(row)] + r.intercept;
    for (int64_t e = data_.indptr[static_cast<size_t>(row)]; e < data_.indptr[static_cast<size_t>(row) + 1]; ++e) {
      eta += r.linear[static_cast<size_t>(data_.indices[static_cast<size_t>(e)])] * data_.value(s_, e) * scale_of(row);
    }
    for_pairs(row, [&](size_t a, size_t b, double v) {
      for (size_t d = 0; d < static_cast<size_t>(s_.k); ++d) eta += r.w[a + d] * r.w[b + d] * v;
    });
    return eta;
  }

  double learn(Reference& r, int64_t row) const {
    const size_t at = static_cast<size_t>(row);
    const double eta = predictor(r, row);
    const double s = data_.successes[at];
    const double t = data_.trials[at];
    const double slope = data_.weights[at] * (t / (1 + std::exp(-eta)) - s);
    if (data_.weights[at] * t == 0) return 0;
    const auto step = [&](double& w, double& g, double by) {
      g += by * by;
      w -= kRate * by / std::sqrt(g);
    };
    if (!s_.plain) {
      step(r.intercept, r.intercept_g, slope);
      for (int64_t e = data_.indptr[at]; e < data_.indptr[at + 1]; ++e) {
        const size_t j = static_cast<size_t>(data_.indices[static_cast<size_t>(e)]);
        step(r.linear[j], r.linear_g[j], s_.l2 / 2 * r.linear[j] + slope * data_.value(s_, e) * scale_of(row));
      }
    }
    for_pairs(row, [&](size_t a, size_t b, double v) {
      for (size_t d = 0; d < static_cast<size_t>(s_.k); ++d) {
        const double wa = r.w[a + d];
        const double wb = r.w[b + d];
        if (a == b) {  // a feature twice in its own field: moved once
          step(r.w[a + d], r.g[a + d], s_.l2 * wa + slope * v * wa);
          continue;
        }
        step(r.w[a + d], r.g[a + d], s_.l2 * wa + slope * v * wb);
        step(r.w[b + d], r.g[b + d], s_.l2 * wb + slope * v * wa);
      }
    });
    return data_.weights[at] * (t * std::log1p(std::exp(eta)) - s * eta);
  }

  Shape s_;
  Data data_;
  std::vector<float> first_, last_, linear_;
  std::vector<double> predictions_;
  double losses_[kEpochs] = {};
  double intercept_ = 0;
};

// The conditions that a minimum of the elastic net meets, in long double.
class GlmSparseCase final : public Case {
 public:
  explicit GlmSparseCase(const Shape& shape) : s_(shape), data_(shape) {}
  std::string name() const override { return shape_name("glm.sparse", s_); }
  void prepare() override { coefficients_.assign(static_cast<size_t>(s_.features), 9); }

  Status call(const RunContext& context) override {
    GlmSparseArgs args;
    args.rows = data_.rows(s_);
    args.targets = data_.targets(s_);
    args.n_features = s_.features;
    args.l1.all = s_.l1;
    args.l2.all = s_.l2;
    args.intercept = !s_.plain;
    args.tolerance = 1e-13;
    args.coefficients = coefficients_.data();
    return glm_sparse(args, context, &result_);
  }

  std::string verify() override {
    if (!result_.converged) return "did not converge";
    std::vector<long double> gradient(static_cast<size_t>(s_.features)), size(gradient.size());
    long double intercept = 0, intercept_size = 1, log_likelihood = 0;
    for (int64_t row = 0; row < s_.n; ++row) {
      const size_t at = static_cast<size_t>(row);
      long double eta = data_.offset[at] + result_.intercept;
      for (int64_t e = data_.indptr[at]; e < data_.indptr[at + 1]; ++e) {
        eta += static_cast<long double>(coefficients_[static_cast<size_t>(data_.indices[static_cast<size_t>(e)])]) *
               data_.value(s_, e);
      }
      const long double residual = data_.weights[at] * (data_.successes[at] - data_.trials[at] * sigmoid(eta));
      log_likelihood +=
          data_.weights[at] * (data_.successes[at] * eta - data_.trials[at] * std::log(1 + std::exp(eta)));
      intercept += residual;
      intercept_size += std::fabs(residual);
      for (int64_t e = data_.indptr[at]; e < data_.indptr[at + 1]; ++e) {
        const size_t j = static_cast<size_t>(data_.indices[static_cast<size_t>(e)]);
        gradient[j] += residual * data_.value(s_, e);
        size[j] += std::fabs(residual * data_.value(s_, e));
      }
    }
    if (!s_.plain && !(std::fabs(intercept) <= kTolerance * intercept_size))
      return "the intercept is not at its optimum";
    char text[160];
    int64_t n_zero = 0;
    for (size_t j = 0; j < gradient.size(); ++j) {
      const long double beta = coefficients_[j];
      n_zero += beta == 0;
      const long double slack = kTolerance * (size[j] + s_.l1 + 1e-3L);
      const long double g = gradient[j] - s_.l2 * beta;
      const bool good = beta == 0 ? std::fabs(g) <= s_.l1 + slack
                                  : std::fabs(g - std::copysign(static_cast<long double>(s_.l1), beta)) <= slack;
      if (good) continue;
      std::snprintf(text, sizeof text, "feature %zu: coefficient %.6Lg, gradient %.9Lg", j, beta, g);
      return text;
    }
    if (s_.l1 > 0 && n_zero == 0) return "the lasso left nothing out";
    if (s_.l1 > 0 && !(result_.l1_activation <= 1 + 1e-5)) return "the activation exceeds 1";
    if (result_.n_nonzero != s_.features - n_zero) return "the count of coefficients is wrong";
    if (!(std::fabs(log_likelihood - result_.log_likelihood) <= 1e-9L * std::fabs(log_likelihood)))
      return "log-likelihood differs";
    return {};
  }

 private:
  static constexpr long double kTolerance = 2e-6L;
  Shape s_;
  Data data_;
  std::vector<double> coefficients_;
  GlmSparseResult result_;
};

}  // namespace

void add_sparse_cases(Cases& cases, bool for_bench) {
  const auto ftrl = [&](const Shape& shape) { cases.push_back(std::make_unique<FtrlCase>(shape)); };
  const auto ffm = [&](const Shape& shape) { cases.push_back(std::make_unique<FfmCase>(shape)); };
  const auto glm = [&](const Shape& shape) { cases.push_back(std::make_unique<GlmSparseCase>(shape)); };
  if (for_bench) {
    ffm({100000, 20000, 20});
    ffm({100000, 20000, 20, false, false, false, 0, 0, 8});
    ffm({100000, 20000, 20, false, false, false, 0, 0, 16});
    return;
  }
  ftrl({1, 1, 1});
  ftrl({300, 40, 5});
  ftrl({300, 40, 5, true, true, true, 0.3, 0.2});
  ftrl({250, 7, 3, true, false, true, 1.5, 0, 4, true, 3});
  ftrl({5000, 500, 4, false, true, false, 0.5, 1, 4, false, 4});
  ffm({1, 2, 2});
  ffm({400, 30, 5, false, false, false, 0, 2e-5});
  ffm({300, 30, 5, false, true, true, 0, 1e-3, 1, false, 2});
  ffm({300, 25, 4, true, true, true, 0, 1e-3, 6, false, 3});
  ffm({300, 25, 4, true, false, false, 0, 0, 8, false, 4});
  ffm({300, 60, 6, false, false, true, 0, 1e-3, 13, true, 5});
  ffm({200, 60, 6, true, false, false, 0, 1e-3, 40, false, 6});
  glm({200, 30, 4, false, false, false, 1, 0});
  glm({500, 60, 5, true, true, true, 0.5, 0.5, 4, false, 2});
  glm({500, 60, 5, true, false, true, 2, 0, 4, true, 3});
  glm({4000, 300, 6, false, true, false, 0, 1, 4, false, 4});
  glm({10000, 3000, 8, false, false, true, 3, 0.1, 4, false, 5});
}

}  // namespace waggle::conformance
