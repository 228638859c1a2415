#include <algorithm>
#include <atomic>
#include <cmath>

#include "waggle/sparse.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

constexpr int64_t kChunk = 8192;
// Beyond these, squares of gradients overflow.
constexpr double kLargestCount = 1e50;
constexpr double kLargestOffset = 1e100;

// What is wrong with the row; ok when nothing is. `indptr` is sane already.
Status check_row(const SparseRows& rows, int64_t row, int64_t n_features, int32_t n_fields) {
  const long long at = row;
  for (int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) {
    if (rows.indices[e] < 0 || rows.indices[e] >= n_features) {
      return fail(Code::kInvalidArgument, "index %d at row %lld, entry %lld is outside 0 to %lld", rows.indices[e], at,
                  static_cast<long long>(e), static_cast<long long>(n_features - 1));
    }
    if (rows.values != nullptr && !std::isfinite(rows.values[e])) {
      return fail(Code::kNotFinite, "values is %s at row %lld, entry %lld",
                  std::isnan(rows.values[e]) ? "NaN" : "infinite", at, static_cast<long long>(e));
    }
    if (n_fields > 0 && (rows.field(row, e) < 0 || rows.field(row, e) >= n_fields)) {
      return rows.fields != nullptr
                 ? fail(Code::kInvalidArgument, "field %d at row %lld, entry %lld is outside 0 to %d",
                        rows.field(row, e), at, static_cast<long long>(e), n_fields - 1)
                 : fail(Code::kShape, "row %lld has more than %d entries; without fields its places are the fields", at,
                        n_fields);
    }
  }
  return {};
}

Status check_column(const char* name, const double* values, int64_t n, bool may_be_negative) {
  const double most = may_be_negative ? kLargestOffset : kLargestCount;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return fail(Code::kNotFinite, "%s is %s at row %lld", name, std::isnan(values[i]) ? "NaN" : "infinite",
                  static_cast<long long>(i));
    }
    if (!may_be_negative && values[i] < 0) {
      return fail(Code::kInvalidArgument, "%s is negative at row %lld", name, static_cast<long long>(i));
    }
    if (std::fabs(values[i]) > most) {
      return fail(Code::kInvalidArgument, "%s is beyond %g at row %lld", name, most, static_cast<long long>(i));
    }
  }
  return {};
}

}  // namespace

Status check_sparse_rows(const SparseRows& rows, int64_t n_features, int32_t n_fields, const RunContext& context) {
  if (rows.n_rows < 0) return fail(Code::kShape, "nRows is negative");
  if (rows.indptr == nullptr || (rows.n_entries > 0 && rows.indices == nullptr)) {
    return fail(Code::kShape, "indptr or indices is missing");
  }
  if (rows.indptr[0] != 0) return fail(Code::kInvalidArgument, "indptr starts at %d, not at 0", rows.indptr[0]);
  for (int64_t i = 0; i < rows.n_rows; ++i) {
    if (rows.indptr[i + 1] < rows.indptr[i]) {
      return fail(Code::kInvalidArgument, "indptr falls at row %lld", static_cast<long long>(i));
    }
  }
  if (rows.indptr[rows.n_rows] > rows.n_entries) {
    return fail(Code::kShape, "indptr ends at %d; indices has %lld elements", rows.indptr[rows.n_rows],
                static_cast<long long>(rows.n_entries));
  }
  std::atomic<int64_t> first_bad{rows.n_rows};
  ThreadPool::instance().for_each_chunk((rows.n_rows + kChunk - 1) / kChunk, context, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows.n_rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) {
      bool good = true;
      for (int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) {
        good = good && static_cast<uint32_t>(rows.indices[e]) < n_features &&
               (rows.values == nullptr || rows.values[e] - rows.values[e] == 0) &&
               (n_fields == 0 || static_cast<uint32_t>(rows.field(row, e)) < static_cast<uint32_t>(n_fields));
      }
      if (good) continue;
      int64_t seen = first_bad.load();
      while (row < seen && !first_bad.compare_exchange_weak(seen, row)) {
      }
      return;
    }
  });
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (first_bad.load() < rows.n_rows) return check_row(rows, first_bad.load(), n_features, n_fields);
  return {};
}

Status check_sparse_offset(const double* offset, int64_t n_rows) {
  return offset != nullptr ? check_column("offset", offset, n_rows, true) : Status();
}

Status check_sparse_targets(const SparseTargets& targets, int64_t n_rows) {
  if (targets.successes == nullptr && n_rows > 0) return fail(Code::kShape, "successes is missing");
  if (Status status = check_column("successes", targets.successes, n_rows, false); !status.ok()) return status;
  if (targets.trials != nullptr) {
    if (Status status = check_column("trials", targets.trials, n_rows, false); !status.ok()) return status;
  }
  for (int64_t i = 0; i < n_rows; ++i) {
    if (targets.successes[i] > targets.trial(i)) {
      return fail(Code::kInvalidArgument, "successes exceed trials at row %lld", static_cast<long long>(i));
    }
  }
  if (targets.weights != nullptr) {
    if (Status status = check_column("weights", targets.weights, n_rows, false); !status.ok()) return status;
  }
  return check_sparse_offset(targets.offset, n_rows);
}

}  // namespace waggle
