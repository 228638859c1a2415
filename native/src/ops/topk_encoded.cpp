#include "waggle/ops/topk_encoded.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/topk.hpp"
#include "cpu/topk_encoded.hpp"
#include "src/bitmap.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

// A query of many costs about 1.6 µs per answer to re-score, and saves some 2 ns per allowed row (two threads, dim
// 384).
constexpr int64_t kManyQueries = 16;
constexpr int64_t kFewRowsPerAnswer = 512;
// A query alone re-scores an answer or two for each that it returns, and must begin and end its scan: about what these
// rows cost as floats.
constexpr int64_t kFewRows = 2048;
constexpr int64_t kFewRowsPerLoneAnswer = 16;
// Floats in halves are put together by tiles, which shall stay small.
constexpr int64_t kMaxJoinedDim = 4096;

Status check(const TopkEncodedArgs& args) {
  const EncodedMatrix& e = args.encoded;
  const int64_t dim = e.cols;
  if (args.k < 1 || args.k > kTopkMaxK) {
    return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d", args.k, kTopkMaxK);
  }
  if (args.metric != Metric::kInnerProduct && args.metric != Metric::kCosine && args.metric != Metric::kL2) {
    return fail(Code::kInvalidArgument, "unknown metric %d", static_cast<int>(args.metric));
  }
  if (e.dtype != Dtype::kF16 && e.dtype != Dtype::kBf16 && e.dtype != Dtype::kInt8) {
    return fail(Code::kInvalidArgument, "unknown dtype %d", static_cast<int>(e.dtype));
  }
  if (dim < 1) return fail(Code::kShape, "dim is %lld; it must be at least 1", static_cast<long long>(dim));
  if (args.queries.cols != dim) return fail(Code::kShape, "queries and encoded matrix differ in dim");
  if (args.queries.rows < 0 || e.rows < 0) return fail(Code::kShape, "a size is negative");
  if (e.rows > std::numeric_limits<int32_t>::max()) return fail(Code::kShape, "matrix has more than 2^31 - 1 rows");
  int64_t elements = 0;
  if (!checked_product(e.rows, e.row_stride, &elements) || !checked_product(elements, bytes_of(e.dtype), &elements) ||
      !checked_product(args.queries.rows, dim, &elements) || !checked_product(args.queries.rows, args.k, &elements)) {
    return fail(Code::kShape, "sizes overflow");
  }
  if (e.rows > 0 && e.row_stride < dim) return fail(Code::kShape, "rows of the encoded matrix overlap");
  if (args.queries.rows > 0 && (args.queries.data == nullptr || args.scores == nullptr || args.rows == nullptr)) {
    return fail(Code::kShape, "queries or an output is missing");
  }
  if (e.rows > 0 &&
      (e.data == nullptr || e.error == nullptr || e.norm == nullptr || (has_scale(e.dtype) && e.scale == nullptr))) {
    return fail(Code::kShape, "a part of the encoded matrix is missing");
  }
  if (e.lower != nullptr && e.dtype != Dtype::kBf16) {
    return fail(Code::kInvalidArgument, "only bf16 is the upper half of a float");
  }
  if (args.matrix.data != nullptr && (args.matrix.rows != e.rows || args.matrix.cols != dim)) {
    return fail(Code::kShape, "matrix and encoded matrix differ in shape");
  }
  return check_filter(args.filter, args.queries.rows, e.rows);
}

Status check_queries(const Matrix<const float>& queries) {
  for (int64_t q = 0; q < queries.rows; ++q) {
    for (int64_t i = 0; i < queries.cols; ++i) {
      if (!std::isfinite(queries.row(q)[i])) {
        return fail(Code::kNotFinite, "query %lld holds NaN or infinity", static_cast<long long>(q));
      }
    }
  }
  return {};
}

// Whether the rows that all queries share are so few that re-scoring would cost more than their scan saves.
bool are_few(const TopkEncodedArgs& args) {
  const double n_rows = static_cast<double>(args.encoded.rows);
  const double n_allowed = args.filter.has_list()        ? static_cast<double>(args.filter.n_rows)
                           : args.filter.bits != nullptr ? share_of(args.filter.bits, args.encoded.rows) * n_rows
                                                         : n_rows;
  const int64_t limit =
      args.queries.rows >= kManyQueries ? kFewRowsPerAnswer * args.k : kFewRows + kFewRowsPerLoneAnswer * args.k;
  return n_allowed < static_cast<double>(limit);
}

// Whether all allowed rows are best multiplied as floats, which are at hand.
bool are_floats_sooner(const cpu::Table& table, const TopkEncodedArgs& args) {
  if (args.matrix.data != nullptr) return are_few(args);
  if (args.encoded.lower == nullptr || args.encoded.cols > kMaxJoinedDim) return false;
  // A scan that turns bf16 into floats multiplies as many of them as topk, and re-scores besides.
  const cpu::ScanKernels& scan = table.encoded.bf16;
  return are_few(args) || (scan.unit == cpu::QueryUnit::kFloat && args.queries.rows > scan.most_by_rows);
}

int64_t count_allowed(const TopkEncodedArgs& args) {
  if (args.filter.has_list()) return args.filter.n_rows;
  return args.filter.bits != nullptr ? count_bits(args.filter.bits, args.encoded.rows) : args.encoded.rows;
}

// Multiplying floats outright.
Status topk_of_floats(const cpu::Table& table, const TopkEncodedArgs& args, const RunContext& context,
                      TopkEncodedReport* report) {
  TopkArgs exact;
  exact.queries = args.queries;
  exact.matrix = {args.matrix.data, args.encoded.rows, args.encoded.cols};
  exact.k = args.k;
  exact.metric = args.metric;
  exact.filter = args.filter;
  exact.scores = args.scores;
  exact.rows = args.rows;
  const EncodedMatrix* const halves = args.matrix.data == nullptr ? &args.encoded : nullptr;
  if (Status status = cpu::topk(table, exact, context, halves); !status.ok()) return status;
  if (args.n_in_doubt != nullptr) std::fill_n(args.n_in_doubt, args.queries.rows, 0);
  if (args.is_certified != nullptr) std::fill_n(args.is_certified, args.queries.rows, uint8_t{1});
  *report = {true, args.queries.rows * count_allowed(args)};
  return {};
}

}  // namespace

Status topk_encoded(const TopkEncodedArgs& args, const RunContext& context, TopkEncodedReport* report) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (Status status = check_queries(args.queries); !status.ok()) return status;
    if (!args.filter.has_bits_per_query() && are_floats_sooner(*r.table, args)) {
      return topk_of_floats(*r.table, args, context, report);
    }
    return cpu::topk_encoded(*r.table, args, context, report);
  });
}

}  // namespace waggle
