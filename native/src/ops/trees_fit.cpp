#include "waggle/ops/trees_fit.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/trees_fit.hpp"
#include "src/device_fit.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

long long wide(int64_t v) { return static_cast<long long>(v); }

// `name` says whose column it is: "" or "validation ".
Status check_column(const char* name, const char* column, const double* values, int64_t n, bool may_be_negative) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return fail(Code::kNotFinite, "%s%s is %s at row %lld", name, column, std::isnan(values[i]) ? "NaN" : "infinite",
                  wide(i));
    }
    if (!may_be_negative && values[i] < 0) {
      return fail(Code::kInvalidArgument, "%s%s is negative at row %lld", name, column, wide(i));
    }
  }
  return {};
}

Status check_labels(const TreesFitArgs& args, const TreesFitRows& rows, const char* name) {
  const int64_t n = rows.x.rows;
  switch (args.objective) {
    case TreesObjective::kLogistic:
      for (int64_t i = 0; i < n; ++i) {
        const double most = rows.trials != nullptr ? rows.trials[i] : 1;
        if (rows.y[i] < 0 || rows.y[i] > most) {
          return fail(Code::kInvalidArgument, "%sy is %g at row %lld; successes are from 0 to %g, the trials", name,
                      rows.y[i], wide(i), most);
        }
      }
      return {};
    case TreesObjective::kSoftmax:
      for (int64_t i = 0; i < n; ++i) {
        if (rows.y[i] < 0 || rows.y[i] >= args.n_classes || rows.y[i] != std::floor(rows.y[i])) {
          return fail(Code::kInvalidArgument, "%sy is %g at row %lld; a class is an integer from 0 to %d", name,
                      rows.y[i], wide(i), args.n_classes - 1);
        }
      }
      return {};
    case TreesObjective::kPoisson:
      return check_column(name, "y", rows.y, n, false);
    case TreesObjective::kLambdaRank:
      for (int64_t i = 0; i < n; ++i) {
        if (rows.y[i] < 0 || rows.y[i] > kTreesFitMaxRelevance || rows.y[i] != std::floor(rows.y[i])) {
          return fail(Code::kInvalidArgument, "%sy is %g at row %lld; a relevance is an integer from 0 to %d", name,
                      rows.y[i], wide(i), kTreesFitMaxRelevance);
        }
      }
      return {};
    case TreesObjective::kSquared:
    case TreesObjective::kQuantile:
      return {};
  }
  return {};
}

Status check_groups(const TreesFitRows& rows, const char* name) {
  if (rows.groups == nullptr || rows.n_groups < 1) {
    return fail(Code::kShape, "%sgroups are missing; lambdarank needs the number of rows of each query", name);
  }
  int64_t sum = 0;
  for (int64_t q = 0; q < rows.n_groups; ++q) sum += rows.groups[q];
  if (sum != rows.x.rows) {
    return fail(Code::kShape, "%sgroups add up to %lld rows; there are %lld", name, wide(sum), wide(rows.x.rows));
  }
  return {};
}

Status check_rows(const TreesFitArgs& args, const TreesFitRows& rows, const char* name) {
  const int64_t n = rows.x.rows;
  const int64_t n_targets = args.objective == TreesObjective::kSoftmax ? args.n_classes : 1;
  int64_t elements = 0;
  int64_t scores = 0;
  if (n < 1 || n > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "%snRows is %lld; it must be 1 to 2^31 - 1", name, wide(n));
  }
  if (!checked_product(n, rows.x.cols, &elements) || !checked_product(n, n_targets, &scores) ||
      scores > std::numeric_limits<int64_t>::max() / 64) {
    return fail(Code::kShape, "%ssizes overflow", name);
  }
  if (rows.x.data == nullptr || rows.y == nullptr) return fail(Code::kShape, "%sx or y is missing", name);
  if (rows.trials != nullptr && args.objective != TreesObjective::kLogistic) {
    return fail(Code::kInvalidArgument, "%strials go with the logistic objective only", name);
  }
  if (Status status = check_column(name, "y", rows.y, n, true); !status.ok()) return status;
  if (rows.trials != nullptr) {
    if (Status status = check_column(name, "trials", rows.trials, n, false); !status.ok()) return status;
  }
  if (rows.weights != nullptr) {
    if (Status status = check_column(name, "weights", rows.weights, n, false); !status.ok()) return status;
  }
  if (rows.offset != nullptr) {
    if (Status status = check_column(name, "offset", rows.offset, scores, true); !status.ok()) return status;
  }
  if (args.objective == TreesObjective::kLambdaRank) {
    if (Status status = check_groups(rows, name); !status.ok()) return status;
  } else if (rows.groups != nullptr) {
    return fail(Code::kInvalidArgument, "%sgroups go with the lambdarank objective only", name);
  }
  return check_labels(args, rows, name);
}

Status check_range(const char* name, double value, double least, double most) {
  if (value >= least && value <= most) return {};
  return fail(Code::kInvalidArgument, "%s is %g; it must be %g to %g", name, value, least, most);
}

Status check_features(const TreesFitArgs& args) {
  const int64_t p = args.train.x.cols;
  std::vector<uint8_t> categorical(static_cast<size_t>(p), 0);
  for (int64_t i = 0; i < args.n_categorical; ++i) {
    const int32_t f = args.categorical[i];
    if (f < 0 || f >= p) {
      return fail(Code::kInvalidArgument, "categorical[%lld] is %d; features are 0 to %lld", wide(i), f, wide(p - 1));
    }
    categorical[static_cast<size_t>(f)] = 1;
  }
  if (args.monotone == nullptr) return {};
  if (args.objective == TreesObjective::kQuantile || args.objective == TreesObjective::kLambdaRank) {
    return fail(Code::kInvalidArgument, "monotone features cannot be had with the quantile and lambdarank objectives");
  }
  for (int64_t f = 0; f < p; ++f) {
    const int8_t direction = args.monotone[f];
    if (direction < -1 || direction > 1) {
      return fail(Code::kInvalidArgument, "monotone[%lld] is %d; it must be -1, 0 or 1", wide(f), direction);
    }
    if (direction != 0 && categorical[static_cast<size_t>(f)] != 0) {
      return fail(Code::kInvalidArgument, "feature %lld is categorical; it cannot be monotone", wide(f));
    }
  }
  return {};
}

Status check(const TreesFitArgs& args) {
  constexpr double kMost = std::numeric_limits<float>::max();
  if (static_cast<uint32_t>(args.objective) >= static_cast<uint32_t>(kTreesObjectives) ||
      static_cast<uint32_t>(args.growth) > 1) {
    return fail(Code::kInvalidArgument, "unknown objective or growth");
  }
  if (args.objective == TreesObjective::kSoftmax && (args.n_classes < 2 || args.n_classes > kTreesFitMaxClasses)) {
    return fail(Code::kInvalidArgument, "nClasses is %d; it must be 2 to %d", args.n_classes, kTreesFitMaxClasses);
  }
  if (args.objective == TreesObjective::kQuantile && !(args.quantile > 0 && args.quantile < 1)) {
    return fail(Code::kInvalidArgument, "quantile is %g; it must lie between 0 and 1", args.quantile);
  }
  if (args.train.x.cols < 1 || args.train.x.cols > trees::kMaxFeatures) {
    return fail(Code::kShape, "nFeatures is %lld; it must be 1 to %d", wide(args.train.x.cols), trees::kMaxFeatures);
  }
  if (args.threads < 0) return fail(Code::kInvalidArgument, "threads is negative");
  for (const Status& status :
       {check_range("nTrees", args.n_trees, 1, kTreesFitMaxTrees),
        check_range("learningRate", args.learning_rate, 1e-9, 1e3),
        check_range("maxLeaves", args.max_leaves, 1, kTreesFitMaxLeaves),
        check_range("maxDepth", args.max_depth, 0, kTreesFitMaxDepth), check_range("maxBins", args.max_bins, 2, 255),
        check_range("minChildWeight", args.min_child_weight, 0, kMost),
        check_range("minChildRows", static_cast<double>(args.min_child_rows), 0, 2147483647.0),
        check_range("l1", args.l1, 0, kMost), check_range("l2", args.l2, 0, kMost),
        check_range("minGain", args.min_gain, 0, kMost), check_range("rowSample", args.row_sample, 1e-9, 1),
        check_range("featureSample", args.feature_sample, 1e-9, 1),
        check_range("earlyStoppingRounds", args.early_stopping_rounds, 0, kTreesFitMaxTrees)}) {
    if (!status.ok()) return status;
  }
  if (Status status = check_features(args); !status.ok()) return status;
  if (Status status = check_rows(args, args.train, ""); !status.ok()) return status;
  if (args.validation.x.rows == 0) {
    if (args.early_stopping_rounds > 0) {
      return fail(Code::kInvalidArgument, "earlyStoppingRounds needs a validation set");
    }
    return {};
  }
  if (args.validation.x.cols != args.train.x.cols) {
    return fail(Code::kShape, "validation has %lld features; the training rows have %lld", wide(args.validation.x.cols),
                wide(args.train.x.cols));
  }
  return check_rows(args, args.validation, "validation ");
}

// Below this, steps of microseconds and the copy take longer than the rows do here.
constexpr int64_t kRowsWorthACopy = 50'000;
constexpr double kVisitsWorthACopy = 5e8;

bool worth_the_copy(const TreesFitArgs& args) {
  return args.train.x.rows >= kRowsWorthACopy &&
         static_cast<double>(args.train.x.rows) * static_cast<double>(args.train.x.cols) * args.n_trees >=
             kVisitsWorthACopy;
}

bool goes_to_device(const Registry& r, const TreesFitArgs& args, const RunContext& context) {
  if (r.plugin == nullptr || r.plugin->ops->fit_open == nullptr) return false;
  return r.plugin_forced || (context.parallel && args.threads != 1 && worth_the_copy(args));
}

}  // namespace

Status trees_fit(const TreesFitArgs& args, const RunContext& context, TreesFitResult* result) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    *result = {};
    if (Status status = check(args); !status.ok()) return status;
    Status status;
    if (goes_to_device(r, args, context)) {
      DeviceFit device(r);
      status = cpu::trees_fit(*r.table, args, context, result, &device);
      // A failing device costs time, not the model, unless the caller insisted on it.
      if (device.failed() && !r.plugin_forced && !context.stop_requested()) {
        *result = {};
        status = cpu::trees_fit(*r.table, args, context, result);
      }
    } else {
      status = cpu::trees_fit(*r.table, args, context, result);
    }
    return status.ok() ? trees::validate(result->ensemble) : status;
  });
}

}  // namespace waggle
