// An opaque JavaScript object that owns a native one.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "addon/error.hpp"
#include "waggle/status.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::addon {

/// T states `static constexpr napi_type_tag kTypeTag` (two random 64-bit numbers: an object of another kind is refused)
/// and `static constexpr const char* kTypeName`. A job keeps a copy of the shared pointer, so closing under it is safe:
/// the object lives until the last job is done.
template <typename T>
class Handle {
 public:
  /// @param external_bytes native memory behind the handle, told to the collector; 0 for mapped memory
  static Napi::Object create(Napi::Env env, std::shared_ptr<T> object, int64_t external_bytes) {
    Napi::Object holder = Napi::Object::New(env);
    auto owner = std::make_unique<Handle>();
    owner->object_ = std::move(object);
    owner->external_bytes_ = external_bytes;
    if (napi_wrap(env, holder, owner.get(), finalize, nullptr, nullptr) != napi_ok) {
      throw Napi::Error::New(env, "waggle: cannot create a handle");
    }
    Handle* self = owner.release();
    if (napi_type_tag_object(env, holder, &T::kTypeTag) != napi_ok) {
      throw Napi::Error::New(env, "waggle: cannot tag a handle");
    }
    self->account(env, external_bytes);
    return holder;
  }

  /// The object behind `value`. Throws kInvalidArgument for anything that is not an open handle of T, kClosed for a
  /// closed one.
  static std::shared_ptr<T> get(Napi::Env env, napi_value value, const char* name) {
    const Handle& self = unwrap(env, value, name);
    if (self.object_ == nullptr) throw to_error(env, fail(Code::kClosed, "%s (%s) is closed", name, T::kTypeName));
    return self.object_;
  }

  /// Lets go of the object; a second call does nothing. The memory is given back on a pool thread.
  static void close(Napi::Env env, napi_value value, const char* name) { unwrap(env, value, name).release(env); }

  /// Tells the collector that the object grew or shrank.
  static void resize(Napi::Env env, napi_value value, const char* name, int64_t external_bytes) {
    Handle& self = unwrap(env, value, name);
    if (self.object_ == nullptr) return;
    self.account(env, external_bytes - self.external_bytes_);
    self.external_bytes_ = external_bytes;
  }

 private:
  static Handle& unwrap(Napi::Env env, napi_value value, const char* name) {
    bool tagged = false;
    void* data = nullptr;
    napi_valuetype type = napi_undefined;
    if (napi_typeof(env, value, &type) != napi_ok || type != napi_object ||
        napi_check_object_type_tag(env, value, &T::kTypeTag, &tagged) != napi_ok || !tagged ||
        napi_unwrap(env, value, &data) != napi_ok || data == nullptr) {
      throw to_error(env, fail(Code::kInvalidArgument, "%s is not a handle of %s", name, T::kTypeName));
    }
    return *static_cast<Handle*>(data);
  }

  void account(napi_env env, int64_t change) {
    int64_t total = 0;
    if (change != 0) napi_adjust_external_memory(env, change, &total);
  }

  void release(napi_env env) {
    if (object_ == nullptr) return;
    account(env, -external_bytes_);
    external_bytes_ = 0;
    // Unmapping a large index takes milliseconds: not on this thread.
    ThreadPool::instance().submit([object = std::move(object_)]() mutable { object.reset(); });
    object_ = nullptr;
  }

  static void finalize(napi_env env, void* data, void*) {
    const std::unique_ptr<Handle> self(static_cast<Handle*>(data));
    self->release(env);
  }

  std::shared_ptr<T> object_;
  int64_t external_bytes_ = 0;
};

}  // namespace waggle::addon
