#include <mutex>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/sparse_rows.hpp"
#include "waggle/ftrl.hpp"

namespace waggle::addon {

namespace {

struct FtrlHandle {
  static constexpr napi_type_tag kTypeTag = {0x8c41f6d27ab35e90u, 0x3d9be0a1c6f2874eu};
  static constexpr const char* kTypeName = "Ftrl";
  std::mutex mutex;  // ts/ runs one call after the other; this is for those who go around it
  std::unique_ptr<Ftrl> model;
};
using FtrlHandles = Handle<FtrlHandle>;

Napi::Object handle_of(Napi::Env env, std::unique_ptr<Ftrl> model) {
  auto handle = std::make_shared<FtrlHandle>();
  const int64_t bytes = model->stats().bytes;
  handle->model = std::move(model);
  return FtrlHandles::create(env, std::move(handle), bytes);
}

class FtrlJob : public Job {
 protected:
  FtrlJob(const Napi::CallbackInfo& info, int count, const char* name) {
    expect_count(info, count, name);
    handle_ = FtrlHandles::get(info.Env(), info[0], "model");
  }
  virtual Status run(Ftrl& model, const RunContext& context) = 0;

 public:
  Status execute(const RunContext& context) final {
    const std::lock_guard<std::mutex> lock(handle_->mutex);
    return run(*handle_->model, context);
  }

 private:
  std::shared_ptr<FtrlHandle> handle_;
};

class LearnJob final : public FtrlJob {
  enum Argument {
    kModel,
    kRows,
    kTargets = kRows + kRowsArguments,
    kPredictions = kTargets + kTargetsArguments,
    kProgress,
    kSummary,  // Float64Array: rows learned, their weight, their loss; also of a job that was cancelled
    kCount
  };

 public:
  explicit LearnJob(const Napi::CallbackInfo& info) : FtrlJob(info, kCount, "ftrlLearn") {
    const Napi::Env env = info.Env();
    rows_ = borrow_rows(*this, info, kRows);
    targets_ = borrow_targets(*this, info, kTargets, rows_.n_rows);
    if (!is_absent(env, info[kPredictions])) {
      predictions_ = output<double>(env, info[kPredictions], rows_.n_rows, "predictions");
    }
    progress_ = output<double>(env, info[kProgress], 1, "progress");
    summary_ = output<double>(env, info[kSummary], 3, "summary");
  }

 private:
  Status run(Ftrl& model, const RunContext& context) override {
    FtrlLearned learned;
    const Status status = model.learn(
        rows_, targets_, predictions_, [this](double done) { publish(progress_, done); }, context, &learned);
    summary_[0] = static_cast<double>(learned.n_rows);
    summary_[1] = learned.total_weight;
    summary_[2] = learned.loss;
    return status;
  }

  SparseRows rows_;
  SparseTargets targets_;
  double* predictions_ = nullptr;
  double* progress_ = nullptr;
  double* summary_ = nullptr;
};

class PredictJob final : public FtrlJob {
  enum Argument { kModel, kRows, kOffset = kRows + kRowsArguments, kOut, kCount };

 public:
  explicit PredictJob(const Napi::CallbackInfo& info) : FtrlJob(info, kCount, "ftrlPredict") {
    rows_ = borrow_rows(*this, info, kRows);
    offset_ = optional_input<double>(info.Env(), info[kOffset], rows_.n_rows, "offset");
    out_ = output<double>(info.Env(), info[kOut], rows_.n_rows, "out");
  }

 private:
  Status run(Ftrl& model, const RunContext& context) override { return model.predict(rows_, offset_, context, out_); }

  SparseRows rows_;
  const double* offset_ = nullptr;
  double* out_ = nullptr;
};

class WeightsJob final : public FtrlJob {
 public:
  explicit WeightsJob(const Napi::CallbackInfo& info) : FtrlJob(info, 1, "ftrlWeights") {}

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("indices", to_array<Napi::Int32Array>(env, indices_));
    answer.Set("values", to_array<Napi::Float64Array>(env, values_));
    answer.Set("intercept", intercept_);
    return answer;
  }

 private:
  Status run(Ftrl& model, const RunContext&) override {
    return guarded([&]() -> Status {
      model.weights(&indices_, &values_, &intercept_);
      return {};
    });
  }

  std::vector<int32_t> indices_;
  std::vector<double> values_;
  double intercept_ = 0;
};

class StatsJob final : public FtrlJob {
 public:
  explicit StatsJob(const Napi::CallbackInfo& info) : FtrlJob(info, 1, "ftrlStats") {}

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("nRows", static_cast<double>(stats_.n_rows));
    answer.Set("totalWeight", stats_.total_weight);
    answer.Set("loss", stats_.loss);
    answer.Set("nTouched", static_cast<double>(stats_.n_touched));
    answer.Set("nNonZero", static_cast<double>(stats_.n_nonzero));
    answer.Set("bytes", static_cast<double>(stats_.bytes));
    return answer;
  }

 private:
  Status run(Ftrl& model, const RunContext&) override {
    stats_ = model.stats();
    return {};
  }

  FtrlStats stats_;
};

class SaveJob final : public FtrlJob {
 public:
  explicit SaveJob(const Napi::CallbackInfo& info) : FtrlJob(info, 2, "ftrlSave") {
    path_ = info[1].ToString().Utf8Value();
  }

 private:
  Status run(Ftrl& model, const RunContext& context) override { return model.save(path_, context); }

  std::string path_;
};

// Resolves with the handle and the options, which a file knows.
class OpenJob : public Job {
 public:
  Napi::Value result(Napi::Env env) override {
    const FtrlOptions o = model_->stats().options;
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("handle", handle_of(env, std::move(model_)));
    answer.Set("nFeatures", static_cast<double>(o.n_features));
    answer.Set("alpha", o.alpha);
    answer.Set("beta", o.beta);
    answer.Set("l1", o.l1);
    answer.Set("l2", o.l2);
    answer.Set("intercept", o.intercept);
    return answer;
  }

 protected:
  std::unique_ptr<Ftrl> model_;
};

class CreateJob final : public OpenJob {
 public:
  explicit CreateJob(const Napi::CallbackInfo& info) {
    expect_count(info, 6, "ftrlCreate");
    options_.n_features = info[0].ToNumber().Int64Value();
    options_.alpha = info[1].ToNumber().DoubleValue();
    options_.beta = info[2].ToNumber().DoubleValue();
    options_.l1 = info[3].ToNumber().DoubleValue();
    options_.l2 = info[4].ToNumber().DoubleValue();
    options_.intercept = info[5].ToBoolean();
  }
  Status execute(const RunContext&) override { return Ftrl::create(options_, &model_); }

 private:
  FtrlOptions options_;
};

class LoadJob final : public OpenJob {
 public:
  explicit LoadJob(const Napi::CallbackInfo& info) {
    expect_count(info, 1, "ftrlLoad");
    path_ = info[0].ToString().Utf8Value();
  }
  Status execute(const RunContext& context) override { return Ftrl::load(path_, context, &model_); }

 private:
  std::string path_;
};

template <typename J>
Napi::Value submit(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<J>(info));
}

}  // namespace

Napi::Value ftrl_create(const Napi::CallbackInfo& info) { return submit<CreateJob>(info); }
Napi::Value ftrl_learn(const Napi::CallbackInfo& info) { return submit<LearnJob>(info); }
Napi::Value ftrl_predict(const Napi::CallbackInfo& info) { return submit<PredictJob>(info); }
Napi::Value ftrl_weights(const Napi::CallbackInfo& info) { return submit<WeightsJob>(info); }
Napi::Value ftrl_stats(const Napi::CallbackInfo& info) { return submit<StatsJob>(info); }
Napi::Value ftrl_save(const Napi::CallbackInfo& info) { return submit<SaveJob>(info); }
Napi::Value ftrl_load(const Napi::CallbackInfo& info) { return submit<LoadJob>(info); }

Napi::Value ftrl_close(const Napi::CallbackInfo& info) {
  expect_count(info, 1, "ftrlClose");
  FtrlHandles::close(info.Env(), info[0], "model");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
