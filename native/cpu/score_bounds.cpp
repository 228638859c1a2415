#include "cpu/score_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace waggle::cpu {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargestFloat = static_cast<double>(std::numeric_limits<float>::max());
constexpr double kRoundoff = 0x1p-24;
// Far above what rounding in double loses in these few operations, far below everything else.
constexpr double kDoubleSlack = 1e-12;
// Norms are stored rounded up: at most an ulp and a denormal step above the true length.
constexpr double kNormSlack = 0x1p-22;
constexpr double kNormStep = 0x1p-148;
// Ten roundings of the float filter, relative to terms of which each is at most four norms.
constexpr double kFilterSlack = 0x1p-17;

double gamma(double n) {
  const double nu = n * kRoundoff;
  return nu < 0.5 ? nu / (1 - nu) : kInfinity;
}

// A float not above `value`: stepping down by more than half an ulp first is cheaper than looking what rounding did.
float round_down(double value) {
  const double below = value - std::abs(value) * 0x1p-23 - 0x1p-149;
  if (below >= kLargestFloat) return std::numeric_limits<float>::max();
  if (below < -kLargestFloat) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(below);
}

float round_up(double value) { return -round_down(-value); }

constexpr Interval kAnything = {-std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};

}  // namespace

ScoreBounds::ScoreBounds(Metric metric, const float* query, int64_t dim, double step, double lost,
                         ScanArithmetic arithmetic)
    : metric_(metric), step_(step), lost_(lost) {
  double square = 0;
  for (int64_t i = 0; i < dim; ++i) square += static_cast<double>(query[i]) * query[i];
  norm_ = std::sqrt(square);
  const double d = static_cast<double>(dim);
  score_gamma_ = (metric == Metric::kInnerProduct ? 1 : 3) * gamma(d + 8);
  score_flush_ = metric == Metric::kCosine ? 0 : (d + 8) * 0x1p-149;
  if (arithmetic == ScanArithmetic::kInteger) {
    scan_gamma_ = 16 * kRoundoff;
  } else if (arithmetic == ScanArithmetic::kFloat) {
    scan_gamma_ = gamma(2 * d + 8);
    scan_flush_ = (2 * d + 8) * 0x1p-126;
    root_dim_ = std::sqrt(d) * 0x1p-126;
  } else {
    // An exact product and an addition in double for each value.
    scan_gamma_ = (d + 8) * 0x1p-52;
  }
  filterable_ = norm_ >= static_cast<double>(kSmallestFilteredNorm) &&
                norm_ <= static_cast<double>(kLargestFilteredNorm) && std::isfinite(scan_gamma_ + score_gamma_) &&
                lost_ <= norm_;
}

Interval ScoreBounds::interval(double sum, double scale, double error, double norm) const {
  const double m = sum * scale * step_;
  const double decoded_norm = norm + error;
  const double query_norm = norm_ + lost_;
  double w = norm_ * error + lost_ * decoded_norm + (scan_gamma_ + kDoubleSlack) * query_norm * decoded_norm;
  w += scan_flush_ * scale * step_ + root_dim_ * (query_norm * scale + decoded_norm * step_);
  if (metric_ == Metric::kCosine) {
    if (norm == 0 || norm_ == 0) return {0.0f, 0.0f};
    const double least = norm - std::max(norm * kNormSlack, kNormStep);
    if (!std::isfinite(m) || !std::isfinite(w) || !(least > 0)) return kAnything;
    const double low = m - w;
    const double high = m + w;
    const double slack = score_gamma_ + kDoubleSlack;
    // A positive product is largest over the shortest norm, a negative one over the longest.
    return {round_down(low / (norm_ * (low > 0 ? norm : least)) - slack),
            round_up(high / (norm_ * (high > 0 ? least : norm)) + slack)};
  }
  if (metric_ == Metric::kInnerProduct) {
    const double reach = norm_ * norm * (1 + score_gamma_ + kDoubleSlack);
    // Partial sums of floats could overflow: only the floats themselves can tell.
    if (!std::isfinite(m) || !std::isfinite(w) || !(reach < kLargestFloat)) return kAnything;
    w += score_gamma_ * norm_ * norm + score_flush_;
    return {round_down(m - w), round_up(m + w)};
  }
  const double squares = norm_ * norm_ + norm * norm;
  const double slack = 2 * w + squares * kDoubleSlack + (2 * kNormSlack * norm + 2 * kNormStep) * norm;
  const double distance = squares - 2 * m;
  if (!std::isfinite(slack) || !((distance + slack) * (1 + score_gamma_) < kLargestFloat)) return kAnything;
  const double nearest = std::max(0.0, distance - slack);
  return {round_down(-(distance + slack) * (1 + score_gamma_) - score_flush_),
          round_up(-nearest * (1 - score_gamma_) + score_flush_)};
}

float ScoreBounds::decoded_score(double sum, double scale, double norm) const {
  const double m = sum * scale * step_;
  double score = m;
  if (metric_ == Metric::kCosine) {
    score = norm > 0 && norm_ > 0 ? m / (norm_ * norm) : 0.0;
  } else if (metric_ == Metric::kL2) {
    score = -std::max(0.0, norm_ * norm_ + norm * norm - 2 * m);
  }
  return static_cast<float>(score);
}

// interval().high ≥ T, divided by ‖q‖ and with everything but the moving coefficient fixed:
//   ip      m + w ≥ T
//   cosine  m + w − (T − 3γ)·‖q‖·‖x‖ ≥ 0
//   l2      m + w − ‖x‖²/2 ≥ (‖q‖² − D²)/2, where D² = (flush − T) / (1 − 3γ) is the farthest distance that reaches T
FilterLine ScoreBounds::filter() const {
  // Comparisons with NaN or −∞ pass.
  if (!filterable_) return {0, 0, 0, 0, -std::numeric_limits<float>::infinity()};
  const double lost = lost_ / norm_;
  const double scan = (scan_gamma_ + kDoubleSlack) * (1 + lost);
  FilterLine line = {};
  line.slope = static_cast<float>(step_ / norm_);
  line.error_weight = round_up((1 + lost + scan) * (1 + kFilterSlack));
  line.norm_weight = round_up(lost + scan + kFilterSlack + (metric_ == Metric::kInnerProduct ? score_gamma_ : 0.0));
  line.square_weight = metric_ == Metric::kL2 ? round_down((1 - kFilterSlack) / (2 * norm_)) : 0.0f;
  line.level = metric_ == Metric::kCosine ? 0.0f : -std::numeric_limits<float>::infinity();
  return line;
}

float ScoreBounds::moving(float threshold) const {
  const double t = static_cast<double>(threshold);
  if (metric_ == Metric::kCosine) {
    const FilterLine fixed = filter();
    if (!std::isfinite(t)) return std::numeric_limits<float>::infinity();
    return round_up(static_cast<double>(fixed.norm_weight) - (t - score_gamma_ - kDoubleSlack) +
                    std::abs(t) * 2 * kNormSlack);
  }
  if (!filterable_ || !std::isfinite(t)) return -std::numeric_limits<float>::infinity();
  if (metric_ == Metric::kInnerProduct) return round_down((t - score_flush_) / norm_);
  if (!(score_gamma_ < 0.5)) return -std::numeric_limits<float>::infinity();
  const double farthest = (score_flush_ - t) / (1 - score_gamma_);
  const double square = norm_ * norm_;
  return round_down((square * (1 - kDoubleSlack) - farthest) / (2 * norm_) - std::abs(farthest) / norm_ * kDoubleSlack);
}

}  // namespace waggle::cpu
