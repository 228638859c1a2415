// Newton's method with conjugate gradients. The normal matrix ZᵀWZ + Λ is never made: a product with it is one pass
// over the rows, each of which adds up its groups' values and gives them back their share. Groups that do not apply to
// a row point behind the last unknown, where nothing is kept.
#include "cpu/effects_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/cholesky.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kMostGradients = 500;
// Unknowns that are solved for directly inside the preconditioner, and passes over the rows they may cost.
constexpr int64_t kMostDense = 512;
constexpr double kPivotFloor = 1e-14;
// Squared residual at which a step is solved: as far as its quadratic model holds.
constexpr double kStepTolerance = 1e-6;
// Of a trace's solves, whose probes are off by more than that anyway.
constexpr double kTraceTolerance = 1e-5;
constexpr double kSmallestRho = 1e-300;
constexpr double kLongestStep = 3;
// Steps up to this long are near enough to the solution for the curvature found there.
constexpr double kNearStep = 0.5;
constexpr double kLeastCurvature = 0.1;
constexpr double kHighestEta = 30;

// SplitMix64 (Steele, Lea & Flood 2014): signs of probes.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

class Fit {
 public:
  Fit(const EffectsFitArgs& args, const RunContext& context)
      : args_(args),
        context_(context),
        width_(args.n_levels),
        n_columns_(args.columns.cols),
        m_(effects_unknowns(args.levels, args.n_levels, args.columns.cols)) {
    const size_t m = static_cast<size_t>(m_);
    precision_.resize(m);
    believed_.resize(m);
    precision_[0] = 1 / args.base_variance;
    believed_[0] = args.base_mean;
    for (int64_t c = 0; c < n_columns_; ++c) {
      precision_[static_cast<size_t>(1 + c)] = 1 / args.column_variances[c];
      believed_[static_cast<size_t>(1 + c)] = args.column_means[c];
    }
    int64_t at = 1 + n_columns_;
    for (int32_t l = 0; l < width_; ++l) {
      from_.push_back(at);
      const EffectsLevel& level = args.levels[l];
      std::fill_n(precision_.begin() + at, level.size, 1 / level.variance);
      std::fill_n(believed_.begin() + at, level.size, level.mean);
      at += level.size;
    }
    for (int64_t i = 0; i < args.n_rows; ++i) {
      if (args.exposure[i] > 0) rows_.push_back(i);
    }
    unknowns_.resize(rows_.size() * static_cast<size_t>(width_));
    for (size_t r = 0; r < rows_.size(); ++r) {
      for (int32_t l = 0; l < width_; ++l) {
        const int32_t code = args.codes[rows_[r] * width_ + l];
        unknowns_[r * static_cast<size_t>(width_) + static_cast<size_t>(l)] =
            static_cast<uint32_t>(code < 0 ? m_ : from_[static_cast<size_t>(l)] + code);
      }
    }
    weight_.resize(rows_.size());
    observed_.resize(rows_.size());
    for (auto* vector : {&state_, &gradient_, &diagonal_, &step_, &residual_, &direction_, &image_, &half_variance_}) {
      vector->assign(m + 1, 0.0);
    }
    column_sums_.resize(static_cast<size_t>(n_columns_));
    choose_dense();
    if (args.start != nullptr) {
      std::copy_n(args.start, m_, state_.begin());
    } else {
      std::copy_n(believed_.begin(), m_, state_.begin());
    }
  }

  Status run(EffectsFitResult* result) {
    if (args_.mean_rates) linearise(Curvature::kExpected);  // for the variances alone
    double largest = args_.start != nullptr ? 0.0 : kLongestStep;
    for (; result->iterations < args_.max_iterations && !result->converged; ++result->iterations) {
      linearise(largest <= kNearStep ? Curvature::kObserved : Curvature::kExpected);
      // A preconditioner need not be up to date.
      if (result->iterations == 0 || largest > kNearStep) factor();
      if (Status status = solve(gradient_, kStepTolerance, result); !status.ok()) return status;
      largest = 0;
      for (int64_t u = 0; u < m_; ++u) largest = std::max(largest, std::fabs(step_[static_cast<size_t>(u)]));
      const double scale = largest > kLongestStep ? kLongestStep / largest : 1;
      for (int64_t u = 0; u < m_; ++u) state_[static_cast<size_t>(u)] += scale * step_[static_cast<size_t>(u)];
      result->converged = largest <= args_.tolerance;
    }
    linearise(Curvature::kExpected);
    std::copy_n(state_.begin(), m_, args_.state);
    for (int64_t u = 0; u < m_; ++u) {
      args_.information[u] = diagonal_[static_cast<size_t>(u)] - precision_[static_cast<size_t>(u)];
    }
    return args_.traces == nullptr ? Status() : trace(result);
  }

 private:
  const double* columns(size_t r) const { return args_.columns.row(rows_[r]); }

  // Row r of Z times x.
  double along(size_t r, const double* x) const {
    double sum = x[0];
    const uint32_t* own = unknowns_.data() + r * static_cast<size_t>(width_);
    for (int32_t l = 0; l < width_; ++l) sum += x[own[l]];
    if (n_columns_ > 0) {
      const double* column = columns(r);
      for (int64_t c = 0; c < n_columns_; ++c) sum += x[1 + c] * column[c];
    }
    return sum;
  }

  // out += Zᵀ·value of row r; columns and base are kept apart until `close`.
  void give(size_t r, double value, double* out) {
    base_sum_ += value;
    const uint32_t* own = unknowns_.data() + r * static_cast<size_t>(width_);
    for (int32_t l = 0; l < width_; ++l) out[own[l]] += value;
    if (n_columns_ > 0) {
      const double* column = columns(r);
      for (int64_t c = 0; c < n_columns_; ++c) column_sums_[static_cast<size_t>(c)] += value * column[c];
    }
  }

  void open(std::vector<double>& out) {
    std::fill(out.begin(), out.end(), 0.0);
    base_sum_ = 0;
    std::fill(column_sums_.begin(), column_sums_.end(), 0.0);
  }

  void close(std::vector<double>& out) const {
    out[0] = base_sum_;
    std::copy(column_sums_.begin(), column_sums_.end(), out.begin() + 1);
    out[static_cast<size_t>(m_)] = 0;
  }

  // Of the quasi-likelihood: what is expected of it (Fisher's scoring) or what it has here (Newton's method).
  enum class Curvature { kExpected, kObserved };

  // Weights, gradient and diagonal of the normal matrix at the present state.
  void linearise(Curvature curvature) {
    open(gradient_);
    for (size_t r = 0; r < rows_.size(); ++r) {
      const int64_t i = rows_[r];
      const double offset = args_.offset != nullptr ? args_.offset[i] : 0.0;
      const double doubt = args_.mean_rates ? along(r, half_variance_.data()) : 0.0;
      const double eta = std::min(along(r, state_.data()) + doubt + offset, kHighestEta);
      const bool log_link = args_.link == EffectsLink::kLog;
      const double rate = log_link ? std::exp(eta) : 1 / (1 + std::exp(-eta));
      const double mean = args_.exposure[i] * rate;
      const double variance = log_link ? mean : mean * (1 - rate);
      // Quasi-likelihood: counting noise plus the row's own shock.
      const double shared = 1 + args_.dispersion * variance;
      const double residual = args_.successes[i] - mean;
      weight_[r] = variance / shared;
      give(r, residual / shared, gradient_.data());
      // −d(residual / shared)/dη, kept positive: for a logit it need not be.
      const double slope = log_link ? variance : variance * (1 - 2 * rate);
      observed_[r] =
          std::max(weight_[r] + args_.dispersion * slope * residual / (shared * shared), kLeastCurvature * weight_[r]);
    }
    close(gradient_);
    for (int64_t at = 0; at < m_; ++at) {
      const size_t u = static_cast<size_t>(at);
      gradient_[u] -= precision_[u] * (state_[u] - believed_[u]);
    }
    weigh();
    if (args_.mean_rates) {
      for (int64_t u = 1 + n_columns_; u < m_; ++u)
        half_variance_[static_cast<size_t>(u)] = 0.5 / diagonal_[static_cast<size_t>(u)];
    }
    if (curvature == Curvature::kObserved) {
      weight_.swap(observed_);
      weigh();
    }
  }

  // Diagonal of the normal matrix.
  void weigh() {
    open(diagonal_);
    for (size_t r = 0; r < rows_.size(); ++r) {
      base_sum_ += weight_[r];
      const uint32_t* own = unknowns_.data() + r * static_cast<size_t>(width_);
      for (int32_t l = 0; l < width_; ++l) diagonal_[own[l]] += weight_[r];
      if (n_columns_ > 0) {
        const double* column = columns(r);
        for (int64_t c = 0; c < n_columns_; ++c) {
          column_sums_[static_cast<size_t>(c)] += weight_[r] * column[c] * column[c];
        }
      }
    }
    close(diagonal_);
    for (int64_t u = 0; u < m_; ++u) diagonal_[static_cast<size_t>(u)] += precision_[static_cast<size_t>(u)];
  }

  // Base, columns and the smallest levels: what many rows share. Between these the rows hardly tell: a base and two
  // audiences of it differ by what is believed alone, and conjugate gradients would take hundreds of steps to see that.
  void choose_dense() {
    std::vector<int32_t> by_size(static_cast<size_t>(width_));
    std::iota(by_size.begin(), by_size.end(), 0);
    std::stable_sort(by_size.begin(), by_size.end(),
                     [&](int32_t a, int32_t b) { return args_.levels[a].size < args_.levels[b].size; });
    for (int64_t u = 0; u <= n_columns_; ++u) dense_.push_back(u);
    for (const int32_t l : by_size) {
      const int64_t size = args_.levels[l].size;
      if (static_cast<int64_t>(dense_.size()) + size > kMostDense) break;
      dense_levels_.push_back(l);
      dense_from_.push_back(static_cast<int64_t>(dense_.size()) - from_[static_cast<size_t>(l)]);
      for (int64_t g = 0; g < size; ++g) dense_.push_back(from_[static_cast<size_t>(l)] + g);
    }
    factor_.resize(dense_.size() * dense_.size());
    dense_right_.resize(dense_.size());
  }

  // Their own part of the normal matrix, factored.
  void factor() {
    const int64_t n = static_cast<int64_t>(dense_.size());
    std::fill(factor_.begin(), factor_.end(), 0.0);
    std::vector<int64_t> places;
    std::vector<double> values;
    for (size_t r = 0; r < rows_.size(); ++r) {
      places.clear();
      values.clear();
      places.push_back(0);
      values.push_back(1);
      for (int64_t c = 0; c < n_columns_; ++c) {
        places.push_back(1 + c);
        values.push_back(columns(r)[c]);
      }
      for (size_t d = 0; d < dense_levels_.size(); ++d) {
        const uint32_t u = unknowns_[r * static_cast<size_t>(width_) + static_cast<size_t>(dense_levels_[d])];
        if (u == static_cast<uint32_t>(m_)) continue;
        places.push_back(dense_from_[d] + u);
        values.push_back(1);
      }
      for (size_t a = 0; a < places.size(); ++a) {
        double* row = factor_.data() + places[a] * n;
        const double value = weight_[r] * values[a];
        for (size_t b = 0; b <= a; ++b) row[places[b]] += value * values[b];
      }
    }
    for (int64_t d = 0; d < n; ++d)
      factor_[static_cast<size_t>(d * n + d)] += precision_[static_cast<size_t>(dense_[static_cast<size_t>(d)])];
    factored_ = cholesky_factor(factor_.data(), n, kPivotFloor) < 0;
  }

  // out = M⁻¹·residual
  void precondition(std::vector<double>& out) {
    const size_t m = static_cast<size_t>(m_);
    for (size_t u = 0; u < m; ++u) out[u] = residual_[u] / diagonal_[u];
    if (!factored_) return;
    for (size_t d = 0; d < dense_.size(); ++d) dense_right_[d] = residual_[static_cast<size_t>(dense_[d])];
    cholesky_solve(factor_.data(), static_cast<int64_t>(dense_.size()), dense_right_.data());
    for (size_t d = 0; d < dense_.size(); ++d) out[static_cast<size_t>(dense_[d])] = dense_right_[d];
  }

  // step = (ZᵀWZ + Λ)⁻¹·right
  Status solve(const std::vector<double>& right, double tolerance, EffectsFitResult* result) {
    const size_t m = static_cast<size_t>(m_);
    std::fill(step_.begin(), step_.end(), 0.0);
    residual_ = right;
    double rho = 0;
    precondition(direction_);
    for (size_t u = 0; u < m; ++u) rho += residual_[u] * direction_[u];
    const double enough = rho * tolerance;
    for (int32_t k = 0; k < kMostGradients && rho > enough && rho > kSmallestRho; ++k) {
      if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
      ++result->products;
      open(image_);
      for (size_t r = 0; r < rows_.size(); ++r) give(r, along(r, direction_.data()) * weight_[r], image_.data());
      close(image_);
      double curvature = 0;
      for (size_t u = 0; u < m; ++u) {
        image_[u] += precision_[u] * direction_[u];
        curvature += direction_[u] * image_[u];
      }
      const double length = rho / curvature;
      double next = 0;
      for (size_t u = 0; u < m; ++u) {
        step_[u] += length * direction_[u];
        residual_[u] -= length * image_[u];
      }
      precondition(image_);
      for (size_t u = 0; u < m; ++u) next += residual_[u] * image_[u];
      const double turn = next / rho;
      for (size_t u = 0; u < m; ++u) direction_[u] = image_[u] + turn * direction_[u];
      rho = next;
    }
    return {};
  }

  // E[zᵀ·C·z] over random signs z on one level's groups is the trace of that level's block of C.
  Status trace(EffectsFitResult* result) {
    std::vector<double> probe(static_cast<size_t>(m_) + 1, 0.0);
    for (int32_t l = 0; l < width_; ++l) {
      const size_t from = static_cast<size_t>(from_[static_cast<size_t>(l)]);
      const size_t to = from + static_cast<size_t>(args_.levels[l].size);
      double sum = 0;
      for (int32_t k = 0; k < args_.trace_probes; ++k) {
        for (size_t u = from; u < to; ++u) {
          const uint64_t bits = mix((static_cast<uint64_t>(k) << 40) + u);
          const bool has_rows = args_.information[u] > 0;
          probe[u] = has_rows ? ((bits >> 63) != 0 ? 1.0 : -1.0) : 0.0;
        }
        if (Status status = solve(probe, kTraceTolerance, result); !status.ok()) return status;
        for (size_t u = from; u < to; ++u) sum += probe[u] * step_[u];
      }
      std::fill(probe.begin() + static_cast<int64_t>(from), probe.begin() + static_cast<int64_t>(to), 0.0);
      args_.traces[l] = sum / args_.trace_probes;
    }
    return {};
  }

  const EffectsFitArgs& args_;
  const RunContext& context_;
  const int32_t width_;
  const int64_t n_columns_;
  const int64_t m_;
  std::vector<double> precision_, believed_;  // [m]
  std::vector<int64_t> from_;                 // [n_levels] first unknown
  std::vector<int64_t> rows_;                 // with exposure
  std::vector<uint32_t> unknowns_;            // [rows × n_levels]
  std::vector<double> weight_, observed_;     // [rows] curvature: expected, at the data
  // [m + 1], the last for groups that do not apply
  std::vector<double> state_, gradient_, diagonal_, step_, residual_, direction_, image_, half_variance_;
  std::vector<double> column_sums_;
  std::vector<int64_t> dense_;         // unknowns of the dense block, ascending within a level
  std::vector<int32_t> dense_levels_;  // whose groups are in it
  std::vector<int64_t> dense_from_;    // their place in the block minus their first unknown
  std::vector<double> factor_;         // [dense × dense]
  std::vector<double> dense_right_;
  bool factored_ = false;
  double base_sum_ = 0;
};

}  // namespace

Status effects_fit(const EffectsFitArgs& args, const RunContext& context, EffectsFitResult* result) {
  return Fit(args, context).run(result);
}

}  // namespace waggle::cpu
