#include "waggle/ops/kmeans.hpp"

#include <atomic>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "bench/clustered.hpp"
#include "cpu/kmeans.hpp"
#include "cpu/table.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/tables.hpp"

using namespace waggle;

namespace {

struct Fixture {
  int64_t n;
  int64_t dim;
  std::vector<float> x;
  std::vector<float> centroids;
  std::vector<int32_t> assignments;
  KmeansArgs args;
  KmeansResult result;

  Fixture(std::vector<float> values, int64_t dim_, int32_t k)
      : n(static_cast<int64_t>(values.size()) / dim_),
        dim(dim_),
        x(std::move(values)),
        centroids(static_cast<size_t>(k * dim_), 9.0f),
        assignments(static_cast<size_t>(n), -7) {
    args.x = {x.data(), n, dim};
    args.k = k;
    args.centroids = centroids.data();
    args.assignments = assignments.data();
  }
};

std::vector<float> clustered(int64_t n, int64_t dim) {
  bench::ClusteredShape shape;
  shape.dim = dim;
  shape.n_centres = 30;
  shape.intrinsic_dim = 6;
  return bench::Clustered(shape, 2).rows(n);
}

double square_distance(const float* a, const double* b, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

// Lloyd's algorithm in double, plainly.
struct Naive {
  std::vector<double> centroids;
  std::vector<int32_t> labels;
  std::vector<double> objectives;

  void run(const Fixture& f, const std::vector<float>& start, int32_t iterations) {
    const size_t k = static_cast<size_t>(f.args.k);
    const size_t dim = static_cast<size_t>(f.dim);
    centroids.assign(start.begin(), start.end());
    labels.assign(static_cast<size_t>(f.n), 0);
    for (int32_t step = 0; step <= iterations; ++step) {
      double objective = 0;
      for (size_t r = 0; r < labels.size(); ++r) {
        double best = std::numeric_limits<double>::infinity();
        for (size_t c = 0; c < k; ++c) {
          const double d = square_distance(f.x.data() + r * dim, centroids.data() + c * dim, f.dim);
          if (d < best) {
            best = d;
            labels[r] = static_cast<int32_t>(c);
          }
        }
        objective += best;
      }
      objectives.push_back(objective);
      if (step == iterations) return;
      std::vector<double> sums(centroids.size(), 0.0);
      std::vector<double> counts(k, 0.0);
      for (size_t r = 0; r < labels.size(); ++r) {
        counts[static_cast<size_t>(labels[r])] += 1;
        for (size_t i = 0; i < dim; ++i) sums[static_cast<size_t>(labels[r]) * dim + i] += f.x[r * dim + i];
      }
      for (size_t c = 0; c < k; ++c) {
        for (size_t i = 0; i < dim && counts[c] > 0; ++i) centroids[c * dim + i] = sums[c * dim + i] / counts[c];
      }
    }
  }
};

}  // namespace

TEST("kmeans agrees with Lloyd's algorithm in double from the same start, at every level") {
  for (const cpu::Table* table : tables_here()) {
    for (const int64_t dim : {1, 3, 24, 61}) {
      Fixture f(clustered(700, dim), dim, 9);
      const std::vector<float> start(f.x.begin(), f.x.begin() + 9 * dim);
      double before = std::numeric_limits<double>::infinity();
      for (const int32_t iterations : {0, 1, 2, 6}) {
        f.args.start = start.data();
        f.args.tolerance = 0;
        f.args.max_iterations = iterations;
        EXPECT(cpu::kmeans(*table, f.args, RunContext{}, &f.result).ok());
        Naive naive;
        naive.run(f, start, f.result.iterations);
        // A row midway between two centroids may go to either: the float cannot tell.
        int64_t different = 0;
        for (size_t r = 0; r < f.assignments.size(); ++r) different += f.assignments[r] != naive.labels[r];
        EXPECT(different <= 3);
        EXPECT(std::fabs(f.result.objective - naive.objectives.back()) <= 2e-3 * naive.objectives.back() + 1e-9);
        EXPECT(f.result.objective <= before * (1 + 1e-6) + 1e-12);
        before = f.result.objective;
      }
    }
  }
}

TEST("kmeans gives the same bits at any thread count, and other ones for another seed") {
  for (const int32_t k : {20, 300}) {
    std::vector<std::vector<float>> answers;
    for (const int variant : {0, 1, 2}) {
      Fixture f(clustered(12000, 16), 16, k);
      f.args.seed = variant == 2 ? 5 : 4;
      f.args.samples_per_cluster = 20;
      RunContext context;
      context.parallel = variant != 1;
      EXPECT(kmeans(f.args, context, &f.result).ok());
      EXPECT(f.result.n_sampled == 20 * k);
      const std::set<int32_t> used(f.assignments.begin(), f.assignments.end());
      EXPECT(*used.begin() >= 0 && *used.rbegin() < k && static_cast<int32_t>(used.size()) > k * 9 / 10);
      answers.push_back(f.centroids);
      answers.back().insert(answers.back().end(), f.assignments.begin(), f.assignments.end());
    }
    EXPECT(answers[0] == answers[1]);
    EXPECT(answers[0] != answers[2]);
  }
}

TEST("kmeans starts near the answer: k-means++ and k-means|| find well separated clusters") {
  for (const int32_t k : {40, 300}) {
    conformance::Random random(3);
    std::vector<float> x;
    for (int32_t c = 0; c < k; ++c) {
      for (int i = 0; i < 12; ++i) {
        for (int j = 0; j < 12; ++j) {
          const double centre = ((c >> j) & 1) != 0 ? 100.0 : 0.0;
          x.push_back(static_cast<float>(centre + random.uniform()));
        }
      }
    }
    Fixture f(std::move(x), 12, k);
    EXPECT(kmeans(f.args, RunContext{}, &f.result).ok());
    // 12 rows × 12 dimensions × variance 1/12 a cluster; one missed cluster would add 12 · 10⁴ / 2.
    EXPECT(f.result.objective < 12.0 * k + 1);
    EXPECT(f.result.converged);
    for (int32_t r = 0; r < 12 * k; ++r) {
      EXPECT(f.assignments[static_cast<size_t>(r)] == f.assignments[static_cast<size_t>(r / 12 * 12)]);
    }
  }
}

TEST("kmeans takes data without clusters, and refuses what it cannot do") {
  for (const int32_t k : {1, 7, 30}) {
    Fixture equal(std::vector<float>(30 * 4, 0.5f), 4, k);
    EXPECT(kmeans(equal.args, RunContext{}, &equal.result).ok());
    EXPECT(equal.result.objective == 0);
    for (const int32_t label : equal.assignments) EXPECT(label == 0);
    for (const float value : equal.centroids) EXPECT(value == 0.5f);
    // As many clusters as distinct rows: each its own.
    std::vector<float> distinct;
    for (int32_t r = 0; r < 30; ++r) distinct.insert(distinct.end(), 4, static_cast<float>(r % k));
    Fixture exact(distinct, 4, k);
    EXPECT(kmeans(exact.args, RunContext{}, &exact.result).ok());
    EXPECT(exact.result.objective == 0);
  }
  // Clusters that lose all their rows take over the farthest ones.
  std::vector<float> x;
  for (int i = 0; i < 40; ++i) x.push_back(static_cast<float>(i * i));
  Fixture far(x, 1, 4);
  const std::vector<float> start = {0, 1e6f, 2e6f, 3e6f};
  far.args.start = start.data();
  EXPECT(kmeans(far.args, RunContext{}, &far.result).ok());
  EXPECT(std::set<int32_t>(far.assignments.begin(), far.assignments.end()).size() == 4);

  const auto code_of = [](auto change) {
    Fixture f(clustered(50, 4), 4, 5);
    change(f);
    return kmeans(f.args, RunContext{}, &f.result).code();
  };
  EXPECT(code_of([](Fixture& f) { f.args.k = 0; }) == Code::kInvalidArgument);
  EXPECT(code_of([](Fixture& f) { f.args.k = 51; }) == Code::kInvalidArgument);
  EXPECT(code_of([](Fixture& f) { f.args.x.rows = 0; }) == Code::kShape);
  EXPECT(code_of([](Fixture& f) { f.args.x.cols = 0; }) == Code::kShape);
  EXPECT(code_of([](Fixture& f) { f.args.max_iterations = -1; }) == Code::kInvalidArgument);
  EXPECT(code_of([](Fixture& f) { f.args.tolerance = std::nan(""); }) == Code::kInvalidArgument);
  EXPECT(code_of([](Fixture& f) { f.args.samples_per_cluster = -1; }) == Code::kInvalidArgument);
  EXPECT(code_of([](Fixture& f) { f.args.centroids = nullptr; }) == Code::kShape);
  EXPECT(code_of([](Fixture& f) { f.x[77] = std::nanf(""); }) == Code::kNotFinite);
  EXPECT(code_of([](Fixture& f) { f.x[77] = 1e30f; }) == Code::kNotFinite);

  Fixture stopped(clustered(5000, 4), 4, 50);
  std::atomic<bool> stop{false};
  RunContext context;
  context.cancelled = &stop;
  stopped.args.progress = [&](double done) {
    if (done > 0.1) stop.store(true);
  };
  EXPECT(kmeans(stopped.args, context, &stopped.result).code() == Code::kCancelled);
}
