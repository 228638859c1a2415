#include "emulator.hpp"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace waggle::emulator {

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;
constexpr size_t kLaneBytes = 1024;
constexpr int kNamedBarriers = 16;

struct Barrier {
  unsigned arrived = 0;
  uint64_t generation = 0;
};

struct MaskBarrier {
  unsigned mask = 0;
  Barrier barrier;
};

struct Warp {
  MaskBarrier barriers[8];
  alignas(64) unsigned char in[32][kLaneBytes];
  alignas(64) unsigned char turns[2][32][64];  // of whole-warp exchanges, by turns
  alignas(64) unsigned char out[32][kLaneBytes];
};

struct Fiber {
  jmp_buf context;
  void* stack = nullptr;
  bool started = false;
  bool finished = true;
  unsigned index = 0;
  unsigned turn = 0;
};

struct Machine {
  std::mutex mutex;  // one launch at a time
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<unsigned char[]> shared{new unsigned char[kMaxSharedBytes + 1024]};
  jmp_buf scheduler;
  Fiber* current = nullptr;
  dim3 grid, block;
  uint3 block_at;
  unsigned n_threads = 0;
  unsigned n_alive = 0;
  const std::function<void()>* body = nullptr;
  Barrier named[kNamedBarriers];
  uint64_t progress = 0;
  uint64_t random = 0;
  bool shuffled = false;
  std::string failure;
};

Machine& machine() {
  static Machine* m = [] {
    auto* made = new Machine();
    if (const char* seed = std::getenv("WAGGLE_EMULATOR_SEED"); seed != nullptr && *seed != '\0') {
      made->random = std::strtoull(seed, nullptr, 10);
      made->shuffled = true;
    }
    return made;
  }();
  return *m;
}

uint64_t next_random() {  // splitmix64
  uint64_t z = (machine().random += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void yield() {
  Machine& m = machine();
  if (_setjmp(m.current->context) == 0) _longjmp(m.scheduler, 1);
}

void fiber_main() {
  Machine& m = machine();
  while (true) {
    (*m.body)();
    m.current->finished = true;
    --m.n_alive;
    ++m.progress;
    yield();  // comes back as a thread of the next block
  }
}

void resume(Fiber* fiber) {
  Machine& m = machine();
  m.current = fiber;
  if (_setjmp(m.scheduler) != 0) return;
  if (fiber->started) _longjmp(fiber->context, 1);
  fiber->started = true;
  ucontext_t fresh;
  getcontext(&fresh);
  fresh.uc_stack.ss_sp = fiber->stack;
  fresh.uc_stack.ss_size = kStackBytes;
  fresh.uc_link = nullptr;
  makecontext(&fresh, fiber_main, 0);
  setcontext(&fresh);
}

template <typename Needed>
void wait_at(Barrier& barrier, Needed needed) {
  Machine& m = machine();
  const uint64_t generation = barrier.generation;
  ++barrier.arrived;
  while (barrier.generation == generation) {
    if (barrier.arrived >= needed()) {
      barrier.arrived = 0;
      ++barrier.generation;
      ++m.progress;
      return;
    }
    yield();
  }
}

Warp& warp_of(const Fiber& fiber) { return *machine().warps[fiber.index / 32]; }

bool run_block() {
  Machine& m = machine();
  for (Barrier& barrier : m.named) barrier = {};
  for (unsigned w = 0; w * 32 < m.n_threads; ++w) {
    for (MaskBarrier& barrier : m.warps[w]->barriers) barrier = {};
  }
  m.n_alive = m.n_threads;
  std::vector<Fiber*> order;
  for (unsigned t = 0; t < m.n_threads; ++t) {
    m.fibers[t]->finished = false;
    m.fibers[t]->turn = 0;
    order.push_back(m.fibers[t].get());
  }
  while (m.n_alive > 0) {
    const uint64_t before = m.progress;
    if (m.shuffled) {
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
      // Most warps stand still for a few rounds, so that one may run far ahead of another.
      const uint64_t running = next_random() & next_random();
      for (int round = 0; round < 24; ++round) {
        for (Fiber* fiber : order) {
          if (!fiber->finished && ((running >> (fiber->index / 32)) & 1) != 0) resume(fiber);
        }
      }
    }
    for (Fiber* fiber : order) {
      if (!fiber->finished) resume(fiber);
    }
    // A barrier may be completed by the last arrival of a round and seen in the next one only.
    if (m.progress == before) {
      for (Fiber* fiber : order) {
        if (!fiber->finished) resume(fiber);
      }
      if (m.progress == before) return false;
    }
  }
  return true;
}

}  // namespace

bool launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || shared_bytes > kMaxSharedBytes || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    m.failure = "launch out of a device's limits";
    return false;
  }
  m.n_threads = static_cast<unsigned>(threads);
  while (m.fibers.size() < m.n_threads) {
    auto fiber = std::make_unique<Fiber>();
    fiber->index = static_cast<unsigned>(m.fibers.size());
    fiber->stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m.fibers.push_back(std::move(fiber));
  }
  while (m.warps.size() * 32 < m.n_threads) m.warps.push_back(std::make_unique<Warp>());
  m.grid = grid;
  m.block = block;
  m.body = &body;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block_at = {x, y, z};
        std::memset(m.shared.get(), 0xff, shared_bytes + 1024);
        if (!run_block()) {
          m.failure = "the threads of a block wait for each other for ever: a barrier not all of them reach";
          std::fprintf(stderr, "emulator: %s (block %u,%u,%u of %u,%u,%u)\n", m.failure.c_str(), x, y, z, grid.x,
                       grid.y, grid.z);
          std::abort();  // fibers cannot be unwound
        }
      }
    }
  }
  return true;
}

const char* last_failure() { return machine().failure.c_str(); }

uint3 thread_index() {
  const Machine& m = machine();
  const unsigned i = m.current->index;
  return {i % m.block.x, i / m.block.x % m.block.y, i / m.block.x / m.block.y};
}
uint3 block_index() { return machine().block_at; }
dim3 block_size() { return machine().block; }
dim3 grid_size() { return machine().grid; }
unsigned lane() { return machine().current->index % 32; }

unsigned char* dynamic_shared() {
  unsigned char* base = machine().shared.get();
  return base + (1024 - reinterpret_cast<uintptr_t>(base) % 1024) % 1024;
}

void block_barrier() {
  wait_at(machine().named[0], [] { return machine().n_alive; });
}

void named_barrier(int id, int count) {
  wait_at(machine().named[id], [count] { return static_cast<unsigned>(count); });
}

void warp_barrier(unsigned mask) {
  Warp& warp = warp_of(*machine().current);
  MaskBarrier* found = nullptr;
  for (MaskBarrier& candidate : warp.barriers) {
    if (candidate.mask == mask) found = &candidate;
  }
  if (found == nullptr) {
    for (MaskBarrier& candidate : warp.barriers) {
      if (found == nullptr && (candidate.mask == 0 || candidate.barrier.arrived == 0)) found = &candidate;
    }
    if (found == nullptr) {
      std::fprintf(stderr, "emulator: more than 8 masks of one warp in flight\n");
      std::abort();
    }
    found->mask = mask;
  }
  wait_at(found->barrier, [mask] { return static_cast<unsigned>(__builtin_popcount(mask)); });
}

void pause() { yield(); }
void progressed() { ++machine().progress; }

void exchange(unsigned mask, const void* mine, size_t bytes, unsigned source, void* out) {
  Warp& warp = warp_of(*machine().current);
  if (mask == 0xffffffffu) {
    // A lane cannot be two exchanges ahead of another, so two buffers need one barrier instead of two.
    unsigned char(*const buffer)[64] = warp.turns[machine().current->turn++ & 1];
    std::memcpy(buffer[lane()], mine, bytes);
    warp_barrier(mask);
    std::memcpy(out, buffer[source], bytes);
    return;
  }
  std::memcpy(warp.in[lane()], mine, bytes);
  warp_barrier(mask);
  if (((mask >> source) & 1) == 0) {
    std::fprintf(stderr, "emulator: a shuffle reads lane %u, which is not in the mask %08x\n", source, mask);
    std::abort();
  }
  std::memcpy(out, warp.in[source], bytes);
  warp_barrier(mask);
}

unsigned ballot(unsigned mask, bool predicate) {
  Warp& warp = warp_of(*machine().current);
  warp.in[lane()][0] = predicate ? 1 : 0;
  warp_barrier(mask);
  unsigned votes = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if (((mask >> l) & 1) != 0 && warp.in[l][0] == 1) votes |= 1u << l;
  }
  warp_barrier(mask);
  return votes;
}

void warp_collective(
    const void* mine, size_t bytes, void* out, size_t out_bytes,
    const std::function<void(const unsigned char* const inputs[32], unsigned char* const outputs[32])>& work) {
  Warp& warp = warp_of(*machine().current);
  std::memcpy(warp.in[lane()], mine, bytes);
  warp_barrier(0xffffffffu);
  if (lane() == 0) {
    const unsigned char* inputs[32];
    unsigned char* outputs[32];
    for (int l = 0; l < 32; ++l) {
      inputs[l] = warp.in[l];
      outputs[l] = warp.out[l];
    }
    work(inputs, outputs);
  }
  warp_barrier(0xffffffffu);
  std::memcpy(out, warp.out[lane()], out_bytes);
  warp_barrier(0xffffffffu);
}

}  // namespace waggle::emulator
