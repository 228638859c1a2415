// What one call needs on the device: a stream and labelled scratch. Owned by a scope, released on every path.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

#include "abi/backend_abi.h"
#include "cuda/check.cuh"

namespace waggle::cuda {

/// What the plugin keeps between calls. Opened once, never closed.
struct State {
  int device = 0;
  size_t memory_bytes = 0;
  /// One call at a time: each may want most of the device's memory.
  std::mutex mutex;
};

class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int32_t open(waggle_text* error) {
    WAGGLE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    return WAGGLE_BACKEND_OK;
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

template <typename T>
class DeviceArray {
 public:
  /// `purpose` says in an error what the memory was for.
  explicit DeviceArray(const char* purpose) : purpose_(purpose) {}
  ~DeviceArray() {
    if (d_data_ != nullptr) (void)cudaFree(d_data_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  int32_t allocate(size_t count, waggle_text* error) {
    void* d_memory = nullptr;
    const cudaError_t result = cudaMalloc(&d_memory, (count == 0 ? 1 : count) * sizeof(T));
    if (result != cudaSuccess) return fail_cuda(error, result, purpose_);
    d_data_ = static_cast<T*>(d_memory);
    return WAGGLE_BACKEND_OK;
  }
  T* get() const { return d_data_; }

 private:
  const char* purpose_;
  T* d_data_ = nullptr;
};

}  // namespace waggle::cuda
