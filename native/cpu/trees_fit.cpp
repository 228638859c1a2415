// Boosting: rounds of gradients, trees, leaves and scores. Whatever is summed in floating point is summed by chunks
// that depend on the data alone, in their order; histograms are sums of integers. So neither threads nor instruction
// sets show in the model.
#include "cpu/trees_fit.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "cpu/trees_fit_bins.hpp"
#include "cpu/trees_fit_grow.hpp"
#include "cpu/trees_fit_objective.hpp"
#include "src/team.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kChunkRows = 4096;

static_assert(kChunkRows == WAGGLE_FIT_CHUNK, "a device sums as is summed here");

#define WAGGLE_FIT_INLINE inline
#include "cpu/simd/trees_fit_math.inc"

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Features draw from the same counters as rows, far beyond them.
constexpr uint64_t kFeatureDraws = uint64_t{1} << 40;

class Boosting {
 public:
  Boosting(const Table& table, const TreesFitArgs& args, const RunContext& context, DeviceFit* device,
           TreesFitResult* result)
      : table_(table), args_(args), context_(context), result_(*result), objective_(table, args), device_(device) {
    ThreadPool& pool = ThreadPool::instance();
    threads_ = !context.parallel ? 1 : args.threads > 0 ? std::min(args.threads, pool.n_threads()) : pool.n_threads();
    n_ = args.train.x.rows;
    n_targets_ = objective_.n_targets();
  }

  Status run() {
    if (Status status = with_team([this](Team& team) { return prepare(team); }); !status.ok()) return status;
    const auto start = std::chrono::steady_clock::now();
    // A device leaves nothing to help with but the validation rows.
    if (device_ != nullptr && !has_validation()) threads_ = 1;
    // A team per round: whoever waits for a thread gets one in between.
    int32_t round = 0;
    bool stop = false;
    while (round < args_.n_trees && !stop) {
      Status status = with_team([&](Team& team) { return boost(round, team); });
      if (!status.ok()) return status;
      ++round;
      stop = args_.early_stopping_rounds > 0 && round - best_round_ >= args_.early_stopping_rounds;
      if (args_.progress) args_.progress(round);
    }
    Status status = with_team([&](Team& team) -> Status {
      double loss = 0;
      if (Status lost = train_loss(team, false, &loss); !lost.ok()) return lost;
      result_.train_loss.push_back(loss);
      return {};
    });
    if (!status.ok()) return status;
    result_.on_device = device_ != nullptr;
    result_.seconds.boost = seconds_since(start);
    keep(args_.early_stopping_rounds > 0 ? best_round_ : round);
    return {};
  }

 private:
  template <typename Body>
  Status with_team(Body&& body) {
    Status status;
    Team::work(threads_, context_, [&](Team& team) { status = guarded([&] { return body(team); }); });
    if (status.ok() && context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return status;
  }

  bool has_validation() const { return args_.validation.x.rows > 0; }

  Status prepare(Team& team) {
    if (has_validation()) {
      if (Status status = check_values(args_, args_.validation, "validation ", team); !status.ok()) return status;
    }
    auto start = std::chrono::steady_clock::now();
    if (Status status = make_bins(table_, args_, context_, team, &bins_); !status.ok()) return status;
    result_.seconds.bin = seconds_since(start);
    trees::Ensemble& e = result_.ensemble;
    e.n_features = static_cast<int32_t>(args_.train.x.cols);
    e.n_targets = n_targets_;
    e.kind = objective_.kind();
    e.transform = objective_.transform();
    e.base.assign(static_cast<size_t>(n_targets_), 0.0);
    if (Status status = objective_.base(args_.train, team, e.base.data()); !status.ok()) return status;
    start_scores(args_.train, scores_);
    if (has_validation()) start_scores(args_.validation, validation_scores_);
    start = std::chrono::steady_clock::now();
    if (Status status = open_device(team); !status.ok()) return status;
    result_.seconds.upload = seconds_since(start);
    if (device_ == nullptr) gradients_.resize(static_cast<size_t>(n_) * static_cast<size_t>(n_targets_));
    summaries_.resize(static_cast<size_t>(n_targets_));
    in_tree_.assign(static_cast<size_t>(args_.train.x.cols), 1);
    grower_ = std::make_unique<FitGrower>(table_, args_, bins_, threads_, device_);
    return {};
  }

  // What the device takes over needs no room here any more. Without one that can, device_ is null afterwards.
  Status open_device(Team& team) {
    if (device_ == nullptr) return {};
    std::vector<waggle_fit_feature> features;
    features.reserve(bins_.features.size());
    for (size_t f = 0; f < bins_.features.size(); ++f) {
      const FitFeature& feature = bins_.features[f];
      features.push_back({feature.n_bins, feature.categorical ? static_cast<int32_t>(feature.categories.size()) : -1,
                          feature.has_missing ? 1 : 0, args_.monotone != nullptr ? args_.monotone[f] : 0});
    }
    std::vector<waggle_fit_block> blocks;
    blocks.reserve(bins_.blocks.size());
    for (const FitBlock& block : bins_.blocks) {
      blocks.push_back({block.bins.data(), block.features.front(), static_cast<int32_t>(block.features.size())});
    }
    waggle_fit_args open = {};
    open.objective = static_cast<int32_t>(args_.objective);
    open.quantile = args_.quantile;
    open.n_rows = n_;
    open.n_features = static_cast<int32_t>(features.size());
    open.n_blocks = static_cast<int32_t>(blocks.size());
    open.features = features.data();
    open.blocks = blocks.data();
    open.y = args_.train.y;
    open.trials = args_.train.trials;
    open.weights = args_.train.weights;
    open.scores = scores_.data();
    open.l1 = args_.l1;
    open.l2 = args_.l2;
    open.max_step = objective_.max_step();
    open.min_child_rows = args_.min_child_rows;
    Status status;
    if (!device_->open(open, context_, &status)) {
      device_ = nullptr;
      return status;
    }
    total_weight_ = objective_.total_weight(args_.train, team);
    scores_ = {};
    for (FitBlock& block : bins_.blocks) block.bins = {};
    return {};
  }

  // At the scores so far; gradients and summaries only where asked for.
  Status train_loss(Team& team, bool with_gradients, double* loss) {
    if (device_ == nullptr) {
      *loss = objective_.evaluate(args_.train, scores_.data(), team, with_gradients ? gradients_.data() : nullptr,
                                  with_gradients ? summaries_.data() : nullptr);
      return {};
    }
    std::vector<double> losses(static_cast<size_t>((n_ + kChunkRows - 1) / kChunkRows));
    waggle_fit_gradients_args call = {};
    call.losses = losses.data();
    if (Status status = device_->gradients(call); !status.ok()) return status;
    summaries_[0] = {call.g_most, call.h_most, call.h_least, 0};
    *loss = FitObjective::mean_loss(losses, total_weight_);
    return {};
  }

  void start_scores(const TreesFitRows& rows, std::vector<double>& scores) const {
    const size_t n = static_cast<size_t>(rows.x.rows);
    const size_t k = static_cast<size_t>(n_targets_);
    scores.resize(n * k);
    for (size_t t = 0; t < k; ++t) {
      const double base = result_.ensemble.base[t];
      for (size_t r = 0; r < n; ++r) scores[t * n + r] = base + (rows.offset != nullptr ? rows.offset[r * k + t] : 0);
    }
  }

  Status boost(int32_t round, Team& team) {
    double loss = 0;
    if (Status status = train_loss(team, true, &loss); !status.ok()) return status;
    if (round > 0) result_.train_loss.push_back(loss);
    gains_.emplace_back();
    choose_features(round);
    const int64_t n_rows = args_.row_sample < 1 && device_ == nullptr ? choose_rows(round, team) : n_;
    for (int32_t t = 0; t < n_targets_; ++t) {
      const FitGradientSummary& summary = summaries_[static_cast<size_t>(t)];
      if (!std::isfinite(summary.g_most) || !std::isfinite(summary.h_most) || !std::isfinite(loss)) {
        return fail(Code::kNotFinite, "gradients overflow in round %d; scale y, weights or offset down", round + 1);
      }
      // Rows are parted in place of the sample; the next target needs it anew.
      if (t > 0 && args_.row_sample < 1) choose_rows(round, team);
      FitTreeInput in;
      in.gradients = gradients_.data() + static_cast<size_t>(t) * static_cast<size_t>(n_);
      in.summary = summary;
      in.n_rows = n_rows;
      in.round = round;
      in.sampled = args_.row_sample < 1;
      in.features = in_tree_.data();
      in.max_step = objective_.max_step();
      if (Status status = grower_->grow(in, context_, team); !status.ok()) return status;
      if (Status status = finish_tree(t, in, team); !status.ok()) return status;
    }
    if (has_validation()) {
      const double now = objective_.evaluate(args_.validation, validation_scores_.data(), team, nullptr, nullptr);
      if (result_.validation_loss.empty() || now < best_loss_) {
        best_loss_ = now;
        best_round_ = round + 1;
      }
      result_.validation_loss.push_back(now);
    }
    return {};
  }

  // The features with the lowest numbers drawn.
  void choose_features(int32_t round) {
    if (args_.feature_sample >= 1) return;
    const size_t p = in_tree_.size();
    const size_t kept =
        std::max<size_t>(1, static_cast<size_t>(std::llround(args_.feature_sample * static_cast<double>(p))));
    std::vector<std::pair<uint64_t, size_t>> drawn(p);
    for (size_t f = 0; f < p; ++f) drawn[f] = {hashed(args_.seed, static_cast<uint64_t>(round), kFeatureDraws + f), f};
    std::sort(drawn.begin(), drawn.end());
    std::fill(in_tree_.begin(), in_tree_.end(), uint8_t{0});
    for (size_t i = 0; i < std::min(kept, p); ++i) in_tree_[drawn[i].second] = 1;
  }

  bool in_sample(int32_t round, int64_t row) const {
    return in_row_sample(args_.seed, static_cast<uint64_t>(round), static_cast<uint64_t>(row), args_.row_sample);
  }

  int64_t choose_rows(int32_t round, Team& team) {
    const int64_t n_chunks = (n_ + kChunkRows - 1) / kChunkRows;
    std::vector<int64_t> first(static_cast<size_t>(n_chunks) + 1, 0);
    out_of_sample_.resize(static_cast<size_t>(n_));
    team.run(n_chunks, [&](int64_t c, int) {
      int64_t count = 0;
      for (int64_t r = c * kChunkRows; r < std::min(n_, (c + 1) * kChunkRows); ++r) {
        const bool in = in_sample(round, r);
        out_of_sample_[static_cast<size_t>(r)] = in ? 0 : 1;
        count += in ? 1 : 0;
      }
      first[static_cast<size_t>(c) + 1] = count;
    });
    std::partial_sum(first.begin(), first.end(), first.begin());
    uint32_t* const rows = grower_->sample_rows();
    team.run(n_chunks, [&](int64_t c, int) {
      int64_t at = first[static_cast<size_t>(c)];
      for (int64_t r = c * kChunkRows; r < std::min(n_, (c + 1) * kChunkRows); ++r) {
        if (out_of_sample_[static_cast<size_t>(r)] == 0) rows[at++] = static_cast<uint32_t>(r);
      }
    });
    return first.back();
  }

  struct Piece {
    size_t leaf;
    int64_t begin, end;
    double g = 0, h = 0;
  };

  // Leaves' values, the tree as the ensemble has it, and what it adds to every score.
  Status finish_tree(int32_t target, const FitTreeInput& in, Team& team) {
    const std::vector<FitNode>& nodes = grower_->nodes();
    std::vector<size_t> leaves;
    std::vector<size_t> pending{0};
    while (!pending.empty()) {
      const size_t n = pending.back();
      pending.pop_back();
      if (!nodes[n].accepted) {
        leaves.push_back(n);
        continue;
      }
      pending.push_back(static_cast<size_t>(nodes[n].right));
      pending.push_back(static_cast<size_t>(nodes[n].left));
    }
    std::vector<Piece> pieces;
    for (size_t i = 0; i < leaves.size(); ++i) {
      for (int64_t r = 0; r < nodes[leaves[i]].n_rows(); r += kChunkRows) {
        pieces.push_back({i, r, std::min(nodes[leaves[i]].n_rows(), r + kChunkRows)});
      }
    }
    const int64_t n_pieces = static_cast<int64_t>(pieces.size());
    const auto row_at = [&](const FitNode& leaf, const uint32_t* rows, int64_t r) {
      return rows != nullptr ? static_cast<int64_t>(rows[r]) : leaf.begin + r;
    };
    double* const scores = scores_.data() + static_cast<size_t>(target) * static_cast<size_t>(n_);
    std::vector<float> values(leaves.size());
    std::vector<waggle_fit_leaf> device_leaves;
    if (device_ != nullptr) {
      if (Status status = sum_on_device(leaves, pieces, device_leaves); !status.ok()) return status;
    }
    if (objective_.refits() && device_ != nullptr) {
      for (size_t i = 0; i < leaves.size(); ++i) {
        values[i] = static_cast<float>(args_.learning_rate * device_leaves[i].value);
      }
    } else if (objective_.refits()) {
      team.run(static_cast<int64_t>(leaves.size()), [&](int64_t i, int) {
        const FitNode& leaf = nodes[leaves[static_cast<size_t>(i)]];
        const uint32_t* const rows = grower_->rows_of(leaf);
        std::vector<std::pair<double, double>> residuals;
        residuals.reserve(static_cast<size_t>(leaf.n_rows()));
        for (int64_t r = 0; r < leaf.n_rows(); ++r) {
          const int64_t row = row_at(leaf, rows, r);
          residuals.emplace_back(args_.train.y[row] - scores[row],
                                 args_.train.weights != nullptr ? args_.train.weights[row] : 1.0);
        }
        values[static_cast<size_t>(i)] =
            static_cast<float>(args_.learning_rate * weighted_quantile(residuals, args_.quantile));
      });
    } else {
      team.run(device_ != nullptr ? 0 : n_pieces, [&](int64_t i, int) {
        Piece& piece = pieces[static_cast<size_t>(i)];
        const FitNode& leaf = nodes[leaves[piece.leaf]];
        const uint32_t* const rows = grower_->rows_of(leaf);
        for (int64_t r = piece.begin; r < piece.end; ++r) {
          const FitGradient& gradient = in.gradients[row_at(leaf, rows, r)];
          piece.g += static_cast<double>(gradient.g);
          piece.h += static_cast<double>(gradient.h);
        }
      });
      for (size_t i = 0, at = 0; i < leaves.size(); ++i) {
        double g = 0;
        double h = 0;
        for (; at < pieces.size() && pieces[at].leaf == i; ++at) {
          g += pieces[at].g;
          h += pieces[at].h;
        }
        values[i] = static_cast<float>(args_.learning_rate * grower_->value_of(nodes[leaves[i]], g, h));
      }
    }
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      return fail(Code::kNotFinite, "a leaf's value overflows; scale y or weights down, or give l2 a value above 0");
    }
    if (device_ != nullptr) {
      if (Status status = update_on_device(in.sampled, leaves, values, device_leaves); !status.ok()) return status;
    }
    team.run(device_ != nullptr ? 0 : n_pieces, [&](int64_t i, int) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      const FitNode& leaf = nodes[leaves[piece.leaf]];
      const uint32_t* const rows = grower_->rows_of(leaf);
      const double value = static_cast<double>(values[piece.leaf]);
      for (int64_t r = piece.begin; r < piece.end; ++r) scores[row_at(leaf, rows, r)] += value;
    });

    trees::Ensemble tree = convert(nodes, leaves, values);
    if (in.sampled && device_ == nullptr) {
      add_tree(tree, args_.train, out_of_sample_.data(), target, scores_, team);
    }
    if (has_validation()) add_tree(tree, args_.validation, nullptr, target, validation_scores_, team);
    append(tree);
    return {};
  }

  // Sums of the pieces, or (refits) the leaves' quantiles.
  Status sum_on_device(const std::vector<size_t>& leaves, std::vector<Piece>& pieces,
                       std::vector<waggle_fit_leaf>& out) {
    out.reserve(leaves.size());
    for (const size_t n : leaves) {
      const FitNode& leaf = grower_->nodes()[n];
      out.push_back({leaf.begin, leaf.end, leaf.depth, 0, 0});
    }
    std::vector<double> sums(2 * pieces.size());
    waggle_fit_leaves_args call = {};
    call.leaves = out.data();
    call.n_leaves = static_cast<int64_t>(out.size());
    call.sums = objective_.refits() ? nullptr : sums.data();
    if (Status status = device_->leaves(call); !status.ok()) return status;
    for (size_t i = 0; i < pieces.size(); ++i) {
      pieces[i].g = sums[2 * i];
      pieces[i].h = sums[2 * i + 1];
    }
    return {};
  }

  Status update_on_device(bool sampled, const std::vector<size_t>& leaves, const std::vector<float>& values,
                          std::vector<waggle_fit_leaf>& out) {
    for (size_t i = 0; i < out.size(); ++i) out[i].value = static_cast<double>(values[i]);
    std::vector<waggle_fit_branch> branches;
    if (sampled) {
      const std::vector<FitNode>& nodes = grower_->nodes();
      branches.resize(nodes.size());
      for (size_t n = 0; n < nodes.size(); ++n) {
        waggle_fit_branch& branch = branches[n];
        branch.feature = nodes[n].accepted ? nodes[n].split.feature : -1;
        if (!nodes[n].accepted) continue;
        branch.left = nodes[n].left;
        branch.right = nodes[n].right;
        grower_->left_words(nodes[n].split, branch.left_slots);
      }
      for (size_t i = 0; i < leaves.size(); ++i) branches[leaves[i]].left = static_cast<int32_t>(i);
    }
    waggle_fit_update_args call = {};
    call.leaves = out.data();
    call.n_leaves = static_cast<int64_t>(out.size());
    call.branches = branches.data();
    call.n_branches = static_cast<int64_t>(branches.size());
    return device_->update(call);
  }

  // To the scores of rows with their flag set (null = all), by their values.
  void add_tree(const trees::Ensemble& tree, const TreesFitRows& rows, const uint8_t* flags, int32_t target,
                std::vector<double>& scores, Team& team) const {
    const int64_t n = rows.x.rows;
    double* const to = scores.data() + static_cast<int64_t>(target) * n;
    team.run((n + kChunkRows - 1) / kChunkRows, [&](int64_t c, int) {
      for (int64_t r = c * kChunkRows; r < std::min(n, (c + 1) * kChunkRows); ++r) {
        if (flags != nullptr && flags[r] == 0) continue;
        trees::sum_leaves(tree, rows.x.row(r), to + r);
      }
    });
  }

  // One tree for target 0 of an ensemble of its own.
  trees::Ensemble convert(const std::vector<FitNode>& nodes, const std::vector<size_t>& leaves,
                          const std::vector<float>& values) {
    trees::Ensemble e;
    e.n_features = result_.ensemble.n_features;
    e.n_targets = 1;
    std::vector<int32_t> place(nodes.size(), -1);
    std::vector<size_t> order;  // parents before their children
    for (size_t n = 0; n < nodes.size(); ++n) {
      const bool in_tree = n == 0 || place[n] == -2;
      if (!in_tree) continue;
      place[n] = static_cast<int32_t>(order.size());
      order.push_back(n);
      if (!nodes[n].accepted) continue;
      place[static_cast<size_t>(nodes[n].left)] = -2;
      place[static_cast<size_t>(nodes[n].right)] = -2;
    }
    std::vector<uint32_t> leaf_at(nodes.size(), 0);
    for (size_t i = 0; i < leaves.size(); ++i) leaf_at[leaves[i]] = static_cast<uint32_t>(i);
    for (const size_t n : order) {
      trees::Node out;
      if (nodes[n].accepted) {
        out.feature = nodes[n].split.feature;
        out.left = place[static_cast<size_t>(nodes[n].left)];
        out.right = place[static_cast<size_t>(nodes[n].right)];
        describe(nodes[n].split, e, out);
        gains_.back().emplace_back(nodes[n].split.feature, nodes[n].split.gain);
      } else {
        out.first = leaf_at[n];
      }
      e.nodes.push_back(out);
      e.covers.push_back(static_cast<float>(nodes[n].n_rows()));
    }
    e.values = values;
    e.trees.push_back({0, static_cast<uint32_t>(e.nodes.size()), 0, 1});
    return e;
  }

  void describe(const FitSplit& split, trees::Ensemble& e, trees::Node& out) const {
    const FitFeature& feature = bins_.features[static_cast<size_t>(split.feature)];
    out.missing = trees::Missing::kNan;
    out.default_left = split.missing_left;
    if (!feature.categorical) {
      out.decision = trees::Decision::kLess;
      // Behind the last bin: all that is not missing goes left.
      out.threshold = split.bin < static_cast<int32_t>(feature.cuts.size())
                          ? feature.cuts[static_cast<size_t>(split.bin)]
                          : std::numeric_limits<float>::infinity();
      return;
    }
    std::vector<int32_t> left;
    for (size_t s = 0; s < feature.categories.size(); ++s) {
      if (((split.left[s / 64] >> (s % 64)) & 1) != 0) left.push_back(feature.categories[s]);
    }
    std::sort(left.begin(), left.end());
    const size_t words = left.empty() ? 0 : static_cast<size_t>(left.back()) / 32 + 1;
    // A bitset up to the largest, or a list where that would be mostly zeros.
    if (words <= std::max<size_t>(8, 2 * left.size())) {
      out.decision = trees::Decision::kCategory;
      out.first = static_cast<uint32_t>(e.categories.size());
      out.count = static_cast<uint32_t>(words);
      e.categories.resize(e.categories.size() + words, 0);
      for (const int32_t c : left) e.categories[out.first + static_cast<size_t>(c) / 32] |= 1u << (c % 32);
    } else {
      out.decision = trees::Decision::kMember;
      out.first = static_cast<uint32_t>(e.members.size());
      out.count = static_cast<uint32_t>(left.size());
      for (const int32_t c : left) e.members.push_back(static_cast<float>(c));
    }
  }

  // The next tree of the whole ensemble.
  void append(const trees::Ensemble& tree) {
    trees::Ensemble& e = result_.ensemble;
    const uint32_t first_value = static_cast<uint32_t>(e.values.size());
    const uint32_t first_member = static_cast<uint32_t>(e.members.size());
    const uint32_t first_category = static_cast<uint32_t>(e.categories.size());
    const int32_t target = static_cast<int32_t>(e.trees.size() % static_cast<size_t>(n_targets_));
    e.trees.push_back({static_cast<uint32_t>(e.nodes.size()), tree.trees[0].n_nodes, target, 1});
    for (trees::Node node : tree.nodes) {
      node.first += node.is_leaf()                                ? first_value
                    : node.decision == trees::Decision::kCategory ? first_category
                    : node.decision == trees::Decision::kMember   ? first_member
                                                                  : 0;
      e.nodes.push_back(node);
    }
    e.covers.insert(e.covers.end(), tree.covers.begin(), tree.covers.end());
    e.values.insert(e.values.end(), tree.values.begin(), tree.values.end());
    e.members.insert(e.members.end(), tree.members.begin(), tree.members.end());
    e.categories.insert(e.categories.end(), tree.categories.begin(), tree.categories.end());
    sizes_.push_back({e.nodes.size(), e.values.size(), e.members.size(), e.categories.size()});
  }

  // Drops the rounds after the first `rounds`, and adds up what their splits gained.
  void keep(int32_t rounds) {
    trees::Ensemble& e = result_.ensemble;
    const size_t n_trees = static_cast<size_t>(rounds) * static_cast<size_t>(n_targets_);
    const Sizes sizes = n_trees > 0 ? sizes_[n_trees - 1] : Sizes{};
    e.trees.resize(n_trees);
    e.nodes.resize(sizes.nodes);
    e.covers.resize(sizes.nodes);
    e.values.resize(sizes.values);
    e.members.resize(sizes.members);
    e.categories.resize(sizes.categories);
    result_.best_round = rounds;
    result_.gain.assign(static_cast<size_t>(e.n_features), 0.0);
    result_.splits.assign(static_cast<size_t>(e.n_features), 0.0);
    for (size_t round = 0; round < static_cast<size_t>(rounds); ++round) {
      for (const auto& [feature, gain] : gains_[round]) {
        result_.gain[static_cast<size_t>(feature)] += gain;
        result_.splits[static_cast<size_t>(feature)] += 1;
      }
    }
  }

  struct Sizes {
    size_t nodes = 0, values = 0, members = 0, categories = 0;
  };

  const Table& table_;
  const TreesFitArgs& args_;
  const RunContext& context_;
  TreesFitResult& result_;
  const FitObjective objective_;
  DeviceFit* device_;  // open from `prepare` on, or null
  int threads_ = 1;
  int64_t n_ = 0;
  int32_t n_targets_ = 1;

  FitBins bins_;
  std::unique_ptr<FitGrower> grower_;
  std::vector<double> scores_;             // [targets × n]; empty with a device
  std::vector<double> validation_scores_;  // [targets × n of validation]
  std::vector<FitGradient> gradients_;     // [targets × n]
  std::vector<FitGradientSummary> summaries_;
  std::vector<uint8_t> in_tree_;                                // [p]
  std::vector<uint8_t> out_of_sample_;                          // [n] when rows are sampled
  std::vector<Sizes> sizes_;                                    // of the ensemble after each tree
  std::vector<std::vector<std::pair<int32_t, double>>> gains_;  // of each round's splits
  double total_weight_ = 0;
  double best_loss_ = 0;
  int32_t best_round_ = 0;
};

}  // namespace

Status trees_fit(const Table& table, const TreesFitArgs& args, const RunContext& context, TreesFitResult* result,
                 DeviceFit* device) {
  return Boosting(table, args, context, device, result).run();
}

}  // namespace waggle::cpu
