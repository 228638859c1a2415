// What belongs to one JavaScript environment (the main thread or a worker): its running jobs, their leases and
// the one thread-safe function that settles them.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "addon/job.hpp"

namespace waggle::addon {

class EnvState {
 public:
  explicit EnvState(Napi::Env env);
  EnvState(const EnvState&) = delete;
  EnvState& operator=(const EnvState&) = delete;

  static EnvState& of(Napi::Env env) { return *env.GetInstanceData<EnvState>(); }

  /// Queues the job and returns { id, promise }. Throws kLeased when memory it needs is in use.
  Napi::Value submit(Napi::Env env, std::unique_ptr<Job> job);

  /// Throws kLeased when one of `wanted` overlaps memory of a running job, or another of `wanted`, and either writes.
  void expect_free(Napi::Env env, const Lease* wanted, size_t n) const;

  /// Asks job `id` to stop; it still settles, with kCancelled unless it was done already.
  void cancel(uint32_t id);

  /// Jobs submitted here and not settled.
  uint32_t depth() const { return static_cast<uint32_t>(jobs_.size()); }

 private:
  static void settle_finished(napi_env env, napi_value callback, void* context, void* data);
  static void on_teardown(void* self);
  void finished(Job* job);  // on a pool thread, or here for a job that never started
  void teardown();

  napi_env env_;
  napi_threadsafe_function settle_ = nullptr;
  std::unordered_map<uint32_t, std::unique_ptr<Job>> jobs_;  // JavaScript thread only
  uint32_t last_id_ = 0;

  std::mutex mutex_;
  std::condition_variable all_done_;
  std::vector<Job*> finished_;  // guarded by mutex_
  int64_t n_unfinished_ = 0;    // guarded by mutex_
};

}  // namespace waggle::addon
