#include "waggle/thread_pool.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "test/unit/check.hpp"

using namespace waggle;

TEST("a loop runs every chunk exactly once, with worker indexes in range") {
  ThreadPool pool(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::atomic<int>> seen(97);
    std::atomic<bool> in_range{true};
    pool.for_each_chunk(97, RunContext{}, [&](int64_t chunk, int worker) {
      seen[static_cast<size_t>(chunk)].fetch_add(1);
      if (worker < 0 || worker >= pool.max_workers()) in_range = false;
    });
    bool once = true;
    for (const auto& count : seen) once = once && count.load() == 1;
    EXPECT(once);
    EXPECT(in_range.load());
  }
}

TEST("two threads never share a worker index at the same time") {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(static_cast<size_t>(pool.max_workers()));
  std::atomic<bool> alone{true};
  for (int round = 0; round < 50; ++round) {
    pool.for_each_chunk(200, RunContext{}, [&](int64_t, int worker) {
      if (inside[static_cast<size_t>(worker)].fetch_add(1) != 0) alone = false;
      inside[static_cast<size_t>(worker)].fetch_sub(1);
    });
  }
  EXPECT(alone.load());
}

TEST("chunks ascend for each worker") {
  ThreadPool pool(3);
  std::vector<int64_t> last(static_cast<size_t>(pool.max_workers()), -1);
  std::atomic<bool> ascending{true};
  pool.for_each_chunk(5000, RunContext{}, [&](int64_t chunk, int worker) {
    if (last[static_cast<size_t>(worker)] >= chunk) ascending = false;
    last[static_cast<size_t>(worker)] = chunk;
  });
  EXPECT(ascending.load());
}

TEST("a serial context stays on the calling thread") {
  ThreadPool pool(4);
  RunContext serial;
  serial.parallel = false;
  const std::thread::id caller = std::this_thread::get_id();
  bool same = true;
  pool.for_each_chunk(100, serial,
                      [&](int64_t, int worker) { same = same && std::this_thread::get_id() == caller && worker == 0; });
  EXPECT(same);
}

TEST("a stop request ends a loop early") {
  ThreadPool pool(4);
  std::atomic<bool> stop{false};
  RunContext context;
  context.cancelled = &stop;
  std::atomic<int64_t> ran{0};
  pool.for_each_chunk(1000000, context, [&](int64_t, int) {
    const int64_t before = ran.fetch_add(1);
    if (before == 10) stop = true;
    // The thread that stops may lose its CPU before it does: the others do not run away meanwhile.
    while (before > 10 && !stop) std::this_thread::yield();
  });
  EXPECT(ran.load() <= 11 + pool.max_workers());
}

TEST("jobs with loops inside finish when there are more jobs than threads") {
  ThreadPool pool(2);
  std::atomic<int64_t> total{0};
  std::vector<std::promise<void>> done(16);
  for (auto& promise : done) {
    pool.submit([&] {
      pool.for_each_chunk(50, RunContext{}, [&](int64_t chunk, int) { total.fetch_add(chunk); });
      promise.set_value();
    });
  }
  for (auto& promise : done) promise.get_future().wait();
  EXPECT(total.load() == 16 * 49 * 50 / 2);
}

TEST("a queued job can be withdrawn, a finished one cannot") {
  ThreadPool pool(1);
  std::promise<void> started;
  std::promise<void> gate;
  std::shared_future<void> open = gate.get_future().share();
  const ThreadPool::JobId first = pool.submit([&started, open] {
    started.set_value();
    open.wait();
  });
  started.get_future().wait();
  std::atomic<bool> ran{false};
  const ThreadPool::JobId second = pool.submit([&] { ran = true; });
  EXPECT(pool.depth() == 2);
  EXPECT(pool.withdraw(second));
  EXPECT(!pool.withdraw(second));
  EXPECT(!pool.withdraw(first));
  EXPECT(pool.depth() == 1);
  gate.set_value();
  std::promise<void> last;
  pool.submit([&] { last.set_value(); });
  last.get_future().wait();
  EXPECT(!ran.load());
}

TEST("an empty loop returns at once") {
  ThreadPool pool(2);
  bool called = false;
  pool.for_each_chunk(0, RunContext{}, [&](int64_t, int) { called = true; });
  EXPECT(!called);
}

#if defined(__linux__)
TEST("a helper does not stay on the CPU of the thread it helps") {
  ThreadPool pool(1);  // before the caller is bound: threads inherit that
  cpu_set_t before;
  if (usable_cpus() < 2 || sched_getaffinity(0, sizeof before, &before) != 0) return;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  EXPECT(sched_setaffinity(0, sizeof here, &here) == 0);
  constexpr int kRounds = 40;
  int helped = 0;
  int apart = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the helper sleeps, and so does its CPU
    std::atomic<int> helper_cpu{-1};
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    pool.for_each_chunk(2, RunContext{}, [&](int64_t, int worker) {
      if (worker > 0) helper_cpu = sched_getcpu();
      while (worker == 0 && helper_cpu.load() < 0 && std::chrono::steady_clock::now() < end) continue;
    });
    helped += helper_cpu >= 0 ? 1 : 0;
    apart += helper_cpu >= 0 && CPU_ISSET(helper_cpu.load(), &here) == 0 ? 1 : 0;
  }
  EXPECT(sched_setaffinity(0, sizeof before, &before) == 0);
  EXPECT(helped > 0);
  // Not every time: the kernel is free to move a thread again.
  EXPECT(2 * apart > helped);
}
#endif
