// What this process computes with, decided once: instruction set by CPUID and WAGGLE_SIMD, accelerator by
// WAGGLE_BACKEND and the plugins found beside the library or in WAGGLE_BACKEND_DIR.
#pragma once

#include <string>
#include <vector>

#include "waggle/status.hpp"

namespace waggle {

struct RejectedBackend {
  std::string name;
  std::string reason;
};

struct BackendInfo {
  std::string backend;  // "cpu" | "cuda"
  std::string simd;     // "scalar" | "avx2" | "avx512"
  std::vector<std::string> available;
  std::vector<RejectedBackend> rejected;
  int n_threads = 0;
  std::string requested_backend;
  std::string requested_simd;
  /// Name, memory and run-time libraries of the accelerator; empty without one.
  std::string device;
  std::string device_libraries;
  /// What the accelerator can do, by the names of this library's operations; the rest is the processor's.
  std::vector<std::string> device_operations;
  /// Path of the plugin in use; empty without one.
  std::string plugin_path;
};

/// Initialises on the first call (thread-safe). Not ok when a forced choice cannot be had.
Status backend_status();

/// Filled even when `backend_status()` failed, so that the reasons can be shown.
const BackendInfo& backend_info();

}  // namespace waggle
