#include "addon/jobs/sparse_learner.hpp"
#include "waggle/ftrl.hpp"

namespace waggle::addon {

namespace {

struct FtrlKind {
  using Model = Ftrl;
  using Options = FtrlOptions;
  static constexpr napi_type_tag kTypeTag = {0x8c41f6d27ab35e90u, 0x3d9be0a1c6f2874eu};
  static constexpr const char* kTypeName = "Ftrl";
  static constexpr const char* kPredict = "ftrlPredict";
  static constexpr const char* kSave = "ftrlSave";
  static constexpr const char* kLoad = "ftrlLoad";
  static constexpr const char* kClose = "ftrlClose";
  static void describe(const FtrlOptions& o, Napi::Object& answer) {
    answer.Set("nFeatures", static_cast<double>(o.n_features));
    answer.Set("alpha", o.alpha);
    answer.Set("beta", o.beta);
    answer.Set("l1", o.l1);
    answer.Set("l2", o.l2);
    answer.Set("intercept", o.intercept);
  }
};
using Learner = SparseLearner<FtrlKind>;

class LearnJob final : public Learner::ModelJob {
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
  explicit LearnJob(const Napi::CallbackInfo& info) : ModelJob(info, kCount, "ftrlLearn") {
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

class WeightsJob final : public Learner::ModelJob {
 public:
  explicit WeightsJob(const Napi::CallbackInfo& info) : ModelJob(info, 1, "ftrlWeights") {}

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

class StatsJob final : public Learner::ModelJob {
 public:
  explicit StatsJob(const Napi::CallbackInfo& info) : ModelJob(info, 1, "ftrlStats") {}

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

class CreateJob final : public Learner::OpenJob {
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

}  // namespace

Napi::Value ftrl_create(const Napi::CallbackInfo& info) { return submit<CreateJob>(info); }
Napi::Value ftrl_learn(const Napi::CallbackInfo& info) { return submit<LearnJob>(info); }
Napi::Value ftrl_predict(const Napi::CallbackInfo& info) { return submit<Learner::PredictJob>(info); }
Napi::Value ftrl_weights(const Napi::CallbackInfo& info) { return submit<WeightsJob>(info); }
Napi::Value ftrl_stats(const Napi::CallbackInfo& info) { return submit<StatsJob>(info); }
Napi::Value ftrl_save(const Napi::CallbackInfo& info) { return submit<Learner::SaveJob>(info); }
Napi::Value ftrl_load(const Napi::CallbackInfo& info) { return submit<Learner::LoadJob>(info); }
Napi::Value ftrl_close(const Napi::CallbackInfo& info) { return Learner::close(info); }

}  // namespace waggle::addon
