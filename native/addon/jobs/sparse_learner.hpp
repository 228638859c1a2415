// What Ftrl and Ffm have in common here: the handle of a model that lives from call to call, and the jobs that open,
// load, save and predict. `Kind` says which one: its Model and Options, names, and how options become properties.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/sparse_rows.hpp"

namespace waggle::addon {

template <typename Kind>
struct SparseLearner {
  using Model = typename Kind::Model;

  struct Held {
    static constexpr napi_type_tag kTypeTag = Kind::kTypeTag;
    static constexpr const char* kTypeName = Kind::kTypeName;
    std::mutex mutex;  // ts/ runs one call after the other; this is for those who go around it
    std::unique_ptr<Model> model;
  };
  using Handles = Handle<Held>;

  // Of an open model, the first argument.
  class ModelJob : public Job {
   protected:
    ModelJob(const Napi::CallbackInfo& info, int count, const char* name) {
      expect_count(info, count, name);
      held_ = Handles::get(info.Env(), info[0], "model");
    }
    virtual Status run(Model& model, const RunContext& context) = 0;
    typename Kind::Options options() const { return held_->model->options(); }

   public:
    Status execute(const RunContext& context) final {
      const std::lock_guard<std::mutex> lock(held_->mutex);
      return run(*held_->model, context);
    }

   private:
    std::shared_ptr<Held> held_;
  };

  class PredictJob final : public ModelJob {
    enum Argument { kModel, kRows, kOffset = kRows + kRowsArguments, kOut, kCount };

   public:
    explicit PredictJob(const Napi::CallbackInfo& info) : ModelJob(info, kCount, Kind::kPredict) {
      rows_ = borrow_rows(*this, info, kRows);
      offset_ = this->template optional_input<double>(info.Env(), info[kOffset], rows_.n_rows, "offset");
      out_ = this->template output<double>(info.Env(), info[kOut], rows_.n_rows, "out");
    }

   private:
    Status run(Model& model, const RunContext& context) override {
      return model.predict(rows_, offset_, context, out_);
    }

    SparseRows rows_;
    const double* offset_ = nullptr;
    double* out_ = nullptr;
  };

  class SaveJob final : public ModelJob {
   public:
    explicit SaveJob(const Napi::CallbackInfo& info) : ModelJob(info, 2, Kind::kSave) {
      path_ = info[1].ToString().Utf8Value();
    }

   private:
    Status run(Model& model, const RunContext& context) override { return model.save(path_, context); }

    std::string path_;
  };

  // Resolves with the handle and the options, which a file knows.
  class OpenJob : public Job {
   public:
    Napi::Value result(Napi::Env env) override {
      auto held = std::make_shared<Held>();
      held->model = std::move(model_);
      const Model& model = *held->model;
      Napi::Object answer = Napi::Object::New(env);
      Kind::describe(model.options(), answer);
      const int64_t bytes = model.bytes();
      answer.Set("handle", Handles::create(env, std::move(held), bytes));
      return answer;
    }

   protected:
    std::unique_ptr<Model> model_;
  };

  class LoadJob final : public OpenJob {
   public:
    explicit LoadJob(const Napi::CallbackInfo& info) {
      expect_count(info, 1, Kind::kLoad);
      path_ = info[0].ToString().Utf8Value();
    }
    Status execute(const RunContext& context) override { return Model::load(path_, context, &this->model_); }

   private:
    std::string path_;
  };

  static Napi::Value close(const Napi::CallbackInfo& info) {
    expect_count(info, 1, Kind::kClose);
    Handles::close(info.Env(), info[0], "model");
    return info.Env().Undefined();
  }
};

template <typename J>
Napi::Value submit(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<J>(info));
}

}  // namespace waggle::addon
