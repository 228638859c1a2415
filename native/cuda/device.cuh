// What every kernel file needs: launching, dynamic shared memory, and keys whose order is the order of an answer.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if defined(WAGGLE_CUDA_EMULATED)

/// Starts a kernel; its arguments follow. Check cudaGetLastError() after it.
#define WAGGLE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
  do {                                                                                                \
    (void)(stream);                                                                                   \
    if (!::waggle::emulator::launch((grid), (block), (shared_bytes), [&] { kernel(__VA_ARGS__); })) { \
      (void)::waggle::emulator::remember(cudaErrorLaunchFailure);                                     \
    }                                                                                                 \
  } while (false)
/// Declares the block's dynamic shared memory, aligned to 1,024 bytes.
#define WAGGLE_DYNAMIC_SHARED(name) unsigned char* name = ::waggle::emulator::dynamic_shared()
/// Tells the compiler that a pointer which a kernel read from memory is not to shared memory.
#define WAGGLE_IS_GLOBAL(pointer) (void)(pointer)

#else

#define WAGGLE_IS_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))

#define WAGGLE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define WAGGLE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

#endif

namespace waggle::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr unsigned long long kNoKey = ~0ull;

/// score_of_key, on the host.
inline float host_score_of(unsigned long long key) {
  uint32_t bits = ~static_cast<uint32_t>(key >> 32);
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
  float score = 0;
  static_assert(sizeof score == sizeof bits, "float is 32 bits");
  __builtin_memcpy(&score, &bits, sizeof score);
  return score;
}

// What follows is for compilers that know a device's code; the host's own files read these headers, too.
#if defined(__CUDACC__) || defined(WAGGLE_CUDA_EMULATED)

/// Ascending keys: higher score first, then lower row. −0 counts as +0. A NaN must not come here.
__device__ inline unsigned long long key_of(float score, uint32_t row) {
  unsigned int bits = __float_as_uint(score + 0.0f);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<unsigned long long>(~bits) << 32) | row;
}

__device__ inline float score_of_key(unsigned long long key) {
  unsigned int bits = ~static_cast<unsigned int>(key >> 32);
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
  return __uint_as_float(bits);
}

__device__ inline uint32_t row_of_key(unsigned long long key) { return static_cast<uint32_t>(key & 0xffffffffu); }

/// Sorts keys [size] in shared memory, ascending; size is a power of two. All threads of the block call it.
__device__ inline void sort_keys(unsigned long long* keys, int size) {
  for (int span = 2; span <= size; span *= 2) {
    for (int stride = span / 2; stride > 0; stride /= 2) {
      for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = 2 * pair - (pair & (stride - 1));
        const int high = low + stride;
        const bool ascending = (low & span) == 0;
        const unsigned long long a = keys[low];
        const unsigned long long b = keys[high];
        if ((a > b) == ascending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

#endif

}  // namespace waggle::cuda
