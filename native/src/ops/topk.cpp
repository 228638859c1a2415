#include "waggle/ops/topk.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/topk.hpp"
#include "src/device_call.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

Status check_list(const int32_t* rows, int64_t n, int64_t n_rows) {
  for (int64_t i = 0; i < n; ++i) {
    if (rows[i] < 0 || rows[i] >= n_rows) {
      return fail(Code::kInvalidArgument, "allowed row %d at %lld; there are %lld rows", rows[i],
                  static_cast<long long>(i), static_cast<long long>(n_rows));
    }
    if (i > 0 && rows[i] <= rows[i - 1]) {
      return fail(Code::kInvalidArgument, "allowed row %d at %lld follows %d; rows must ascend", rows[i],
                  static_cast<long long>(i), rows[i - 1]);
    }
  }
  return {};
}

Status check(const TopkArgs& args) {
  const int64_t dim = args.matrix.cols;
  if (args.k < 1 || args.k > kTopkMaxK) {
    return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d", args.k, kTopkMaxK);
  }
  if (args.metric != Metric::kInnerProduct && args.metric != Metric::kCosine && args.metric != Metric::kL2) {
    return fail(Code::kInvalidArgument, "unknown metric %d", static_cast<int>(args.metric));
  }
  if (dim < 1) return fail(Code::kShape, "dim is %lld; it must be at least 1", static_cast<long long>(dim));
  if (args.queries.cols != dim) return fail(Code::kShape, "queries and matrix differ in dim");
  if (args.queries.rows < 0 || args.matrix.rows < 0) return fail(Code::kShape, "a size is negative");
  if (args.matrix.rows > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "matrix has more than 2^31 - 1 rows");
  }
  int64_t elements = 0;
  if (!checked_product(args.matrix.rows, dim, &elements) || !checked_product(args.queries.rows, dim, &elements) ||
      !checked_product(args.queries.rows, args.k, &elements)) {
    return fail(Code::kShape, "sizes overflow");
  }
  if (args.queries.rows > 0 && (args.queries.data == nullptr || args.scores == nullptr || args.rows == nullptr)) {
    return fail(Code::kShape, "queries or an output is missing");
  }
  if (args.matrix.rows > 0 && args.matrix.data == nullptr) return fail(Code::kShape, "matrix is missing");
  return check_filter(args.filter, args.queries.rows, args.matrix.rows);
}

// Scores are checked where they are made; queries here, since with every row filtered they make none.
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

// The matrix is copied to the device on each call, which pays only when many queries share it.
bool worth_the_copy(const TopkArgs& args) {
  constexpr int64_t kQueriesWorthACopy = 64;
  constexpr double kWorkWorthACopy = 1e10;
  return args.queries.rows >= kQueriesWorthACopy && static_cast<double>(args.queries.rows) *
                                                            static_cast<double>(args.matrix.rows) *
                                                            static_cast<double>(args.matrix.cols) >=
                                                        kWorkWorthACopy;
}

// True when the plugin answered (well or badly); false = compute on the CPU.
bool run_on_plugin(const Registry& r, const TopkArgs& args, const RunContext& context, Status* status) {
  std::vector<uint8_t> bitmap;  // the plugin knows one shared bitmap
  const uint8_t* bits = args.filter.bits;
  if (args.filter.has_list()) {
    bitmap.assign(static_cast<size_t>((args.matrix.rows + 7) / 8), 0);
    for (int64_t i = 0; i < args.filter.n_rows; ++i) {
      const int32_t row = args.filter.rows[i];
      bitmap[static_cast<size_t>(row >> 3)] |= static_cast<uint8_t>(1 << (row & 7));
    }
    bits = bitmap.data();
  }
  waggle_topk_f32_args call = {};
  call.struct_size = sizeof call;
  call.metric = static_cast<int32_t>(args.metric);
  call.queries = args.queries.data;
  call.n_queries = args.queries.rows;
  call.matrix = args.matrix.data;
  call.n_rows = args.matrix.rows;
  call.dim = args.matrix.cols;
  call.k = args.k;
  call.filter = bits;
  call.scores = args.scores;
  call.rows = args.rows;
  call.is_cancelled = poll_stop;
  call.cancel_context = poll_context(context);
  waggle_text text = empty_text();
  const int32_t answer = r.plugin->ops->topk_f32(r.plugin_state, &call, &text);
  if (answer == WAGGLE_BACKEND_NOT_FINITE) {
    *status = status_of(r, answer, text);
    return true;
  }
  return has_answered(r, answer, text, status);
}

}  // namespace

Status check_filter(const RowFilter& filter, int64_t n_queries, int64_t n_rows) {
  if (filter.bits != nullptr && filter.has_list()) {
    return fail(Code::kInvalidArgument, "a filter is a bitmap or a list of rows, not both");
  }
  if (filter.has_list()) {
    if (filter.n_rows > 0 && filter.rows == nullptr) return fail(Code::kShape, "the list of allowed rows is missing");
    return check_list(filter.rows, filter.n_rows, n_rows);
  }
  if (filter.bits == nullptr) return {};
  const int64_t one = (n_rows + 7) / 8;
  int64_t needed = one;
  if (filter.stride_bytes != 0) {
    if (filter.stride_bytes < one || !checked_product(filter.stride_bytes, n_queries, &needed)) {
      return fail(Code::kShape, "bitmaps are %lld bytes apart; %lld rows need %lld",
                  static_cast<long long>(filter.stride_bytes), static_cast<long long>(n_rows),
                  static_cast<long long>(one));
    }
    needed = n_queries == 0 ? 0 : needed - filter.stride_bytes + one;
  }
  if (filter.bits_bytes < needed) {
    return fail(Code::kShape, "filter has %lld bytes; %lld rows need %lld", static_cast<long long>(filter.bits_bytes),
                static_cast<long long>(n_rows), static_cast<long long>(needed));
  }
  return {};
}

Status topk(const TopkArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (args.queries.rows == 0) return {};
    if (Status status = check_queries(args.queries); !status.ok()) return status;
    if (r.plugin != nullptr && r.plugin->ops->topk_f32 != nullptr && args.matrix.rows > 0 &&
        args.filter.stride_bytes == 0 && (r.plugin_forced || (context.parallel && worth_the_copy(args)))) {
      Status status;
      if (run_on_plugin(r, args, context, &status)) return status;
    }
    return cpu::topk(*r.table, args, context);
  });
}

}  // namespace waggle
