// The definition of a score. Everything that scores, at any level, computes exactly this.
#pragma once

#include <stdint.h>

#include "cpu/kernels.hpp"

namespace waggle::cpu {

/// The nine terms of one row in core's SCORE_TERMS order; returns their left-to-right sum. An absent column
/// makes its term +0. Static, because ISA files include it: each must keep its own copy.
static inline double score_terms(const ScoreColumns& c, int64_t row, double terms[9]) {
  const double q = c.q[row];
  const double spend = c.spend[row];
  const double payout = c.payout[row];
  terms[0] = q * (c.margin * spend);
  terms[1] = q * (c.fit_weight * static_cast<double>(c.fit[row]));
  terms[2] = c.advertiser != nullptr ? q * (c.advertiser_weight * static_cast<double>(c.advertiser[row])) : 0.0;
  terms[3] = q * (c.payout_weight * payout);
  terms[4] = c.mu != nullptr ? -(q * (spend * static_cast<double>(c.mu[row]))) : 0.0;
  terms[5] = c.goal_units != nullptr && c.omega != nullptr
                 ? q * (static_cast<double>(c.goal_units[row]) * static_cast<double>(c.omega[row]))
                 : 0.0;
  terms[6] = c.rho != nullptr ? q * (payout * static_cast<double>(c.rho[row])) : 0.0;
  terms[7] = c.explore != nullptr ? q * (c.explore_weight * static_cast<double>(c.explore[row])) : 0.0;
  terms[8] = c.frequency != nullptr ? -static_cast<double>(c.frequency[row]) : 0.0;
  double sum = terms[0];
  for (int t = 1; t < 9; ++t) sum = sum + terms[t];
  return sum;
}

}  // namespace waggle::cpu
