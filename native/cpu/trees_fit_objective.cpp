#include "cpu/trees_fit_objective.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace waggle::cpu {

namespace {

constexpr int64_t kChunkRows = 4096;
constexpr int kMostSteps = 100;
constexpr double kStepTolerance = 1e-12;
// A class without any weight gets this share, so that its score stays finite.
constexpr double kLeastShare = 1e-9;
// Places of a ranking whose order counts, and what keeps the pairs of equal scores apart; as LightGBM has them.
constexpr int64_t kTruncation = 30;
constexpr double kScoreFloor = 0.01;

#define WAGGLE_FIT_INLINE inline
#include "cpu/simd/trees_fit_math.inc"

double sigma(double s) { return 1.0 / (1.0 + std::exp(-s)); }

double weight_of(const TreesFitRows& rows, int64_t r) { return rows.weights != nullptr ? rows.weights[r] : 1.0; }

double trials_of(const TreesFitRows& rows, int64_t r) { return rows.trials != nullptr ? rows.trials[r] : 1.0; }

double weight_between(const TreesFitRows& rows, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t r = begin; r < end; ++r) sum += weight_of(rows, r) * trials_of(rows, r);
  return sum;
}

// body(row, sums) adds to sums [n_sums].
template <typename Body>
void sum_rows(Team& team, int64_t n, size_t n_sums, std::vector<double>& sums, Body&& body) {
  const int64_t n_chunks = (n + kChunkRows - 1) / kChunkRows;
  std::vector<double> partial(static_cast<size_t>(n_chunks) * n_sums, 0.0);
  team.run(n_chunks, [&](int64_t c, int) {
    double* const to = partial.data() + static_cast<size_t>(c) * n_sums;
    for (int64_t r = c * kChunkRows; r < std::min(n, (c + 1) * kChunkRows); ++r) body(r, to);
  });
  sums.assign(n_sums, 0.0);
  for (size_t i = 0; i < partial.size(); ++i) sums[i % n_sums] += partial[i];
}

void softmax_of(const double* scores, int64_t stride, int32_t k, double* p) {
  double most = -std::numeric_limits<double>::infinity();
  for (int32_t c = 0; c < k; ++c) most = std::max(most, scores[c * stride]);
  double sum = 0;
  for (int32_t c = 0; c < k; ++c) sum += p[c] = std::exp(scores[c * stride] - most);
  for (int32_t c = 0; c < k; ++c) p[c] /= sum;
}

// Gradients of one query; see FitObjective::lambdarank.
class Query {
 public:
  // Adds the lambdas of rows [0, n) to g and h; returns NDCG, or −1 without any relevant row.
  double lambdas(const double* scores, const double* relevance, int64_t n, double* g, double* h) {
    order_.resize(static_cast<size_t>(n));
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::sort(order_.begin(), order_.end(),
              [&](int64_t a, int64_t b) { return relevance[a] != relevance[b] ? relevance[a] > relevance[b] : a < b; });
    double ideal = 0;
    for (int64_t i = 0; i < std::min(n, kTruncation); ++i) {
      ideal += gain(relevance[order_[static_cast<size_t>(i)]]) * discount(i);
    }
    if (!(ideal > 0)) return -1;
    std::sort(order_.begin(), order_.end(),
              [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    double dcg = 0;
    for (int64_t i = 0; i < std::min(n, kTruncation); ++i) {
      dcg += gain(relevance[order_[static_cast<size_t>(i)]]) * discount(i);
    }
    if (g != nullptr) pairs(scores, relevance, n, ideal, g, h);
    return dcg / ideal;
  }

 private:
  static double gain(double relevance) { return std::ldexp(1.0, static_cast<int>(relevance)) - 1; }
  static double discount(int64_t place) { return 1.0 / std::log2(2.0 + static_cast<double>(place)); }

  // Burges 2010: the slope of a pair's logistic loss times what swapping the two would do to NDCG; divided by the
  // distance of the scores and tempered by log2(1 + Σ) / Σ per query, so that long queries do not drown short ones.
  void pairs(const double* scores, const double* relevance, int64_t n, double ideal, double* g, double* h) const {
    const bool apart = scores[order_.front()] != scores[order_.back()];
    double sum = 0;
    for (int64_t i = 0; i + 1 < n && i < kTruncation; ++i) {
      for (int64_t j = i + 1; j < n; ++j) {
        int64_t high = order_[static_cast<size_t>(i)];
        int64_t low = order_[static_cast<size_t>(j)];
        if (relevance[high] == relevance[low]) continue;
        const double moved = discount(i) - discount(j);
        if (relevance[high] < relevance[low]) std::swap(high, low);
        const double distance = scores[high] - scores[low];
        double delta = (gain(relevance[high]) - gain(relevance[low])) * moved / ideal;
        if (apart) delta /= kScoreFloor + std::fabs(distance);
        const double p = sigma(-distance);
        g[high] -= p * delta;
        g[low] += p * delta;
        h[high] += p * (1 - p) * delta;
        h[low] += p * (1 - p) * delta;
        sum += 2 * p * delta;
      }
    }
    if (!(sum > 0)) return;
    const double tempered = std::log2(1 + sum) / sum;
    for (int64_t i = 0; i < n; ++i) {
      g[i] *= tempered;
      h[i] *= tempered;
    }
  }

  std::vector<int64_t> order_;
};

}  // namespace

double weighted_quantile(std::vector<std::pair<double, double>>& values, double quantile) {
  std::sort(values.begin(), values.end());
  double total = 0;
  for (const auto& [value, weight] : values) total += weight;
  if (!(total > 0)) return 0;
  double below = 0;
  double last = 0;
  for (const auto& [value, weight] : values) {
    if (!(weight > 0)) continue;
    below += weight;
    last = value;
    if (below >= quantile * total) return value;
  }
  return last;
}

FitGradientSummary summarize(const FitGradient* gradients, int64_t n) {
  FitGradientSummary s{0, 0, std::numeric_limits<float>::max(), 0};
  for (int64_t r = 0; r < n; ++r) {
    s.g_most = std::max(s.g_most, std::fabs(gradients[r].g));
    s.h_most = std::max(s.h_most, gradients[r].h);
    s.h_least = std::min(s.h_least, gradients[r].h);
  }
  return s;
}

trees::Transform FitObjective::transform() const {
  switch (args_.objective) {
    case TreesObjective::kLogistic:
      return trees::Transform::kLogistic;
    case TreesObjective::kSoftmax:
      return trees::Transform::kSoftmax;
    case TreesObjective::kPoisson:
      return trees::Transform::kExp;
    default:
      return trees::Transform::kNone;
  }
}

trees::Kind FitObjective::kind() const {
  switch (args_.objective) {
    case TreesObjective::kLogistic:
    case TreesObjective::kSoftmax:
      return trees::Kind::kClassification;
    case TreesObjective::kLambdaRank:
      return trees::Kind::kRanking;
    default:
      return trees::Kind::kRegression;
  }
}

Status FitObjective::base(const TreesFitRows& rows, Team& team, double* base) const {
  const int64_t n = rows.x.rows;
  const double* const offset = rows.offset;
  std::vector<double> sums;
  sum_rows(team, n, 1, sums, [&](int64_t r, double* to) { to[0] += weight_of(rows, r) * trials_of(rows, r); });
  const double total = sums[0];
  if (!(total > 0)) {
    return fail(Code::kInvalidArgument, "no row has any weight%s", rows.trials != nullptr ? " and trials" : "");
  }
  switch (args_.objective) {
    case TreesObjective::kLogistic: {
      sum_rows(team, n, 1, sums, [&](int64_t r, double* to) { to[0] += weight_of(rows, r) * rows.y[r]; });
      const double successes = sums[0];
      if (!(successes > 0) || !(successes < total)) {
        return fail(Code::kInvalidArgument, "y: %s; both outcomes are needed to learn from",
                    successes > 0 ? "every trial is a success" : "there is no success");
      }
      const double wanted = std::log(successes / (total - successes));
      base[0] = wanted;
      // logit of the mean probability rises with the base by 0 to 1 for 1: adding what is missing converges.
      for (int step = 0; offset != nullptr && step < kMostSteps; ++step) {
        sum_rows(team, n, 1, sums, [&](int64_t r, double* to) {
          to[0] += weight_of(rows, r) * trials_of(rows, r) * sigma(base[0] + offset[r]);
        });
        const double missing = wanted - std::log(sums[0] / (total - sums[0]));
        if (!std::isfinite(missing)) return fail(Code::kInvalidArgument, "offset leaves no base score that fits");
        base[0] += missing;
        if (std::fabs(missing) < kStepTolerance) break;
      }
      return {};
    }
    case TreesObjective::kSoftmax: {
      const size_t k = static_cast<size_t>(n_targets());
      sum_rows(team, n, k, sums,
               [&](int64_t r, double* to) { to[static_cast<int64_t>(rows.y[r])] += weight_of(rows, r); });
      if (std::count_if(sums.begin(), sums.end(), [](double s) { return s > 0; }) < 2) {
        return fail(Code::kInvalidArgument, "y: a single class has any weight; two are needed to learn from");
      }
      std::vector<double> wanted(k);
      for (size_t c = 0; c < k; ++c) {
        wanted[c] = std::max(sums[c], kLeastShare * total);
        base[c] = std::log(wanted[c] / total);
      }
      for (int step = 0; offset != nullptr && step < kMostSteps; ++step) {
        sum_rows(team, n, k, sums, [&](int64_t r, double* to) {
          thread_local std::vector<double> p;
          p.resize(2 * k);
          for (size_t c = 0; c < k; ++c) p[k + c] = base[c] + offset[static_cast<size_t>(r) * k + c];
          softmax_of(p.data() + k, 1, static_cast<int32_t>(k), p.data());
          for (size_t c = 0; c < k; ++c) to[c] += weight_of(rows, r) * p[c];
        });
        double most = 0;
        for (size_t c = 0; c < k; ++c) {
          const double missing = std::log(wanted[c] / sums[c]);
          if (!std::isfinite(missing)) return fail(Code::kInvalidArgument, "offset leaves no base score that fits");
          base[c] += missing;
          most = std::max(most, std::fabs(missing));
        }
        if (most < kStepTolerance) break;
      }
      return {};
    }
    case TreesObjective::kSquared:
      sum_rows(team, n, 1, sums, [&](int64_t r, double* to) {
        to[0] += weight_of(rows, r) * (rows.y[r] - (offset != nullptr ? offset[r] : 0));
      });
      base[0] = sums[0] / total;
      return {};
    case TreesObjective::kPoisson: {
      sum_rows(team, n, 2, sums, [&](int64_t r, double* to) {
        to[0] += weight_of(rows, r) * rows.y[r];
        to[1] += weight_of(rows, r) * (offset != nullptr ? std::exp(offset[r]) : 1);
      });
      if (!(sums[0] > 0)) return fail(Code::kInvalidArgument, "y is 0 in every row: there is nothing to learn");
      base[0] = std::log(sums[0] / sums[1]);
      if (!std::isfinite(base[0])) return fail(Code::kInvalidArgument, "offset leaves no base score that fits");
      return {};
    }
    case TreesObjective::kQuantile: {
      std::vector<std::pair<double, double>> values;
      values.reserve(static_cast<size_t>(n));
      for (int64_t r = 0; r < n; ++r) {
        values.emplace_back(rows.y[r] - (offset != nullptr ? offset[r] : 0), weight_of(rows, r));
      }
      base[0] = weighted_quantile(values, args_.quantile);
      return {};
    }
    case TreesObjective::kLambdaRank:
      base[0] = 0;
      return {};
  }
  return {};
}

double FitObjective::evaluate(const TreesFitRows& rows, const double* scores, Team& team, FitGradient* gradients,
                              FitGradientSummary* summaries) const {
  const int64_t n = rows.x.rows;
  const size_t k = static_cast<size_t>(n_targets());
  if (args_.objective == TreesObjective::kLambdaRank) {
    const double loss = lambdarank(rows, scores, team, gradients);
    if (summaries != nullptr) summaries[0] = summarize(gradients, n);
    return loss;
  }
  const int64_t n_chunks = (n + kChunkRows - 1) / kChunkRows;
  std::vector<FitGradientSummary> parts(static_cast<size_t>(n_chunks) * k);
  std::vector<double> losses(static_cast<size_t>(n_chunks));
  std::vector<double> weights(static_cast<size_t>(n_chunks));
  team.run(n_chunks, [&](int64_t c, int) {
    const int64_t begin = c * kChunkRows;
    const int64_t end = std::min(n, begin + kChunkRows);
    const size_t at = static_cast<size_t>(c);
    losses[at] = chunk(rows, scores, begin, end, gradients, summaries != nullptr ? parts.data() + at * k : nullptr);
    weights[at] = weight_between(rows, begin, end);
  });
  if (summaries != nullptr) {
    for (size_t t = 0; t < k; ++t) {
      summaries[t] = {0, 0, std::numeric_limits<float>::max(), 0};
      for (size_t c = 0; c < static_cast<size_t>(n_chunks); ++c) {
        const FitGradientSummary& part = parts[c * k + t];
        summaries[t].g_most = std::max(summaries[t].g_most, part.g_most);
        summaries[t].h_most = std::max(summaries[t].h_most, part.h_most);
        summaries[t].h_least = std::min(summaries[t].h_least, part.h_least);
      }
    }
  }
  return mean_loss(losses, std::accumulate(weights.begin(), weights.end(), 0.0));
}

double FitObjective::total_weight(const TreesFitRows& rows, Team& team) const {
  std::vector<double> weights(static_cast<size_t>((rows.x.rows + kChunkRows - 1) / kChunkRows));
  team.run(static_cast<int64_t>(weights.size()), [&](int64_t c, int) {
    weights[static_cast<size_t>(c)] = weight_between(rows, c * kChunkRows, std::min(rows.x.rows, (c + 1) * kChunkRows));
  });
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

double FitObjective::mean_loss(const std::vector<double>& losses, double weight) {
  return weight > 0 ? std::accumulate(losses.begin(), losses.end(), 0.0) / weight : 0.0;
}

double FitObjective::chunk(const TreesFitRows& rows, const double* scores, int64_t begin, int64_t end,
                           FitGradient* gradients, FitGradientSummary* summaries) const {
  const int64_t n = rows.x.rows;
  double loss = 0;
  if (args_.objective == TreesObjective::kSoftmax) {
    loss = softmax(rows, scores, begin, end, gradients);
    for (int32_t t = 0; summaries != nullptr && t < n_targets(); ++t) {
      summaries[t] = summarize(gradients + t * n + begin, end - begin);
    }
    return loss;
  }
  FitGradient unused[kChunkRows];
  FitGradient* const out = gradients != nullptr ? gradients + begin : unused;
  if (args_.objective == TreesObjective::kLogistic) {
    const FitLogistic in{scores + begin, rows.y + begin, rows.trials != nullptr ? rows.trials + begin : nullptr,
                         rows.weights != nullptr ? rows.weights + begin : nullptr, out};
    FitGradientSummary summary{};
    kernels_.logistic(&in, static_cast<int32_t>(end - begin), &summary);
    if (summaries != nullptr) *summaries = summary;
    return summary.loss;
  }
  for (int64_t r = begin; r < end; ++r) {
    const double w = weight_of(rows, r);
    const double y = rows.y[r];
    const double s = scores[r];
    const RowTerms row = args_.objective == TreesObjective::kPoisson    ? poisson_row(s, y, w)
                         : args_.objective == TreesObjective::kQuantile ? quantile_row(s, y, w, args_.quantile)
                                                                        : squared_row(s, y, w);
    out[r - begin] = {row.g, row.h};
    loss += row.loss;
  }
  if (summaries != nullptr) *summaries = summarize(out, end - begin);
  return loss;
}

double FitObjective::softmax(const TreesFitRows& rows, const double* scores, int64_t begin, int64_t end,
                             FitGradient* gradients) const {
  const int64_t n = rows.x.rows;
  const int32_t k = n_targets();
  // The curvature of one score alone would overstep where all move at once (Friedman 2001, §4.6).
  const double together = static_cast<double>(k) / (k - 1);
  std::vector<double> p(static_cast<size_t>(k));
  double loss = 0;
  for (int64_t r = begin; r < end; ++r) {
    const double w = weight_of(rows, r);
    const int32_t label = static_cast<int32_t>(rows.y[r]);
    softmax_of(scores + r, n, k, p.data());
    double rest = 0;  // 1 − p[label], without cancellation
    for (int32_t c = 0; c < k; ++c) rest += c == label ? 0 : p[static_cast<size_t>(c)];
    double most = scores[r];
    for (int32_t c = 1; c < k; ++c) most = std::max(most, scores[r + c * n]);
    double sum = 0;
    for (int32_t c = 0; c < k; ++c) sum += std::exp(scores[r + c * n] - most);
    loss += w * (std::log(sum) + most - scores[r + label * n]);
    if (gradients == nullptr) continue;
    for (int32_t c = 0; c < k; ++c) {
      const double of = p[static_cast<size_t>(c)];
      const double g = c == label ? -rest : of;
      gradients[c * n + r] = {static_cast<float>(w * g),
                              static_cast<float>(w * together * of * (c == label ? rest : 1 - of))};
    }
  }
  return loss;
}

double FitObjective::lambdarank(const TreesFitRows& rows, const double* scores, Team& team,
                                FitGradient* gradients) const {
  constexpr int64_t kQueries = 16;
  std::vector<int64_t> first(static_cast<size_t>(rows.n_groups) + 1, 0);
  for (int64_t q = 0; q < rows.n_groups; ++q) {
    first[static_cast<size_t>(q) + 1] = first[static_cast<size_t>(q)] + rows.groups[q];
  }
  const int64_t n_chunks = (rows.n_groups + kQueries - 1) / kQueries;
  std::vector<double> missed(static_cast<size_t>(n_chunks));
  std::vector<double> ranked(static_cast<size_t>(n_chunks));
  team.run(n_chunks, [&](int64_t c, int) {
    Query query;
    std::vector<double> g;
    std::vector<double> h;
    for (int64_t q = c * kQueries; q < std::min(rows.n_groups, (c + 1) * kQueries); ++q) {
      const int64_t begin = first[static_cast<size_t>(q)];
      const int64_t n = rows.groups[q];
      if (n == 0) continue;
      g.assign(static_cast<size_t>(n), 0.0);
      h.assign(static_cast<size_t>(n), 0.0);
      const double ndcg =
          query.lambdas(scores + begin, rows.y + begin, n, gradients != nullptr ? g.data() : nullptr, h.data());
      if (ndcg >= 0) {
        missed[static_cast<size_t>(c)] += 1 - ndcg;
        ranked[static_cast<size_t>(c)] += 1;
      }
      for (int64_t i = 0; gradients != nullptr && i < n; ++i) {
        const double w = weight_of(rows, begin + i);
        gradients[begin + i] = {static_cast<float>(w * g[static_cast<size_t>(i)]),
                                static_cast<float>(w * h[static_cast<size_t>(i)])};
      }
    }
  });
  const double n_ranked = std::accumulate(ranked.begin(), ranked.end(), 0.0);
  return n_ranked > 0 ? std::accumulate(missed.begin(), missed.end(), 0.0) / n_ranked : 0.0;
}

}  // namespace waggle::cpu
