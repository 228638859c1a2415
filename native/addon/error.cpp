#include "addon/error.hpp"

namespace waggle::addon {

const char* code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "";
    case Code::kInvalidArgument:
      return "WAGGLE_NATIVE_INVALID_ARGUMENT";
    case Code::kShape:
      return "WAGGLE_NATIVE_SHAPE";
    case Code::kDtype:
      return "WAGGLE_NATIVE_DTYPE";
    case Code::kDetached:
      return "WAGGLE_NATIVE_DETACHED";
    case Code::kNotFinite:
      return "WAGGLE_NATIVE_NAN";
    case Code::kLeased:
      return "WAGGLE_NATIVE_LEASED";
    case Code::kBusy:
      return "WAGGLE_NATIVE_BUSY";
    case Code::kTooLarge:
      return "WAGGLE_NATIVE_TOO_LARGE";
    case Code::kSingular:
      return "WAGGLE_NATIVE_SINGULAR";
    case Code::kOutOfMemory:
      return "WAGGLE_NATIVE_OUT_OF_MEMORY";
    case Code::kBackend:
      return "WAGGLE_NATIVE_BACKEND";
    case Code::kCancelled:
      return "WAGGLE_ABORTED";
    case Code::kInternal:
      return "WAGGLE_INTERNAL";
    case Code::kClosed:
      return "WAGGLE_NATIVE_CLOSED";
    case Code::kFile:
      return "WAGGLE_NATIVE_FILE";
    case Code::kModel:
      return "WAGGLE_NATIVE_MODEL";
  }
  return "WAGGLE_INTERNAL";
}

Napi::Error to_error(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.text());
  error.Set("code", Napi::String::New(env, code_name(status.code())));
  return error;
}

void check(Napi::Env env, const Status& status) {
  if (!status.ok()) throw to_error(env, status);
}

}  // namespace waggle::addon
