// Training of trees on the accelerator: one session per training, calls as the plugin contract tells them.
#pragma once

#include <cstdint>

#include "src/registry.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

class DeviceFit {
 public:
  explicit DeviceFit(const Registry& registry) : registry_(registry) {}
  ~DeviceFit();
  DeviceFit(const DeviceFit&) = delete;
  DeviceFit& operator=(const DeviceFit&) = delete;

  /// False with an ok status: the CPU is to do it. `args` lack their size and how they are cancelled.
  bool open(waggle_fit_args args, const RunContext& context, Status* status);
  /// About what a histogram takes there.
  static int64_t histogram_bytes(int64_t n_features) { return (n_features + 31) / 32 * 32 * 256 * 16; }
  /// Where the time of its calls went, each of which waits for the device.
  struct Seconds {
    double gradients = 0;
    double start = 0;
    double part = 0;
    double search = 0;
    double leaves = 0;
    double update = 0;
    int64_t calls = 0;
  };
  const Seconds& seconds() const { return seconds_; }
  /// The device let a training down that was under way.
  bool failed() const { return failed_; }

  Status gradients(waggle_fit_gradients_args& args);
  Status start_tree(waggle_fit_tree_args& args);
  Status part(waggle_fit_parts_args& args);
  Status search(waggle_fit_search_args& args);
  Status leaves(waggle_fit_leaves_args& args);
  Status update(waggle_fit_update_args& args);

 private:
  template <typename Args, typename Call>
  Status run(Call call, Args& args, double* seconds);

  const Registry& registry_;
  waggle_fit* fit_ = nullptr;
  bool failed_ = false;
  Seconds seconds_;
};

}  // namespace waggle
