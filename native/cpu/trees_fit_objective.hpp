// What boosting descends: losses, their gradients and curvatures, and where they start.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/table.hpp"
#include "src/team.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::cpu {

class FitObjective {
 public:
  FitObjective(const Table& table, const TreesFitArgs& args) : kernels_(table.trees_fit), args_(args) {}

  int32_t n_targets() const { return args_.objective == TreesObjective::kSoftmax ? args_.n_classes : 1; }
  trees::Transform transform() const;
  trees::Kind kind() const;
  /// Leaves are not Newton steps but quantiles of residuals.
  bool refits() const { return args_.objective == TreesObjective::kQuantile; }
  /// Bound of a Newton step, 0 = none.
  double max_step() const { return args_.objective == TreesObjective::kPoisson ? 0.7 : 0.0; }

  /// The constant scores that fit best beside the offsets, base [n_targets]. kInvalidArgument when there is nothing to
  /// learn: no weight, a single class, only zeros.
  Status base(const TreesFitRows& rows, Team& team, double* base) const;

  /// Mean loss at scores [n_targets × n]; gradients [n_targets × n] and summaries [n_targets] may be null. Sums are
  /// made by fixed chunks of rows (or queries), in order: the same bits at any thread count.
  double evaluate(const TreesFitRows& rows, const double* scores, Team& team, FitGradient* gradients,
                  FitGradientSummary* summaries) const;

  /// What a sum of losses is divided by, lambdarank's apart, and the sum of those of chunks, in order, divided.
  double total_weight(const TreesFitRows& rows, Team& team) const;
  static double mean_loss(const std::vector<double>& losses, double weight);

 private:
  double chunk(const TreesFitRows& rows, const double* scores, int64_t begin, int64_t end, FitGradient* gradients,
               FitGradientSummary* summaries) const;
  double softmax(const TreesFitRows& rows, const double* scores, int64_t begin, int64_t end,
                 FitGradient* gradients) const;
  double lambdarank(const TreesFitRows& rows, const double* scores, Team& team, FitGradient* gradients) const;

  const TreesFitKernels& kernels_;
  const TreesFitArgs& args_;
};

/// The smallest value up to which at least `quantile` of the weight lies; 0 without any weight. Sorts `values`, which
/// are (value, weight).
double weighted_quantile(std::vector<std::pair<double, double>>& values, double quantile);

/// Of gradients [begin, end).
FitGradientSummary summarize(const FitGradient* gradients, int64_t n);

}  // namespace waggle::cpu
