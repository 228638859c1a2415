// One asynchronous operation: what it borrows, and what it does on a pool thread.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "addon/error.hpp"
#include "addon/typed_array.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::addon {

/// Memory a job reads or writes until it settles.
struct Lease {
  uintptr_t begin = 0;
  uintptr_t end = 0;
  bool writes = false;
  const char* name = "";

  bool conflicts_with(const Lease& other) const {
    return (writes || other.writes) && begin < other.end && other.begin < end;
  }
};

class Job {
 public:
  virtual ~Job() = default;

  /// On a pool thread; may not touch JavaScript.
  virtual Status execute(const RunContext& context) = 0;

  /// What the promise resolves with, made on the JavaScript thread after a good `execute`.
  virtual Napi::Value result(Napi::Env env) { return env.Undefined(); }

  /// Borrow on the JavaScript thread; throws a coded error. `at_least` counts elements.
  template <typename T>
  T* input(Napi::Env env, napi_value value, int64_t at_least, const char* name) {
    return static_cast<T*>(lease(env, value, TypeOf<T>::value, at_least, name, false));
  }
  template <typename T>
  T* output(Napi::Env env, napi_value value, int64_t at_least, const char* name) {
    return static_cast<T*>(lease(env, value, TypeOf<T>::value, at_least, name, true));
  }
  /// Null when undefined or null was passed.
  template <typename T>
  T* optional_input(Napi::Env env, napi_value value, int64_t at_least, const char* name) {
    return is_absent(env, value) ? nullptr : input<T>(env, value, at_least, name);
  }

  const std::vector<Lease>& leases() const { return leases_; }
  const std::vector<napi_value>& borrowed_values() const { return values_; }

 private:
  friend class EnvState;

  void* lease(Napi::Env env, napi_value value, napi_typedarray_type type, int64_t at_least, const char* name,
              bool writes) {
    Borrowed borrowed;
    check(env, borrow(env, value, type, at_least, name, true, &borrowed));
    const uintptr_t begin = reinterpret_cast<uintptr_t>(borrowed.data);
    if (borrowed.bytes > 0) {
      leases_.push_back({begin, begin + static_cast<uintptr_t>(borrowed.bytes), writes, name});
    }
    values_.push_back(value);
    return borrowed.data;
  }

  std::vector<Lease> leases_;
  std::vector<napi_value> values_;  // only valid inside the call that submits
  std::atomic<bool> cancelled_{false};
  Status status_;
  uint32_t id_ = 0;
  ThreadPool::JobId pool_id_ = 0;
  napi_deferred deferred_ = nullptr;
  napi_ref pin_ = nullptr;  // an array holding every borrowed value
};

}  // namespace waggle::addon
