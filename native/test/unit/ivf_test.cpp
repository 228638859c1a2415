#include "waggle/ivf.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "bench/clustered.hpp"
#include "cpu/table.hpp"
#include "src/ivf/codes.hpp"
#include "src/ivf/train.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/tables.hpp"
#include "test/unit/temporary_folder.hpp"
#include "waggle/ops/topk.hpp"

using namespace waggle;

namespace {

struct Data {
  int64_t dim = 40;
  std::vector<float> rows;
  std::vector<float> queries;
  Matrix<const float> matrix() const { return {rows.data(), static_cast<int64_t>(rows.size()) / dim, dim}; }
  Matrix<const float> asked() const { return {queries.data(), static_cast<int64_t>(queries.size()) / dim, dim}; }
};

Data clustered(int64_t n, int64_t n_queries, int64_t dim = 40) {
  bench::ClusteredShape shape;
  shape.dim = dim;
  shape.n_centres = 60;
  shape.intrinsic_dim = 8;
  const bench::Clustered source(shape, 11);
  Data data;
  data.dim = dim;
  data.rows = source.rows(n);
  data.queries = source.queries(n_queries);
  return data;
}

struct Answer {
  std::vector<float> scores;
  std::vector<int32_t> rows;
  IvfSearchReport report;
  Status status;
  bool operator==(const Answer& other) const {
    return rows == other.rows && scores.size() == other.scores.size() &&
           std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float)) == 0;
  }
};

Answer ask(const IvfIndex& index, const Matrix<const float>& queries, int32_t k, int32_t n_probe,
           const RowFilter& filter = {}, const RunContext& context = {}) {
  Answer a;
  a.scores.assign(static_cast<size_t>(queries.rows * k), 5.0f);
  a.rows.assign(a.scores.size(), 77);
  IvfSearchArgs args;
  args.queries = queries;
  args.k = k;
  args.n_probe = n_probe;
  args.filter = filter;
  args.scores = a.scores.data();
  args.rows = a.rows.data();
  a.status = index.search(args, context, &a.report);
  return a;
}

Answer exact(const Data& data, Metric metric, int32_t k, const RowFilter& filter = {}) {
  Answer a;
  a.scores.resize(static_cast<size_t>(data.asked().rows * k));
  a.rows.resize(a.scores.size());
  TopkArgs args;
  args.queries = data.asked();
  args.matrix = data.matrix();
  args.k = k;
  args.metric = metric;
  args.filter = filter;
  args.scores = a.scores.data();
  args.rows = a.rows.data();
  a.status = topk(args, RunContext{});
  return a;
}

std::shared_ptr<const IvfIndex> built(const IvfBuildArgs& args, const RunContext& context = {}) {
  std::shared_ptr<const IvfIndex> index;
  const Status status = IvfIndex::build(args, context, &index);
  EXPECT(status.ok());
  if (!status.ok()) std::printf("  %s\n", status.text().c_str());
  return index;
}

IvfBuildArgs build_args(const Data& data, Metric metric) {
  IvfBuildArgs args;
  args.matrix = data.matrix();
  args.metric = metric;
  return args;
}

double recall_of(const Answer& answer, const Answer& truth, int32_t k) {
  double hits = 0;
  for (size_t q = 0; q * static_cast<size_t>(k) < truth.rows.size(); ++q) {
    const auto begin = truth.rows.begin() + static_cast<std::ptrdiff_t>(q) * k;
    const std::set<int32_t> wanted(begin, begin + k);
    for (int32_t i = 0; i < k; ++i) {
      hits += static_cast<double>(wanted.count(answer.rows[q * static_cast<size_t>(k) + static_cast<size_t>(i)]));
    }
  }
  return hits / static_cast<double>(truth.rows.size());
}

constexpr Metric kMetrics[] = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};

}  // namespace

TEST("codes: every level agrees with plain arithmetic, to the bit where it promises to") {
  conformance::Random random(3);
  const cpu::IvfKernels& truth = cpu::table_for(cpu::Simd::kScalar)->ivf;
  for (const int64_t dim : {1, 3, 4, 16, 17, 45, 130, 384}) {
    const int64_t quads = ivf::quads_of(dim);
    constexpr int64_t kRows = 9 * ivf::kGroup;
    std::vector<float> x(static_cast<size_t>(dim)), centre(x.size());
    std::vector<int8_t> queries(static_cast<size_t>(11 * quads * 4)), codes(static_cast<size_t>(quads * 4));
    std::vector<uint8_t> groups(static_cast<size_t>(9 * quads * 64), 128);
    std::vector<int32_t> sums(11);
    std::vector<float> scale(kRows), bias(kRows);
    const auto fill = [&] {
      for (float& v : x) v = static_cast<float>(random.uniform() - 0.5);
      for (float& v : centre) v = static_cast<float>(random.uniform() - 0.5);
    };
    for (int64_t r = 0; r < kRows; ++r) {
      fill();
      cpu::IvfEncoding e;
      truth.encode(x.data(), 1.0f, centre.data(), dim, quads, codes.data(), &e);
      ivf::put_row(codes.data(), quads, r % 16, groups.data() + r / 16 * quads * 64);
      scale[static_cast<size_t>(r)] = e.scale;
      bias[static_cast<size_t>(r)] = e.along;
      // Each code is within half a step of its value.
      for (int64_t i = 0; i < dim; ++i) {
        const double value = static_cast<double>(x[static_cast<size_t>(i)] - centre[static_cast<size_t>(i)]);
        EXPECT(std::fabs(value - static_cast<double>(e.scale) * codes[static_cast<size_t>(i)]) <=
               0.500001 * static_cast<double>(e.scale));
      }
    }
    for (int32_t q = 0; q < 11; ++q) {
      for (int64_t i = 0; i < quads * 4; ++i) {
        // The extremes as well: nothing saturates.
        const int64_t code = q == 0 ? 127 : q == 1 ? -127 : random.below(255) - 127;
        queries[static_cast<size_t>(q * quads * 4 + i)] = static_cast<int8_t>(i < dim ? code : 0);
        sums[static_cast<size_t>(q)] += queries[static_cast<size_t>(q * quads * 4 + i)];
      }
    }
    for (const cpu::Table* table : tables_here()) {
      fill();
      std::vector<int8_t> expected(codes.size()), found(codes.size());
      cpu::IvfEncoding a;
      cpu::IvfEncoding b;
      for (const float* c : {static_cast<const float*>(nullptr), static_cast<const float*>(centre.data())}) {
        truth.encode(x.data(), 0.75f, c, dim, quads, expected.data(), &a);
        table->ivf.encode(x.data(), 0.75f, c, dim, quads, found.data(), &b);
        EXPECT(expected == found && a.scale == b.scale && a.sum == b.sum);
        EXPECT(std::fabs(a.square - b.square) <= 1e-5f * a.square &&
               std::fabs(a.along - b.along) <= 1e-5f * a.square + 1e-5f);
      }
      for (int64_t n_groups = 0; n_groups <= 9; ++n_groups) {
        for (int32_t n_queries = 1; n_queries <= 11; ++n_queries) {
          std::vector<int32_t> dots(static_cast<size_t>(n_queries * kRows), 99);
          table->ivf.dots(groups.data(), n_groups, queries.data(), sums.data(), n_queries, quads, dots.data(), kRows);
          bool same = true;
          for (int32_t q = 0; q < n_queries; ++q) {
            for (int64_t r = 0; r < kRows; ++r) {
              int32_t sum = 0;
              for (int64_t i = 0; i < quads * 4; ++i) {
                const uint8_t* block = groups.data() + r / 16 * quads * 64 + i / 4 * 64;
                sum += queries[static_cast<size_t>(q * quads * 4 + i)] * (block[r % 16 * 4 + i % 4] - 128);
              }
              same = same && dots[static_cast<size_t>(q * kRows + r)] == (r < n_groups * 16 ? sum : 99);
            }
          }
          EXPECT(same);
        }
      }
      std::vector<int32_t> dots(kRows);
      for (int32_t& d : dots) d = static_cast<int32_t>(random.below(20001) - 10000);
      dots[7] = dots[8];
      for (const int32_t n : {0, 1, 15, 16, 17, 100, 144}) {
        std::vector<int32_t> hits_a(kRows + 16), hits_b(kRows + 16);
        std::vector<float> scores_a(kRows + 16), scores_b(kRows + 16);
        const int32_t na = truth.collect(dots.data(), scale.data(), bias.data(), n, 0.01f, 0.3f, 0.35f, hits_a.data(),
                                         scores_a.data());
        const int32_t nb = table->ivf.collect(dots.data(), scale.data(), bias.data(), n, 0.01f, 0.3f, 0.35f,
                                              hits_b.data(), scores_b.data());
        EXPECT(na == nb && std::equal(hits_a.begin(), hits_a.begin() + na, hits_b.begin()) &&
               std::equal(scores_a.begin(), scores_a.begin() + na, scores_b.begin()));
        float best_a = -std::numeric_limits<float>::infinity();
        float best_b = best_a;
        int32_t row_a = -1;
        int32_t row_b = -1;
        truth.best(dots.data(), scale.data(), bias.data(), n, 0.01f, 40, &best_a, &row_a);
        table->ivf.best(dots.data(), scale.data(), bias.data(), n, 0.01f, 40, &best_b, &row_b);
        EXPECT(row_a == row_b && (n == 0 || best_a == best_b));
      }
      // Equal scores: the first row.
      const std::vector<int32_t> equal(64, 5);
      const std::vector<float> ones(64, 1.0f), zeros(64, 0.0f);
      float best = 4.0f;
      int32_t row = -1;
      table->ivf.best(equal.data(), ones.data(), zeros.data(), 64, 1.0f, 0, &best, &row);
      EXPECT(row == 0 && best == 5.0f);
      table->ivf.best(equal.data(), ones.data(), zeros.data(), 64, 1.0f, 64, &best, &row);
      EXPECT(row == 0);
    }
  }
}

TEST("the trainer puts rows with their nearest centroid and never makes the distortion worse than one mean") {
  const Data data = clustered(6000, 1);
  for (const cpu::Table* table : tables_here()) {
    ivf::Space space;
    space.matrix = data.matrix();
    ivf::TrainOptions options;
    options.n_lists = 90;
    options.seed = 4;
    ivf::Centroids centroids;
    EXPECT(ivf::train(*table, space, options, RunContext{}, &centroids).ok());
    EXPECT(centroids.count() == 90);
    std::vector<int32_t> labels(6000);
    EXPECT(ivf::assign(*table, space, centroids, RunContext{}, {}, labels.data()).ok());
    double distortion = 0;
    double spread = 0;
    int64_t far = 0;
    for (int64_t r = 0; r < 6000; ++r) {
      double best = std::numeric_limits<double>::infinity();
      double own = 0;
      for (int64_t c = 0; c < 90; ++c) {
        double d = 0;
        for (int64_t i = 0; i < data.dim; ++i) {
          const double centre = static_cast<double>(centroids.values[static_cast<size_t>(c * data.dim + i)]) +
                                static_cast<double>(space.mean[static_cast<size_t>(i)]);
          d += (static_cast<double>(data.matrix().row(r)[i]) - centre) *
               (static_cast<double>(data.matrix().row(r)[i]) - centre);
        }
        best = std::min(best, d);
        if (labels[static_cast<size_t>(r)] == c) own = d;
      }
      for (int64_t i = 0; i < data.dim; ++i) {
        const double d =
            static_cast<double>(data.matrix().row(r)[i]) - static_cast<double>(space.mean[static_cast<size_t>(i)]);
        spread += d * d;
      }
      distortion += own;
      if (own > best + 0.02) ++far;  // the error of two codes of unit length at 40 dimensions
    }
    EXPECT(far == 0);
    EXPECT(distortion < 0.35 * spread);
  }
}

TEST("ivf: probing every list and re-scoring gives topk's rows and scores, to the bit") {
  const Data data = clustered(3000, 33);
  for (const Metric metric : kMetrics) {
    for (const bool codes : {true, false}) {
      IvfBuildArgs args = build_args(data, metric);
      args.int8_lists = codes;
      args.n_sample = 40;
      const auto index = built(args);
      if (index == nullptr) return;
      const IvfStats stats = index->stats();
      EXPECT(stats.n_rows == 3000 && stats.int8_lists == codes && stats.keeps_rows);
      for (const int32_t k : {1, 10, 100}) {
        const Answer answer = ask(*index, data.asked(), k, stats.n_lists);
        EXPECT(answer.status.ok());
        EXPECT(answer == exact(data, metric, k));
        EXPECT(answer.report.rows_scanned == 33 * 3000);
      }
    }
  }
}

TEST("ivf: the chosen probes reach the recall on queries never seen") {
  const Data data = clustered(20000, 300);
  for (const Metric metric : kMetrics) {
    for (const bool keep : {true, false}) {
      IvfBuildArgs args = build_args(data, metric);
      args.keep_rows = keep;
      args.recall = keep ? 0.95 : 0.9;
      const auto index = built(args);
      if (index == nullptr) return;
      const IvfStats stats = index->stats();
      EXPECT(stats.n_probe >= 1 && stats.n_probe < stats.n_lists / 2);
      EXPECT(stats.n_measured == 256 && !stats.held_out);
      const Answer answer = ask(*index, data.asked(), 10, 0);
      // Four standard errors of 300 queries with a deviation of up to 0.25.
      EXPECT(recall_of(answer, exact(data, metric, 10), 10) >= args.recall - 4 * 0.25 / std::sqrt(300.0));
      EXPECT(std::is_sorted(stats.curve.begin(), stats.curve.end(),
                            [](const IvfRecallPoint& a, const IvfRecallPoint& b) { return a.n_probe < b.n_probe; }));
      if (!keep) EXPECT(stats.bytes < 20000 * 40 * 4 * 0.55);
    }
  }
}

TEST("ivf: the same bits at any thread count, and for a query alone or among others") {
  const Data data = clustered(9000, 70);
  std::vector<std::vector<uint8_t>> files;
  for (const bool parallel : {true, false, true}) {
    RunContext context;
    context.parallel = parallel;
    IvfBuildArgs args = build_args(data, Metric::kCosine);
    args.seed = 9;
    const auto index = built(args, context);
    if (index == nullptr) return;
    files.emplace_back();
    EXPECT(index->to_memory(&files.back()).ok());
    if (files.size() > 1) continue;
    const Answer together = ask(*index, data.asked(), 12, 0);
    EXPECT(together == ask(*index, data.asked(), 12, 0, {}, context));
    for (int64_t q = 0; q < 70; ++q) {
      const Answer alone = ask(*index, {data.queries.data() + q * data.dim, 1, data.dim}, 12, 0);
      EXPECT(std::equal(alone.rows.begin(), alone.rows.end(), together.rows.begin() + q * 12));
      EXPECT(std::equal(alone.scores.begin(), alone.scores.end(), together.scores.begin() + q * 12));
    }
    RunContext serial;
    serial.parallel = false;
    EXPECT(together == ask(*index, data.asked(), 12, 0, {}, serial));
  }
  EXPECT(files[0] == files[1] && files[0] == files[2]);
}

TEST("ivf: filters are exact among the probed lists, and recall holds at every selectivity") {
  const Data data = clustered(20000, 64);
  conformance::Random random(8);
  IvfBuildArgs args = build_args(data, Metric::kInnerProduct);
  for (const bool keep : {true, false}) {
    args.keep_rows = keep;
    const auto index = built(args);
    if (index == nullptr) return;
    const int32_t n_lists = index->stats().n_lists;
    for (const double share : {0.0, 0.001, 0.02, 0.2, 0.6, 1.0}) {
      const size_t bytes = (20000 + 7) / 8;
      std::vector<uint8_t> shared(bytes, 0), each(64 * bytes, 0);
      std::vector<int32_t> list;
      for (int32_t r = 0; r < 20000; ++r) {
        if (random.uniform() < share) {
          shared[static_cast<size_t>(r >> 3)] |= static_cast<uint8_t>(1 << (r & 7));
          list.push_back(r);
        }
        for (size_t q = 0; q < 64; ++q) {
          if (random.uniform() < share)
            each[q * bytes + static_cast<size_t>(r >> 3)] |= static_cast<uint8_t>(1 << (r & 7));
        }
      }
      const RowFilter filters[] = {RowFilter::shared(shared.data(), static_cast<int64_t>(bytes)),
                                   RowFilter::per_query(each.data(), static_cast<int64_t>(bytes), 64),
                                   RowFilter::list(list.data(), static_cast<int64_t>(list.size()))};
      for (const RowFilter& filter : filters) {
        const Answer truth = exact(data, Metric::kInnerProduct, 10, filter);
        const Answer all = ask(*index, data.asked(), 10, n_lists, filter);
        if (keep) EXPECT(all == truth);
        const Answer answer = ask(*index, data.asked(), 10, 0, filter);
        EXPECT(answer.status.ok() && recall_of(answer, truth, 10) >= (keep ? 0.93 : 0.85));
        if (keep && share == 0.001) EXPECT(answer.report.exhaustive == 64);
        if (share >= 0.6) EXPECT(answer.report.exhaustive == 0);
        for (size_t i = 0; i < answer.rows.size(); ++i) {
          const int32_t row = answer.rows[i];
          if (row < 0) continue;
          const uint8_t* bits = filter.has_list() ? shared.data() : filter.bits_of(static_cast<int64_t>(i / 10));
          EXPECT(((bits[row >> 3] >> (row & 7)) & 1) == 1);
        }
      }
      const Answer by_list = ask(*index, data.asked(), 10, 0, filters[2]);
      EXPECT(by_list == ask(*index, data.asked(), 10, 0, filters[0]));
    }
    // The rows of one corner of the space: the nearest lists of most queries hold none of them.
    std::vector<uint8_t> corner(2500, 0);
    const Answer nearest = exact(data, Metric::kInnerProduct, 900);
    for (int32_t i = 0; i < 900; ++i) {
      const int32_t row = nearest.rows[static_cast<size_t>(i)];
      corner[static_cast<size_t>(row >> 3)] |= static_cast<uint8_t>(1 << (row & 7));
    }
    const RowFilter filter = RowFilter::shared(corner.data(), 2500);
    EXPECT(recall_of(ask(*index, data.asked(), 10, 0, filter), exact(data, Metric::kInnerProduct, 10, filter), 10) >=
           (keep ? 0.93 : 0.8));
  }
}

TEST("ivf: data that resists clustering") {
  // `near` = the codes resolve the answers; where they do not, lists of the rows themselves still must.
  const auto check_all = [](const Data& data, const char* what, bool near) {
    for (const Metric metric : kMetrics) {
      for (const int32_t n_lists : {0, 1, 7, 400}) {
        IvfBuildArgs args = build_args(data, metric);
        args.n_lists = n_lists;
        args.int8_lists = true;
        if (!near) {
          const auto codes = built(args);
          if (codes == nullptr) return;
          const Answer coarse = ask(*codes, data.asked(), 5, codes->stats().n_lists);
          EXPECT(coarse.status.ok() && std::is_sorted(coarse.scores.rbegin(), coarse.scores.rbegin() + 5));
          const std::set<int32_t> distinct(coarse.rows.begin(), coarse.rows.begin() + 5);
          EXPECT(distinct.size() == 5 && *distinct.begin() >= 0);
        }
        args.int8_lists = near;
        const auto index = built(args);
        if (index == nullptr) {
          std::printf("  %s\n", what);
          return;
        }
        const Answer answer = ask(*index, data.asked(), 5, index->stats().n_lists);
        const bool right = answer.status.ok() && answer == exact(data, metric, 5);
        if (!right) std::printf("  %s, metric %d, %d lists\n", what, static_cast<int>(metric), n_lists);
        EXPECT(right);
        EXPECT(ask(*index, data.asked(), 5, 0).status.ok());
      }
    }
  };
  Data data;
  data.dim = 6;
  data.queries.assign(12, 0.5f);
  data.rows.assign(6, 0.25f);
  check_all(data, "one row", true);
  data.rows.assign(6 * 300, 0.25f);
  check_all(data, "all rows equal", true);
  data.rows.assign(6 * 300, 0.0f);
  check_all(data, "all rows zero", true);
  for (size_t i = 0; i < 60; ++i) data.rows[i * 6 + i % 6] = static_cast<float>(i);
  check_all(data, "few distinct rows", true);
  conformance::Random random(5);
  for (float& v : data.rows)
    v = static_cast<float>((random.uniform() - 0.5) * std::pow(10.0, static_cast<double>(random.below(20)) - 10.0));
  check_all(data, "scales apart", false);
  for (float& v : data.rows) v = static_cast<float>(random.uniform() * 1e-38);
  check_all(data, "tiny values", false);
  for (float& v : data.rows) v = static_cast<float>(random.uniform() * 3e17);
  check_all(data, "huge values", false);
  data.dim = 1;
  for (float& v : data.rows) v = static_cast<float>(random.below(9));
  check_all(data, "one dimension", true);
}

TEST("ivf: what cannot be is refused") {
  const Data data = clustered(50, 3);
  std::shared_ptr<const IvfIndex> index;
  const auto code_of = [&](auto change) {
    IvfBuildArgs args = build_args(data, Metric::kL2);
    change(args);
    return IvfIndex::build(args, RunContext{}, &index).code();
  };
  EXPECT(code_of([](IvfBuildArgs& a) { a.matrix.rows = 0; }) == Code::kShape);
  EXPECT(code_of([](IvfBuildArgs& a) { a.matrix.cols = 0; }) == Code::kShape);
  EXPECT(code_of([](IvfBuildArgs& a) { a.matrix.cols = kIvfMaxDim + 1; }) == Code::kShape);
  EXPECT(code_of([](IvfBuildArgs& a) { a.matrix.data = nullptr; }) == Code::kShape);
  EXPECT(code_of([](IvfBuildArgs& a) { a.metric = static_cast<Metric>(9); }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.n_lists = -1; }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.n_lists = kIvfMaxLists + 1; }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.recall = 0; }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.recall = std::nan(""); }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.recall_k = 0; }) == Code::kInvalidArgument);
  EXPECT(code_of([](IvfBuildArgs& a) { a.n_sample = 0; }) == Code::kInvalidArgument);
  EXPECT(code_of([&](IvfBuildArgs& a) { a.held_out = {data.queries.data(), 3, 7}; }) == Code::kShape);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 2e18f}) {
    std::vector<float> rows = data.rows;
    rows[40 * 17 + 3] = bad;
    IvfBuildArgs args = build_args(data, Metric::kL2);
    args.matrix.data = rows.data();
    const Status status = IvfIndex::build(args, RunContext{}, &index);
    EXPECT(status.code() == Code::kNotFinite && status.text().find("row 17") != std::string::npos);
    args.matrix.data = data.rows.data();
    args.held_out = {rows.data(), 50, 40};
    EXPECT(IvfIndex::build(args, RunContext{}, &index).code() == Code::kNotFinite);
  }
  const auto good = built(build_args(data, Metric::kL2));
  if (good == nullptr) return;
  EXPECT(ask(*good, data.asked(), 0, 0).status.code() == Code::kInvalidArgument);
  EXPECT(ask(*good, data.asked(), kTopkMaxK + 1, 0).status.code() == Code::kInvalidArgument);
  EXPECT(ask(*good, data.asked(), 3, -1).status.code() == Code::kInvalidArgument);
  EXPECT(ask(*good, {data.queries.data(), 3, 39}, 3, 0).status.code() == Code::kShape);
  const uint8_t bits[6] = {};
  EXPECT(ask(*good, data.asked(), 3, 0, RowFilter::shared(bits, 6)).status.code() == Code::kShape);
  const int32_t outside[] = {50};
  EXPECT(ask(*good, data.asked(), 3, 0, RowFilter::list(outside, 1)).status.code() == Code::kInvalidArgument);
  std::vector<float> nan(40, std::nanf(""));
  EXPECT(ask(*good, {nan.data(), 1, 40}, 3, 0).status.code() == Code::kNotFinite);
  EXPECT(ask(*good, {nullptr, 0, 40}, 3, 0).status.ok());
  // More answers than rows: padded.
  const Answer padded = ask(*good, data.asked(), 60, 1000);
  EXPECT(padded.status.ok() && padded.rows[50] == -1 && std::isinf(padded.scores[50]) && padded.rows[49] >= 0);
}

TEST("ivf: a build and a search stop when told to") {
  const Data data = clustered(20000, 64);
  for (const int stage : {0, 1, 2, 3}) {
    std::atomic<bool> stop{false};
    IvfBuildArgs args = build_args(data, Metric::kL2);
    args.progress = [&](int at, double) {
      if (at == stage) stop.store(true);
    };
    RunContext context;
    context.cancelled = &stop;
    std::shared_ptr<const IvfIndex> index;
    const Status status = IvfIndex::build(args, context, &index);
    if (status.code() != Code::kCancelled) std::printf("  stage %d: %s\n", stage, status.text().c_str());
    EXPECT(status.code() == Code::kCancelled);
    EXPECT(index == nullptr);
  }
  const auto index = built(build_args(data, Metric::kL2));
  if (index == nullptr) return;
  const std::atomic<bool> stop{true};
  RunContext context;
  context.cancelled = &stop;
  EXPECT(ask(*index, data.asked(), 3, 0, {}, context).status.code() == Code::kCancelled);
}

TEST("ivf: a file gives back the index, and none that was altered does") {
  const unit::TemporaryFolder folder;
  const Data data = clustered(800, 20, 17);
  for (const bool codes : {true, false}) {
    for (const Metric metric : kMetrics) {
      IvfBuildArgs args = build_args(data, metric);
      args.int8_lists = codes;
      args.keep_rows = metric != Metric::kL2;
      const auto index = built(args);
      if (index == nullptr) return;
      const std::string path = folder.file("index");
      EXPECT(index->save(path, RunContext{}).ok());
      std::shared_ptr<const IvfIndex> loaded;
      const Status status = IvfIndex::load(path, RunContext{}, &loaded);
      if (!status.ok()) std::printf("  %s\n", status.text().c_str());
      EXPECT(status.ok());
      if (!status.ok()) return;
      EXPECT(ask(*index, data.asked(), 9, 0) == ask(*loaded, data.asked(), 9, 0));
      EXPECT(ask(*index, data.asked(), 9, 3) == ask(*loaded, data.asked(), 9, 3));
      const IvfStats a = index->stats();
      const IvfStats b = loaded->stats();
      EXPECT(a.n_probe == b.n_probe && a.n_lists == b.n_lists && a.bytes == b.bytes && a.recall_k == b.recall_k &&
             a.recall_target == b.recall_target && a.curve.size() == b.curve.size() && a.held_out == b.held_out &&
             a.n_measured == b.n_measured && a.largest_list == b.largest_list && a.metric == b.metric);
      std::vector<uint8_t> again;
      EXPECT(loaded->to_memory(&again).ok() && again == unit::read_all(path));
      std::vector<uint8_t> bytes = again;
      conformance::Random random(2);
      for (int i = 0; i < 300; ++i) {
        std::vector<uint8_t> altered = bytes;
        altered[static_cast<size_t>(random.below(static_cast<int64_t>(bytes.size())))] ^=
            static_cast<uint8_t>(1 + random.below(255));
        std::shared_ptr<const IvfIndex> none;
        EXPECT(
            IvfIndex::from_memory(altered.data(), static_cast<int64_t>(altered.size()), RunContext{}, &none).code() ==
            Code::kFile);
      }
      for (size_t size = 0; size < bytes.size(); size += 997) {
        std::shared_ptr<const IvfIndex> none;
        EXPECT(IvfIndex::from_memory(bytes.data(), static_cast<int64_t>(size), RunContext{}, &none).code() ==
               Code::kFile);
      }
    }
  }
  std::shared_ptr<const IvfIndex> none;
  EXPECT(IvfIndex::load(folder.file("absent"), RunContext{}, &none).code() == Code::kFile);
}
