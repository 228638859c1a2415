// The accelerator's part of clustering around means.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kmeans.hpp"
#include "src/registry.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

/// One clustering's. Keeps the rows it was asked about last on the device.
class DevicePoints final : public cpu::KmeansHelper {
 public:
  DevicePoints(const Registry& r, const RunContext& context) : registry_(r), context_(context) {}
  ~DevicePoints() override { close(); }
  DevicePoints(const DevicePoints&) = delete;
  DevicePoints& operator=(const DevicePoints&) = delete;

  static bool is_there(const Registry& r);

  bool assign(const Matrix<const float>& rows, const Matrix<const float>& to, int32_t* labels, float* distances,
              Status* status) override;
  bool update(const Matrix<const float>& rows, int64_t k, const std::vector<int32_t>& members,
              const std::vector<int64_t>& begins, float* centroids, Status* status) override;

 private:
  bool open(const Matrix<const float>& rows, Status* status);
  void close();

  const Registry& registry_;
  const RunContext& context_;
  waggle_points* points_ = nullptr;
  const float* data_ = nullptr;  // whose rows they are
  int64_t n_rows_ = 0;
  bool refused_ = false;
};

/// Of n encoded points [n × 4 · quads] the nearest of k centroids [k × 4 · quads], as IvfKernels::best finds it. False:
/// the CPU is to do it, and `status` says why where the caller insisted on the accelerator.
struct NearestCodes {
  const int8_t* codes = nullptr;
  const float* scales = nullptr;
  int64_t n = 0;
  int64_t quads = 0;
  const int8_t* centroids = nullptr;
  const float* centroid_scales = nullptr;
  const float* biases = nullptr;
  int64_t k = 0;
};
bool nearest_on_device(const NearestCodes& args, const RunContext& context, int32_t* labels, float* scores,
                       Status* status);
/// Whether it would be asked: an accelerator is there, and the work is worth the copies or was forced upon it.
bool is_for_device(int64_t n, int64_t k, int64_t dim, const RunContext& context);

}  // namespace waggle
