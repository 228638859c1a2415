#include "waggle/ops/glm_fit.hpp"

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kX,
  kNRows,
  kNFeatures,
  kSuccesses,
  kTrials,
  kWeights,
  kOffset,
  kL2,
  kL1,
  kIntercept,
  kStandardize,
  kMaxIterations,
  kTolerance,
  kStart,
  kCoefficients,
  kStandardErrors,
  kSummary,  // Float64Array: intercept, its standard error, iterations, converged, deviance, logLikelihood,
             // l1Activation
  kCount
};
constexpr int64_t kSummaryValues = 7;

class GlmFitJob final : public Job {
 public:
  explicit GlmFitJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "glmFit takes %d arguments", static_cast<int>(kCount)));
    }
    const int64_t n = info[kNRows].ToNumber().Int64Value();
    const int64_t p = info[kNFeatures].ToNumber().Int64Value();
    int64_t values = 0;
    if (!checked_product(n, p, &values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.x = {input<float>(env, info[kX], values, "x"), n, p};
    args_.successes = input<double>(env, info[kSuccesses], n, "successes");
    args_.trials = input<double>(env, info[kTrials], n, "trials");
    args_.weights = optional_input<double>(env, info[kWeights], n, "weights");
    args_.offset = optional_input<double>(env, info[kOffset], n, "offset");
    args_.l2 = input<double>(env, info[kL2], p, "l2");
    args_.l1 = optional_input<double>(env, info[kL1], p, "l1");
    args_.intercept = info[kIntercept].ToBoolean();
    args_.standardize = info[kStandardize].ToBoolean();
    args_.max_iterations = info[kMaxIterations].ToNumber().Int32Value();
    args_.tolerance = info[kTolerance].ToNumber().DoubleValue();
    args_.start = optional_input<double>(env, info[kStart], p + (args_.intercept ? 1 : 0), "start");
    args_.coefficients = output<double>(env, info[kCoefficients], p, "coefficients");
    args_.standard_errors = output<double>(env, info[kStandardErrors], p, "standardErrors");
    summary_ = output<double>(env, info[kSummary], kSummaryValues, "summary");
  }

  Status execute(const RunContext& context) override {
    GlmFitResult result;
    Status status = glm_fit(args_, context, &result);
    summary_[0] = result.intercept;
    summary_[1] = result.intercept_standard_error;
    summary_[2] = result.iterations;
    summary_[3] = result.converged ? 1 : 0;
    summary_[4] = result.deviance;
    summary_[5] = result.log_likelihood;
    summary_[6] = result.l1_activation;
    return status;
  }

 private:
  GlmFitArgs args_;
  double* summary_ = nullptr;
};

}  // namespace

Napi::Value glm_fit_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<GlmFitJob>(info));
}

}  // namespace waggle::addon
