#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "waggle/ops/topk_encoded.hpp"

namespace waggle::addon {

namespace {

Dtype dtype_of(const Napi::CallbackInfo& info, size_t at) {
  const int32_t dtype = info[at].ToNumber().Int32Value();
  if (dtype < 0 || dtype > static_cast<int32_t>(Dtype::kInt8)) {
    throw to_error(info.Env(), fail(Code::kInvalidArgument, "unknown dtype %d", dtype));
  }
  return static_cast<Dtype>(dtype);
}

class EncodeJob final : public Job {
 public:
  enum Argument { kMatrix, kNRows, kDim, kDtype, kData, kScale, kError, kNorm, kLower, kCount };

  explicit EncodeJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "encodeMatrix takes %d arguments", static_cast<int>(kCount)));
    }
    const int64_t n = info[kNRows].ToNumber().Int64Value();
    const int64_t dim = info[kDim].ToNumber().Int64Value();
    int64_t values = 0;
    if (!checked_product(n, dim, &values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.dtype = dtype_of(info, kDtype);
    args_.matrix = {input<float>(env, info[kMatrix], values, "matrix"), n, dim};
    args_.row_stride = dim;
    args_.data = args_.dtype == Dtype::kInt8 ? static_cast<void*>(output<int8_t>(env, info[kData], values, "data"))
                                             : static_cast<void*>(output<uint16_t>(env, info[kData], values, "data"));
    if (has_scale(args_.dtype)) args_.scale = output<float>(env, info[kScale], n, "scale");
    args_.error = output<float>(env, info[kError], n, "error");
    args_.norm = output<float>(env, info[kNorm], n, "norm");
    if (!info[kLower].IsUndefined()) args_.lower = output<uint16_t>(env, info[kLower], values, "lower");
  }

  Status execute(const RunContext& context) override { return encode(args_, context); }

 private:
  EncodeArgs args_;
};

class TopkEncodedJob final : public Job {
 public:
  enum Argument {
    kQueries,
    kNQueries,
    kNRows,
    kDim,
    kDtype,
    kData,
    kScale,
    kError,
    kNorm,
    kLower,   // of the floats, or undefined
    kMatrix,  // the floats, or undefined
    kK,
    kMetric,
    kFilter,
    kFilters,
    kAllowRows,
    kScores,
    kRows,
    kInDoubt,
    kCertified,
    kCount
  };

  explicit TopkEncodedJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "topkEncoded takes %d arguments", static_cast<int>(kCount)));
    }
    const int64_t n_queries = info[kNQueries].ToNumber().Int64Value();
    const int64_t n = info[kNRows].ToNumber().Int64Value();
    const int64_t dim = info[kDim].ToNumber().Int64Value();
    const int64_t k = info[kK].ToNumber().Int64Value();
    if (k < 1 || k > kTopkMaxK) {
      throw to_error(
          env, fail(Code::kInvalidArgument, "k is %lld; it must be 1 to %d", static_cast<long long>(k), kTopkMaxK));
    }
    const int64_t bitmap = n < 0 ? -1 : (n + 7) / 8;
    int64_t values = 0, query_values = 0, answers = 0, bitmaps = 0;
    if (!checked_product(n, dim, &values) || !checked_product(n_queries, dim, &query_values) ||
        !checked_product(n_queries, k, &answers) || !checked_product(n_queries, bitmap, &bitmaps)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.queries = {input<float>(env, info[kQueries], query_values, "queries"), n_queries, dim};
    EncodedMatrix& e = args_.encoded;
    e.dtype = dtype_of(info, kDtype);
    e.rows = n;
    e.cols = dim;
    e.row_stride = dim;
    e.data = e.dtype == Dtype::kInt8 ? static_cast<const void*>(input<int8_t>(env, info[kData], values, "data"))
                                     : static_cast<const void*>(input<uint16_t>(env, info[kData], values, "data"));
    if (has_scale(e.dtype)) e.scale = input<float>(env, info[kScale], n, "scale");
    e.error = input<float>(env, info[kError], n, "error");
    e.norm = input<float>(env, info[kNorm], n, "norm");
    e.lower = optional_input<uint16_t>(env, info[kLower], values, "encoded.lower");
    args_.matrix = {optional_input<float>(env, info[kMatrix], values, "matrix"), n, dim};
    args_.k = static_cast<int32_t>(k);
    args_.metric = static_cast<Metric>(info[kMetric].ToNumber().Int32Value());
    const uint8_t* shared = optional_input<uint8_t>(env, info[kFilter], bitmap, "filter");
    const uint8_t* each = optional_input<uint8_t>(env, info[kFilters], bitmaps, "filters");
    const int32_t* list = optional_input<int32_t>(env, info[kAllowRows], 0, "allowRows");
    if ((shared != nullptr) + (each != nullptr) + (list != nullptr) > 1) {
      throw to_error(env, fail(Code::kInvalidArgument, "give one of filter, filters and allowRows"));
    }
    if (shared != nullptr) args_.filter = RowFilter::shared(shared, bitmap);
    if (each != nullptr) args_.filter = RowFilter::per_query(each, bitmap, n_queries);
    if (list != nullptr) {
      args_.filter =
          RowFilter::list(list, static_cast<int64_t>(info[kAllowRows].As<Napi::TypedArray>().ElementLength()));
    }
    args_.scores = output<float>(env, info[kScores], answers, "scores");
    args_.rows = output<int32_t>(env, info[kRows], answers, "rows");
    args_.n_in_doubt = output<int32_t>(env, info[kInDoubt], n_queries, "nInDoubt");
    args_.is_certified = output<uint8_t>(env, info[kCertified], n_queries, "isCertified");
  }

  Status execute(const RunContext& context) override { return topk_encoded(args_, context, &report_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("certified", report_.certified);
    answer.Set("nRescored", static_cast<double>(report_.n_rescored));
    return answer;
  }

 private:
  TopkEncodedArgs args_;
  TopkEncodedReport report_;
};

}  // namespace

Napi::Value encode_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<EncodeJob>(info));
}

Napi::Value topk_encoded_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TopkEncodedJob>(info));
}

}  // namespace waggle::addon
