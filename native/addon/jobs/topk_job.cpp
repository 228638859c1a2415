#include "waggle/ops/topk.hpp"

#include <type_traits>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/loan.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kQueries,
  kNQueries,
  kMatrix,
  kNRows,
  kDim,
  kK,
  kMetric,
  kFilter,
  kFilters,
  kAllowRows,
  kScores,
  kRows,
  kCount
};

struct Sizes {
  int64_t n_queries = 0, n_rows = 0, dim = 0, k = 0;
  int64_t query_values = 0, matrix_values = 0, answers = 0, filter_bytes = 0, filters_bytes = 0;
};

Sizes sizes_of(const Napi::CallbackInfo& info) {
  if (info.Length() < kCount) {
    throw to_error(info.Env(), fail(Code::kInvalidArgument, "topk takes %d arguments", static_cast<int>(kCount)));
  }
  Sizes s;
  s.n_queries = info[kNQueries].ToNumber().Int64Value();
  s.n_rows = info[kNRows].ToNumber().Int64Value();
  s.dim = info[kDim].ToNumber().Int64Value();
  s.k = info[kK].ToNumber().Int64Value();
  if (s.k < 1 || s.k > kTopkMaxK) {
    throw to_error(info.Env(), fail(Code::kInvalidArgument, "k is %lld; it must be 1 to %d",
                                    static_cast<long long>(s.k), kTopkMaxK));
  }
  if (!checked_product(s.n_queries, s.dim, &s.query_values) || !checked_product(s.n_rows, s.dim, &s.matrix_values) ||
      !checked_product(s.n_queries, s.k, &s.answers) ||
      !checked_product(s.n_queries, (s.n_rows + 7) / 8, &s.filters_bytes)) {
    throw to_error(info.Env(), fail(Code::kShape, "sizes are negative or overflow"));
  }
  s.filter_bytes = (s.n_rows + 7) / 8;
  return s;
}

TopkArgs shape(const Napi::CallbackInfo& info, const Sizes& s) {
  TopkArgs args;
  args.queries.rows = s.n_queries;
  args.queries.cols = s.dim;
  args.matrix.rows = s.n_rows;
  args.matrix.cols = s.dim;
  args.k = static_cast<int32_t>(s.k);
  args.metric = static_cast<Metric>(info[kMetric].ToNumber().Int32Value());
  return args;
}

// Null = not given. An empty list is one that allows nothing; its memory is never null here.
RowFilter choose_filter(const Napi::CallbackInfo& info, const Sizes& s, const uint8_t* shared, const uint8_t* each,
                        const int32_t* list) {
  if ((shared != nullptr) + (each != nullptr) + (list != nullptr) > 1) {
    throw to_error(info.Env(), fail(Code::kInvalidArgument, "give one of filter, filters and allowRows"));
  }
  if (shared != nullptr) return RowFilter::shared(shared, s.filter_bytes);
  if (each != nullptr) return RowFilter::per_query(each, s.filter_bytes, s.n_queries);
  if (list != nullptr) {
    return RowFilter::list(list, static_cast<int64_t>(info[kAllowRows].As<Napi::TypedArray>().ElementLength()));
  }
  return {};
}

class TopkJob final : public Job {
 public:
  explicit TopkJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Sizes s = sizes_of(info);
    args_ = shape(info, s);
    args_.queries.data = input<float>(env, info[kQueries], s.query_values, "queries");
    args_.matrix.data = input<float>(env, info[kMatrix], s.matrix_values, "matrix");
    const uint8_t* shared = optional_input<uint8_t>(env, info[kFilter], s.filter_bytes, "filter");
    const uint8_t* each = optional_input<uint8_t>(env, info[kFilters], s.filters_bytes, "filters");
    const int32_t* list = optional_input<int32_t>(env, info[kAllowRows], 0, "allowRows");
    args_.filter = choose_filter(info, s, shared, each, list);
    args_.scores = output<float>(env, info[kScores], s.answers, "scores");
    args_.rows = output<int32_t>(env, info[kRows], s.answers, "rows");
  }
  Status execute(const RunContext& context) override { return topk(args_, context); }

 private:
  TopkArgs args_;
};

}  // namespace

Napi::Value topk_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TopkJob>(info));
}

Napi::Value topk_sync(const Napi::CallbackInfo& info) {
  const Sizes s = sizes_of(info);
  TopkArgs args = shape(info, s);
  Loan loan(info.Env());
  args.queries.data = loan.input<float>(info[kQueries], s.query_values, "queries");
  args.matrix.data = loan.input<float>(info[kMatrix], s.matrix_values, "matrix");
  const uint8_t* shared = loan.optional_input<uint8_t>(info[kFilter], s.filter_bytes, "filter");
  const uint8_t* each = loan.optional_input<uint8_t>(info[kFilters], s.filters_bytes, "filters");
  const int32_t* list = loan.optional_input<int32_t>(info[kAllowRows], 0, "allowRows");
  args.filter = choose_filter(info, s, shared, each, list);
  args.scores = loan.output<float>(info[kScores], s.answers, "scores");
  args.rows = loan.output<int32_t>(info[kRows], s.answers, "rows");
  loan.check();
  RunContext context;
  context.parallel = false;
  check(info.Env(), topk(args, context));
  return info.Env().Undefined();
}

}  // namespace waggle::addon
