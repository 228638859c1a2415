#include "cpu/kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/topk.hpp"
#include "src/ivf/codes.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kRowsPerCall = 8192;  // of topk: its queries are the rows to assign
constexpr int64_t kSeedRows = 64;       // per cluster, for the start
constexpr int32_t kGreedyMost = 256;    // clusters that plain k-means++ is asked for
constexpr int32_t kParallelRounds = 5;  // of k-means||
constexpr int64_t kRowsPerChunk = 1024;

struct Assigned {
  std::vector<int32_t> labels;
  std::vector<float> distances;  // squared
};

class Kmeans {
 public:
  Kmeans(const Table& table, const KmeansArgs& args, const RunContext& context, KmeansHelper* helper)
      : table_(table), args_(args), context_(context), helper_(helper), dim_(args.x.cols) {}

  Status run(KmeansResult* result) {
    const int64_t n = args_.x.rows;
    const int64_t k = args_.k;
    int64_t n_sampled = n;
    if (args_.samples_per_cluster > 0 && args_.samples_per_cluster < n / k) n_sampled = args_.samples_per_cluster * k;
    sample_.resize(static_cast<size_t>(n_sampled * (n_sampled < n ? dim_ : 0)));
    Matrix<const float> train = args_.x;
    if (n_sampled < n) {
      for (int64_t i = 0; i < n_sampled; ++i) {
        std::copy_n(args_.x.row(ivf::stratified(i, n_sampled, n, args_.seed)), dim_, sample_.data() + i * dim_);
      }
      train = {sample_.data(), n_sampled, dim_};
    }
    result->n_sampled = n_sampled;
    if (args_.start != nullptr) {
      std::copy_n(args_.start, k * dim_, args_.centroids);
    } else if (Status status = start(train); !status.ok()) {
      return status;
    }
    report(0.1);
    Assigned at;
    double before = std::numeric_limits<double>::infinity();
    result->iterations = 0;
    result->converged = false;
    while (result->iterations < args_.max_iterations) {
      double objective = 0;
      if (Status status = assign(train, centroids(), at, &objective); !status.ok()) return status;
      if (before - objective <= args_.tolerance * objective) {
        result->converged = true;
        break;
      }
      before = objective;
      if (Status status = update(train, at); !status.ok()) return status;
      ++result->iterations;
      report(0.1 + 0.8 * result->iterations / args_.max_iterations);
      if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    }
    if (Status status = assign(args_.x, centroids(), at, &result->objective); !status.ok()) return status;
    std::copy(at.labels.begin(), at.labels.end(), args_.assignments);
    report(1);
    return {};
  }

 private:
  Matrix<const float> centroids() const { return {args_.centroids, args_.k, dim_}; }

  void report(double done) const {
    if (args_.progress) args_.progress(done);
  }

  Status assign(const Matrix<const float>& rows, const Matrix<const float>& to, Assigned& out,
                double* objective) const {
    out.labels.resize(static_cast<size_t>(rows.rows));
    out.distances.resize(out.labels.size());
    double sum = 0;
    Status status;
    if (helper_ != nullptr && helper_->assign(rows, to, out.labels.data(), out.distances.data(), &status)) {
      for (const float d : out.distances) sum += static_cast<double>(d);
      *objective = sum;
      return {};
    }
    if (!status.ok()) return status;
    for (int64_t begin = 0; begin < rows.rows; begin += kRowsPerCall) {
      TopkArgs nearest;
      nearest.queries = {rows.row(begin), std::min(kRowsPerCall, rows.rows - begin), dim_};
      nearest.matrix = to;
      nearest.k = 1;
      nearest.metric = Metric::kL2;
      nearest.scores = out.distances.data() + begin;
      nearest.rows = out.labels.data() + begin;
      status = topk(table_, nearest, context_);
      if (status.code() == Code::kNotFinite) {
        return fail(Code::kNotFinite, "a distance between row and centroid overflows");
      }
      if (!status.ok()) return status;
      for (int64_t i = begin; i < begin + nearest.queries.rows; ++i) {
        float& d = out.distances[static_cast<size_t>(i)];
        d = -d;
        sum += static_cast<double>(d);
      }
    }
    *objective = sum;
    return {};
  }

  Status update(const Matrix<const float>& rows, Assigned& at) {
    const int64_t k = args_.k;
    std::vector<int64_t> size(static_cast<size_t>(k), 0);
    for (const int32_t label : at.labels) ++size[static_cast<size_t>(label)];
    refill(at, size);
    std::vector<int64_t> begin(static_cast<size_t>(k) + 1, 0);
    std::partial_sum(size.begin(), size.end(), begin.begin() + 1);
    std::vector<int64_t> cursor(begin.begin(), begin.end() - 1);
    std::vector<int32_t> members(at.labels.size());
    for (size_t i = 0; i < at.labels.size(); ++i) {
      members[static_cast<size_t>(cursor[static_cast<size_t>(at.labels[i])]++)] = static_cast<int32_t>(i);
    }
    Status status;
    if (helper_ != nullptr && helper_->update(rows, k, members, begin, args_.centroids, &status)) return {};
    if (!status.ok()) return status;
    std::vector<double> sums(static_cast<size_t>(dim_ * ThreadPool::instance().max_workers()));
    ThreadPool::instance().for_each_chunk(k, context_, [&](int64_t c, int worker) {
      const int64_t from = begin[static_cast<size_t>(c)];
      const int64_t to = begin[static_cast<size_t>(c) + 1];
      if (from == to) return;  // keeps its place
      double* sum = sums.data() + worker * dim_;
      std::fill_n(sum, dim_, 0.0);
      for (int64_t m = from; m < to; ++m) {
        const float* x = rows.row(members[static_cast<size_t>(m)]);
        for (int64_t i = 0; i < dim_; ++i) sum[i] += static_cast<double>(x[i]);
      }
      for (int64_t i = 0; i < dim_; ++i) {
        args_.centroids[c * dim_ + i] = static_cast<float>(sum[i] / static_cast<double>(to - from));
      }
    });
    return {};
  }

  static void refill(Assigned& at, std::vector<int64_t>& size) {
    std::vector<int32_t> empty;
    for (size_t c = 0; c < size.size(); ++c) {
      if (size[c] == 0) empty.push_back(static_cast<int32_t>(c));
    }
    if (empty.empty()) return;
    std::vector<int32_t> order(at.labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return at.distances[static_cast<size_t>(a)] > at.distances[static_cast<size_t>(b)];
    });
    size_t next = 0;
    for (const int32_t c : empty) {
      while (next < order.size() && size[static_cast<size_t>(at.labels[static_cast<size_t>(order[next])])] < 2) ++next;
      if (next == order.size() || !(at.distances[static_cast<size_t>(order[next])] > 0)) return;
      int32_t& label = at.labels[static_cast<size_t>(order[next++])];
      --size[static_cast<size_t>(label)];
      label = c;
      ++size[static_cast<size_t>(c)];
    }
  }

  Status start(const Matrix<const float>& train) {
    const int64_t k = args_.k;
    const int64_t n = std::min(train.rows, std::max<int64_t>(kSeedRows * k, 1024));
    std::vector<float> rows(static_cast<size_t>(n * dim_));
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(train.row(ivf::stratified(i, n, train.rows, ~args_.seed)), dim_, rows.data() + i * dim_);
    }
    const Matrix<const float> seeds{rows.data(), n, dim_};
    ivf::Random random(args_.seed);
    if (k <= kGreedyMost) return plus_plus(seeds, nullptr, random);

    // k-means||: a few rounds, each taking about k rows with probability in proportion to their squared distance.
    const int64_t first = static_cast<int64_t>(random.uniform() * static_cast<double>(n));
    std::vector<float> candidates(seeds.row(first), seeds.row(first) + dim_);
    std::vector<float> nearest(static_cast<size_t>(n), std::numeric_limits<float>::infinity());
    std::vector<float> added = candidates;
    Assigned at;
    for (int32_t round = 0; round < kParallelRounds; ++round) {
      double ignored = 0;
      const Matrix<const float> latest{added.data(), static_cast<int64_t>(added.size()) / dim_, dim_};
      if (Status status = assign(seeds, latest, at, &ignored); !status.ok()) return status;
      double total = 0;
      for (size_t i = 0; i < nearest.size(); ++i) {
        nearest[i] = std::min(nearest[i], at.distances[i]);
        total += static_cast<double>(nearest[i]);
      }
      if (!(total > 0)) break;
      added.clear();
      for (int64_t i = 0; i < n; ++i) {
        const double p = static_cast<double>(k) * static_cast<double>(nearest[static_cast<size_t>(i)]) / total;
        if (random.uniform() < p) added.insert(added.end(), seeds.row(i), seeds.row(i) + dim_);
      }
      candidates.insert(candidates.end(), added.begin(), added.end());
      if (added.empty()) break;
      report(0.08 * (round + 1) / kParallelRounds);
    }
    const int64_t n_candidates = static_cast<int64_t>(candidates.size()) / dim_;
    if (n_candidates <= k) return fill_up(candidates, seeds);
    const Matrix<const float> chosen{candidates.data(), n_candidates, dim_};
    double ignored = 0;
    if (Status status = assign(seeds, chosen, at, &ignored); !status.ok()) return status;
    std::vector<double> weight(static_cast<size_t>(n_candidates), 0.0);
    for (const int32_t label : at.labels) weight[static_cast<size_t>(label)] += 1.0;
    return plus_plus(chosen, weight.data(), random);
  }

  /// Fewer distinct rows than clusters: all of them, then the first rows again.
  Status fill_up(const std::vector<float>& candidates, const Matrix<const float>& seeds) {
    const int64_t have = static_cast<int64_t>(candidates.size());
    std::copy(candidates.begin(), candidates.end(), args_.centroids);
    for (int64_t i = have; i < args_.k * dim_; ++i) args_.centroids[i] = seeds.data[i - have];
    return {};
  }

  /// Greedy k-means++ on rows of the given weights (null = 1): of 2 + ln k draws the one that lowers the sum of squared
  /// distances most.
  Status plus_plus(const Matrix<const float>& rows, const double* weight, ivf::Random& random) {
    const int64_t n = rows.rows;
    const int64_t k = args_.k;
    const int64_t n_draws = 2 + static_cast<int64_t>(std::log(static_cast<double>(k)));
    std::vector<float> nearest(static_cast<size_t>(n), std::numeric_limits<float>::infinity());
    std::vector<float> distance(static_cast<size_t>(n * n_draws));
    const int64_t n_chunks = (n + kRowsPerChunk - 1) / kRowsPerChunk;
    std::vector<double> partial(static_cast<size_t>(n_chunks * n_draws));
    std::vector<int64_t> draws;
    const auto weighed = [&](int64_t i, float d) {
      return weight == nullptr ? static_cast<double>(d) : weight[i] * static_cast<double>(d);
    };
    std::vector<double> mass(static_cast<size_t>(n));
    for (int64_t c = 0; c < k; ++c) {
      if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
      draws.clear();
      double total = 0;
      for (int64_t i = 0; i < n; ++i) {
        total += c == 0 ? (weight == nullptr ? 1.0 : weight[i]) : weighed(i, nearest[static_cast<size_t>(i)]);
        mass[static_cast<size_t>(i)] = total;
      }
      if (!(total > 0)) {
        // Every row is a centroid already: the rest repeat the first rows.
        for (int64_t rest = c; rest < k; ++rest) std::copy_n(rows.row(rest % n), dim_, args_.centroids + rest * dim_);
        return {};
      }
      for (int64_t d = 0; d < (c == 0 ? 1 : n_draws); ++d) {
        const double target = random.uniform() * total;
        const auto at = std::upper_bound(mass.begin(), mass.end(), target);
        int64_t row = std::min<int64_t>(at - mass.begin(), n - 1);
        // Rounding may land on the end, whose row may weigh nothing.
        while (row > 0 && mass[static_cast<size_t>(row)] == mass[static_cast<size_t>(row) - 1]) --row;
        draws.push_back(row);
      }
      const int64_t n_now = static_cast<int64_t>(draws.size());
      ThreadPool::instance().for_each_chunk(n_chunks, context_, [&](int64_t chunk, int) {
        const int64_t begin = chunk * kRowsPerChunk;
        const int64_t end = std::min(n, begin + kRowsPerChunk);
        for (int64_t d = 0; d < n_now; ++d) {
          const float* centre = rows.row(draws[static_cast<size_t>(d)]);
          double sum = 0;
          for (int64_t i = begin; i < end; ++i) {
            const float value = std::min(nearest[static_cast<size_t>(i)], square_distance(rows.row(i), centre));
            distance[static_cast<size_t>(d * n + i)] = value;
            sum += weighed(i, value);
          }
          partial[static_cast<size_t>(chunk * n_draws + d)] = sum;
        }
      });
      if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
      int64_t winner = 0;
      double best = std::numeric_limits<double>::infinity();
      for (int64_t d = 0; d < n_now; ++d) {
        double sum = 0;
        for (int64_t chunk = 0; chunk < n_chunks; ++chunk) sum += partial[static_cast<size_t>(chunk * n_draws + d)];
        if (sum < best) {
          best = sum;
          winner = d;
        }
      }
      std::copy_n(distance.begin() + static_cast<std::ptrdiff_t>(winner * n), n, nearest.begin());
      std::copy_n(rows.row(draws[static_cast<size_t>(winner)]), dim_, args_.centroids + c * dim_);
    }
    return {};
  }

  /// In eight lanes that the compiler may keep in registers: the order is fixed, so the bits are, too.
  float square_distance(const float* a, const float* b) const {
    float lanes[8] = {};
    int64_t i = 0;
    for (; i + 8 <= dim_; i += 8) {
      for (int64_t j = 0; j < 8; ++j) {
        const float d = a[i + j] - b[i + j];
        lanes[j] += d * d;
      }
    }
    for (int64_t j = 0; i < dim_; ++i, ++j) {
      const float d = a[i] - b[i];
      lanes[j] += d * d;
    }
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }

  const Table& table_;
  const KmeansArgs& args_;
  const RunContext& context_;
  KmeansHelper* const helper_;
  const int64_t dim_;
  std::vector<float> sample_;
};

}  // namespace

Status kmeans(const Table& table, const KmeansArgs& args, const RunContext& context, KmeansResult* result,
              KmeansHelper* helper) {
  return Kmeans(table, args, context, helper).run(result);
}

}  // namespace waggle::cpu
