#include "waggle/ops/score_rank.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/score_rank.hpp"
#include "src/bitmap.hpp"
#include "src/device_call.hpp"
#include "src/registry.hpp"

namespace waggle {

namespace {

Status check(const ScoreRankArgs& args) {
  if (args.n < 0 || args.n > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "nCandidates is %lld; it must be 0 to 2^31 - 1", static_cast<long long>(args.n));
  }
  if (args.k < 1) return fail(Code::kInvalidArgument, "k is %d; it must be at least 1", args.k);
  if (args.max_per_group < 0) return fail(Code::kInvalidArgument, "maxPerGroup is negative");
  const ScoreWeights& w = args.weights;
  if (!std::isfinite(w.margin) || !std::isfinite(w.fit) || !std::isfinite(w.advertiser) || !std::isfinite(w.payout) ||
      !std::isfinite(w.explore)) {
    return fail(Code::kNotFinite, "a weight is NaN or infinite");
  }
  if (args.rows == nullptr || args.scores == nullptr || args.terms == nullptr) {
    return fail(Code::kShape, "an output is missing");
  }
  if (args.n > 0) {
    if (args.q == nullptr || args.spend == nullptr || args.payout == nullptr || args.fit == nullptr) {
      return fail(Code::kShape, "q, spend, payout or fit is missing");
    }
    if (args.filter && args.filter.bytes < (args.n + 7) / 8) {
      return fail(Code::kShape, "filter has %lld bytes; %lld candidates need %lld",
                  static_cast<long long>(args.filter.bytes), static_cast<long long>(args.n),
                  static_cast<long long>((args.n + 7) / 8));
    }
  }
  // Columns of a term reach its score, and so are checked with it. One of these alone makes no term.
  if ((args.goal_units == nullptr) != (args.omega == nullptr)) {
    const bool is_omega = args.omega != nullptr;
    const float* alone = is_omega ? args.omega : args.goal_units;
    for (int64_t i = 0; i < args.n; ++i) {
      if (!std::isfinite(alone[i])) {
        return fail(Code::kNotFinite, "column %s is %s at candidate %lld", is_omega ? "omega" : "goalUnits",
                    std::isnan(alone[i]) ? "NaN" : "infinite", static_cast<long long>(i));
      }
    }
  }
  if (args.max_per_group > 0 && args.group == nullptr && args.n > 0) {
    return fail(Code::kInvalidArgument, "maxPerGroup needs group");
  }
  return {};
}

// Each column is read once, which the bus to a device cannot do faster than this processor: only on demand.
bool run_on_plugin(const Registry& r, const ScoreRankArgs& args, const RunContext& context, ScoreRankCounts* counts,
                   Status* status) {
  if (r.plugin == nullptr || r.plugin->ops->score_rank == nullptr || !r.plugin_forced) return false;
  waggle_score_args call = {};
  call.struct_size = sizeof call;
  call.k = args.k;
  call.n = args.n;
  call.q = args.q;
  call.spend = args.spend;
  call.payout = args.payout;
  call.fit = args.fit;
  call.advertiser = args.advertiser;
  call.explore = args.explore;
  call.goal_units = args.goal_units;
  call.frequency = args.frequency;
  call.mu = args.mu;
  call.omega = args.omega;
  call.rho = args.rho;
  call.weights = device_weights(args.weights);
  call.filter = args.filter.data;
  call.group = args.group;
  call.separation = args.separation;
  call.max_per_group = args.max_per_group;
  call.rows = args.rows;
  call.scores = args.scores;
  call.terms = args.terms;
  call.is_cancelled = poll_stop;
  call.cancel_context = poll_context(context);
  waggle_text text = empty_text();
  const int32_t answer = r.plugin->ops->score_rank(r.plugin_state, &call, &text);
  if (!has_answered(r, answer, text, status)) return false;
  counts->n_selected = call.n_selected;
  counts->n_eligible =
      args.filter ? static_cast<int32_t>(count_bits(args.filter.data, args.n)) : static_cast<int32_t>(args.n);
  return true;
}

}  // namespace

Status score_rank(const ScoreRankArgs& args, const RunContext& context, ScoreRankCounts* counts) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    *counts = {};
    if (Status status = check(args); !status.ok()) return status;
    if (args.n == 0) return {};
    if (Status status; run_on_plugin(r, args, context, counts, &status)) return status;
    return cpu::score_rank(*r.table, args, context, counts);
  });
}

}  // namespace waggle
