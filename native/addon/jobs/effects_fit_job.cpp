#include "waggle/ops/effects_fit.hpp"

#include <vector>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kLink,  // 0 log, 1 logit
  kNRows,
  kSuccesses,
  kExposure,
  kOffset,
  kLevels,  // Float64Array: size, mean and variance of each level
  kCodes,
  kColumns,
  kNColumns,
  kColumnBeliefs,  // Float64Array: means, then variances
  kBaseMean,
  kBaseVariance,
  kDispersion,
  kMeanRates,
  kMaxIterations,
  kTolerance,
  kTraceProbes,
  kStart,
  kState,
  kInformation,
  kTraces,
  kCount
};
constexpr int64_t kLevelValues = 3;

class EffectsFitJob final : public Job {
 public:
  explicit EffectsFitJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "effectsFit takes %d arguments", static_cast<int>(kCount)));
    }
    args_.link = static_cast<EffectsLink>(info[kLink].ToNumber().Int32Value());
    args_.n_rows = info[kNRows].ToNumber().Int64Value();
    args_.successes = input<double>(env, info[kSuccesses], args_.n_rows, "successes");
    args_.exposure = input<double>(env, info[kExposure], args_.n_rows, "exposure");
    args_.offset = optional_input<double>(env, info[kOffset], args_.n_rows, "offset");
    const int64_t n_levels =
        static_cast<int64_t>(info[kLevels].As<Napi::Float64Array>().ElementLength()) / kLevelValues;
    if (n_levels > kEffectsMaxLevels) throw to_error(env, fail(Code::kShape, "there are too many levels"));
    const double* beliefs = input<double>(env, info[kLevels], n_levels * kLevelValues, "levels");
    for (int64_t l = 0; l < n_levels; ++l) {
      const double* own = beliefs + l * kLevelValues;
      levels_.push_back({static_cast<int64_t>(own[0]), own[1], own[2]});
    }
    args_.levels = levels_.data();
    args_.n_levels = static_cast<int32_t>(n_levels);
    const int64_t n_columns = info[kNColumns].ToNumber().Int64Value();
    int64_t n_codes = 0;
    int64_t n_values = 0;
    const int64_t n_unknowns = effects_unknowns(args_.levels, args_.n_levels, n_columns);
    if (n_columns < 0 || n_unknowns < 0 || !checked_product(args_.n_rows, n_levels, &n_codes) ||
        !checked_product(args_.n_rows, n_columns, &n_values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.codes = input<int32_t>(env, info[kCodes], n_codes, "codes");
    args_.columns = {optional_input<double>(env, info[kColumns], n_values, "columns"), args_.n_rows, n_columns};
    args_.column_means = optional_input<double>(env, info[kColumnBeliefs], 2 * n_columns, "columnBeliefs");
    args_.column_variances = args_.column_means == nullptr ? nullptr : args_.column_means + n_columns;
    args_.base_mean = info[kBaseMean].ToNumber().DoubleValue();
    args_.base_variance = info[kBaseVariance].ToNumber().DoubleValue();
    args_.dispersion = info[kDispersion].ToNumber().DoubleValue();
    args_.mean_rates = info[kMeanRates].ToBoolean();
    args_.max_iterations = info[kMaxIterations].ToNumber().Int32Value();
    args_.tolerance = info[kTolerance].ToNumber().DoubleValue();
    args_.trace_probes = info[kTraceProbes].ToNumber().Int32Value();
    args_.start = optional_input<double>(env, info[kStart], n_unknowns, "start");
    args_.state = output<double>(env, info[kState], n_unknowns, "state");
    args_.information = output<double>(env, info[kInformation], n_unknowns, "information");
    if (args_.trace_probes > 0) args_.traces = output<double>(env, info[kTraces], n_levels, "traces");
  }

  Status execute(const RunContext& context) override { return effects_fit(args_, context, &result_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("iterations", result_.iterations);
    answer.Set("products", static_cast<double>(result_.products));
    answer.Set("converged", result_.converged);
    return answer;
  }

 private:
  std::vector<EffectsLevel> levels_;
  EffectsFitArgs args_;
  EffectsFitResult result_;
};

}  // namespace

Napi::Value effects_fit_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<EffectsFitJob>(info));
}

}  // namespace waggle::addon
