#include <algorithm>
#include <cmath>

#include "src/trees/decide.hpp"
#include "waggle/trees.hpp"

namespace waggle::trees {

int32_t Ensemble::n_outputs() const {
  const bool two_of_one =
      transform == Transform::kComplement || transform == Transform::kTwoLogistic || transform == Transform::kNegate;
  return n_targets + (two_of_one ? 1 : 0);
}

size_t Ensemble::bytes() const {
  return base.capacity() * sizeof(double) + trees.capacity() * sizeof(Tree) + nodes.capacity() * sizeof(Node) +
         (values.capacity() + members.capacity() + covers.capacity()) * sizeof(float) +
         categories.capacity() * sizeof(uint32_t);
}

namespace {

bool in_range(uint32_t first, uint64_t count, size_t size) {
  return static_cast<uint64_t>(first) + count <= static_cast<uint64_t>(size);
}

Status validate_node(const Ensemble& e, const Tree& tree, size_t t, uint32_t i) {
  const Node& node = e.nodes[tree.first_node + i];
  if (node.is_leaf()) {
    if (node.feature != -1) return fail(Code::kModel, "tree %zu, node %u: feature %d", t, i, node.feature);
    if (!in_range(node.first, static_cast<uint64_t>(tree.n_values), e.values.size())) {
      return fail(Code::kModel, "tree %zu, node %u: leaf values are out of range", t, i);
    }
    return {};
  }
  if (node.feature >= e.n_features) {
    return fail(Code::kModel, "tree %zu, node %u: feature %d of %d", t, i, node.feature, e.n_features);
  }
  const int64_t n = tree.n_nodes;
  if (node.left < 0 || node.left >= n || node.right < 0 || node.right >= n) {
    return fail(Code::kModel, "tree %zu, node %u: child %d or %d is not one of its %u nodes", t, i, node.left,
                node.right, tree.n_nodes);
  }
  if (static_cast<int>(node.decision) >= kDecisions || static_cast<int>(node.missing) >= kMissings) {
    return fail(Code::kModel, "tree %zu, node %u: unknown decision or missing rule", t, i);
  }
  if (node.decision <= Decision::kEqual && std::isnan(node.threshold)) {
    return fail(Code::kModel, "tree %zu, node %u: the threshold is NaN", t, i);
  }
  if (node.decision == Decision::kMember && !in_range(node.first, node.count, e.members.size())) {
    return fail(Code::kModel, "tree %zu, node %u: member values are out of range", t, i);
  }
  if (node.decision >= Decision::kCategory && !in_range(node.first, node.count, e.categories.size())) {
    return fail(Code::kModel, "tree %zu, node %u: categories are out of range", t, i);
  }
  return {};
}

// Every node but the root has exactly one parent, and all are reached from the root: together that is a tree.
Status validate_tree(const Ensemble& e, size_t t, std::vector<int32_t>& depth, std::vector<uint32_t>& pending) {
  const Tree& tree = e.trees[t];
  if (tree.n_nodes == 0 || !in_range(tree.first_node, tree.n_nodes, e.nodes.size())) {
    return fail(Code::kModel, "tree %zu: nodes are out of range", t);
  }
  if (tree.first_target < 0 || tree.n_values < 1 || tree.n_values > e.n_targets ||
      tree.first_target > e.n_targets - tree.n_values) {
    return fail(Code::kModel, "tree %zu: targets are out of range", t);
  }
  depth.assign(tree.n_nodes, -1);
  pending.assign(1, 0);
  depth[0] = 0;
  uint32_t reached = 0;
  while (!pending.empty()) {
    const uint32_t i = pending.back();
    pending.pop_back();
    ++reached;
    if (Status status = validate_node(e, tree, t, i); !status.ok()) return status;
    const Node& node = e.nodes[tree.first_node + i];
    if (node.is_leaf()) continue;
    if (depth[i] >= kMaxDepth) return fail(Code::kModel, "tree %zu is deeper than %d", t, kMaxDepth);
    for (const int32_t child : {node.right, node.left}) {
      if (depth[static_cast<size_t>(child)] >= 0) {
        return fail(Code::kModel, "tree %zu: node %d has two parents or is in a cycle", t, child);
      }
      depth[static_cast<size_t>(child)] = depth[i] + 1;
      pending.push_back(static_cast<uint32_t>(child));
    }
  }
  if (reached != tree.n_nodes) {
    return fail(Code::kModel, "tree %zu: %u of its %u nodes cannot be reached", t, tree.n_nodes - reached,
                tree.n_nodes);
  }
  return {};
}

}  // namespace

Status validate(const Ensemble& e) {
  if (e.n_features < 0 || e.n_features > kMaxFeatures) {
    return fail(Code::kModel, "%d features; at most %d are supported", e.n_features, kMaxFeatures);
  }
  if (e.n_targets < 1 || e.n_targets > kMaxTargets) {
    return fail(Code::kModel, "%d targets; 1 to %d are supported", e.n_targets, kMaxTargets);
  }
  if (static_cast<int64_t>(e.nodes.size()) > kMaxNodes || static_cast<int64_t>(e.values.size()) > kMaxValues) {
    return fail(Code::kModel, "too many nodes or leaf values");
  }
  if (e.base.size() != static_cast<size_t>(e.n_targets)) {
    return fail(Code::kModel, "%zu base scores for %d targets", e.base.size(), e.n_targets);
  }
  if (!std::all_of(e.base.begin(), e.base.end(), [](double v) { return std::isfinite(v); }) ||
      !std::isfinite(e.scale) || !std::isfinite(e.transform_parameter)) {
    return fail(Code::kModel, "a base score, the scale or the transform's parameter is not finite");
  }
  if (!std::all_of(e.values.begin(), e.values.end(), [](float v) { return std::isfinite(v); })) {
    return fail(Code::kModel, "a leaf value is not finite");
  }
  if (!e.covers.empty() && e.covers.size() != e.nodes.size()) {
    return fail(Code::kModel, "%zu covers for %zu nodes", e.covers.size(), e.nodes.size());
  }
  if (!std::all_of(e.covers.begin(), e.covers.end(), [](float v) { return std::isfinite(v) && v >= 0; })) {
    return fail(Code::kModel, "a cover is negative or not finite");
  }
  if (static_cast<uint32_t>(e.transform) >= kTransforms || static_cast<uint32_t>(e.kind) > 2) {
    return fail(Code::kModel, "unknown transform or kind");
  }
  if (e.n_outputs() != e.n_targets && e.n_targets != 1) {
    return fail(Code::kModel, "the transform makes two outputs of one target, but there are %d", e.n_targets);
  }
  uint64_t n_nodes = 0;
  for (const Tree& tree : e.trees) {
    if (tree.first_node != n_nodes) return fail(Code::kModel, "the nodes of the trees do not follow each other");
    n_nodes += tree.n_nodes;
  }
  if (n_nodes != e.nodes.size()) return fail(Code::kModel, "nodes belong to no tree");
  std::vector<int32_t> depth;
  std::vector<uint32_t> pending;
  for (size_t t = 0; t < e.trees.size(); ++t) {
    if (Status status = validate_tree(e, t, depth, pending); !status.ok()) return status;
  }
  return {};
}

void sum_leaves(const Ensemble& e, const float* row, double* sums) {
  for (const Tree& tree : e.trees) {
    const Node* node = &e.nodes[tree.first_node];
    while (!node->is_leaf()) {
      const int32_t next = goes_left(e, *node, row[node->feature]) ? node->left : node->right;
      node = &e.nodes[tree.first_node + static_cast<uint32_t>(next)];
    }
    for (int32_t v = 0; v < tree.n_values; ++v) {
      sums[tree.first_target + v] += static_cast<double>(e.values[node->first + static_cast<uint32_t>(v)]);
    }
  }
}

}  // namespace waggle::trees
