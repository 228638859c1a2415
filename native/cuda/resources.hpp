// What lives on the device between calls, and what one call needs. Owned by a scope or by the state; released on every
// path.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "abi/backend_abi.h"
#include "cuda/check.cuh"
#include "cuda/copiers.hpp"

namespace waggle::cuda {

class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Does nothing when open.
  int32_t open(waggle_text* error) {
    if (stream_ != nullptr) return WAGGLE_BACKEND_OK;
    WAGGLE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    return WAGGLE_BACKEND_OK;
  }
  cudaStream_t get() const { return stream_; }
  /// Waits for what is under way, whatever becomes of it.
  void settle() const {
    if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
  }
  /// Nothing is under way in it. False also where it failed: whoever waits for it then hears why.
  bool is_through() const {
    const bool through = cudaStreamQuery(stream_) == cudaSuccess;
    if (!through) (void)cudaGetLastError();  // "not ready" is no error to report later
    return through;
  }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A place in a stream to wait for.
class Event {
 public:
  Event() = default;
  ~Event() {
    if (event_ != nullptr) (void)cudaEventDestroy(event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  /// Does nothing when open.
  int32_t open(waggle_text* error) {
    if (event_ != nullptr) return WAGGLE_BACKEND_OK;
    WAGGLE_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    return WAGGLE_BACKEND_OK;
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
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

/// Allocates, and copies `count` values of the host, which must stay until the stream is through.
template <typename T>
int32_t upload(DeviceArray<T>& to, const T* from, int64_t count, cudaStream_t stream, waggle_text* error) {
  WAGGLE_TRY(to.allocate(static_cast<size_t>(count), error));
  if (count > 0) {
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(to.get(), from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyHostToDevice, stream));
  }
  return WAGGLE_BACKEND_OK;
}

enum class Memory { kDevice, kPinned };

/// Memory taken piece by piece during a call and all given back at the next. Grows when a call needs more than any
/// before it; after that nothing is allocated. Belongs to the owner's thread.
template <Memory kMemory>
class Arena {
 public:
  Arena() = default;
  ~Arena() { release(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Everything taken before is free again; several chunks become one, so that the next call like the last fits.
  void reset() {
    if (chunks_.size() > 1) {
      size_t total = 0;
      for (const Chunk& chunk : chunks_) total += chunk.bytes;
      release();
      wanted_ = total;
    }
    for (Chunk& chunk : chunks_) chunk.used = 0;
  }

  /// `count` uninitialised values, aligned to 1,024 bytes.
  template <typename T>
  int32_t take(T** out, int64_t count, waggle_text* error) {
    const size_t bytes = (static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T) + 1023) / 1024 * 1024;
    if (chunks_.empty() || chunks_.back().used + bytes > chunks_.back().bytes) {
      constexpr size_t kSmallest = size_t{1} << 20;
      Chunk chunk;
      chunk.bytes = std::max({bytes, kSmallest, wanted_});
      wanted_ = 0;
      cudaError_t result = allocate(&chunk);
      if (result != cudaSuccess && chunk.bytes > bytes) {
        (void)cudaGetLastError();
        chunk.bytes = bytes;
        result = allocate(&chunk);
      }
      if (result != cudaSuccess) {
        return fail_cuda(error, result, kMemory == Memory::kDevice ? "scratch memory" : "pinned memory");
      }
      chunks_.push_back(chunk);
    }
    Chunk& chunk = chunks_.back();
    *out = reinterpret_cast<T*>(chunk.data + chunk.used);
    chunk.used += bytes;
    return WAGGLE_BACKEND_OK;
  }

  /// Gives the memory back to the device, for a call that needs it elsewhere.
  void release() {
    for (const Chunk& chunk : chunks_) {
      if constexpr (kMemory == Memory::kDevice) {
        (void)cudaFree(chunk.data);
      } else {
        (void)cudaFreeHost(chunk.data);
      }
    }
    chunks_.clear();
  }

 private:
  struct Chunk {
    unsigned char* data = nullptr;
    size_t bytes = 0;
    size_t used = 0;
  };

  static cudaError_t allocate(Chunk* chunk) {
    void* data = nullptr;
    cudaError_t result;
    if constexpr (kMemory == Memory::kDevice) {
      result = cudaMalloc(&data, chunk->bytes);
    } else {
      result = cudaHostAlloc(&data, chunk->bytes, cudaHostAllocDefault);
    }
    chunk->data = static_cast<unsigned char*>(data);
    return result;
  }

  std::vector<Chunk> chunks_;
  size_t wanted_ = 0;
};

using Scratch = Arena<Memory::kDevice>;
using Staging = Arena<Memory::kPinned>;

constexpr int kMostSides = 8;

/// What the plugin keeps between calls. Used by the owner's thread only (cuda/owner.hpp).
struct State {
  int device = 0;
  int multiprocessors = 1;
  bool has_wgmma = false;
  size_t memory_bytes = 0;
  Stream stream;
  Stream second;             // for work in pieces: one piece travels while the other computes
  Event ahead;               // how far the device has come
  Stream sides[kMostSides];  // for work in many small pieces
  Scratch scratch;
  Staging staging;
  Copiers copiers;

  /// Waits for all streams.
  void settle() {
    for (const Stream* each : {&stream, &second}) each->settle();
    for (const Stream& side : sides) side.settle();
  }
};

}  // namespace waggle::cuda
