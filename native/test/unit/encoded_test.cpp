#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/encode.hpp"
#include "cpu/encoded_queries.hpp"
#include "cpu/kernel_tables.hpp"
#include "cpu/score_bounds.hpp"
#include "cpu/topk.hpp"
#include "cpu/topk_blocks.hpp"
#include "cpu/topk_encoded.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/tables.hpp"

using namespace waggle;
using conformance::Random;

namespace {

constexpr Dtype kDtypes[] = {Dtype::kF16, Dtype::kBf16, Dtype::kInt8};
constexpr Metric kMetrics[] = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};

// Every level of this machine, and AVX-512 as it is on processors without VNNI and BF16.
std::vector<cpu::Table> tables() {
  std::vector<cpu::Table> all;
  for (const cpu::Table* table : tables_here()) all.push_back(*table);
#if defined(WAGGLE_HAVE_AVX512)
  if (cpu::features().avx512) {
    all.push_back(*cpu::table_for(cpu::Simd::kAvx512));
    all.back().encoded = cpu::kEncodedAvx512;
  }
#endif
  return all;
}

struct Encoded {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> lower;
  std::vector<float> scale, error, norm;
  EncodedMatrix matrix;

  Status make(const cpu::Table& table, Dtype dtype, const std::vector<float>& x, int64_t n, int64_t dim,
              bool in_halves = false) {
    codes.assign(static_cast<size_t>(n * dim * bytes_of(dtype)), 0);
    scale.assign(static_cast<size_t>(n), 1);
    error.assign(static_cast<size_t>(n), 0);
    norm.assign(static_cast<size_t>(n), 0);
    matrix = {dtype, codes.data(), n, dim, dim, has_scale(dtype) ? scale.data() : nullptr, error.data(), norm.data()};
    EncodeArgs args;
    args.matrix = {x.data(), n, dim};
    args.dtype = dtype;
    args.data = codes.data();
    args.row_stride = dim;
    args.scale = scale.data();
    args.error = error.data();
    args.norm = norm.data();
    if (in_halves) {
      lower.assign(static_cast<size_t>(n * dim), 0);
      args.lower = lower.data();
      matrix.lower = lower.data();
    }
    return cpu::encode(table, args, RunContext{});
  }
};

// One row of a kind that makes bounds wide, scores equal or floats odd.
void draw_row(Random& random, float* x, int64_t dim, const float* earlier, int64_t n_earlier) {
  const int64_t kind = random.below(9);
  const double scale = std::pow(10.0, static_cast<double>(random.below(5) - 2));
  for (int64_t i = 0; i < dim; ++i) x[i] = static_cast<float>((random.uniform() - 0.5) * scale);
  if (kind == 0) std::fill(x, x + dim, 0.0f);
  if (kind == 1) x[random.below(dim)] = 1e5f;
  if (kind == 2) {
    for (int64_t i = 0; i < dim; ++i) x[i] *= 1e-38f;
  }
  if (kind == 3) {
    const float factor = static_cast<float>(std::pow(10.0, static_cast<double>(random.below(30) - 15)));
    for (int64_t i = 0; i < dim; ++i) x[i] *= factor;
  }
  if (kind >= 6 && n_earlier > 0) {
    std::copy_n(earlier + random.below(n_earlier) * dim, dim, x);
    float& value = x[random.below(dim)];
    if (kind == 7) value = std::nextafter(value, 1e30f);
    if (kind == 8) value = -value;
  }
}

struct Answer {
  Code code = Code::kOk;
  std::vector<float> scores;
  std::vector<int32_t> rows;
  bool operator==(const Answer& other) const {
    if (code != Code::kOk || other.code != Code::kOk) return code == other.code;
    return rows == other.rows && std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float)) == 0;
  }
};

}  // namespace

TEST("a certified answer is that of topk to the bit, for thousands of matrices full of near ties and odd floats") {
  Random random(2024);
  const std::vector<cpu::Table> all = tables();
  int n_different = 0;
  int n_refused = 0;
  for (int draw = 0; draw < 6000; ++draw) {
    const cpu::Table& table = all[static_cast<size_t>(draw) % all.size()];
    const int64_t n = 1 + random.below(90);
    const int64_t dim = 1 + random.below(40);
    const int64_t n_queries = 1 + random.below(draw % 50 == 0 ? 30 : 6);
    const int32_t k = static_cast<int32_t>(1 + random.below(draw % 3 == 0 ? 120 : 10));
    const bool large = draw % 17 == 0;
    std::vector<float> x(static_cast<size_t>(n * dim)), queries(static_cast<size_t>(n_queries * dim));
    for (int64_t r = 0; r < n; ++r) draw_row(random, x.data() + r * dim, dim, x.data(), r);
    for (int64_t q = 0; q < n_queries; ++q) draw_row(random, queries.data() + q * dim, dim, x.data(), n);
    if (large) {
      // Some products overflow: topk refuses those matrices, and so must this.
      for (float& v : x) v = static_cast<float>(std::clamp(static_cast<double>(v) * 1e22, -3e38, 3e38));
      for (float& v : queries) v = static_cast<float>(std::clamp(static_cast<double>(v) * 1e14, -3e38, 3e38));
    }
    std::vector<uint8_t> bits(static_cast<size_t>(n_queries * ((n + 7) / 8)));
    for (uint8_t& b : bits) b = static_cast<uint8_t>(random.next());
    TopkArgs exact;
    exact.queries = {queries.data(), n_queries, dim};
    exact.matrix = {x.data(), n, dim};
    exact.k = k;
    exact.metric = kMetrics[random.below(3)];
    if (draw % 5 == 1) exact.filter = RowFilter::per_query(bits.data(), (n + 7) / 8, n_queries);
    if (draw % 5 == 2) exact.filter = RowFilter::shared(bits.data(), static_cast<int64_t>(bits.size()));
    const auto sized = [&] {
      Answer a;
      a.scores.assign(static_cast<size_t>(n_queries * k), 0);
      a.rows.assign(a.scores.size(), 0);
      return a;
    };
    Answer truth = sized();
    exact.scores = truth.scores.data();
    exact.rows = truth.rows.data();
    truth.code = cpu::topk(table, exact, RunContext{}).code();
    n_refused += truth.code != Code::kOk ? 1 : 0;
    Encoded encoded;
    const Dtype dtype = kDtypes[random.below(3)];
    const bool in_halves = dtype == Dtype::kBf16 && draw % 2 == 0;
    EXPECT(encoded.make(table, dtype, x, n, dim, in_halves).ok());
    Answer answer = sized();
    TopkEncodedArgs args;
    args.queries = exact.queries;
    args.encoded = encoded.matrix;
    if (!in_halves) args.matrix = exact.matrix;
    args.k = k;
    args.metric = exact.metric;
    args.filter = exact.filter;
    args.scores = answer.scores.data();
    args.rows = answer.rows.data();
    TopkEncodedReport report;
    answer.code = cpu::topk_encoded(table, args, RunContext{}, &report).code();
    n_different += truth == answer ? 0 : 1;
  }
  EXPECT(n_different == 0);
  EXPECT(n_refused > 10 && n_refused < 1000);
}

TEST("an interval holds the float score of its pair, and the filter passes every row whose interval reaches") {
  Random random(77);
  for (const cpu::Table& table : tables()) {
    int outside = 0;
    int rejected = 0;
    for (int draw = 0; draw < 4000; ++draw) {
      const Dtype dtype = kDtypes[draw % 3];
      const Metric metric = kMetrics[draw / 3 % 3];
      const cpu::ScanKernels& scan = dtype == Dtype::kF16    ? table.encoded.f16
                                     : dtype == Dtype::kBf16 ? table.encoded.bf16
                                                             : table.encoded.int8;
      const int64_t dim = 1 + random.below(100);
      std::vector<float> pair(static_cast<size_t>(2 * dim));
      draw_row(random, pair.data(), dim, nullptr, 0);
      draw_row(random, pair.data() + dim, dim, pair.data(), 1);
      const float* query = pair.data() + dim;
      Encoded encoded;
      EXPECT(encoded.make(table, dtype, pair, 1, dim).ok());
      std::vector<int32_t> units(static_cast<size_t>(2 * (dim + 64)));
      const int64_t values = cpu::values_of(scan.unit);
      const int64_t padded =
          ((dim + values - 1) / values + cpu::kUnitsPerStep - 1) / cpu::kUnitsPerStep * cpu::kUnitsPerStep;
      const cpu::EncodedQuery q = cpu::encode_query(scan.unit, draw % 2 == 0, query, dim, padded, units.data());
      const void* terms[2] = {units.data(), units.data() + padded};
      const void* row = encoded.codes.data();
      alignas(64) int32_t sums[2 * 64] = {};
      scan.rows(&row, 1, dim, terms, q.starts, q.n_terms, sums, 64);
      const cpu::ScoreBounds bounds(metric, query, dim, q.step, q.lost, q.arithmetic);
      const int32_t zero = 0;
      float score = 0;
      cpu::rescore(table, metric, query, {pair.data(), 1, dim}, &zero, 1, &score);
      // Ask the filter for the very score: the row reaches it.
      cpu::FilterLine line = bounds.filter();
      (bounds.moves_norm_weight() ? line.norm_weight : line.level) = bounds.moving(score);
      const bool judged = encoded.norm[0] >= cpu::kSmallestFilteredNorm && encoded.norm[0] <= cpu::kLargestFilteredNorm;
      alignas(64) float columns[3][16] = {};
      columns[0][0] = judged ? encoded.scale[0] : 0;
      columns[1][0] = judged || encoded.norm[0] == 0 ? encoded.error[0] : std::numeric_limits<float>::infinity();
      columns[2][0] = judged ? encoded.norm[0] : 0;
      int32_t hit = -1;
      float sum = 0;
      const bool integer = cpu::has_integer_sums(scan.unit);
      const auto collect = [&](const cpu::FilterLine& l) {
        return table.encoded.collect(sums, q.n_terms == 2 ? sums + 64 : nullptr, integer ? 1 : 0, columns[0],
                                     columns[1], columns[2], 1, &l, &hit, &sum);
      };
      rejected += collect(line) == 1 ? 0 : 1;
      cpu::FilterLine everything = line;
      everything.level = -std::numeric_limits<float>::infinity();
      EXPECT(collect(everything) == 1);
      const cpu::Interval interval =
          bounds.interval(static_cast<double>(sum), has_scale(dtype) ? static_cast<double>(encoded.scale[0]) : 1.0,
                          static_cast<double>(encoded.error[0]), static_cast<double>(encoded.norm[0]));
      outside += interval.low <= score && score <= interval.high ? 0 : 1;
    }
    EXPECT(outside == 0);
    EXPECT(rejected == 0);
  }
}

TEST("encoding gives the same bits at every level and thread count") {
  Random random(5);
  const int64_t n = 3001;
  const int64_t dim = 131;
  std::vector<float> x(static_cast<size_t>(n * dim));
  for (int64_t r = 0; r < n; ++r) draw_row(random, x.data() + r * dim, dim, x.data(), r);
  for (const Dtype dtype : kDtypes) {
    Encoded truth;
    EXPECT(truth.make(*cpu::table_for(cpu::Simd::kScalar), dtype, x, n, dim).ok());
    for (const cpu::Table& table : tables()) {
      Encoded other;
      EXPECT(other.make(table, dtype, x, n, dim).ok());
      EXPECT(other.codes == truth.codes && other.scale == truth.scale && other.error == truth.error &&
             other.norm == truth.norm);
    }
  }
}

TEST("encoding names the first row that is not finite") {
  for (const cpu::Table& table : tables()) {
    for (const Dtype dtype : kDtypes) {
      std::vector<float> x(90000 * 7, 1.0f);
      x[4003 * 7 + 6] = std::numeric_limits<float>::quiet_NaN();
      x[80000 * 7] = -std::numeric_limits<float>::infinity();
      Encoded encoded;
      const Status status = encoded.make(table, dtype, x, 90000, 7);
      EXPECT(status.code() == Code::kNotFinite && status.text().find("row 4003 ") != std::string::npos);
    }
  }
}

TEST("rows beyond the range of binary16 and of bytes keep their digits") {
  std::vector<float> x = {3.4e38f, -1e38f, 0, 1e-40f, 5e-40f, -2e-41f, 65536.0f, 1e-3f, -70000.0f};
  for (const Dtype dtype : kDtypes) {
    Encoded e;
    EXPECT(e.make(*cpu::table_for(cpu::Simd::kScalar), dtype, x, 3, 3).ok());
    EXPECT(e.error[0] <= 0.01f * e.norm[0] && e.error[2] <= 0.01f * e.norm[2]);
    EXPECT(dtype == Dtype::kBf16 || e.error[1] <= 0.02f * e.norm[1]);
  }
}

TEST("a query's codes never let a sum leave int32, and its loss is bounded") {
  for (const int64_t dim : {1, 3, 384, 70000, 300000}) {
    std::vector<float> query(static_cast<size_t>(dim), 1.0f);
    query[static_cast<size_t>(dim / 2)] = -1.0f;
    const int64_t padded = (dim + 15) / 16 * 16;
    std::vector<int32_t> units(static_cast<size_t>(2 * padded));
    for (const cpu::QueryUnit unit : {cpu::QueryUnit::kInt8Quad, cpu::QueryUnit::kInt16Pair}) {
      for (const bool two : {false, true}) {
        const cpu::EncodedQuery q = cpu::encode_query(unit, two, query.data(), dim, padded, units.data());
        int64_t magnitude[2] = {0, 0};
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) {
          const auto* bytes = reinterpret_cast<const int8_t*>(units.data());
          const auto* low = reinterpret_cast<const int8_t*>(units.data() + padded);
          const int64_t code = unit == cpu::QueryUnit::kInt16Pair ? reinterpret_cast<const int16_t*>(units.data())[i]
                                                                  : int64_t{bytes[i]};
          magnitude[0] += std::abs(code);
          if (q.n_terms == 2) magnitude[1] += std::abs(int64_t{low[i]});
          const double value = static_cast<double>(q.n_terms == 2 ? 128 * code + low[i] : code) * q.step;
          squares += (static_cast<double>(query[static_cast<size_t>(i)]) - value) *
                     (static_cast<double>(query[static_cast<size_t>(i)]) - value);
        }
        EXPECT(magnitude[0] * 127 <= std::numeric_limits<int32_t>::max());
        EXPECT(magnitude[1] * 127 <= std::numeric_limits<int32_t>::max());
        EXPECT(std::sqrt(squares) <= q.lost);
      }
    }
  }
}

TEST("more rows in doubt than there is room for are counted all the same") {
  // 300,000 rows, all equal: nothing can be said about any of them.
  const int64_t n = 300000;
  std::vector<float> x(static_cast<size_t>(n * 2), 0.75f), query = {0.3f, 0.9f};
  for (const cpu::Table& table : tables()) {
    Encoded encoded;
    EXPECT(encoded.make(table, Dtype::kInt8, x, n, 2).ok());
    std::vector<float> scores(7);
    std::vector<int32_t> rows(7);
    int32_t in_doubt = 0;
    uint8_t certified = 1;
    TopkEncodedArgs args;
    args.queries = {query.data(), 1, 2};
    args.encoded = encoded.matrix;
    args.k = 7;
    args.scores = scores.data();
    args.rows = rows.data();
    args.n_in_doubt = &in_doubt;
    args.is_certified = &certified;
    TopkEncodedReport report;
    EXPECT(cpu::topk_encoded(table, args, RunContext{}, &report).ok());
    EXPECT(in_doubt == n && certified == 0 && !report.certified);
    EXPECT((rows == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6}));
    args.matrix = {x.data(), n, 2};
    EXPECT(cpu::topk_encoded(table, args, RunContext{}, &report).ok());
    EXPECT(in_doubt == 0 && certified == 1 && report.certified);
    EXPECT((rows == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6}));
  }
}

TEST("encode and topk_encoded refuse bad shapes") {
  std::vector<float> x(12, 1.0f), column(4), scores(2);
  std::vector<int8_t> codes(12);
  std::vector<int32_t> rows(2);
  EncodeArgs encode_args;
  encode_args.matrix = {x.data(), 4, 3};
  encode_args.data = codes.data();
  encode_args.row_stride = 3;
  encode_args.scale = encode_args.error = encode_args.norm = column.data();
  EXPECT(encode(encode_args, RunContext{}).ok());
  const auto encode_code = [&](auto&& change) {
    EncodeArgs args = encode_args;
    change(args);
    return encode(args, RunContext{}).code();
  };
  EXPECT(encode_code([](EncodeArgs& a) { a.row_stride = 2; }) == Code::kShape);
  EXPECT(encode_code([](EncodeArgs& a) { a.matrix.cols = 0; }) == Code::kShape);
  EXPECT(encode_code([](EncodeArgs& a) { a.matrix.rows = -1; }) == Code::kShape);
  EXPECT(encode_code([](EncodeArgs& a) { a.scale = nullptr; }) == Code::kShape);
  EXPECT(encode_code([](EncodeArgs& a) { a.dtype = static_cast<Dtype>(7); }) == Code::kInvalidArgument);
  std::vector<uint16_t> lower(12);
  EXPECT(encode_code([&](EncodeArgs& a) { a.lower = lower.data(); }) == Code::kInvalidArgument);
  TopkEncodedArgs topk_args;
  topk_args.queries = {x.data(), 1, 3};
  topk_args.encoded = {Dtype::kInt8, codes.data(), 4, 3, 3, column.data(), column.data(), column.data()};
  topk_args.k = 2;
  topk_args.scores = scores.data();
  topk_args.rows = rows.data();
  const auto code = [&](auto&& change) {
    TopkEncodedArgs args = topk_args;
    change(args);
    TopkEncodedReport report;
    return topk_encoded(args, RunContext{}, &report).code();
  };
  EXPECT(code([](TopkEncodedArgs&) {}) == Code::kOk);
  EXPECT(code([](TopkEncodedArgs& a) { a.k = 0; }) == Code::kInvalidArgument);
  EXPECT(code([](TopkEncodedArgs& a) { a.k = 2049; }) == Code::kInvalidArgument);
  EXPECT(code([](TopkEncodedArgs& a) { a.metric = static_cast<Metric>(9); }) == Code::kInvalidArgument);
  EXPECT(code([](TopkEncodedArgs& a) { a.encoded.dtype = static_cast<Dtype>(9); }) == Code::kInvalidArgument);
  EXPECT(code([&](TopkEncodedArgs& a) { a.encoded.lower = lower.data(); }) == Code::kInvalidArgument);
  EXPECT(code([](TopkEncodedArgs& a) { a.encoded.cols = 4; }) == Code::kShape);
  EXPECT(code([](TopkEncodedArgs& a) { a.encoded.row_stride = 2; }) == Code::kShape);
  EXPECT(code([](TopkEncodedArgs& a) { a.encoded.error = nullptr; }) == Code::kShape);
  EXPECT(code([&](TopkEncodedArgs& a) { a.matrix = {x.data(), 3, 3}; }) == Code::kShape);
  EXPECT(code([](TopkEncodedArgs& a) { a.encoded.rows = int64_t{1} << 31; }) == Code::kShape);
  std::vector<float> bad = {1, std::numeric_limits<float>::quiet_NaN(), 1};
  EXPECT(code([&](TopkEncodedArgs& a) { a.queries.data = bad.data(); }) == Code::kNotFinite);
  std::atomic<bool> cancelled{true};
  RunContext context;
  context.cancelled = &cancelled;
  TopkEncodedReport report;
  EXPECT(topk_encoded(topk_args, context, &report).code() == Code::kCancelled);
}

TEST("floats put together of their halves for many queries: a score that overflows names its row") {
  constexpr int64_t kRows = 5000;
  constexpr int64_t kDim = 3;
  constexpr int64_t kQueries = 20;
  std::vector<float> x(kRows * kDim, 1.0f);
  x[3333 * kDim] = 3e38f;
  const std::vector<float> queries(kQueries * kDim, 10.0f);
  Encoded encoded;
  EXPECT(encoded.make(cpu::table(), Dtype::kBf16, x, kRows, kDim, true).ok());
  std::vector<float> scores(kQueries * 2);
  std::vector<int32_t> rows(scores.size());
  TopkEncodedArgs args;
  args.queries = {queries.data(), kQueries, kDim};
  args.encoded = encoded.matrix;
  args.k = 2;
  args.scores = scores.data();
  args.rows = rows.data();
  const std::vector<int32_t> with = {100, 3333, 4000};
  const std::vector<int32_t> without = {100, 3332, 4000};
  TopkEncodedReport report;
  args.filter = RowFilter::list(with.data(), 3);
  const Status status = topk_encoded(args, RunContext{}, &report);
  EXPECT(status.code() == Code::kNotFinite && status.text().find("row 3333 ") != std::string::npos);
  args.filter = RowFilter::list(without.data(), 3);
  EXPECT(topk_encoded(args, RunContext{}, &report).ok());
  EXPECT(report.certified && report.n_rescored == 3 * kQueries && rows[0] == 100 && rows[1] == 3332);
}
