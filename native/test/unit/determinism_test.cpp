#include <cstring>
#include <vector>

#include "cpu/glm_fit.hpp"
#include "cpu/table.hpp"
#include "cpu/topk.hpp"
#include "cpu/topk_blocks.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/tables.hpp"

using namespace waggle;

TEST("the score of a pair does not depend on its place in a tile, so duplicates tie") {
  conformance::Random random(5);
  for (const cpu::Table* table : tables_here()) {
    for (const int64_t dim : {1, 7, 16, 45, 384}) {
      std::vector<float> row(static_cast<size_t>(dim)), queries(static_cast<size_t>(9 * dim));
      for (float& v : row) v = static_cast<float>(random.uniform() - 0.5);
      for (float& v : queries) v = static_cast<float>(random.uniform() - 0.5);
      constexpr int64_t kCopies = 101;
      std::vector<float> matrix;
      for (int64_t i = 0; i < kCopies; ++i) matrix.insert(matrix.end(), row.begin(), row.end());
      for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
        std::vector<float> scores(9 * kCopies);
        std::vector<int32_t> rows(scores.size());
        TopkArgs args;
        args.queries = {queries.data(), 9, dim};
        args.matrix = {matrix.data(), kCopies, dim};
        args.k = kCopies;
        args.metric = metric;
        args.scores = scores.data();
        args.rows = rows.data();
        EXPECT(cpu::topk(*table, args, RunContext{}).ok());
        bool in_order = true;
        for (int64_t q = 0; q < 9; ++q) {
          float alone = 0;
          int32_t alone_row = 0;
          TopkArgs single = args;
          single.queries = {queries.data() + q * dim, 1, dim};
          single.matrix.rows = 1;
          single.k = 1;
          single.scores = &alone;
          single.rows = &alone_row;
          EXPECT(cpu::topk(*table, single, RunContext{}).ok());
          for (int64_t i = 0; i < kCopies; ++i) {
            const size_t at = static_cast<size_t>(q * kCopies + i);
            in_order = in_order && rows[at] == i && std::memcmp(&scores[at], &alone, sizeof alone) == 0;
          }
        }
        EXPECT(in_order);
      }
    }
  }
}

TEST("a score has the same bits alone, in a batch of any size, behind any filter and when re-scored") {
  conformance::Random random(6);
  for (const cpu::Table* table : tables_here()) {
    for (const int64_t dim : {1, 3, 50, 384, 512, 515, 1200}) {
      constexpr int64_t kRows = 333;
      constexpr int64_t kQueries = 77;
      std::vector<float> matrix(static_cast<size_t>(kRows * dim)), queries(static_cast<size_t>(kQueries * dim));
      for (float& v : matrix) v = static_cast<float>(random.uniform() - 0.5);
      for (float& v : queries) v = static_cast<float>(random.uniform() - 0.5);
      for (int64_t i = 0; i < dim; ++i) matrix[static_cast<size_t>(5 * dim + i)] = 0;        // norms that take
      for (int64_t i = 0; i < dim; ++i) matrix[static_cast<size_t>(9 * dim + i)] *= 1e-20f;  // the other way
      for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
        std::vector<float> truth(static_cast<size_t>(kQueries * kRows));
        std::vector<int32_t> all(kRows);
        for (int32_t r = 0; r < kRows; ++r) all[static_cast<size_t>(r)] = r;
        for (int64_t q = 0; q < kQueries; ++q) {
          cpu::rescore(*table, metric, queries.data() + q * dim, {matrix.data(), kRows, dim}, all.data(), kRows,
                       truth.data() + q * kRows);
        }
        // Backwards and one at a time.
        for (int32_t r = kRows - 1; r >= 0; r -= 41) {
          float alone = 0;
          cpu::rescore(*table, metric, queries.data() + 3 * dim, {matrix.data(), kRows, dim}, &r, 1, &alone);
          EXPECT(std::memcmp(&alone, &truth[static_cast<size_t>(3 * kRows + r)], sizeof alone) == 0);
        }
        for (const int64_t n_queries : {1, 2, 5, 8, 9, 16, 23, 31, 32, 33, 77}) {
          for (const int kind : {0, 1, 2, 3}) {
            const int64_t bytes = (kRows + 7) / 8;
            std::vector<uint8_t> bits(static_cast<size_t>(bytes * n_queries));
            const uint8_t sparse[4] = {0x10, 0x00, 0x81, 0x02};
            for (size_t i = 0; i < bits.size(); ++i) {
              // Per query: some bitmaps sparse, some dense.
              bits[i] = kind == 2 && (i / static_cast<size_t>(bytes)) % 2 == 0 ? 0xd7 : sparse[i % 4];
            }
            std::vector<int32_t> list;
            for (int32_t r = 1; r < kRows; r += 3) list.push_back(r);
            std::vector<float> scores(static_cast<size_t>(n_queries * kRows));
            std::vector<int32_t> rows(scores.size());
            TopkArgs args;
            args.queries = {queries.data(), n_queries, dim};
            args.matrix = {matrix.data(), kRows, dim};
            args.k = kRows;
            args.metric = metric;
            args.scores = scores.data();
            args.rows = rows.data();
            if (kind == 1) args.filter = RowFilter::shared(bits.data(), bytes);
            if (kind == 2) args.filter = RowFilter::per_query(bits.data(), bytes, n_queries);
            if (kind == 3) args.filter = RowFilter::list(list.data(), static_cast<int64_t>(list.size()));
            EXPECT(cpu::topk(*table, args, RunContext{}).ok());
            bool same = true;
            for (int64_t q = 0; q < n_queries; ++q) {
              for (int64_t i = 0; i < kRows; ++i) {
                const size_t at = static_cast<size_t>(q * kRows + i);
                if (rows[at] < 0) continue;
                // topk writes −0 as +0.
                const float expected = truth[static_cast<size_t>(q * kRows + rows[at])] + 0.0f;
                same = same && std::memcmp(&scores[at], &expected, sizeof expected) == 0;
              }
            }
            EXPECT(same);
          }
        }
      }
    }
  }
}

TEST("glm.fit gives the same bits on one thread and on many, at every level") {
  conformance::Random random(9);
  constexpr int64_t kRows = 9001;
  constexpr int64_t kFeatures = 11;
  std::vector<float> x(kRows * kFeatures);
  std::vector<double> successes(kRows), trials(kRows, 3.0), l2(kFeatures, 0.5);
  for (float& v : x) v = static_cast<float>(random.uniform());
  for (double& v : successes) v = static_cast<double>(random.below(4));
  std::vector<std::vector<double>> answers;
  for (const cpu::Table* table : tables_here()) {
    for (const bool parallel : {false, true, true}) {
      std::vector<double> coefficients(kFeatures), errors(kFeatures);
      GlmFitArgs args;
      args.x = {x.data(), kRows, kFeatures};
      args.successes = successes.data();
      args.trials = trials.data();
      args.l2 = l2.data();
      args.coefficients = coefficients.data();
      args.standard_errors = errors.data();
      GlmFitResult result;
      RunContext context;
      context.parallel = parallel;
      EXPECT(cpu::glm_fit(*table, args, context, &result).ok());
      EXPECT(result.converged);
      coefficients.insert(coefficients.end(), errors.begin(), errors.end());
      coefficients.push_back(result.intercept);
      coefficients.push_back(result.log_likelihood);
      answers.push_back(coefficients);
    }
  }
  for (const auto& answer : answers) EXPECT(answer == answers[0]);
}
