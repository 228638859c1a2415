// Many short loops in a row on the pool's threads: what a tree needs, which grows in steps of microseconds.
//
// A loop of ThreadPool costs a lock and waking threads. Here helpers join once, for a whole piece of work, and look for
// the next loop by themselves, for a while without sleeping. Whoever leads takes part in every loop and waits for no
// one who has not started: without helpers it does everything alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "waggle/run_context.hpp"

namespace waggle {

class Team {
 public:
  /// Calls body(team) on one thread while up to `threads` − 1 others, of the pool or the caller, help with its loops.
  /// `body` must not throw. Returns when all are done.
  static void work(int threads, const RunContext& context, const std::function<void(Team&)>& body);

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Upper bound of the `worker` index that `run` passes.
  int max_workers() const { return threads_; }

  /// Calls task(i, worker) once for each i in [0, n), ascending per worker, and returns when all are done. Does not
  /// look at the context: tasks are short. Throws std::bad_alloc where a task threw: they only allocate.
  template <typename Task>
  void run(int64_t n, Task&& task) {
    run_all(
        n, [](void* self, int64_t i, int worker) { (*static_cast<std::remove_reference_t<Task>*>(self))(i, worker); },
        &task);
  }

 private:
  using Call = void (*)(void* self, int64_t i, int worker);

  explicit Team(int threads) : threads_(threads) {}
  void run_all(int64_t n, Call call, void* self);
  void help(int worker);
  void take_tasks(int worker);

  const int threads_;
  // One loop at a time. Helpers register before they look at it, so its owner knows when nobody does any more.
  std::atomic<uint32_t> epoch_{0};  // of loops; odd while one is open
  std::atomic<int32_t> inside_{0};
  std::atomic<bool> closed_{false};
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<int64_t> next_{0};
  int64_t n_ = 0;
  Call call_ = nullptr;
  void* self_ = nullptr;
};

}  // namespace waggle
