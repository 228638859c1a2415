#include <cmath>
#include <cstdio>
#include <cstring>

#include "cpu/glm_fit.hpp"
#include "cpu/table.hpp"
#include "test/conformance/case.hpp"
#include "waggle/ops/glm_fit.hpp"

namespace waggle::conformance {

namespace {

struct Shape {
  int64_t n;
  int64_t p;
  double l2 = 0;
  bool weights = false;
  bool offset = false;
  bool intercept = true;
  bool standardize = true;
  bool start = false;
  double spread = 1.0;  // feature scales run from 1 to this
  uint64_t seed = 1;
  double l1 = 0;
};

// The largest relative size a score equation may have at the solution, against the sum of its terms' magnitudes.
constexpr double kGradientTolerance = 1e-9;
constexpr double kValueTolerance = 1e-8;
// Coordinate descent stops by what a step is worth, which is the square of what it is long.
constexpr double kLassoTolerance = 1e-7;

class GlmFitCase final : public Case {
 public:
  explicit GlmFitCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text, "glm.fit n=%lld p=%lld l1=%g l2=%g%s%s%s%s%s spread=%g seed=%llu",
                  static_cast<long long>(s_.n), static_cast<long long>(s_.p), s_.l1, s_.l2,
                  s_.weights ? " weights" : "", s_.offset ? " offset" : "", s_.intercept ? "" : " no-intercept",
                  s_.standardize ? "" : " raw", s_.start ? " start" : "", s_.spread,
                  static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    const size_t n = static_cast<size_t>(s_.n);
    const size_t p = static_cast<size_t>(s_.p);
    x_.resize(n * p);
    successes_.resize(n);
    trials_.resize(n);
    weights_.resize(n);
    offset_.resize(n);
    l1_.assign(p, s_.l1);
    l2_.assign(p, s_.l2);
    for (size_t i = 0; i < n; ++i) {
      double eta = -1.2;
      for (size_t j = 0; j < p; ++j) {
        const double scale = p > 1 ? std::pow(s_.spread, static_cast<double>(j) / static_cast<double>(p - 1)) : 1.0;
        const double value = random.uniform() - 0.4 + 0.1 * static_cast<double>(j % 3);
        x_[i * p + j] = static_cast<float>(value * scale);
        eta += value * (static_cast<double>(j % 5) - 2.0) * 0.4;
      }
      offset_[i] = s_.offset ? random.uniform() - 0.5 : 0.0;
      eta += offset_[i];
      trials_[i] = static_cast<double>(random.below(6));
      weights_[i] = s_.weights ? random.uniform() * 2 : 1.0;
      const double probability = 1 / (1 + std::exp(-eta));
      successes_[i] = 0;
      for (int t = 0; t < static_cast<int>(trials_[i]); ++t) successes_[i] += random.uniform() < probability ? 1 : 0;
    }
    start_.assign(p + 1, 0.1);
    coefficients_.assign(p, 9);
    errors_.assign(p, 9);
  }

  Status call(const RunContext& context) override { return glm_fit(args(coefficients_, errors_), context, &result_); }

  std::string verify() override {
    if (!result_.converged) return "did not converge";
    char text[200];
    const size_t n = static_cast<size_t>(s_.n);
    const size_t p = static_cast<size_t>(s_.p);
    // Score equations in long double: Σ w x (s − tμ) − λ σ² β = 0 for each coefficient, Σ w (s − tμ) = 0.
    std::vector<long double> score(p + 1), magnitude(p + 1), scale(p, 1.0L);
    if (s_.standardize) standard_deviations(scale);
    long double log_likelihood = 0;
    for (size_t i = 0; i < n; ++i) {
      long double eta = result_.intercept + offset_[i];
      for (size_t j = 0; j < p; ++j) eta += static_cast<long double>(coefficients_[j]) * x_[i * p + j];
      const long double mean = 1 / (1 + std::exp(-eta));
      const long double residual = weights_[i] * (successes_[i] - trials_[i] * mean);
      for (size_t j = 0; j <= p; ++j) {
        const long double value = j < p ? static_cast<long double>(x_[i * p + j]) : 1.0L;
        score[j] += value * residual;
        magnitude[j] += std::fabs(value * residual);
      }
      log_likelihood += weights_[i] * (successes_[i] * eta - trials_[i] * std::log(1 + std::exp(eta)));
    }
    for (size_t j = 0; j < p; ++j) {
      const long double penalty = l2_[j] * scale[j] * scale[j] * coefficients_[j];
      score[j] -= penalty;
      magnitude[j] += std::fabs(penalty);
    }
    size_t n_zero = 0;
    for (size_t j = 0; j < p + (s_.intercept ? 1 : 0); ++j) {
      if (j < p && s_.l1 > 0) {  // the subgradient of the lasso
        const long double l1 = s_.l1 * scale[j];
        magnitude[j] += l1;
        n_zero += coefficients_[j] == 0;
        if (coefficients_[j] != 0) score[j] -= std::copysign(l1, static_cast<long double>(coefficients_[j]));
        if (coefficients_[j] == 0) score[j] = std::max(std::fabs(score[j]) - l1, 0.0L);
      }
      if (!(std::fabs(score[j]) <= (s_.l1 > 0 ? kLassoTolerance : kGradientTolerance) * magnitude[j])) {
        std::snprintf(text, sizeof text, "score equation %zu is off by %.3Lg of %.3Lg", j, score[j], magnitude[j]);
        return text;
      }
    }
    if (s_.l1 > 0 && (n_zero == 0 || !(result_.l1_activation <= 1 + 1e-6))) return "the lasso is not at its optimum";
    if (!(std::fabs(log_likelihood - result_.log_likelihood) <= kValueTolerance * std::fabs(log_likelihood))) {
      return "log-likelihood differs";
    }
    if (!s_.intercept && result_.intercept != 0) return "an intercept without being asked for one";
    return same_bits_as_scalar();
  }

  double multiply_adds() const override {
    return static_cast<double>(s_.n) * static_cast<double>(s_.p + 1) * static_cast<double>(s_.p + 2) / 2 *
           (result_.iterations + 1);
  }
  double bytes() const override {
    return static_cast<double>(s_.n) * static_cast<double>(s_.p) * 4 * (result_.iterations + 1);
  }

 private:
  GlmFitArgs args(std::vector<double>& coefficients, std::vector<double>& errors) {
    GlmFitArgs a;
    a.x = {x_.data(), s_.n, s_.p};
    a.successes = successes_.data();
    a.trials = trials_.data();
    a.weights = s_.weights ? weights_.data() : nullptr;
    a.offset = s_.offset ? offset_.data() : nullptr;
    a.l1 = s_.l1 > 0 ? l1_.data() : nullptr;
    a.l2 = l2_.data();
    a.intercept = s_.intercept;
    a.standardize = s_.standardize;
    a.start = s_.start ? start_.data() : nullptr;
    a.coefficients = coefficients.data();
    a.standard_errors = errors.data();
    return a;
  }

  void standard_deviations(std::vector<long double>& scale) const {
    const size_t p = static_cast<size_t>(s_.p);
    for (size_t j = 0; j < p; ++j) {
      long double total = 0, sum = 0, squares = 0;
      for (size_t i = 0; i < successes_.size(); ++i) {
        const long double w = static_cast<long double>(weights_[i]) * trials_[i];
        total += w;
        sum += w * x_[i * p + j];
      }
      for (size_t i = 0; i < successes_.size(); ++i) {
        const long double d = x_[i * p + j] - sum / total;
        squares += static_cast<long double>(weights_[i]) * trials_[i] * d * d;
      }
      scale[j] = std::sqrt(squares / total);
    }
  }

  static bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    // Without errors asked for there is no memory to compare.
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
  }

  // On one machine a model must not depend on the instruction set that fitted it, nor on the number of threads.
  std::string same_bits_as_scalar() {
    std::vector<double> coefficients(coefficients_.size()), errors(errors_.size());
    GlmFitResult result;
    RunContext serial;
    serial.parallel = false;
    const GlmFitArgs a = args(coefficients, errors);
    if (!cpu::glm_fit(*cpu::table_for(cpu::Simd::kScalar), a, serial, &result).ok()) return "scalar fit failed";
    if (coefficients != coefficients_ || !same_bits(errors, errors_) || result.intercept != result_.intercept ||
        result.log_likelihood != result_.log_likelihood || result.deviance != result_.deviance) {
      return "differs in bits from the scalar fit on one thread";
    }
    return {};
  }

  Shape s_;
  std::vector<float> x_;
  std::vector<double> successes_, trials_, weights_, offset_, l1_, l2_, start_;
  std::vector<double> coefficients_, errors_;
  GlmFitResult result_;
};

}  // namespace

void add_glm_fit_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<GlmFitCase>(shape)); };
  if (for_bench) {
    add({100000, 10});
    add({100000, 40, 1.0});
    return;
  }
  add({40, 0});
  add({60, 1});
  add({200, 3, 0, false, false, true, true, false, 1, 2});
  add({129, 5, 0.5, true, true, true, true, false, 1, 3});
  add({500, 7, 0, true, false, true, false, false, 100, 4});
  add({500, 7, 2.0, false, true, false, true, false, 1, 5});
  add({500, 7, 2.0, false, true, false, false, true, 1, 6});
  add({3000, 12, 1e-3, true, true, true, true, true, 1e6, 7});
  add({4097, 33, 1.0, false, false, true, true, false, 1, 8});
  add({20011, 17, 0, true, true, true, true, false, 1e3, 9});
  add({400, 9, 0, false, false, true, true, false, 1, 10, 20});
  add({1500, 30, 2, true, true, true, true, true, 1e3, 11, 15});
  add({700, 12, 0.5, true, false, false, false, false, 1, 12, 6});
}

}  // namespace waggle::conformance
