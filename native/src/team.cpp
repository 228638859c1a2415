#include "src/team.hpp"

#include <new>
#include <thread>

#include "src/spin.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

void Team::work(int threads, const RunContext& context, const std::function<void(Team&)>& body) {
  Team team(context.parallel && threads > 1 ? threads : 1);
  if (team.threads_ == 1) {
    body(team);
    return;
  }
  const RunContext whole;  // a loop that is skipped would never be led: `body` looks at the context itself
  // The first chunk leads, whichever thread takes it; the others help, or find all done.
  ThreadPool::instance().for_each_chunk(team.threads_, whole, [&](int64_t chunk, int) {
    if (chunk > 0) {
      team.help(static_cast<int>(chunk));
      return;
    }
    body(team);
    team.closed_.store(true, std::memory_order_release);
    team.epoch_.fetch_add(2, std::memory_order_release);
    team.epoch_.notify_all();
  });
}

void Team::help(int worker) {
  uint32_t seen = epoch_.load(std::memory_order_acquire);
  while (!closed_.load(std::memory_order_acquire)) {
    if ((seen & 1) != 0) {
      inside_.fetch_add(1, std::memory_order_seq_cst);
      // Open still, or again: the owner waits for those inside before it touches the loop.
      if ((epoch_.load(std::memory_order_seq_cst) & 1) != 0) take_tasks(worker);
      inside_.fetch_sub(1, std::memory_order_release);
    }
    if (ThreadPool::instance().has_waiting_jobs()) return;
    int spins = 0;
    uint32_t now = epoch_.load(std::memory_order_acquire);
    while (now == seen && spins++ < kSpins) {
      pause();
      now = epoch_.load(std::memory_order_acquire);
    }
    if (now == seen) {
      epoch_.wait(seen, std::memory_order_acquire);
      now = epoch_.load(std::memory_order_acquire);
    }
    seen = now;
  }
}

void Team::take_tasks(int worker) {
  while (true) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= n_) return;
    try {
      call_(self_, i, worker);
    } catch (...) {
      failed_.store(true, std::memory_order_relaxed);
    }
  }
}

void Team::run_all(int64_t n, Call call, void* self) {
  if (threads_ == 1 || n <= 1) {
    for (int64_t i = 0; i < n; ++i) call(self, i, 0);
    return;
  }
  n_ = n;
  call_ = call;
  self_ = self;
  next_.store(0, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  epoch_.notify_all();
  take_tasks(0);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  for (int spins = 0; inside_.load(std::memory_order_seq_cst) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failed_.exchange(false, std::memory_order_relaxed)) throw std::bad_alloc();
}

}  // namespace waggle
