#include "waggle/ops/topk.hpp"

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

enum Argument { kQueries, kNQueries, kMatrix, kNRows, kDim, kK, kMetric, kFilter, kScores, kRows, kCount };

struct Sizes {
  int64_t n_queries = 0, n_rows = 0, dim = 0, k = 0;
  int64_t query_values = 0, matrix_values = 0, answers = 0, filter_bytes = 0;
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
      !checked_product(s.n_queries, s.k, &s.answers)) {
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

class TopkJob final : public Job {
 public:
  explicit TopkJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Sizes s = sizes_of(info);
    args_ = shape(info, s);
    args_.queries.data = input<float>(env, info[kQueries], s.query_values, "queries");
    args_.matrix.data = input<float>(env, info[kMatrix], s.matrix_values, "matrix");
    args_.filter.data = optional_input<uint8_t>(env, info[kFilter], s.filter_bytes, "filter");
    args_.filter.bytes = s.filter_bytes;
    args_.scores = output<float>(env, info[kScores], s.answers, "scores");
    args_.rows = output<int32_t>(env, info[kRows], s.answers, "rows");
  }
  Status execute(const RunContext& context) override { return topk(args_, context); }

 private:
  TopkArgs args_;
};

template <typename T>
T* borrow_now(const Napi::CallbackInfo& info, Argument at, int64_t at_least, const char* name) {
  Borrowed borrowed;
  check(info.Env(), borrow(info.Env(), info[at], TypeOf<T>::value, at_least, name, false, &borrowed));
  return static_cast<T*>(borrowed.data);
}

}  // namespace

Napi::Value topk_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TopkJob>(info));
}

Napi::Value topk_sync(const Napi::CallbackInfo& info) {
  const Sizes s = sizes_of(info);
  TopkArgs args = shape(info, s);
  args.queries.data = borrow_now<float>(info, kQueries, s.query_values, "queries");
  args.matrix.data = borrow_now<float>(info, kMatrix, s.matrix_values, "matrix");
  if (!is_absent(info.Env(), info[kFilter])) {
    args.filter.data = borrow_now<uint8_t>(info, kFilter, s.filter_bytes, "filter");
    args.filter.bytes = s.filter_bytes;
  }
  args.scores = borrow_now<float>(info, kScores, s.answers, "scores");
  args.rows = borrow_now<int32_t>(info, kRows, s.answers, "rows");
  RunContext context;
  context.parallel = false;
  check(info.Env(), topk(args, context));
  return info.Env().Undefined();
}

}  // namespace waggle::addon
