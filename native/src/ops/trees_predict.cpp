#include "waggle/ops/trees_predict.hpp"

#include <algorithm>
#include <memory>

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
constexpr int64_t kRowsAtOnce = 1 << 18;
constexpr int64_t kRowsToFinish = 1 << 13;  // per task of the pool

// True when the accelerator answered or the caller insists on its failure.
bool run_on_device(const Registry& r, const TreesPredictArgs& args, const RunContext& context, Status* status) {
  const trees::Ensemble& e = args.model->ensemble();
  if (r.plugin == nullptr || r.plugin->ops->forest_predict == nullptr) return false;
  const double visits = static_cast<double>(args.n_rows) * static_cast<double>(e.trees.size()) * 8;
  if (!r.plugin_forced && (!context.parallel || args.threads == 1 || visits < kVisitsWorthACopy)) return false;
  const int64_t n_outputs = args.raw ? e.n_targets : e.n_outputs();
  const int64_t at_once = std::min(kRowsAtOnce, args.n_rows);
  // Written by the device before anybody reads it.
  const std::unique_ptr<double[]> sums(new double[static_cast<size_t>(at_once) * static_cast<size_t>(e.n_targets)]);
  for (int64_t first = 0; first < args.n_rows; first += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, args.n_rows - first);
    if (!args.model->device().sum_leaves(e, args.x + first * e.n_features, rows, sums.get(), context, status)) {
      return !status->ok();
    }
    RunContext uncancelled = context;  // what the device has answered is finished
    uncancelled.cancelled = nullptr;
    ThreadPool::instance().for_each_chunk(
        (rows + kRowsToFinish - 1) / kRowsToFinish, uncancelled, [&](int64_t chunk, int) {
          const int64_t begin = chunk * kRowsToFinish;
          cpu::trees_finish(*args.model, sums.get() + begin * e.n_targets, std::min(kRowsToFinish, rows - begin),
                            args.raw, args.out + (first + begin) * n_outputs);
        });
  }
  return true;
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
