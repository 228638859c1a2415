#include "waggle/ops/encode.hpp"

#include "cpu/encode.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

Status check(const EncodeArgs& args) {
  if (args.dtype != Dtype::kF16 && args.dtype != Dtype::kBf16 && args.dtype != Dtype::kInt8) {
    return fail(Code::kInvalidArgument, "unknown dtype %d", static_cast<int>(args.dtype));
  }
  if (args.matrix.cols < 1) {
    return fail(Code::kShape, "dim is %lld; it must be at least 1", static_cast<long long>(args.matrix.cols));
  }
  int64_t elements = 0;
  if (!checked_product(args.matrix.rows, args.matrix.cols, &elements) ||
      !checked_product(args.matrix.rows, args.row_stride, &elements) ||
      !checked_product(elements, bytes_of(args.dtype), &elements)) {
    return fail(Code::kShape, "sizes are negative or overflow");
  }
  if (args.row_stride < args.matrix.cols) return fail(Code::kShape, "rows of the encoded matrix overlap");
  if (args.matrix.rows > 0 && (args.matrix.data == nullptr || args.data == nullptr || args.error == nullptr ||
                               args.norm == nullptr || (has_scale(args.dtype) && args.scale == nullptr))) {
    return fail(Code::kShape, "matrix or an output is missing");
  }
  if (args.lower != nullptr && args.dtype != Dtype::kBf16) {
    return fail(Code::kInvalidArgument, "only bf16 is the upper half of a float");
  }
  return {};
}

}  // namespace

Status encode(const EncodeArgs& args, const RunContext& context) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    return cpu::encode(*r.table, args, context);
  });
}

}  // namespace waggle
