#include <memory>
#include <utility>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/device_items_handle.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

class OpenJob final : public Job {
 public:
  explicit OpenJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    args_.n_items = info[0].ToNumber().Int64Value();
    const auto part = [&](int at, const char* name) -> Matrix<const float> {
      const int64_t width = info[at + 1].ToNumber().Int64Value();
      int64_t values = 0;
      if (!checked_product(args_.n_items, width, &values)) {
        throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
      }
      if (width == 0) return {};
      return {input<float>(env, info[at], values, name), args_.n_items, width};
    };
    args_.embeddings = part(1, "embeddings");
    args_.item_features = part(3, "itemFeatures");
  }
  Status execute(const RunContext& context) override { return DeviceItems::open(args_, context, &made_); }
  Napi::Value result(Napi::Env env) override {
    auto object = std::make_shared<DeviceItemsObject>();
    const double bytes = static_cast<double>(made_->device_bytes());
    object->items = std::move(made_);
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("handle", Handle<DeviceItemsObject>::create(env, std::move(object), 0));
    answer.Set("deviceBytes", Napi::Number::New(env, bytes));
    return answer;
  }

 private:
  DeviceItemsArgs args_;
  std::shared_ptr<const DeviceItems> made_;
};

}  // namespace

Napi::Value device_items_open(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<OpenJob>(info));
}

Napi::Value device_items_close(const Napi::CallbackInfo& info) {
  Handle<DeviceItemsObject>::close(info.Env(), info[0], "items");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
