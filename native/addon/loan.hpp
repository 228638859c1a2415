// What a call that answers at once borrows: as a job's leases, and nothing is allocated.
#pragma once

#include <napi.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "addon/env_state.hpp"
#include "addon/error.hpp"
#include "addon/job.hpp"
#include "addon/typed_array.hpp"

namespace waggle::addon {

class Loan {
 public:
  explicit Loan(Napi::Env env) : env_(env) {}

  /// As Job's; at most eight arrays in all.
  template <typename T>
  T* input(napi_value value, int64_t at_least, const char* name) {
    return static_cast<T*>(take(value, TypeOf<T>::value, at_least, name, false));
  }
  template <typename T>
  T* optional_input(napi_value value, int64_t at_least, const char* name) {
    return is_absent(env_, value) ? nullptr : input<T>(value, at_least, name);
  }
  template <typename T>
  T* output(napi_value value, int64_t at_least, const char* name) {
    return static_cast<T*>(take(value, TypeOf<T>::value, at_least, name, true));
  }

  /// When all is borrowed: throws kLeased where a running job, or another of the arrays, is in the way.
  void check() const { EnvState::of(env_).expect_free(env_, leases_.data(), n_); }

 private:
  void* take(napi_value value, napi_typedarray_type type, int64_t at_least, const char* name, bool writes) {
    Borrowed borrowed;
    addon::check(env_, borrow(env_, value, type, at_least, name, false, &borrowed));
    const uintptr_t begin = reinterpret_cast<uintptr_t>(borrowed.data);
    if (borrowed.bytes > 0) {
      leases_.at(n_++) = {begin, begin + static_cast<uintptr_t>(borrowed.bytes), writes, name};
    }
    return borrowed.data;
  }

  Napi::Env env_;
  std::array<Lease, 8> leases_;
  size_t n_ = 0;
};

}  // namespace waggle::addon
