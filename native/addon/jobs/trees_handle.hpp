// The handle of a tree ensemble, which several operations take.
#pragma once

#include <napi.h>

#include <memory>

#include "waggle/trees.hpp"

namespace waggle::addon {

struct TreesModel {
  static constexpr napi_type_tag kTypeTag = {0x6d1f8a3b52c94e70u, 0x9b04d7e2c81a65f3u};
  static constexpr const char* kTypeName = "Trees";
  std::shared_ptr<const trees::Model> model;
};

/// What JavaScript keeps of a model: its handle and sizes.
Napi::Object describe_trees(Napi::Env env, const std::shared_ptr<TreesModel>& model);

}  // namespace waggle::addon
