// Where the pool's threads run. The kernel often wakes a thread on the CPU of the thread that woke it, on virtual
// machines even beside an idle one, and parts the two only at a later tick: for milliseconds, two threads do the work
// of one. So whoever starts a loop tells its sleeping helpers to wake elsewhere. Nothing is bound for longer than that.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <sys/types.h>
#endif

namespace waggle {

#if defined(__linux__)
using CpuSet = cpu_set_t;
#else
struct CpuSet {};
#endif

/// Adds the CPU of the calling thread; false when it was there already.
bool take_cpu(CpuSet* taken);

/// The CPUs that one thread may run on. One caller at a time.
class Placement {
 public:
  /// On the thread itself, before anything else.
  void start();

  /// Keeps the thread off `taken` until it calls `widen`: a sleeping thread wakes elsewhere, a running one moves now.
  /// Nothing happens where it may run nowhere else.
  void keep_off(const CpuSet& taken);

  /// The thread may run again wherever it might before, and stays where it is.
  void widen();

 private:
  bool narrowed_ = false;
  CpuSet allowed_ = {};
#if defined(__linux__)
  pid_t thread_ = 0;
#endif
};

}  // namespace waggle
