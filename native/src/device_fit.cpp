#include "src/device_fit.hpp"

#include <chrono>

#include "src/device_call.hpp"

namespace waggle {

DeviceFit::~DeviceFit() {
  if (fit_ != nullptr) registry_.plugin->ops->fit_close(registry_.plugin_state, fit_);
}

bool DeviceFit::open(waggle_fit_args args, const RunContext& context, Status* status) {
  waggle_text text = empty_text();
  args.struct_size = sizeof args;
  args.is_cancelled = poll_stop;
  args.cancel_context = poll_context(context);
  const int32_t answer = registry_.plugin->ops->fit_open(registry_.plugin_state, &args, &fit_, &text);
  if (answer == WAGGLE_BACKEND_OK) return true;
  fit_ = nullptr;
  const bool for_the_caller =
      answer == WAGGLE_BACKEND_CANCELLED || (registry_.plugin_forced && answer != WAGGLE_BACKEND_UNSUPPORTED);
  if (for_the_caller) *status = status_of(registry_, answer, text);
  return false;
}

template <typename Args, typename Call>
Status DeviceFit::run(Call call, Args& args, double* seconds) {
  waggle_text text = empty_text();
  args.struct_size = sizeof args;
  const auto start = std::chrono::steady_clock::now();
  const int32_t answer = call(registry_.plugin_state, fit_, &args, &text);
  *seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ++seconds_.calls;
  failed_ = failed_ || (answer != WAGGLE_BACKEND_OK && answer != WAGGLE_BACKEND_CANCELLED);
  return status_of(registry_, answer, text);
}

Status DeviceFit::gradients(waggle_fit_gradients_args& args) {
  return run(registry_.plugin->ops->fit_gradients, args, &seconds_.gradients);
}
Status DeviceFit::start_tree(waggle_fit_tree_args& args) {
  return run(registry_.plugin->ops->fit_tree, args, &seconds_.start);
}
Status DeviceFit::part(waggle_fit_parts_args& args) {
  return run(registry_.plugin->ops->fit_parts, args, &seconds_.part);
}
Status DeviceFit::search(waggle_fit_search_args& args) {
  return run(registry_.plugin->ops->fit_search, args, &seconds_.search);
}
Status DeviceFit::leaves(waggle_fit_leaves_args& args) {
  return run(registry_.plugin->ops->fit_leaves, args, &seconds_.leaves);
}
Status DeviceFit::update(waggle_fit_update_args& args) {
  return run(registry_.plugin->ops->fit_update, args, &seconds_.update);
}

}  // namespace waggle
