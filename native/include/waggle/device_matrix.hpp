// A matrix that stays on the accelerator between searches.
#pragma once

#include <cstdint>
#include <memory>

#include "waggle/ops/topk.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

/// What the accelerator scans. The answer is exact whatever it is, as long as the f32 rows are kept beside it.
enum class DeviceDtype : int32_t {
  /// The f32 rows themselves, scanned in tf32 by the tensor cores.
  kF32 = 0,
  kF16 = 1,
  kBf16 = 2,
  kInt8 = 3,
};

/// Rows that stay with the caller: in memory, in a mapped file, or made on demand.
class RowSource {
 public:
  virtual ~RowSource() = default;
  /// Writes rows [first, first + count), [count × dim], the same at every call. Called from several threads at once.
  virtual void read(int64_t first, int64_t count, float* out) const = 0;
};

enum class ExactRows : int32_t {
  /// Beside what is scanned, on the device.
  kOnDevice,
  /// Where `source` has them: the device names the rows that might belong to an answer, and the host scores those. For
  /// sets whose f32 rows are too large for the device. Answers are exact.
  kOnHost,
  /// Nowhere: low precision alone, answers approximate, rows in doubt counted.
  kNone,
};

struct DeviceMatrixArgs {
  Matrix<const float> matrix;  // [n_rows × dim], finite; no data when there is a source
  std::shared_ptr<const RowSource> source;
  DeviceDtype dtype = DeviceDtype::kF16;
  ExactRows exact = ExactRows::kOnDevice;
};

struct DeviceTopkArgs {
  Matrix<const float> queries;  // [n_queries × dim]
  int32_t k = 0;                // 1 … kTopkMaxK
  Metric metric = Metric::kInnerProduct;
  RowFilter filter;
  float* scores = nullptr;  // [n_queries × k], best first, -infinity pads
  int32_t* rows = nullptr;  // [n_queries × k], -1 pads
  /// Out: rows that the scan could not exclude and that were looked at closely, over all queries of the device's batch.
  int64_t n_rescored = 0;
  /// Out: without exact rows anywhere, how many rows might belong to an answer and are not in it; 0 with them.
  int64_t n_in_doubt = 0;
};

/// Safe to use from several threads; searches that wait together run as one batch.
class DeviceMatrix {
 public:
  /// Copies and encodes the rows. kBackend without an accelerator that can, kNotFinite naming a bad row, kOutOfMemory.
  static Status open(const DeviceMatrixArgs& args, const RunContext& context, std::shared_ptr<DeviceMatrix>* out);
  ~DeviceMatrix();
  DeviceMatrix(const DeviceMatrix&) = delete;
  DeviceMatrix& operator=(const DeviceMatrix&) = delete;

  int64_t n_rows() const { return n_rows_; }
  int64_t dim() const { return dim_; }
  int64_t device_bytes() const { return device_bytes_; }
  bool is_exact() const { return exact_ != ExactRows::kNone; }

  /// The k best rows of each query, ties to the lower row. With exact rows each score is the double product (cosine,
  /// distance) rounded once. kBackend when the device fails: it is for the caller to go on with the CPU.
  Status topk(DeviceTopkArgs& args, const RunContext& context) const;

 private:
  DeviceMatrix() = default;

  void* handle_ = nullptr;
  int64_t n_rows_ = 0;
  int64_t dim_ = 0;
  int64_t device_bytes_ = 0;
  ExactRows exact_ = ExactRows::kOnDevice;
  std::shared_ptr<const RowSource> source_;  // of exact rows on the host
};

}  // namespace waggle
