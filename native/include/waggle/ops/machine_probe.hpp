// What this machine's memory and arithmetic reach: the limits a measured speed is compared with.
#pragma once

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

struct MachineProbe {
  /// All threads of the pool together, reading a buffer larger than the caches.
  double read_bytes_per_second = 0;
  /// float multiplies and adds of all threads together, in registers, at the chosen instruction set.
  double flops_per_second = 0;
  /// The same of one thread while the others rest.
  double flops_per_second_one_thread = 0;
  int threads = 0;
};

/// Best of several short runs: about half a second, 256 MiB. kOutOfMemory, kCancelled.
Status machine_probe(const RunContext& context, MachineProbe* out);

}  // namespace waggle
