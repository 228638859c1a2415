// Proximal Newton over sparse columns. What is summed over rows is summed in fixed chunks, in order.
#include "cpu/glm_sparse.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "src/sparse/logistic.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kChunk = 4096;
constexpr int kMostHalvings = 40;
/// Coordinate descent ends when no coordinate lowers the model by this part of the tolerance any more.
constexpr double kDescentPart = 1e-2;
constexpr int kMostSweeps = 10'000;
/// Columns swept between two looks at the flag that cancels.
constexpr size_t kColumnsPerLook = 4096;

double x_log_ratio(double x, double y) { return x > 0 ? x * std::log(x / y) : 0.0; }

// The features that occur, as columns; entries of a row that name a feature twice are one.
struct Columns {
  std::vector<int32_t> features;  // ascending
  std::vector<int64_t> begins;    // [features + 1]
  std::vector<int32_t> rows;      // ascending within a column
  std::vector<double> values;     // empty = all 1

  size_t n() const { return features.size(); }

  Columns(const SparseRows& x, int64_t n_features) {
    std::vector<int64_t> at(static_cast<size_t>(n_features), 0);
    for (int64_t e = 0; e < x.indptr[x.n_rows]; ++e) ++at[static_cast<size_t>(x.indices[e])];
    int64_t total = 0;
    for (int64_t j = 0; j < n_features; ++j) {
      const int64_t count = at[static_cast<size_t>(j)];
      at[static_cast<size_t>(j)] = total;
      if (count == 0) continue;
      features.push_back(static_cast<int32_t>(j));
      begins.push_back(total);
      total += count;
    }
    begins.push_back(total);
    rows.resize(static_cast<size_t>(total));
    values.resize(static_cast<size_t>(total));
    for (int64_t row = 0; row < x.n_rows; ++row) {
      for (int64_t e = x.indptr[row]; e < x.indptr[row + 1]; ++e) {
        const size_t to = static_cast<size_t>(at[static_cast<size_t>(x.indices[e])]++);
        rows[to] = static_cast<int32_t>(row);
        values[to] = x.value(e);
      }
    }
    merge();
  }

 private:
  void merge() {
    size_t to = 0;
    bool all_one = true;
    for (size_t c = 0; c < n(); ++c) {
      const size_t begin = static_cast<size_t>(begins[c]);
      const size_t end = static_cast<size_t>(begins[c + 1]);
      begins[c] = static_cast<int64_t>(to);
      double sum = 0;
      for (size_t e = begin; e < end; ++e) {
        sum += values[e];
        if (e + 1 < end && rows[e + 1] == rows[e]) continue;
        rows[to] = rows[e];
        values[to] = sum;
        all_one = all_one && sum == 1;
        sum = 0;
        ++to;
      }
    }
    begins[n()] = static_cast<int64_t>(to);
    rows.resize(to);
    values.resize(all_one ? 0 : to);
  }
};

class Fit {
 public:
  Fit(const GlmSparseArgs& args, const RunContext& context)
      : args_(args), context_(context), n_(args.rows.n_rows), columns_(args.rows, args.n_features) {
    const size_t n = static_cast<size_t>(n_);
    for (std::vector<double>* column : {&residual_, &weight_, &model_residual_}) column->resize(n);
    sums_.resize(static_cast<size_t>((n_ + kChunk - 1) / kChunk));
    curvature_.resize(columns_.n());
  }

  Status run(GlmSparseResult* result) {
    if (Status status = start(); !status.ok()) return status;
    if (Status status = iterate(result); !status.ok()) return status;
    return finish(result);
  }

 private:
  struct Point {
    std::vector<double> beta;  // of the columns
    double intercept = 0;
    double objective = 0;
    double log_likelihood = 0;
    double deviance = 0;
  };
  struct Sums {
    double log_likelihood = 0;
    double deviance = 0;
  };

  Status start() {
    double s = 0;
    double t = 0;
    double offset = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const double w = args_.targets.weight(i);
      s += w * args_.targets.successes[i];
      t += w * args_.targets.trial(i);
      offset += w * args_.targets.trial(i) * args_.targets.shift(i);
    }
    if (!(t > 0)) return fail(Code::kInvalidArgument, "weights times trials are all zero");
    at_.beta.assign(columns_.n(), 0.0);
    if (args_.intercept) {
      const double rate = (s + 0.5) / (t + 1.0);
      at_.intercept = std::log(rate / (1.0 - rate)) - offset / t;
    }
    if (Status status = evaluate(&at_); !status.ok()) return status;
    threshold_ = args_.tolerance * std::max(at_.deviance, 1e-300);
    if (args_.start == nullptr) return {};
    // As in glm_fit, a start is taken only if it is better than none.
    Point given = at_;
    for (size_t c = 0; c < columns_.n(); ++c) given.beta[c] = args_.start[columns_.features[c]];
    if (args_.intercept) given.intercept = args_.start[args_.n_features];
    if (Status status = evaluate(&given); !status.ok()) return status;
    if (given.objective < at_.objective) at_ = given;
    return evaluate(&at_);
  }

  // Objective at a point; residuals and weights of its rows beside it.
  Status evaluate(Point* point) {
    spread_.assign(static_cast<size_t>(args_.n_features), 0.0);
    for (size_t c = 0; c < columns_.n(); ++c) spread_[static_cast<size_t>(columns_.features[c])] = point->beta[c];
    ThreadPool::instance().for_each_chunk(static_cast<int64_t>(sums_.size()), context_, [&](int64_t chunk, int) {
      Sums sums;
      const SparseRows& x = args_.rows;
      for (int64_t row = chunk * kChunk; row < std::min(n_, (chunk + 1) * kChunk); ++row) {
        double eta = args_.targets.shift(row) + point->intercept;
        for (int64_t e = x.indptr[row]; e < x.indptr[row + 1]; ++e) {
          eta += spread_[static_cast<size_t>(x.indices[e])] * static_cast<double>(x.value(e));
        }
        const LogisticPoint p = logistic_at(eta);
        const double w = args_.targets.weight(row);
        const double s = args_.targets.successes[row];
        const double t = args_.targets.trial(row);
        const double loss = logistic_loss(p, eta, s, t);
        sums.log_likelihood -= w * loss;
        sums.deviance += 2.0 * w * (x_log_ratio(s, t) + x_log_ratio(t - s, t) + loss);
        residual_[static_cast<size_t>(row)] = w * (s - t * p.mean);
        weight_[static_cast<size_t>(row)] = w * t * p.mean * (1.0 - p.mean);
      }
      sums_[static_cast<size_t>(chunk)] = sums;
    });
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    Sums total;
    for (const Sums& sums : sums_) {
      total.log_likelihood += sums.log_likelihood;
      total.deviance += sums.deviance;
    }
    point->log_likelihood = total.log_likelihood;
    point->deviance = total.deviance;
    double penalty = 0;
    for (size_t c = 0; c < columns_.n(); ++c) {
      const double beta = point->beta[c];
      penalty += 0.5 * l2(c) * beta * beta + l1(c) * std::fabs(beta);
    }
    point->objective = penalty - total.log_likelihood;
    return {};
  }

  double l1(size_t column) const { return args_.l1[columns_.features[column]]; }
  double l2(size_t column) const { return args_.l2[columns_.features[column]]; }

  template <typename Body>
  void for_entries(size_t column, Body&& body) const {
    const size_t begin = static_cast<size_t>(columns_.begins[column]);
    const size_t end = static_cast<size_t>(columns_.begins[column + 1]);
    if (columns_.values.empty()) {
      for (size_t e = begin; e < end; ++e) body(static_cast<size_t>(columns_.rows[e]), 1.0);
    } else {
      for (size_t e = begin; e < end; ++e) {
        body(static_cast<size_t>(columns_.rows[e]), columns_.values[e]);
      }
    }
  }

  double slope_of(size_t column, const std::vector<double>& residual) const {
    double sum = 0;
    for_entries(column, [&](size_t row, double x) { sum += x * residual[row]; });
    return sum;
  }

  // One coordinate to its minimum; by how much that lowers the model, twice.
  double move(size_t column, double* u) {
    const double curvature = curvature_[column] + l2(column);
    if (!(curvature > 0)) return 0;  // all its rows are saturated
    const double pull = slope_of(column, model_residual_) + curvature_[column] * *u;
    const double l1_here = l1(column);
    const double best = std::fabs(pull) <= l1_here ? 0.0 : (pull - std::copysign(l1_here, pull)) / curvature;
    const double step = best - *u;
    if (step == 0) return 0;
    *u = best;
    for_entries(column, [&](size_t row, double x) { model_residual_[row] -= weight_[row] * x * step; });
    return curvature * step * step;
  }

  double move_intercept(double* intercept) {
    if (!args_.intercept) return 0;
    double slope = 0;
    double curvature = 0;
    for (size_t row = 0; row < weight_.size(); ++row) {
      slope += model_residual_[row];
      curvature += weight_[row];
    }
    if (!(curvature > 0)) return 0;
    const double step = slope / curvature;
    *intercept += step;
    for (size_t row = 0; row < weight_.size(); ++row) model_residual_[row] -= weight_[row] * step;
    return curvature * step * step;
  }

  // The minimum of the quadratic model around at_. Sweeps over what is not 0 stand between sweeps over everything.
  Status descend(Point* to) {
    model_residual_ = residual_;
    for (size_t c = 0; c < columns_.n(); ++c) {
      double sum = 0;
      for_entries(c, [&](size_t row, double x) { sum += x * x * weight_[row]; });
      curvature_[c] = sum;
    }
    const double enough = kDescentPart * threshold_;
    bool all = true;
    for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
      double most = move_intercept(&to->intercept);
      for (size_t c = 0; c < columns_.n(); ++c) {
        if (c % kColumnsPerLook == 0 && context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
        if (all || to->beta[c] != 0) most = std::max(most, move(c, &to->beta[c]));
      }
      if (most > enough) {
        all = false;
      } else if (all) {
        break;
      } else {
        all = true;
      }
    }
    return {};
  }

  Status iterate(GlmSparseResult* result) {
    if (!std::isfinite(at_.objective)) return fail(Code::kNotFinite, "the likelihood at the start is not finite");
    while (true) {
      Point target = at_;
      if (Status status = descend(&target); !status.ok()) return status;
      const bool near = 0.5 * predicted_decrease(target) <= threshold_;
      if (!near && result->iterations >= args_.max_iterations) return {};
      Point next = target;
      bool moved = false;
      double length = 1.0;
      for (int halving = 0; halving <= kMostHalvings; ++halving, length *= 0.5) {
        if (halving > 0) {
          for (size_t c = 0; c < columns_.n(); ++c)
            next.beta[c] = at_.beta[c] + length * (target.beta[c] - at_.beta[c]);
          next.intercept = at_.intercept + length * (target.intercept - at_.intercept);
        }
        if (Status status = evaluate(&next); !status.ok()) return status;
        const double slack = 1e-12 * (std::fabs(at_.objective) + 1.0);
        moved = std::isfinite(next.objective) && next.objective <= at_.objective + slack;
        if (moved) break;
      }
      if (!moved) {
        result->converged = near;
        return evaluate(&at_);  // the residuals are those of the last try
      }
      at_ = next;
      ++result->iterations;
      if (near) {
        result->converged = true;
        return {};
      }
    }
  }

  // −gᵀd + λ¹ (|β + d| − |β|), negated, with g at at_.
  double predicted_decrease(const Point& target) const {
    double sum = 0;
    for (size_t c = 0; c < columns_.n(); ++c) {
      const double d = target.beta[c] - at_.beta[c];
      if (d == 0) continue;
      sum += d * (slope_of(c, residual_) - l2(c) * at_.beta[c]);
      sum -= l1(c) * (std::fabs(target.beta[c]) - std::fabs(at_.beta[c]));
    }
    if (!args_.intercept) return sum;
    double slope = 0;
    for (const double r : residual_) slope += r;
    return sum + slope * (target.intercept - at_.intercept);
  }

  Status finish(GlmSparseResult* result) {
    std::fill(args_.coefficients, args_.coefficients + args_.n_features, 0.0);
    for (size_t c = 0; c < columns_.n(); ++c) {
      args_.coefficients[columns_.features[c]] = at_.beta[c];
      result->n_nonzero += at_.beta[c] != 0;
      if (at_.beta[c] == 0 && l1(c) > 0) {
        result->l1_activation = std::max(result->l1_activation, std::fabs(slope_of(c, residual_)) / l1(c));
      }
    }
    result->intercept = at_.intercept;
    result->deviance = at_.deviance;
    result->log_likelihood = at_.log_likelihood;
    return {};
  }

  const GlmSparseArgs& args_;
  const RunContext& context_;
  const int64_t n_;
  const Columns columns_;
  Point at_;
  double threshold_ = 0;
  std::vector<double> residual_;        // w (s − t μ) at the point last evaluated
  std::vector<double> weight_;          // w t μ (1 − μ)
  std::vector<double> model_residual_;  // residual_ less weight_ · what the model moved
  std::vector<double> curvature_;       // Σ weight_ x² of each column
  std::vector<double> spread_;          // coefficients by feature
  std::vector<Sums> sums_;
};

}  // namespace

Status glm_sparse(const GlmSparseArgs& args, const RunContext& context, GlmSparseResult* result) {
  return Fit(args, context).run(result);
}

}  // namespace waggle::cpu
