// Items to rank that stay on the accelerator between calls: what is large of them and seldom changes.
#pragma once

#include <cstdint>
#include <memory>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

struct DeviceItemsArgs {
  int64_t n_items = 0;
  Matrix<const float> embeddings;     // [n_items × dim], or no columns
  Matrix<const float> item_features;  // [n_items × any], or no columns
};

/// Immutable; safe to use from several threads.
class DeviceItems {
 public:
  /// Copies the items to the device. kBackend without an accelerator that can, kOutOfMemory.
  static Status open(const DeviceItemsArgs& args, const RunContext& context, std::shared_ptr<const DeviceItems>* out);
  ~DeviceItems();
  DeviceItems(const DeviceItems&) = delete;
  DeviceItems& operator=(const DeviceItems&) = delete;

  int64_t n_items() const { return n_items_; }
  int64_t dim() const { return dim_; }
  int64_t n_features() const { return n_features_; }
  int64_t device_bytes() const { return device_bytes_; }
  /// The plugin's.
  void* handle() const { return handle_; }

 private:
  DeviceItems() = default;

  void* handle_ = nullptr;
  int64_t n_items_ = 0;
  int64_t dim_ = 0;
  int64_t n_features_ = 0;
  int64_t device_bytes_ = 0;
};

}  // namespace waggle
