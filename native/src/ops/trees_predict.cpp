#include "waggle/ops/trees_predict.hpp"

#include "cpu/trees_predict.hpp"
#include "src/registry.hpp"
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

}  // namespace

Status trees_predict(const TreesPredictArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    if (args.n_rows == 0) return {};
    return cpu::trees_predict(*r.table, args, context);
  });
}

}  // namespace waggle
