// Borrowing the memory of typed arrays.
#pragma once

#include <napi.h>

#include <cstdint>

#include "waggle/status.hpp"

namespace waggle::addon {

struct Borrowed {
  void* data = nullptr;
  int64_t length = 0;  // elements
  int64_t bytes = 0;
  napi_value buffer = nullptr;  // its ArrayBuffer
};

/// Checks class, sharing, detachment and length. `for_job` also refuses resizable memory, which could move or
/// shrink under a running job.
Status borrow(napi_env env, napi_value value, napi_typedarray_type type, int64_t at_least, const char* name,
              bool for_job, Borrowed* out);

bool is_absent(napi_env env, napi_value value);

template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr napi_typedarray_type value = napi_float32_array;
};
template <>
struct TypeOf<double> {
  static constexpr napi_typedarray_type value = napi_float64_array;
};
template <>
struct TypeOf<int32_t> {
  static constexpr napi_typedarray_type value = napi_int32_array;
};
template <>
struct TypeOf<uint8_t> {
  static constexpr napi_typedarray_type value = napi_uint8_array;
};
template <>
struct TypeOf<int8_t> {
  static constexpr napi_typedarray_type value = napi_int8_array;
};
template <>
struct TypeOf<uint16_t> {
  static constexpr napi_typedarray_type value = napi_uint16_array;
};
template <>
struct TypeOf<uint32_t> {
  static constexpr napi_typedarray_type value = napi_uint32_array;
};
template <>
struct TypeOf<int64_t> {
  static constexpr napi_typedarray_type value = napi_bigint64_array;
};
template <>
struct TypeOf<uint64_t> {
  static constexpr napi_typedarray_type value = napi_biguint64_array;
};

}  // namespace waggle::addon
