// What the accelerator is for, at the sizes it is for.
#pragma once

namespace waggle::bench {

struct DeviceBenchOptions {
  bool quick = false;  // 1M rows instead of 10M
  bool huge = false;   // 100M × 384 in int8, exact rows on the host
  const char* filter = "";
};

/// Prints records in the form of native_bench, one per case: searches of a resident matrix checked against the
/// processor's answer, trees against one thread, batches of rankings and clusters against all threads. Exit status.
int device_bench(const DeviceBenchOptions& options);

}  // namespace waggle::bench
