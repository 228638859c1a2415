#include "waggle/ops/kmeans.hpp"

#include <atomic>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kX,
  kNRows,
  kDim,
  kK,
  kSeed,
  kMaxIterations,
  kTolerance,
  kSamplesPerCluster,
  kStart,
  kCentroids,
  kAssignments,
  kSummary,  // Float64Array: iterations, converged, objective, rows sampled, part done
  kCount
};
constexpr int64_t kSummaryValues = 5;

class KmeansJob final : public Job {
 public:
  explicit KmeansJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "kmeans takes %d arguments", static_cast<int>(kCount)));
    }
    const int64_t n = info[kNRows].ToNumber().Int64Value();
    const int64_t dim = info[kDim].ToNumber().Int64Value();
    args_.k = info[kK].ToNumber().Int32Value();
    int64_t values = 0;
    int64_t centroid_values = 0;
    if (!checked_product(n, dim, &values) || !checked_product(args_.k, dim, &centroid_values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.x = {input<float>(env, info[kX], values, "x"), n, dim};
    args_.seed = static_cast<uint64_t>(info[kSeed].ToNumber().Int64Value());
    args_.max_iterations = info[kMaxIterations].ToNumber().Int32Value();
    args_.tolerance = info[kTolerance].ToNumber().DoubleValue();
    args_.samples_per_cluster = info[kSamplesPerCluster].ToNumber().Int64Value();
    args_.start = optional_input<float>(env, info[kStart], centroid_values, "start");
    args_.centroids = output<float>(env, info[kCentroids], centroid_values, "centroids");
    args_.assignments = output<int32_t>(env, info[kAssignments], n, "assignments");
    summary_ = output<double>(env, info[kSummary], kSummaryValues, "summary");
    args_.progress = [this](double done) {
      // JavaScript looks at it now and then, without waiting for us.
      std::atomic_ref<double>(summary_[4]).store(done, std::memory_order_relaxed);
    };
  }

  Status execute(const RunContext& context) override {
    KmeansResult result;
    const Status status = kmeans(args_, context, &result);
    if (!status.ok()) return status;
    summary_[0] = result.iterations;
    summary_[1] = result.converged ? 1 : 0;
    summary_[2] = result.objective;
    summary_[3] = static_cast<double>(result.n_sampled);
    return {};
  }

 private:
  KmeansArgs args_;
  double* summary_ = nullptr;
};

}  // namespace

Napi::Value kmeans_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<KmeansJob>(info));
}

}  // namespace waggle::addon
