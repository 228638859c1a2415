#include "cpu/ftrl.hpp"

#include <algorithm>
#include <cmath>

#include "src/sparse/logistic.hpp"

namespace waggle::cpu {

namespace {

// A row of random reads waits on memory for each: ask for the rows to come while this one is computed.
constexpr int64_t kRowsAhead = 4;

inline void prefetch_row(const FtrlCoordinate* table, const SparseRows& rows, int64_t row) {
#if defined(__GNUC__)
  for (int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) __builtin_prefetch(table + rows.indices[e], 1);
#else
  (void)table, (void)rows, (void)row;
#endif
}

inline double weight_of(const FtrlRates& rates, double z, double root, double l1, double l2) {
  if (std::fabs(z) <= l1) return 0;
  return (std::copysign(l1, z) - z) / ((rates.beta + root) * rates.inverse_alpha + l2);
}

// n and z after gradient g, where the prediction used `weight`.
inline void learn_one(const FtrlRates& rates, FtrlCoordinate& at, const FtrlEntry& entry, double g) {
  // A repeated feature was changed since by an earlier entry of the row.
  const double root = at.n == entry.n ? entry.root : std::sqrt(at.n);
  const double n = at.n + g * g;
  const double sigma = (std::sqrt(n) - root) * rates.inverse_alpha;
  at.z += g - sigma * entry.weight;
  at.n = n;
}

}  // namespace

double ftrl_weight(const FtrlRates& rates, const FtrlCoordinate& coordinate) {
  return weight_of(rates, coordinate.z, std::sqrt(coordinate.n), rates.l1, rates.l2);
}

double ftrl_intercept(const FtrlRates& rates, const FtrlCoordinate& coordinate) {
  return weight_of(rates, coordinate.z, std::sqrt(coordinate.n), 0, 0);
}

void ftrl_learn(const FtrlRates& rates, FtrlCoordinate* table, FtrlCoordinate* intercept, const SparseRows& rows,
                const SparseTargets& targets, int64_t begin, int64_t end, std::vector<FtrlEntry>& scratch,
                double* predictions, FtrlLearned* learned) {
  for (int64_t row = begin; row < std::min(end, begin + kRowsAhead); ++row) prefetch_row(table, rows, row);
  for (int64_t row = begin; row < end; ++row) {
    if (row + kRowsAhead < end) prefetch_row(table, rows, row + kRowsAhead);
    const int32_t* index = rows.indices + rows.indptr[row];
    const float* value = rows.values != nullptr ? rows.values + rows.indptr[row] : nullptr;
    const size_t n_entries = static_cast<size_t>(rows.indptr[row + 1] - rows.indptr[row]);
    if (scratch.size() < n_entries) scratch.resize(n_entries);
    FtrlEntry* entry = scratch.data();
    // Roots and weights first: the divisions of a row do not wait for one another.
    for (size_t e = 0; e < n_entries; ++e) {
      const FtrlCoordinate at = table[index[e]];
      const double root = std::sqrt(at.n);
      entry[e] = {weight_of(rates, at.z, root, rates.l1, rates.l2), at.n, root};
    }
    double eta = targets.shift(row);
    FtrlEntry base = {};
    if (intercept != nullptr) {
      const double root = std::sqrt(intercept->n);
      base = {weight_of(rates, intercept->z, root, 0, 0), intercept->n, root};
      eta += base.weight;
    }
    if (value == nullptr) {
      for (size_t e = 0; e < n_entries; ++e) eta += entry[e].weight;
    } else {
      for (size_t e = 0; e < n_entries; ++e) eta += entry[e].weight * static_cast<double>(value[e]);
    }
    const LogisticPoint point = logistic_at(eta);
    const double w = targets.weight(row);
    const double t = targets.trial(row);
    const double s = targets.successes[row];
    learned->loss += w * logistic_loss(point, eta, s, t);
    learned->total_weight += w * t;
    if (predictions != nullptr) predictions[row] = point.mean;
    const double slope = w * (t * point.mean - s);
    if (intercept != nullptr) learn_one(rates, *intercept, base, slope);
    if (value == nullptr) {
      for (size_t e = 0; e < n_entries; ++e) learn_one(rates, table[index[e]], entry[e], slope);
    } else {
      for (size_t e = 0; e < n_entries; ++e) {
        learn_one(rates, table[index[e]], entry[e], slope * static_cast<double>(value[e]));
      }
    }
  }
  learned->n_rows += end - begin;
}

double ftrl_linear(const FtrlRates& rates, const FtrlCoordinate* table, const FtrlCoordinate* intercept,
                   const SparseRows& rows, int64_t row, double offset) {
  double eta = offset;
  if (intercept != nullptr) eta += ftrl_intercept(rates, *intercept);
  for (int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) {
    eta += ftrl_weight(rates, table[rows.indices[e]]) * static_cast<double>(rows.value(e));
  }
  return eta;
}

}  // namespace waggle::cpu
