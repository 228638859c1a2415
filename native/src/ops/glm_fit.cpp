#include "waggle/ops/glm_fit.hpp"

#include <cmath>

#include "cpu/glm_fit.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

Status check_column(const char* name, const double* values, int64_t n, bool may_be_negative) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return fail(Code::kNotFinite, "%s is %s at row %lld", name, std::isnan(values[i]) ? "NaN" : "infinite",
                  static_cast<long long>(i));
    }
    if (!may_be_negative && values[i] < 0) {
      return fail(Code::kInvalidArgument, "%s is negative at row %lld", name, static_cast<long long>(i));
    }
  }
  return {};
}

Status check(const GlmFitArgs& args) {
  const int64_t n = args.x.rows;
  const int64_t p = args.x.cols;
  if (n < 1) return fail(Code::kShape, "nRows is %lld; it must be at least 1", static_cast<long long>(n));
  if (p < 0 || p > kGlmMaxFeatures || (p == 0 && !args.intercept)) {
    return fail(Code::kShape, "nFeatures is %lld; it must be 1 to %lld (0 only with an intercept)",
                static_cast<long long>(p), static_cast<long long>(kGlmMaxFeatures));
  }
  int64_t elements = 0;
  if (!checked_product(n, p, &elements)) return fail(Code::kShape, "sizes overflow");
  if ((p > 0 && (args.x.data == nullptr || args.l2 == nullptr || args.coefficients == nullptr ||
                 args.standard_errors == nullptr)) ||
      args.successes == nullptr || args.trials == nullptr) {
    return fail(Code::kShape, "an input or output is missing");
  }
  if (args.max_iterations < 1) return fail(Code::kInvalidArgument, "maxIterations must be at least 1");
  if (!(args.tolerance > 0) || !std::isfinite(args.tolerance)) {
    return fail(Code::kInvalidArgument, "tolerance must be above 0");
  }
  if (Status status = check_column("successes", args.successes, n, false); !status.ok()) return status;
  if (Status status = check_column("trials", args.trials, n, false); !status.ok()) return status;
  for (int64_t i = 0; i < n; ++i) {
    if (args.successes[i] > args.trials[i]) {
      return fail(Code::kInvalidArgument, "successes exceed trials at row %lld", static_cast<long long>(i));
    }
  }
  if (args.weights != nullptr) {
    if (Status status = check_column("weights", args.weights, n, false); !status.ok()) return status;
  }
  if (args.offset != nullptr) {
    if (Status status = check_column("offset", args.offset, n, true); !status.ok()) return status;
  }
  if (args.l2 != nullptr) {
    if (Status status = check_column("l2", args.l2, p, false); !status.ok()) return status;
  }
  if (args.l1 != nullptr) {
    if (Status status = check_column("l1", args.l1, p, false); !status.ok()) return status;
  }
  if (args.start != nullptr) {
    if (Status status = check_column("start", args.start, p + (args.intercept ? 1 : 0), true); !status.ok()) {
      return status;
    }
  }
  return {};
}

}  // namespace

Status glm_fit(const GlmFitArgs& args, const RunContext& context, GlmFitResult* result) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    *result = {};
    if (Status status = check(args); !status.ok()) return status;
    return cpu::glm_fit(*r.table, args, context, result);
  });
}

}  // namespace waggle
