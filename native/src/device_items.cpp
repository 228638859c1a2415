#include "waggle/device_items.hpp"

#include <limits>

#include "src/device_call.hpp"
#include "src/registry.hpp"

namespace waggle {

Status DeviceItems::open(const DeviceItemsArgs& args, const RunContext& context,
                         std::shared_ptr<const DeviceItems>* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (args.n_items < 0 || args.n_items > std::numeric_limits<int32_t>::max()) {
      return fail(Code::kShape, "nItems is out of range");
    }
    for (const Matrix<const float>* part : {&args.embeddings, &args.item_features}) {
      int64_t values = 0;
      if (!checked_product(args.n_items, part->cols, &values) ||
          (part->cols > 0 && (part->rows != args.n_items || (values > 0 && part->data == nullptr)))) {
        return fail(Code::kShape, "embeddings or features are missing or of another number of rows");
      }
    }
    if (r.plugin == nullptr || r.plugin->ops->rank_items_open == nullptr ||
        r.plugin->ops->rank_items_close == nullptr || r.plugin->ops->rank_batch == nullptr) {
      return fail(Code::kBackend, "no accelerator that ranks is in use; backendInfo() says why");
    }
    waggle_rank_items_args call = {};
    call.struct_size = sizeof call;
    call.sums_in_double = r.table->level == cpu::Simd::kScalar ? 1 : 0;
    call.n_items = args.n_items;
    call.embeddings = args.embeddings.data;
    call.dim = args.embeddings.cols;
    call.features = args.item_features.data;
    call.n_features = args.item_features.cols;
    call.is_cancelled = poll_stop;
    call.cancel_context = poll_context(context);
    waggle_text text = empty_text();
    waggle_rank_items* handle = nullptr;
    std::shared_ptr<DeviceItems> made(new DeviceItems());
    const int32_t answer = r.plugin->ops->rank_items_open(r.plugin_state, &call, &handle, &text);
    if (answer != WAGGLE_BACKEND_OK) return status_of(r, answer, text);
    made->handle_ = handle;
    made->n_items_ = args.n_items;
    made->dim_ = args.embeddings.cols;
    made->n_features_ = args.item_features.cols;
    made->device_bytes_ = static_cast<int64_t>(call.device_bytes);
    *out = std::move(made);
    return {};
  });
}

DeviceItems::~DeviceItems() {
  if (handle_ == nullptr) return;
  const Registry& r = registry();
  r.plugin->ops->rank_items_close(r.plugin_state, static_cast<waggle_rank_items*>(handle_));
}

}  // namespace waggle
