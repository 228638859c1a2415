#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "bench/clustered.hpp"
#include "cpu/kmeans.hpp"
#include "src/device_points.hpp"
#include "src/registry.hpp"
#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"
#include "waggle/ivf.hpp"
#include "waggle/ops/kmeans.hpp"

namespace waggle::conformance {

namespace {

struct Shape {
  int64_t n_queries;
  int64_t n_rows;
  int64_t dim;
  int32_t k;
  Metric metric;
  bool int8_lists = true;
  bool all_lists = true;  // then the answer must be exact, else it must reach the recall
  double filter = 1.0;
  uint64_t seed = 1;
};

double score(const float* a, const float* b, int64_t dim, Metric metric, double* bound) {
  double dot = 0, magnitude = 0, aa = 0, bb = 0, distance = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double x = a[i];
    const double y = b[i];
    dot += x * y;
    magnitude += std::fabs(x * y);
    aa += x * x;
    bb += y * y;
    distance += (x - y) * (x - y);
  }
  const double roundoff = (static_cast<double>(dim) + 8) * 0x1.0p-24;
  switch (metric) {
    case Metric::kInnerProduct:
      *bound = roundoff * magnitude;
      return dot;
    case Metric::kCosine:
      *bound = 3 * roundoff;
      return aa > 0 && bb > 0 ? dot / std::sqrt(aa * bb) : 0.0;
    default:
      *bound = 3 * roundoff * distance;
      return -distance;
  }
}

class IvfCase final : public Case {
 public:
  IvfCase(const Shape& shape, bool for_bench) : s_(shape), for_bench_(for_bench) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text, "ivf/%s q=%lld n=%lld d=%lld k=%d %s %s filter=%.2f seed=%llu",
                  s_.metric == Metric::kInnerProduct ? "ip"
                  : s_.metric == Metric::kCosine     ? "cosine"
                                                     : "l2",
                  static_cast<long long>(s_.n_queries), static_cast<long long>(s_.n_rows),
                  static_cast<long long>(s_.dim), s_.k, s_.int8_lists ? "int8" : "f32",
                  s_.all_lists ? "all lists" : "recall", s_.filter, static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    bench::ClusteredShape shape;
    shape.dim = s_.dim;
    if (!for_bench_) {
      shape.n_centres = 50;
      shape.intrinsic_dim = std::min<int64_t>(8, s_.dim);
    }
    const bench::Clustered source(shape, static_cast<uint32_t>(s_.seed));
    matrix_ = source.rows(s_.n_rows);
    queries_ = source.queries(s_.n_queries);
    Random random(s_.seed);
    if (s_.filter < 1.0) {
      filter_.assign(static_cast<size_t>((s_.n_rows + 7) / 8), 0);
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (random.uniform() < s_.filter) filter_[static_cast<size_t>(r >> 3)] |= static_cast<uint8_t>(1 << (r & 7));
      }
    }
    scores_.assign(static_cast<size_t>(s_.n_queries * s_.k), 123.0f);
    rows_.assign(scores_.size(), 456);
    if (for_bench_) built_ = build(RunContext{});
  }

  Status call(const RunContext& context) override {
    // The bench times the search, the tests build as well, on one thread and on many.
    if (!for_bench_) built_ = build(context);
    if (!built_.ok()) return built_;
    IvfSearchArgs args;
    args.queries = {queries_.data(), s_.n_queries, s_.dim};
    args.k = s_.k;
    args.n_probe = s_.all_lists ? kIvfMaxLists : 0;
    if (!filter_.empty()) args.filter = RowFilter::shared(filter_.data(), static_cast<int64_t>(filter_.size()));
    args.scores = scores_.data();
    args.rows = rows_.data();
    return index_->search(args, context, &report_);
  }

  std::string verify() override {
    char text[200];
    int64_t found = 0;
    int64_t wanted = 0;
    for (int64_t q = 0; q < s_.n_queries; ++q) {
      std::vector<std::pair<double, int32_t>> truth;
      std::vector<double> bounds(static_cast<size_t>(s_.n_rows));
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (!allowed(r)) continue;
        const double value = score(queries_.data() + q * s_.dim, matrix_.data() + r * s_.dim, s_.dim, s_.metric,
                                   &bounds[static_cast<size_t>(r)]);
        truth.emplace_back(-value, static_cast<int32_t>(r));
      }
      std::sort(truth.begin(), truth.end());
      const size_t k = std::min(truth.size(), static_cast<size_t>(s_.k));
      std::vector<int32_t> best;
      for (size_t i = 0; i < k; ++i) best.push_back(truth[i].second);
      wanted += static_cast<int64_t>(k);
      for (size_t i = 0; i < static_cast<size_t>(s_.k); ++i) {
        const int32_t row = rows_[static_cast<size_t>(q * s_.k) + i];
        const float value = scores_[static_cast<size_t>(q * s_.k) + i];
        if (row == -1) {
          if (value != -std::numeric_limits<float>::infinity() || (s_.all_lists && i < k)) return "wrong padding";
          continue;
        }
        if (row < 0 || row >= s_.n_rows || !allowed(row)) return "a row is out of range or filtered";
        double bound = 0;
        const double right =
            score(queries_.data() + q * s_.dim, matrix_.data() + row * s_.dim, s_.dim, s_.metric, &bound);
        if (!(std::fabs(right - static_cast<double>(value)) <= bound)) {
          std::snprintf(text, sizeof text, "query %lld, row %d: score %.9g, truth %.9g", static_cast<long long>(q), row,
                        static_cast<double>(value), right);
          return text;
        }
        // Exactly the best, but for pairs that floats cannot tell apart.
        if (s_.all_lists && i < k &&
            right + 2 * bound < -truth[i].first - 2 * bounds[static_cast<size_t>(truth[i].second)]) {
          std::snprintf(text, sizeof text, "query %lld, rank %zu: a better row was missed", static_cast<long long>(q),
                        i);
          return text;
        }
        found += std::count(best.begin(), best.end(), row);
      }
    }
    if (wanted > 0 && static_cast<double>(found) < 0.9 * static_cast<double>(wanted)) {
      std::snprintf(text, sizeof text, "recall %.3f", static_cast<double>(found) / static_cast<double>(wanted));
      return text;
    }
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(report_.rows_scanned) * static_cast<double>(s_.dim);
  }
  double bytes() const override { return multiply_adds() * (s_.int8_lists ? 1 : 4); }

 private:
  Status build(const RunContext& context) {
    IvfBuildArgs args;
    args.matrix = {matrix_.data(), s_.n_rows, s_.dim};
    args.metric = s_.metric;
    args.int8_lists = s_.int8_lists;
    args.seed = s_.seed;
    return IvfIndex::build(args, context, &index_);
  }
  bool allowed(int64_t r) const {
    return filter_.empty() || ((filter_[static_cast<size_t>(r >> 3)] >> (r & 7)) & 1) != 0;
  }

  Shape s_;
  bool for_bench_;
  std::vector<float> matrix_;
  std::vector<float> queries_;
  std::vector<uint8_t> filter_;
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  std::shared_ptr<const IvfIndex> index_;
  IvfSearchReport report_;
  Status built_;
};

class KmeansCase final : public Case {
 public:
  KmeansCase(int64_t n, int64_t dim, int32_t k) : n_(n), dim_(dim), k_(k) {}

  std::string name() const override {
    char text[120];
    std::snprintf(text, sizeof text, "kmeans n=%lld d=%lld k=%d", static_cast<long long>(n_),
                  static_cast<long long>(dim_), k_);
    return text;
  }

  void prepare() override {
    bench::ClusteredShape shape;
    shape.dim = dim_;
    shape.n_centres = 200;
    shape.intrinsic_dim = std::min<int64_t>(8, dim_);
    x_ = bench::Clustered(shape, 6).rows(n_);
    centroids_.assign(static_cast<size_t>(k_ * dim_), 9.0f);
    assignments_.assign(static_cast<size_t>(n_), -1);
  }

  Status call(const RunContext& context) override {
    KmeansArgs args;
    args.x = {x_.data(), n_, dim_};
    args.k = k_;
    args.centroids = centroids_.data();
    args.assignments = assignments_.data();
    return kmeans(args, context, &result_);
  }

  // The bits of the processor alone, without the accelerator that may have helped.
  std::string differs_from_processor() const {
    std::vector<float> centroids(centroids_.size());
    std::vector<int32_t> assignments(assignments_.size());
    KmeansArgs args;
    args.x = {x_.data(), n_, dim_};
    args.k = k_;
    args.centroids = centroids.data();
    args.assignments = assignments.data();
    KmeansResult result;
    if (const Status status = cpu::kmeans(*registry().table, args, RunContext{}, &result); !status.ok()) {
      return status.text();
    }
    if (result.iterations != result_.iterations) return "another number of iterations";
    if (std::memcmp(&result.objective, &result_.objective, sizeof(double)) != 0) return "another objective";
    if (std::memcmp(centroids.data(), centroids_.data(), centroids.size() * sizeof(float)) != 0) {
      return "centroids have other bits";
    }
    return assignments == assignments_ ? "" : "other assignments";
  }

  std::string verify() override {
    if (std::string wrong = differs_from_processor(); !wrong.empty()) return wrong;
    double objective = 0;
    double total = 0;
    std::vector<double> mean(static_cast<size_t>(dim_), 0.0);
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t i = 0; i < dim_; ++i) {
        mean[static_cast<size_t>(i)] +=
            static_cast<double>(x_[static_cast<size_t>(r * dim_ + i)]) / static_cast<double>(n_);
      }
    }
    for (int64_t r = 0; r < n_; ++r) {
      double best = std::numeric_limits<double>::infinity();
      double own = 0;
      for (int32_t c = 0; c < k_; ++c) {
        double d = 0;
        for (int64_t i = 0; i < dim_; ++i) {
          const double difference = static_cast<double>(x_[static_cast<size_t>(r * dim_ + i)]) -
                                    static_cast<double>(centroids_[static_cast<size_t>(c * dim_ + i)]);
          d += difference * difference;
        }
        best = std::min(best, d);
        if (c == assignments_[static_cast<size_t>(r)]) own = d;
      }
      if (own > best + 1e-5) return "a row is not with its nearest centroid";
      objective += own;
      for (int64_t i = 0; i < dim_; ++i) {
        const double d = static_cast<double>(x_[static_cast<size_t>(r * dim_ + i)]) - mean[static_cast<size_t>(i)];
        total += d * d;
      }
    }
    if (std::fabs(objective - result_.objective) > 1e-4 * objective + 1e-6) return "the objective does not add up";
    if (k_ > 1 && objective > 0.9 * total) return "the clusters explain nothing";
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(result_.n_sampled * (result_.iterations + 1) + n_) * static_cast<double>(dim_) * k_;
  }
  double bytes() const override { return static_cast<double>(n_) * static_cast<double>(dim_) * 4; }

 private:
  int64_t n_;
  int64_t dim_;
  int32_t k_;
  std::vector<float> x_;
  std::vector<float> centroids_;
  std::vector<int32_t> assignments_;
  KmeansResult result_;
};

// The accelerator's nearest centroids by int8 codes against plain integer arithmetic; only where one is in use.
class NearestCase final : public Case {
 public:
  NearestCase(int64_t n, int64_t quads, int64_t k) : n_(n), quads_(quads), k_(k) {}
  std::string name() const override {
    return "ivf/nearest n=" + std::to_string(n_) + " quads=" + std::to_string(quads_) + " k=" + std::to_string(k_);
  }
  void prepare() override {
    Random random(static_cast<uint64_t>(n_ + quads_ * 1000 + k_));
    const auto codes = [&](int64_t rows) {
      std::vector<int8_t> made(static_cast<size_t>(rows * quads_ * 4));
      for (int8_t& c : made) c = static_cast<int8_t>(random.below(255) - 127);
      return made;
    };
    const auto floats = [&](int64_t rows, double from) {
      std::vector<float> made(static_cast<size_t>(rows));
      for (float& v : made) v = static_cast<float>(from + random.uniform() * 0.01);
      return made;
    };
    codes_ = codes(n_);
    centroids_ = codes(k_);
    scales_ = floats(n_, 0.001);
    centroid_scales_ = floats(k_, 0.001);
    biases_ = floats(k_, -0.5);
    // Equal centroids: the lower one wins.
    if (k_ > 40) {
      std::copy_n(centroids_.begin() + 3 * quads_ * 4, quads_ * 4, centroids_.begin() + 39 * quads_ * 4);
      centroid_scales_[39] = centroid_scales_[3];
      biases_[39] = biases_[3] = -0.1f;
    }
    labels_.assign(static_cast<size_t>(n_), -1);
    scores_.assign(static_cast<size_t>(n_), -1.0f);
  }
  Status call(const RunContext& context) override {
    NearestCodes args;
    args.codes = codes_.data();
    args.scales = scales_.data();
    args.n = n_;
    args.quads = quads_;
    args.centroids = centroids_.data();
    args.centroid_scales = centroid_scales_.data();
    args.biases = biases_.data();
    args.k = k_;
    Status status;
    if (!nearest_on_device(args, context, labels_.data(), scores_.data(), &status) && status.ok()) {
      return Status(Code::kBackend, "the accelerator left it to the processor");
    }
    return status;
  }
  std::string verify() override {
    const int64_t step = std::max<int64_t>(1, n_ / 2000);
    for (int64_t r = 0; r < n_; r += step) {
      float best = -std::numeric_limits<float>::infinity();
      int32_t label = 0;
      for (int64_t c = 0; c < k_; ++c) {
        int32_t dot = 0;
        for (int64_t i = 0; i < quads_ * 4; ++i) {
          dot += codes_[static_cast<size_t>(r * quads_ * 4 + i)] * centroids_[static_cast<size_t>(c * quads_ * 4 + i)];
        }
        const float scale = scales_[static_cast<size_t>(r)] * centroid_scales_[static_cast<size_t>(c)];
        const float product = static_cast<float>(dot) * scale;
        const float score = product + biases_[static_cast<size_t>(c)];
        if (score > best) {
          best = score;
          label = static_cast<int32_t>(c);
        }
      }
      if (labels_[static_cast<size_t>(r)] != label) return "row " + std::to_string(r) + " has another centroid";
      if (scores_[static_cast<size_t>(r)] != best) return "row " + std::to_string(r) + " has another score";
    }
    return {};
  }

 private:
  int64_t n_;
  int64_t quads_;
  int64_t k_;
  std::vector<int8_t> codes_, centroids_;
  std::vector<float> scales_, centroid_scales_, biases_;
  std::vector<int32_t> labels_;
  std::vector<float> scores_;
};

}  // namespace

void add_ivf_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<IvfCase>(shape, for_bench)); };
  const auto add_kmeans = [&](int64_t n, int64_t dim, int32_t k) {
    cases.push_back(std::make_unique<KmeansCase>(n, dim, k));
  };
  if (for_bench) {
    for (const int64_t q : {1, 64, 1024}) add({q, 200000, 384, 10, Metric::kCosine, true, false});
    add_kmeans(20000, 384, 256);
    return;
  }
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const bool int8_lists : {true, false}) {
      add({0, 10, 4, 3, metric, int8_lists});  // no queries
      add({1, 1, 1, 1, metric, int8_lists});   // one of everything
      add({2, 5, 3, 8, metric, int8_lists});   // more answers than rows
      add({5, 1000, 37, 10, metric, int8_lists, true, 1.0, 2});
      add({4, 1500, 70, 10, metric, int8_lists, true, 0.3, 3});
      add({4, 1500, 16, 10, metric, int8_lists, true, 0.0, 4});
      add({40, 3000, 48, 10, metric, int8_lists, false, 1.0, 5});
      add({40, 3000, 33, 10, metric, int8_lists, false, 0.4, 6});
      add({40, 3000, 20, 10, metric, int8_lists, false, 0.01, 7});
    }
  }
  add_kmeans(1, 1, 1);
  add_kmeans(500, 3, 7);
  add_kmeans(900, 37, 30);
  add_kmeans(2000, 16, 300);
  add_kmeans(300, 1100, 9);  // three chains of a sum
  add_kmeans(700, 21, 65);
  if (backend_info().backend == "cpu") return;
  for (const int64_t k : {1, 63, 64, 130}) {
    for (const int64_t quads : {1, 16, 37}) cases.push_back(std::make_unique<NearestCase>(77 * k % 300 + 1, quads, k));
  }
  cases.push_back(std::make_unique<NearestCase>(3000, 20, 70));  // in several pieces
}

}  // namespace waggle::conformance
