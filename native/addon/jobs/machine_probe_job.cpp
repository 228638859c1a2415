#include "waggle/ops/machine_probe.hpp"

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

class MachineProbeJob final : public Job {
 public:
  Status execute(const RunContext& context) override { return machine_probe(context, &probe_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("readBytesPerSecond", probe_.read_bytes_per_second);
    answer.Set("flopsPerSecond", probe_.flops_per_second);
    answer.Set("flopsPerSecondOneThread", probe_.flops_per_second_one_thread);
    answer.Set("threads", probe_.threads);
    return answer;
  }

 private:
  MachineProbe probe_;
};

}  // namespace

Napi::Value machine_probe_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<MachineProbeJob>());
}

}  // namespace waggle::addon
