// Sparse rows and their targets as the jobs take them, and what their jobs have in common.
#pragma once

#include <napi.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "addon/job.hpp"
#include "waggle/sparse.hpp"

namespace waggle::addon {

inline void expect_count(const Napi::CallbackInfo& info, int count, const char* name) {
  if (static_cast<int>(info.Length()) >= count) return;
  throw to_error(info.Env(), fail(Code::kInvalidArgument, "%s takes %d arguments", name, count));
}

/// nRows, indptr, indices, values, fields from `first` on.
constexpr int kRowsArguments = 5;
inline SparseRows borrow_rows(Job& job, const Napi::CallbackInfo& info, size_t first) {
  const Napi::Env env = info.Env();
  SparseRows rows;
  rows.n_rows = info[first].ToNumber().Int64Value();
  if (rows.n_rows < 0 || rows.n_rows > std::numeric_limits<int32_t>::max()) {
    throw to_error(env, fail(Code::kShape, "nRows is outside 0 to 2^31 - 1"));
  }
  rows.indptr = job.input<int32_t>(env, info[first + 1], rows.n_rows + 1, "indptr");
  rows.n_entries = std::max(0, rows.indptr[rows.n_rows]);  // a negative end is refused with the other checks
  rows.indices = job.input<int32_t>(env, info[first + 2], rows.n_entries, "indices");
  rows.values = job.optional_input<float>(env, info[first + 3], rows.n_entries, "values");
  rows.fields = job.optional_input<int32_t>(env, info[first + 4], rows.n_entries, "fields");
  return rows;
}

/// successes, trials, weights, offset from `first` on.
constexpr int kTargetsArguments = 4;
inline SparseTargets borrow_targets(Job& job, const Napi::CallbackInfo& info, size_t first, int64_t n_rows) {
  const Napi::Env env = info.Env();
  SparseTargets targets;
  targets.successes = job.input<double>(env, info[first], n_rows, "successes");
  targets.trials = job.optional_input<double>(env, info[first + 1], n_rows, "trials");
  targets.weights = job.optional_input<double>(env, info[first + 2], n_rows, "weights");
  targets.offset = job.optional_input<double>(env, info[first + 3], n_rows, "offset");
  return targets;
}

/// JavaScript looks at it now and then, without waiting for us.
inline void publish(double* slot, double value) {
  std::atomic_ref<double>(*slot).store(value, std::memory_order_relaxed);
}

template <typename Array, typename T>
Array to_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  return array;
}

}  // namespace waggle::addon
