#include "waggle/ops/trees_predict.hpp"

#include <algorithm>
#include <atomic>
#include <new>

#include "cpu/trees_predict.hpp"
#include "src/device_forest.hpp"
#include "src/registry.hpp"
#include "waggle/thread_pool.hpp"
#include "waggle/view.hpp"

namespace waggle {

namespace {

Status check(const TreesPredictArgs& args) {
  if (args.model == nullptr) return fail(Code::kInvalidArgument, "the model is missing");
  if (args.n_rows < 0) return fail(Code::kShape, "nRows is negative");
  if (args.threads < 0) return fail(Code::kInvalidArgument, "threads is negative");
  const trees::Ensemble& e = args.model->ensemble();
  int64_t inputs = 0;
  int64_t outputs = 0;
  if (!checked_product(args.n_rows, e.n_features, &inputs) || !checked_product(args.n_rows, e.n_outputs(), &outputs)) {
    return fail(Code::kShape, "sizes overflow");
  }
  if ((inputs > 0 && args.x == nullptr) || (outputs > 0 && args.out == nullptr)) {
    return fail(Code::kShape, "x or out is missing");
  }
  return {};
}

// Below this, the copy to the device and back takes longer than the trees do here.
constexpr double kVisitsWorthACopy = 1e8;
constexpr int64_t kRowsToFinish = 1 << 10;  // per task of the pool

// Cheaper than to hand it to other threads.
bool is_plain(trees::Transform transform) {
  switch (transform) {
    case trees::Transform::kNone:
    case trees::Transform::kHinge:
    case trees::Transform::kSignedSquare:
    case trees::Transform::kComplement:
    case trees::Transform::kNegate:
      return true;
    default:
      return false;
  }
}

// True when the accelerator answered or the caller insists on its failure.
bool run_on_device(const Registry& r, const TreesPredictArgs& args, const RunContext& context, Status* status) {
  const trees::Ensemble& e = args.model->ensemble();
  if (r.plugin == nullptr || r.plugin->ops->forest_predict == nullptr) return false;
  const double visits = static_cast<double>(args.n_rows) * static_cast<double>(e.trees.size()) * 8;
  if (!r.plugin_forced && (!context.parallel || args.threads == 1 || visits < kVisitsWorthACopy)) return false;
  const int64_t n_outputs = args.raw ? e.n_targets : e.n_outputs();
  const auto finish = [&](int64_t first, int64_t rows, const double* sums) {
    try {
      cpu::trees_finish(*args.model, sums, rows, args.raw, args.out + first * n_outputs);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  };
  RunContext uncancelled = context;  // what the device has answered is finished
  uncancelled.cancelled = nullptr;
  const auto take = [&](int64_t first, int64_t rows, const double* sums) {
    if (args.raw || is_plain(e.transform) || rows <= kRowsToFinish) return finish(first, rows, sums);
    std::atomic<bool> finished{true};
    ThreadPool::instance().for_each_chunk(
        (rows + kRowsToFinish - 1) / kRowsToFinish, uncancelled, [&](int64_t chunk, int) {
          const int64_t begin = chunk * kRowsToFinish;
          if (!finish(first + begin, std::min(kRowsToFinish, rows - begin), sums + begin * e.n_targets))
            finished = false;
        });
    return finished.load();
  };
  return args.model->device().sum_leaves(e, args.x, args.n_rows, take, context, status) || !status->ok();
}

}  // namespace

Status trees_predict(const TreesPredictArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (args.n_rows == 0) return {};
    if (Status status; run_on_device(r, args, context, &status)) return status;
    return cpu::trees_predict(*r.table, args, context);
  });
}

}  // namespace waggle
