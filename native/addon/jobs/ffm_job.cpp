#include "addon/jobs/sparse_learner.hpp"
#include "waggle/ffm.hpp"

namespace waggle::addon {

namespace {

struct FfmKind {
  using Model = Ffm;
  using Options = FfmOptions;
  static constexpr napi_type_tag kTypeTag = {0x27e95ab41d8fc063u, 0xf10a6c7d3e52b948u};
  static constexpr const char* kTypeName = "Ffm";
  static constexpr const char* kPredict = "ffmPredict";
  static constexpr const char* kSave = "ffmSave";
  static constexpr const char* kLoad = "ffmLoad";
  static constexpr const char* kClose = "ffmClose";
  static void describe(const FfmOptions& o, Napi::Object& answer) {
    answer.Set("nFeatures", static_cast<double>(o.n_features));
    answer.Set("nFields", o.n_fields);
    answer.Set("k", o.k);
    answer.Set("learningRate", o.learning_rate);
    answer.Set("accumulator", o.accumulator);
    answer.Set("l2", o.l2);
    answer.Set("linearL2", o.linear_l2);
    answer.Set("normalize", o.normalize);
    answer.Set("linear", o.linear);
    answer.Set("seed", static_cast<double>(o.seed));
  }
};
using Learner = SparseLearner<FfmKind>;

class FitJob final : public Learner::ModelJob {
  enum Argument {
    kModel,
    kRows,
    kTargets = kRows + kRowsArguments,
    kEpochs = kTargets + kTargetsArguments,
    kShuffle,
    kSchedule,
    kPatience,
    kTrainLoss,
    kValidationLoss,
    kProgress,        // Float64Array: epochs done, part of the next
    kValidationRows,  // absent, or the rest
    kValidationTargets = kValidationRows + kRowsArguments,
    kCount = kValidationTargets + kTargetsArguments
  };

 public:
  explicit FitJob(const Napi::CallbackInfo& info) : ModelJob(info, kCount, "ffmFit") {
    const Napi::Env env = info.Env();
    args_.rows = borrow_rows(*this, info, kRows);
    args_.targets = borrow_targets(*this, info, kTargets, args_.rows.n_rows);
    args_.epochs = info[kEpochs].ToNumber().Int32Value();
    args_.shuffle = info[kShuffle].ToBoolean();
    args_.schedule = static_cast<FfmSchedule>(info[kSchedule].ToNumber().Int32Value());
    args_.patience = info[kPatience].ToNumber().Int32Value();
    args_.train_loss = output<double>(env, info[kTrainLoss], args_.epochs, "trainLoss");
    double* progress = output<double>(env, info[kProgress], 2, "progress");
    args_.progress = [progress](int32_t epochs, double part) {
      publish(progress, epochs);
      publish(progress + 1, part);
    };
    if (is_absent(env, info[kValidationRows])) return;
    args_.validation = borrow_rows(*this, info, kValidationRows);
    args_.validation_targets = borrow_targets(*this, info, kValidationTargets, args_.validation.n_rows);
    args_.validation_loss = output<double>(env, info[kValidationLoss], args_.epochs, "validationLoss");
  }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("epochs", result_.epochs_run);
    answer.Set("bestEpoch", result_.best_epoch);
    return answer;
  }

 private:
  Status run(Ffm& model, const RunContext& context) override { return model.fit(args_, context, &result_); }

  FfmFitArgs args_;
  FfmFitResult result_;
};

class WeightsJob final : public Learner::ModelJob {
  enum Argument { kModel, kLinear, kInteractions, kCount };

 public:
  explicit WeightsJob(const Napi::CallbackInfo& info) : ModelJob(info, kCount, "ffmWeights") {
    const FfmOptions o = options();
    linear_ = output<float>(info.Env(), info[kLinear], o.n_features, "linear");
    interactions_ = output<float>(info.Env(), info[kInteractions], o.n_features * o.n_fields * o.k, "interactions");
  }
  Napi::Value result(Napi::Env env) override { return Napi::Number::New(env, intercept_); }

 private:
  Status run(Ffm& model, const RunContext&) override {
    model.weights(&intercept_, linear_, interactions_);
    return {};
  }

  float* linear_ = nullptr;
  float* interactions_ = nullptr;
  double intercept_ = 0;
};

class StatsJob final : public Learner::ModelJob {
 public:
  explicit StatsJob(const Napi::CallbackInfo& info) : ModelJob(info, 1, "ffmStats") {}
  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("epochs", static_cast<double>(stats_.epochs));
    answer.Set("bytes", static_cast<double>(stats_.bytes));
    return answer;
  }

 private:
  Status run(Ffm& model, const RunContext&) override {
    stats_ = model.stats();
    return {};
  }

  FfmStats stats_;
};

class CreateJob final : public Learner::OpenJob {
 public:
  explicit CreateJob(const Napi::CallbackInfo& info) {
    expect_count(info, 10, "ffmCreate");
    options_.n_features = info[0].ToNumber().Int64Value();
    options_.n_fields = info[1].ToNumber().Int32Value();
    options_.k = info[2].ToNumber().Int32Value();
    options_.learning_rate = info[3].ToNumber().DoubleValue();
    options_.accumulator = info[4].ToNumber().DoubleValue();
    options_.l2 = info[5].ToNumber().DoubleValue();
    options_.linear_l2 = info[6].ToNumber().DoubleValue();
    options_.normalize = info[7].ToBoolean();
    options_.linear = info[8].ToBoolean();
    options_.seed = static_cast<uint64_t>(info[9].ToNumber().Int64Value());
  }
  Status execute(const RunContext&) override { return Ffm::create(options_, &model_); }

 private:
  FfmOptions options_;
};

}  // namespace

Napi::Value ffm_create(const Napi::CallbackInfo& info) { return submit<CreateJob>(info); }
Napi::Value ffm_fit(const Napi::CallbackInfo& info) { return submit<FitJob>(info); }
Napi::Value ffm_predict(const Napi::CallbackInfo& info) { return submit<Learner::PredictJob>(info); }
Napi::Value ffm_weights(const Napi::CallbackInfo& info) { return submit<WeightsJob>(info); }
Napi::Value ffm_stats(const Napi::CallbackInfo& info) { return submit<StatsJob>(info); }
Napi::Value ffm_save(const Napi::CallbackInfo& info) { return submit<Learner::SaveJob>(info); }
Napi::Value ffm_load(const Napi::CallbackInfo& info) { return submit<Learner::LoadJob>(info); }
Napi::Value ffm_close(const Napi::CallbackInfo& info) { return Learner::close(info); }

}  // namespace waggle::addon
