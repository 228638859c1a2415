// Newton's method on the penalised log-likelihood. Rows are cut into chunks whose number depends on the shape
// alone; each chunk's sums land in its own slot and the slots are added in order, so the thread count never
// shows in the result.
#include "cpu/glm_fit.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/cholesky.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kSmallestChunk = 16 * kGlmBlock;
constexpr int64_t kMostChunks = 256;
constexpr int64_t kPartialsBudget = int64_t{256} << 20;  // bytes for all chunks' Hessians
constexpr double kPivotFloor = 1e-11;
constexpr int kMostHalvings = 40;
// Coordinate descent ends when no coordinate lowers the model by this part of the tolerance any more.
constexpr double kDescentPart = 1e-4;
constexpr int kMostSweeps = 100'000;

// x·log(x / y) with 0·log 0 = 0: half a binomial deviance residual.
double x_log_ratio(double x, double y) { return x > 0 ? x * std::log(x / y) : 0.0; }

class Fit {
 public:
  Fit(const Table& table, const GlmFitArgs& args, const RunContext& context)
      : kernels_(table.glm),
        args_(args),
        context_(context),
        n_(args.x.rows),
        p_(args.x.cols),
        m_(args.x.cols + (args.intercept ? 1 : 0)) {
    const int64_t hessian_bytes = m_ * m_ * static_cast<int64_t>(sizeof(double));
    const int64_t affordable =
        std::clamp<int64_t>(kPartialsBudget / std::max<int64_t>(hessian_bytes, 1), 1, kMostChunks);
    const int64_t even = (n_ + affordable - 1) / affordable;
    chunk_rows_ = std::max(kSmallestChunk, (even + kGlmBlock - 1) / kGlmBlock * kGlmBlock);
    n_chunks_ = (n_ + chunk_rows_ - 1) / chunk_rows_;
  }

  Status run(GlmFitResult* result) {
    for (int64_t j = 0; j < p_ && args_.l1 != nullptr; ++j) lasso_ = lasso_ || args_.l1[j] > 0;
    if (Status status = standardize(); !status.ok()) return status;
    if (Status status = set_start(); !status.ok()) return status;
    if (Status status = lasso_ ? iterate_lasso(result) : iterate(result); !status.ok()) return status;
    return finish(result);
  }

 private:
  double weight(int64_t row) const { return args_.weights != nullptr ? args_.weights[row] : 1.0; }

  template <typename Body>
  Status for_chunks(Body&& body) {
    ThreadPool::instance().for_each_chunk(n_chunks_, context_, [&](int64_t chunk, int worker) {
      body(chunk, worker, chunk * chunk_rows_, std::min(n_, (chunk + 1) * chunk_rows_));
    });
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return {};
  }

  // Weighted mean and standard deviation of each feature, in two passes. Also the check of x.
  Status standardize() {
    mean_.assign(static_cast<size_t>(p_), 0.0);
    inverse_scale_.assign(static_cast<size_t>(p_), 1.0);
    varies_.assign(static_cast<size_t>(p_), 1);
    std::atomic<int64_t> bad_row{-1};
    const size_t stride = static_cast<size_t>(p_ + 1);
    std::vector<double> partial(static_cast<size_t>(n_chunks_) * stride, 0.0);
    Status status = for_chunks([&](int64_t chunk, int, int64_t begin, int64_t end) {
      double* sums = partial.data() + static_cast<size_t>(chunk) * stride;
      for (int64_t row = begin; row < end; ++row) {
        const float* x = args_.x.row(row);
        const double w = weight(row) * args_.trials[row];
        float check = 0;
        for (int64_t j = 0; j < p_; ++j) {
          sums[j] += w * static_cast<double>(x[j]);
          check += x[j] - x[j];
        }
        sums[p_] += w;
        if (check != 0) {  // NaN: some x is not finite
          int64_t none = -1;
          bad_row.compare_exchange_strong(none, row);
          return;
        }
      }
    });
    if (!status.ok()) return status;
    if (const int64_t row = bad_row.load(); row >= 0) {
      const float* x = args_.x.row(row);
      int64_t j = 0;
      while (j + 1 < p_ && std::isfinite(x[j])) ++j;
      return fail(Code::kNotFinite, "x is %s at row %lld, feature %lld", std::isnan(x[j]) ? "NaN" : "infinite",
                  static_cast<long long>(row), static_cast<long long>(j));
    }
    std::vector<double> total(stride, 0.0);
    add_up(partial, stride, total.data());
    total_weight_ = total[static_cast<size_t>(p_)];
    if (!(total_weight_ > 0)) return fail(Code::kInvalidArgument, "weights times trials are all zero");
    std::vector<double> center(static_cast<size_t>(p_));
    for (int64_t j = 0; j < p_; ++j) center[static_cast<size_t>(j)] = total[static_cast<size_t>(j)] / total_weight_;

    std::fill(partial.begin(), partial.end(), 0.0);
    status = for_chunks([&](int64_t chunk, int, int64_t begin, int64_t end) {
      double* sums = partial.data() + static_cast<size_t>(chunk) * stride;
      for (int64_t row = begin; row < end; ++row) {
        const float* x = args_.x.row(row);
        const double w = weight(row) * args_.trials[row];
        for (int64_t j = 0; j < p_; ++j) {
          const double d = static_cast<double>(x[j]) - center[static_cast<size_t>(j)];
          sums[j] += w * d * d;
        }
      }
    });
    if (!status.ok()) return status;
    std::fill(total.begin(), total.end(), 0.0);
    add_up(partial, stride, total.data());
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      const double deviation = std::sqrt(total[at] / total_weight_);
      // With an intercept a constant column says nothing; without one, only an all-zero column does.
      const double magnitude = std::fabs(center[at]);
      const bool constant = deviation <= 1e-9 * magnitude || deviation == 0;
      varies_[at] = args_.intercept ? !constant : (deviation > 0 || magnitude > 0);
      if (args_.intercept) mean_[at] = center[at];
      if (args_.standardize && !constant) inverse_scale_[at] = 1.0 / deviation;
    }
    return {};
  }

  void add_up(const std::vector<double>& partial, size_t stride, double* total) const {
    for (int64_t chunk = 0; chunk < n_chunks_; ++chunk) {
      const double* sums = partial.data() + static_cast<size_t>(chunk) * stride;
      for (size_t j = 0; j < stride; ++j) total[j] += sums[j];
    }
  }

  // beta_ holds p standardised coefficients, then the intercept at the feature means. The caller's start is taken
  // only if it is better than none: from a saturated point, where every curvature is 0, Newton goes nowhere.
  Status set_start() {
    beta_ = default_start();
    if (args_.start == nullptr) return {};
    const std::vector<double> given = given_start();
    Point at_default;
    Point at_given;
    if (Status status = evaluate(beta_, false, &at_default); !status.ok()) return status;
    if (Status status = evaluate(given, false, &at_given); !status.ok()) return status;
    if (at_given.objective < at_default.objective) beta_ = given;
    return {};
  }

  std::vector<double> given_start() const {
    std::vector<double> beta(static_cast<size_t>(m_), 0.0);
    double shift = 0;
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      if (varies_[at] == 0) continue;
      beta[at] = args_.start[j] / inverse_scale_[at];
      shift += args_.start[j] * mean_[at];
    }
    if (args_.intercept) beta[static_cast<size_t>(p_)] = args_.start[p_] + shift;
    return beta;
  }

  // Coefficients 0 and the log-odds of the overall rate, less the mean offset.
  std::vector<double> default_start() const {
    std::vector<double> beta(static_cast<size_t>(m_), 0.0);
    if (!args_.intercept) return beta;
    double s = 0;
    double t = 0;
    double offset = 0;
    for (int64_t i = 0; i < n_; ++i) {
      s += weight(i) * args_.successes[i];
      t += weight(i) * args_.trials[i];
      if (args_.offset != nullptr) offset += weight(i) * args_.trials[i] * args_.offset[i];
    }
    const double rate = (s + 0.5) / (t + 1.0);
    beta[static_cast<size_t>(p_)] = std::log(rate / (1.0 - rate)) - offset / t;
    return beta;
  }

  // Row block [begin, end) standardised, feature-major, zero past the end and for features that do not vary.
  void load_block(int64_t begin, int64_t end, double* z) const {
    const int64_t rows = end - begin;
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      double* column = z + j * kGlmBlock;
      if (varies_[at] == 0) {
        std::fill(column, column + kGlmBlock, 0.0);
        continue;
      }
      const float* x = args_.x.data + begin * p_ + j;
      const double mean = mean_[at];
      const double inverse_scale = inverse_scale_[at];
      for (int64_t r = 0; r < rows; ++r) column[r] = (static_cast<double>(x[r * p_]) - mean) * inverse_scale;
      std::fill(column + rows, column + kGlmBlock, 0.0);
    }
    if (args_.intercept) {
      double* column = z + p_ * kGlmBlock;
      std::fill(column, column + rows, 1.0);
      std::fill(column + rows, column + kGlmBlock, 0.0);
    }
  }

  struct Point {
    double log_likelihood = 0;
    double objective = 0;  // to be minimised
    double deviance = 0;
    std::vector<double> gradient;  // of the objective's negative: the Newton direction's right side
    std::vector<double> hessian;
  };

  // Objective at beta; gradient and Hessian too when `full`.
  Status evaluate(const std::vector<double>& beta, bool full, Point* point) {
    const size_t m = static_cast<size_t>(m_);
    const size_t stride = full ? 2 + m + m * m : 2;
    partial_.assign(static_cast<size_t>(n_chunks_) * stride, 0.0);
    // One block per worker, made before any thread starts: the bodies must not throw.
    blocks_.resize(static_cast<size_t>(ThreadPool::instance().max_workers()));
    for (std::vector<double>& block : blocks_) block.resize(m * kGlmBlock);
    const int32_t m32 = static_cast<int32_t>(m_);
    const Status status = for_chunks([&](int64_t chunk, int worker, int64_t begin, int64_t end) {
      double* sums = partial_.data() + static_cast<size_t>(chunk) * stride;
      double* gradient = sums + 2;
      double* hessian = gradient + m;
      double* z = blocks_[static_cast<size_t>(worker)].data();
      double eta[kGlmBlock];
      double residual[kGlmBlock];
      double curvature[kGlmBlock];
      for (int64_t first = begin; first < end; first += kGlmBlock) {
        const int64_t last = std::min(end, first + kGlmBlock);
        const int64_t rows = last - first;
        load_block(first, last, z);
        for (int64_t r = 0; r < kGlmBlock; ++r) {
          eta[r] = r < rows && args_.offset != nullptr ? args_.offset[first + r] : 0.0;
        }
        kernels_.linear(z, m32, beta.data(), eta);
        for (int64_t r = 0; r < rows; ++r) {
          const double w = weight(first + r);
          const double s = args_.successes[first + r];
          const double t = args_.trials[first + r];
          const double e = std::exp(-std::fabs(eta[r]));
          const double softplus_eta = std::max(eta[r], 0.0) + std::log1p(e);
          const double mean = eta[r] >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
          sums[0] += w * (s * eta[r] - t * softplus_eta);
          residual[r] = w * (s - t * mean);
          curvature[r] = w * t * (e / ((1.0 + e) * (1.0 + e)));
          if (full) {
            // s log(s / tμ) + (t − s) log((t − s) / t(1 − μ)), with log μ = −softplus(−η).
            const double f = t - s;
            double half = x_log_ratio(s, t) + x_log_ratio(f, t);
            half += s * (softplus_eta - eta[r]) + f * softplus_eta;
            sums[1] += 2.0 * w * half;
          }
        }
        if (!full) continue;
        std::fill(residual + rows, residual + kGlmBlock, 0.0);
        std::fill(curvature + rows, curvature + kGlmBlock, 0.0);
        kernels_.gradient(z, m32, residual, gradient);
        kernels_.hessian(z, m32, curvature, hessian);
      }
    });
    if (!status.ok()) return status;
    std::vector<double> total(stride, 0.0);
    add_up(partial_, stride, total.data());
    point->log_likelihood = total[0];
    double penalty = 0;
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      penalty += 0.5 * args_.l2[j] * beta[at] * beta[at];
    }
    if (lasso_) penalty += l1_norm(beta);
    point->objective = penalty - total[0];
    if (!full) return {};
    point->deviance = total[1];
    point->gradient.assign(total.begin() + 2, total.begin() + 2 + static_cast<int64_t>(m));
    point->hessian.assign(total.begin() + 2 + static_cast<int64_t>(m), total.end());
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      double& diagonal = point->hessian[at * m + at];
      if (varies_[at] == 0) {
        diagonal = 1.0;  // its gradient is 0, so its coefficient stays 0
      } else {
        point->gradient[at] -= args_.l2[j] * beta[at];
        diagonal += args_.l2[j];
      }
    }
    return {};
  }

  Status factor(Point* point) const {
    const int64_t column = cholesky_factor(point->hessian.data(), m_, kPivotFloor);
    if (column < 0) return {};
    if (column == p_) {
      return fail(Code::kSingular,
                  "the intercept is not determined: the features add up to a constant, or the fit is saturated");
    }
    return fail(Code::kSingular, "feature %lld is a combination of the features before it, or the fit is saturated",
                static_cast<long long>(column));
  }

  Status iterate(GlmFitResult* result) {
    if (Status status = evaluate(beta_, true, &point_); !status.ok()) return status;
    if (!std::isfinite(point_.objective)) return fail(Code::kNotFinite, "the likelihood at the start is not finite");
    std::vector<double> step;
    std::vector<double> candidate(beta_.size());
    while (true) {
      if (Status status = factor(&point_); !status.ok()) return status;
      step = point_.gradient;
      cholesky_solve(point_.hessian.data(), m_, step.data());
      double decrement = 0;
      for (size_t j = 0; j < step.size(); ++j) decrement += point_.gradient[j] * step[j];
      const bool near = 0.5 * decrement <= args_.tolerance;
      if (!near && result->iterations >= args_.max_iterations) return {};
      double length = 1.0;
      bool moved = false;
      Point next;
      for (int halving = 0; halving <= kMostHalvings; ++halving, length *= 0.5) {
        for (size_t j = 0; j < step.size(); ++j) candidate[j] = beta_[j] + length * step[j];
        if (Status status = evaluate(candidate, halving == 0, &next); !status.ok()) return status;
        // Rounding may lift the objective by a few units in the last place of its own size.
        const double slack = 1e-12 * (std::fabs(point_.objective) + 1.0);
        if (std::isfinite(next.objective) && next.objective <= point_.objective + slack) {
          if (halving > 0) {
            if (Status status = evaluate(candidate, true, &next); !status.ok()) return status;
          }
          moved = true;
          break;
        }
      }
      if (!moved) {
        result->converged = near;
        return {};
      }
      beta_ = candidate;
      std::swap(point_, next);
      ++result->iterations;
      if (near) {
        result->converged = true;
        return factor(&point_);
      }
    }
  }

  double l1_norm(const std::vector<double>& beta) const {
    double sum = 0;
    for (int64_t j = 0; j < p_; ++j) sum += args_.l1[j] * std::fabs(beta[static_cast<size_t>(j)]);
    return sum;
  }

  // The whole of a Hessian whose lower half is there.
  void mirror(std::vector<double>* hessian) const {
    const size_t m = static_cast<size_t>(m_);
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < i; ++j) (*hessian)[j * m + i] = (*hessian)[i * m + j];
    }
  }

  // Minimises −gᵀ(u − β) + ½ (u − β)ᵀ H (u − β) + Σ λ¹ⱼ |uⱼ| over u, one coordinate after the other. The intercept,
  // which has no penalty, is the last.
  Status descend(const Point& point, std::vector<double>* out) const {
    const size_t m = static_cast<size_t>(m_);
    std::vector<double>& u = *out;
    u = beta_;
    std::vector<double> slope = point.gradient;  // g − H (u − β)
    for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
      if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
      double most = 0;
      for (size_t j = 0; j < m; ++j) {
        const double* row = point.hessian.data() + j * m;
        const double curvature = row[j];
        if (!(curvature > 0)) continue;  // saturated, or a column of zeros: nothing to be gained
        const double pull = slope[j] + curvature * u[j];
        const double l1 = j < static_cast<size_t>(p_) ? args_.l1[j] : 0.0;
        const double best = std::fabs(pull) <= l1 ? 0.0 : (pull - std::copysign(l1, pull)) / curvature;
        const double step = best - u[j];
        if (step == 0) continue;
        u[j] = best;
        for (size_t i = 0; i < m; ++i) slope[i] -= step * row[i];
        most = std::max(most, curvature * step * step);
      }
      if (most <= kDescentPart * args_.tolerance) break;
    }
    return {};
  }

  // Proximal Newton: as iterate(), where the step solves the model with the absolute values.
  Status iterate_lasso(GlmFitResult* result) {
    if (Status status = evaluate(beta_, true, &point_); !status.ok()) return status;
    if (!std::isfinite(point_.objective)) return fail(Code::kNotFinite, "the likelihood at the start is not finite");
    std::vector<double> target;
    std::vector<double> candidate(beta_.size());
    while (true) {
      mirror(&point_.hessian);
      if (Status status = descend(point_, &target); !status.ok()) return status;
      double decrease = l1_norm(beta_) - l1_norm(target);
      for (size_t j = 0; j < target.size(); ++j) decrease += point_.gradient[j] * (target[j] - beta_[j]);
      const bool near = 0.5 * decrease <= args_.tolerance;
      if (!near && result->iterations >= args_.max_iterations) break;
      double length = 1.0;
      bool moved = false;
      Point next;
      for (int halving = 0; halving <= kMostHalvings; ++halving, length *= 0.5) {
        for (size_t j = 0; j < target.size(); ++j) {
          candidate[j] = halving == 0 ? target[j] : beta_[j] + length * (target[j] - beta_[j]);  // zeros stay exact
        }
        if (Status status = evaluate(candidate, true, &next); !status.ok()) return status;
        const double slack = 1e-12 * (std::fabs(point_.objective) + 1.0);
        moved = std::isfinite(next.objective) && next.objective <= point_.objective + slack;
        if (moved) break;
      }
      if (!moved) {
        result->converged = near;
        break;
      }
      beta_ = candidate;
      std::swap(point_, next);
      ++result->iterations;
      if (near) {
        result->converged = true;
        break;
      }
    }
    return leave_lasso(result);
  }

  // What finish() expects: the factor of the Hessian of the features that are left.
  Status leave_lasso(GlmFitResult* result) {
    const size_t m = static_cast<size_t>(m_);
    mirror(&point_.hessian);
    for (size_t j = 0; j < static_cast<size_t>(p_); ++j) {
      if (in_model(j)) continue;
      if (args_.l1[j] > 0 && varies_[j] != 0) {
        result->l1_activation = std::max(result->l1_activation, std::fabs(point_.gradient[j]) / args_.l1[j]);
      }
      for (size_t i = 0; i < m; ++i) point_.hessian[i * m + j] = point_.hessian[j * m + i] = 0;
      point_.hessian[j * m + j] = 1;
    }
    has_errors_ = cholesky_factor(point_.hessian.data(), m_, kPivotFloor) < 0;
    return {};
  }

  bool in_model(size_t feature) const {
    return varies_[feature] != 0 && !(lasso_ && args_.l1[feature] > 0 && beta_[feature] == 0);
  }

  // point_.hessian holds the factor at beta_.
  Status finish(GlmFitResult* result) {
    result->log_likelihood = point_.log_likelihood;
    result->deviance = point_.deviance;
    std::vector<double> variance(static_cast<size_t>(m_), std::numeric_limits<double>::quiet_NaN());
    std::vector<double> scratch(static_cast<size_t>(m_));
    if (has_errors_) cholesky_inverse_diagonal(point_.hessian.data(), m_, variance.data(), scratch.data());
    double shift = 0;
    for (int64_t j = 0; j < p_; ++j) {
      const size_t at = static_cast<size_t>(j);
      const bool varies = in_model(at);
      args_.coefficients[j] = varies ? beta_[at] * inverse_scale_[at] : 0.0;
      args_.standard_errors[j] =
          varies ? std::sqrt(variance[at]) * inverse_scale_[at] : std::numeric_limits<double>::quiet_NaN();
      shift += args_.coefficients[j] * mean_[at];
    }
    if (args_.intercept) {
      result->intercept = beta_[static_cast<size_t>(p_)] - shift;
      // Var(b − Σ mⱼ cⱼ) = vᵀ H⁻¹ v with v = (−mⱼ / scaleⱼ, 1).
      std::vector<double> v(static_cast<size_t>(m_));
      for (int64_t j = 0; j < p_; ++j) {
        const size_t at = static_cast<size_t>(j);
        v[at] = in_model(at) ? -mean_[at] * inverse_scale_[at] : 0.0;
      }
      v[static_cast<size_t>(p_)] = 1.0;
      std::vector<double> solved = v;
      cholesky_solve(point_.hessian.data(), m_, solved.data());
      double quadratic = 0;
      for (size_t j = 0; j < v.size(); ++j) quadratic += v[j] * solved[j];
      result->intercept_standard_error = has_errors_ ? std::sqrt(quadratic) : std::numeric_limits<double>::quiet_NaN();
    }
    return {};
  }

  const GlmKernels& kernels_;
  const GlmFitArgs& args_;
  const RunContext& context_;
  const int64_t n_;
  const int64_t p_;
  const int64_t m_;  // parameters
  int64_t chunk_rows_ = 0;
  int64_t n_chunks_ = 0;
  double total_weight_ = 0;
  bool lasso_ = false;      // some l1 is above 0
  bool has_errors_ = true;  // point_.hessian ends as a factor
  std::vector<double> mean_;
  std::vector<double> inverse_scale_;
  std::vector<uint8_t> varies_;
  std::vector<double> beta_;
  std::vector<double> partial_;
  std::vector<std::vector<double>> blocks_;
  Point point_;
};

}  // namespace

Status glm_fit(const Table& table, const GlmFitArgs& args, const RunContext& context, GlmFitResult* result) {
  return Fit(table, args, context).run(result);
}

}  // namespace waggle::cpu
