#include "src/device_forest.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "src/device_call.hpp"

namespace waggle {

namespace {

static_assert(static_cast<int>(trees::Decision::kCategoryTruncated) == WAGGLE_DECISION_CATEGORY_TRUNCATED &&
                  static_cast<int>(trees::Missing::kNanIsZero) == WAGGLE_MISSING_NAN_IS_ZERO &&
                  trees::kMaxFeatures <= 1 << 24,
              "the plugin's numbers are the ensemble's");

// The number that exactly those floats are at most that are less than `threshold`; NaN, which none is, for −∞.
float last_below(float threshold) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return threshold == -kInfinity ? std::numeric_limits<float>::quiet_NaN() : std::nextafterf(threshold, -kInfinity);
}

}  // namespace

DeviceForest::~DeviceForest() {
  if (forest_ == nullptr) return;
  const Registry& r = registry();
  r.plugin->ops->forest_close(r.plugin_state, forest_);
}

int32_t DeviceForest::open(const Registry& r, const trees::Ensemble& e, waggle_text* text) {
  std::vector<waggle_forest_node> nodes;
  std::vector<waggle_forest_set> sets;
  std::vector<waggle_forest_tree> trees;
  nodes.reserve(e.nodes.size());
  for (const trees::Tree& tree : e.trees) {
    trees.push_back({tree.first_node, tree.first_target, tree.n_values});
    for (uint32_t i = 0; i < tree.n_nodes; ++i) {
      const trees::Node& node = e.nodes[tree.first_node + i];
      waggle_forest_node made = {};
      if (node.is_leaf()) {
        made.rules = WAGGLE_NODE_LEAF;
        made.left = node.first;
      } else {
        trees::Decision decision = node.decision;
        made.threshold = node.threshold;
        if (decision == trees::Decision::kLess && node.missing == trees::Missing::kNan) {
          // There is a kernel for nothing but this: asked the same of every float, as x ≤ another number.
          decision = trees::Decision::kLessEqual;
          made.threshold = last_below(node.threshold);
        }
        made.rules = static_cast<uint32_t>(node.feature) | static_cast<uint32_t>(decision) << 24 |
                     static_cast<uint32_t>(node.missing) << 27 | (node.default_left ? 1u << 29 : 0u);
        made.left = tree.first_node + static_cast<uint32_t>(node.left);
        made.right = tree.first_node + static_cast<uint32_t>(node.right);
        if (node.decision >= trees::Decision::kMember) {
          const uint32_t number = static_cast<uint32_t>(sets.size());
          std::memcpy(&made.threshold, &number, sizeof number);
          sets.push_back({node.first, node.count});
        }
      }
      nodes.push_back(made);
    }
  }
  waggle_forest_args args = {};
  args.struct_size = sizeof args;
  args.n_features = e.n_features;
  args.n_targets = e.n_targets;
  args.trees = trees.data();
  args.n_trees = static_cast<int64_t>(trees.size());
  args.nodes = nodes.data();
  args.n_nodes = static_cast<int64_t>(nodes.size());
  args.values = e.values.data();
  args.n_values = static_cast<int64_t>(e.values.size());
  args.members = e.members.data();
  args.n_members = static_cast<int64_t>(e.members.size());
  args.categories = e.categories.data();
  args.n_categories = static_cast<int64_t>(e.categories.size());
  args.sets = sets.data();
  args.n_sets = static_cast<int64_t>(sets.size());
  return r.plugin->ops->forest_open(r.plugin_state, &args, &forest_, text);
}

waggle_forest* DeviceForest::get(const trees::Ensemble& ensemble, Status* status) {
  const Registry& r = registry();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (forest_ != nullptr || (refused_ && !r.plugin_forced)) return forest_;
  waggle_text text = empty_text();
  const int32_t answer = open(r, ensemble, &text);
  // Memory that is missing now may be there the next time.
  refused_ = answer != WAGGLE_BACKEND_OK && answer != WAGGLE_BACKEND_OUT_OF_MEMORY;
  if (answer != WAGGLE_BACKEND_OK) (void)has_answered(r, answer, text, status);
  return forest_;
}

bool DeviceForest::sum_leaves(const trees::Ensemble& ensemble, const float* x, int64_t n_rows, const TakeSums& take,
                              const RunContext& context, Status* status) {
  const Registry& r = registry();
  waggle_forest* const forest = get(ensemble, status);
  if (forest == nullptr) return false;
  waggle_text text = empty_text();
  waggle_predict_args args = {};
  args.struct_size = sizeof args;
  args.x = x;
  args.n_rows = n_rows;
  args.take_sums = [](void* taker, int64_t first, int64_t rows, const double* sums) -> int32_t {
    const bool taken = (*static_cast<const TakeSums*>(taker))(first, rows, sums);
    return taken ? WAGGLE_BACKEND_OK : WAGGLE_BACKEND_OUT_OF_MEMORY;
  };
  args.take_context = const_cast<TakeSums*>(&take);
  args.is_cancelled = poll_stop;
  args.cancel_context = poll_context(context);
  const int32_t answer = r.plugin->ops->forest_predict(r.plugin_state, forest, &args, &text);
  return has_answered(r, answer, text, status) && status->ok();
}

}  // namespace waggle
