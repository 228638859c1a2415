#include "waggle/device_matrix.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "src/registry.hpp"

namespace waggle {

namespace {

int32_t poll(void* context) { return static_cast<const RunContext*>(context)->stop_requested() ? 1 : 0; }

Status status_of(const Registry& r, int32_t answer, waggle_text* text) {
  text->text[WAGGLE_BACKEND_TEXT_BYTES - 1] = '\0';
  switch (answer) {
    case WAGGLE_BACKEND_OK:
      return {};
    case WAGGLE_BACKEND_CANCELLED:
      return fail(Code::kCancelled, "cancelled");
    case WAGGLE_BACKEND_NOT_FINITE:
      return fail(Code::kNotFinite, "%s", text->text);
    case WAGGLE_BACKEND_OUT_OF_MEMORY:
      return fail(Code::kOutOfMemory, "%s: %s", r.plugin->name, text->text);
    default:
      return fail(Code::kBackend, "%s: %s", r.plugin->name, text->text);
  }
}

}  // namespace

Status DeviceMatrix::open(const DeviceMatrixArgs& args, const RunContext& context, std::shared_ptr<DeviceMatrix>* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (args.matrix.rows < 0 || args.matrix.cols < 1) return fail(Code::kShape, "a device matrix needs dim ≥ 1");
    if (r.plugin == nullptr || r.plugin->ops->matrix_open == nullptr || r.plugin->ops->topk == nullptr ||
        r.plugin->ops->matrix_close == nullptr) {
      return fail(Code::kBackend, "no accelerator is in use; backendInfo() says why");
    }
    waggle_matrix_args call = {};
    call.struct_size = sizeof call;
    call.dtype = static_cast<int32_t>(args.dtype);
    call.exact = args.matrix.data;
    call.n_rows = args.matrix.rows;
    call.dim = args.matrix.cols;
    call.keep_exact = args.keep_exact ? 1 : 0;
    call.is_cancelled = poll;
    call.cancel_context = const_cast<RunContext*>(&context);
    waggle_matrix_info info = {};
    info.struct_size = sizeof info;
    waggle_text text = {};
    text.struct_size = sizeof text;
    waggle_device_matrix* handle = nullptr;
    std::shared_ptr<DeviceMatrix> made(new DeviceMatrix());
    if (Status status = status_of(r, r.plugin->ops->matrix_open(r.plugin_state, &call, &handle, &info, &text), &text);
        !status.ok()) {
      return status;
    }
    made->handle_ = handle;
    made->n_rows_ = args.matrix.rows;
    made->dim_ = args.matrix.cols;
    made->device_bytes_ = static_cast<int64_t>(info.device_bytes);
    made->exact_ = args.keep_exact;
    *out = std::move(made);
    return {};
  });
}

DeviceMatrix::~DeviceMatrix() {
  const Registry& r = registry();
  if (handle_ != nullptr) r.plugin->ops->matrix_close(r.plugin_state, static_cast<waggle_device_matrix*>(handle_));
}

Status DeviceMatrix::topk(DeviceTopkArgs& args, const RunContext& context) const {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (args.k < 1 || args.k > kTopkMaxK) {
      return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d", args.k, kTopkMaxK);
    }
    if (args.queries.rows < 0 || args.queries.cols != dim_) {
      return fail(Code::kShape, "queries have dim %lld, the matrix %lld", static_cast<long long>(args.queries.cols),
                  static_cast<long long>(dim_));
    }
    const int64_t n_values = args.queries.rows * dim_;
    for (int64_t i = 0; i < n_values; ++i) {
      if (!std::isfinite(args.queries.data[i])) {
        return fail(Code::kNotFinite, "query %lld holds NaN or infinity", static_cast<long long>(i / dim_));
      }
    }
    std::vector<uint8_t> bitmap;  // the plugin knows bitmaps only
    waggle_topk_args call = {};
    if (args.filter.has_list()) {
      bitmap.assign(static_cast<size_t>((n_rows_ + 7) / 8), 0);
      int64_t last = -1;
      for (int64_t i = 0; i < args.filter.n_rows; ++i) {
        const int64_t row = args.filter.rows[i];
        if (row <= last || row >= n_rows_) {
          return fail(Code::kInvalidArgument,
                      "allowed rows must be ascending, unique and below %lld; entry %lld is %lld",
                      static_cast<long long>(n_rows_), static_cast<long long>(i), static_cast<long long>(row));
        }
        bitmap[static_cast<size_t>(row >> 3)] |= static_cast<uint8_t>(1 << (row & 7));
        last = row;
      }
      call.filter = bitmap.data();
    } else if (args.filter) {
      const int64_t row_bytes = (n_rows_ + 7) / 8;
      const bool shared = args.filter.stride_bytes == 0;
      if ((!shared && args.filter.stride_bytes < row_bytes) ||
          args.filter.bits_bytes < (shared ? row_bytes : args.filter.stride_bytes * args.queries.rows)) {
        return fail(Code::kShape, "the filter's bitmaps are too short for %lld rows", static_cast<long long>(n_rows_));
      }
      call.filter = args.filter.bits;
      call.filter_stride = args.filter.stride_bytes;
    }
    call.struct_size = sizeof call;
    call.metric = static_cast<int32_t>(args.metric);
    call.queries = args.queries.data;
    call.n_queries = args.queries.rows;
    call.k = args.k;
    call.scores = args.scores;
    call.rows = args.rows;
    call.is_cancelled = poll;
    call.cancel_context = const_cast<RunContext*>(&context);
    waggle_text text = {};
    text.struct_size = sizeof text;
    const int32_t answer =
        r.plugin->ops->topk(r.plugin_state, static_cast<waggle_device_matrix*>(handle_), &call, &text);
    args.n_in_doubt = call.n_in_doubt;
    args.n_rescored = call.n_rescored;
    return status_of(r, answer, &text);
  });
}

}  // namespace waggle
