#include "waggle/ops/trees_shap.hpp"

#include "cpu/trees_shap.hpp"
#include "src/registry.hpp"
#include "waggle/view.hpp"

namespace waggle {

namespace {

Status check(const TreesShapArgs& args) {
  if (args.model == nullptr) return fail(Code::kInvalidArgument, "the model is missing");
  if (args.n_rows < 0 || args.n_background < 0) return fail(Code::kShape, "a number of rows is negative");
  if (args.threads < 0) return fail(Code::kInvalidArgument, "threads is negative");
  const trees::Ensemble& e = args.model->ensemble();
  int64_t inputs = 0;
  int64_t background = 0;
  int64_t outputs = 0;
  if (!checked_product(args.n_rows, e.n_features, &inputs) ||
      !checked_product(args.n_background, e.n_features, &background) ||
      !checked_product(args.n_rows, e.n_targets, &outputs) ||
      !checked_product(outputs, int64_t{e.n_features} + 1, &outputs)) {
    return fail(Code::kShape, "sizes overflow");
  }
  if ((inputs > 0 && args.x == nullptr) || (background > 0 && args.background == nullptr) ||
      (outputs > 0 && args.out == nullptr)) {
    return fail(Code::kShape, "x, background or out is missing");
  }
  if (args.n_background == 0 && e.covers.empty() && !e.nodes.empty()) {
    return fail(Code::kModel,
                "the model does not say how the training data went through its trees (covers): pass a background");
  }
  return {};
}

}  // namespace

Status trees_shap(const TreesShapArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    if (const Registry& r = registry(); !r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (args.n_rows == 0) return {};
    return cpu::trees_shap(args, context);
  });
}

}  // namespace waggle
