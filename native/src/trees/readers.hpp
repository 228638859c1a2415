// The formats behind trees::read. Input is hostile until proven otherwise: every count is compared with the bytes that
// are there before anything is allocated for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "waggle/trees.hpp"

namespace waggle::trees {

bool is_waggle_file(const uint8_t* data, size_t size);
Status read_waggle(const uint8_t* data, size_t size, Ensemble* out);
Status read_onnx(const uint8_t* data, size_t size, Ensemble* out);
Status read_xgboost(const uint8_t* data, size_t size, bool binary, Ensemble* out);
Status read_lightgbm(const uint8_t* data, size_t size, Ensemble* out);

/// The greatest float ≤ x: for a float f, f ≤ x and f ≤ floor_float(x) are the same question.
inline float floor_float(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) > x ? std::nextafterf(f, -std::numeric_limits<float>::infinity()) : f;
}

/// The least float ≥ x: f < x and f < ceil_float(x) are the same question.
inline float ceil_float(double x) { return -floor_float(-x); }

/// Covers that a file gives for some nodes only, or that are no weights, say nothing.
inline void keep_whole_covers(Ensemble* e) {
  const bool whole =
      e->covers.size() == e->nodes.size() &&
      std::all_of(e->covers.begin(), e->covers.end(), [](float c) { return std::isfinite(c) && c >= 0; });
  if (!whole) e->covers = {};
}

/// Copies one tree, as far as it is reached from `root`, in preorder. `visit(source, node)` fills in a node; the
/// children it names are numbers of source nodes, `n_source` of them. `seen` [n_source] marks nodes of this and earlier
/// trees: a second visit is a cycle or a shared node, and is refused.
template <typename Visit>
Status append_tree(Ensemble* e, Tree tree, int64_t n_source, int64_t root, std::vector<uint8_t>* seen,
                   const char* format, Visit&& visit) {
  struct Pending {
    int64_t source;
    int64_t parent;  // −1: the root
    bool left;
  };
  const size_t number = e->trees.size();
  tree.first_node = static_cast<uint32_t>(e->nodes.size());
  std::vector<Pending> pending{{root, -1, false}};
  while (!pending.empty()) {
    const Pending at = pending.back();
    pending.pop_back();
    if (at.source < 0 || at.source >= n_source) {
      return fail(Code::kModel, "%s: tree %zu has a child %lld of %lld nodes", format, number,
                  static_cast<long long>(at.source), static_cast<long long>(n_source));
    }
    if ((*seen)[static_cast<size_t>(at.source)] != 0) {
      return fail(Code::kModel, "%s: tree %zu: node %lld has two parents or is in a cycle", format, number,
                  static_cast<long long>(at.source));
    }
    (*seen)[static_cast<size_t>(at.source)] = 1;
    if (static_cast<int64_t>(e->nodes.size()) >= kMaxNodes) return fail(Code::kModel, "%s: too many nodes", format);
    const int64_t own = static_cast<int64_t>(e->nodes.size()) - tree.first_node;
    if (at.parent >= 0) {
      Node& parent = e->nodes[tree.first_node + static_cast<size_t>(at.parent)];
      (at.left ? parent.left : parent.right) = static_cast<int32_t>(own);
    }
    Node node;
    if (Status status = visit(at.source, &node); !status.ok()) return status;
    e->nodes.push_back(node);
    if (node.is_leaf()) continue;
    pending.push_back({node.right, own, false});
    pending.push_back({node.left, own, true});
  }
  tree.n_nodes = static_cast<uint32_t>(e->nodes.size() - tree.first_node);
  e->trees.push_back(tree);
  return {};
}

}  // namespace waggle::trees
