#include "src/team.hpp"

#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "test/unit/check.hpp"
#include "waggle/thread_pool.hpp"

using namespace waggle;

TEST("a team runs every task of every loop once, whoever comes to help") {
  for (const int threads : {1, 2, 3, 8}) {
    Team::work(threads, RunContext{}, [&](Team& team) {
      for (int64_t n : {0, 1, 2, 7, 1000}) {
        for (int loop = 0; loop < 50; ++loop) {
          std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
          std::atomic<int> strange{0};
          team.run(n, [&](int64_t i, int worker) {
            seen[static_cast<size_t>(i)].fetch_add(1);
            if (worker < 0 || worker >= team.max_workers()) strange.fetch_add(1);
          });
          for (const auto& count : seen) strange += count.load() == 1 ? 0 : 1;
          EXPECT(strange.load() == 0);
        }
      }
    });
  }
}

TEST("a team works where every thread of the pool is busy, and a waiting job gets one") {
  ThreadPool& pool = ThreadPool::instance();
  std::atomic<int> done{0};
  const int n_jobs = 3 * pool.n_threads();
  for (int job = 0; job < n_jobs; ++job) {
    pool.submit([&] {
      Team::work(4, RunContext{}, [&](Team& team) {
        std::atomic<int64_t> sum{0};
        for (int loop = 0; loop < 200; ++loop) team.run(20, [&](int64_t i, int) { sum.fetch_add(i); });
        if (sum.load() == 200 * 190) done.fetch_add(1);
      });
      done.fetch_add(1);
    });
  }
  while (done.load() < 2 * n_jobs) std::this_thread::yield();
  EXPECT(done.load() == 2 * n_jobs);
}

TEST("memory that a task of a team lacks is told to who leads it") {
  for (const int threads : {1, 4}) {
    bool told = false;
    Team::work(threads, RunContext{}, [&](Team& team) {
      try {
        team.run(8, [](int64_t i, int) {
          if (i == 5) throw std::bad_alloc();
        });
      } catch (const std::bad_alloc&) {
        told = true;
      }
    });
    EXPECT(told);
  }
}
