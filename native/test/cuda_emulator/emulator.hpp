// Runs CUDA kernels on the CPU, so that their logic is tested where no device is.
//
// A block's threads are fibers of one host thread. They run one after another up to the next barrier or warp
// collective; WAGGLE_EMULATOR_SEED shuffles their order, so that a missing barrier shows as an answer that depends
// on the seed. Blocks run in turn. Memory from cudaMalloc and dynamic shared memory start as NaN bytes. What this
// cannot show: speed, occupancy, memory ordering between blocks, alignment faults, and errors in inline PTX, whose
// wrappers (cuda/tensor_core.cuh) are replaced by functions that do what the PTX manual says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

namespace waggle::emulator {

/// Runs body once per thread of every block. Returns false (with the reason in last_failure()) when a block's
/// threads wait for each other for ever, or the launch is out of a device's limits.
bool launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
const char* last_failure();

/// Of the running fiber.
uint3 thread_index();
uint3 block_index();
dim3 block_size();
dim3 grid_size();
unsigned lane();
unsigned char* dynamic_shared();

void block_barrier();
/// Named barrier `id` (0 is block_barrier's) for `count` threads.
void named_barrier(int id, int count);
void warp_barrier(unsigned mask);
/// Lets the others run; for spinning on memory.
void pause();
/// Counts as progress for the deadlock check: something a spinning thread waits for has changed.
void progressed();

/// Every lane of `mask` gives `bytes` (≤ 64) and gets the lane `source`'s.
void exchange(unsigned mask, const void* mine, size_t bytes, unsigned source, void* out);
unsigned ballot(unsigned mask, bool predicate);

/// Every lane of the warp gives `bytes` (≤ 1,024) and, once all have, `work` runs on one of them with the 32 inputs in
/// lane order and writes into the 32 outputs, which may be the inputs.
void warp_collective(
    const void* mine, size_t bytes, void* out, size_t out_bytes,
    const std::function<void(const unsigned char* const inputs[32], unsigned char* const outputs[32])>& work);

}  // namespace waggle::emulator
