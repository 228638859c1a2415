#include "bench/device_bench.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "bench/clustered.hpp"
#include "bench/device_ranking.hpp"
#include "cpu/kmeans.hpp"
#include "cpu/rank_batch.hpp"
#include "src/registry.hpp"
#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "waggle/backend.hpp"
#include "waggle/device_items.hpp"
#include "waggle/device_matrix.hpp"
#include "waggle/ivf.hpp"
#include "waggle/ops/kmeans.hpp"
#include "waggle/ops/topk.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::bench {

namespace {

constexpr int64_t kDim = 384;
constexpr int32_t kK = 100;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Calls body(begin, end) for the parts of 0 … n, one per thread of the machine.
void in_parallel(int64_t n, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t n_threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < n_threads; ++t)
    threads.emplace_back([&, t] { body(n * t / n_threads, n * (t + 1) / n_threads); });
  for (std::thread& thread : threads) thread.join();
}

// Row r of the data with this seed: near Gaussian, a function of both numbers alone.
void fill_row(uint64_t seed, int64_t r, float* row) {
  conformance::Random random(seed + static_cast<uint64_t>(r) * 0x9e3779b97f4a7c15u);
  for (int64_t i = 0; i < kDim; ++i) {
    // Four 16-bit uniforms less their mean.
    const uint64_t word = random.next();
    const uint64_t sum = (word & 0xffffu) + (word >> 16 & 0xffffu) + (word >> 32 & 0xffffu) + (word >> 48);
    row[i] = (static_cast<float>(sum) - 131070.0f) / 65536.0f;
  }
}

void fill_rows(uint64_t seed, int64_t first, int64_t count, float* out) {
  in_parallel(count, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) fill_row(seed, first + r, out + r * kDim);
  });
}

// The same rows, made when they are asked for: 100M of them in f32 would need 154 GB.
class MadeRows final : public RowSource {
 public:
  explicit MadeRows(uint64_t seed) : seed_(seed) {}
  void read(int64_t first, int64_t count, float* out) const override {
    for (int64_t i = 0; i < count; ++i) fill_row(seed_, first + i, out + i * kDim);
  }

 private:
  uint64_t seed_;
};

class Bench {
 public:
  explicit Bench(const DeviceBenchOptions& options) : options_(options) {}

  int run() {
    std::printf("[\n");
    const int64_t n_rows = options_.quick ? 1'000'000 : 10'000'000;
    searches(n_rows, options_.quick ? "" : "/n10m");
    if (options_.huge) huge();
    forest("200x6", 200, 64);
    forest("500x8", 500, 256);
    ranking("64x1000", 64, 2000, false);
    ranking("64x1000", 64, 2000, true);
    ranking("256x20k", 256, 40000, true);
    clusters(options_.quick ? 65536 : 262144, 1024);
    lists(options_.quick ? 262144 : 1048576);
    std::printf("\n]\n");
    return failed_ ? 1 : 0;
  }

 private:
  bool wanted(const std::string& name) const { return std::strstr(name.c_str(), options_.filter) != nullptr; }

  struct Times {
    double median = 0;
    double iqr = 0;
    int runs = 0;
  };

  Times time(const std::function<Status()>& call) {
    Times times;
    const auto attempt = [&] {
      const auto start = std::chrono::steady_clock::now();
      const Status status = call();
      if (!status.ok()) {
        std::fprintf(stderr, "native_bench: %s\n", status.text().c_str());
        failed_ = true;
      }
      return seconds_since(start);
    };
    attempt();
    attempt();
    const double once = attempt();
    times.runs = std::clamp(static_cast<int>(1.0 / std::max(once, 1e-9)), 5, 31);
    std::vector<double> all;
    for (int i = 0; i < times.runs; ++i) all.push_back(attempt());
    std::sort(all.begin(), all.end());
    const auto at = [&](double share) { return all[static_cast<size_t>(share * static_cast<double>(all.size() - 1))]; };
    times.median = at(0.5);
    times.iqr = at(0.75) - at(0.25);
    return times;
  }

  void print(const std::string& suite, const std::string& name, const char* metric, const char* unit, double value,
             double iqr, int runs, const std::string& more) {
    std::printf(
        "%s  {\"suite\": \"%s\", \"case\": \"%s\", \"metric\": \"%s\", \"unit\": \"%s\", \"value\": %.6g, "
        "\"iqr\": %.6g, \"runs\": %d%s, \"device\": \"%s\"}",
        first_ ? "" : ",\n", suite.c_str(), name.c_str(), metric, unit, value, iqr, runs, more.c_str(),
        backend_info().device.c_str());
    first_ = false;
    std::fflush(stdout);
  }

  void searches(int64_t n_rows, const std::string& size) {
    struct Kind {
      const char* name;
      DeviceDtype dtype;
    };
    constexpr Kind kKinds[] = {{"f16", DeviceDtype::kF16}, {"int8", DeviceDtype::kInt8}};
    std::vector<float> matrix;
    std::vector<float> queries(static_cast<size_t>(1024 * kDim));
    for (const Kind& kind : kKinds) {
      const auto id = [&](int64_t n_queries) {
        return std::string(kind.name) + "/q" + std::to_string(n_queries) + size + "/cuda";
      };
      if (!wanted("topk/" + id(1)) && !wanted("topk/" + id(64)) && !wanted("topk/" + id(1024))) continue;
      if (matrix.empty()) {
        matrix.resize(static_cast<size_t>(n_rows * kDim));
        fill_rows(1, 0, n_rows, matrix.data());
        fill_rows(2, 0, 1024, queries.data());
      }
      const auto start = std::chrono::steady_clock::now();
      DeviceMatrixArgs args;
      args.matrix = {matrix.data(), n_rows, kDim};
      args.dtype = kind.dtype;
      std::shared_ptr<DeviceMatrix> device;
      if (const Status status = DeviceMatrix::open(args, RunContext{}, &device); !status.ok()) {
        std::fprintf(stderr, "native_bench: %s\n", status.text().c_str());
        failed_ = true;
        return;
      }
      std::fprintf(stderr, "%s%s: opened in %.2f s, %.2f GB on the device\n", kind.name, size.c_str(),
                   seconds_since(start), static_cast<double>(device->device_bytes()) / 1e9);
      for (const int64_t n_queries : {1, 64, 1024}) {
        if (!wanted("topk/" + id(n_queries))) continue;
        std::vector<float> scores(static_cast<size_t>(n_queries * kK));
        std::vector<int32_t> rows(scores.size());
        DeviceTopkArgs search;
        search.queries = {queries.data(), n_queries, kDim};
        search.k = kK;
        search.scores = scores.data();
        search.rows = rows.data();
        const Times times = time([&] { return device->topk(search, RunContext{}); });
        check(MadeRows(1), n_rows, queries, std::min<int64_t>(n_queries, 3), rows, scores);
        agree(id(n_queries), rows, scores);
        const double bytes = static_cast<double>(n_rows * kDim) * (kind.dtype == DeviceDtype::kInt8 ? 1 : 2);
        const double flops = 2.0 * static_cast<double>(n_queries) * static_cast<double>(n_rows) * kDim;
        char more[200];
        std::snprintf(more, sizeof more, ", \"gb_per_s\": %.1f, \"tflops\": %.2f, \"rescored\": %lld",
                      bytes / times.median / 1e9, flops / times.median / 1e12,
                      static_cast<long long>(search.n_rescored));
        print("topk", id(n_queries), "time_ms", "ms", times.median * 1e3, times.iqr * 1e3, times.runs, more);
      }
    }
  }

  // 100M rows in int8; their f32 rows stay with the host, which scores what the device cannot exclude.
  void huge() {
    constexpr int64_t kRows = 100'000'000;
    const auto source = std::make_shared<MadeRows>(1);
    std::vector<float> queries(static_cast<size_t>(64 * kDim));
    fill_rows(2, 0, 64, queries.data());
    DeviceMatrixArgs args;
    args.matrix = {nullptr, kRows, kDim};
    args.source = source;
    args.dtype = DeviceDtype::kInt8;
    args.exact = ExactRows::kOnHost;
    const auto start = std::chrono::steady_clock::now();
    std::shared_ptr<DeviceMatrix> device;
    if (const Status status = DeviceMatrix::open(args, RunContext{}, &device); !status.ok()) {
      std::fprintf(stderr, "native_bench: %s\n", status.text().c_str());
      failed_ = true;
      return;
    }
    std::fprintf(stderr, "int8/n100m: made and opened in %.2f s, %.2f GB on the device\n", seconds_since(start),
                 static_cast<double>(device->device_bytes()) / 1e9);
    for (const int64_t n_queries : {1, 64}) {
      std::vector<float> scores(static_cast<size_t>(n_queries * kK));
      std::vector<int32_t> rows(scores.size());
      DeviceTopkArgs search;
      search.queries = {queries.data(), n_queries, kDim};
      search.k = kK;
      search.scores = scores.data();
      search.rows = rows.data();
      const Times times = time([&] { return device->topk(search, RunContext{}); });
      check(*source, kRows, queries, 1, rows, scores);
      char more[200];
      std::snprintf(more, sizeof more, ", \"gb_per_s\": %.1f, \"rescored\": %lld",
                    static_cast<double>(kRows * kDim) / times.median / 1e9, static_cast<long long>(search.n_rescored));
      print("topk", "int8/q" + std::to_string(n_queries) + "/n100m/cuda", "time_ms", "ms", times.median * 1e3,
            times.iqr * 1e3, times.runs, more);
    }
  }

  // Every type and number of queries has the same answer, to the bit, since what a scan finds is scored exactly: all of
  // it is compared with the longest so far, so that a scan that loses rows of some queries shows.
  void agree(const std::string& name, const std::vector<int32_t>& rows, const std::vector<float>& scores) {
    const size_t known = std::min(rows.size(), answer_rows_.size());
    for (size_t i = 0; i < known; ++i) {
      if (rows[i] == answer_rows_[i] && scores[i] == answer_scores_[i]) continue;
      std::fprintf(stderr, "native_bench: %s, query %zu, rank %zu: row %d with %.9g, elsewhere row %d with %.9g\n",
                   name.c_str(), i / kK, i % kK, rows[i], static_cast<double>(scores[i]), answer_rows_[i],
                   static_cast<double>(answer_scores_[i]));
      failed_ = true;
      return;
    }
    if (rows.size() <= known) return;
    answer_rows_ = rows;
    answer_scores_ = scores;
  }

  // The first queries' answers against plain products in double.
  void check(const RowSource& source, int64_t n_rows, const std::vector<float>& queries, int64_t n_queries,
             const std::vector<int32_t>& rows, const std::vector<float>& scores) {
    std::vector<float> truth(static_cast<size_t>(n_rows));
    std::vector<int32_t> order(truth.size());
    for (int64_t q = 0; q < n_queries; ++q) {
      const float* query = queries.data() + q * kDim;
      in_parallel(n_rows, [&](int64_t begin, int64_t end) {
        float row[kDim];
        for (int64_t r = begin; r < end; ++r) {
          source.read(r, 1, row);
          double sum = 0;
          for (int64_t i = 0; i < kDim; ++i) sum += static_cast<double>(query[i]) * row[i];
          truth[static_cast<size_t>(r)] = static_cast<float>(sum);
          order[static_cast<size_t>(r)] = static_cast<int32_t>(r);
        }
      });
      std::partial_sort(order.begin(), order.begin() + kK, order.end(), [&](int32_t a, int32_t b) {
        const float left = truth[static_cast<size_t>(a)];
        const float right = truth[static_cast<size_t>(b)];
        return left > right || (left == right && a < b);
      });
      for (int32_t i = 0; i < kK; ++i) {
        const size_t at = static_cast<size_t>(q * kK + i);
        const float score = truth[static_cast<size_t>(order[static_cast<size_t>(i)])];
        // Sums of doubles in another order, rounded once: one unit in the last place.
        if (std::abs(scores[at] - score) > 1.2e-7f * std::abs(score) ||
            (rows[at] != order[static_cast<size_t>(i)] &&
             std::abs(truth[static_cast<size_t>(rows[at])] - score) > 1.2e-7f * std::abs(score))) {
          std::fprintf(stderr, "native_bench: query %lld, rank %d: row %d with %.9g, not row %d with %.9g\n",
                       static_cast<long long>(q), i, rows[at], static_cast<double>(scores[at]),
                       order[static_cast<size_t>(i)], static_cast<double>(score));
          failed_ = true;
          return;
        }
      }
    }
  }

  void forest(const char* name, int32_t n_trees, int32_t n_leaves) {
    const std::string id = std::string(name) + "/n100k/cuda";
    if (!wanted("trees/" + id)) return;
    constexpr int64_t kRows = 100'000;
    conformance::TreesShape shape;
    shape.n_trees = n_trees;
    shape.n_leaves = n_leaves;
    shape.complete = true;
    shape.n_features = 50;
    trees::Ensemble ensemble = conformance::random_ensemble(shape);
    conformance::Random random(5);
    const std::vector<float> x = conformance::random_rows(ensemble, kRows, random, true);
    std::shared_ptr<const trees::Model> model;
    if (!trees::Model::create(std::move(ensemble), &model).ok()) return;
    std::vector<float> on_device(static_cast<size_t>(kRows));
    std::vector<float> on_one(on_device.size());
    TreesPredictArgs args;
    args.model = model.get();
    args.x = x.data();
    args.n_rows = kRows;
    args.out = on_device.data();
    const Times device = time([&] { return trees_predict(args, RunContext{}); });
    args.out = on_one.data();
    args.threads = 1;
    RunContext serial;
    serial.parallel = false;
    const Times one = time([&] { return trees_predict(args, serial); });
    if (std::memcmp(on_device.data(), on_one.data(), on_one.size() * 4) != 0) {
      std::fprintf(stderr, "native_bench: the trees' answers differ\n");
      failed_ = true;
    }
    print("trees", id, "rows_per_s", "rows/s", kRows / device.median,
          kRows * device.iqr / device.median / device.median, device.runs, "");
    print("trees", id, "speedup_vs_one_cpu_thread", "×", one.median / device.median, 0, device.runs, "");
  }

  void fail_with(const Status& status) {
    std::fprintf(stderr, "native_bench: %s\n", status.text().c_str());
    failed_ = true;
  }

  // Requests × candidates (half of the items each), on the device and by all threads of the processor, with the same
  // bits; `resident`: embeddings and features stay on the device, else they travel with each call.
  void ranking(const char* size, int64_t n_requests, int64_t n_items, bool resident) {
    const std::string id = std::string(size) + (resident ? "/resident/cuda" : "/cuda");
    if (!wanted("rank-batch/" + id)) return;
    const Ranking batch(n_requests, n_items, 10);
    if (!batch.made().ok()) return fail_with(batch.made());
    std::shared_ptr<const DeviceItems> items;
    if (resident) {
      if (const Status status = DeviceItems::open(batch.items(), RunContext{}, &items); !status.ok()) {
        return fail_with(status);
      }
    }
    Ranking::Answer on_device, on_processor;
    RankBatchArgs args = batch.args(&on_device);
    args.resident = items.get();
    const Times device = time([&] { return rank_batch(args, RunContext{}); });
    const RankBatchArgs alone = batch.args(&on_processor);
    const Times processor = time([&] { return cpu::rank_batch(*registry().table, alone, RunContext{}); });
    if (on_device.items != on_processor.items || on_device.counts != on_processor.counts ||
        on_device.scores != on_processor.scores || on_device.terms != on_processor.terms ||
        on_device.predictions != on_processor.predictions) {
      std::fprintf(stderr, "native_bench: the rankings differ\n");
      failed_ = true;
    }
    print("rank-batch", id, "time_ms", "ms", device.median * 1e3, device.iqr * 1e3, device.runs, "");
    print("rank-batch", id, "speedup_vs_cpu", "×", processor.median / device.median, 0, device.runs, "");
  }

  // Two iterations of Lloyd's algorithm from the first rows, on the device and by all threads, with the same bits.
  void clusters(int64_t n, int32_t k) {
    const std::string id = "n" + std::to_string(n / 1024) + "k-k" + std::to_string(k) + "/cuda";
    if (!wanted("kmeans/" + id)) return;
    std::vector<float> x(static_cast<size_t>(n * kDim));
    fill_rows(3, 0, n, x.data());
    struct Answer {
      std::vector<float> centroids;
      std::vector<int32_t> assignments;
      KmeansResult result;
    } on_device, on_processor;
    const auto args_for = [&](Answer& to) {
      to.centroids.resize(static_cast<size_t>(k) * kDim);
      to.assignments.resize(static_cast<size_t>(n));
      KmeansArgs args;
      args.x = {x.data(), n, kDim};
      args.k = k;
      args.max_iterations = 2;
      args.tolerance = 0;
      args.samples_per_cluster = 0;
      args.start = x.data();
      args.centroids = to.centroids.data();
      args.assignments = to.assignments.data();
      return args;
    };
    const KmeansArgs for_device = args_for(on_device);
    const Times device = time([&] { return kmeans(for_device, RunContext{}, &on_device.result); });
    const KmeansArgs for_processor = args_for(on_processor);
    const auto start = std::chrono::steady_clock::now();
    const Status status = cpu::kmeans(*registry().table, for_processor, RunContext{}, &on_processor.result);
    const double processor = seconds_since(start);
    if (!status.ok()) return fail_with(status);
    if (on_device.centroids != on_processor.centroids || on_device.assignments != on_processor.assignments) {
      std::fprintf(stderr, "native_bench: the clusters differ\n");
      failed_ = true;
    }
    char more[80];
    std::snprintf(more, sizeof more, ", \"pair_dims_per_s\": %.4g",
                  3.0 * static_cast<double>(n) * k * kDim / device.median);
    print("kmeans", id, "time_ms", "ms", device.median * 1e3, device.iqr * 1e3, device.runs, more);
    print("kmeans", id, "speedup_vs_cpu", "×", processor / device.median, 0, 1, "");
  }

  // Training and assignment of an IVF index, timed by its own stages. WAGGLE_BACKEND=cpu npm run bench -- ivf has the
  // processor's.
  void lists(int64_t n) {
    const std::string id = "build/n" + std::to_string(n / 1024) + "k/cuda";
    if (!wanted("ivf/" + id)) return;
    const std::vector<float> rows = Clustered({}, 7).rows(n);
    IvfBuildArgs args;
    args.matrix = {rows.data(), n, kDim};
    args.metric = Metric::kCosine;
    std::vector<double> ends(4, 0.0);
    const auto start = std::chrono::steady_clock::now();
    args.progress = [&](int stage, double) { ends[static_cast<size_t>(stage)] = seconds_since(start); };
    std::shared_ptr<const IvfIndex> index;
    if (const Status status = IvfIndex::build(args, RunContext{}, &index); !status.ok()) return fail_with(status);
    char more[80];
    std::snprintf(more, sizeof more, ", \"train_s\": %.3f, \"assign_s\": %.3f", ends[0], ends[1] - ends[0]);
    print("ivf", id, "build_s", "s", seconds_since(start), 0, 1, more);
  }

  DeviceBenchOptions options_;
  std::vector<int32_t> answer_rows_;  // of searches(), of as many queries as any of them had
  std::vector<float> answer_scores_;
  bool first_ = true;
  bool failed_ = false;
};

}  // namespace

int device_bench(const DeviceBenchOptions& options) { return Bench(options).run(); }

}  // namespace waggle::bench
