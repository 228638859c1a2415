// One function table per instruction set; which one is used is decided once.
#pragma once

#include "cpu/features.hpp"
#include "cpu/kernels.hpp"

namespace waggle::cpu {

struct Table {
  Simd level;
  TopkKernels topk;
  ScoreKernels score;
  GlmKernels glm;
  ProbeKernels probe;
  EncodeKernels encode;
  EncodedKernels encoded;
  IvfKernels ivf;
  TreesKernels trees;
  TreesFitKernels trees_fit;
  FfmKernels ffm;
};

/// The table of a level, or null when it was not compiled in. Does not check the processor for the level, only for
/// what some processors of the level lack.
const Table* table_for(Simd level);

/// The table the registry chose.
const Table& table();

}  // namespace waggle::cpu
