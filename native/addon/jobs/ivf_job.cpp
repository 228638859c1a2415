#include "waggle/ivf.hpp"

#include <atomic>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

struct IvfHandle {
  static constexpr napi_type_tag kTypeTag = {0x5a1f0c2be6d94738, 0x9be2471d0fa3c586};
  static constexpr const char* kTypeName = "IvfIndex";
  std::shared_ptr<const IvfIndex> index;
};
using IvfHandles = Handle<IvfHandle>;

void expect_arguments(const Napi::CallbackInfo& info, int count, const char* name) {
  if (static_cast<int>(info.Length()) >= count) return;
  throw to_error(info.Env(), fail(Code::kInvalidArgument, "%s takes %d arguments", name, count));
}

Napi::Value handle_of(Napi::Env env, std::shared_ptr<const IvfIndex> index) {
  auto handle = std::make_shared<IvfHandle>();
  const int64_t bytes = index->stats().bytes;
  handle->index = std::move(index);
  return IvfHandles::create(env, std::move(handle), bytes);
}

class BuildJob final : public Job {
 public:
  enum Argument {
    kMatrix,
    kNRows,
    kDim,
    kMetric,
    kNLists,
    kInt8Lists,
    kKeepRows,
    kRecall,
    kRecallK,
    kHeldOut,
    kNHeldOut,
    kNSample,
    kSeed,
    kProgress,  // Float64Array: stage, part done
    kCount
  };

  explicit BuildJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    expect_arguments(info, kCount, "ivfBuild");
    const int64_t n = info[kNRows].ToNumber().Int64Value();
    const int64_t dim = info[kDim].ToNumber().Int64Value();
    const int64_t n_held_out = info[kNHeldOut].ToNumber().Int64Value();
    int64_t values = 0;
    int64_t held_out_values = 0;
    if (!checked_product(n, dim, &values) || !checked_product(n_held_out, dim, &held_out_values)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.matrix = {input<float>(env, info[kMatrix], values, "matrix"), n, dim};
    args_.metric = static_cast<Metric>(info[kMetric].ToNumber().Int32Value());
    args_.n_lists = info[kNLists].ToNumber().Int32Value();
    args_.int8_lists = info[kInt8Lists].ToBoolean();
    args_.keep_rows = info[kKeepRows].ToBoolean();
    args_.recall = info[kRecall].ToNumber().DoubleValue();
    args_.recall_k = info[kRecallK].ToNumber().Int32Value();
    if (n_held_out > 0) {
      args_.held_out = {input<float>(env, info[kHeldOut], held_out_values, "heldOut"), n_held_out, dim};
    }
    args_.n_sample = info[kNSample].ToNumber().Int32Value();
    args_.seed = static_cast<uint64_t>(info[kSeed].ToNumber().Int64Value());
    double* progress = output<double>(env, info[kProgress], 2, "progress");
    args_.progress = [progress](int stage, double done) {
      // JavaScript looks at it now and then, without waiting for us.
      std::atomic_ref<double>(progress[0]).store(stage, std::memory_order_relaxed);
      std::atomic_ref<double>(progress[1]).store(done, std::memory_order_relaxed);
    };
  }

  Status execute(const RunContext& context) override { return IvfIndex::build(args_, context, &index_); }
  Napi::Value result(Napi::Env env) override { return handle_of(env, std::move(index_)); }

 private:
  IvfBuildArgs args_;
  std::shared_ptr<const IvfIndex> index_;
};

class SearchJob final : public Job {
 public:
  enum Argument { kIndex, kQueries, kNQueries, kK, kNProbe, kFilter, kFilters, kAllowRows, kScores, kRows, kCount };

  explicit SearchJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    expect_arguments(info, kCount, "ivfSearch");
    index_ = IvfHandles::get(env, info[kIndex], "index")->index;
    const IvfStats stats = index_->stats();
    const int64_t n_queries = info[kNQueries].ToNumber().Int64Value();
    const int64_t k = info[kK].ToNumber().Int64Value();
    const int64_t bytes = (stats.n_rows + 7) / 8;
    int64_t values = 0;
    int64_t answers = 0;
    int64_t filters_bytes = 0;
    if (k < 1 || k > kTopkMaxK) {
      throw to_error(
          env, fail(Code::kInvalidArgument, "k is %lld; it must be 1 to %d", static_cast<long long>(k), kTopkMaxK));
    }
    if (!checked_product(n_queries, stats.dim, &values) || !checked_product(n_queries, k, &answers) ||
        !checked_product(n_queries, bytes, &filters_bytes)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.queries = {input<float>(env, info[kQueries], values, "queries"), n_queries, stats.dim};
    args_.k = static_cast<int32_t>(k);
    args_.n_probe = info[kNProbe].ToNumber().Int32Value();
    const uint8_t* shared = optional_input<uint8_t>(env, info[kFilter], bytes, "filter");
    const uint8_t* each = optional_input<uint8_t>(env, info[kFilters], filters_bytes, "filters");
    const int32_t* list = optional_input<int32_t>(env, info[kAllowRows], 0, "allowRows");
    if ((shared != nullptr) + (each != nullptr) + (list != nullptr) > 1) {
      throw to_error(env, fail(Code::kInvalidArgument, "give one of filter, filters and allowRows"));
    }
    if (shared != nullptr) args_.filter = RowFilter::shared(shared, bytes);
    if (each != nullptr) args_.filter = RowFilter::per_query(each, bytes, n_queries);
    if (!is_absent(env, info[kAllowRows])) {
      args_.filter =
          RowFilter::list(list, static_cast<int64_t>(info[kAllowRows].As<Napi::TypedArray>().ElementLength()));
    }
    args_.scores = output<float>(env, info[kScores], answers, "scores");
    args_.rows = output<int32_t>(env, info[kRows], answers, "rows");
  }

  Status execute(const RunContext& context) override { return index_->search(args_, context, &report_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("rowsScanned", static_cast<double>(report_.rows_scanned));
    answer.Set("listsProbed", static_cast<double>(report_.lists_probed));
    answer.Set("exhaustive", static_cast<double>(report_.exhaustive));
    return answer;
  }

 private:
  std::shared_ptr<const IvfIndex> index_;
  IvfSearchArgs args_;
  IvfSearchReport report_;
};

class SaveJob final : public Job {
 public:
  explicit SaveJob(const Napi::CallbackInfo& info) {
    expect_arguments(info, 2, "ivfSave");
    index_ = IvfHandles::get(info.Env(), info[0], "index")->index;
    path_ = info[1].ToString().Utf8Value();
  }
  Status execute(const RunContext& context) override { return index_->save(path_, context); }

 private:
  std::shared_ptr<const IvfIndex> index_;
  std::string path_;
};

class LoadJob final : public Job {
 public:
  explicit LoadJob(const Napi::CallbackInfo& info) {
    expect_arguments(info, 1, "ivfLoad");
    path_ = info[0].ToString().Utf8Value();
  }
  Status execute(const RunContext& context) override { return IvfIndex::load(path_, context, &index_); }
  Napi::Value result(Napi::Env env) override { return handle_of(env, std::move(index_)); }

 private:
  std::string path_;
  std::shared_ptr<const IvfIndex> index_;
};

template <typename J>
Napi::Value submit(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<J>(info));
}

}  // namespace

Napi::Value ivf_build_job(const Napi::CallbackInfo& info) { return submit<BuildJob>(info); }
Napi::Value ivf_search_job(const Napi::CallbackInfo& info) { return submit<SearchJob>(info); }
Napi::Value ivf_save_job(const Napi::CallbackInfo& info) { return submit<SaveJob>(info); }
Napi::Value ivf_load_job(const Napi::CallbackInfo& info) { return submit<LoadJob>(info); }

Napi::Value ivf_stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  expect_arguments(info, 1, "ivfStats");
  const IvfStats s = IvfHandles::get(env, info[0], "index")->index->stats();
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("nRows", static_cast<double>(s.n_rows));
  answer.Set("dim", static_cast<double>(s.dim));
  answer.Set("metric", static_cast<int32_t>(s.metric));
  answer.Set("nLists", s.n_lists);
  answer.Set("int8Lists", s.int8_lists);
  answer.Set("keepsRows", s.keeps_rows);
  answer.Set("nProbe", s.n_probe);
  answer.Set("recallTarget", s.recall_target);
  answer.Set("recallK", s.recall_k);
  answer.Set("nMeasured", static_cast<double>(s.n_measured));
  answer.Set("heldOut", s.held_out);
  answer.Set("largestList", static_cast<double>(s.largest_list));
  answer.Set("bytes", static_cast<double>(s.bytes));
  Napi::Array curve = Napi::Array::New(env, s.curve.size());
  for (size_t i = 0; i < s.curve.size(); ++i) {
    Napi::Object point = Napi::Object::New(env);
    point.Set("nProbe", s.curve[i].n_probe);
    point.Set("recall", s.curve[i].recall);
    point.Set("standardError", s.curve[i].standard_error);
    curve.Set(static_cast<uint32_t>(i), point);
  }
  answer.Set("curve", curve);
  return answer;
}

Napi::Value ivf_close(const Napi::CallbackInfo& info) {
  expect_arguments(info, 1, "ivfClose");
  IvfHandles::close(info.Env(), info[0], "index");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
