#include "addon/typed_array.hpp"

namespace waggle::addon {

namespace {

const char* class_of(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array:
      return "Float32Array";
    case napi_float64_array:
      return "Float64Array";
    case napi_int32_array:
      return "Int32Array";
    case napi_uint32_array:
      return "Uint32Array";
    case napi_uint8_array:
      return "Uint8Array";
    case napi_int8_array:
      return "Int8Array";
    case napi_uint16_array:
      return "Uint16Array";
    case napi_bigint64_array:
      return "BigInt64Array";
    case napi_biguint64_array:
      return "BigUint64Array";
    default:
      return "typed array";
  }
}

int64_t bytes_per_element(napi_typedarray_type type) {
  switch (type) {
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      return 8;
    case napi_float32_array:
    case napi_int32_array:
    case napi_uint32_array:
      return 4;
    case napi_uint16_array:
      return 2;
    default:
      return 1;
  }
}

bool is_resizable(napi_env env, napi_value buffer) {
  napi_value flag = nullptr;
  bool resizable = false;
  if (napi_get_named_property(env, buffer, "resizable", &flag) != napi_ok) return false;
  return napi_get_value_bool(env, flag, &resizable) == napi_ok && resizable;
}

}  // namespace

bool is_absent(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  return type == napi_undefined || type == napi_null;
}

Status borrow(napi_env env, napi_value value, napi_typedarray_type type, int64_t at_least, const char* name,
              bool for_job, Borrowed* out) {
  napi_typedarray_type found = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_get_typedarray_info(env, value, &found, &length, &data, &buffer, nullptr) != napi_ok || found != type) {
    return fail(Code::kDtype, "%s must be a %s", name, class_of(type));
  }
  bool plain = false;
  if (napi_is_arraybuffer(env, buffer, &plain) != napi_ok || !plain) {
    return fail(Code::kDtype, "%s is backed by a SharedArrayBuffer", name);
  }
  if (length == 0) {
    bool detached = false;
    if (napi_is_detached_arraybuffer(env, buffer, &detached) == napi_ok && detached) {
      return fail(Code::kDetached, "the buffer of %s is detached", name);
    }
  }
  if (for_job && is_resizable(env, buffer)) {
    return fail(Code::kDtype, "%s is backed by a resizable ArrayBuffer", name);
  }
  if (static_cast<int64_t>(length) < at_least) {
    return fail(Code::kShape, "%s has %zu elements; %lld are needed", name, length, static_cast<long long>(at_least));
  }
  // An empty array may have no memory, but null means absent further down.
  static double nothing = 0;
  out->data = data != nullptr ? data : &nothing;
  out->length = static_cast<int64_t>(length);
  out->bytes = out->length * bytes_per_element(type);
  out->buffer = buffer;
  return {};
}

}  // namespace waggle::addon
