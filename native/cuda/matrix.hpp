// A matrix that stays on the device, in the layout that the tensor cores read.
//
// Rows are grouped in tiles of 128, depth in blocks of 128 bytes (64 × f16/bf16, 128 × int8, 32 × tf32), zero-padded.
// One tile and block are 16 KiB one after another: row r at 128·r, its eight 16-byte chunks at places chunk ^ (r % 8).
// A bulk copy therefore brings a ready operand into shared memory, and ldmatrix meets no bank conflict.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "abi/backend_abi.h"
#include "cuda/resources.hpp"

namespace waggle::cuda {

constexpr int kTileRows = 128;
constexpr int kBlockBytes = 128;
constexpr int kTileBytes = kTileRows * kBlockBytes;

/// What the bounds need to know about one row; see pair bounds in cuda/ops/topk.cu. All rounded up.
struct RowFacts {
  float scale;       // x̂ = scale · stored
  float error;       // ‖x − x̂‖₂
  float norm;        // ‖x‖₂; +infinity: bounds cannot be had in float, always look closely
  float square_low;  // ‖x‖₂² rounded down
};

/// Device pointers of a matrix, passed to kernels by value.
struct MatrixView {
  const unsigned char* d_tiles = nullptr;
  const RowFacts* d_facts = nullptr;
  const float* d_exact = nullptr;  // [n_rows × dim] or null
  int64_t n_rows = 0;
  int64_t dim = 0;
  int32_t n_blocks = 0;  // of depth
  int32_t dtype = 0;
};

int element_bytes(int32_t dtype);
int32_t depth_blocks(int64_t dim, int32_t dtype);
int64_t row_tiles(int64_t n_rows);

/// Encodes `count` rows (f32, device) as rows [first, first + count) of a matrix in the layout above; pads its last
/// tile when `count` ends inside one. d_bad_row gets the lowest row that is not finite.
int32_t launch_encode(const float* d_rows, int64_t first, int64_t count, int64_t dim, int32_t dtype,
                      unsigned char* d_tiles, RowFacts* d_facts, unsigned long long* d_bad_row, cudaStream_t stream,
                      waggle_text* error);

}  // namespace waggle::cuda

/// The opaque handle of the plugin contract.
struct waggle_device_matrix {
  waggle::cuda::MatrixView view;
  waggle::cuda::DeviceArray<unsigned char> d_tiles{"the matrix"};
  waggle::cuda::DeviceArray<waggle::cuda::RowFacts> d_facts{"the facts of the rows"};
  waggle::cuda::DeviceArray<float> d_exact{"the exact rows"};
  uint64_t device_bytes = 0;
};

namespace waggle::cuda {

int32_t open_matrix(State& state, const waggle_matrix_args& args, std::unique_ptr<waggle_device_matrix>* out,
                    waggle_text* error);

}  // namespace waggle::cuda
