// Values become bins: what trees are trained on.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/table.hpp"
#include "cpu/trees_layout.hpp"
#include "src/team.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::cpu {

/// How a feature's values become slots 0 … n_slots − 1 of a histogram; a missing value is slot n_bins.
struct FitFeature {
  bool categorical = false;
  bool has_missing = false;
  int32_t n_bins = 1;
  /// Numbers: n_bins − 1 of them, ascending. Bin = how many are ≤ x, so that "x < cuts[b]" says "bin ≤ b".
  std::vector<float> cuts;
  /// Categories: the value of each bin. The bin behind them, if there is one more, is for all others.
  std::vector<int32_t> categories;

  bool has_others() const { return categorical && n_bins > static_cast<int32_t>(categories.size()); }
  int32_t n_slots() const { return n_bins + (has_missing ? 1 : 0); }

  // Where it is; −1 for a feature that says nothing.
  int32_t block = -1;
  uint16_t column = 0;
  uint32_t first_slot = 0;
};

/// Features whose histograms fit the first cache together; their bins lie row by row.
struct FitBlock {
  std::vector<int32_t> features;
  uint32_t first_slot = 0;
  uint32_t n_slots = 0;
  std::vector<uint8_t> bins;  // [n × features.size()]

  int64_t stride() const { return static_cast<int64_t>(features.size()); }
};

struct FitBins {
  std::vector<FitFeature> features;  // [p]
  std::vector<FitBlock> blocks;
  uint32_t n_slots = 0;
};

/// Finds cuts and categories in a sample and bins every row. kNotFinite and kInvalidArgument name row and feature of an
/// infinity, or of a category that is not an integer from 0 to kTreesFitMaxCategory.
Status make_bins(const Table& table, const TreesFitArgs& args, const RunContext& context, Team& team, FitBins* out);

/// Infinities and wrong categories in rows that are not binned.
Status check_values(const TreesFitArgs& args, const TreesFitRows& rows, const char* name, Team& team);

/// At most `most` − 1 cuts that part sorted `values`: each distinct value its own bin while they are few, about equal
/// numbers of values otherwise. A cut c lies in (a, b] for neighbours a < b.
std::vector<float> find_cuts(const float* values, int64_t n, int32_t most);

}  // namespace waggle::cpu
