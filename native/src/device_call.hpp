// What every call of an accelerator needs: a look at the caller's wish to stop, and what to make of the answer.
#pragma once

#include <cstdint>

#include "src/registry.hpp"
#include "waggle/ops/score_rank.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

/// The plugin contract's is_cancelled, whose context is a RunContext.
inline int32_t poll_stop(void* context) { return static_cast<const RunContext*>(context)->stop_requested() ? 1 : 0; }
inline void* poll_context(const RunContext& context) { return const_cast<RunContext*>(&context); }

inline waggle_text empty_text() {
  waggle_text text = {};
  text.struct_size = sizeof text;
  return text;
}

/// The answer as a status, for calls that have no CPU behind them.
inline Status status_of(const Registry& r, int32_t answer, waggle_text& text) {
  text.text[WAGGLE_BACKEND_TEXT_BYTES - 1] = '\0';
  switch (answer) {
    case WAGGLE_BACKEND_OK:
      return {};
    case WAGGLE_BACKEND_CANCELLED:
      return fail(Code::kCancelled, "cancelled");
    case WAGGLE_BACKEND_NOT_FINITE:
      return fail(Code::kNotFinite, "%s", text.text);
    case WAGGLE_BACKEND_OUT_OF_MEMORY:
      return fail(Code::kOutOfMemory, "%s: %s", r.plugin->name, text.text);
    default:
      return fail(Code::kBackend, "%s: %s", r.plugin->name, text.text);
  }
}

/// True when the call has ended with `status`: answered, cancelled, or failed where the caller insisted on the
/// accelerator. False: the CPU is to do it, numbers that are not finite included, since it says which they are.
inline bool has_answered(const Registry& r, int32_t answer, waggle_text& text, Status* status) {
  if (answer == WAGGLE_BACKEND_UNSUPPORTED || answer == WAGGLE_BACKEND_NOT_FINITE) return false;
  // A failing device costs speed, not the answer, unless the caller insisted on it.
  if (answer != WAGGLE_BACKEND_OK && answer != WAGGLE_BACKEND_CANCELLED && !r.plugin_forced) return false;
  *status = status_of(r, answer, text);
  return true;
}

inline waggle_score_weights device_weights(const ScoreWeights& w) {
  return {w.margin, w.fit, w.advertiser, w.payout, w.explore};
}

}  // namespace waggle
