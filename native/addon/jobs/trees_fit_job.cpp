#include "waggle/ops/trees_fit.hpp"

#include <atomic>
#include <memory>
#include <utility>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/trees_handle.hpp"

namespace waggle::addon {

namespace {

// Columns of a set of rows, twice: training, then validation.
enum { kX, kNRows, kY, kTrials, kWeights, kOffset, kGroups, kRowsCount };

enum Argument {
  kTrain = 0,
  kValidation = kTrain + kRowsCount,
  kNFeatures = kValidation + kRowsCount,
  kNTargets,
  kCategorical,
  kMonotone,
  kNumbers,   // Float64Array: see kObjective …
  kProgress,  // Float64Array [1]: rounds done
  kCount
};

enum Number {
  kObjective,
  kNClasses,
  kQuantile,
  kNTrees,
  kLearningRate,
  kMaxLeaves,
  kMaxDepth,
  kGrowth,
  kMaxBins,
  kMinChildWeight,
  kMinChildRows,
  kL1,
  kL2,
  kMinGain,
  kRowSample,
  kFeatureSample,
  kSeed,
  kThreads,
  kEarlyStoppingRounds,
  kNumbersCount
};

class TreesFitJob final : public Job {
 public:
  explicit TreesFitJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "treesFit takes %d arguments", static_cast<int>(kCount)));
    }
    const int64_t p = info[kNFeatures].ToNumber().Int64Value();
    const int64_t n_targets = info[kNTargets].ToNumber().Int64Value();
    args_.train = rows(info, kTrain, p, n_targets);
    if (!is_absent(env, info[static_cast<size_t>(kValidation) + kX]))
      args_.validation = rows(info, kValidation, p, n_targets);
    args_.categorical = optional_input<int32_t>(env, info[kCategorical], 0, "categorical");
    if (args_.categorical != nullptr) args_.n_categorical = length_of(info[kCategorical]);
    args_.monotone = optional_input<int8_t>(env, info[kMonotone], p, "monotone");
    const double* const number = input<double>(env, info[kNumbers], kNumbersCount, "numbers");
    args_.objective = static_cast<TreesObjective>(static_cast<int32_t>(number[kObjective]));
    args_.n_classes = static_cast<int32_t>(number[kNClasses]);
    args_.quantile = number[kQuantile];
    args_.n_trees = static_cast<int32_t>(number[kNTrees]);
    args_.learning_rate = number[kLearningRate];
    args_.max_leaves = static_cast<int32_t>(number[kMaxLeaves]);
    args_.max_depth = static_cast<int32_t>(number[kMaxDepth]);
    args_.growth = static_cast<TreesGrowth>(static_cast<int32_t>(number[kGrowth]));
    args_.max_bins = static_cast<int32_t>(number[kMaxBins]);
    args_.min_child_weight = number[kMinChildWeight];
    args_.min_child_rows = static_cast<int64_t>(number[kMinChildRows]);
    args_.l1 = number[kL1];
    args_.l2 = number[kL2];
    args_.min_gain = number[kMinGain];
    args_.row_sample = number[kRowSample];
    args_.feature_sample = number[kFeatureSample];
    args_.seed = static_cast<uint64_t>(number[kSeed]);
    args_.threads = static_cast<int32_t>(number[kThreads]);
    args_.early_stopping_rounds = static_cast<int32_t>(number[kEarlyStoppingRounds]);
    double* const progress = output<double>(env, info[kProgress], 1, "progress");
    args_.progress = [progress](int32_t rounds) {
      // JavaScript looks at it now and then, without waiting for us.
      std::atomic_ref<double>(*progress).store(rounds, std::memory_order_relaxed);
    };
  }

  Status execute(const RunContext& context) override {
    if (Status status = trees_fit(args_, context, &fitted_); !status.ok()) return status;
    made_ = std::make_shared<TreesModel>();
    return trees::Model::create(std::move(fitted_.ensemble), &made_->model);
  }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("trees", describe_trees(env, made_));
    answer.Set("bestTree", fitted_.best_round);
    answer.Set("trainLoss", copy(env, fitted_.train_loss));
    answer.Set("validationLoss", copy(env, fitted_.validation_loss));
    answer.Set("gain", copy(env, fitted_.gain));
    answer.Set("splits", copy(env, fitted_.splits));
    return answer;
  }

 private:
  static int64_t length_of(const Napi::Value& array) {
    return static_cast<int64_t>(array.As<Napi::TypedArray>().ElementLength());
  }

  static Napi::Float64Array copy(Napi::Env env, const std::vector<double>& values) {
    Napi::Float64Array array = Napi::Float64Array::New(env, values.size());
    std::copy(values.begin(), values.end(), array.Data());
    return array;
  }

  TreesFitRows rows(const Napi::CallbackInfo& info, size_t first, int64_t p, int64_t n_targets) {
    const Napi::Env env = info.Env();
    const int64_t n = info[first + kNRows].ToNumber().Int64Value();
    int64_t values = 0;
    int64_t scores = 0;
    if (!checked_product(n, p, &values) || !checked_product(n, n_targets, &scores)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    TreesFitRows out;
    out.x = {input<float>(env, info[first + kX], values, "x"), n, p};
    out.y = input<double>(env, info[first + kY], n, "y");
    out.trials = optional_input<double>(env, info[first + kTrials], n, "trials");
    out.weights = optional_input<double>(env, info[first + kWeights], n, "weights");
    out.offset = optional_input<double>(env, info[first + kOffset], scores, "offset");
    out.groups = optional_input<uint32_t>(env, info[first + kGroups], 0, "groups");
    if (!is_absent(env, info[first + kGroups])) out.n_groups = length_of(info[first + kGroups]);
    return out;
  }

  TreesFitArgs args_;
  TreesFitResult fitted_;
  std::shared_ptr<TreesModel> made_;
};

}  // namespace

Napi::Value trees_fit_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TreesFitJob>(info));
}

}  // namespace waggle::addon
