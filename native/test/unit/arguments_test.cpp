#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/features.hpp"
#include "cpu/table.hpp"
#include "test/unit/check.hpp"
#include "waggle/backend.hpp"
#include "waggle/ops/glm_fit.hpp"
#include "waggle/ops/score_rank.hpp"
#include "waggle/ops/topk.hpp"
#include "waggle/view.hpp"

using namespace waggle;

namespace {

struct TopkFixture {
  std::vector<float> queries = std::vector<float>(2 * 4, 1.0f);
  std::vector<float> matrix = std::vector<float>(30 * 4, 1.0f);
  std::vector<float> scores = std::vector<float>(2 * 3);
  std::vector<int32_t> rows = std::vector<int32_t>(2 * 3);
  std::vector<uint8_t> filter = std::vector<uint8_t>(4, 255);
  TopkArgs args;
  TopkFixture() {
    args.queries = {queries.data(), 2, 4};
    args.matrix = {matrix.data(), 30, 4};
    args.k = 3;
    args.scores = scores.data();
    args.rows = rows.data();
  }
  Code run() { return topk(args, RunContext{}).code(); }
};

struct ScoreFixture {
  std::vector<float> column = std::vector<float>(20, 1.0f);
  std::vector<float> bad = std::vector<float>(20, 1.0f);
  std::vector<int32_t> rows = std::vector<int32_t>(5);
  std::vector<double> scores = std::vector<double>(5);
  std::vector<double> terms = std::vector<double>(45);
  ScoreRankArgs args;
  ScoreRankCounts counts;
  ScoreFixture() {
    args.n = 20;
    args.k = 5;
    args.q = args.spend = args.payout = args.fit = column.data();
    args.weights = {1, 1, 1, 1, 1};
    args.rows = rows.data();
    args.scores = scores.data();
    args.terms = terms.data();
  }
  Status run() { return score_rank(args, RunContext{}, &counts); }
};

struct GlmFixture {
  std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<double> successes = {0, 1, 0, 1, 1, 0, 1, 1};
  std::vector<double> trials = std::vector<double>(8, 1.0);
  std::vector<double> l2 = {0.0, 0.0};
  std::vector<double> coefficients = std::vector<double>(2);
  std::vector<double> errors = std::vector<double>(2);
  GlmFitArgs args;
  GlmFitResult result;
  GlmFixture() {
    args.x = {x.data(), 8, 1};
    args.successes = successes.data();
    args.trials = trials.data();
    args.l2 = l2.data();
    args.coefficients = coefficients.data();
    args.standard_errors = errors.data();
  }
  Status run() { return glm_fit(args, RunContext{}, &result); }
};

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST("sizes that overflow are noticed") {
  int64_t out = 0;
  EXPECT(checked_product(3, 4, &out) && out == 12);
  EXPECT(!checked_product(int64_t{1} << 40, int64_t{1} << 40, &out));
  EXPECT(!checked_product(-1, 4, &out));
  EXPECT(checked_product(5, 0, &out) && out == 0);
}

TEST("topk refuses bad shapes, metrics and k") {
  EXPECT(TopkFixture().run() == Code::kOk);
  const auto refused = [](auto&& change, Code code) {
    TopkFixture f;
    change(f);
    EXPECT(f.run() == code);
  };
  refused([](TopkFixture& f) { f.args.k = 0; }, Code::kInvalidArgument);
  refused([](TopkFixture& f) { f.args.k = kTopkMaxK + 1; }, Code::kInvalidArgument);
  refused([](TopkFixture& f) { f.args.metric = static_cast<Metric>(7); }, Code::kInvalidArgument);
  refused([](TopkFixture& f) { f.args.matrix.cols = f.args.queries.cols = 0; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.queries.cols = 3; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.matrix.rows = int64_t{1} << 40; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.matrix.data = nullptr; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.scores = nullptr; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.filter = RowFilter::shared(f.filter.data(), 3); }, Code::kShape);
  refused([](TopkFixture& f) { f.args.filter = RowFilter::per_query(f.filter.data(), 3, 2); }, Code::kShape);
  refused([](TopkFixture& f) { f.args.filter = RowFilter::per_query(f.filter.data(), -4, 2); }, Code::kShape);
  refused([](TopkFixture& f) { f.args.filter = {f.filter.data(), 4, nullptr, -1, 7}; }, Code::kShape);
  refused([](TopkFixture& f) { f.args.filter = RowFilter::list(nullptr, 2); }, Code::kShape);
  refused(
      [](TopkFixture& f) {
        f.args.filter = RowFilter::shared(f.filter.data(), 4);
        f.args.filter.n_rows = 0;
      },
      Code::kInvalidArgument);
  for (const std::vector<int32_t>& list :
       {std::vector<int32_t>{3, 3}, {4, 3}, {-1, 3}, {3, 30}, {std::numeric_limits<int32_t>::max()}}) {
    refused([&](TopkFixture& f) { f.args.filter = RowFilter::list(list.data(), static_cast<int64_t>(list.size())); },
            Code::kInvalidArgument);
  }
}

TEST("topk names the row or query that is not finite, unless it is filtered") {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const float bad : {kNaN, kInfinity, -kInfinity}) {
      TopkFixture f;
      f.args.metric = metric;
      f.matrix[17 * 4 + 2] = bad;
      const Status status = topk(f.args, RunContext{});
      EXPECT(status.code() == Code::kNotFinite);
      EXPECT(status.text().find("row 17") != std::string::npos);
      f.filter[2] = static_cast<uint8_t>(~(1 << 1));
      f.args.filter = RowFilter::shared(f.filter.data(), 4);
      EXPECT(f.run() == Code::kOk);
      f.queries[5] = bad;
      f.filter.assign(4, 0);
      EXPECT(topk(f.args, RunContext{}).text().find("query 1") != std::string::npos);
    }
  }
}

TEST("a stopped call answers that it was cancelled") {
  const std::atomic<bool> stop{true};
  RunContext context;
  context.cancelled = &stop;
  EXPECT(topk(TopkFixture().args, context).code() == Code::kCancelled);
  ScoreFixture s;
  EXPECT(score_rank(s.args, context, &s.counts).code() == Code::kCancelled);
  GlmFixture g;
  EXPECT(glm_fit(g.args, context, &g.result).code() == Code::kCancelled);
}

TEST("score.rank names the column that is not finite") {
  EXPECT(ScoreFixture().run().ok());
  const struct {
    const char* name;
    const float* ScoreRankArgs::*column;
  } columns[] = {{"q", &ScoreRankArgs::q},
                 {"spend", &ScoreRankArgs::spend},
                 {"payout", &ScoreRankArgs::payout},
                 {"fit", &ScoreRankArgs::fit},
                 {"advertiser", &ScoreRankArgs::advertiser},
                 {"explore", &ScoreRankArgs::explore},
                 {"frequency", &ScoreRankArgs::frequency},
                 {"mu", &ScoreRankArgs::mu},
                 {"rho", &ScoreRankArgs::rho}};
  for (const auto& column : columns) {
    for (const float bad : {kNaN, kInfinity}) {
      for (const size_t row : {size_t{0}, size_t{7}, size_t{19}}) {
        ScoreFixture f;
        f.bad[row] = bad;
        f.args.*column.column = f.bad.data();
        const Status status = f.run();
        EXPECT(status.code() == Code::kNotFinite);
        EXPECT(status.text().find(std::string("column ") + column.name + " ") != std::string::npos);
      }
    }
  }
  ScoreFixture f;
  f.bad[3] = kNaN;
  f.args.omega = f.column.data();
  f.args.goal_units = f.bad.data();
  EXPECT(f.run().text().find("goalUnits") != std::string::npos);
  f.args.weights.fit = std::nan("");
  EXPECT(f.run().code() == Code::kNotFinite);
}

TEST("score.rank checks columns that no term uses") {
  ScoreFixture f;
  f.bad[3] = kNaN;
  f.args.omega = f.bad.data();  // without goal_units it makes no term
  EXPECT(f.run().code() == Code::kNotFinite);
}

TEST("score.rank refuses a group limit without groups, and bad k") {
  ScoreFixture f;
  f.args.max_per_group = 1;
  EXPECT(f.run().code() == Code::kInvalidArgument);
  ScoreFixture g;
  g.args.k = 0;
  EXPECT(g.run().code() == Code::kInvalidArgument);
}

TEST("glm.fit refuses counts, weights and settings that make no sense") {
  EXPECT(GlmFixture().run().ok());
  const auto refused = [](auto&& change, Code code) {
    GlmFixture f;
    change(f);
    EXPECT(f.run().code() == code);
  };
  refused([](GlmFixture& f) { f.successes[2] = 2; }, Code::kInvalidArgument);
  refused([](GlmFixture& f) { f.successes[2] = -1; }, Code::kInvalidArgument);
  refused([](GlmFixture& f) { f.trials[2] = std::nan(""); }, Code::kNotFinite);
  refused([](GlmFixture& f) { f.x[3] = kNaN; }, Code::kNotFinite);
  refused([](GlmFixture& f) { f.x[3] = kInfinity; }, Code::kNotFinite);
  refused([](GlmFixture& f) { f.l2[0] = -1; }, Code::kInvalidArgument);
  refused([](GlmFixture& f) { f.args.max_iterations = 0; }, Code::kInvalidArgument);
  refused([](GlmFixture& f) { f.args.tolerance = 0; }, Code::kInvalidArgument);
  refused([](GlmFixture& f) { f.args.x.rows = 0; }, Code::kShape);
  refused(
      [](GlmFixture& f) {
        f.trials.assign(8, 0.0);
        f.successes.assign(8, 0.0);
      },
      Code::kInvalidArgument);
}

TEST("glm.fit refuses collinear features without ridge and fits them with one") {
  GlmFixture f;
  f.x = {1, 2, 2, 4, 3, 6, 4, 8, 5, 10, 6, 12, 7, 14, 8, 16};
  f.args.x = {f.x.data(), 8, 2};
  const Status status = f.run();
  EXPECT(status.code() == Code::kSingular);
  EXPECT(status.text().find("feature 1") != std::string::npos);
  f.l2 = {0.1, 0.1};
  EXPECT(f.run().ok() && f.result.converged);
}

TEST("a feature that does not vary gets coefficient 0 and no standard error") {
  GlmFixture f;
  f.x = {1, 3, 2, 3, 3, 3, 4, 3, 5, 3, 6, 3, 7, 3, 8, 3};
  f.args.x = {f.x.data(), 8, 2};
  EXPECT(f.run().ok());
  EXPECT(f.coefficients[0] != 0);
  EXPECT(f.coefficients[1] == 0 && std::isnan(f.errors[1]));
}

TEST("separated classes without ridge do not converge quietly") {
  GlmFixture f;
  f.successes = {0, 0, 0, 0, 1, 1, 1, 1};
  f.args.max_iterations = 10;
  const Status status = f.run();
  EXPECT(status.code() == Code::kSingular || (status.ok() && !f.result.converged));
}

TEST("the processor's levels are in order and the chosen one is supported") {
  using cpu::Simd;
  const cpu::Features& found = cpu::features();
  EXPECT(found.supports(Simd::kScalar));
  EXPECT(!found.avx512 || found.avx2);
  EXPECT(found.supports(cpu::table().level));
  EXPECT(cpu::table_for(Simd::kScalar) != nullptr);
  EXPECT(backend_info().simd == cpu::name_of(cpu::table().level));
}
