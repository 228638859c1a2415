// The arithmetic of FTRL-proximal, one coordinate and one row at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "waggle/ftrl.hpp"

namespace waggle::cpu {

/// Zero bytes to begin with.
struct FtrlCoordinate {
  double z;
  double n;
};

/// What Algorithm 1 divides and compares with; α as its inverse.
struct FtrlRates {
  double inverse_alpha;
  double beta;
  double l1;
  double l2;
};

/// What is kept of an entry between the prediction and the update of its row.
struct FtrlEntry {
  double weight;
  double n;
  double root;  // √n
};

/// Learns rows [begin, end) in order and adds to `learned`; `scratch` grows to the longest row.
void ftrl_learn(const FtrlRates& rates, FtrlCoordinate* table, FtrlCoordinate* intercept, const SparseRows& rows,
                const SparseTargets& targets, int64_t begin, int64_t end, std::vector<FtrlEntry>& scratch,
                double* predictions, FtrlLearned* learned);

/// The linear predictor of a row.
double ftrl_linear(const FtrlRates& rates, const FtrlCoordinate* table, const FtrlCoordinate* intercept,
                   const SparseRows& rows, int64_t row, double offset);

double ftrl_weight(const FtrlRates& rates, const FtrlCoordinate& coordinate);
/// The intercept is not penalised.
double ftrl_intercept(const FtrlRates& rates, const FtrlCoordinate& coordinate);

}  // namespace waggle::cpu
