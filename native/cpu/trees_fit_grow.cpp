#include "cpu/trees_fit_grow.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace waggle::cpu {

namespace {

constexpr int64_t kSegmentRows = 8192;         // of one task that partitions
constexpr int64_t kBuildRows = 4 * kFitChunk;  // of one task that adds to a histogram
constexpr int64_t kFewRows = 2048;             // a node's blocks are one task below this
constexpr int64_t kHistogramBytes = int64_t{512} << 20;
constexpr int64_t kDeviceBytes = int64_t{2} << 30;
constexpr int64_t kMostAtOnce = 64;

// A gain that is nothing but rounding.
constexpr double kGainFloor = 1e-10;

constexpr float kSmallest = 1e-30f;

#define WAGGLE_FIT_INLINE inline
#include "cpu/simd/trees_fit_math.inc"

}  // namespace

// A stretch of a node's rows that one task parts.
struct FitGrower::Segment {
  int32_t node;
  int64_t begin, end;
  size_t mask;  // first word
  int64_t n_left = 0;
  int64_t left_at = 0, right_at = 0;
};

// Rows that one task adds to blocks of a node's histogram.
struct FitGrower::Build {
  int32_t node;
  size_t lock;  // of the node's first block
  int32_t first_block, end_block;
  int64_t begin, end;
};

struct FitGrower::Worker {
  explicit Worker(uint32_t n_slots) : sums(n_slots, 0) {}
  std::vector<int64_t> sums;
  alignas(64) double g[kFitMaxSlots];
  alignas(64) double h[kFitMaxSlots];
  alignas(64) double gains[kFitMaxSlots];
  uint32_t counts[kFitMaxSlots];
};

FitGrower::FitGrower(const Table& table, const TreesFitArgs& args, const FitBins& bins, int workers, DeviceFit* device)
    : kernels_(table.trees_fit), args_(args), bins_(bins), device_(device) {
  const size_t n = device == nullptr ? static_cast<size_t>(args.train.x.rows) : 0;
  for (auto& rows : rows_) rows.reset(new uint32_t[n]);
  uint32_t most_slots = 0;
  for (const FitBlock& block : bins.blocks) most_slots = std::max(most_slots, block.n_slots);
  for (int w = 0; w < workers; ++w) workers_.push_back(std::make_unique<Worker>(most_slots));
  const int64_t bytes = std::max<int64_t>(16, int64_t{16} * bins.n_slots);
  const int64_t device_bytes = DeviceFit::histogram_bytes(static_cast<int64_t>(bins.features.size()));
  max_histograms_ = std::max<int64_t>(8, device == nullptr ? kHistogramBytes / bytes : kDeviceBytes / device_bytes);
  max_leaves_ = args.max_leaves;
  max_depth_ = args.max_depth > 0 ? args.max_depth : kTreesFitMaxDepth;
}

FitGrower::~FitGrower() = default;

const uint32_t* FitGrower::rows_of(const FitNode& node) const {
  if (node.depth == 0 && !in_.sampled) return nullptr;
  return rows_[node.depth & 1].get() + node.begin;
}

double FitGrower::gain_of(const FitNode& node, double g, double h, double l2, double* value) const {
  return leaf_gain(g, h, args_.l1, l2, in_.max_step, node.lower, node.upper, value);
}

double FitGrower::value_of(const FitNode& node, double g, double h) const {
  double value = 0;
  gain_of(node, g, h, args_.l2 + node.more_l2, &value);
  return value;
}

Status FitGrower::grow(const FitTreeInput& in, const RunContext& context, Team& team) {
  in_ = in;
  team_ = &team;
  const auto scale = [](float most) { return most > kSmallest ? static_cast<float>(kFitLevels) / most : 0.0f; };
  const auto unit = [](float s) { return s > 0 ? 1.0 / static_cast<double>(s) : 0.0; };
  g_scale_ = scale(in.summary.g_most);
  h_scale_ = scale(in.summary.h_most);
  penalty_ = {args_.l1, args_.l2, unit(g_scale_), unit(h_scale_)};
  // Rows are not counted in histograms. A side with `rows_certain_` units has enough for certain, one with less than
  // h_least_ has not; in between, the rows of the best split are counted before it is believed.
  const double min_rows = static_cast<double>(args_.min_child_rows);
  const double h_fewest = std::floor(static_cast<double>(in.summary.h_least) * static_cast<double>(h_scale_));
  rows_certain_ = min_rows > 1 ? min_rows * kFitLevels : 1;
  const double weight = penalty_.h_unit > 0 ? args_.min_child_weight / penalty_.h_unit : 0;
  h_least_ = std::max({1.0, std::ceil(weight * (1 - 1e-12)), min_rows * h_fewest});
  bounded_ = in.max_step > 0 || args_.monotone != nullptr;

  for (size_t i = 0; i < nodes_.size(); ++i) drop_histogram(static_cast<int32_t>(i));
  nodes_.clear();
  frontier_.clear();
  n_leaves_ = 1;
  block_columns_.assign(bins_.blocks.size(), {});
  block_slots_.assign(bins_.blocks.size(), {});
  for (size_t b = 0; b < bins_.blocks.size(); ++b) {
    const FitBlock& block = bins_.blocks[b];
    for (const int32_t f : block.features) {
      const FitFeature& feature = bins_.features[static_cast<size_t>(f)];
      if (in.features[f] == 0 || feature.n_slots() < 2) continue;
      block_columns_[b].push_back(feature.column);
      block_slots_[b].push_back(feature.first_slot - block.first_slot);
    }
  }

  nodes_.emplace_back();
  nodes_[0].end = in.n_rows;
  if (device_ != nullptr) {
    if (Status status = start_on_device(); !status.ok()) return status;
  }
  if (nodes_[0].end < 1 || max_leaves_ < 2 || g_scale_ == 0 || h_scale_ == 0) return {};
  nodes_[0].histogram = take_histogram();
  if (device_ != nullptr) {
    if (Status status = search_on_device({}, {0}); !status.ok()) return status;
  } else {
    build_histograms({0});
    total_root();
    subtract_and_scan({});
  }
  frontier_.push_back(0);
  std::vector<int32_t> wave;
  while (true) {
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    choose_wave(wave);
    if (wave.empty()) break;
    if (Status status = partition(wave); !status.ok()) return status;
    // Leaves that cannot be split any more need no histograms.
    std::erase_if(wave, [this](int32_t n) {
      FitNode& node = nodes_[static_cast<size_t>(n)];
      if (!last_wave_ && node.depth + 1 < max_depth_) return false;
      drop_histogram(n);
      return true;
    });
    if (wave.empty()) continue;
    std::vector<int32_t> to_build;
    subtracted_.assign(wave.size(), 0);
    size_t at = 0;
    for (const int32_t n : wave) {
      FitNode& node = nodes_[static_cast<size_t>(n)];
      const bool left_smaller =
          nodes_[static_cast<size_t>(node.left)].n_rows() <= nodes_[static_cast<size_t>(node.right)].n_rows();
      const int32_t smaller = left_smaller ? node.left : node.right;
      const int32_t larger = left_smaller ? node.right : node.left;
      nodes_[static_cast<size_t>(smaller)].histogram = take_histogram();
      to_build.push_back(smaller);
      if (node.histogram >= 0) {
        nodes_[static_cast<size_t>(larger)].histogram = std::exchange(node.histogram, -1);
        subtracted_[at] = 1;
      } else {
        nodes_[static_cast<size_t>(larger)].histogram = take_histogram();
        to_build.push_back(larger);
      }
      ++at;
    }
    if (device_ != nullptr) {
      if (Status status = search_on_device(wave, to_build); !status.ok()) return status;
    } else {
      build_histograms(to_build);
      subtract_and_scan(wave);
    }
  }
  return {};
}

// Every feature's slots hold the same totals.
void FitGrower::total_root() {
  FitNode& root = nodes_[0];
  for (size_t b = 0; b < block_slots_.size() && root.h == 0; ++b) {
    if (block_slots_[b].empty()) continue;
    const FitFeature* feature = nullptr;
    for (const int32_t f : bins_.blocks[b].features) {
      const FitFeature& candidate = bins_.features[static_cast<size_t>(f)];
      if (candidate.first_slot - bins_.blocks[b].first_slot == block_slots_[b][0]) feature = &candidate;
    }
    for (int32_t s = 0; s < feature->n_slots(); ++s) {
      root.g += histogram_g(root.histogram)[feature->first_slot + static_cast<uint32_t>(s)];
      root.h += histogram_h(root.histogram)[feature->first_slot + static_cast<uint32_t>(s)];
    }
  }
}

// The order in which growth takes leaves.
bool FitGrower::goes_first(int32_t a, int32_t b) const {
  const FitNode& x = nodes_[static_cast<size_t>(a)];
  const FitNode& y = nodes_[static_cast<size_t>(b)];
  if (args_.growth == TreesGrowth::kDepth && x.depth != y.depth) return x.depth < y.depth;
  if (x.split.gain != y.split.gain) return x.split.gain > y.split.gain;
  return a < b;
}

// Accepts what is split already, in growth's order, and picks what to split next.
void FitGrower::choose_wave(std::vector<int32_t>& wave) {
  wave.clear();
  const auto after = [this](int32_t a, int32_t b) { return goes_first(b, a); };  // a heap has its last on top
  std::erase_if(frontier_, [this](int32_t n) {
    FitNode& node = nodes_[static_cast<size_t>(n)];
    if (node.split.gain > 0 && node.depth < max_depth_) return false;
    drop_histogram(n);
    return true;
  });
  std::make_heap(frontier_.begin(), frontier_.end(), after);
  while (!frontier_.empty() && n_leaves_ < max_leaves_) {
    const int32_t n = frontier_.front();
    if (nodes_[static_cast<size_t>(n)].left < 0) break;
    std::pop_heap(frontier_.begin(), frontier_.end(), after);
    frontier_.pop_back();
    nodes_[static_cast<size_t>(n)].accepted = true;
    ++n_leaves_;
    for (const int32_t child : {nodes_[static_cast<size_t>(n)].left, nodes_[static_cast<size_t>(n)].right}) {
      const FitNode& node = nodes_[static_cast<size_t>(child)];
      if (!(node.split.gain > 0) || node.depth >= max_depth_) {
        drop_histogram(child);
        continue;
      }
      frontier_.push_back(child);
      std::push_heap(frontier_.begin(), frontier_.end(), after);
    }
  }
  const int64_t budget = max_leaves_ - n_leaves_;
  if (budget <= 0 || frontier_.empty()) return;
  std::vector<int32_t> order = frontier_;
  std::sort(order.begin(), order.end(), [this](int32_t a, int32_t b) { return goes_first(a, b); });
  // Those beyond the budget cannot be reached any more: leaves that are split leave at least themselves behind.
  if (static_cast<int64_t>(order.size()) > budget) {
    for (size_t i = static_cast<size_t>(budget); i < order.size(); ++i) drop_histogram(order[i]);
    order.resize(static_cast<size_t>(budget));
  }
  const int64_t share = args_.growth == TreesGrowth::kDepth ? budget : (budget + 1) / 2;
  const int64_t most = std::min({share, kMostAtOnce, std::max<int64_t>(1, max_histograms_ / 4)});
  for (const int32_t n : order) {
    if (static_cast<int64_t>(wave.size()) >= most) break;
    if (nodes_[static_cast<size_t>(n)].left < 0) wave.push_back(n);
  }
  // The tree is full once these are split: the next leaf, or what is left of a level.
  last_wave_ = budget == 1 ||
               (args_.growth == TreesGrowth::kDepth && static_cast<int64_t>(wave.size()) == budget &&
                nodes_[static_cast<size_t>(wave.back())].depth == nodes_[static_cast<size_t>(order.front())].depth);
  // Room for two histograms each: the last in order lose theirs, and are built anew should their turn come.
  int64_t held = static_cast<int64_t>(histograms_.size() - free_histograms_.size());
  for (size_t i = order.size(); i-- > 0 && held + 2 * static_cast<int64_t>(wave.size()) > max_histograms_;) {
    if (nodes_[static_cast<size_t>(order[i])].histogram < 0) continue;
    if (std::find(wave.begin(), wave.end(), order[i]) != wave.end()) continue;
    drop_histogram(order[i]);
    --held;
  }
}

int32_t FitGrower::take_histogram() {
  if (free_histograms_.empty()) {
    const size_t size = device_ == nullptr ? 2 * static_cast<size_t>(bins_.n_slots) : 0;
    histograms_.push_back(std::unique_ptr<double[]>(new double[size]));  // not zeroed, nor are the rows above
    return static_cast<int32_t>(histograms_.size()) - 1;
  }
  const int32_t taken = free_histograms_.back();
  free_histograms_.pop_back();
  return taken;
}

void FitGrower::drop_histogram(int32_t node) {
  int32_t& held = nodes_[static_cast<size_t>(node)].histogram;
  if (held >= 0) free_histograms_.push_back(held);
  held = -1;
}

void FitGrower::left_slots(const FitSplit& split, uint8_t* left) const {
  const FitFeature& feature = bins_.features[static_cast<size_t>(split.feature)];
  for (int32_t s = 0; s < kFitMaxSlots; ++s) {
    left[s] = feature.categorical ? static_cast<uint8_t>((split.left[s / 64] >> (s % 64)) & 1)
                                  : static_cast<uint8_t>(s < feature.n_bins ? s <= split.bin : split.missing_left);
  }
}

void FitGrower::left_words(const FitSplit& split, uint64_t* words) const {
  uint8_t left[kFitMaxSlots];
  left_slots(split, left);
  std::fill_n(words, kFitMaxSlots / 64, uint64_t{0});
  for (int32_t s = 0; s < kFitMaxSlots; ++s) words[s / 64] |= static_cast<uint64_t>(left[s]) << (s % 64);
}

// Rows of the wave's nodes go into the other buffer, those of the left child first, each in their order.
void FitGrower::part_rows(const std::vector<int32_t>& wave, std::vector<int64_t>& n_left) {
  std::vector<Segment> segments;
  size_t words = 0;
  for (const int32_t n : wave) {
    const FitNode& node = nodes_[static_cast<size_t>(n)];
    for (int64_t r = node.begin; r < node.end; r += kSegmentRows) {
      const int64_t end = std::min(node.end, r + kSegmentRows);
      segments.push_back({n, r, end, words});
      words += static_cast<size_t>((end - r + 63) / 64);
    }
  }
  masks_.resize(std::max(masks_.size(), words));
  const int64_t n_segments = static_cast<int64_t>(segments.size());
  const auto rows_from = [&](const Segment& s) {
    const FitNode& node = nodes_[static_cast<size_t>(s.node)];
    const uint32_t* rows = rows_of(node);
    return rows == nullptr ? nullptr : rows + (s.begin - node.begin);
  };
  team_->run(n_segments, [&](int64_t i, int) {
    Segment& s = segments[static_cast<size_t>(i)];
    const FitSplit& split = nodes_[static_cast<size_t>(s.node)].split;
    const FitFeature& feature = bins_.features[static_cast<size_t>(split.feature)];
    const FitBlock& block = bins_.blocks[static_cast<size_t>(feature.block)];
    uint8_t left[kFitMaxSlots];
    left_slots(split, left);
    s.n_left = kernels_.decide(rows_from(s), static_cast<uint32_t>(s.begin), static_cast<int32_t>(s.end - s.begin),
                               block.bins.data() + feature.column, block.stride(), left, masks_.data() + s.mask);
  });
  for (size_t i = 0; i < segments.size();) {
    FitNode& node = nodes_[static_cast<size_t>(segments[i].node)];
    size_t end = i;
    int64_t to_left = 0;
    while (end < segments.size() && segments[end].node == segments[i].node) to_left += segments[end++].n_left;
    int64_t left_at = node.begin;
    int64_t right_at = node.begin + to_left;
    for (; i < end; ++i) {
      segments[i].left_at = left_at;
      segments[i].right_at = right_at;
      left_at += segments[i].n_left;
      right_at += segments[i].end - segments[i].begin - segments[i].n_left;
    }
  }
  team_->run(n_segments, [&](int64_t i, int) {
    const Segment& s = segments[static_cast<size_t>(i)];
    uint32_t* const to = rows_[(nodes_[static_cast<size_t>(s.node)].depth + 1) & 1].get();
    kernels_.split(rows_from(s), static_cast<uint32_t>(s.begin), static_cast<int32_t>(s.end - s.begin),
                   masks_.data() + s.mask, to + s.left_at, to + s.right_at);
  });
  size_t at = 0;
  for (size_t i = 0; i < wave.size(); ++i) {
    n_left[i] = 0;
    for (; at < segments.size() && segments[at].node == wave[i]; ++at) n_left[i] += segments[at].n_left;
  }
}

// Splits the nodes of a wave.
Status FitGrower::partition(const std::vector<int32_t>& wave) {
  std::vector<int64_t> n_left(wave.size());
  if (device_ != nullptr) {
    if (Status status = part_on_device(wave, n_left); !status.ok()) return status;
  } else {
    part_rows(wave, n_left);
  }
  for (size_t i = 0; i < wave.size(); ++i) {
    const int32_t n = wave[i];
    FitNode left;
    FitNode right;
    FitNode& node = nodes_[static_cast<size_t>(n)];
    const FitSplit& split = node.split;
    left.depth = right.depth = node.depth + 1;
    left.begin = node.begin;
    left.end = right.begin = node.begin + n_left[i];
    right.end = node.end;
    left.g = split.left_g;
    left.h = split.left_h;
    right.g = node.g - split.left_g;
    right.h = node.h - split.left_h;
    left.more_l2 = right.more_l2 = split.more_l2;
    left.lower = right.lower = node.lower;
    left.upper = right.upper = node.upper;
    const int8_t direction = args_.monotone != nullptr ? args_.monotone[split.feature] : int8_t{0};
    if (direction != 0) {
      // Both sides keep to their half of what lies between their values, all the way down.
      const double middle = (value_of(left, left.g * penalty_.g_unit, left.h * penalty_.h_unit) +
                             value_of(right, right.g * penalty_.g_unit, right.h * penalty_.h_unit)) /
                            2;
      (direction > 0 ? left.upper : left.lower) = middle;
      (direction > 0 ? right.lower : right.upper) = middle;
    }
    node.left = static_cast<int32_t>(nodes_.size());
    node.right = node.left + 1;
    nodes_.push_back(left);
    nodes_.push_back(right);
  }
  return {};
}

void FitGrower::build_histograms(const std::vector<int32_t>& nodes) {
  const int32_t n_blocks = static_cast<int32_t>(bins_.blocks.size());
  std::vector<Build> builds;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const FitNode& node = nodes_[static_cast<size_t>(nodes[i])];
    const size_t lock = i * static_cast<size_t>(n_blocks);
    if (node.n_rows() <= kFewRows) {
      builds.push_back({nodes[i], lock, 0, n_blocks, 0, node.n_rows()});
      continue;
    }
    for (int32_t b = 0; b < n_blocks; ++b) {
      for (int64_t r = 0; r < node.n_rows(); r += kBuildRows) {
        builds.push_back({nodes[i], lock, b, b + 1, r, std::min(node.n_rows(), r + kBuildRows)});
      }
    }
  }
  // Integers add up to the same whoever comes first.
  enum : uint8_t { kEmpty = 0, kFilled = 1, kBusy = 2 };
  std::vector<std::atomic<uint8_t>> locks(nodes.size() * static_cast<size_t>(n_blocks));
  team_->run(static_cast<int64_t>(builds.size()), [&](int64_t i, int w) {
    const Build& build = builds[static_cast<size_t>(i)];
    const FitNode& node = nodes_[static_cast<size_t>(build.node)];
    Worker& worker = *workers_[static_cast<size_t>(w)];
    const uint32_t* const rows = rows_of(node);
    for (int32_t b = build.first_block; b < build.end_block; ++b) {
      const FitBlock& block = bins_.blocks[static_cast<size_t>(b)];
      const auto& columns = block_columns_[static_cast<size_t>(b)];
      if (columns.empty()) continue;
      for (int64_t r = build.begin; r < build.end; r += kFitChunk) {
        FitHistogram in{rows == nullptr ? nullptr : rows + r,
                        static_cast<int32_t>(std::min<int64_t>(kFitChunk, build.end - r)),
                        block.bins.data(),
                        block.stride(),
                        columns.data(),
                        block_slots_[static_cast<size_t>(b)].data(),
                        static_cast<int32_t>(columns.size()),
                        in_.gradients,
                        g_scale_,
                        h_scale_};
        if (rows == nullptr) {
          in.bins += (node.begin + r) * block.stride();
          in.gradients += node.begin + r;
        }
        kernels_.histogram(&in, worker.sums.data());
        std::atomic<uint8_t>& lock = locks[build.lock + static_cast<size_t>(b)];
        uint8_t before = lock.load(std::memory_order_relaxed);
        while (before == kBusy || !lock.compare_exchange_weak(before, kBusy, std::memory_order_acquire)) {
          before = lock.load(std::memory_order_relaxed);
        }
        kernels_.flush(worker.sums.data(), static_cast<int32_t>(block.n_slots), before == kFilled ? 1 : 0,
                       histogram_g(node.histogram) + block.first_slot, histogram_h(node.histogram) + block.first_slot);
        lock.store(kFilled, std::memory_order_release);
      }
    }
  });
}

// The larger children's histograms from their parents', and every child's best split. An empty wave: the root.
void FitGrower::subtract_and_scan(const std::vector<int32_t>& wave) {
  std::vector<int32_t> children;
  for (const int32_t n : wave) {
    children.push_back(nodes_[static_cast<size_t>(n)].left);
    children.push_back(nodes_[static_cast<size_t>(n)].right);
  }
  if (wave.empty()) children.push_back(0);
  candidate_row_.assign(nodes_.size(), -1);
  for (size_t i = 0; i < children.size(); ++i) {
    candidate_row_[static_cast<size_t>(children[i])] = static_cast<int32_t>(i);
  }
  const size_t p = bins_.features.size();
  candidates_.resize(std::max(candidates_.size(), children.size() * p));
  const int64_t n_blocks = static_cast<int64_t>(bins_.blocks.size());
  const int64_t n_parents = std::max<int64_t>(1, static_cast<int64_t>(wave.size()));
  team_->run(n_parents * n_blocks, [&](int64_t i, int w) {
    const FitBlock& block = bins_.blocks[static_cast<size_t>(i % n_blocks)];
    const int32_t b = static_cast<int32_t>(i % n_blocks);
    Worker& worker = *workers_[static_cast<size_t>(w)];
    if (wave.empty()) return scan_block(0, b, worker);
    const FitNode& parent = nodes_[static_cast<size_t>(wave[static_cast<size_t>(i / n_blocks)])];
    const FitNode& left = nodes_[static_cast<size_t>(parent.left)];
    const FitNode& right = nodes_[static_cast<size_t>(parent.right)];
    const bool left_smaller = left.n_rows() <= right.n_rows();
    if (subtracted_[static_cast<size_t>(i / n_blocks)] != 0) {
      const int32_t larger = left_smaller ? right.histogram : left.histogram;
      const int32_t smaller = left_smaller ? left.histogram : right.histogram;
      const int32_t n = static_cast<int32_t>(block.n_slots);
      kernels_.subtract(histogram_g(larger) + block.first_slot, histogram_g(smaller) + block.first_slot, n);
      kernels_.subtract(histogram_h(larger) + block.first_slot, histogram_h(smaller) + block.first_slot, n);
    }
    scan_block(parent.left, b, worker);
    scan_block(parent.right, b, worker);
  });
  team_->run(static_cast<int64_t>(children.size()), [&](int64_t i, int w) {
    choose_split(children[static_cast<size_t>(i)], *workers_[static_cast<size_t>(w)]);
  });
}

void FitGrower::scan_block(int32_t n, int32_t b, Worker& worker) {
  const FitNode& node = nodes_[static_cast<size_t>(n)];
  FitSplit* const candidates =
      candidates_.data() + static_cast<size_t>(candidate_row_[static_cast<size_t>(n)]) * bins_.features.size();
  for (const int32_t f : bins_.blocks[static_cast<size_t>(b)].features) {
    const bool useful = in_.features[f] != 0 && bins_.features[static_cast<size_t>(f)].n_slots() >= 2;
    candidates[f] = useful && node.depth < max_depth_ ? scan(node, f, nullptr, worker) : FitSplit{};
  }
}

FitSplit FitGrower::scan(const FitNode& node, int32_t feature, const uint32_t* counts, Worker& worker) const {
  return bins_.features[static_cast<size_t>(feature)].categorical ? scan_categories(node, feature, counts, worker)
                                                                  : scan_numbers(node, feature, counts, worker);
}

// The best cut of one feature; its gain is before the node's own is taken off. With counts [slots], sides of too few
// rows are left out.
FitSplit FitGrower::scan_numbers(const FitNode& node, int32_t f, const uint32_t* counts, Worker& worker) const {
  const FitFeature& feature = bins_.features[static_cast<size_t>(f)];
  const double* const g = histogram_g(node.histogram) + feature.first_slot;
  const double* const h = histogram_h(node.histogram) + feature.first_slot;
  const int32_t n = feature.n_bins;
  const double missing_g = feature.has_missing ? g[n] : 0;
  const double missing_h = feature.has_missing ? h[n] : 0;
  double sum_g = 0;
  double sum_h = 0;
  for (int32_t b = 0; b < n; ++b) {
    worker.g[b] = sum_g += g[b];
    worker.h[b] = sum_h += h[b];
  }
  // Nothing missing here: a cut behind the last bin parts nothing, and either side is the same.
  const bool missing = missing_h != 0 || missing_g != 0 || (counts != nullptr && feature.has_missing && counts[n] > 0);
  FitSplit best;
  best.feature = f;
  for (int side = 0; side < (missing ? 2 : 1); ++side) {
    const bool to_left = side == 1;
    const double more_g = to_left ? missing_g : 0;
    const double more_h = to_left ? missing_h : 0;
    const int32_t n_cuts = missing && !to_left ? n : n - 1;
    if (n_cuts < 1) continue;
    int32_t at = 0;
    double gain = -1;
    if (!bounded_ && counts == nullptr) {
      at =
          kernels_.gains(worker.g, worker.h, n_cuts, more_g, more_h, node.g, node.h, h_least_, &penalty_, worker.gains);
      gain = worker.gains[at];
    } else {
      const int8_t direction = args_.monotone != nullptr ? args_.monotone[f] : int8_t{0};
      int64_t rows = to_left && counts != nullptr ? counts[n] : 0;
      for (int32_t b = 0; b < n_cuts; ++b) {
        if (counts != nullptr) {
          rows += counts[b];
          if (rows < args_.min_child_rows || node.n_rows() - rows < args_.min_child_rows) continue;
        }
        const double left_h = worker.h[b] + more_h;
        const double right_h = node.h - left_h;
        if (left_h < h_least_ || right_h < h_least_) continue;
        const double left_g = worker.g[b] + more_g;
        double left_value = 0;
        double right_value = 0;
        const double sum =
            gain_of(node, left_g * penalty_.g_unit, left_h * penalty_.h_unit, args_.l2, &left_value) +
            gain_of(node, (node.g - left_g) * penalty_.g_unit, right_h * penalty_.h_unit, args_.l2, &right_value);
        if ((direction > 0 && left_value > right_value) || (direction < 0 && left_value < right_value)) continue;
        if (sum > gain) {
          gain = sum;
          at = b;
        }
      }
    }
    if (gain > best.gain) {
      best.gain = gain;
      best.bin = at;
      best.missing_left = to_left;
      best.left_g = worker.g[at] + more_g;
      best.left_h = worker.h[at] + more_h;
    }
  }
  if (!missing) best.missing_left = best.left_h * 2 >= node.h;
  return best;
}

// Categories in the order of their G / H, from either end; those that no bin of their own has stay right.
FitSplit FitGrower::scan_categories(const FitNode& node, int32_t f, const uint32_t* counts, Worker& worker) const {
  const FitFeature& feature = bins_.features[static_cast<size_t>(f)];
  const double* const g = histogram_g(node.histogram) + feature.first_slot;
  const double* const h = histogram_h(node.histogram) + feature.first_slot;
  const double rows_per_unit = static_cast<double>(node.n_rows()) / std::max(node.h, 1.0);
  int32_t order[kFitMaxSlots];
  int32_t n = 0;
  for (int32_t s = 0; s < feature.n_slots(); ++s) {
    const bool others = s < feature.n_bins && s >= static_cast<int32_t>(feature.categories.size());
    if (others || !(h[s] > 0)) continue;
    worker.gains[s] = g[s] * penalty_.g_unit / (h[s] * penalty_.h_unit + kFitCategorySmooth);
    order[n++] = s;
  }
  FitSplit best;
  best.feature = f;
  const bool one_by_one = feature.n_bins <= kFitOneByOne;
  best.more_l2 = one_by_one ? 0 : kFitCategoryL2;
  const double l2 = args_.l2 + best.more_l2;
  if (!one_by_one) {
    n = static_cast<int32_t>(
        std::remove_if(order, order + n, [&](int32_t slot) { return h[slot] * rows_per_unit < kFitCategoryRows; }) -
        order);
    std::sort(order, order + n, [&](int32_t a, int32_t b) {
      return worker.gains[a] != worker.gains[b] ? worker.gains[a] < worker.gains[b] : a < b;
    });
  }
  const int32_t most = one_by_one ? n : std::min(kFitMostCategoriesLeft, (n + 1) / 2);
  for (int side = 0; side < (one_by_one ? 1 : 2); ++side) {
    uint64_t left[kFitMaxSlots / 64] = {};
    double left_g = 0;
    double left_h = 0;
    double group = 0;  // rows since the last set that was tried
    int64_t rows = 0;
    for (int32_t i = 0; i < most; ++i) {
      const int32_t s = order[side == 0 ? i : n - 1 - i];
      if (one_by_one) {
        std::memset(left, 0, sizeof left);
        left_g = left_h = 0;
        rows = 0;
      }
      left[s / 64] |= uint64_t{1} << (s % 64);
      left_g += g[s];
      left_h += h[s];
      group += h[s] * rows_per_unit;
      if (counts != nullptr) {
        rows += counts[s];
        if (rows < args_.min_child_rows || node.n_rows() - rows < args_.min_child_rows) continue;
      }
      const double right_h = node.h - left_h;
      if (left_h < h_least_ || right_h < h_least_) continue;
      if (!one_by_one) {
        if (right_h * rows_per_unit < kFitGroupRows) break;
        if (group < kFitGroupRows) continue;
        group = 0;
      }
      double value = 0;
      const double gain = gain_of(node, left_g * penalty_.g_unit, left_h * penalty_.h_unit, l2, &value) +
                          gain_of(node, (node.g - left_g) * penalty_.g_unit, right_h * penalty_.h_unit, l2, &value);
      if (gain > best.gain) {
        best.gain = gain;
        std::memcpy(best.left, left, sizeof left);
        best.left_g = left_g;
        best.left_h = left_h;
      }
    }
  }
  const int32_t missing = feature.n_bins;
  const bool some_missing = feature.has_missing && (h[missing] != 0 || g[missing] != 0);
  best.missing_left = some_missing ? ((best.left[missing / 64] >> (missing % 64)) & 1) != 0 : best.left_h * 2 >= node.h;
  if (best.missing_left && feature.has_missing) best.left[missing / 64] |= uint64_t{1} << (missing % 64);
  return best;
}

double FitGrower::own_gain(const FitNode& node) const {
  double value = 0;
  return gain_of(node, node.g * penalty_.g_unit, node.h * penalty_.h_unit, args_.l2, &value);
}

bool FitGrower::is_worth(const FitSplit& split, double own) const {
  return split.gain - own > args_.min_gain + kGainFloor * split.gain;
}

bool FitGrower::surely_enough_rows(const FitNode& node, const FitSplit& split) const {
  return split.left_h >= rows_certain_ && node.h - split.left_h >= rows_certain_;
}

bool FitGrower::has_enough_rows(const FitNode& node, const FitSplit& split, const uint32_t* counts) const {
  uint8_t left[kFitMaxSlots];
  left_slots(split, left);
  int64_t rows = 0;
  for (int32_t s = 0; s < bins_.features[static_cast<size_t>(split.feature)].n_slots(); ++s) {
    if (left[s] != 0) rows += counts[s];
  }
  return rows >= args_.min_child_rows && node.n_rows() - rows >= args_.min_child_rows;
}

void FitGrower::count_rows(const FitNode& node, int32_t f, uint32_t* counts) const {
  const FitFeature& feature = bins_.features[static_cast<size_t>(f)];
  const FitBlock& block = bins_.blocks[static_cast<size_t>(feature.block)];
  const uint8_t* const bins = block.bins.data() + feature.column;
  const uint32_t* const rows = rows_of(node);
  std::fill_n(counts, kFitMaxSlots, 0u);
  for (int64_t r = 0; r < node.n_rows(); ++r) {
    const int64_t row = rows != nullptr ? static_cast<int64_t>(rows[r]) : node.begin + r;
    ++counts[bins[row * block.stride()]];
  }
}

// The best candidate whose sides have enough rows. Candidates were chosen as if all had, so that one which is
// confirmed is the best of all.
void FitGrower::choose_split(int32_t n, Worker& worker) {
  FitNode& node = nodes_[static_cast<size_t>(n)];
  FitSplit* const candidates =
      candidates_.data() + static_cast<size_t>(candidate_row_[static_cast<size_t>(n)]) * bins_.features.size();
  const double own = own_gain(node);
  std::vector<uint8_t> counted(bins_.features.size(), 0);
  node.split = FitSplit{};
  while (true) {
    const FitSplit* best = nullptr;
    for (const FitBlock& block : bins_.blocks) {
      for (const int32_t f : block.features) {
        if (candidates[f].gain > (best != nullptr ? best->gain : -1)) best = &candidates[f];
      }
    }
    if (best == nullptr || !is_worth(*best, own)) return;
    const size_t f = static_cast<size_t>(best->feature);
    if (counted[f] != 0 || surely_enough_rows(node, *best)) {
      node.split = *best;
      node.split.gain -= own;
      return;
    }
    count_rows(node, best->feature, worker.counts);
    counted[f] = 1;
    if (!has_enough_rows(node, *best, worker.counts)) {
      candidates[f] = scan(node, best->feature, worker.counts, worker);
    }
  }
}

Status FitGrower::start_on_device() {
  waggle_fit_tree_args start = {};
  start.g_scale = g_scale_;
  start.h_scale = h_scale_;
  start.bounded = bounded_ ? 1 : 0;
  start.g_unit = penalty_.g_unit;
  start.h_unit = penalty_.h_unit;
  start.h_least = h_least_;
  start.features = in_.features;
  start.row_sample = in_.sampled ? args_.row_sample : 1;
  start.seed = args_.seed;
  start.round = static_cast<uint64_t>(in_.round);
  if (Status status = device_->start_tree(start); !status.ok()) return status;
  nodes_[0].end = start.n_rows;
  nodes_[0].g = start.g;
  nodes_[0].h = start.h;
  return {};
}

Status FitGrower::part_on_device(const std::vector<int32_t>& wave, std::vector<int64_t>& n_left) {
  std::vector<waggle_fit_part> parts(wave.size());
  for (size_t i = 0; i < wave.size(); ++i) {
    const FitNode& node = nodes_[static_cast<size_t>(wave[i])];
    parts[i].begin = node.begin;
    parts[i].end = node.end;
    parts[i].depth = node.depth;
    parts[i].feature = node.split.feature;
    left_words(node.split, parts[i].left);
  }
  waggle_fit_parts_args call = {};
  call.parts = parts.data();
  call.n_parts = static_cast<int64_t>(parts.size());
  if (Status status = device_->part(call); !status.ok()) return status;
  for (size_t i = 0; i < wave.size(); ++i) n_left[i] = parts[i].n_left;
  return {};
}

// What build_histograms and subtract_and_scan do. An empty wave: the root.
Status FitGrower::search_on_device(const std::vector<int32_t>& wave, const std::vector<int32_t>& to_build) {
  std::vector<int32_t> children;
  std::vector<int32_t> subtractions;
  for (size_t i = 0; i < wave.size(); ++i) {
    const FitNode& parent = nodes_[static_cast<size_t>(wave[i])];
    const FitNode& left = nodes_[static_cast<size_t>(parent.left)];
    const FitNode& right = nodes_[static_cast<size_t>(parent.right)];
    children.push_back(parent.left);
    children.push_back(parent.right);
    if (subtracted_[i] == 0) continue;
    const bool left_smaller = left.n_rows() <= right.n_rows();
    subtractions.push_back(left_smaller ? right.histogram : left.histogram);
    subtractions.push_back(left_smaller ? left.histogram : right.histogram);
  }
  if (wave.empty()) children.push_back(0);
  std::vector<waggle_fit_node> nodes;
  nodes.reserve(children.size());
  std::vector<int32_t> builds;
  for (const int32_t child : children) {
    if (std::find(to_build.begin(), to_build.end(), child) != to_build.end()) {
      builds.push_back(static_cast<int32_t>(nodes.size()));
    }
    const FitNode& node = nodes_[static_cast<size_t>(child)];
    nodes.push_back({node.begin, node.end, node.depth, node.histogram, node.g, node.h, node.lower, node.upper});
  }
  std::vector<waggle_fit_split> splits(nodes.size());
  waggle_fit_search_args call = {};
  call.nodes = nodes.data();
  call.n_nodes = static_cast<int64_t>(nodes.size());
  call.builds = builds.data();
  call.n_builds = static_cast<int64_t>(builds.size());
  call.subtractions = subtractions.data();
  call.n_subtractions = static_cast<int64_t>(subtractions.size() / 2);
  call.splits = splits.data();
  if (Status status = device_->search(call); !status.ok()) return status;

  // As choose_split: rows are counted where a split might leave too few of them, until one is confirmed.
  std::vector<std::vector<int32_t>> counted(children.size());
  std::vector<int32_t> asked(children.size());  // places in children
  for (size_t i = 0; i < asked.size(); ++i) asked[i] = static_cast<int32_t>(i);
  while (true) {
    std::vector<int32_t> recounts;
    std::vector<int32_t> again;
    for (size_t i = 0; i < asked.size(); ++i) {
      FitNode& node = nodes_[static_cast<size_t>(children[static_cast<size_t>(asked[i])])];
      const waggle_fit_split& found = splits[i];
      FitSplit best;
      best.gain = found.gain;
      best.feature = found.feature;
      best.bin = found.bin;
      best.missing_left = found.missing_left != 0;
      best.more_l2 = found.ordered != 0 ? kFitCategoryL2 : 0;
      std::copy_n(found.left, kFitMaxSlots / 64, best.left);
      best.left_g = found.left_g;
      best.left_h = found.left_h;
      const double own = own_gain(node);
      node.split = FitSplit{};
      if (!(best.gain > -1) || !is_worth(best, own)) continue;
      std::vector<int32_t>& known = counted[static_cast<size_t>(asked[i])];
      if (surely_enough_rows(node, best) || std::find(known.begin(), known.end(), best.feature) != known.end()) {
        node.split = best;
        node.split.gain -= own;
        continue;
      }
      known.push_back(best.feature);
      recounts.push_back(best.feature);
      again.push_back(asked[i]);
    }
    if (again.empty()) return {};
    asked = again;
    std::vector<waggle_fit_node> searched(asked.size());
    for (size_t i = 0; i < asked.size(); ++i) searched[i] = nodes[static_cast<size_t>(asked[i])];
    splits.resize(searched.size());
    waggle_fit_search_args recount = {};
    recount.nodes = searched.data();
    recount.n_nodes = static_cast<int64_t>(searched.size());
    recount.recounts = recounts.data();
    recount.candidates = asked.data();
    recount.splits = splits.data();
    if (Status status = device_->search(recount); !status.ok()) return status;
  }
}

}  // namespace waggle::cpu
