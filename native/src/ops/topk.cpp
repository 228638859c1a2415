#include "waggle/ops/topk.hpp"

#include <cmath>
#include <limits>

#include "cpu/topk.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

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
  if (args.filter && args.filter.bytes < (args.matrix.rows + 7) / 8) {
    return fail(Code::kShape, "filter has %lld bytes; %lld rows need %lld", static_cast<long long>(args.filter.bytes),
                static_cast<long long>(args.matrix.rows), static_cast<long long>((args.matrix.rows + 7) / 8));
  }
  return {};
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

int32_t poll(void* context) { return static_cast<const RunContext*>(context)->stop_requested() ? 1 : 0; }

// True when the plugin answered (well or badly); false = compute on the CPU.
bool run_on_plugin(const Registry& r, const TopkArgs& args, const RunContext& context, Status* status) {
  waggle_topk_f32_args call = {};
  call.struct_size = sizeof call;
  call.metric = static_cast<int32_t>(args.metric);
  call.queries = args.queries.data;
  call.n_queries = args.queries.rows;
  call.matrix = args.matrix.data;
  call.n_rows = args.matrix.rows;
  call.dim = args.matrix.cols;
  call.k = args.k;
  call.filter = args.filter.data;
  call.scores = args.scores;
  call.rows = args.rows;
  call.is_cancelled = poll;
  call.cancel_context = const_cast<RunContext*>(&context);
  waggle_text text = {};
  text.struct_size = sizeof text;
  const int32_t answer = r.plugin->ops->topk_f32(r.plugin_state, &call, &text);
  text.text[WAGGLE_BACKEND_TEXT_BYTES - 1] = '\0';
  switch (answer) {
    case WAGGLE_BACKEND_OK:
      *status = {};
      return true;
    case WAGGLE_BACKEND_CANCELLED:
      *status = fail(Code::kCancelled, "cancelled");
      return true;
    case WAGGLE_BACKEND_NOT_FINITE:
      *status = fail(Code::kNotFinite, "%s", text.text);
      return true;
    case WAGGLE_BACKEND_UNSUPPORTED:
      return false;
    default:
      // A failing device costs speed, not the answer, unless the caller insisted on it.
      if (!r.plugin_forced) return false;
      *status = fail(answer == WAGGLE_BACKEND_OUT_OF_MEMORY ? Code::kOutOfMemory : Code::kBackend, "%s: %s",
                     r.plugin->name, text.text);
      return true;
  }
}

}  // namespace

Status topk(const TopkArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (args.queries.rows == 0) return {};
    if (Status status = check_queries(args.queries); !status.ok()) return status;
    if (r.plugin != nullptr && r.plugin->ops->topk_f32 != nullptr && args.matrix.rows > 0 &&
        (r.plugin_forced || (context.parallel && worth_the_copy(args)))) {
      Status status;
      if (run_on_plugin(r, args, context, &status)) return status;
    }
    return cpu::topk(*r.table, args, context);
  });
}

}  // namespace waggle
