// Encoding rows on the device: one warp per row, twice over the row (facts, then values).
#include "cuda/matrix.hpp"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/device.cuh"

namespace waggle::cuda {

constexpr int64_t kMaxDim = int64_t{1} << 24;
constexpr int64_t kMaxInt8Dim = ((int64_t{1} << 31) - 1) / (127 * 127);  // what 32 bits can sum

int element_bytes(int32_t dtype) {
  switch (dtype) {
    case WAGGLE_DTYPE_F32:
      return 4;
    case WAGGLE_DTYPE_INT8:
      return 1;
    default:
      return 2;
  }
}

int32_t depth_blocks(int64_t dim, int32_t dtype) {
  return static_cast<int32_t>((dim * element_bytes(dtype) + kBlockBytes - 1) / kBlockBytes);
}

int64_t row_tiles(int64_t n_rows) { return (n_rows + kTileRows - 1) / kTileRows; }

namespace {

constexpr int kEncodeThreads = 256;
constexpr int kEncodeRows = kEncodeThreads / 32;

__device__ inline double sum_of_warp(double value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kFullWarp, value, step);
  return value;
}
__device__ inline float max_of_warp(float value) {
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, step));
  return value;
}

__device__ inline unsigned short to_bf16(float x) {  // nearest, ties to even; x is finite
  const unsigned bits = __float_as_uint(x);
  return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// One stored value, and what it stands for once multiplied by the row's scale.
__device__ inline unsigned stored_bits(float x, float inverse_scale, int dtype, float* stands_for) {
  switch (dtype) {
    case WAGGLE_DTYPE_F16: {
      const __half h = __float2half_rn(x * inverse_scale);
      *stands_for = __half2float(h);
      return __half_as_ushort(h);
    }
    case WAGGLE_DTYPE_BF16: {
      const unsigned short b = to_bf16(x);
      *stands_for = __uint_as_float(static_cast<unsigned>(b) << 16);
      return b;
    }
    case WAGGLE_DTYPE_INT8: {
      int q = __float2int_rn(x * inverse_scale);
      q = q > 127 ? 127 : q < -127 ? -127 : q;
      *stands_for = static_cast<float>(q);
      return static_cast<unsigned>(q) & 0xffu;
    }
    default:  // tf32: the cores ignore the low 13 bits, which stay for whoever reads the value as f32
      *stands_for = __uint_as_float(__float_as_uint(x) & 0xffffe000u);
      return __float_as_uint(x);
  }
}

// Grid: one block per 8 rows of the padded part; 256 threads, a warp per row; memory bound: reads 4 bytes twice and
// writes the stored bytes once per value.
__global__ void encode_kernel(const float* d_rows, int64_t first, int64_t count, int64_t padded, int64_t dim, int dtype,
                              int n_blocks, unsigned char* d_tiles, RowFacts* d_facts, unsigned long long* d_bad_row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kEncodeRows + static_cast<int>(threadIdx.x) / 32;
  if (i >= padded) return;
  const int64_t row = first + i;
  const int bytes = dtype == WAGGLE_DTYPE_F32 ? 4 : dtype == WAGGLE_DTYPE_INT8 ? 1 : 2;
  const int64_t depth = static_cast<int64_t>(n_blocks) * (kBlockBytes / bytes);
  const float* source = i < count ? d_rows + i * dim : nullptr;

  float largest = 0;
  double square = 0;
  bool finite = true;
  if (source != nullptr) {
    for (int64_t j = lane; j < dim; j += 32) {
      const float x = source[j];
      finite = finite && isfinite(x);
      largest = fmaxf(largest, fabsf(x));
      square += static_cast<double>(x) * x;
    }
  }
  largest = max_of_warp(largest);
  square = sum_of_warp(square);
  finite = __all_sync(kFullWarp, finite ? 1 : 0) != 0;
  if (!finite) {
    if (lane == 0) atomicMin(d_bad_row, static_cast<unsigned long long>(row));
    return;
  }
  // A power of two for f16, so that only overflow and underflow are avoided and no bit is lost to scaling.
  float scale = 1.0f;
  if (largest > 0) {
    if (dtype == WAGGLE_DTYPE_INT8) scale = fmaxf(largest / 127.0f, 1.17549435e-38f);
    if (dtype == WAGGLE_DTYPE_F16) {
      int exponent = 0;
      (void)frexpf(largest, &exponent);
      scale = ldexpf(1.0f, exponent < -110 ? -110 : exponent > 126 ? 126 : exponent);
    }
  }
  const float inverse_scale = dtype == WAGGLE_DTYPE_F16 || dtype == WAGGLE_DTYPE_INT8 ? 1.0f / scale : 1.0f;

  const int64_t tile = row / kTileRows;
  const int in_tile = static_cast<int>(row % kTileRows);
  double lost = 0;
  for (int64_t j = lane; j < depth; j += 32) {
    const float x = source != nullptr && j < dim ? source[j] : 0.0f;
    float stands_for = 0;
    const unsigned bits = stored_bits(x, inverse_scale, dtype, &stands_for);
    const double gone = static_cast<double>(x) - static_cast<double>(stands_for) * scale;
    lost += gone * gone;
    const int64_t byte = j * bytes;
    const int64_t block = byte / kBlockBytes;
    const int in_block = static_cast<int>(byte % kBlockBytes);
    unsigned char* at = d_tiles + (tile * n_blocks + block) * kTileBytes + in_tile * kBlockBytes +
                        (((in_block / 16) ^ (in_tile & 7)) * 16) + in_block % 16;
    if (bytes == 4) {
      *reinterpret_cast<unsigned*>(at) = bits;
    } else if (bytes == 2) {
      *reinterpret_cast<unsigned short*>(at) = static_cast<unsigned short>(bits);
    } else {
      *at = static_cast<unsigned char>(bits);
    }
  }
  lost = sum_of_warp(lost);
  if (lane == 0) {
    RowFacts facts;
    const double norm = sqrt(square);
    facts.scale = scale;
    // (1 + 1e-9): the sums above are in double, each off by at most dim · 2^-53.
    facts.error = __double2float_ru(sqrt(lost) * (1.0 + 1e-9));
    facts.norm = __double2float_ru(norm * (1.0 + 1e-9));
    facts.square_low = static_cast<float>(square * (1.0 - 2e-7));
    // Where float under- or overflows no bound holds: every look at such a row is a close one.
    const bool safe = square == 0 || (square >= 1e-24 && square <= 1e24);
    if (!safe) facts.norm = INFINITY;
    d_facts[row] = facts;
  }
}

}  // namespace

int32_t launch_encode(const float* d_rows, int64_t first, int64_t count, int64_t dim, int32_t dtype,
                      unsigned char* d_tiles, RowFacts* d_facts, unsigned long long* d_bad_row, cudaStream_t stream,
                      waggle_text* error) {
  if (count == 0) return WAGGLE_BACKEND_OK;
  const int64_t padded = row_tiles(first + count) * kTileRows - first;
  WAGGLE_LAUNCH(encode_kernel, dim3(static_cast<unsigned>((padded + kEncodeRows - 1) / kEncodeRows)),
                dim3(kEncodeThreads), 0, stream, d_rows, first, count, padded, dim, dtype, depth_blocks(dim, dtype),
                d_tiles, d_facts, d_bad_row);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t open_matrix(State& state, const waggle_matrix_args& args, std::unique_ptr<waggle_device_matrix>* out,
                    waggle_text* error) {
  if (args.dim < 1 || args.n_rows < 0 || args.n_rows > std::numeric_limits<int32_t>::max() || args.dtype < 0 ||
      args.dtype > WAGGLE_DTYPE_INT8 || args.dim > (args.dtype == WAGGLE_DTYPE_INT8 ? kMaxInt8Dim : kMaxDim)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape or type out of range");
  }
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  auto matrix = std::make_unique<waggle_device_matrix>();
  MatrixView& view = matrix->view;
  view.n_rows = args.n_rows;
  view.dim = args.dim;
  view.dtype = args.dtype;
  view.n_blocks = depth_blocks(args.dim, args.dtype);
  const int64_t tiles = row_tiles(args.n_rows);
  const size_t tile_bytes = static_cast<size_t>(tiles) * static_cast<size_t>(view.n_blocks) * kTileBytes;
  const size_t n_facts = static_cast<size_t>(tiles) * kTileRows;
  const size_t n_values = static_cast<size_t>(args.n_rows) * static_cast<size_t>(args.dim);
  WAGGLE_TRY(matrix->d_tiles.allocate(tile_bytes, error));
  WAGGLE_TRY(matrix->d_facts.allocate(n_facts, error));
  if (args.keep_exact != 0) WAGGLE_TRY(matrix->d_exact.allocate(n_values, error));
  view.d_tiles = matrix->d_tiles.get();
  view.d_facts = matrix->d_facts.get();
  view.d_exact = args.keep_exact != 0 ? matrix->d_exact.get() : nullptr;
  matrix->device_bytes = tile_bytes + n_facts * sizeof(RowFacts) + (args.keep_exact != 0 ? n_values * 4 : 0);
  if (args.n_rows == 0) {
    *out = std::move(matrix);
    return WAGGLE_BACKEND_OK;
  }

  WAGGLE_TRY(state.stream.open(error));
  WAGGLE_TRY(state.second.open(error));
  const cudaStream_t streams[] = {state.stream.get(), state.second.get()};
  // Whole tiles of at most 64 MiB travel at a time, one part while the next is read.
  int64_t part_rows = (int64_t{16} << 20) / std::max<int64_t>(args.dim, 1) / kTileRows * kTileRows;
  part_rows = std::max<int64_t>(kTileRows, std::min(part_rows, tiles * kTileRows));
  const int sides = part_rows < args.n_rows ? 2 : 1;
  DeviceArray<unsigned long long> d_bad_row("a flag");
  DeviceArray<float> d_part("parts of the matrix on their way");
  WAGGLE_TRY(d_bad_row.allocate(1, error));
  if (args.keep_exact == 0) WAGGLE_TRY(d_part.allocate(static_cast<size_t>(sides * part_rows * args.dim), error));
  float* h_parts = nullptr;
  state.staging.reset();
  WAGGLE_TRY(state.staging.take(&h_parts, sides * part_rows * args.dim, error));
  // The pinned parts are for this once; nothing may still be under way to or from them, or to the matrix.
  struct Done {
    State& state;
    const cudaStream_t* streams;
    ~Done() {
      (void)cudaStreamSynchronize(streams[0]);
      (void)cudaStreamSynchronize(streams[1]);
      state.staging.release();
    }
  } done{state, streams};
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_bad_row.get(), 0xff, 8, streams[0]));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[0]));
  int side = 0;
  for (int64_t first = 0; first < args.n_rows; first += part_rows, side = (side + 1) % sides) {
    if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) return WAGGLE_BACKEND_CANCELLED;
    const cudaStream_t s = streams[side];
    const int64_t count = std::min(part_rows, args.n_rows - first);
    const size_t bytes = static_cast<size_t>(count * args.dim) * 4;
    float* h_rows = h_parts + side * part_rows * args.dim;
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));  // the part before the last has left its place
    if (args.exact != nullptr) {
      state.copiers.copy(h_rows, args.exact + first * args.dim, bytes);
    } else if (args.read_rows == nullptr) {
      return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "no rows are given");
    } else if (const int32_t read = args.read_rows(args.read_context, first, count, h_rows);
               read != WAGGLE_BACKEND_OK) {
      return fail(error, read, "rows %lld to %lld could not be read", static_cast<long long>(first),
                  static_cast<long long>(first + count - 1));
    }
    float* d_rows =
        args.keep_exact != 0 ? matrix->d_exact.get() + first * args.dim : d_part.get() + side * part_rows * args.dim;
    WAGGLE_CUDA_CHECK(cudaMemcpyAsync(d_rows, h_rows, bytes, cudaMemcpyHostToDevice, s));
    WAGGLE_TRY(launch_encode(d_rows, first, count, args.dim, args.dtype, matrix->d_tiles.get(), matrix->d_facts.get(),
                             d_bad_row.get(), s, error));
  }
  for (const cudaStream_t s : streams) WAGGLE_CUDA_CHECK(cudaStreamSynchronize(s));
  unsigned long long h_bad_row = kNoKey;
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(&h_bad_row, d_bad_row.get(), 8, cudaMemcpyDeviceToHost, streams[0]));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(streams[0]));
  if (h_bad_row != kNoKey) {
    return fail(error, WAGGLE_BACKEND_NOT_FINITE, "matrix row %llu holds NaN or infinity", h_bad_row);
  }
  *out = std::move(matrix);
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
