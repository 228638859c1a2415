// Process-wide choice of table and plugin. See include/waggle/backend.hpp for the public face.
#pragma once

#include "abi/backend_abi.h"
#include "cpu/table.hpp"
#include "waggle/backend.hpp"

namespace waggle {

struct Registry {
  Status status;
  BackendInfo info;
  const cpu::Table* table = nullptr;
  /// Null without an accelerator.
  const waggle_backend* plugin = nullptr;
  void* plugin_state = nullptr;
  /// WAGGLE_BACKEND=cuda: every supported call goes to the plugin, however small.
  bool plugin_forced = false;
};

/// Never destroyed: pool threads may outlive static destructors.
const Registry& registry();

}  // namespace waggle
