#pragma once

#include <cstdint>
#include <vector>

#include "cpu/table.hpp"
#include "waggle/ops/kmeans.hpp"

namespace waggle::cpu {

/// Who does the large steps faster, to the same bits. Each answers false where the CPU is to do it; `status` is an
/// error then where the call is to end instead.
class KmeansHelper {
 public:
  KmeansHelper() = default;
  virtual ~KmeansHelper() = default;
  KmeansHelper(const KmeansHelper&) = delete;
  KmeansHelper& operator=(const KmeansHelper&) = delete;

  /// Of each row the nearest of `to`, and its squared distance.
  virtual bool assign(const Matrix<const float>& rows, const Matrix<const float>& to, int32_t* labels, float* distances,
                      Status* status) = 0;
  /// The mean of each cluster's rows, members[begins[c] … begins[c + 1]), in double in their order. A cluster without
  /// rows keeps its place.
  virtual bool update(const Matrix<const float>& rows, int64_t k, const std::vector<int32_t>& members,
                      const std::vector<int64_t>& begins, float* centroids, Status* status) = 0;
};

/// `args` are already checked; `helper` may be null.
Status kmeans(const Table& table, const KmeansArgs& args, const RunContext& context, KmeansResult* result,
              KmeansHelper* helper = nullptr);

}  // namespace waggle::cpu
