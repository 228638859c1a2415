#include "cpu/encode.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kChunkValues = 1 << 18;

// A length whose sum of squares was rounded at most 2·dim + 8 times, half an ulp each: more than that is added back.
float length_above(double squares, int64_t dim) {
  const double slack = (static_cast<double>(dim) + 16) * 0x1p-51;
  return float_above(std::sqrt(squares * (1 + slack)) * (1 + 0x1p-50));
}

}  // namespace

float float_above(double value) {
  if (value > static_cast<double>(std::numeric_limits<float>::max())) return std::numeric_limits<float>::infinity();
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
                                              : nearest;
}

Status encode(const Table& table, const EncodeArgs& args, const RunContext& context) {
  const int64_t dim = args.matrix.cols;
  const auto kernel = args.dtype == Dtype::kF16    ? table.encode.f16
                      : args.dtype == Dtype::kBf16 ? table.encode.bf16
                                                   : table.encode.int8;
  const int64_t stride_bytes = args.row_stride * bytes_of(args.dtype);
  const int64_t rows_per_chunk = std::max<int64_t>(1, kChunkValues / dim);
  const int64_t n_chunks = (args.matrix.rows + rows_per_chunk - 1) / rows_per_chunk;
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> bad_row{kNone};
  const auto body = [&](int64_t chunk, int) {
    const int64_t begin = chunk * rows_per_chunk;
    const int64_t end = std::min(args.matrix.rows, begin + rows_per_chunk);
    // Chunks are started in order, so every row below a bad one is still looked at: the lowest is reported.
    if (bad_row.load(std::memory_order_relaxed) < begin) return;
    for (int64_t row = begin; row < end; ++row) {
      double squares[2] = {0, 0};
      float scale = 1;
      void* out = static_cast<uint8_t*>(args.data) + row * stride_bytes;
      const float* x = args.matrix.row(row);
      const bool is_finite = args.lower == nullptr
                                 ? kernel(x, dim, out, &scale, squares) != 0
                                 : table.encode.halves(x, dim, static_cast<uint16_t*>(out),
                                                       args.lower + row * args.row_stride, squares) != 0;
      if (!is_finite) {
        int64_t lowest = bad_row.load();
        while (row < lowest && !bad_row.compare_exchange_weak(lowest, row)) {
        }
        return;
      }
      if (has_scale(args.dtype)) args.scale[row] = scale;
      args.norm[row] = length_above(squares[0], dim);
      args.error[row] = length_above(squares[1], dim);
    }
  };
  if (context.parallel) {
    ThreadPool::instance().for_each_chunk(n_chunks, context, body);
  } else {
    for (int64_t chunk = 0; chunk < n_chunks && !context.stop_requested(); ++chunk) body(chunk, 0);
  }
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (const int64_t row = bad_row.load(); row != kNone) {
    return fail(Code::kNotFinite, "matrix row %lld holds NaN or infinity", static_cast<long long>(row));
  }
  return {};
}

}  // namespace waggle::cpu
