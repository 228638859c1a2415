#include "src/ivf/train.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "src/device_points.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::ivf {

namespace {

constexpr int64_t kBlock = 64;            // points scored together
constexpr int64_t kTileGroups = 32;       // groups of centroids scored together: 128 KiB of dots
constexpr int32_t kCandidates = 16;       // of a k-means++ step: one group
constexpr int32_t kNestedIterations = 6;  // within the two levels of the first guess
constexpr int64_t kTopSample = 128;       // points per cluster of the upper level
constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// Runs body(begin, end, worker) over [0, n) in chunks of `step`.
void chunks(int64_t n, int64_t step, const RunContext& context,
            const std::function<void(int64_t, int64_t, int)>& body) {
  const int64_t count = (n + step - 1) / step;
  const auto one = [&](int64_t chunk, int worker) { body(chunk * step, std::min(n, (chunk + 1) * step), worker); };
  if (!context.parallel) {
    for (int64_t chunk = 0; chunk < count && !context.stop_requested(); ++chunk) one(chunk, 0);
    return;
  }
  ThreadPool::instance().for_each_chunk(count, context, one);
}

/// The sample, encoded once.
struct Points {
  int64_t dim = 0;
  int64_t quads = 0;
  std::vector<int32_t> rows;
  std::vector<int8_t> codes;  // [n × 4 · quads]
  std::vector<float> scale;
  std::vector<int32_t> sum;
  std::vector<float> square;

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  const int8_t* code(int64_t i) const { return codes.data() + i * quads * 4; }
};

struct Scratch {
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<float> scales;
  std::vector<int32_t> dots;
  std::vector<float> scores;
  std::vector<int32_t> labels;

  void resize(int64_t quads) {
    if (!sums.empty()) return;
    codes.resize(static_cast<size_t>(kBlock * quads * 4));
    sums.resize(kBlock);
    scales.resize(kBlock);
    dots.resize(static_cast<size_t>(kBlock * kTileGroups * kGroup));
    scores.resize(kBlock);
    labels.resize(kBlock);
  }
};

/// labels and scores of the n ≤ kBlock encoded points in `s`.
void nearest(const cpu::Table& table, const Centroids& centroids, int64_t n, Scratch& s) {
  const int64_t count = centroids.count();
  const int64_t n_groups = groups_of(count);
  std::fill(s.scores.begin(), s.scores.end(), kLowest);
  std::fill(s.labels.begin(), s.labels.end(), 0);
  constexpr int64_t kLd = kTileGroups * kGroup;
  for (int64_t g = 0; g < n_groups; g += kTileGroups) {
    const int64_t ng = std::min(kTileGroups, n_groups - g);
    table.ivf.dots(centroids.groups.data() + g * centroids.quads * 64, ng, s.codes.data(), s.sums.data(),
                   static_cast<int32_t>(n), centroids.quads, s.dots.data(), kLd);
    const int64_t first = g * kGroup;
    const int32_t rows = static_cast<int32_t>(std::min(ng * kGroup, count - first));
    for (int64_t i = 0; i < n; ++i) {
      table.ivf.best(s.dots.data() + i * kLd, centroids.scale.data() + first, centroids.bias.data() + first, rows,
                     s.scales[static_cast<size_t>(i)], static_cast<int32_t>(first), &s.scores[static_cast<size_t>(i)],
                     &s.labels[static_cast<size_t>(i)]);
    }
  }
}

/// The codes of centroids row by row, for the accelerator.
std::vector<int8_t> row_codes(const Centroids& centroids) {
  const int64_t quads = centroids.quads;
  std::vector<int8_t> codes(static_cast<size_t>(centroids.count() * quads * 4));
  for (int64_t c = 0; c < centroids.count(); ++c) {
    const uint8_t* group = centroids.groups.data() + c / kGroup * quads * 64;
    for (int64_t quad = 0; quad < quads; ++quad) {
      uint32_t four = 0;
      std::memcpy(&four, group + quad * 64 + c % kGroup * 4, 4);
      four ^= 0x80808080u;  // - 128 in each byte
      std::memcpy(codes.data() + (c * quads + quad) * 4, &four, 4);
    }
  }
  return codes;
}

/// What `nearest` does block by block, by the accelerator. False: it is for the CPU.
bool nearest_on_device(const Centroids& centroids, const std::vector<int8_t>& centroid_codes, const int8_t* codes,
                       const float* scales, int64_t n, const RunContext& context, int32_t* labels, float* scores,
                       Status* status) {
  NearestCodes args;
  args.codes = codes;
  args.scales = scales;
  args.n = n;
  args.quads = centroids.quads;
  args.centroids = centroid_codes.data();
  args.centroid_scales = centroids.scale.data();
  args.biases = centroids.bias.data();
  args.k = centroids.count();
  return waggle::nearest_on_device(args, context, labels, scores, status);
}

class Trainer {
 public:
  Trainer(const cpu::Table& table, const Space& space, const Points& points)
      : table_(table), space_(space), points_(points) {}

  /// Not ok where the caller insisted on an accelerator that failed.
  const Status& device_status() const { return device_status_; }

  /// Nearest centroid of each point of `subset`, and its squared distance.
  void assign(const std::vector<int32_t>& subset, const Centroids& centroids, const RunContext& context,
              std::vector<int32_t>& labels, std::vector<float>& distance) const {
    labels.resize(subset.size());
    distance.resize(subset.size());
    if (assign_on_device(subset, centroids, context, labels, distance)) return;
    const int64_t stride = points_.quads * 4;
    std::vector<Scratch> scratch(static_cast<size_t>(context.parallel ? ThreadPool::instance().max_workers() : 1));
    for (Scratch& s : scratch) s.resize(points_.quads);
    chunks(static_cast<int64_t>(subset.size()), kBlock, context, [&](int64_t begin, int64_t end, int worker) {
      Scratch& s = scratch[static_cast<size_t>(worker)];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t point = subset[static_cast<size_t>(i)];
        std::memcpy(s.codes.data() + (i - begin) * stride, points_.code(point), static_cast<size_t>(stride));
        s.sums[static_cast<size_t>(i - begin)] = points_.sum[static_cast<size_t>(point)];
        s.scales[static_cast<size_t>(i - begin)] = points_.scale[static_cast<size_t>(point)];
      }
      nearest(table_, centroids, end - begin, s);
      for (int64_t i = begin; i < end; ++i) {
        const size_t at = static_cast<size_t>(i - begin);
        const float square = points_.square[static_cast<size_t>(subset[static_cast<size_t>(i)])];
        labels[static_cast<size_t>(i)] = s.labels[at];
        distance[static_cast<size_t>(i)] = std::max(0.0f, square - 2.0f * s.scores[at]);
      }
    });
  }

  /// Each centroid becomes the mean of its points; one without points takes over the point farthest from its own
  /// centroid among those that do not stand alone.
  void update(const std::vector<int32_t>& subset, std::vector<int32_t>& labels, const std::vector<float>& distance,
              const RunContext& context, Centroids& centroids) const {
    const int64_t k = centroids.count();
    std::vector<int64_t> size(static_cast<size_t>(k), 0);
    for (const int32_t label : labels) ++size[static_cast<size_t>(label)];
    refill(labels, distance, size);
    std::vector<int64_t> begin(static_cast<size_t>(k) + 1, 0);
    for (int64_t c = 0; c < k; ++c)
      begin[static_cast<size_t>(c) + 1] = begin[static_cast<size_t>(c)] + size[static_cast<size_t>(c)];
    std::vector<int64_t> cursor(begin.begin(), begin.end() - 1);
    std::vector<int32_t> members(subset.size());
    for (size_t i = 0; i < subset.size(); ++i) {
      members[static_cast<size_t>(cursor[static_cast<size_t>(labels[i])]++)] = subset[i];
    }
    const int64_t dim = points_.dim;
    std::vector<double> sums(static_cast<size_t>(dim * (context.parallel ? ThreadPool::instance().max_workers() : 1)));
    chunks(k, 4, context, [&](int64_t first, int64_t last, int worker) {
      double* sum = sums.data() + worker * dim;
      for (int64_t c = first; c < last; ++c) {
        const int64_t from = begin[static_cast<size_t>(c)];
        const int64_t to = begin[static_cast<size_t>(c) + 1];
        if (from == to) continue;
        std::fill(sum, sum + dim, 0.0);
        for (int64_t m = from; m < to; ++m) {
          const int64_t row = points_.rows[static_cast<size_t>(members[static_cast<size_t>(m)])];
          const float* x = space_.matrix.row(row);
          const float factor = space_.factor_of(row);
          for (int64_t i = 0; i < dim; ++i) sum[i] += static_cast<double>(x[i] * factor);
        }
        float* value = centroids.values.data() + c * dim;
        for (int64_t i = 0; i < dim; ++i) {
          value[i] = static_cast<float>(sum[i] / static_cast<double>(to - from) -
                                        static_cast<double>(space_.mean[static_cast<size_t>(i)]));
        }
      }
    });
    centroids.encode(table_);
  }

  /// Greedy k-means++ (Arthur & Vassilvitskii 2007, §5: several candidates a step, the best kept). Fewer than k when
  /// every point of the subset is a centroid already.
  Centroids first_guess(const std::vector<int32_t>& subset, int64_t k, uint64_t seed, const RunContext& context) const {
    const int64_t dim = points_.dim;
    const int64_t quads = points_.quads;
    const int64_t n = static_cast<int64_t>(subset.size());
    Centroids out;
    out.dim = dim;
    out.quads = quads;
    Random random(seed);
    std::vector<float> nearest_square(static_cast<size_t>(n), std::numeric_limits<float>::infinity());
    std::vector<float> candidate_square(static_cast<size_t>(n * kCandidates));
    std::vector<uint8_t> group(static_cast<size_t>(quads * 64));
    std::vector<int32_t> dots(static_cast<size_t>(kBlock * kGroup));
    std::vector<int8_t> codes(static_cast<size_t>(kBlock * quads * 4));
    std::vector<int32_t> sums(kBlock);
    while (out.count() < k && !context.stop_requested()) {
      int64_t chosen[kCandidates];
      int32_t n_candidates = kCandidates;
      if (out.count() == 0) {
        n_candidates = 1;
        chosen[0] = static_cast<int64_t>(random.uniform() * static_cast<double>(n));
      } else {
        double total = 0;
        for (const float d : nearest_square) total += static_cast<double>(d);
        if (!(total > 0)) break;
        double targets[kCandidates];
        for (double& t : targets) t = random.uniform() * total;
        std::sort(targets, targets + kCandidates);
        double running = 0;
        int32_t next = 0;
        int64_t last_positive = 0;
        for (int64_t i = 0; i < n && next < kCandidates; ++i) {
          const float d = nearest_square[static_cast<size_t>(i)];
          if (d > 0) last_positive = i;
          running += static_cast<double>(d);
          while (next < kCandidates && targets[next] < running) chosen[next++] = i;
        }
        while (next < kCandidates) chosen[next++] = last_positive;
      }
      float scale[kCandidates] = {};
      float square[kCandidates] = {};
      for (int32_t c = 0; c < n_candidates; ++c) {
        const int64_t point = subset[static_cast<size_t>(chosen[c])];
        put_row(points_.code(point), quads, c, group.data());
        scale[c] = points_.scale[static_cast<size_t>(point)];
        square[c] = points_.square[static_cast<size_t>(point)];
      }
      double potential[kCandidates] = {};
      for (int64_t begin = 0; begin < n; begin += kBlock) {
        const int64_t count = std::min(kBlock, n - begin);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t point = subset[static_cast<size_t>(begin + i)];
          std::memcpy(codes.data() + i * quads * 4, points_.code(point), static_cast<size_t>(quads * 4));
          sums[static_cast<size_t>(i)] = points_.sum[static_cast<size_t>(point)];
        }
        table_.ivf.dots(group.data(), 1, codes.data(), sums.data(), static_cast<int32_t>(count), quads, dots.data(),
                        kGroup);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t point = subset[static_cast<size_t>(begin + i)];
          const float own = points_.square[static_cast<size_t>(point)];
          const float own_scale = points_.scale[static_cast<size_t>(point)];
          const float before = nearest_square[static_cast<size_t>(begin + i)];
          float* to = candidate_square.data() + (begin + i) * kCandidates;
          for (int32_t c = 0; c < kCandidates; ++c) {
            const float dot = static_cast<float>(dots[static_cast<size_t>(i * kGroup + c)]) * (own_scale * scale[c]);
            const float d = std::min(before, std::max(0.0f, (own + square[c]) - 2.0f * dot));
            to[c] = d;
            potential[c] += static_cast<double>(d);
          }
        }
      }
      int32_t winner = 0;
      for (int32_t c = 1; c < n_candidates; ++c) {
        if (potential[c] < potential[winner]) winner = c;
      }
      for (int64_t i = 0; i < n; ++i) {
        nearest_square[static_cast<size_t>(i)] = candidate_square[static_cast<size_t>(i * kCandidates + winner)];
      }
      nearest_square[static_cast<size_t>(chosen[winner])] = 0.0f;  // rounding may have left a little
      const int64_t row = points_.rows[static_cast<size_t>(subset[static_cast<size_t>(chosen[winner])])];
      const float factor = space_.factor_of(row);
      for (int64_t i = 0; i < dim; ++i) {
        out.values.push_back(space_.matrix.row(row)[i] * factor - space_.mean[static_cast<size_t>(i)]);
      }
    }
    out.encode(table_);
    return out;
  }

  void lloyd(const std::vector<int32_t>& subset, int32_t iterations, const RunContext& context, Centroids& centroids,
             std::vector<int32_t>& labels, const std::function<void(double)>& progress) const {
    std::vector<float> distance;
    for (int32_t i = 0; i < iterations && !context.stop_requested(); ++i) {
      assign(subset, centroids, context, labels, distance);
      if (context.stop_requested()) return;
      update(subset, labels, distance, context, centroids);
      if (progress) progress(static_cast<double>(i + 1) / iterations);
    }
  }

 private:
  // Of all points at once, which is where the time goes; subsets ascend, so as many as all are all in their order.
  bool assign_on_device(const std::vector<int32_t>& subset, const Centroids& centroids, const RunContext& context,
                        std::vector<int32_t>& labels, std::vector<float>& distance) const {
    const int64_t n = static_cast<int64_t>(subset.size());
    if (n != points_.count() || !is_for_device(n, centroids.count(), points_.dim, context)) return false;
    if (!nearest_on_device(centroids, row_codes(centroids), points_.codes.data(), points_.scale.data(), n, context,
                           labels.data(), distance.data(), &device_status_)) {
      return false;
    }
    for (size_t i = 0; i < distance.size(); ++i) distance[i] = std::max(0.0f, points_.square[i] - 2.0f * distance[i]);
    return true;
  }

  static void refill(std::vector<int32_t>& labels, const std::vector<float>& distance, std::vector<int64_t>& size) {
    std::vector<int32_t> empty;
    for (size_t c = 0; c < size.size(); ++c) {
      if (size[c] == 0) empty.push_back(static_cast<int32_t>(c));
    }
    if (empty.empty()) return;
    std::vector<int32_t> order(labels.size());
    std::iota(order.begin(), order.end(), 0);
    const auto farther = [&](int32_t a, int32_t b) {
      const float da = distance[static_cast<size_t>(a)];
      const float db = distance[static_cast<size_t>(b)];
      return da > db || (da == db && a < b);
    };
    // Enough of the farthest for every empty cluster, some of which may stand alone and not move.
    const size_t most = std::min(order.size(), 4 * empty.size() + 64);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(most), order.end(), farther);
    size_t next = 0;
    for (const int32_t c : empty) {
      while (next < most && size[static_cast<size_t>(labels[static_cast<size_t>(order[next])])] < 2) ++next;
      if (next == most || !(distance[static_cast<size_t>(order[next])] > 0)) return;
      int32_t& label = labels[static_cast<size_t>(order[next++])];
      --size[static_cast<size_t>(label)];
      label = c;
      ++size[static_cast<size_t>(c)];
    }
  }

  const cpu::Table& table_;
  const Space& space_;
  const Points& points_;
  mutable Status device_status_;
};

/// The mean of the sample, in double, in the order of rows.
void set_mean(const std::vector<int32_t>& rows, Space& space, const RunContext& context) {
  const int64_t dim = space.matrix.cols;
  const int64_t n = static_cast<int64_t>(rows.size());
  constexpr int64_t kStep = 2048;
  const int64_t n_chunks = (n + kStep - 1) / kStep;
  std::vector<double> partial(static_cast<size_t>(n_chunks * dim), 0.0);
  chunks(n, kStep, context, [&](int64_t begin, int64_t end, int) {
    double* sum = partial.data() + begin / kStep * dim;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = rows[static_cast<size_t>(r)];
      const float* x = space.matrix.row(row);
      const float factor = space.factor_of(row);
      for (int64_t i = 0; i < dim; ++i) sum[i] += static_cast<double>(x[i] * factor);
    }
  });
  space.mean.assign(static_cast<size_t>(dim), 0.0f);
  for (int64_t i = 0; i < dim; ++i) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) sum += partial[static_cast<size_t>(chunk * dim + i)];
    if (n > 0) space.mean[static_cast<size_t>(i)] = static_cast<float>(sum / static_cast<double>(n));
  }
}

Points encode_sample(const cpu::Table& table, const Space& space, std::vector<int32_t> rows,
                     const RunContext& context) {
  Points p;
  p.dim = space.matrix.cols;
  p.quads = quads_of(p.dim);
  p.rows = std::move(rows);
  const size_t n = p.rows.size();
  p.codes.resize(n * static_cast<size_t>(p.quads * 4));
  p.scale.resize(n);
  p.sum.resize(n);
  p.square.resize(n);
  chunks(static_cast<int64_t>(n), 1024, context, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = p.rows[static_cast<size_t>(i)];
      cpu::IvfEncoding e;
      table.ivf.encode(space.matrix.row(row), space.factor_of(row), space.mean.data(), p.dim, p.quads,
                       p.codes.data() + i * p.quads * 4, &e);
      p.scale[static_cast<size_t>(i)] = e.scale;
      p.sum[static_cast<size_t>(i)] = e.sum;
      p.square[static_cast<size_t>(i)] = e.square;
    }
  });
  return p;
}

/// Shares of `total` in proportion to `weight`, at least 1 for each that is not 0, by largest remainder.
std::vector<int64_t> shares(const std::vector<int64_t>& weight, int64_t total) {
  const double sum = static_cast<double>(std::accumulate(weight.begin(), weight.end(), int64_t{0}));
  std::vector<int64_t> share(weight.size(), 0);
  std::vector<std::pair<double, size_t>> remainder;
  int64_t given = 0;
  for (size_t i = 0; i < weight.size(); ++i) {
    if (weight[i] == 0) continue;
    const double exact = static_cast<double>(total) * static_cast<double>(weight[i]) / sum;
    share[i] = std::max<int64_t>(1, static_cast<int64_t>(exact));
    given += share[i];
    remainder.emplace_back(static_cast<double>(share[i]) - exact, i);
  }
  std::sort(remainder.begin(), remainder.end());
  for (size_t i = 0; given < total && !remainder.empty(); ++i, ++given) ++share[remainder[i % remainder.size()].second];
  return share;
}

}  // namespace

void Centroids::encode(const cpu::Table& table) {
  const int64_t n = count();
  groups.assign(static_cast<size_t>(groups_of(n) * quads * 64), 128);
  scale.assign(static_cast<size_t>(groups_of(n) * kGroup), 0.0f);
  bias.assign(scale.size(), kLowest);
  std::vector<int8_t> codes(static_cast<size_t>(quads * 4));
  for (int64_t c = 0; c < n; ++c) {
    cpu::IvfEncoding e;
    table.ivf.encode(values.data() + c * dim, 1.0f, nullptr, dim, quads, codes.data(), &e);
    put_row(codes.data(), quads, c % kGroup, groups.data() + c / kGroup * quads * 64);
    scale[static_cast<size_t>(c)] = e.scale;
    bias[static_cast<size_t>(c)] = -0.5f * e.square;
  }
}

Status train(const cpu::Table& table, Space& space, const TrainOptions& options, const RunContext& context,
             Centroids* out) {
  const int64_t n = space.matrix.rows;
  const int64_t wanted = std::max<int64_t>(1, std::min(options.n_lists, n));
  const int64_t sample = std::min(n, std::max<int64_t>(wanted * options.samples_per_list, 1024));
  std::vector<int32_t> rows(static_cast<size_t>(sample));
  for (int64_t i = 0; i < sample; ++i) {
    rows[static_cast<size_t>(i)] = static_cast<int32_t>(stratified(i, sample, n, options.seed));
  }
  set_mean(rows, space, context);
  const Points points = encode_sample(table, space, std::move(rows), context);
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  const Trainer trainer(table, space, points);
  const auto report = [&](double from, double to, double part) {
    if (options.progress) options.progress(from + (to - from) * part);
  };
  std::vector<int32_t> everything(static_cast<size_t>(sample));
  std::iota(everything.begin(), everything.end(), 0);
  std::vector<int32_t> labels;
  if (wanted <= 64) {
    *out = trainer.first_guess(everything, wanted, options.seed, context);
  } else {
    // Upper level, on a part of the sample.
    const int64_t n_top = std::llround(std::sqrt(static_cast<double>(wanted)));
    const int64_t n_part = std::min(sample, n_top * kTopSample);
    std::vector<int32_t> part(static_cast<size_t>(n_part));
    for (int64_t i = 0; i < n_part; ++i) {
      part[static_cast<size_t>(i)] = static_cast<int32_t>(stratified(i, n_part, sample, ~options.seed));
    }
    Centroids top = trainer.first_guess(part, n_top, options.seed, context);
    trainer.lloyd(part, kNestedIterations, context, top, labels, {});
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    std::vector<float> distance;
    trainer.assign(everything, top, context, labels, distance);
    std::vector<std::vector<int32_t>> members(static_cast<size_t>(top.count()));
    for (size_t i = 0; i < labels.size(); ++i) {
      members[static_cast<size_t>(labels[i])].push_back(static_cast<int32_t>(i));
    }
    std::vector<int64_t> weight;
    weight.reserve(members.size());
    for (const auto& m : members) weight.push_back(static_cast<int64_t>(m.size()));
    const std::vector<int64_t> share = shares(weight, wanted);
    report(0, 1, 0.1);
    // Lower level: clusters side by side, each on one thread.
    std::vector<Centroids> nested(members.size());
    std::atomic<bool> out_of_memory{false};
    chunks(static_cast<int64_t>(members.size()), 1, context, [&](int64_t c, int64_t, int) {
      const size_t at = static_cast<size_t>(c);
      if (members[at].empty()) return;
      RunContext alone = context;
      alone.parallel = false;
      try {
        std::vector<int32_t> local;
        nested[at] = trainer.first_guess(members[at], share[at], options.seed + 1 + static_cast<uint64_t>(c), alone);
        trainer.lloyd(members[at], kNestedIterations, alone, nested[at], local, {});
      } catch (...) {
        out_of_memory.store(true);
      }
    });
    if (out_of_memory.load()) return fail(Code::kOutOfMemory, "not enough memory for k-means");
    *out = Centroids{};
    out->dim = points.dim;
    out->quads = points.quads;
    for (const Centroids& c : nested) out->values.insert(out->values.end(), c.values.begin(), c.values.end());
    out->encode(table);
  }
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  report(0, 1, 0.3);
  trainer.lloyd(everything, wanted <= 64 ? kNestedIterations + options.flat_iterations : options.flat_iterations,
                context, *out, labels, [&](double done) { report(0.3, 1, done); });
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return trainer.device_status();
}

// Encodes stretches of rows and has the accelerator find their centroids; returns how many rows are done. `status` is
// not ok where the caller insisted on an accelerator that failed.
static int64_t assign_on_device(const cpu::Table& table, const Space& space, const Centroids& centroids,
                                const RunContext& context, const std::function<void(double)>& progress, int32_t* labels,
                                Status* status) {
  constexpr int64_t kStretchBytes = int64_t{64} << 20;
  const int64_t dim = space.matrix.cols;
  const int64_t quads = quads_of(dim);
  const int64_t n = space.matrix.rows;
  const int64_t stretch = std::min(n, std::max(kBlock, kStretchBytes / (quads * 4)));
  const std::vector<int8_t> centroid_codes = row_codes(centroids);
  std::vector<int8_t> codes(static_cast<size_t>(stretch * quads * 4));
  std::vector<float> scales(static_cast<size_t>(stretch));
  std::vector<float> scores(static_cast<size_t>(stretch));
  int64_t first = 0;
  for (; first < n && !context.stop_requested(); first += stretch) {
    const int64_t count = std::min(stretch, n - first);
    chunks(count, 1024, context, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        cpu::IvfEncoding e;
        table.ivf.encode(space.matrix.row(first + i), space.factor_of(first + i), space.mean.data(), dim, quads,
                         codes.data() + i * quads * 4, &e);
        scales[static_cast<size_t>(i)] = e.scale;
      }
    });
    if (context.stop_requested() || !nearest_on_device(centroids, centroid_codes, codes.data(), scales.data(), count,
                                                       context, labels + first, scores.data(), status)) {
      break;
    }
    if (progress) progress(static_cast<double>(first + count) / static_cast<double>(n));
  }
  return std::min(first, n);
}

Status assign(const cpu::Table& table, const Space& space, const Centroids& centroids, const RunContext& context,
              const std::function<void(double)>& progress, int32_t* labels) {
  const int64_t dim = space.matrix.cols;
  const int64_t quads = quads_of(dim);
  const int64_t n = space.matrix.rows;
  int64_t by_device = 0;
  if (is_for_device(n, centroids.count(), dim, context)) {
    Status status;
    by_device = assign_on_device(table, space, centroids, context, progress, labels, &status);
    if (!status.ok()) return status;
  }
  std::vector<Scratch> scratch(static_cast<size_t>(context.parallel ? ThreadPool::instance().max_workers() : 1));
  for (Scratch& s : scratch) s.resize(quads);
  std::atomic<int64_t> done{by_device};
  chunks(n - by_device, kBlock, context, [&](int64_t first, int64_t last, int worker) {
    Scratch& s = scratch[static_cast<size_t>(worker)];
    const int64_t begin = by_device + first;
    const int64_t end = by_device + last;
    for (int64_t r = begin; r < end; ++r) {
      cpu::IvfEncoding e;
      table.ivf.encode(space.matrix.row(r), space.factor_of(r), space.mean.data(), dim, quads,
                       s.codes.data() + (r - begin) * quads * 4, &e);
      s.sums[static_cast<size_t>(r - begin)] = e.sum;
      s.scales[static_cast<size_t>(r - begin)] = e.scale;
    }
    nearest(table, centroids, end - begin, s);
    std::copy_n(s.labels.begin(), end - begin, labels + begin);
    if (progress && worker == 0) {
      progress(static_cast<double>(done.load(std::memory_order_relaxed)) / static_cast<double>(n));
    }
    done.fetch_add(end - begin, std::memory_order_relaxed);
  });
  if (progress) progress(1);
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return {};
}

}  // namespace waggle::ivf
