// Shapley values of trees.
//
// Path-dependent. With every feature known with probability t, independently, a leaf of value v is reached with
// probability Π p_i(t) over the features i of its path, where p_i(t) = z_i + t·(o_i − z_i): o_i is 1 if the row's own
// value goes down the path at each split of feature i, else 0, and z_i the share of the covers that do. Shapley's value
// of i is the integral over t in [0, 1] of what knowing i adds, v·(o_i − z_i)·Π_{j ≠ i} p_j(t) (Owen's multilinear
// extension, 1972). The integrand is a polynomial of degree d − 1 for d features on the path, so that a Gauss–Legendre
// rule of ⌈d/2⌉ points gives it exactly, from sums of terms of one sign: no unwinding, whose divisions lose digits in
// deep trees.
//
// The products at the points are carried down the edges and the leaves' sums back up (as in Linear TreeSHAP, Yu et al.
// 2022), which costs each edge a few operations per point whatever the number of leaves below it. Below an edge e of a
// feature that an edge a above has asked before, e's own p replaces a's: e adds its own term and takes a's back. All
// factors depend on the tree and on which of three cases an edge is in for the row, so they are tables.
#include "cpu/trees_shap.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "src/trees/decide.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

using trees::Ensemble;
using trees::Node;
using trees::Tree;

constexpr int64_t kTile = 256;

// Nodes of a tree in preorder; position 0 is the root. What belongs to an edge stands at its lower end.
struct Shape {
  std::vector<uint32_t> node;      // its number in the tree
  std::vector<int32_t> parent;     // position
  std::vector<int32_t> above;      // position of the nearest edge above that asks the same feature; 0 = none
  std::vector<int32_t> feature;    // asked by the edge
  std::vector<uint8_t> is_left;    // the edge is taken when the parent's split says left
  std::vector<uint8_t> is_second;  // the parent's other child stands before it
  std::vector<uint8_t> is_leaf;
  std::vector<double> share;  // z: of the covers, those that take all edges of the feature down to here
  std::vector<double> reach;  // the product of the shares of all edges
  int32_t most_features = 0;  // on one path

  size_t size() const { return node.size(); }
};

double share_of(const Ensemble& e, const Tree& tree, const Node& split, int32_t child) {
  const auto cover = [&](int32_t i) {
    return static_cast<double>(e.covers[tree.first_node + static_cast<uint32_t>(i)]);
  };
  const double both = cover(split.left) + cover(split.right);
  // Where no training row came, either side is as good.
  return both > 0 ? cover(child) / both : 0.5;
}

void describe(const Ensemble& e, const Tree& tree, bool with_covers, Shape* s) {
  s->node.clear();
  s->parent.clear();
  s->above.clear();
  s->feature.clear();
  s->is_left.clear();
  s->is_second.clear();
  s->is_leaf.clear();
  s->share.clear();
  s->reach.clear();
  s->most_features = 0;
  struct Pending {
    int32_t node;
    int32_t parent;
    bool left;
  };
  std::vector<Pending> pending{{0, -1, false}};
  std::vector<int32_t> n_features;  // on the path to each position
  while (!pending.empty()) {
    const Pending at = pending.back();
    pending.pop_back();
    const int32_t position = static_cast<int32_t>(s->size());
    const Node& node = e.nodes[tree.first_node + static_cast<uint32_t>(at.node)];
    int32_t above = 0;
    int32_t feature = -1;
    double share = 1;
    double reach = 1;
    int32_t count = 0;
    if (position > 0) {
      const Node& split = e.nodes[tree.first_node + s->node[static_cast<size_t>(at.parent)]];
      feature = split.feature;
      for (int32_t p = at.parent; p > 0 && above == 0; p = s->parent[static_cast<size_t>(p)]) {
        if (s->feature[static_cast<size_t>(p)] == feature) above = p;
      }
      const double ratio = with_covers ? share_of(e, tree, split, at.node) : 0;
      share = (above > 0 ? s->share[static_cast<size_t>(above)] : 1.0) * ratio;
      reach = s->reach[static_cast<size_t>(at.parent)] * ratio;
      count = n_features[static_cast<size_t>(at.parent)] + (above == 0 ? 1 : 0);
    }
    s->node.push_back(static_cast<uint32_t>(at.node));
    s->parent.push_back(at.parent);
    s->above.push_back(above);
    s->feature.push_back(feature);
    s->is_left.push_back(at.left ? 1 : 0);
    s->is_second.push_back(position > 0 && at.parent != position - 1 ? 1 : 0);
    s->is_leaf.push_back(node.is_leaf() ? 1 : 0);
    s->share.push_back(share);
    s->reach.push_back(reach);
    n_features.push_back(count);
    s->most_features = std::max(s->most_features, count);
    if (node.is_leaf()) continue;
    pending.push_back({node.right, position, false});
    pending.push_back({node.left, position, true});
  }
}

struct Scratch {
  Shape shape;
  std::vector<double> points, weights;
  std::vector<double> factors;    // [positions × 3 cases × 2 × points]: down, then up
  std::vector<double> down, up;   // [positions × points]
  std::vector<uint8_t> known;     // [positions] o
  std::vector<uint8_t> cases;     // [positions]
  std::vector<uint8_t> decision;  // [positions]
  std::vector<uint8_t> row_left, background_left;
  std::vector<uint8_t> owner;   // [features] of the walk that compares two rows
  std::vector<double> chances;  // weights of leaves by how many features each of two rows decides
};

// Case 0: an edge above has already sent the row's own value elsewhere, so nothing is added. Case 1: this edge does.
// Case 2: the row's own value comes down here.
constexpr size_t kCases = 3;

void tabulate(const Shape& s, int32_t n_points, const double* t, const double* w, std::vector<double>* factors) {
  const size_t m = static_cast<size_t>(n_points);
  factors->resize(s.size() * kCases * 2 * m);
  for (size_t p = 1; p < s.size(); ++p) {
    double* const at = factors->data() + p * kCases * 2 * m;
    const double z = s.share[p];
    const bool first = s.above[p] == 0;
    const double z_above = first ? 1.0 : s.share[static_cast<size_t>(s.above[p])];
    for (size_t q = 0; q < m; ++q) {
      // p of the edge above while the row's value comes down it: 1 where there is none.
      const double p_above = first ? 1.0 : z_above + t[q] * (1 - z_above);
      const double taken_back = first ? 0.0 : (1 - z_above) / p_above;
      const double p_away = z * (1 - t[q]);
      const double p_here = z + t[q] * (1 - z);
      at[q] = z_above > 0 ? z / z_above : 0.0;
      at[m + q] = 0.0;
      at[2 * m + q] = p_away / p_above;
      at[3 * m + q] = -w[q] * (1 / (1 - t[q]) + taken_back);
      at[4 * m + q] = p_here / p_above;
      at[5 * m + q] = w[q] * ((1 - z) / p_here - taken_back);
    }
  }
}

// kPoints > 0 lets the compiler unroll; 0 stands for any number.
template <int kPoints>
void explain_row(const Ensemble& e, const Tree& tree, const Shape& s, int32_t n_points, const float* row, Scratch& k,
                 int64_t stride, double* out) {
  const size_t m = kPoints > 0 ? static_cast<size_t>(kPoints) : static_cast<size_t>(n_points);
  const size_t n = s.size();
  double* const down = k.down.data();
  double* const up = k.up.data();
  for (size_t p = 0; p < n; ++p) {
    const Node& node = e.nodes[tree.first_node + s.node[p]];
    k.decision[p] = !node.is_leaf() && trees::goes_left(e, node, row[node.feature]) ? 1 : 0;
  }
  k.known[0] = 1;
  std::fill_n(down, m, 1.0);
  for (size_t p = 1; p < n; ++p) {
    const size_t parent = static_cast<size_t>(s.parent[p]);
    const uint8_t before = k.known[static_cast<size_t>(s.above[p])];
    const uint8_t now = before & static_cast<uint8_t>(k.decision[parent] == s.is_left[p]);
    k.known[p] = now;
    k.cases[p] = static_cast<uint8_t>(before + now);
    const double* const f = k.factors.data() + (p * kCases + k.cases[p]) * 2 * m;
    for (size_t q = 0; q < m; ++q) down[p * m + q] = down[parent * m + q] * f[q];
  }
  for (int32_t v = 0; v < tree.n_values; ++v) {
    double* const phi = out + (tree.first_target + v) * stride;
    for (size_t p = n - 1; p > 0; --p) {
      const size_t parent = static_cast<size_t>(s.parent[p]);
      const double* const f = k.factors.data() + (p * kCases + k.cases[p]) * 2 * m + m;
      double* const sum = up + p * m;
      if (s.is_leaf[p] != 0) {
        const Node& leaf = e.nodes[tree.first_node + s.node[p]];
        const double value = e.scale * static_cast<double>(e.values[leaf.first + static_cast<uint32_t>(v)]);
        for (size_t q = 0; q < m; ++q) sum[q] = value * down[p * m + q];
      }
      double added = 0;
      for (size_t q = 0; q < m; ++q) added += f[q] * sum[q];
      phi[s.feature[p]] += added;
      double* const to = up + parent * m;
      if (s.is_second[p] != 0) {  // met first, on the way back
        for (size_t q = 0; q < m; ++q) to[q] = sum[q];
      } else {
        for (size_t q = 0; q < m; ++q) to[q] += sum[q];
      }
    }
  }
}

using ExplainRow = void (*)(const Ensemble&, const Tree&, const Shape&, int32_t, const float*, Scratch&, int64_t,
                            double*);
constexpr ExplainRow kExplainRow[] = {explain_row<0>, explain_row<1>, explain_row<2>, explain_row<3>, explain_row<4>,
                                      explain_row<5>, explain_row<6>, explain_row<7>, explain_row<8>};

// Exact up to 48 features on a path; beyond, the error of a rule of m points on a product of d factors, each linear and
// within [0, 1], falls like e^(−2m²/d): below rounding at 5·√d.
int32_t points_for(int32_t most_features) {
  const int32_t exact = (most_features + 1) / 2;
  return std::min(exact, std::max(24, static_cast<int32_t>(5 * std::sqrt(static_cast<double>(most_features)))));
}

void explain_tree(const Ensemble& e, const Tree& tree, const float* x, int64_t rows, Scratch& k, double* out) {
  Shape& s = k.shape;
  describe(e, tree, true, &s);
  const int64_t stride = int64_t{e.n_features} + 1;
  for (int32_t v = 0; v < tree.n_values; ++v) {
    double expected = 0;
    for (size_t p = 0; p < s.size(); ++p) {
      if (s.is_leaf[p] == 0) continue;
      const Node& leaf = e.nodes[tree.first_node + s.node[p]];
      expected += s.reach[p] * e.scale * static_cast<double>(e.values[leaf.first + static_cast<uint32_t>(v)]);
    }
    for (int64_t r = 0; r < rows; ++r) {
      out[(r * e.n_targets + tree.first_target + v) * stride + e.n_features] += expected;
    }
  }
  if (s.size() == 1) return;
  const int32_t n_points = points_for(s.most_features);
  if (k.points.size() != static_cast<size_t>(n_points)) gauss_legendre(n_points, &k.points, &k.weights);
  tabulate(s, n_points, k.points.data(), k.weights.data(), &k.factors);
  const size_t values = s.size() * static_cast<size_t>(n_points);
  if (k.down.size() < values) {
    k.down.resize(values);
    k.up.resize(values);
  }
  k.known.resize(s.size());
  k.cases.resize(s.size());
  k.decision.resize(s.size());
  const ExplainRow explain = kExplainRow[n_points <= 8 ? n_points : 0];
  for (int64_t r = 0; r < rows; ++r) {
    explain(e, tree, s, n_points, x + r * e.n_features, k, stride, out + r * e.n_targets * stride);
  }
}

// ---- against a background -----------------------------------------------------------------------------------

// Of U + V features in random order, the chance that one given of the U comes after the other U − 1 and before all of
// the V: (U − 1)!·V! / (U + V)!.
constexpr int32_t kChances = 64;
double chance(const std::vector<double>& table, int32_t u, int32_t v) {
  if (u <= kChances && v <= kChances) return table[static_cast<size_t>(u) * (kChances + 1) + static_cast<size_t>(v)];
  return std::exp(std::lgamma(u) + std::lgamma(v + 1.0) - std::lgamma(u + v + 1.0));
}

void fill_chances(std::vector<double>* table) {
  table->assign(static_cast<size_t>(kChances + 1) * (kChances + 1), 0.0);
  for (int32_t v = 0; v <= kChances; ++v) {
    double c = 1.0 / (v + 1);
    for (int32_t u = 1; u <= kChances; ++u) {
      (*table)[static_cast<size_t>(u) * (kChances + 1) + static_cast<size_t>(v)] = c;
      c *= static_cast<double>(u) / (u + v + 1);
    }
  }
}

// A row against a row of the background. Where they part at a feature, either's value may decide, and what is below is
// visited with either; a feature that one of them has decided stays its own.
class Duel {
 public:
  Duel(const Ensemble& e, const Tree& tree, Scratch& k) : e_(e), tree_(tree), k_(k) {}

  void run(const uint8_t* row_left, const uint8_t* other_left, double weight, int32_t value, double* phi) {
    row_ = row_left;
    other_ = other_left;
    weight_ = weight;
    value_ = static_cast<uint32_t>(value);
    phi_ = phi;
    visit(0, 0, 0);
  }

 private:
  // What the leaves below give to each feature that the row, or the other, has decided.
  struct Share {
    double row = 0;
    double other = 0;
  };

  Share visit(int32_t at, int32_t u, int32_t v) {
    const Node& node = e_.nodes[tree_.first_node + static_cast<uint32_t>(at)];
    if (node.is_leaf()) {
      const double value = weight_ * static_cast<double>(e_.values[node.first + value_]);
      return {u > 0 ? value * chance(k_.chances, u, v) : 0.0, v > 0 ? -value * chance(k_.chances, v, u) : 0.0};
    }
    const int32_t mine = row_[at] != 0 ? node.left : node.right;
    const int32_t theirs = other_[at] != 0 ? node.left : node.right;
    uint8_t& owner = k_.owner[static_cast<size_t>(node.feature)];
    if (mine == theirs || owner == 1) return visit(mine, u, v);
    if (owner == 2) return visit(theirs, u, v);
    owner = 1;
    const Share a = visit(mine, u + 1, v);
    owner = 2;
    const Share b = visit(theirs, u, v + 1);
    owner = 0;
    phi_[node.feature] += a.row + b.other;
    return {a.row + b.row, a.other + b.other};
  }

  const Ensemble& e_;
  const Tree& tree_;
  Scratch& k_;
  const uint8_t* row_ = nullptr;
  const uint8_t* other_ = nullptr;
  double weight_ = 0;
  uint32_t value_ = 0;
  double* phi_ = nullptr;
};

void decide(const Ensemble& e, const Tree& tree, const float* x, int64_t rows, std::vector<uint8_t>* left) {
  left->resize(static_cast<size_t>(rows) * tree.n_nodes);
  for (int64_t r = 0; r < rows; ++r) {
    for (uint32_t i = 0; i < tree.n_nodes; ++i) {
      const Node& node = e.nodes[tree.first_node + i];
      (*left)[static_cast<size_t>(r) * tree.n_nodes + i] =
          !node.is_leaf() && trees::goes_left(e, node, x[r * e.n_features + node.feature]) ? 1 : 0;
    }
  }
}

bool compare_tree(const TreesShapArgs& args, const Tree& tree, const float* x, int64_t rows, const RunContext& context,
                  Scratch& k, double* out) {
  const Ensemble& e = args.model->ensemble();
  const int64_t stride = int64_t{e.n_features} + 1;
  if (k.chances.empty()) fill_chances(&k.chances);
  k.owner.assign(static_cast<size_t>(e.n_features), 0);
  // Of a background without end only a part at a time.
  constexpr int64_t kAtOnce = 1024;
  decide(e, tree, x, rows, &k.row_left);
  const double weight = e.scale / static_cast<double>(args.n_background);
  Duel duel(e, tree, k);
  for (int64_t first = 0; first < args.n_background; first += kAtOnce) {
    const int64_t others = std::min(kAtOnce, args.n_background - first);
    decide(e, tree, args.background + first * e.n_features, others, &k.background_left);
    for (int32_t v = 0; v < tree.n_values; ++v) {
      const int64_t target = tree.first_target + v;
      double expected = 0;
      for (int64_t b = 0; b < others; ++b) {
        const uint8_t* const left = k.background_left.data() + static_cast<size_t>(b) * tree.n_nodes;
        uint32_t at = 0;
        while (!e.nodes[tree.first_node + at].is_leaf()) {
          const Node& node = e.nodes[tree.first_node + at];
          at = static_cast<uint32_t>(left[at] != 0 ? node.left : node.right);
        }
        expected += static_cast<double>(e.values[e.nodes[tree.first_node + at].first + static_cast<uint32_t>(v)]);
      }
      for (int64_t r = 0; r < rows; ++r) {
        if (context.stop_requested()) return false;
        double* const phi = out + (r * e.n_targets + target) * stride;
        phi[e.n_features] += weight * expected;
        for (int64_t b = 0; b < others; ++b) {
          duel.run(k.row_left.data() + static_cast<size_t>(r) * tree.n_nodes,
                   k.background_left.data() + static_cast<size_t>(b) * tree.n_nodes, weight, v, phi);
        }
      }
    }
  }
  return true;
}

}  // namespace

void gauss_legendre(int32_t n, std::vector<double>* points, std::vector<double>* weights) {
  points->assign(static_cast<size_t>(n), 0.0);
  weights->assign(static_cast<size_t>(n), 0.0);
  for (int32_t i = 0; i < n; ++i) {
    // Newton's method on the Legendre polynomial from Tricomi's estimate of its root.
    double x = std::cos(3.14159265358979323846 * (i + 0.75) / (n + 0.5));
    double slope = 1;
    for (int32_t step = 0; step < 100; ++step) {
      double p = 1;
      double before = 0;
      for (int32_t k = 0; k < n; ++k) {
        const double next = ((2 * k + 1) * x * p - k * before) / (k + 1);
        before = p;
        p = next;
      }
      slope = n * (x * p - before) / (x * x - 1);
      const double change = p / slope;
      x -= change;
      if (std::fabs(change) < 1e-16) break;
    }
    (*points)[static_cast<size_t>(i)] = 0.5 * (1 + x);
    (*weights)[static_cast<size_t>(i)] = 1 / ((1 - x * x) * slope * slope);
  }
}

Status trees_shap(const TreesShapArgs& args, const RunContext& context) {
  const Ensemble& e = args.model->ensemble();
  ThreadPool& pool = ThreadPool::instance();
  const int64_t threads = !context.parallel ? 1 : args.threads > 0 ? args.threads : pool.n_threads();
  const int64_t tile = std::clamp<int64_t>((args.n_rows + threads - 1) / threads, 1, kTile);
  const int64_t n_tiles = (args.n_rows + tile - 1) / tile;
  const int64_t n_chunks = args.threads > 0 ? std::min<int64_t>(threads, n_tiles) : n_tiles;
  const int64_t row_values = int64_t{e.n_targets} * (int64_t{e.n_features} + 1);
  std::atomic<bool> out_of_memory{false};
  const auto run_tile = [&](int64_t first, int64_t rows) {
    Scratch k;
    const float* const x = args.x + first * e.n_features;
    double* const out = args.out + first * row_values;
    std::fill_n(out, rows * row_values, 0.0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int32_t t = 0; t < e.n_targets; ++t) {
        out[r * row_values + int64_t{t} * (e.n_features + 1) + e.n_features] = e.base[static_cast<size_t>(t)];
      }
    }
    for (const Tree& tree : e.trees) {
      if (context.stop_requested()) return;
      if (args.n_background == 0) {
        explain_tree(e, tree, x, rows, k, out);
      } else if (!compare_tree(args, tree, x, rows, context, k, out)) {
        return;
      }
    }
  };
  pool.for_each_chunk(n_chunks, context, [&](int64_t chunk, int) {
    for (int64_t t = chunk * n_tiles / n_chunks; t < (chunk + 1) * n_tiles / n_chunks; ++t) {
      if (context.stop_requested() || out_of_memory.load(std::memory_order_relaxed)) return;
      try {
        run_tile(t * tile, std::min(tile, args.n_rows - t * tile));
      } catch (const std::bad_alloc&) {
        out_of_memory.store(true);
      }
    }
  });
  if (out_of_memory.load()) return fail(Code::kOutOfMemory, "not enough memory");
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return {};
}

}  // namespace waggle::cpu
