#include "waggle/ops/kmeans.hpp"

#include <cmath>
#include <limits>

#include "cpu/kmeans.hpp"
#include "src/device_points.hpp"
#include "src/registry.hpp"
#include "src/squared_length.hpp"

namespace waggle {

namespace {

Status check_finite(const float* values, int64_t rows, int64_t dim, const char* name) {
  for (int64_t r = 0; r < rows; ++r) {
    if (!(squared_length(values + r * dim, dim) <= kLargestSquare)) {
      return fail(Code::kNotFinite, "%s row %lld holds NaN or infinity, or its squared length exceeds 1e36", name,
                  static_cast<long long>(r));
    }
  }
  return {};
}

Status check(const KmeansArgs& args) {
  const int64_t n = args.x.rows;
  const int64_t dim = args.x.cols;
  if (dim < 1) return fail(Code::kShape, "dim is %lld; it must be at least 1", static_cast<long long>(dim));
  if (n < 1 || n > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "nRows is %lld; it must be 1 to 2^31 - 1", static_cast<long long>(n));
  }
  int64_t elements = 0;
  if (!checked_product(n, dim, &elements)) return fail(Code::kShape, "sizes overflow");
  if (args.k < 1 || args.k > kKmeansMaxClusters || args.k > n) {
    return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d and at most the number of rows", args.k,
                kKmeansMaxClusters);
  }
  if (args.max_iterations < 0 || args.max_iterations > kKmeansMaxIterations) {
    return fail(Code::kInvalidArgument, "maxIterations is %d; it must be 0 to %d", args.max_iterations,
                kKmeansMaxIterations);
  }
  if (!(args.tolerance >= 0) || args.samples_per_cluster < 0) {
    return fail(Code::kInvalidArgument, "tolerance and samplesPerCluster must not be negative");
  }
  if (args.x.data == nullptr || args.centroids == nullptr || args.assignments == nullptr) {
    return fail(Code::kShape, "x or an output is missing");
  }
  if (Status status = check_finite(args.x.data, n, dim, "x"); !status.ok()) return status;
  if (args.start != nullptr) return check_finite(args.start, args.k, dim, "start");
  return {};
}

}  // namespace

Status kmeans(const KmeansArgs& args, const RunContext& context, KmeansResult* result) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (DevicePoints::is_there(r) && (r.plugin_forced || context.parallel)) {
      DevicePoints device(r, context);
      return cpu::kmeans(*r.table, args, context, result, &device);
    }
    return cpu::kmeans(*r.table, args, context, result);
  });
}

}  // namespace waggle
