#include <cmath>
#include <cstdio>

#include "test/conformance/case.hpp"
#include "waggle/ops/effects_fit.hpp"

namespace waggle::conformance {

namespace {

struct Shape {
  EffectsLink link;
  int64_t n_rows;
  std::vector<int64_t> sizes;  // of levels
  int64_t n_columns = 0;
  double dispersion = 0;
  int32_t probes = 0;
  bool mean_rates = false;
  double absent = 0;  // share of rows without exposure, and of groups that do not apply
  uint64_t seed = 1;
};

// The largest relative size a score equation may have at the solution, against the sum of its terms' magnitudes.
constexpr double kScoreTolerance = 1e-5;
// Half variances are those of one step before: a part of the tolerance.
constexpr double kInformationTolerance = 1e-7;
// Two fits that started apart, on the scale of η.
constexpr double kStartTolerance = 1e-6;
// Of a trace over hundreds of probes: groups whose errors go together make it noisy.
constexpr double kTraceTolerance = 0.15;

class EffectsFitCase final : public Case {
 public:
  explicit EffectsFitCase(Shape shape) : s_(std::move(shape)) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text, "effects.fit %s n=%lld levels=%zu columns=%lld dispersion=%g%s%s seed=%llu",
                  s_.link == EffectsLink::kLog ? "log" : "logit", static_cast<long long>(s_.n_rows), s_.sizes.size(),
                  static_cast<long long>(s_.n_columns), s_.dispersion, s_.mean_rates ? " mean" : "",
                  s_.probes > 0 ? " traces" : "", static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    std::vector<std::vector<double>> truth;
    for (const int64_t size : s_.sizes) {
      levels_.push_back({size, -0.1, 0.2});
      truth.emplace_back();
      for (int64_t g = 0; g < size; ++g) truth.back().push_back(1.5 * (random.uniform() - 0.5));
    }
    const size_t width = s_.sizes.size();
    for (int64_t i = 0; i < s_.n_rows; ++i) {
      offset_.push_back(random.uniform() - 0.5);
      double eta = (s_.link == EffectsLink::kLog ? -5 : -0.5) + offset_.back();
      for (size_t l = 0; l < width; ++l) {
        const int64_t group = random.below(s_.sizes[l]);
        const bool applies = random.uniform() >= s_.absent;
        codes_.push_back(applies ? static_cast<int32_t>(group) : -1);
        if (applies) eta += truth[l][static_cast<size_t>(group)];
      }
      for (int64_t c = 0; c < s_.n_columns; ++c) {
        columns_.push_back(2 * random.uniform() - 1);
        eta += 0.3 * columns_.back();
      }
      const bool seen = random.uniform() >= s_.absent;
      if (s_.link == EffectsLink::kLog) {
        exposure_.push_back(seen ? static_cast<double>(200 + random.below(20000)) : 0.0);
        const double mean = exposure_.back() * std::exp(eta);
        successes_.push_back(std::floor(mean * (0.5 + random.uniform())));
      } else {
        exposure_.push_back(seen ? 1.0 : 0.0);
        successes_.push_back(seen && random.uniform() < 1 / (1 + std::exp(-eta)) ? 1.0 : 0.0);
      }
    }
    means_.assign(static_cast<size_t>(s_.n_columns), 0.1);
    variances_.assign(static_cast<size_t>(s_.n_columns), 0.5);
    n_unknowns_ = effects_unknowns(levels_.data(), static_cast<int32_t>(width), s_.n_columns);
    state_.assign(static_cast<size_t>(n_unknowns_), 9);
    information_.assign(static_cast<size_t>(n_unknowns_), 9);
    traces_.assign(width, 9);
  }

  Status call(const RunContext& context) override { return effects_fit(args(), context, &result_); }

  std::string verify() override {
    if (!result_.converged) return "did not converge";
    if (std::string wrong = check_score(); !wrong.empty()) return wrong;
    if (s_.probes > 0) {
      if (std::string wrong = check_traces(); !wrong.empty()) return wrong;
    }
    return check_start();
  }

  double multiply_adds() const override {
    return static_cast<double>(result_.products) * static_cast<double>(s_.n_rows) *
           static_cast<double>(2 * (s_.sizes.size() + static_cast<size_t>(s_.n_columns)));
  }
  double bytes() const override {
    return static_cast<double>(result_.products) * static_cast<double>(s_.n_rows) *
           static_cast<double>(4 * s_.sizes.size() + 8 * static_cast<size_t>(s_.n_columns));
  }

 private:
  EffectsFitArgs args() {
    EffectsFitArgs a;
    a.link = s_.link;
    a.n_rows = s_.n_rows;
    a.successes = successes_.data();
    a.exposure = exposure_.data();
    a.offset = offset_.data();
    a.levels = levels_.data();
    a.n_levels = static_cast<int32_t>(levels_.size());
    a.codes = codes_.data();
    a.columns = {columns_.data(), s_.n_rows, s_.n_columns};
    a.column_means = means_.data();
    a.column_variances = variances_.data();
    a.base_mean = -2;
    a.base_variance = 1;
    a.dispersion = s_.dispersion;
    a.mean_rates = s_.mean_rates;
    a.state = state_.data();
    a.information = information_.data();
    a.trace_probes = s_.probes;
    a.traces = s_.probes > 0 ? traces_.data() : nullptr;
    return a;
  }

  // Unknowns that row i adds up, and how often each counts.
  template <typename Visit>
  void visit(int64_t i, Visit&& see) const {
    see(int64_t{0}, 1.0);
    for (int64_t c = 0; c < s_.n_columns; ++c) see(1 + c, columns_[static_cast<size_t>(i * s_.n_columns + c)]);
    int64_t from = 1 + s_.n_columns;
    for (size_t l = 0; l < levels_.size(); ++l) {
      const int32_t code = codes_[static_cast<size_t>(i) * levels_.size() + l];
      if (code >= 0) see(from + code, 1.0);
      from += levels_[l].size;
    }
  }

  double mean_of(int64_t u) const {
    return u == 0 ? -2 : u <= s_.n_columns ? means_[static_cast<size_t>(u - 1)] : levels_[0].mean;
  }
  double precision_of(int64_t u) const {
    return u == 0 ? 1 : u <= s_.n_columns ? 1 / variances_[static_cast<size_t>(u - 1)] : 1 / levels_[0].variance;
  }

  // What a row is expected to bring, and its variance by counting.
  void expect(int64_t i, long double* mean, long double* variance) const {
    long double eta = offset_[static_cast<size_t>(i)];
    visit(i, [&](int64_t u, double x) { eta += static_cast<long double>(state_[static_cast<size_t>(u)]) * x; });
    if (s_.mean_rates) {
      visit(i, [&](int64_t u, double) {
        if (u > s_.n_columns)
          eta += 0.5L / (information_[static_cast<size_t>(u)] + static_cast<long double>(precision_of(u)));
      });
    }
    const bool log_link = s_.link == EffectsLink::kLog;
    const long double rate = log_link ? std::exp(eta) : 1 / (1 + std::exp(-eta));
    *mean = exposure_[static_cast<size_t>(i)] * rate;
    *variance = log_link ? *mean : *mean * (1 - rate);
  }

  // Zᵀ·(successes − mean)/(1 + dispersion · variance) − Λ·(state − believed) = 0.
  std::string check_score() const {
    const size_t m = static_cast<size_t>(n_unknowns_);
    std::vector<long double> score(m), magnitude(m), information(m);
    for (int64_t i = 0; i < s_.n_rows; ++i) {
      if (exposure_[static_cast<size_t>(i)] == 0) continue;
      long double mean = 0;
      long double variance = 0;
      expect(i, &mean, &variance);
      const long double shared = 1 + s_.dispersion * variance;
      const long double residual = (successes_[static_cast<size_t>(i)] - mean) / shared;
      visit(i, [&](int64_t u, double x) {
        score[static_cast<size_t>(u)] += residual * x;
        magnitude[static_cast<size_t>(u)] += std::fabs(residual * x);
        information[static_cast<size_t>(u)] += variance / shared * x * x;
      });
    }
    char text[200];
    for (int64_t u = 0; u < n_unknowns_; ++u) {
      const size_t at = static_cast<size_t>(u);
      const long double pull = precision_of(u) * (state_[at] - static_cast<long double>(mean_of(u)));
      score[at] -= pull;
      magnitude[at] += std::fabs(pull) + precision_of(u);
      if (!(std::fabs(score[at]) <= kScoreTolerance * magnitude[at])) {
        std::snprintf(text, sizeof text, "score equation %lld is off by %.3Lg of %.3Lg", static_cast<long long>(u),
                      score[at], magnitude[at]);
        return text;
      }
      const long double own = information_[at];
      if (!(std::fabs(own - information[at]) <= kInformationTolerance * (1 + information[at]))) {
        std::snprintf(text, sizeof text, "information %lld is %.9Lg, not %.9Lg", static_cast<long long>(u), own,
                      information[at]);
        return text;
      }
    }
    return {};
  }

  // Against the inverse of the whole normal matrix, by Gauss and Jordan.
  std::string check_traces() const {
    const size_t m = static_cast<size_t>(n_unknowns_);
    std::vector<long double> a(m * 2 * m);
    for (int64_t i = 0; i < s_.n_rows; ++i) {
      if (exposure_[static_cast<size_t>(i)] == 0) continue;
      long double mean = 0;
      long double variance = 0;
      expect(i, &mean, &variance);
      const long double weight = variance / (1 + s_.dispersion * variance);
      visit(i, [&](int64_t u, double x) {
        visit(i, [&](int64_t v, double y) {
          a[static_cast<size_t>(u) * 2 * m + static_cast<size_t>(v)] += weight * x * y;
        });
      });
    }
    for (size_t u = 0; u < m; ++u) {
      a[u * 2 * m + u] += precision_of(static_cast<int64_t>(u));
      a[u * 2 * m + m + u] = 1;
    }
    for (size_t k = 0; k < m; ++k) {
      const long double pivot = a[k * 2 * m + k];
      for (size_t j = 0; j < 2 * m; ++j) a[k * 2 * m + j] /= pivot;
      for (size_t i = 0; i < m; ++i) {
        const long double factor = a[i * 2 * m + k];
        if (i == k || factor == 0) continue;
        for (size_t j = 0; j < 2 * m; ++j) a[i * 2 * m + j] -= factor * a[k * 2 * m + j];
      }
    }
    size_t from = static_cast<size_t>(1 + s_.n_columns);
    for (size_t l = 0; l < levels_.size(); ++l) {
      long double trace = 0;
      for (size_t g = 0; g < static_cast<size_t>(levels_[l].size); ++g) {
        if (information_[from + g] > 0) trace += a[(from + g) * 2 * m + m + from + g];
      }
      from += static_cast<size_t>(levels_[l].size);
      if (!(std::fabs(traces_[l] - trace) <= kTraceTolerance * trace)) {
        char text[200];
        std::snprintf(text, sizeof text, "trace of level %zu is %.6g, not %.6Lg", l, traces_[l], trace);
        return text;
      }
    }
    return {};
  }

  std::string check_start() {
    const std::vector<double> first = state_;
    std::vector<double> start = first;
    Random random(s_.seed + 1);
    for (double& value : start) value += random.uniform() - 0.5;
    EffectsFitArgs again = args();
    again.start = start.data();
    again.traces = nullptr;
    EffectsFitResult result;
    if (!effects_fit(again, RunContext{}, &result).ok() || !result.converged) return "does not converge from elsewhere";
    for (size_t u = 0; u < first.size(); ++u) {
      if (!(std::fabs(state_[u] - first[u]) <= kStartTolerance)) return "another start leads elsewhere";
    }
    return {};
  }

  Shape s_;
  int64_t n_unknowns_ = 0;
  std::vector<EffectsLevel> levels_;
  std::vector<double> successes_, exposure_, offset_, columns_, means_, variances_;
  std::vector<int32_t> codes_;
  std::vector<double> state_, information_, traces_;
  EffectsFitResult result_;
};

}  // namespace

void add_effects_cases(Cases& cases, bool for_bench) {
  const auto add = [&](Shape shape) { cases.push_back(std::make_unique<EffectsFitCase>(std::move(shape))); };
  if (for_bench) {
    add({EffectsLink::kLog, 25000, {2, 40, 40, 200, 2000, 600, 8000}, 0, 0.15});
    return;
  }
  add({EffectsLink::kLog, 0, {3}});
  add({EffectsLink::kLog, 1, {1}});
  add({EffectsLink::kLog, 50, {}, 2});
  add({EffectsLink::kLog, 300, {7, 30}, 0, 0.1, 400, false, 0, 2});
  add({EffectsLink::kLogit, 2000, {40, 5}, 3, 0, 400, false, 0.1, 3});
  add({EffectsLink::kLog, 1001, {2, 40, 300, 900}, 1, 0.15, 0, true, 0.2, 4});
  add({EffectsLink::kLogit, 3001, {2, 40, 600}, 0, 0.2, 0, false, 0, 5});
  add({EffectsLink::kLog, 5003, {2, 40, 300, 900, 3000}, 0, 0.3, 0, true, 0.05, 7});
  add({EffectsLink::kLog, 20011, {2, 3, 40, 41, 200, 1900, 7000, 9000}, 0, 0.15, 0, false, 0.01, 6});
}

}  // namespace waggle::conformance
