// A tree ensemble's copy on the accelerator, made when it is first worth it.
#pragma once

#include <functional>
#include <mutex>

#include "src/registry.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/trees.hpp"

namespace waggle {

class DeviceForest {
 public:
  DeviceForest() = default;
  ~DeviceForest();
  DeviceForest(const DeviceForest&) = delete;
  DeviceForest& operator=(const DeviceForest&) = delete;

  /// The copy, made at the first call; null: the CPU is to do it, and `status` says why where the caller insisted on
  /// the accelerator.
  waggle_forest* get(const trees::Ensemble& ensemble, Status* status);

  /// What sum_leaves() tells the sums of some rows to, on the plugin's thread; it must not throw. False: no memory.
  using TakeSums = std::function<bool(int64_t first, int64_t n_rows, const double* sums)>;

  /// Sums [n_rows × n_targets] as trees::sum_leaves() makes them, bit for bit, handed over by stretches of rows in
  /// order. False: the CPU is to do it, all rows; `status` then says why where the caller insisted on the accelerator.
  bool sum_leaves(const trees::Ensemble& ensemble, const float* x, int64_t n_rows, const TakeSums& take,
                  const RunContext& context, Status* status);

 private:
  int32_t open(const Registry& r, const trees::Ensemble& ensemble, waggle_text* text);

  std::mutex mutex_;
  waggle_forest* forest_ = nullptr;
  bool refused_ = false;
};

}  // namespace waggle
