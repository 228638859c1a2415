// CUDA C++ over the emulator: the qualifiers, built-in variables and functions that the plugin's kernels use.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"

#define WAGGLE_CUDA_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block at a time: a static is shared by its threads and nobody else.
#define __shared__ static

#define threadIdx (::waggle::emulator::thread_index())
#define blockIdx (::waggle::emulator::block_index())
#define blockDim (::waggle::emulator::block_size())
#define gridDim (::waggle::emulator::grid_size())

struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

inline void __syncthreads() { ::waggle::emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::waggle::emulator::warp_barrier(mask); }
inline unsigned __ballot_sync(unsigned mask, int predicate) { return ::waggle::emulator::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline unsigned __activemask() { return 0xffffffffu; }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned l = ::waggle::emulator::lane();
  const unsigned from = (l / width) * width + static_cast<unsigned>(source) % width;
  T out;
  ::waggle::emulator::exchange(mask, &value, sizeof value, from, &out);
  return out;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned l = ::waggle::emulator::lane();
  unsigned from = l ^ static_cast<unsigned>(lane_mask);
  if (from / width != l / width) from = l;
  T out;
  ::waggle::emulator::exchange(mask, &value, sizeof value, from, &out);
  return out;
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned l = ::waggle::emulator::lane();
  unsigned from = l + delta;
  if (from / width != l / width) from = l;
  T out;
  ::waggle::emulator::exchange(mask, &value, sizeof value, from, &out);
  return out;
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned l = ::waggle::emulator::lane();
  const unsigned from = l % width < delta ? l : l - delta;
  T out;
  ::waggle::emulator::exchange(mask, &value, sizeof value, from, &out);
  return out;
}

template <typename T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomicMin(T* at, T value) {
  const T old = *at;
  if (value < old) *at = value;
  return old;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
template <typename T>
T atomicOr(T* at, T value) {
  const T old = *at;
  *at = old | value;
  return old;
}
template <typename T>
T atomicExch(T* at, T value) {
  const T old = *at;
  *at = value;
  return old;
}
template <typename T>
T atomicCAS(T* at, T compare, T value) {
  const T old = *at;
  if (old == compare) *at = value;
  return old;
}

template <typename T>
T __ldg(const T* at) {
  return *at;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __fadd_ru(float a, float b) {
  const double exact = static_cast<double>(a) + b;
  float r = static_cast<float>(exact);
  if (static_cast<double>(r) < exact) r = std::nextafterf(r, INFINITY);
  return r;
}
inline float __fmul_ru(float a, float b) {
  const double exact = static_cast<double>(a) * b;
  float r = static_cast<float>(exact);
  if (static_cast<double>(r) < exact) r = std::nextafterf(r, INFINITY);
  return r;
}
inline float __double2float_ru(double exact) {
  float r = static_cast<float>(exact);
  if (static_cast<double>(r) < exact) r = std::nextafterf(r, INFINITY);
  return r;
}
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<int>(static_cast<int8_t>(a >> (8 * i))) * static_cast<int>(static_cast<int8_t>(b >> (8 * i)));
  }
  return c;
}
using std::isfinite;
using std::isnan;
using std::max;
using std::min;
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { ::waggle::emulator::pause(); }
