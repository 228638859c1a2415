// The engine's own threads: as many as the process may run on, never libuv's four.
//
// Two kinds of work share them. A *job* is one submitted operation; a *loop* is the inside of a running
// job, split into chunks that idle threads help with. A waiting job goes before helping, so a long search
// never keeps a short one waiting for more than one chunk per thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "waggle/run_context.hpp"

namespace waggle {

class ThreadPool {
 public:
  /// The process-wide pool. Deliberately never destroyed: its threads may outlive static destructors.
  static ThreadPool& instance();

  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const;

  using JobId = uint64_t;
  /// Queues `job`; it must not throw.
  JobId submit(std::function<void()> job);
  /// Takes a job back before it started. False when it runs, ran, or is unknown.
  bool withdraw(JobId id);
  /// Jobs submitted and not finished.
  int64_t depth() const;
  /// Whether a job waits for a thread: a helper that works for long should leave then.
  bool has_waiting_jobs() const;

  /// Upper bound of the `worker` index that `for_each_chunk` passes.
  int max_workers() const { return n_threads() + 1; }

  /// Calls body(chunk, worker) once for each chunk in [0, n_chunks), ascending per worker. The calling thread
  /// takes part; chunks are skipped once `context` asks to stop. Returns when none is running. `body` must
  /// not throw.
  void for_each_chunk(int64_t n_chunks, const RunContext& context,
                      const std::function<void(int64_t chunk, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// CPUs this process may run on (affinity mask, then hardware_concurrency), at least 1.
int usable_cpus();

}  // namespace waggle
