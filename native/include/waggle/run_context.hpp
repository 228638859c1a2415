// How a call runs: may it use the pool, and who may stop it.
#pragma once

#include <atomic>

namespace waggle {

struct RunContext {
  /// Polled between tiles; null = cannot be cancelled.
  const std::atomic<bool>* cancelled = nullptr;
  /// false = stay on the calling thread (microsecond work).
  bool parallel = true;

  bool stop_requested() const { return cancelled != nullptr && cancelled->load(std::memory_order_relaxed); }
};

}  // namespace waggle
