// The walk through a tree ensemble, for kernels that have a row's features at hand in different places.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "abi/backend_abi.h"
#include "cuda/device.cuh"
#include "cuda/ops/trees.cuh"

namespace waggle::cuda {

constexpr int kTreesTogether = 8;

/// Device pointers of an ensemble, passed to kernels by value.
struct Forest {
  const waggle_forest_node* d_nodes;
  const waggle_forest_tree* d_trees;
  const float* d_values;
  const float* d_members;
  const uint32_t* d_categories;
  const waggle_forest_set* d_sets;
  int n_trees;
  int n_features;
  int n_targets;
};

__device__ inline bool in_bitset(const Forest& forest, const waggle_forest_set& set, float category) {
  if (!(category >= 0) || static_cast<double>(category) >= 32.0 * set.count) return false;
  const unsigned long long c = static_cast<unsigned long long>(category);
  return ((forest.d_categories[set.first + (c >> 5)] >> (c & 31)) & 1u) != 0;
}

// As waggle::trees decides; see include/waggle/trees.hpp.
__device__ inline bool goes_left(const Forest& forest, const waggle_forest_node& node, float x) {
  const unsigned rules = node.rules;
  const unsigned missing = rules >> 27 & 3u;
  const bool default_left = (rules >> 29 & 1u) != 0;
  if (isnan(x)) {
    if (missing != WAGGLE_MISSING_NAN_IS_ZERO) return default_left;
    x = 0;
  }
  if (missing == WAGGLE_MISSING_ZERO_OR_NAN && fabsf(x) <= 1e-35f) return default_left;
  switch (rules >> 24 & 7u) {
    case WAGGLE_DECISION_LESS:
      return x < node.threshold;
    case WAGGLE_DECISION_LESS_EQUAL:
      return x <= node.threshold;
    case WAGGLE_DECISION_EQUAL:
      return x == node.threshold;
    case WAGGLE_DECISION_MEMBER: {
      const waggle_forest_set set = forest.d_sets[__float_as_uint(node.threshold)];
      for (uint32_t i = 0; i < set.count; ++i) {
        if (forest.d_members[set.first + i] == x) return true;
      }
      return false;
    }
    case WAGGLE_DECISION_CATEGORY:
      return x >= 0 && in_bitset(forest, forest.d_sets[__float_as_uint(node.threshold)], truncf(x));
    default:
      return in_bitset(forest, forest.d_sets[__float_as_uint(node.threshold)], truncf(x));
  }
}

__device__ inline waggle_forest_node load_node(const Forest& forest, unsigned at) {
  const uint4 bits = *reinterpret_cast<const uint4*>(forest.d_nodes + at);
  return {__uint_as_float(bits.x), bits.y, bits.z, bits.w};
}

// The plain case of goes_left: x ≤ threshold, NaN by default.
__device__ inline bool goes_left_plainly(const waggle_forest_node& node, float x) {
  return isnan(x) ? (node.rules >> 29 & 1u) != 0 : x <= node.threshold;
}

inline Forest forest_view(const waggle_forest& forest) {
  return {forest.d_nodes.get(),   forest.d_trees.get(),      forest.d_values.get(),
          forest.d_members.get(), forest.d_categories.get(), forest.d_sets.get(),
          forest.n_trees,         forest.n_features,         forest.n_targets};
}

/// One thread walks every tree for one row, kTreesTogether at a time, whose loads wait together. feature_of(f) is the
/// row's; take(tree, value) is told each tree's leaf, in the order of the trees. kPlain: every decision is the plain
/// one.
template <bool kPlain, typename FeatureOf, typename Take>
__device__ inline void walk_trees(const Forest& forest, FeatureOf&& feature_of, Take&& take) {
  for (int first = 0; first < forest.n_trees; first += kTreesTogether) {
    waggle_forest_node nodes[kTreesTogether];
    unsigned at[kTreesTogether];
#pragma unroll
    for (int i = 0; i < kTreesTogether; ++i) {
      // Beyond the last tree the last is walked again, for nothing.
      at[i] = forest.d_trees[min(first + i, forest.n_trees - 1)].first_node;
      nodes[i] = load_node(forest, at[i]);
    }
    // No branch within a step, so that its loads wait together: a leaf is its own successor.
    bool walking = true;
    while (walking) {
      walking = false;
#pragma unroll
      for (int i = 0; i < kTreesTogether; ++i) {
        const bool leaf = (nodes[i].rules & WAGGLE_NODE_LEAF) != 0;
        // (A leaf's rules name feature 0, which is there where there is a split; without features all are leaves.)
        float x = 0;
        if (forest.n_features > 0) x = feature_of(static_cast<int>(nodes[i].rules & 0xffffffu));
        bool left;
        if constexpr (kPlain) {
          left = goes_left_plainly(nodes[i], x);
        } else {
          left = !leaf && goes_left(forest, nodes[i], x);
        }
        at[i] = leaf ? at[i] : left ? nodes[i].left : nodes[i].right;
        walking = walking || !leaf;
      }
#pragma unroll
      for (int i = 0; i < kTreesTogether; ++i) nodes[i] = load_node(forest, at[i]);
    }
#pragma unroll
    for (int i = 0; i < kTreesTogether; ++i) {
      if (first + i < forest.n_trees) take(first + i, nodes[i].left);
    }
  }
}

}  // namespace waggle::cuda
