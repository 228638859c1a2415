// Eight walks at a time: of eight rows down one tree, or of one row down eight trees. Each step of a walk waits for the
// one before; eight of them side by side keep the processor busy. Leaves point at themselves, so all take the same
// number of steps and nothing branches on the data.
#include <cmath>
#include <cstring>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

uint32_t bits_of(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

bool in_set(const TreesWalk& walk, uint32_t set_number, float x) {
  const TreesWalkSet& set = walk.sets[set_number];
  const float* cuts = walk.cuts + set.first;
  uint32_t below = 0;  // cuts ≤ x
  for (uint32_t left = set.n; left > 0;) {
    const uint32_t half = left / 2;
    if (cuts[below + half] <= x) {
      below += half + 1;
      left -= half + 1;
    } else {
      left = half;
    }
  }
  return (((set.n - below) ^ set.invert) & 1u) != 0;
}

// What a walk must look out for.
enum class Care { kNothing, kNan, kNanAndSets };

template <Care kCare>
int32_t step(const TreesWalk& walk, const float* row, int32_t at) {
  const TreesWalkNode& node = walk.nodes[at];
  const float x = row[node.feature];
  bool left = x < node.cut;
  if constexpr (kCare != Care::kNothing) {
    const uint8_t flags = walk.flags[at];
    const bool nan = x != x;
    left = left | (nan & ((flags & kTreesNanLeft) != 0));
    if constexpr (kCare == Care::kNanAndSets) {
      if ((flags & kTreesIsSet) != 0) left = nan ? (flags & kTreesNanLeft) != 0 : in_set(walk, bits_of(node.cut), x);
    }
  }
  // An index, not a choice: that could become a branch, which half of the time would be foretold wrongly.
  return node.child[left ? 1 : 0];
}

void add_leaf(const TreesWalk& walk, const TreesWalkTree& tree, int32_t leaf, double* sums) {
  const TreesWalkNode& node = walk.nodes[leaf];
  double* into = sums + static_cast<int64_t>(tree.target) * kTreesTile;
  if (tree.n_values == 1) {
    *into += static_cast<double>(node.cut);
    return;
  }
  const float* values = walk.values + bits_of(node.cut);
  for (int32_t v = 0; v < tree.n_values; ++v)
    into[static_cast<int64_t>(v) * kTreesTile] += static_cast<double>(values[v]);
}

// Walks that are this long may be lopsided: they stop when all are there.
constexpr int32_t kLongWalk = 12;

// `advance(lane, at)` makes one step.
template <int kCount, typename Advance>
void walk_abreast(int32_t depth, int32_t (&at)[kCount], Advance&& advance) {
  if (depth < kLongWalk) {
    for (int32_t d = 0; d < depth; ++d) {
      for (int l = 0; l < kCount; ++l) at[l] = advance(l, at[l]);
    }
    return;
  }
  for (int32_t d = 0; d < depth; ++d) {
    int32_t moved = 0;
    for (int l = 0; l < kCount; ++l) {
      const int32_t next = advance(l, at[l]);
      moved |= next ^ at[l];
      at[l] = next;
    }
    if (moved == 0) break;
  }
}

template <Care kCare, int kCount>
void walk_rows(const TreesWalk& walk, const TreesWalkTree& tree, const float* x, int64_t stride, double* sums) {
  int32_t at[kCount];
  for (int l = 0; l < kCount; ++l) at[l] = tree.root;
  walk_abreast<kCount>(tree.depth, at, [&](int l, int32_t from) { return step<kCare>(walk, x + l * stride, from); });
  for (int l = 0; l < kCount; ++l) add_leaf(walk, tree, at[l], sums + l);
}

template <Care kCare>
void walk_trees(const TreesWalk& walk, const TreesWalkTree* trees, const float* row, double* sums) {
  int32_t at[kTreesLanes];
  int32_t depth = 0;
  for (int l = 0; l < kTreesLanes; ++l) {
    at[l] = trees[l].root;
    depth = trees[l].depth > depth ? trees[l].depth : depth;
  }
  walk_abreast<kTreesLanes>(depth, at, [&](int, int32_t from) { return step<kCare>(walk, row, from); });
  for (int l = 0; l < kTreesLanes; ++l) add_leaf(walk, trees[l], at[l], sums);
}

bool has_nan(const float* row, int32_t n) {
  bool found = false;
  for (int32_t i = 0; i < n; ++i) found |= row[i] != row[i];
  return found;
}

Care care_for(bool nan, bool sets) { return sets ? Care::kNanAndSets : nan ? Care::kNan : Care::kNothing; }

void walk_kernel(const TreesWalk* walk, const TreesWalkTree* trees, int32_t n_trees, const float* x, int64_t stride,
                 int32_t rows, double* sums) {
  int32_t r = 0;
  for (; r + kTreesLanes <= rows; r += kTreesLanes) {
    const float* first = x + r * stride;
    bool nan = false;
    for (int l = 0; l < kTreesLanes; ++l) nan |= has_nan(first + l * stride, walk->n_features);
    for (int32_t t = 0; t < n_trees; ++t) {
      switch (care_for(nan, trees[t].has_sets)) {
        case Care::kNothing:
          walk_rows<Care::kNothing, kTreesLanes>(*walk, trees[t], first, stride, sums + r);
          break;
        case Care::kNan:
          walk_rows<Care::kNan, kTreesLanes>(*walk, trees[t], first, stride, sums + r);
          break;
        case Care::kNanAndSets:
          walk_rows<Care::kNanAndSets, kTreesLanes>(*walk, trees[t], first, stride, sums + r);
      }
    }
  }
  for (; r < rows; ++r) {
    const float* row = x + r * stride;
    const bool nan = has_nan(row, walk->n_features);
    int32_t t = 0;
    for (; t + kTreesLanes <= n_trees; t += kTreesLanes) {
      bool sets = false;
      for (int l = 0; l < kTreesLanes; ++l) sets = sets || trees[t + l].has_sets;
      switch (care_for(nan, sets)) {
        case Care::kNothing:
          walk_trees<Care::kNothing>(*walk, trees + t, row, sums + r);
          break;
        case Care::kNan:
          walk_trees<Care::kNan>(*walk, trees + t, row, sums + r);
          break;
        case Care::kNanAndSets:
          walk_trees<Care::kNanAndSets>(*walk, trees + t, row, sums + r);
      }
    }
    for (; t < n_trees; ++t) walk_rows<Care::kNanAndSets, 1>(*walk, trees[t], row, stride, sums + r);
  }
}

}  // namespace

const TreesKernels kTreesScalar = {walk_kernel, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 320};

}  // namespace waggle::cpu
