// Finds, opens, probes and opens an accelerator plugin. Every failure is a reason, never a crash.
#pragma once

#include <string>

#include "abi/backend_abi.h"

namespace waggle {

struct LoadedPlugin {
  const waggle_backend* backend = nullptr;
  void* state = nullptr;
  std::string path;
  std::string device;
  std::string libraries;
  /// Why there is none, each place tried.
  std::string reason;
};

/// Looks for libwaggle_backend_<name>.so in WAGGLE_BACKEND_DIR (absolute), then beside this library; never in
/// the working directory or on the loader's search path. A library that was opened is never closed, since
/// its threads may still run.
LoadedPlugin load_plugin(const char* name);

}  // namespace waggle
