#include "emulator.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

// Leaves one fiber for another: the registers that a call must keep go onto the stack it leaves, whose pointer goes to
// *from, and come back from the stack `to` (System V, x86-64). setjmp and longjmp were a sixth of a run's time.
extern "C" void waggle_emulator_switch(void** from, void* to);
asm(R"(
.text
.type waggle_emulator_switch, @function
waggle_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size waggle_emulator_switch, . - waggle_emulator_switch
)");

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
  void* stack_pointer = nullptr;
  bool finished = true;
  unsigned index = 0;
  unsigned turn = 0;
  // The barrier it stands at, if any, the generation it waits out and how many must arrive (0: whoever is alive).
  const Barrier* waits_at = nullptr;
  uint64_t generation = 0;
  unsigned needed = 0;
};

struct Machine {
  std::mutex mutex;  // one launch at a time
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<unsigned char[]> shared{new unsigned char[kMaxSharedBytes + 1024]};
  void* scheduler = nullptr;  // its stack pointer while a fiber runs
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

Machine* make_machine() {
  auto* made = new Machine();
  if (const char* seed = std::getenv("WAGGLE_EMULATOR_SEED"); seed != nullptr && *seed != '\0') {
    made->random = std::strtoull(seed, nullptr, 10);
    made->shuffled = true;
  }
  return made;
}

Machine* const the_machine = make_machine();
Machine& machine() { return *the_machine; }

uint64_t next_random() {  // splitmix64
  uint64_t z = (machine().random += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void yield() {
  Machine& m = machine();
  waggle_emulator_switch(&m.current->stack_pointer, m.scheduler);
}

[[noreturn]] void fiber_main() {
  Machine& m = machine();
  while (true) {
    (*m.body)();
    m.current->finished = true;
    --m.n_alive;
    ++m.progress;
    yield();  // comes back as a thread of the next block
  }
}

/// A fiber that, when first resumed, enters fiber_main.
std::unique_ptr<Fiber> make_fiber(unsigned index) {
  auto fiber = std::make_unique<Fiber>();
  fiber->index = index;
  auto* stack = static_cast<unsigned char*>(
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  // Stacks that began at one offset of their pages would share few cache lines.
  void** top = reinterpret_cast<void**>(stack + kStackBytes - index % 128 * 448);
  *--top = nullptr;  // as if called: the stack is 16-byte aligned above a return address
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber->stack_pointer = top;
  return fiber;
}

void resume(Fiber* fiber) {
  Machine& m = machine();
  m.current = fiber;
  waggle_emulator_switch(&m.scheduler, fiber->stack_pointer);
}

unsigned or_alive(unsigned needed) { return needed != 0 ? needed : machine().n_alive; }

/// `needed` 0: as many as are alive, which may become fewer while others wait.
void wait_at(Barrier& barrier, unsigned needed) {
  Machine& m = machine();
  const uint64_t generation = barrier.generation;
  ++barrier.arrived;
  while (barrier.generation == generation) {
    if (barrier.arrived >= or_alive(needed)) {
      barrier.arrived = 0;
      ++barrier.generation;
      ++m.progress;
      return;
    }
    Fiber* const self = m.current;
    self->waits_at = &barrier;
    self->generation = generation;
    self->needed = needed;
    yield();
    self->waits_at = nullptr;
  }
}

/// Resuming it would change something: its barrier, if it stands at one, has opened or can be opened by it.
bool can_run(const Fiber& fiber) {
  if (fiber.finished) return false;
  const Barrier* const barrier = fiber.waits_at;
  return barrier == nullptr || barrier->generation != fiber.generation || barrier->arrived >= or_alive(fiber.needed);
}

/// False when none of them could run: then none can before others have.
bool resume_all(const std::vector<Fiber*>& fibers) {
  bool any = false;
  for (Fiber* fiber : fibers) {
    if (!can_run(*fiber)) continue;
    resume(fiber);
    any = true;
  }
  return any;
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
  std::vector<Fiber*> ahead;
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
      ahead.clear();
      for (Fiber* fiber : order) {
        if (((running >> (fiber->index / 32)) & 1) != 0) ahead.push_back(fiber);
      }
      for (int round = 0; round < 24 && resume_all(ahead); ++round) {
      }
    }
    resume_all(order);
    // A barrier may be completed by the last arrival of a round and seen in the next one only.
    if (m.progress == before) {
      resume_all(order);
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
  while (m.fibers.size() < m.n_threads) m.fibers.push_back(make_fiber(static_cast<unsigned>(m.fibers.size())));
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

void block_barrier() { wait_at(machine().named[0], 0); }

void named_barrier(int id, int count) { wait_at(machine().named[id], static_cast<unsigned>(count)); }

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
  wait_at(found->barrier, static_cast<unsigned>(__builtin_popcount(mask)));
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
