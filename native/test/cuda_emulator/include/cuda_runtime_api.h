// The part of the CUDA runtime that the plugin uses, over the emulator. Device memory is host memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "test/cuda_emulator/emulator.hpp"

#define CUDART_VERSION 0
#define CUDART_CB

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorLaunchFailure = 719,
};

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocDefault = 0;

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor;
  int multiProcessorCount;
  size_t sharedMemPerBlockOptin;
  int l2CacheSize;
};

namespace waggle::emulator {
inline cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}
// WAGGLE_EMULATOR_MEMORY_MIB: what the pretended device has; more is refused as a device would.
struct DeviceMemory {
  size_t total;
  size_t used = 0;
  DeviceMemory() {
    const char* text = std::getenv("WAGGLE_EMULATOR_MEMORY_MIB");
    total = (text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : 2048) << 20;
  }
};
inline DeviceMemory& device_memory() {
  static DeviceMemory memory;
  return memory;
}
constexpr size_t kAllocationHeader = 256;
inline cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}
}  // namespace waggle::emulator

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = waggle::emulator::last_error();
  waggle::emulator::last_error() = cudaSuccess;
  return error;
}
inline cudaError_t cudaPeekAtLastError() { return waggle::emulator::last_error(); }
inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaErrorInvalidValue";
  }
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? waggle::emulator::last_failure() : "emulated";
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
// WAGGLE_EMULATOR_SM chooses which kernels the plugin takes: 80 (default) or 90.
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "emulated device");
  properties->totalGlobalMem = waggle::emulator::device_memory().total;
  const char* sm = std::getenv("WAGGLE_EMULATOR_SM");
  const int version = sm != nullptr && *sm != '\0' ? std::atoi(sm) : 80;
  properties->major = version / 10;
  properties->minor = version % 10;
  properties->multiProcessorCount = 1;  // blocks then take several tiles each
  properties->sharedMemPerBlockOptin = 227 * 1024;
  properties->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const auto& memory = waggle::emulator::device_memory();
  *total_bytes = memory.total;
  *free_bytes = memory.total - memory.used;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** out, size_t bytes) {
  using namespace waggle::emulator;
  *out = nullptr;
  if (device_memory().used + bytes > device_memory().total) return remember(cudaErrorMemoryAllocation);
  auto* base = static_cast<unsigned char*>(std::aligned_alloc(256, kAllocationHeader + (bytes + 255) / 256 * 256));
  if (base == nullptr) return remember(cudaErrorMemoryAllocation);
  std::memcpy(base, &bytes, sizeof bytes);
  std::memset(base + kAllocationHeader, 0xff, bytes);
  device_memory().used += bytes;
  *out = base + kAllocationHeader;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
  using namespace waggle::emulator;
  if (data == nullptr) return cudaSuccess;
  unsigned char* base = static_cast<unsigned char*>(data) - kAllocationHeader;
  size_t bytes = 0;
  std::memcpy(&bytes, base, sizeof bytes);
  device_memory().used -= bytes;
  std::free(base);
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  *out = std::malloc(bytes == 0 ? 1 : bytes);
  return *out != nullptr ? cudaSuccess : waggle::emulator::remember(cudaErrorMemoryAllocation);
}
inline cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                     size_t height, cudaMemcpyKind, cudaStream_t) {
  for (size_t y = 0; y < height; ++y) {
    std::memcpy(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(from) + y * from_pitch, width);
  }
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static char nothing;
  *stream = reinterpret_cast<cudaStream_t>(&nothing);
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  static char nothing;
  *event = reinterpret_cast<cudaEvent_t>(&nothing);
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? 1 : 227 * 1024;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}
