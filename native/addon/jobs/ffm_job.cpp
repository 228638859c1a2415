#include <mutex>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/sparse_rows.hpp"
#include "waggle/ffm.hpp"

namespace waggle::addon {

namespace {

struct FfmHandle {
  static constexpr napi_type_tag kTypeTag = {0x27e95ab41d8fc063u, 0xf10a6c7d3e52b948u};
  static constexpr const char* kTypeName = "Ffm";
  std::mutex mutex;  // ts/ runs one call after the other; this is for those who go around it
  std::unique_ptr<Ffm> model;
};
using FfmHandles = Handle<FfmHandle>;

class FfmJob : public Job {
 protected:
  FfmJob(const Napi::CallbackInfo& info, int count, const char* name) {
    expect_count(info, count, name);
    handle_ = FfmHandles::get(info.Env(), info[0], "model");
  }
  virtual Status run(Ffm& model, const RunContext& context) = 0;
  FfmOptions options() const { return handle_->model->stats().options; }

 public:
  Status execute(const RunContext& context) final {
    const std::lock_guard<std::mutex> lock(handle_->mutex);
    return run(*handle_->model, context);
  }

 private:
  std::shared_ptr<FfmHandle> handle_;
};

class FitJob final : public FfmJob {
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
  explicit FitJob(const Napi::CallbackInfo& info) : FfmJob(info, kCount, "ffmFit") {
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

class PredictJob final : public FfmJob {
  enum Argument { kModel, kRows, kOffset = kRows + kRowsArguments, kOut, kCount };

 public:
  explicit PredictJob(const Napi::CallbackInfo& info) : FfmJob(info, kCount, "ffmPredict") {
    rows_ = borrow_rows(*this, info, kRows);
    offset_ = optional_input<double>(info.Env(), info[kOffset], rows_.n_rows, "offset");
    out_ = output<double>(info.Env(), info[kOut], rows_.n_rows, "out");
  }

 private:
  Status run(Ffm& model, const RunContext& context) override { return model.predict(rows_, offset_, context, out_); }

  SparseRows rows_;
  const double* offset_ = nullptr;
  double* out_ = nullptr;
};

class WeightsJob final : public FfmJob {
  enum Argument { kModel, kLinear, kInteractions, kCount };

 public:
  explicit WeightsJob(const Napi::CallbackInfo& info) : FfmJob(info, kCount, "ffmWeights") {
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

class StatsJob final : public FfmJob {
 public:
  explicit StatsJob(const Napi::CallbackInfo& info) : FfmJob(info, 1, "ffmStats") {}
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

class SaveJob final : public FfmJob {
 public:
  explicit SaveJob(const Napi::CallbackInfo& info) : FfmJob(info, 2, "ffmSave") {
    path_ = info[1].ToString().Utf8Value();
  }

 private:
  Status run(Ffm& model, const RunContext& context) override { return model.save(path_, context); }

  std::string path_;
};

// Resolves with the handle and the options, which a file knows.
class OpenJob : public Job {
 public:
  Napi::Value result(Napi::Env env) override {
    const FfmStats stats = model_->stats();
    auto handle = std::make_shared<FfmHandle>();
    handle->model = std::move(model_);
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("handle", FfmHandles::create(env, std::move(handle), stats.bytes));
    answer.Set("nFeatures", static_cast<double>(stats.options.n_features));
    answer.Set("nFields", stats.options.n_fields);
    answer.Set("k", stats.options.k);
    answer.Set("learningRate", stats.options.learning_rate);
    answer.Set("accumulator", stats.options.accumulator);
    answer.Set("l2", stats.options.l2);
    answer.Set("linearL2", stats.options.linear_l2);
    answer.Set("normalize", stats.options.normalize);
    answer.Set("linear", stats.options.linear);
    answer.Set("seed", static_cast<double>(stats.options.seed));
    return answer;
  }

 protected:
  std::unique_ptr<Ffm> model_;
};

class CreateJob final : public OpenJob {
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

class LoadJob final : public OpenJob {
 public:
  explicit LoadJob(const Napi::CallbackInfo& info) {
    expect_count(info, 1, "ffmLoad");
    path_ = info[0].ToString().Utf8Value();
  }
  Status execute(const RunContext& context) override { return Ffm::load(path_, context, &model_); }

 private:
  std::string path_;
};

template <typename J>
Napi::Value submit(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<J>(info));
}

}  // namespace

Napi::Value ffm_create(const Napi::CallbackInfo& info) { return submit<CreateJob>(info); }
Napi::Value ffm_fit(const Napi::CallbackInfo& info) { return submit<FitJob>(info); }
Napi::Value ffm_predict(const Napi::CallbackInfo& info) { return submit<PredictJob>(info); }
Napi::Value ffm_weights(const Napi::CallbackInfo& info) { return submit<WeightsJob>(info); }
Napi::Value ffm_stats(const Napi::CallbackInfo& info) { return submit<StatsJob>(info); }
Napi::Value ffm_save(const Napi::CallbackInfo& info) { return submit<SaveJob>(info); }
Napi::Value ffm_load(const Napi::CallbackInfo& info) { return submit<LoadJob>(info); }

Napi::Value ffm_close(const Napi::CallbackInfo& info) {
  expect_count(info, 1, "ffmClose");
  FfmHandles::close(info.Env(), info[0], "model");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
