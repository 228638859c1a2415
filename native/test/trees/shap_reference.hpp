// Shapley values written down from their definition: for each leaf and each feature of its path, a sum over the sizes
// of the sets of other features that are known. Nothing of the library's but the ensemble.
#pragma once

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "waggle/trees.hpp"

namespace waggle::conformance {

/// Covers as training leaves them, now and then of a branch that no row met.
inline void random_covers(trees::Ensemble* e, Random& random) {
  e->covers.assign(e->nodes.size(), 0.0f);
  for (const trees::Tree& tree : e->trees) {
    std::vector<std::pair<uint32_t, float>> pending{{0u, static_cast<float>(1 + random.below(1000))}};
    while (!pending.empty()) {
      const auto [at, cover] = pending.back();
      pending.pop_back();
      const trees::Node& node = e->nodes[tree.first_node + at];
      e->covers[tree.first_node + at] = cover;
      if (node.is_leaf()) continue;
      const int64_t kind = random.below(12);
      const float left = kind == 0 ? 0.0f : kind == 1 ? cover : cover * static_cast<float>(random.uniform());
      pending.push_back({static_cast<uint32_t>(node.left), left});
      pending.push_back({static_cast<uint32_t>(node.right), cover - left});
    }
  }
}

inline double cover_share(const trees::Ensemble& e, const trees::Tree& tree, const trees::Node& split, int32_t child) {
  const double left = e.covers[tree.first_node + static_cast<uint32_t>(split.left)];
  const double right = e.covers[tree.first_node + static_cast<uint32_t>(split.right)];
  const double own = e.covers[tree.first_node + static_cast<uint32_t>(child)];
  return left + right > 0 ? own / (left + right) : 0.5;
}

/// [n_rows × n_targets × (n_features + 1)], path-dependent.
inline std::vector<double> definition_shap(const trees::Ensemble& e, const std::vector<float>& x, int64_t n_rows) {
  const size_t stride = static_cast<size_t>(e.n_features) + 1;
  std::vector<double> out(static_cast<size_t>(n_rows * e.n_targets) * stride, 0.0);
  struct Element {
    double share = 1;  // of the covers that come down all splits of the feature
    double own = 1;    // whether the row does
  };
  struct Path {
    uint32_t at;
    std::map<int32_t, Element> elements;
  };
  for (int64_t r = 0; r < n_rows; ++r) {
    double* const row_out = out.data() + static_cast<size_t>(r * e.n_targets) * stride;
    for (int32_t t = 0; t < e.n_targets; ++t) {
      row_out[static_cast<size_t>(t) * stride + stride - 1] = e.base[static_cast<size_t>(t)];
    }
    for (const trees::Tree& tree : e.trees) {
      std::vector<Path> pending{{0, {}}};
      while (!pending.empty()) {
        const Path path = pending.back();
        pending.pop_back();
        const trees::Node& node = e.nodes[tree.first_node + path.at];
        if (!node.is_leaf()) {
          const bool left = definition_left(e, node, x[static_cast<size_t>(r * e.n_features + node.feature)]);
          for (const int32_t child : {node.left, node.right}) {
            Path next = path;
            next.at = static_cast<uint32_t>(child);
            Element& element = next.elements[node.feature];
            element.share *= cover_share(e, tree, node, child);
            if ((child == node.left) != left) element.own = 0;
            pending.push_back(std::move(next));
          }
          continue;
        }
        const size_t d = path.elements.size();
        double reach = 1;
        for (const auto& [feature, element] : path.elements) reach *= element.share;
        const auto add = [&](int32_t feature, double amount) {
          for (int32_t v = 0; v < tree.n_values; ++v) {
            row_out[static_cast<size_t>(tree.first_target + v) * stride + static_cast<size_t>(feature)] +=
                e.scale * e.values[node.first + static_cast<uint32_t>(v)] * amount;
          }
        };
        add(e.n_features, reach);
        for (const auto& [feature, element] : path.elements) {
          // known[k]: over the sets of k other features, the sum of the products.
          std::vector<double> known{1.0};
          for (const auto& [other, each] : path.elements) {
            if (other == feature) continue;
            known.push_back(0);
            for (size_t k = known.size() - 1; k > 0; --k) known[k] = known[k] * each.share + known[k - 1] * each.own;
            known[0] *= each.share;
          }
          double sum = 0;
          double weight = 1.0 / static_cast<double>(d);  // k!·(d − 1 − k)! / d!
          for (size_t k = 0; k < known.size(); ++k) {
            sum += weight * known[k];
            if (k + 1 < known.size()) weight *= static_cast<double>(k + 1) / static_cast<double>(d - 1 - k);
          }
          add(feature, sum * (element.own - element.share));
        }
      }
    }
  }
  return out;
}

}  // namespace waggle::conformance
