#include "waggle/ops/glm_sparse.hpp"

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/sparse_rows.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kRows,
  kTargets = kRows + kRowsArguments,
  kNFeatures = kTargets + kTargetsArguments,
  kL1,  // a number, or one each
  kL2,
  kIntercept,
  kMaxIterations,
  kTolerance,
  kStart,
  kCoefficients,
  kArguments
};

class GlmSparseJob final : public Job {
 public:
  explicit GlmSparseJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    expect_count(info, kArguments, "glmSparse");
    args_.rows = borrow_rows(*this, info, kRows);
    args_.targets = borrow_targets(*this, info, kTargets, args_.rows.n_rows);
    args_.n_features = info[kNFeatures].ToNumber().Int64Value();
    args_.l1 = penalty(info, kL1, "l1");
    args_.l2 = penalty(info, kL2, "l2");
    args_.intercept = info[kIntercept].ToBoolean();
    args_.max_iterations = info[kMaxIterations].ToNumber().Int32Value();
    args_.tolerance = info[kTolerance].ToNumber().DoubleValue();
    const int64_t n_parameters = args_.n_features + (args_.intercept ? 1 : 0);
    args_.start = optional_input<double>(env, info[kStart], n_parameters, "start");
    args_.coefficients = output<double>(env, info[kCoefficients], args_.n_features, "coefficients");
  }

  Status execute(const RunContext& context) override { return glm_sparse(args_, context, &result_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("intercept", result_.intercept);
    answer.Set("iterations", result_.iterations);
    answer.Set("converged", result_.converged);
    answer.Set("deviance", result_.deviance);
    answer.Set("logLikelihood", result_.log_likelihood);
    answer.Set("nNonZero", static_cast<double>(result_.n_nonzero));
    answer.Set("l1Activation", result_.l1_activation);
    return answer;
  }

 private:
  SparsePenalty penalty(const Napi::CallbackInfo& info, Argument at, const char* name) {
    if (info[at].IsNumber()) return {info[at].ToNumber().DoubleValue(), nullptr};
    return {0, input<double>(info.Env(), info[at], args_.n_features, name)};
  }

  GlmSparseArgs args_;
  GlmSparseResult result_;
};

}  // namespace

Napi::Value glm_sparse_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<GlmSparseJob>(info));
}

}  // namespace waggle::addon
