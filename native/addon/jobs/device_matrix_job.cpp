#include "waggle/device_matrix.hpp"

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

// The matrix as a handle sees it. Device memory is not the collector's business, so handles report none.
struct DeviceMatrixObject {
  static constexpr napi_type_tag kTypeTag = {0x6a1f0c9f5b4e4d27u, 0xa3d58e1b90c7642fu};
  static constexpr const char* kTypeName = "a device matrix";
  std::shared_ptr<DeviceMatrix> matrix;
};

class OpenJob final : public Job {
 public:
  explicit OpenJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    args_.matrix.rows = info[1].ToNumber().Int64Value();
    args_.matrix.cols = info[2].ToNumber().Int64Value();
    int64_t values = 0;
    if (!checked_product(args_.matrix.rows, args_.matrix.cols, &values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.matrix.data = input<float>(env, info[0], values, "matrix");
    args_.dtype = static_cast<DeviceDtype>(info[3].ToNumber().Int32Value());
    args_.exact = info[4].ToBoolean().Value() ? ExactRows::kOnDevice : ExactRows::kNone;
  }
  Status execute(const RunContext& context) override { return DeviceMatrix::open(args_, context, &made_); }
  Napi::Value result(Napi::Env env) override {
    auto object = std::make_shared<DeviceMatrixObject>();
    const double bytes = static_cast<double>(made_->device_bytes());
    object->matrix = std::move(made_);
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("handle", Handle<DeviceMatrixObject>::create(env, std::move(object), 0));
    answer.Set("deviceBytes", Napi::Number::New(env, bytes));
    return answer;
  }

 private:
  DeviceMatrixArgs args_;
  std::shared_ptr<DeviceMatrix> made_;
};

class SearchJob final : public Job {
 public:
  explicit SearchJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    object_ = Handle<DeviceMatrixObject>::get(env, info[0], "matrix");
    const int64_t dim = object_->matrix->dim();
    const int64_t n_rows = object_->matrix->n_rows();
    const int64_t n_queries = info[2].ToNumber().Int64Value();
    args_.k = info[3].ToNumber().Int32Value();
    args_.metric = static_cast<Metric>(info[4].ToNumber().Int32Value());
    int64_t values = 0, answers = 0, each_bytes = 0;
    const int64_t row_bytes = (n_rows + 7) / 8;
    if (args_.k < 1 || args_.k > kTopkMaxK || !checked_product(n_queries, dim, &values) ||
        !checked_product(n_queries, args_.k, &answers) || !checked_product(n_queries, row_bytes, &each_bytes)) {
      throw to_error(env, fail(Code::kShape, "sizes are out of range or overflow"));
    }
    args_.queries = {input<float>(env, info[1], values, "queries"), n_queries, dim};
    if (const uint8_t* bits = optional_input<uint8_t>(env, info[5], row_bytes, "filter"); bits != nullptr) {
      args_.filter = RowFilter::shared(bits, row_bytes);
    } else if (const uint8_t* each = optional_input<uint8_t>(env, info[6], each_bytes, "filters"); each != nullptr) {
      args_.filter = RowFilter::per_query(each, row_bytes, n_queries);
    } else if (const int32_t* list = optional_input<int32_t>(env, info[7], 0, "allowRows"); list != nullptr) {
      args_.filter = RowFilter::list(list, static_cast<int64_t>(info[7].As<Napi::TypedArray>().ElementLength()));
    }
    args_.scores = output<float>(env, info[8], answers, "scores");
    args_.rows = output<int32_t>(env, info[9], answers, "rows");
  }
  Status execute(const RunContext& context) override { return object_->matrix->topk(args_, context); }
  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("nInDoubt", Napi::Number::New(env, static_cast<double>(args_.n_in_doubt)));
    answer.Set("nRescored", Napi::Number::New(env, static_cast<double>(args_.n_rescored)));
    return answer;
  }

 private:
  std::shared_ptr<DeviceMatrixObject> object_;
  DeviceTopkArgs args_;
};

}  // namespace

Napi::Value device_matrix_open(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<OpenJob>(info));
}

Napi::Value device_matrix_topk(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<SearchJob>(info));
}

Napi::Value device_matrix_close(const Napi::CallbackInfo& info) {
  Handle<DeviceMatrixObject>::close(info.Env(), info[0], "matrix");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
