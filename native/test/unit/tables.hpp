#pragma once

#include <vector>

#include "cpu/features.hpp"
#include "cpu/table.hpp"

namespace waggle {

/// The kernels of every level that this build has and this machine runs, scalar first.
inline std::vector<const cpu::Table*> tables_here() {
  std::vector<const cpu::Table*> all;
  for (const cpu::Simd level : {cpu::Simd::kScalar, cpu::Simd::kAvx2, cpu::Simd::kAvx512, cpu::Simd::kNeon}) {
    const cpu::Table* table = cpu::table_for(level);
    if (table != nullptr && cpu::features().supports(level)) all.push_back(table);
  }
  return all;
}

}  // namespace waggle
