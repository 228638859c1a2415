#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/trees_handle.hpp"
#include "addon/loan.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::addon {

Napi::Object describe_trees(Napi::Env env, const std::shared_ptr<TreesModel>& model) {
  const trees::Ensemble& e = model->model->ensemble();
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("handle", Handle<TreesModel>::create(env, model, static_cast<int64_t>(model->model->bytes())));
  answer.Set("nFeatures", e.n_features);
  answer.Set("nTargets", e.n_targets);
  answer.Set("nOutputs", e.n_outputs());
  answer.Set("nTrees", static_cast<double>(e.trees.size()));
  answer.Set("hasCovers", !e.covers.empty());
  answer.Set("kind", static_cast<int32_t>(e.kind));
  answer.Set("bytes", static_cast<double>(model->model->bytes()));
  return answer;
}

namespace {

// loadTrees(bytes, format): parses and lays out on a pool thread.
class LoadTreesJob final : public Job {
 public:
  explicit LoadTreesJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    size_ = info[1].ToNumber().Int64Value();
    bytes_ = input<uint8_t>(env, info[0], size_, "bytes");
    format_ = static_cast<trees::Format>(info[2].ToNumber().Int32Value());
  }

  Status execute(const RunContext& context) override {
    trees::Ensemble ensemble;
    Status status = trees::read(bytes_, static_cast<size_t>(size_), format_, &ensemble);
    if (!status.ok()) return status;
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    made_ = std::make_shared<TreesModel>();
    status = trees::Model::create(std::move(ensemble), &made_->model);
    return status.ok() && context.stop_requested() ? fail(Code::kCancelled, "cancelled") : status;
  }

  Napi::Value result(Napi::Env env) override { return describe_trees(env, made_); }

 private:
  const uint8_t* bytes_ = nullptr;
  int64_t size_ = 0;
  trees::Format format_ = trees::Format::kAuto;
  std::shared_ptr<TreesModel> made_;
};

enum Argument { kModel, kX, kNRows, kRaw, kThreads, kOut, kCount };

struct Sizes {
  int64_t inputs = 0;
  int64_t outputs = 0;
};

Sizes shape(const Napi::CallbackInfo& info, std::shared_ptr<TreesModel>* model, TreesPredictArgs* args) {
  const Napi::Env env = info.Env();
  if (info.Length() < kCount) {
    throw to_error(env, fail(Code::kInvalidArgument, "treesPredict takes %d arguments", static_cast<int>(kCount)));
  }
  *model = Handle<TreesModel>::get(env, info[kModel], "model");
  const trees::Ensemble& e = (*model)->model->ensemble();
  args->model = (*model)->model.get();
  args->n_rows = info[kNRows].ToNumber().Int64Value();
  args->raw = info[kRaw].ToBoolean();
  args->threads = info[kThreads].ToNumber().Int32Value();
  Sizes s;
  if (!checked_product(args->n_rows, e.n_features, &s.inputs) ||
      !checked_product(args->n_rows, args->raw ? e.n_targets : e.n_outputs(), &s.outputs)) {
    throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
  }
  return s;
}

class TreesPredictJob final : public Job {
 public:
  explicit TreesPredictJob(const Napi::CallbackInfo& info) {
    const Sizes s = shape(info, &model_, &args_);
    args_.x = input<float>(info.Env(), info[kX], s.inputs, "x");
    args_.out = output<float>(info.Env(), info[kOut], s.outputs, "out");
  }
  Status execute(const RunContext& context) override { return trees_predict(args_, context); }

 private:
  std::shared_ptr<TreesModel> model_;
  TreesPredictArgs args_;
};

}  // namespace

Napi::Value load_trees_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<LoadTreesJob>(info));
}

Napi::Value trees_predict_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TreesPredictJob>(info));
}

Napi::Value trees_predict_sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<TreesModel> model;
  TreesPredictArgs args;
  const Sizes s = shape(info, &model, &args);
  Loan loan(env);
  args.x = loan.input<float>(info[kX], s.inputs, "x");
  args.out = loan.output<float>(info[kOut], s.outputs, "out");
  loan.check();
  RunContext context;
  context.parallel = false;
  check(env, trees_predict(args, context));
  return env.Undefined();
}

// writeTrees(model) → Uint8Array: our own format.
Napi::Value write_trees(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<TreesModel> model = Handle<TreesModel>::get(env, info[0], "model");
  std::vector<uint8_t> bytes;
  check(env, trees::write(model->model->ensemble(), &bytes));
  Napi::Uint8Array answer = Napi::Uint8Array::New(env, bytes.size());
  std::copy(bytes.begin(), bytes.end(), answer.Data());
  return answer;
}

Napi::Value close_trees(const Napi::CallbackInfo& info) {
  Handle<TreesModel>::close(info.Env(), info[0], "model");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
