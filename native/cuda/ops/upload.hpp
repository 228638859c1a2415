// The arrays of a call in one copy: each alone would cost a call of the driver.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/resources.hpp"

namespace waggle::cuda {

#if defined(WAGGLE_CUDA_SMALL_PIECES)
// So that tests have pieces, too.
constexpr size_t kPieceBytes = size_t{64} << 10;
constexpr size_t kLargeBytes = size_t{256} << 10;
#else
constexpr size_t kPieceBytes = size_t{16} << 20;
constexpr size_t kLargeBytes = size_t{32} << 20;
#endif

/// Collects arrays of the host; `send` brings them to scratch memory, in stream order. Large ones travel by themselves,
/// past the pinned memory. The host's arrays must stay until the stream is through.
class Upload {
 public:
  /// *d_to becomes the device's copy of `from`, or null where that is null.
  template <typename T>
  void add(const T** d_to, const T* from, int64_t count) {
    *d_to = nullptr;
    if (from == nullptr || count < 0) return;
    pieces_.push_back({from, static_cast<size_t>(count) * sizeof(T), 0, reinterpret_cast<const void**>(d_to)});
  }

  int32_t send(State& state, cudaStream_t stream, waggle_text* error) {
    size_t total = 0;
    for (Piece& piece : pieces_) {
      if (piece.bytes > kLargeBytes) continue;
      piece.offset = total;
      total += (piece.bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
    unsigned char* d_slab = nullptr;
    unsigned char* h_slab = nullptr;
    WAGGLE_TRY(state.scratch.take(&d_slab, static_cast<int64_t>(total), error));
    WAGGLE_TRY(state.staging.take(&h_slab, static_cast<int64_t>(total), error));
    for (const Piece& piece : pieces_) {
      if (piece.bytes <= kLargeBytes) {
        state.copiers.copy(h_slab + piece.offset, piece.from, piece.bytes);
        *piece.d_to = d_slab + piece.offset;
        continue;
      }
      unsigned char* d_alone = nullptr;
      WAGGLE_TRY(state.scratch.take(&d_alone, static_cast<int64_t>(piece.bytes), error));
      WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_alone, piece.from, piece.bytes, cudaMemcpyHostToDevice, stream));
      *piece.d_to = d_alone;
    }
    if (total > 0) WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_slab, h_slab, total, cudaMemcpyHostToDevice, stream));
    pieces_.clear();
    return WAGGLE_BACKEND_OK;
  }

 private:
  static constexpr size_t kAlignment = 256;

  struct Piece {
    const void* from;
    size_t bytes;
    size_t offset;
    const void** d_to;
  };
  std::vector<Piece> pieces_;
};

/// Waits for a stream at the end of a scope: whatever is under way when a call ends, well or not, must not outlive the
/// memory it reads or writes.
class FinishedStream {
 public:
  explicit FinishedStream(cudaStream_t stream) : stream_(stream) {}
  ~FinishedStream() { (void)cudaStreamSynchronize(stream_); }
  FinishedStream(const FinishedStream&) = delete;
  FinishedStream& operator=(const FinishedStream&) = delete;

 private:
  cudaStream_t stream_;
};

/// Copies much memory to the device through two pinned pieces, one of which is filled while the other travels, and
/// waits for it. Both streams must be open; resets the staging memory.
inline int32_t send_in_pieces(State& state, void* d_to, const void* from, size_t bytes,
                              int32_t (*is_cancelled)(void* context), void* cancel_context, waggle_text* error) {
  const size_t piece = bytes < kPieceBytes ? bytes : kPieceBytes;
  const cudaStream_t streams[] = {state.stream.get(), state.second.get()};
  const FinishedStream finished[] = {FinishedStream(streams[0]), FinishedStream(streams[1])};
  unsigned char* h_pieces[2] = {};
  state.staging.reset();
  for (unsigned char*& h_piece : h_pieces) WAGGLE_TRY(state.staging.take(&h_piece, static_cast<int64_t>(piece), error));
  int side = 0;
  for (size_t done = 0; done < bytes; done += piece, side ^= 1) {
    if (is_cancelled != nullptr && is_cancelled(cancel_context) != 0) return WAGGLE_BACKEND_CANCELLED;
    const size_t now = bytes - done < piece ? bytes - done : piece;
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[side]));  // the piece before the last has left its place
    state.copiers.copy(h_pieces[side], static_cast<const unsigned char*>(from) + done, now);
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(static_cast<unsigned char*>(d_to) + done, h_pieces[side], now,
                                      cudaMemcpyHostToDevice, streams[side]));
  }
  for (const cudaStream_t stream : streams) WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream));
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
