// Ensembles and rows made at random, and their scores written down from the definitions in include/waggle/trees.hpp
// without a line of the library's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "test/conformance/case.hpp"
#include "waggle/trees.hpp"

namespace waggle::conformance {

struct TreesShape {
  int32_t n_trees = 1;
  int32_t n_leaves = 2;   // per tree, at most
  bool complete = false;  // as balanced as can be; else split wherever
  int32_t n_features = 5;
  int32_t n_thresholds = 0;  // distinct ones per feature; 0 = every one its own
  int32_t n_targets = 1;
  int32_t n_values = 1;  // per leaf
  bool mixed = false;    // every decision and missing rule; else x ≤ t with NaN to either side
  uint64_t seed = 1;
  bool less = false;  // where not mixed: x < t
};

inline float random_threshold(const TreesShape& s, Random& random) {
  if (s.n_thresholds > 0) return static_cast<float>(random.below(s.n_thresholds)) / static_cast<float>(s.n_thresholds);
  if (random.below(20) == 0) {
    const float special[] = {0.0f,
                             -0.0f,
                             1e-42f,
                             -1e-42f,
                             std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::max(),
                             1e-35f};
    return special[random.below(8)];
  }
  return static_cast<float>(random.uniform());
}

inline trees::Ensemble random_ensemble(const TreesShape& s) {
  using namespace trees;
  Random random(s.seed);
  Ensemble e;
  e.n_features = s.n_features;
  e.n_targets = s.n_targets;
  e.base.resize(static_cast<size_t>(s.n_targets));
  for (double& b : e.base) b = random.uniform() - 0.5;
  for (int32_t t = 0; t < s.n_trees; ++t) {
    Tree tree;
    tree.first_node = static_cast<uint32_t>(e.nodes.size());
    tree.n_values = s.n_values;
    tree.first_target = static_cast<int32_t>(random.below(s.n_targets - s.n_values + 1));
    std::vector<Node> nodes(1);
    std::vector<size_t> open{0};
    for (int32_t leaves = 1; leaves < s.n_leaves && s.n_features > 0; ++leaves) {
      const size_t pick = s.complete ? 0 : static_cast<size_t>(random.below(static_cast<int64_t>(open.size())));
      const size_t at = open[pick];
      open.erase(open.begin() + static_cast<int64_t>(pick));
      const int32_t left = static_cast<int32_t>(nodes.size());
      const bool swapped = random.below(2) == 0;
      nodes.emplace_back();
      nodes.emplace_back();
      Node& node = nodes[at];
      node.feature = static_cast<int32_t>(random.below(s.n_features));
      node.left = left + (swapped ? 1 : 0);
      node.right = left + (swapped ? 0 : 1);
      node.threshold = random_threshold(s, random);
      node.decision = s.mixed  ? static_cast<Decision>(random.below(kDecisions))
                      : s.less ? Decision::kLess
                               : Decision::kLessEqual;
      node.missing = s.mixed ? static_cast<Missing>(random.below(kMissings)) : Missing::kNan;
      node.default_left = random.below(2) == 0;
      if (node.decision == Decision::kMember) {
        node.first = static_cast<uint32_t>(e.members.size());
        node.count = static_cast<uint32_t>(random.below(6));
        for (uint32_t i = 0; i < node.count; ++i) e.members.push_back(random_threshold(s, random));
      } else if (node.decision >= Decision::kCategory) {
        node.first = static_cast<uint32_t>(e.categories.size());
        node.count = static_cast<uint32_t>(random.below(3));
        for (uint32_t i = 0; i < node.count; ++i) {
          e.categories.push_back(static_cast<uint32_t>(random.next() & random.next() & random.next()));
        }
      }
      open.push_back(static_cast<size_t>(left));
      open.push_back(static_cast<size_t>(left) + 1);
    }
    for (Node& node : nodes) {
      if (!node.is_leaf()) continue;
      node.first = static_cast<uint32_t>(e.values.size());
      for (int32_t v = 0; v < s.n_values; ++v) e.values.push_back(static_cast<float>(random.uniform() - 0.5));
    }
    tree.n_nodes = static_cast<uint32_t>(nodes.size());
    e.nodes.insert(e.nodes.end(), nodes.begin(), nodes.end());
    e.trees.push_back(tree);
  }
  return e;
}

/// Rows that meet thresholds exactly, and their neighbours; categories in and out of range; NaN, zeros, infinities.
inline std::vector<float> random_rows(const trees::Ensemble& e, int64_t n_rows, Random& random, bool plain) {
  std::vector<float> x(static_cast<size_t>(n_rows * e.n_features));
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float& v : x) {
    v = static_cast<float>(random.uniform());
    if (plain) continue;
    const int64_t kind = random.below(12);
    if (kind <= 3 && !e.nodes.empty()) {
      v = e.nodes[static_cast<size_t>(random.below(static_cast<int64_t>(e.nodes.size())))].threshold;
      if (kind == 1) v = std::nextafterf(v, kInfinity);
      if (kind == 2) v = std::nextafterf(v, -kInfinity);
    } else if (kind == 4 && !e.members.empty()) {
      v = e.members[static_cast<size_t>(random.below(static_cast<int64_t>(e.members.size())))];
    } else if (kind <= 7) {
      v = static_cast<float>(random.below(110) - 20) + (random.below(3) == 0 ? 0.5f : 0.0f);
    } else if (kind == 8) {
      const float special[] = {0.0f,       -0.0f, 1e-45f, -1e-45f, 1e-35f,     -1e-35f, 2e-35f, kInfinity,
                               -kInfinity, 1e30f, -0.5f,  -0.999f, 16777216.f, 4e9f,    -1.0f};
      v = special[random.below(15)];
    } else if (kind == 9) {
      v = std::numeric_limits<float>::quiet_NaN();
    }
  }
  return x;
}

inline bool definition_left(const trees::Ensemble& e, const trees::Node& node, float value) {
  using namespace trees;
  if (std::isnan(value) && node.missing == Missing::kNanIsZero) value = 0;
  if (std::isnan(value)) return node.default_left;
  if (node.missing == Missing::kZeroOrNan &&
      std::fabs(static_cast<double>(value)) <= static_cast<double>(kZeroThreshold)) {
    return node.default_left;
  }
  const double x = value;
  const double t = node.threshold;
  if (node.decision == Decision::kLess) return x < t;
  if (node.decision == Decision::kLessEqual) return x <= t;
  if (node.decision == Decision::kEqual) return x == t;
  if (node.decision == Decision::kMember) {
    for (uint32_t i = 0; i < node.count; ++i) {
      if (static_cast<double>(e.members[node.first + i]) == x) return true;
    }
    return false;
  }
  if (node.decision == Decision::kCategory ? x < 0 : x <= -1) return false;
  for (uint32_t c = 0; c < 32 * node.count; ++c) {
    if (((e.categories[node.first + c / 32] >> (c % 32)) & 1u) != 0 && std::floor(std::fabs(x)) == c) return true;
  }
  return false;
}

/// The sum in double, in the order of the trees: what a prediction must be, to the bit.
inline std::vector<float> definition_scores(const trees::Ensemble& e, const std::vector<float>& x, int64_t n_rows) {
  std::vector<float> out;
  for (int64_t r = 0; r < n_rows; ++r) {
    std::vector<double> sums(static_cast<size_t>(e.n_targets), 0.0);
    for (const trees::Tree& tree : e.trees) {
      const trees::Node* node = &e.nodes[tree.first_node];
      while (!node->is_leaf()) {
        const bool left = definition_left(e, *node, x[static_cast<size_t>(r * e.n_features + node->feature)]);
        node = &e.nodes[tree.first_node + static_cast<uint32_t>(left ? node->left : node->right)];
      }
      for (int32_t v = 0; v < tree.n_values; ++v) {
        sums[static_cast<size_t>(tree.first_target + v)] += e.values[node->first + static_cast<uint32_t>(v)];
      }
    }
    for (size_t t = 0; t < sums.size(); ++t) out.push_back(static_cast<float>(e.base[t] + e.scale * sums[t]));
  }
  return out;
}

}  // namespace waggle::conformance
