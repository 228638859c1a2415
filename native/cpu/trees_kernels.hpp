// What trees.predict asks of an instruction set; as kernels.hpp, which includes it.
#pragma once

#include <stdint.h>

namespace waggle::cpu {

/// Rows that trees.predict takes through all trees at once; every column and bit plane below has this many.
constexpr int32_t kTreesTile = 512;
constexpr int32_t kTreesBlock = 64;  // rows of one word of a plane
/// Each bit of a plane says something about one row of the tile; which one, the kernels of a level agree on.
constexpr int32_t kTreesPlaneWords = kTreesTile / kTreesBlock;
/// A cut i of a binned feature is asked as bin ≤ i. NaN is this bin, which is no answer to any cut, or bin 0.
constexpr int32_t kTreesMaxCuts = 254;
constexpr uint8_t kTreesNanBin = 255;
constexpr int32_t kTreesLanes = 8;

/// A split, or a leaf whose children are itself.
struct TreesWalkNode {
  float cut;         // x < cut goes left. Set: its number. Leaf: its value; of several, where they start.
  uint32_t feature;  // 0 of a leaf
  int32_t child[2];  // right, left
};
/// Kept apart: rows without NaN and trees without sets need none.
constexpr uint8_t kTreesNanLeft = 1;
constexpr uint8_t kTreesIsSet = 2;

/// x goes left when the number of cuts above it is odd, or even where `invert`. Cuts ascend.
struct TreesWalkSet {
  uint32_t first;
  uint32_t n;
  uint32_t invert;
};

struct TreesWalkTree {
  int32_t root;
  int32_t depth;
  int32_t target;
  int32_t n_values;
  bool has_sets;
};

struct TreesWalk {
  const TreesWalkNode* nodes;
  const uint8_t* flags;
  int32_t n_features;
  const TreesWalkSet* sets;
  const float* cuts;
  const float* values;  // of leaves with more than one
};

/// `n` planes: plane i of the run is "bin ≤ bins[i]" of the column that starts `column` bytes into the columns.
struct TreesRun {
  uint32_t column;
  uint32_t n;
};

/// The exclusive or of single comparisons, inverted or not.
struct TreesSetPlane {
  uint32_t plane;  // offset in bytes, as everywhere below
  uint32_t first;  // terms
  uint32_t n;
  uint32_t invert;
};

struct TreesTerm {
  uint32_t column;
  uint32_t bin;
};

/// out = test ? yes : no, bit by bit.
struct TreesBlend {
  uint32_t test;
  uint32_t yes;
  uint32_t no;
  uint32_t out;
};

/// A tree whose planes hold the bits of each row's leaf number, lowest first. `table` is where its values start in the
/// tables, in floats: per value 64, 128 or 256 of them, by n_bits ≤ 6, 7, 8.
struct TreesLeaves {
  uint32_t planes[8];
  uint32_t table;
  int32_t n_bits;
  int32_t target;
  int32_t n_values;
};

struct TreesKernels {
  /// Adds the leaves of trees [0, n_trees), in order, to sums[target * kTreesTile + row]; rows ≤ kTreesTile.
  void (*walk)(const TreesWalk* walk, const TreesWalkTree* trees, int32_t n_trees, const float* x, int64_t stride,
               int32_t rows, double* sums);

  // Bit planes; all null where there is no such kernel: then every tree is walked. `blocks` = rows / 64, rounded up.

  /// columns[j * kTreesTile + r] = x[r * stride + features[j]]; rows up to a multiple of 64 become 0.
  void (*transpose)(const float* x, int64_t stride, int32_t rows, const int32_t* features, int32_t n, float* columns);
  /// The number of cuts ≤ x as a byte; NaN is kTreesNanBin in `high` and 0 in `low`; either may be null. The cuts are
  /// those of an implicit search tree with `levels` ≤ 8 levels: heap[1] the root, heap[2i] and heap[2i + 1] below
  /// heap[i]; NaN fills it up. 256 floats long whatever the levels.
  void (*bin)(const float* column, int32_t blocks, const float* heap, int32_t levels, uint8_t* high, uint8_t* low);
  void (*compare)(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns, int32_t blocks,
                  uint64_t* planes);
  void (*sets)(const TreesSetPlane* sets, int32_t n, const TreesTerm* terms, const uint8_t* columns, int32_t blocks,
               uint64_t* planes);
  void (*blend)(const TreesBlend* ops, int32_t n, uint64_t* planes);
  /// sums[target * kTreesTile + row] += the leaf's value, tree after tree. `tables` are the floats; `byte_tables` the
  /// same with byte b of entry i at 4 · table + b · size + i.
  void (*leaves)(const TreesLeaves* trees, int32_t n, const float* tables, const uint8_t* byte_tables,
                 const uint64_t* planes, int32_t blocks, double* sums);

  /// Planes that are best made and used together: few stay in the first cache, many share more of their columns.
  int32_t planes_at_once;
};

}  // namespace waggle::cpu
