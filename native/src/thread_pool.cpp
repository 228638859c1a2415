#include "waggle/thread_pool.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "src/placement.hpp"
#include "src/spin.hpp"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#endif

namespace waggle {

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count > 0) return count;
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace {

constexpr int kMostMoved = 16;  // helpers told where to wake, two system calls each

// A little less urgent than the thread that submits: when a timer or a socket wakes the event loop and every CPU
// computes, the loop gets one at once. With idle CPUs, and among themselves, it makes no difference. On Linux a nice
// value belongs to the thread.
void step_back() {
#if defined(__linux__)
  constexpr int kNice = 5;
  (void)setpriority(PRIO_PROCESS, 0, std::min(19, getpriority(PRIO_PROCESS, 0) + kNice));
#endif
}

// One running for_each_chunk. Lives on the caller's stack; listed in State::loops while chunks remain.
struct Loop {
  const std::function<void(int64_t, int)>* body = nullptr;
  const RunContext* context = nullptr;
  int64_t n_chunks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> helpers{0};    // changed under State::mutex, and the last that a helper touches
  int next_worker = 1;            // guarded by State::mutex; the caller is worker 0
  std::vector<int> free_workers;  // guarded by State::mutex
  CpuSet taken = {};              // guarded by State::mutex; where its workers were when they joined

  bool has_chunks() const { return next.load(std::memory_order_relaxed) < n_chunks && !context->stop_requested(); }
};

struct Member {
  std::thread thread;
  Placement placement;  // guarded by State::mutex while asleep, else the thread's own
  bool asleep = false;  // guarded by State::mutex
};

}  // namespace

struct ThreadPool::State {
  mutable std::mutex mutex;
  std::condition_variable work;      // a job or a loop arrived, or stopping
  std::condition_variable released;  // a helper left a loop
  std::deque<std::pair<JobId, std::function<void()>>> jobs;
  std::vector<Loop*> loops;
  std::deque<Member> members;
  std::atomic<int64_t> n_waiting{0};
  int64_t depth = 0;
  JobId last_id = 0;
  bool stopping = false;

  Loop* loop_with_chunks() {
    for (Loop* loop : loops) {
      if (loop->has_chunks()) return loop;
    }
    return nullptr;
  }

  // Runs chunks until none is left. A helper also leaves when a job waits; the caller stays.
  void run_chunks(Loop& loop, int worker, bool helper) {
    while (!loop.context->stop_requested()) {
      if (helper && n_waiting.load(std::memory_order_relaxed) > 0) return;
      const int64_t chunk = loop.next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= loop.n_chunks) return;
      (*loop.body)(chunk, worker);
    }
  }

  // The caller of a loop takes its CPU, helpers that sleep will wake on others.
  void spread(Loop& loop) {
    take_cpu(&loop.taken);
    int64_t wanted = std::min<int64_t>(loop.n_chunks - 1, kMostMoved);
    for (size_t i = 0; i < members.size() && wanted > 0; ++i) {
      if (!members[i].asleep) continue;
      members[i].placement.keep_off(loop.taken);
      --wanted;
    }
  }

  void thread_main(Member& self) {
    self.placement.start();
    step_back();
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      if (!jobs.empty()) {
        std::function<void()> job = std::move(jobs.front().second);
        jobs.pop_front();
        n_waiting.fetch_sub(1, std::memory_order_relaxed);
        lock.unlock();
        job();
        job = nullptr;
        lock.lock();
        --depth;
        continue;
      }
      if (Loop* loop = loop_with_chunks()) {
        int worker = 0;
        if (!loop->free_workers.empty()) {
          worker = loop->free_workers.back();
          loop->free_workers.pop_back();
        } else {
          worker = loop->next_worker++;
        }
        loop->helpers.fetch_add(1, std::memory_order_relaxed);
        const bool has_own_cpu = take_cpu(&loop->taken);
        const CpuSet taken = loop->taken;
        lock.unlock();
        if (!has_own_cpu) {
          self.placement.keep_off(taken);
          self.placement.widen();
        }
        run_chunks(*loop, worker, true);
        lock.lock();
        loop->free_workers.push_back(worker);
        if (loop->helpers.fetch_sub(1, std::memory_order_release) == 1) released.notify_all();
        continue;
      }
      if (stopping) return;
      self.asleep = true;
      work.wait(lock);
      self.asleep = false;
      self.placement.widen();
    }
  }
};

ThreadPool& ThreadPool::instance() {
  static ThreadPool* const pool = new ThreadPool(usable_cpus());
  return *pool;
}

ThreadPool::ThreadPool(int n_threads) : state_(std::make_unique<State>()) {
  const int count = std::max(1, n_threads);
  // A deque: a member stays where its thread knows it while others come.
  for (int i = 0; i < count; ++i) {
    Member& member = state_->members.emplace_back();
    try {
      member.thread = std::thread([state = state_.get(), &member] { state->thread_main(member); });
    } catch (const std::system_error&) {
      // A process may be allowed fewer threads than processors: those that have started do.
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->members.pop_back();
      if (state_->members.empty()) throw;
      break;
    }
#if defined(__linux__)
    pthread_setname_np(member.thread.native_handle(), "waggle");
#endif
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_all();
  for (Member& member : state_->members) member.thread.join();
}

int ThreadPool::n_threads() const { return static_cast<int>(state_->members.size()); }

ThreadPool::JobId ThreadPool::submit(std::function<void()> job) {
  JobId id = 0;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    id = ++state_->last_id;
    state_->jobs.emplace_back(id, std::move(job));
    state_->n_waiting.fetch_add(1, std::memory_order_relaxed);
    ++state_->depth;
  }
  state_->work.notify_one();
  return id;
}

bool ThreadPool::withdraw(JobId id) {
  std::function<void()> job;  // destroyed outside the lock
  std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found =
      std::find_if(state_->jobs.begin(), state_->jobs.end(), [id](const auto& entry) { return entry.first == id; });
  if (found == state_->jobs.end()) return false;
  job = std::move(found->second);
  state_->jobs.erase(found);
  state_->n_waiting.fetch_sub(1, std::memory_order_relaxed);
  --state_->depth;
  return true;
}

int64_t ThreadPool::depth() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->depth;
}

bool ThreadPool::has_waiting_jobs() const { return state_->n_waiting.load(std::memory_order_relaxed) > 0; }

void ThreadPool::for_each_chunk(int64_t n_chunks, const RunContext& context,
                                const std::function<void(int64_t chunk, int worker)>& body) {
  if (n_chunks <= 0) return;
  Loop loop;
  loop.body = &body;
  loop.context = &context;
  loop.n_chunks = n_chunks;
  const bool shared = context.parallel && n_chunks > 1;
  if (shared) {
    {
      std::lock_guard<std::mutex> lock(state_->mutex);
      loop.free_workers.reserve(static_cast<size_t>(n_threads()));
      state_->loops.push_back(&loop);
      state_->spread(loop);
    }
    state_->work.notify_all();
  }
  state_->run_chunks(loop, 0, false);
  if (!shared) return;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->loops.erase(std::find(state_->loops.begin(), state_->loops.end(), &loop));
  }
  // Helpers are at their last chunks: soon done, mostly sooner than a sleeping thread wakes.
  for (int spins = 0; loop.helpers.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
      continue;
    }
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->released.wait(lock, [&loop] { return loop.helpers.load(std::memory_order_acquire) == 0; });
  }
}

}  // namespace waggle
