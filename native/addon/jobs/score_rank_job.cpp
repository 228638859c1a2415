#include "waggle/ops/score_rank.hpp"

#include <algorithm>
#include <limits>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kParams,  // Float64Array: n, k, maxPerGroup, then the five weights
  kQ,
  kSpend,
  kPayout,
  kFit,
  kAdvertiser,
  kExplore,
  kGoalUnits,
  kFrequency,
  kMu,
  kOmega,
  kRho,
  kFilter,
  kGroup,
  kSeparation,
  kRows,
  kScores,
  kTerms,
  kCounts,  // Int32Array: nSelected, nEligible
  kCount
};

constexpr const char* kNames[kCount] = {"params",     "q",         "spend",  "payout", "fit",   "advertiser", "explore",
                                        "goalUnits",  "frequency", "mu",     "omega",  "rho",   "filter",     "group",
                                        "separation", "rows",      "scores", "terms",  "counts"};
constexpr int kParamCount = 8;

Status read_params(const double* params, ScoreRankArgs* args) {
  constexpr double kLimit = std::numeric_limits<int32_t>::max();
  if (!(params[0] >= 0) || !(params[0] <= kLimit)) return fail(Code::kShape, "nCandidates is out of range");
  if (!(params[1] >= 1) || !(params[1] <= kLimit)) return fail(Code::kInvalidArgument, "k is out of range");
  if (!(params[2] >= 0) || !(params[2] <= kLimit)) return fail(Code::kInvalidArgument, "maxPerGroup is out of range");
  args->n = static_cast<int64_t>(params[0]);
  args->k = static_cast<int32_t>(params[1]);
  args->max_per_group = static_cast<int32_t>(params[2]);
  args->weights = {params[3], params[4], params[5], params[6], params[7]};
  return {};
}

// `get(argument, type, length, optional)` returns the data pointer, null when absent.
template <typename Get>
void read_columns(Get&& get, ScoreRankArgs* args) {
  const int64_t n = args->n;
  const auto column = [&](Argument a, bool optional) {
    return static_cast<const float*>(get(a, napi_float32_array, n, optional));
  };
  args->q = column(kQ, false);
  args->spend = column(kSpend, false);
  args->payout = column(kPayout, false);
  args->fit = column(kFit, false);
  args->advertiser = column(kAdvertiser, true);
  args->explore = column(kExplore, true);
  args->goal_units = column(kGoalUnits, true);
  args->frequency = column(kFrequency, true);
  args->mu = column(kMu, true);
  args->omega = column(kOmega, true);
  args->rho = column(kRho, true);
  args->filter.bytes = (n + 7) / 8;
  args->filter.data = static_cast<const uint8_t*>(get(kFilter, napi_uint8_array, args->filter.bytes, true));
  args->group = static_cast<const int32_t*>(get(kGroup, napi_int32_array, n, true));
  args->separation = static_cast<const int32_t*>(get(kSeparation, napi_int32_array, n, true));
  // No more can be chosen than there are candidates.
  args->k = static_cast<int32_t>(std::min<int64_t>(args->k, std::max<int64_t>(n, 1)));
  args->rows = static_cast<int32_t*>(get(kRows, napi_int32_array, args->k, false));
  args->scores = static_cast<double*>(get(kScores, napi_float64_array, args->k, false));
  args->terms =
      static_cast<double*>(get(kTerms, napi_float64_array, static_cast<int64_t>(args->k) * kScoreTerms, false));
}

class ScoreRankJob final : public Job {
 public:
  explicit ScoreRankJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    check(env, read_params(input<double>(env, info[kParams], kParamCount, kNames[kParams]), &args_));
    read_columns(
        [&](Argument a, napi_typedarray_type type, int64_t length, bool optional) -> void* {
          if (optional && is_absent(env, info[a])) return nullptr;
          const bool writes = a >= kRows;
          switch (type) {
            case napi_float32_array:
              return input<float>(env, info[a], length, kNames[a]);
            case napi_uint8_array:
              return input<uint8_t>(env, info[a], length, kNames[a]);
            case napi_int32_array:
              return writes ? output<int32_t>(env, info[a], length, kNames[a])
                            : input<int32_t>(env, info[a], length, kNames[a]);
            default:
              return output<double>(env, info[a], length, kNames[a]);
          }
        },
        &args_);
    counts_ = output<int32_t>(env, info[kCounts], 2, kNames[kCounts]);
  }

  Status execute(const RunContext& context) override {
    ScoreRankCounts counts;
    Status status = score_rank(args_, context, &counts);
    counts_[0] = counts.n_selected;
    counts_[1] = counts.n_eligible;
    return status;
  }

 private:
  ScoreRankArgs args_;
  int32_t* counts_ = nullptr;
};

}  // namespace

Napi::Value score_rank_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<ScoreRankJob>(info));
}

// The hot path: plain Node-API calls, one per array, nothing allocated.
napi_value score_rank_sync(napi_env env, napi_callback_info info) {
  napi_value arguments[kCount];
  size_t count = kCount;
  if (napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) != napi_ok) return nullptr;
  Status status;
  const auto get = [&](Argument a, napi_typedarray_type type, int64_t length, bool optional) -> void* {
    if (!status.ok()) return nullptr;
    if (optional && is_absent(env, arguments[a])) return nullptr;
    Borrowed borrowed;
    status = borrow(env, arguments[a], type, length, kNames[a], false, &borrowed);
    return borrowed.data;
  };
  ScoreRankArgs args;
  ScoreRankCounts counts;
  const double* params = static_cast<const double*>(get(kParams, napi_float64_array, kParamCount, false));
  if (status.ok()) status = read_params(params, &args);
  if (status.ok()) read_columns(get, &args);
  int32_t* counts_out = static_cast<int32_t*>(get(kCounts, napi_int32_array, 2, false));
  if (status.ok()) {
    RunContext context;
    context.parallel = false;
    status = score_rank(args, context, &counts);
  }
  if (!status.ok()) {
    to_error(env, status).ThrowAsJavaScriptException();
    return nullptr;
  }
  counts_out[0] = counts.n_selected;
  counts_out[1] = counts.n_eligible;
  return nullptr;
}

}  // namespace waggle::addon
