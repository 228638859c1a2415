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

// Of the rows that all queries share.
int64_t count_allowed(const TopkEncodedArgs& args) {
  if (args.filter.has_list()) return args.filter.n_rows;
  return args.filter.bits != nullptr ? count_bits(args.filter.bits, args.encoded.rows) : args.encoded.rows;
}

// Multiplying floats outright: many queries that share few rows would re-score a large part of them anyway.
Status topk_of_floats(const cpu::Table& table, const TopkEncodedArgs& args, int64_t n_allowed,
                      const RunContext& context, TopkEncodedReport* report) {
  TopkArgs exact;
  exact.queries = args.queries;
  exact.matrix = args.matrix;
  exact.k = args.k;
  exact.metric = args.metric;
  exact.filter = args.filter;
  exact.scores = args.scores;
  exact.rows = args.rows;
  if (Status status = cpu::topk(table, exact, context); !status.ok()) return status;
  if (args.n_in_doubt != nullptr) std::fill_n(args.n_in_doubt, args.queries.rows, 0);
  if (args.is_certified != nullptr) std::fill_n(args.is_certified, args.queries.rows, uint8_t{1});
  *report = {true, args.queries.rows * n_allowed};
  return {};
}

}  // namespace

Status topk_encoded(const TopkEncodedArgs& args, const RunContext& context, TopkEncodedReport* report) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (Status status = check_queries(args.queries); !status.ok()) return status;
    if (args.matrix.data != nullptr && args.queries.rows >= kManyQueries && !args.filter.has_bits_per_query()) {
      const int64_t n_allowed = count_allowed(args);
      if (n_allowed < kFewRowsPerAnswer * args.k) return topk_of_floats(*r.table, args, n_allowed, context, report);
    }
    return cpu::topk_encoded(*r.table, args, context, report);
  });
}

}  // namespace waggle
