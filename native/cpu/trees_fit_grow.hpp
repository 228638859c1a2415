// One tree: from gradients of binned rows to splits and leaves.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/table.hpp"
#include "cpu/trees_fit_bins.hpp"
#include "src/device_fit.hpp"
#include "src/team.hpp"
#include "waggle/ops/trees_fit.hpp"

namespace waggle::cpu {

/// Where rows of a node go. `gain` < 0: nowhere.
struct FitSplit {
  double gain = -1;
  int32_t feature = -1;
  int32_t bin = 0;  // numbers: bins up to this one go left
  bool missing_left = false;
  uint64_t left[kFitMaxSlots / 64] = {};  // categories: slots that go left
  double left_g = 0;
  double left_h = 0;
  double more_l2 = 0;  // beyond λ, of the sides
};

struct FitNode {
  int32_t depth = 0;
  int32_t left = -1;  // nodes; −1 while the node is not split
  int32_t right = -1;
  int64_t begin = 0;  // of its rows
  int64_t end = 0;
  double g = 0;  // in units
  double h = 0;
  double lower = -std::numeric_limits<double>::infinity();  // bounds of its value, from monotone features above
  double upper = std::numeric_limits<double>::infinity();
  double more_l2 = 0;  // beyond λ, of its value: from the split above
  int32_t histogram = -1;
  bool accepted = false;  // its split is part of the tree
  FitSplit split;

  int64_t n_rows() const { return end - begin; }
};

/// What one tree is grown from.
struct FitTreeInput {
  const FitGradient* gradients = nullptr;  // [n]
  FitGradientSummary summary{};
  int64_t n_rows = 0;
  bool sampled = false;  // rows are those given to `sample_rows`, else all; a device draws them itself
  int32_t round = 0;
  const uint8_t* features = nullptr;  // [p], 0 = not in this tree
  double max_step = 0;                // bound of a leaf's value, 0 = none
};

/// Splits are searched for in waves: those leaves that growth is about to split, and some that it may, are split
/// together, which keeps threads busy; then growth is replayed in its own order, and what it did not choose is dropped.
/// The tree is that of splitting one leaf after the other. With a device (an open one), rows and histograms are there,
/// and the tree is the same.
class FitGrower {
 public:
  FitGrower(const Table& table, const TreesFitArgs& args, const FitBins& bins, int workers, DeviceFit* device);
  ~FitGrower();

  /// Memory for the rows of a sampled tree, [n].
  uint32_t* sample_rows() { return rows_[0].get(); }

  Status grow(const FitTreeInput& in, const RunContext& context, Team& team);

  /// nodes()[0] is the root. Nodes whose parent was not accepted are not part of the tree.
  const std::vector<FitNode>& nodes() const { return nodes_; }
  /// Rows of a node, ascending; null = begin, begin + 1, …
  const uint32_t* rows_of(const FitNode& node) const;
  /// Value of a leaf with these sums: −T(G)/(H + λ), λ as the split above has it, within the node's bounds.
  double value_of(const FitNode& node, double g, double h) const;
  /// Bit s of words [4]: rows in slot s of the split's feature go left.
  void left_words(const FitSplit& split, uint64_t* words) const;

 private:
  struct Segment;
  struct Build;
  struct Worker;

  void choose_wave(std::vector<int32_t>& wave);
  bool goes_first(int32_t a, int32_t b) const;
  Status partition(const std::vector<int32_t>& wave);
  void part_rows(const std::vector<int32_t>& wave, std::vector<int64_t>& n_left);
  void total_root();
  void build_histograms(const std::vector<int32_t>& nodes);
  void subtract_and_scan(const std::vector<int32_t>& wave);
  void scan_block(int32_t node, int32_t block, Worker& worker);
  FitSplit scan(const FitNode& node, int32_t feature, const uint32_t* counts, Worker& worker) const;
  FitSplit scan_numbers(const FitNode& node, int32_t feature, const uint32_t* counts, Worker& worker) const;
  FitSplit scan_categories(const FitNode& node, int32_t feature, const uint32_t* counts, Worker& worker) const;
  void choose_split(int32_t node, Worker& worker);
  bool has_enough_rows(const FitNode& node, const FitSplit& split, const uint32_t* counts) const;
  bool surely_enough_rows(const FitNode& node, const FitSplit& split) const;
  void count_rows(const FitNode& node, int32_t feature, uint32_t* counts) const;
  void left_slots(const FitSplit& split, uint8_t* left) const;
  double gain_of(const FitNode& node, double g, double h, double l2, double* value) const;
  double own_gain(const FitNode& node) const;
  bool is_worth(const FitSplit& split, double own) const;
  Status start_on_device();
  Status part_on_device(const std::vector<int32_t>& wave, std::vector<int64_t>& n_left);
  Status search_on_device(const std::vector<int32_t>& wave, const std::vector<int32_t>& to_build);
  int32_t take_histogram();
  void drop_histogram(int32_t node);

  double* histogram_g(int32_t histogram) const { return histograms_[static_cast<size_t>(histogram)].get(); }
  double* histogram_h(int32_t histogram) const { return histogram_g(histogram) + bins_.n_slots; }

  const TreesFitKernels& kernels_;
  const TreesFitArgs& args_;
  const FitBins& bins_;
  DeviceFit* const device_;
  Team* team_ = nullptr;  // while growing

  FitTreeInput in_;
  float g_scale_ = 0;
  float h_scale_ = 0;
  FitPenalty penalty_{};
  double h_least_ = 1;       // units a side needs
  double rows_certain_ = 0;  // units that are min_child_rows rows for certain
  bool bounded_ = false;     // values may be clipped: gains are made one by one
  int64_t n_leaves_ = 1;     // accepted
  int64_t max_leaves_ = 1;
  int32_t max_depth_ = 1;
  bool last_wave_ = false;  // what it makes stays leaves

  std::vector<FitNode> nodes_;
  std::vector<int32_t> frontier_;  // leaves of the accepted tree that may be split
  std::unique_ptr<uint32_t[]> rows_[2];
  std::vector<uint64_t> masks_;
  std::vector<std::unique_ptr<double[]>> histograms_;
  std::vector<int32_t> free_histograms_;
  int64_t max_histograms_ = 0;
  std::vector<uint8_t>
      subtracted_;  // by the wave's nodes: the larger child's histogram is the parent's, less the other
  std::vector<FitSplit> candidates_;    // [nodes of the wave × p]
  std::vector<int32_t> candidate_row_;  // node → row of candidates_
  std::vector<std::vector<uint16_t>> block_columns_;
  std::vector<std::vector<uint32_t>> block_slots_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace waggle::cpu
