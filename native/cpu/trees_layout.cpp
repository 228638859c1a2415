#include "cpu/trees_layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <unordered_map>
#include <utility>

namespace waggle::trees {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kMaxLeaves = 256;
constexpr size_t kMaxSetCuts = 64;  // a split with more is cheaper to search in
constexpr int32_t kTreesPerStep = 16;
// Blends of one tree wait for each other; those of so many trees take turns.
constexpr int32_t kTreesAbreast = 4;
constexpr uint32_t kPlaneBytes = cpu::kTreesTile / 8;
constexpr uint32_t kNever = 0;             // the plane of zeros
constexpr uint32_t kAlways = kPlaneBytes;  // the plane of ones
constexpr uint32_t kReserved = 2;

float next_up(float x) { return std::nextafterf(x, kInfinity); }

/// The least float ≥ x.
float ceil_float(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) < x ? next_up(f) : f;
}

/// Every decision as a set of intervals: x goes left when the number of cuts above it is odd, xor `invert`.
struct Split {
  std::vector<float> cuts;  // ascending
  bool invert = false;
  bool nan_left = false;
  bool swap = false;  // the children

  bool simple() const { return cuts.size() == 1 && !invert; }
  bool left(float x) const {
    const auto above = cuts.end() - std::upper_bound(cuts.begin(), cuts.end(), x);
    return ((above & 1) != 0) != invert;
  }
  void add_interval(float from, float to) {  // [from, to), after all others
    if (!cuts.empty() && cuts.back() == from) {
      cuts.back() = to;
    } else {
      cuts.push_back(from);
      cuts.push_back(to);
    }
  }
  void add_points(std::vector<float> points) {
    std::sort(points.begin(), points.end());
    points.erase(std::unique(points.begin(), points.end()), points.end());
    for (const float p : points) {
      if (p == kInfinity) {
        // [∞, ∞]: an interval without an end.
        if (!cuts.empty() && cuts.back() == p) {
          cuts.pop_back();
        } else {
          cuts.push_back(p);
        }
        invert = true;
      } else if (!std::isnan(p)) {
        add_interval(p, next_up(p));
      }
    }
  }
};

// A category is [c, c + 1), as far as float knows it; 0 begins above −1 where x is rounded towards zero first.
void add_categories(const Ensemble& e, const Node& node, bool truncated, Split* split) {
  const uint32_t* words = e.categories.data() + node.first;
  const uint64_t n = uint64_t{32} * node.count;
  const auto has = [words](uint64_t c) { return ((words[c >> 5] >> (c & 31)) & 1u) != 0; };
  for (uint64_t c = 0; c < n;) {
    if (words[c >> 5] == 0) {
      c = (c | 31) + 1;
      continue;
    }
    if (!has(c)) {
      ++c;
      continue;
    }
    const uint64_t begin = c;
    while (c < n && has(c)) ++c;
    const float from = begin == 0 && truncated ? next_up(-1.0f) : ceil_float(static_cast<double>(begin));
    const float to = ceil_float(static_cast<double>(c));
    if (from < to) split->add_interval(from, to);
  }
}

// Zeros go where missing values go, whatever the cuts say.
void overrule_zeros(bool zeros_left, Split* split) {
  const float from = -kZeroThreshold;
  const float to = next_up(kZeroThreshold);
  const auto above_from = split->cuts.end() - std::lower_bound(split->cuts.begin(), split->cuts.end(), from);
  const bool left_before = ((above_from & 1) != 0) != split->invert;
  const bool left_after = split->left(to);
  std::vector<float> cuts;
  for (const float c : split->cuts) {
    if (c < from) cuts.push_back(c);
  }
  if (left_before != zeros_left) cuts.push_back(from);
  if (zeros_left != left_after) cuts.push_back(to);
  for (const float c : split->cuts) {
    if (c > to) cuts.push_back(c);
  }
  split->cuts = std::move(cuts);
}

Split split_of(const Ensemble& e, const Node& node) {
  Split split;
  switch (node.decision) {
    case Decision::kLess:
      split.cuts = {node.threshold};
      break;
    case Decision::kLessEqual:
      if (node.threshold == kInfinity) {
        split.invert = true;
      } else {
        split.cuts = {next_up(node.threshold)};
      }
      break;
    case Decision::kEqual:
      split.add_points({node.threshold});
      break;
    case Decision::kMember:
      split.add_points({e.members.begin() + node.first, e.members.begin() + node.first + node.count});
      break;
    case Decision::kCategory:
    case Decision::kCategoryTruncated:
      add_categories(e, node, node.decision == Decision::kCategoryTruncated, &split);
      break;
  }
  split.nan_left = node.default_left;
  if (node.missing == Missing::kZeroOrNan) overrule_zeros(node.default_left, &split);
  if (node.missing == Missing::kNanIsZero) split.nan_left = split.left(0.0f);
  // A question with one answer, and the opposite of a comparison, are comparisons too.
  if (split.cuts.empty()) split.cuts = {-kInfinity};
  if (split.cuts.size() == 1 && split.invert) {
    split.invert = false;
    split.nan_left = !split.nan_left;
    split.swap = true;
  }
  return split;
}

uint32_t left_of(const Node& node, const Split& split) {
  return static_cast<uint32_t>(split.swap ? node.right : node.left);
}

uint32_t right_of(const Node& node, const Split& split) {
  return static_cast<uint32_t>(split.swap ? node.left : node.right);
}

// ---- walking ------------------------------------------------------------------------------------------------

// Breadth first, so that the first steps of every row share cache lines.
void add_walk_tree(const Ensemble& e, const Tree& tree, Layout* out) {
  struct Pending {
    uint32_t node;
    int32_t depth;
  };
  std::vector<Pending> order{{0, 0}};
  const int32_t base = static_cast<int32_t>(out->walk_nodes.size());
  cpu::TreesWalkTree walk{base, 0, tree.first_target, tree.n_values, false};
  for (size_t i = 0; i < order.size(); ++i) {
    const Node& node = e.nodes[tree.first_node + order[i].node];
    const int32_t self = base + static_cast<int32_t>(i);
    walk.depth = std::max(walk.depth, order[i].depth);
    if (node.is_leaf()) {
      float payload = e.values[node.first];
      if (tree.n_values != 1) std::memcpy(&payload, &node.first, sizeof payload);
      out->walk_nodes.push_back({payload, 0, {self, self}});
      out->walk_flags.push_back(0);
      continue;
    }
    const Split split = split_of(e, node);
    cpu::TreesWalkNode walked{};
    walked.feature = static_cast<uint32_t>(node.feature);
    uint8_t flags = split.nan_left ? cpu::kTreesNanLeft : uint8_t{0};
    walked.child[1] = base + static_cast<int32_t>(order.size());
    walked.child[0] = walked.child[1] + 1;
    if (split.simple()) {
      walked.cut = split.cuts[0];
    } else {
      const uint32_t number = static_cast<uint32_t>(out->walk_sets.size());
      std::memcpy(&walked.cut, &number, sizeof number);
      flags |= cpu::kTreesIsSet;
      out->walk_sets.push_back({static_cast<uint32_t>(out->walk_cuts.size()), static_cast<uint32_t>(split.cuts.size()),
                                split.invert ? 1u : 0u});
      out->walk_cuts.insert(out->walk_cuts.end(), split.cuts.begin(), split.cuts.end());
      walk.has_sets = true;
    }
    out->walk_nodes.push_back(walked);
    out->walk_flags.push_back(flags);
    order.push_back({left_of(node, split), order[i].depth + 1});
    order.push_back({right_of(node, split), order[i].depth + 1});
  }
  out->walk_trees.push_back(walk);
}

// ---- planes -------------------------------------------------------------------------------------------------

struct PlaneTree {
  bool possible = false;
  size_t n_leaves = 0;
  double mean_depth = 0;
  std::vector<Split> splits;  // [n_nodes], empty for leaves
};

PlaneTree study(const Ensemble& e, const Tree& tree) {
  PlaneTree p;
  for (uint32_t i = 0; i < tree.n_nodes; ++i) p.n_leaves += e.nodes[tree.first_node + i].is_leaf() ? 1 : 0;
  p.possible = p.n_leaves <= kMaxLeaves;
  // Depth of a leaf, averaged as if the splits were fair.
  struct Pending {
    uint32_t node;
    double share;
  };
  std::vector<Pending> pending{{0, 1.0}};
  while (!pending.empty()) {
    const Pending at = pending.back();
    pending.pop_back();
    const Node& node = e.nodes[tree.first_node + at.node];
    if (node.is_leaf()) continue;
    p.mean_depth += at.share;
    pending.push_back({static_cast<uint32_t>(node.left), at.share / 2});
    pending.push_back({static_cast<uint32_t>(node.right), at.share / 2});
  }
  if (!p.possible) return p;
  p.splits.resize(tree.n_nodes);
  std::unordered_map<int32_t, std::vector<float>> cuts;
  for (uint32_t i = 0; i < tree.n_nodes; ++i) {
    const Node& node = e.nodes[tree.first_node + i];
    if (node.is_leaf()) continue;
    p.splits[i] = split_of(e, node);
    if (p.splits[i].cuts.size() > kMaxSetCuts) p.possible = false;
    std::vector<float>& all = cuts[node.feature];
    all.insert(all.end(), p.splits[i].cuts.begin(), p.splits[i].cuts.end());
  }
  for (auto& [feature, all] : cuts) {
    std::sort(all.begin(), all.end());
    if (std::unique(all.begin(), all.end()) - all.begin() > cpu::kTreesMaxCuts) p.possible = false;
  }
  return p;
}

using Cuts = std::vector<float>;

// Merges b's cuts into a; false (a unchanged) when they become too many.
bool merge(Cuts& a, const Cuts& b) {
  Cuts both;
  both.reserve(a.size() + b.size());
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  if (both.size() > static_cast<size_t>(cpu::kTreesMaxCuts)) return false;
  a = std::move(both);
  return true;
}

// Builds the planes of one segment.
class SegmentBuilder {
 public:
  SegmentBuilder(const Ensemble& e, const std::vector<PlaneTree>& trees, size_t plane_budget, Layout* out)
      : e_(e), trees_(trees), budget_(plane_budget), out_(*out) {}

  void build(Segment* segment, const std::map<int32_t, Cuts>& features) {
    segment->first_column = static_cast<uint32_t>(out_.columns.size());
    segment->first_batch = static_cast<uint32_t>(out_.batches.size());
    for (const auto& [feature, cuts] : features) {
      column_of_[feature] = out_.columns.size();
      BinColumn column{};
      column.source = feature;  // becomes a position when all segments are known
      column.heap = static_cast<uint32_t>(out_.heaps.size());
      while ((size_t{1} << column.levels) <= cuts.size()) ++column.levels;
      add_heap(cuts, column.levels);
      out_.columns.push_back(column);
      cuts_of_.emplace(feature, &cuts);
    }
    int32_t t = segment->first_tree;
    const int32_t end = t + segment->n_trees;
    while (t < end) t = add_batch(t, end);
    segment->n_columns = static_cast<uint32_t>(out_.columns.size()) - segment->first_column;
    segment->n_batches = static_cast<uint32_t>(out_.batches.size()) - segment->first_batch;
    out_.n_byte_columns = std::max(out_.n_byte_columns, n_byte_columns_);
  }

 private:
  struct Key {
    uint32_t column;
    uint32_t bin;
    uint64_t packed() const { return static_cast<uint64_t>(column) << 32 | bin; }
  };

  void add_heap(const Cuts& cuts, int32_t levels) {
    const size_t start = out_.heaps.size();
    out_.heaps.resize(start + 256, std::numeric_limits<float>::quiet_NaN());
    for (int32_t l = 0; l < levels; ++l) {
      for (size_t k = 0; k < (size_t{1} << l); ++k) {
        const size_t at = (2 * k + 1) * (size_t{1} << (levels - 1 - l)) - 1;
        if (at < cuts.size()) out_.heaps[start + (size_t{1} << l) + k] = cuts[at];
      }
    }
  }

  uint32_t byte_column(int32_t feature, bool low) {
    BinColumn& column = out_.columns[column_of_[feature]];
    int32_t& number = low ? column.low : column.high;
    if (number < 0) number = n_byte_columns_++;
    return static_cast<uint32_t>(number) * cpu::kTreesTile;
  }

  uint32_t bin_of(int32_t feature, float cut) const {
    const Cuts& cuts = *cuts_of_.at(feature);
    return static_cast<uint32_t>(std::lower_bound(cuts.begin(), cuts.end(), cut) - cuts.begin());
  }

  int32_t add_batch(int32_t first, int32_t end) {
    // As many trees as have planes enough; equal splits count once.
    std::unordered_map<uint64_t, uint32_t> plane_of;
    std::vector<Key> keys;
    struct SetSplit {
      int32_t tree;
      uint32_t node;
    };
    std::vector<SetSplit> sets;
    int32_t t = first;
    for (; t < end; ++t) {
      std::vector<Key> added;
      size_t added_sets = 0;
      const Tree& tree = e_.trees[static_cast<size_t>(t)];
      const PlaneTree& p = trees_[static_cast<size_t>(t)];
      for (uint32_t i = 0; i < tree.n_nodes; ++i) {
        const Node& node = e_.nodes[tree.first_node + i];
        if (node.is_leaf()) continue;
        const Split& split = p.splits[i];
        if (!split.simple()) {
          ++added_sets;
          continue;
        }
        const Key key{byte_column(node.feature, split.nan_left), bin_of(node.feature, split.cuts[0])};
        if (plane_of.emplace(key.packed(), 0).second) added.push_back(key);
      }
      if (t > first && keys.size() + added.size() + sets.size() + added_sets > budget_) {
        for (const Key& key : added) plane_of.erase(key.packed());
        break;
      }
      keys.insert(keys.end(), added.begin(), added.end());
      for (uint32_t i = 0; i < tree.n_nodes; ++i) {
        const Node& node = e_.nodes[tree.first_node + i];
        if (!node.is_leaf() && !p.splits[i].simple()) sets.push_back({t, i});
      }
    }
    PlaneBatch batch{};
    std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.packed() < b.packed(); });
    batch.first_run = static_cast<uint32_t>(out_.runs.size());
    batch.first_bin = static_cast<uint32_t>(out_.bins.size());
    uint32_t next_plane = kReserved * kPlaneBytes;
    for (const Key& key : keys) {
      if (out_.runs.size() == batch.first_run || out_.runs.back().column != key.column) {
        out_.runs.push_back({key.column, 0});
      }
      ++out_.runs.back().n;
      out_.bins.push_back(static_cast<uint8_t>(key.bin));
      plane_of[key.packed()] = next_plane;
      next_plane += kPlaneBytes;
    }
    batch.n_runs = static_cast<uint32_t>(out_.runs.size()) - batch.first_run;
    batch.first_set = static_cast<uint32_t>(out_.sets.size());
    std::unordered_map<uint64_t, uint32_t> set_plane;  // tree, node → plane
    for (const SetSplit& s : sets) {
      const Tree& tree = e_.trees[static_cast<size_t>(s.tree)];
      add_set(e_.nodes[tree.first_node + s.node].feature, trees_[static_cast<size_t>(s.tree)].splits[s.node],
              next_plane);
      set_plane[static_cast<uint64_t>(s.tree) << 32 | s.node] = next_plane;
      next_plane += kPlaneBytes;
    }
    batch.n_sets = static_cast<uint32_t>(out_.sets.size()) - batch.first_set;
    batch.first_step = static_cast<uint32_t>(out_.steps.size());
    first_temporary_ = next_plane;
    out_.n_planes = std::max(out_.n_planes, static_cast<int32_t>(next_plane / kPlaneBytes));
    for (int32_t s = first; s < t; s += kTreesPerStep) {
      for (std::vector<uint32_t>& free : free_planes_) free.clear();
      next_temporary_ = next_plane;
      PlaneStep step{};
      step.first_blend = static_cast<uint32_t>(out_.blends.size());
      step.first_leaves = static_cast<uint32_t>(out_.leaves.size());
      for (int32_t i = s; i < std::min<int32_t>(t, s + kTreesPerStep); ++i) {
        lane_ = static_cast<size_t>(i - s) % kTreesAbreast;
        if (lane_ == 0) take_turns();
        add_tree(i, [&](uint32_t at, const Node& node, const Split& split) {
          if (!split.simple()) return set_plane.at(static_cast<uint64_t>(i) << 32 | at);
          const Key key{byte_column(node.feature, split.nan_left), bin_of(node.feature, split.cuts[0])};
          return plane_of.at(key.packed());
        });
      }
      take_turns();
      step.n_blends = static_cast<uint32_t>(out_.blends.size()) - step.first_blend;
      step.n_leaves = static_cast<uint32_t>(out_.leaves.size()) - step.first_leaves;
      out_.steps.push_back(step);
    }
    batch.n_steps = static_cast<uint32_t>(out_.steps.size()) - batch.first_step;
    out_.batches.push_back(batch);
    return t;
  }

  void add_set(int32_t feature, const Split& split, uint32_t plane) {
    cpu::TreesSetPlane set{plane, static_cast<uint32_t>(out_.terms.size()), 0, split.invert ? 1u : 0u};
    // In the high column NaN answers no to every cut, in the low one yes. Where neither parity is what NaN must give,
    // one more term, which everything but NaN answers with yes, and the opposite of it all.
    const bool odd = (split.cuts.size() & 1) != 0;
    const bool low = split.nan_left != split.invert && (odd != split.invert) == split.nan_left;
    const bool extra = split.nan_left != split.invert && !low;
    const uint32_t column = byte_column(feature, low);
    for (const float cut : split.cuts) out_.terms.push_back({column, bin_of(feature, cut)});
    if (extra) {
      out_.terms.push_back({column, cpu::kTreesMaxCuts});
      set.invert ^= 1u;
    }
    set.n = static_cast<uint32_t>(out_.terms.size()) - set.first;
    out_.sets.push_back(set);
  }

  // A leaf's number counts from the right, so that a split between two leaves is its own plane: left is the higher.
  template <typename PlaneOf>
  void add_tree(int32_t t, PlaneOf&& plane_of) {
    const Tree& tree = e_.trees[static_cast<size_t>(t)];
    const PlaneTree& p = trees_[static_cast<size_t>(t)];
    int32_t n_bits = 0;
    while ((size_t{1} << n_bits) < p.n_leaves) ++n_bits;
    cpu::TreesLeaves leaves{};
    leaves.n_bits = n_bits;
    leaves.target = tree.first_target;
    leaves.n_values = tree.n_values;
    leaves.table = static_cast<uint32_t>(out_.tables.size());
    const size_t size = n_bits <= 6 ? 64 : n_bits == 7 ? 128 : 256;
    out_.tables.resize(out_.tables.size() + size * static_cast<size_t>(tree.n_values), 0.0f);
    float* const table = out_.tables.data() + leaves.table;
    uint32_t n_numbered = 0;

    struct Frame {
      uint32_t node;
      int stage = 0;
      std::vector<uint32_t> right;
    };
    std::vector<Frame> stack;
    stack.push_back({0, 0, {}});
    std::vector<uint32_t> result;  // planes of the subtree that was just finished
    while (!stack.empty()) {
      Frame& frame = stack.back();
      const Node& node = e_.nodes[tree.first_node + frame.node];
      if (node.is_leaf()) {
        const uint32_t number = n_numbered++;
        for (int32_t v = 0; v < tree.n_values; ++v) {
          table[static_cast<size_t>(v) * size + number] = e_.values[node.first + static_cast<uint32_t>(v)];
        }
        result.assign(static_cast<size_t>(n_bits), kNever);
        for (int32_t b = 0; b < n_bits; ++b) {
          if (((number >> b) & 1u) != 0) result[static_cast<size_t>(b)] = kAlways;
        }
        stack.pop_back();
      } else if (frame.stage == 0) {
        frame.stage = 1;
        stack.push_back({right_of(node, p.splits[frame.node]), 0, {}});
      } else if (frame.stage == 1) {
        frame.stage = 2;
        frame.right = std::exchange(result, {});
        stack.push_back({left_of(node, p.splits[frame.node]), 0, {}});
      } else {
        const uint32_t test = plane_of(frame.node, node, p.splits[frame.node]);
        for (size_t b = 0; b < result.size(); ++b) result[b] = blend(test, result[b], frame.right[b]);
        stack.pop_back();
      }
    }
    for (size_t b = 0; b < result.size(); ++b) leaves.planes[b] = result[b];
    out_.leaves.push_back(leaves);
  }

  void take_turns() {
    for (size_t i = 0, added = 1; added > 0; ++i) {
      added = 0;
      for (const std::vector<cpu::TreesBlend>& lane : blends_) {
        if (i >= lane.size()) continue;
        out_.blends.push_back(lane[i]);
        ++added;
      }
    }
    for (std::vector<cpu::TreesBlend>& lane : blends_) lane.clear();
  }

  uint32_t blend(uint32_t test, uint32_t yes, uint32_t no) {
    if (yes == no) return yes;
    if (yes == kAlways && no == kNever) return test;
    for (const uint32_t used : {yes, no}) {
      if (used >= first_temporary_) free_planes_[lane_].push_back(used);
    }
    uint32_t out = 0;
    std::vector<uint32_t>& free = free_planes_[lane_];
    if (free.empty()) {
      out = next_temporary_;
      next_temporary_ += kPlaneBytes;
      out_.n_planes = std::max(out_.n_planes, static_cast<int32_t>(next_temporary_ / kPlaneBytes));
    } else {
      out = free.back();
      free.pop_back();
    }
    blends_[lane_].push_back({test, yes, no, out});
    return out;
  }

  const Ensemble& e_;
  const std::vector<PlaneTree>& trees_;
  const size_t budget_;
  Layout& out_;
  std::unordered_map<int32_t, size_t> column_of_;
  std::unordered_map<int32_t, const Cuts*> cuts_of_;
  int32_t n_byte_columns_ = 0;
  uint32_t next_temporary_ = 0;
  uint32_t first_temporary_ = 0;
  // Of the trees abreast, each with temporary planes of its own.
  std::array<std::vector<uint32_t>, kTreesAbreast> free_planes_;
  std::array<std::vector<cpu::TreesBlend>, kTreesAbreast> blends_;
  size_t lane_ = 0;
};

using FeatureCuts = std::map<int32_t, Cuts>;

FeatureCuts cuts_of(const Ensemble& e, const Tree& tree, const PlaneTree& p) {
  FeatureCuts all;
  for (uint32_t i = 0; i < tree.n_nodes; ++i) {
    const Node& node = e.nodes[tree.first_node + i];
    if (node.is_leaf()) continue;
    Cuts& cuts = all[node.feature];
    cuts.insert(cuts.end(), p.splits[i].cuts.begin(), p.splits[i].cuts.end());
  }
  for (auto& [feature, cuts] : all) {
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  }
  return all;
}

struct Group {
  Segment segment;
  FeatureCuts features;
};

// Trees in order; a group ends where a feature would have more cuts than a byte counts.
std::vector<Group> group(const Ensemble& e, const std::vector<PlaneTree>& trees) {
  std::vector<Group> groups;
  bool open = false;  // the last group is one of planes
  for (size_t t = 0; t < e.trees.size(); ++t) {
    if (!trees[t].possible) {
      if (groups.empty() || open) groups.push_back({{static_cast<int32_t>(t), 0}, {}});
      ++groups.back().segment.n_trees;
      open = false;
      continue;
    }
    const FeatureCuts added = cuts_of(e, e.trees[t], trees[t]);
    FeatureCuts merged;
    bool fits = open;
    if (open) {
      for (auto it = added.begin(); it != added.end() && fits; ++it) {
        const auto present = groups.back().features.find(it->first);
        Cuts both = it->second;
        fits = present == groups.back().features.end() || merge(both, present->second);
        merged[it->first] = std::move(both);
      }
    }
    if (fits) {
      for (auto& [feature, cuts] : merged) groups.back().features[feature] = std::move(cuts);
      ++groups.back().segment.n_trees;
    } else {
      groups.push_back({{static_cast<int32_t>(t), 1}, added});
    }
    open = true;
  }
  return groups;
}

// Cycles as measured on Zen 4, where they are within a quarter; only their proportions matter, and only to what is
// faster.
Layout::Cost cost_of(const Layout& out, const std::vector<PlaneTree>& trees, const Segment& segment) {
  Layout::Cost cost{0, 0, 0};
  for (int32_t t = segment.first_tree; t < segment.first_tree + segment.n_trees; ++t) {
    const cpu::TreesWalkTree& walk = out.walk_trees[static_cast<size_t>(t)];
    cost.walk_row += 4 + 1.2 * (trees[static_cast<size_t>(t)].mean_depth + walk.depth) + walk.n_values;
  }
  for (uint32_t c = segment.first_column; c < segment.first_column + segment.n_columns; ++c) {
    cost.planes += 10;
    cost.planes_block += 30 + 16.0 * out.columns[c].levels;
  }
  for (uint32_t b = segment.first_batch; b < segment.first_batch + segment.n_batches; ++b) {
    const PlaneBatch& batch = out.batches[b];
    double n_planes = batch.n_sets;
    for (uint32_t r = batch.first_run; r < batch.first_run + batch.n_runs; ++r) n_planes += out.runs[r].n;
    cost.planes += 50 + n_planes;
    cost.planes_block += 1.1 * n_planes;
    for (uint32_t s = batch.first_set; s < batch.first_set + batch.n_sets; ++s)
      cost.planes_block += 2.0 * out.sets[s].n;
    const bool in_first_cache = n_planes <= 384;
    for (uint32_t s = batch.first_step; s < batch.first_step + batch.n_steps; ++s) {
      const PlaneStep& step = out.steps[s];
      cost.planes += 30 + step.n_blends * (in_first_cache ? 2.5 : 3.5);
      for (uint32_t l = step.first_leaves; l < step.first_leaves + step.n_leaves; ++l) {
        cost.planes_block += 20 + 30.0 * out.leaves[l].n_values;
      }
    }
  }
  return cost;
}

void build_planes(const Ensemble& e, const std::vector<PlaneTree>& trees, const std::vector<Group>& groups,
                  size_t plane_budget, Layout* out) {
  for (const Group& g : groups) {
    Segment segment = g.segment;
    if (!g.features.empty() || trees[static_cast<size_t>(segment.first_tree)].possible) {
      SegmentBuilder builder(e, trees, plane_budget, out);
      builder.build(&segment, g.features);
    }
    out->segments.push_back(segment);
    out->costs.push_back(cost_of(*out, trees, segment));
  }
}

void finish(Layout* out) {
  for (const BinColumn& column : out->columns) out->features.push_back(column.source);
  std::sort(out->features.begin(), out->features.end());
  out->features.erase(std::unique(out->features.begin(), out->features.end()), out->features.end());
  for (BinColumn& column : out->columns) {
    column.source = static_cast<int32_t>(std::lower_bound(out->features.begin(), out->features.end(), column.source) -
                                         out->features.begin());
  }
  out->byte_tables.resize(out->tables.size() * sizeof(float));
  for (const cpu::TreesLeaves& leaves : out->leaves) {
    const size_t size = leaves.n_bits <= 6 ? 64 : leaves.n_bits == 7 ? 128 : 256;
    for (size_t v = 0; v < static_cast<size_t>(leaves.n_values); ++v) {
      const size_t start = leaves.table + v * size;
      for (size_t i = 0; i < size; ++i) {
        uint8_t bytes[4];
        std::memcpy(bytes, &out->tables[start + i], 4);
        for (size_t b = 0; b < 4; ++b) out->byte_tables[4 * start + b * size + i] = bytes[b];
      }
    }
  }
}

}  // namespace

size_t Layout::bytes() const {
  const auto held = [](const auto& v) { return v.capacity() * sizeof(v[0]); };
  return held(walk_nodes) + held(walk_flags) + held(walk_sets) + held(walk_cuts) + held(walk_trees) + held(segments) +
         held(features) + held(columns) + held(heaps) + held(batches) + held(steps) + held(runs) + held(bins) +
         held(sets) + held(terms) + held(blends) + held(leaves) + held(tables) + held(byte_tables) + held(costs);
}

void build_layout(const Ensemble& e, int32_t planes_at_once, Layout* out) {
  std::vector<PlaneTree> trees;
  trees.reserve(e.trees.size());
  for (const Tree& tree : e.trees) {
    add_walk_tree(e, tree, out);
    trees.push_back(study(e, tree));
  }
  const std::vector<Group> groups = group(e, trees);
  // Many planes at a time share more of their splits. Whichever is cheaper.
  double least = std::numeric_limits<double>::infinity();
  Layout best;
  for (const size_t budget : {static_cast<size_t>(planes_at_once), size_t{2048}, size_t{6144}}) {
    Layout trial;
    trial.walk_trees = out->walk_trees;
    build_planes(e, trees, groups, budget, &trial);
    double cost = 0;
    for (const Layout::Cost& c : trial.costs) cost += c.planes + c.planes_block * cpu::kTreesPlaneWords;
    if (cost < least) {
      least = cost;
      best = std::move(trial);
    }
  }
  best.walk_nodes = std::move(out->walk_nodes);
  best.walk_flags = std::move(out->walk_flags);
  best.walk_sets = std::move(out->walk_sets);
  best.walk_cuts = std::move(out->walk_cuts);
  *out = std::move(best);
  finish(out);
}

}  // namespace waggle::trees
