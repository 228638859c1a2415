#include "waggle/ops/glm_sparse.hpp"

#include <cmath>

#include "cpu/glm_sparse.hpp"

namespace waggle {

namespace {

Status check_penalty(const char* name, const SparsePenalty& penalty, int64_t n_features) {
  const int64_t n = penalty.each != nullptr ? n_features : 1;
  for (int64_t j = 0; j < n; ++j) {
    const double value = penalty[j];
    if (std::isnan(value) || std::isinf(value)) {
      return fail(Code::kNotFinite, "%s is not finite at feature %lld", name, static_cast<long long>(j));
    }
    if (value < 0)
      return fail(Code::kInvalidArgument, "%s is negative at feature %lld", name, static_cast<long long>(j));
  }
  return {};
}

Status check(const GlmSparseArgs& args, const RunContext& context) {
  if (args.rows.n_rows < 1) return fail(Code::kShape, "nRows must be at least 1");
  if (args.n_features < 1 || args.n_features > kSparseMaxFeatures) {
    return fail(Code::kInvalidArgument, "nFeatures is %lld; it must be 1 to %lld",
                static_cast<long long>(args.n_features), static_cast<long long>(kSparseMaxFeatures));
  }
  if (args.coefficients == nullptr) return fail(Code::kShape, "coefficients is missing");
  if (args.max_iterations < 1) return fail(Code::kInvalidArgument, "maxIterations must be at least 1");
  if (!(args.tolerance > 0) || !std::isfinite(args.tolerance)) {
    return fail(Code::kInvalidArgument, "tolerance must be above 0");
  }
  if (Status status = check_sparse_rows(args.rows, args.n_features, 0, context); !status.ok()) return status;
  if (Status status = check_sparse_targets(args.targets, args.rows.n_rows); !status.ok()) return status;
  if (Status status = check_penalty("l1", args.l1, args.n_features); !status.ok()) return status;
  if (Status status = check_penalty("l2", args.l2, args.n_features); !status.ok()) return status;
  if (args.start == nullptr) return {};
  for (int64_t j = 0; j < args.n_features + (args.intercept ? 1 : 0); ++j) {
    if (!std::isfinite(args.start[j])) {
      return fail(Code::kNotFinite, "start is not finite at feature %lld", static_cast<long long>(j));
    }
  }
  return {};
}

}  // namespace

Status glm_sparse(const GlmSparseArgs& args, const RunContext& context, GlmSparseResult* result) {
  return guarded([&]() -> Status {
    *result = {};
    if (Status status = check(args, context); !status.ok()) return status;
    return cpu::glm_sparse(args, context, result);
  });
}

}  // namespace waggle
