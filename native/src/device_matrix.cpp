#include "waggle/device_matrix.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "src/device_call.hpp"
#include "src/registry.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

// As the device scores: products and sums in double, rounded once.
float exact_score(Metric metric, const float* q, const float* x, int64_t dim) {
  double dot = 0;
  double q2 = 0;
  double x2 = 0;
  double distance = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double a = q[i];
    const double b = x[i];
    dot += a * b;
    q2 += a * a;
    x2 += b * b;
    distance += (a - b) * (a - b);
  }
  if (metric == Metric::kL2) return static_cast<float>(-distance);
  if (metric == Metric::kInnerProduct) return static_cast<float>(dot);
  const double norms = std::sqrt(q2) * std::sqrt(x2);
  return norms > 0 ? static_cast<float>(dot / norms) : 0.0f;
}

// What the plugin's callbacks for rows of the host need. No exception crosses the line.
struct HostRows {
  const RowSource* source;
  const DeviceTopkArgs* search = nullptr;
  int64_t dim;
};

// Rows per task of the pool: a task should last some 100 µs.
int64_t rows_per_task(int64_t dim) { return std::max<int64_t>(16, 65536 / std::max<int64_t>(dim, 1)); }

template <typename Body>
int32_t in_tasks(int64_t n, int64_t dim, Body&& body) {
  try {
    const int64_t size = rows_per_task(dim);
    std::atomic<bool> failed{false};
    ThreadPool::instance().for_each_chunk((n + size - 1) / size, RunContext{}, [&](int64_t task, int) {
      try {
        body(task * size, std::min(n, (task + 1) * size));
      } catch (...) {
        failed.store(true);
      }
    });
    return failed.load() ? WAGGLE_BACKEND_FAILED : WAGGLE_BACKEND_OK;
  } catch (...) {
    return WAGGLE_BACKEND_FAILED;
  }
}

int32_t read_rows(void* context, int64_t first, int64_t count, float* rows) {
  const HostRows& host = *static_cast<const HostRows*>(context);
  return in_tasks(count, host.dim, [&](int64_t begin, int64_t end) {
    host.source->read(first + begin, end - begin, rows + begin * host.dim);
  });
}

int32_t score_pairs(void* context, int64_t n_pairs, const int32_t* queries, const int32_t* rows, float* scores) {
  const HostRows& host = *static_cast<const HostRows*>(context);
  return in_tasks(n_pairs, host.dim, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(host.dim));
    for (int64_t i = begin; i < end; ++i) {
      host.source->read(rows[i], 1, row.data());
      scores[i] =
          exact_score(host.search->metric, host.search->queries.data + queries[i] * host.dim, row.data(), host.dim);
    }
  });
}

// Rows of an array as a source. The caller keeps the array.
class ArrayRows final : public RowSource {
 public:
  explicit ArrayRows(Matrix<const float> matrix) : matrix_(matrix) {}
  void read(int64_t first, int64_t count, float* out) const override {
    std::copy_n(matrix_.data + first * matrix_.cols, count * matrix_.cols, out);
  }

 private:
  Matrix<const float> matrix_;
};

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
    call.keep_exact = args.exact == ExactRows::kOnDevice ? 1 : 0;
    HostRows host = {args.source.get(), nullptr, args.matrix.cols};
    if (args.source != nullptr) {
      call.exact = nullptr;
      call.read_rows = read_rows;
      call.read_context = &host;
    } else if (args.matrix.data == nullptr && args.matrix.rows > 0) {
      return fail(Code::kShape, "the matrix is missing");
    }
    call.is_cancelled = poll_stop;
    call.cancel_context = poll_context(context);
    waggle_matrix_info info = {};
    info.struct_size = sizeof info;
    waggle_text text = empty_text();
    waggle_device_matrix* handle = nullptr;
    std::shared_ptr<DeviceMatrix> made(new DeviceMatrix());
    if (Status status = status_of(r, r.plugin->ops->matrix_open(r.plugin_state, &call, &handle, &info, &text), text);
        !status.ok()) {
      return status;
    }
    made->handle_ = handle;
    made->n_rows_ = args.matrix.rows;
    made->dim_ = args.matrix.cols;
    made->device_bytes_ = static_cast<int64_t>(info.device_bytes);
    made->exact_ = args.exact;
    if (args.exact == ExactRows::kOnHost) {
      made->source_ = args.source != nullptr ? args.source : std::make_shared<ArrayRows>(args.matrix);
    }
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
    call.is_cancelled = poll_stop;
    call.cancel_context = poll_context(context);
    HostRows host = {source_.get(), &args, dim_};
    if (source_ != nullptr) {
      call.score_pairs = score_pairs;
      call.score_context = &host;
    }
    waggle_text text = empty_text();
    const int32_t answer =
        r.plugin->ops->topk(r.plugin_state, static_cast<waggle_device_matrix*>(handle_), &call, &text);
    args.n_in_doubt = call.n_in_doubt;
    args.n_rescored = call.n_rescored;
    return status_of(r, answer, text);
  });
}

}  // namespace waggle
