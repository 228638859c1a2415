#include "waggle/ops/effects_fit.hpp"

#include <cmath>

#include "cpu/effects_fit.hpp"

namespace waggle {

namespace {

constexpr int64_t kMostUnknowns = int64_t{1} << 31;

Status check_column(const char* name, const double* values, int64_t n, bool may_be_negative) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return fail(Code::kNotFinite, "%s is %s at %lld", name, std::isnan(values[i]) ? "NaN" : "infinite",
                  static_cast<long long>(i));
    }
    if (!may_be_negative && values[i] < 0) {
      return fail(Code::kInvalidArgument, "%s is negative at %lld", name, static_cast<long long>(i));
    }
  }
  return {};
}

Status check_belief(const char* name, double mean, double variance) {
  if (!std::isfinite(mean) || !std::isfinite(variance)) return fail(Code::kNotFinite, "%s is not finite", name);
  if (!(variance > 0)) return fail(Code::kInvalidArgument, "the variance of %s must be above 0", name);
  return {};
}

Status check_sizes(const EffectsFitArgs& args) {
  if (args.n_rows < 0) return fail(Code::kShape, "nRows is negative");
  if (args.n_levels < 0 || args.n_levels > kEffectsMaxLevels) {
    return fail(Code::kShape, "%d levels; there may be up to %d", args.n_levels, kEffectsMaxLevels);
  }
  if (args.columns.cols < 0 || args.columns.cols > kEffectsMaxColumns) {
    return fail(Code::kShape, "%lld columns; there may be up to %lld", static_cast<long long>(args.columns.cols),
                static_cast<long long>(kEffectsMaxColumns));
  }
  const int64_t n_unknowns = effects_unknowns(args.levels, args.n_levels, args.columns.cols);
  if (n_unknowns < 0 || n_unknowns >= kMostUnknowns) return fail(Code::kTooLarge, "there are too many groups");
  const bool rows_missing = args.n_rows > 0 && (args.successes == nullptr || args.exposure == nullptr ||
                                                (args.n_levels > 0 && args.codes == nullptr) ||
                                                (args.columns.cols > 0 && args.columns.data == nullptr));
  const bool beliefs_missing =
      args.columns.cols > 0 && (args.column_means == nullptr || args.column_variances == nullptr);
  if (rows_missing || beliefs_missing || args.state == nullptr || args.information == nullptr) {
    return fail(Code::kShape, "an input or output is missing");
  }
  return {};
}

Status check_codes(const EffectsFitArgs& args) {
  for (int64_t i = 0; i < args.n_rows; ++i) {
    for (int32_t l = 0; l < args.n_levels; ++l) {
      const int32_t code = args.codes[i * args.n_levels + l];
      if (code >= -1 && code < args.levels[l].size) continue;
      return fail(Code::kInvalidArgument, "row %lld has group %d of %lld at level %d", static_cast<long long>(i), code,
                  static_cast<long long>(args.levels[l].size), l);
    }
  }
  return {};
}

Status check(const EffectsFitArgs& args) {
  if (Status status = check_sizes(args); !status.ok()) return status;
  if (args.mean_rates && args.link != EffectsLink::kLog) {
    return fail(Code::kInvalidArgument, "mean rates take a log link");
  }
  if (args.max_iterations < 1) return fail(Code::kInvalidArgument, "maxIterations must be at least 1");
  if (!(args.tolerance > 0) || !std::isfinite(args.tolerance)) {
    return fail(Code::kInvalidArgument, "tolerance must be above 0");
  }
  if (!(args.dispersion >= 0) || !std::isfinite(args.dispersion)) {
    return fail(Code::kInvalidArgument, "dispersion must be at least 0");
  }
  if (args.traces != nullptr && args.trace_probes < 1) {
    return fail(Code::kInvalidArgument, "traces take at least 1 probe");
  }
  if (Status status = check_belief("base", args.base_mean, args.base_variance); !status.ok()) return status;
  for (int32_t l = 0; l < args.n_levels; ++l) {
    if (Status status = check_belief("a level", args.levels[l].mean, args.levels[l].variance); !status.ok()) {
      return status;
    }
  }
  for (int64_t c = 0; c < args.columns.cols; ++c) {
    if (Status status = check_belief("a column", args.column_means[c], args.column_variances[c]); !status.ok()) {
      return status;
    }
  }
  const int64_t n = args.n_rows;
  if (Status status = check_column("successes", args.successes, n, false); !status.ok()) return status;
  if (Status status = check_column("exposure", args.exposure, n, false); !status.ok()) return status;
  if (args.offset != nullptr) {
    if (Status status = check_column("offset", args.offset, n, true); !status.ok()) return status;
  }
  if (Status status = check_column("columns", args.columns.data, n * args.columns.cols, true); !status.ok()) {
    return status;
  }
  if (args.start != nullptr) {
    const int64_t n_unknowns = effects_unknowns(args.levels, args.n_levels, args.columns.cols);
    if (Status status = check_column("start", args.start, n_unknowns, true); !status.ok()) return status;
  }
  return check_codes(args);
}

}  // namespace

int64_t effects_unknowns(const EffectsLevel* levels, int32_t n_levels, int64_t n_columns) {
  int64_t n = 1 + n_columns;
  for (int32_t l = 0; l < n_levels; ++l) {
    if (levels[l].size < 0 || levels[l].size >= kMostUnknowns) return -1;
    n += levels[l].size;
  }
  return n;
}

Status effects_fit(const EffectsFitArgs& args, const RunContext& context, EffectsFitResult* result) {
  return guarded([&]() -> Status {
    *result = {};
    if (Status status = check(args); !status.ok()) return status;
    return cpu::effects_fit(args, context, result);
  });
}

}  // namespace waggle
