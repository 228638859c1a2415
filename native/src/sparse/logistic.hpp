// The binomial log-loss of one row and its slope, shared by the sparse learners.
#pragma once

#include <algorithm>
#include <cmath>

namespace waggle {

struct LogisticPoint {
  double mean;      // 1 / (1 + e^−η)
  double softplus;  // log(1 + e^η)
};

inline LogisticPoint logistic_at(double eta) {
  const double e = std::exp(-std::fabs(eta));
  return {eta >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e), std::max(eta, 0.0) + std::log1p(e)};
}

inline double logistic_mean(double eta) {
  const double e = std::exp(-std::fabs(eta));
  return eta >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

/// −s log p − (t − s) log(1 − p)
inline double logistic_loss(const LogisticPoint& at, double eta, double successes, double trials) {
  return trials * at.softplus - successes * eta;
}

}  // namespace waggle
