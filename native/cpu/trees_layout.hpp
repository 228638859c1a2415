// What prediction on a CPU makes of an ensemble. Two forms of every tree: one to walk, for few rows and for large
// trees; one of bit planes, for many rows.
//
// Planes: a row's features become bytes, the number of the group's cuts at or below each. One comparison then answers
// one split for 64 rows, as 64 bits; blending the answers from the leaves up gives each bit of every row's leaf number;
// the leaf's value is looked up by it. All splits of a tree are asked, which beats walking while there are few of them
// per row (at most 256 leaves here), and equal splits of many trees are asked once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "cpu/kernels.hpp"
#include "waggle/trees.hpp"

namespace waggle::trees {

/// Tables that kernels load whole registers from.
template <typename T>
struct CacheLines {
  using value_type = T;
  CacheLines() = default;
  template <typename U>
  CacheLines(const CacheLines<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const CacheLines&) const { return true; }
};
template <typename T>
using AlignedVector = std::vector<T, CacheLines<T>>;

/// A feature of a group: its cuts, and where its bytes go.
struct BinColumn {
  int32_t source;  // position in Layout::features
  uint32_t heap;   // start in Layout::heaps
  int32_t levels;
  int32_t high = -1;  // byte columns, or −1
  int32_t low = -1;
};

/// Trees whose planes are made and used while they are in the cache.
struct PlaneBatch {
  uint32_t first_run, n_runs;
  uint32_t first_bin;
  uint32_t first_set, n_sets;
  uint32_t first_step, n_steps;
};

/// A few trees of a batch: their blends, then their leaves.
struct PlaneStep {
  uint32_t first_blend, n_blends;
  uint32_t first_leaves, n_leaves;
};

/// Trees binned together, or (n_batches = 0) trees that can only be walked.
struct Segment {
  int32_t first_tree, n_trees;
  uint32_t first_column = 0, n_columns = 0;
  uint32_t first_batch = 0, n_batches = 0;
};

struct Layout {
  // Walking.
  AlignedVector<cpu::TreesWalkNode> walk_nodes;
  std::vector<uint8_t> walk_flags;
  std::vector<cpu::TreesWalkSet> walk_sets;
  std::vector<float> walk_cuts;
  std::vector<cpu::TreesWalkTree> walk_trees;

  // Planes.
  std::vector<Segment> segments;
  std::vector<int32_t> features;  // those that planes need, ascending
  std::vector<BinColumn> columns;
  AlignedVector<float> heaps;
  std::vector<PlaneBatch> batches;
  std::vector<PlaneStep> steps;
  std::vector<cpu::TreesRun> runs;
  std::vector<uint8_t> bins;
  std::vector<cpu::TreesSetPlane> sets;
  std::vector<cpu::TreesTerm> terms;
  std::vector<cpu::TreesBlend> blends;
  std::vector<cpu::TreesLeaves> leaves;
  AlignedVector<float> tables;
  AlignedVector<uint8_t> byte_tables;
  int32_t n_byte_columns = 0;  // most of any segment
  int32_t n_planes = 0;        // most of any batch

  /// Estimated cycles: of walking one row through a segment, and of planes for `blocks` blocks of 64 rows.
  struct Cost {
    double walk_row;
    double planes;
    double planes_block;
  };
  std::vector<Cost> costs;  // [segments]

  size_t bytes() const;
};

/// @param planes_at_once what the kernels that will use it like (TreesKernels); any is right
void build_layout(const Ensemble& ensemble, int32_t planes_at_once, Layout* out);

}  // namespace waggle::trees
