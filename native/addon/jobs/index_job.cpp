// The mutable index behind a handle. Arguments are positional; ts/vector-index.ts gives them names.
#include "waggle/index.hpp"

#include <cstring>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"

namespace waggle::addon {

namespace {

struct IndexObject {
  static constexpr napi_type_tag kTypeTag = {0x9c1f4b7a52e84d03u, 0xa6d3e10b77c94f28u};
  static constexpr const char* kTypeName = "VectorIndex";

  explicit IndexObject(std::shared_ptr<Index> i) : index(std::move(i)) {}
  std::shared_ptr<Index> index;
};

using IndexHandle = Handle<IndexObject>;

void expect_arguments(const Napi::CallbackInfo& info, size_t n, const char* function) {
  if (info.Length() < n) {
    throw to_error(info.Env(), fail(Code::kInvalidArgument, "%s takes %zu arguments", function, n));
  }
}

std::shared_ptr<Index> index_of(const Napi::CallbackInfo& info) {
  return IndexHandle::get(info.Env(), info[0], "index")->index;
}

int64_t count_of(const Napi::CallbackInfo& info, size_t at, const char* name) {
  const double value = info[at].ToNumber().DoubleValue();
  if (!(value >= 0 && value <= static_cast<double>(kIndexMaxRows))) {
    throw to_error(info.Env(), fail(Code::kShape, "%s is out of range", name));
  }
  return static_cast<int64_t>(value);
}

std::string path_of(const Napi::CallbackInfo& info, size_t at) {
  if (!info[at].IsString()) throw to_error(info.Env(), fail(Code::kInvalidArgument, "the path is not a string"));
  return info[at].As<Napi::String>().Utf8Value();
}

// [count, numbers | undefined, bytes | undefined, ends | undefined] at `at`.
IdBatch borrow_ids(Job& job, const Napi::CallbackInfo& info, size_t at, IdType type) {
  const Napi::Env env = info.Env();
  const int64_t n = count_of(info, at, "the number of ids");
  if (type == IdType::kNumber) return IdBatch::of_numbers(job.input<uint64_t>(env, info[at + 1], n, "ids"), n);
  const uint32_t* ends = job.input<uint32_t>(env, info[at + 3], n, "the ends of the ids");
  const int64_t bytes = n == 0 ? 0 : ends[n - 1];
  return IdBatch::of_strings(reinterpret_cast<const char*>(job.input<uint8_t>(env, info[at + 2], bytes, "ids")), ends,
                             n);
}

constexpr size_t kIdArguments = 4;

class LoadJob final : public Job {
 public:
  explicit LoadJob(const Napi::CallbackInfo& info)
      : path_(path_of(info, 0)), verify_(info[1].ToBoolean() ? Verify::kFull : Verify::kHeader) {}
  Status execute(const RunContext& context) override { return Index::load(path_, verify_, context, &index_); }
  Napi::Value result(Napi::Env env) override {
    const IndexOptions& o = index_->options();
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("dim", Napi::Number::New(env, static_cast<double>(o.dim)));
    answer.Set("metric", Napi::Number::New(env, static_cast<double>(o.metric)));
    answer.Set("storage", Napi::Number::New(env, static_cast<double>(o.storage)));
    answer.Set("keepF32", Napi::Boolean::New(env, o.keep_f32));
    answer.Set("idType", Napi::Number::New(env, static_cast<double>(o.id_type)));
    answer.Set("maxRows", Napi::Number::New(env, static_cast<double>(o.most_rows)));
    answer.Set("handle", IndexHandle::create(env, std::make_shared<IndexObject>(std::move(index_)), 0));
    return answer;
  }

 private:
  std::string path_;
  Verify verify_;
  std::shared_ptr<Index> index_;
};

class UpsertJob final : public Job {
 public:
  explicit UpsertJob(const Napi::CallbackInfo& info) : index_(index_of(info)) {
    ids_ = borrow_ids(*this, info, 1, index_->options().id_type);
    const int64_t dim = index_->options().dim;
    int64_t values = 0;
    if (!checked_product(ids_.size, dim, &values)) throw to_error(info.Env(), fail(Code::kShape, "sizes overflow"));
    vectors_ = {input<float>(info.Env(), info[1 + kIdArguments], values, "vectors"), ids_.size, dim};
  }
  Status execute(const RunContext& context) override { return index_->upsert(ids_, vectors_, context); }

 private:
  std::shared_ptr<Index> index_;
  IdBatch ids_;
  Matrix<const float> vectors_;
};

class DeleteJob final : public Job {
 public:
  explicit DeleteJob(const Napi::CallbackInfo& info) : index_(index_of(info)) {
    ids_ = borrow_ids(*this, info, 1, index_->options().id_type);
  }
  Status execute(const RunContext& context) override { return index_->remove(ids_, context, &n_deleted_); }
  Napi::Value result(Napi::Env env) override { return Napi::Number::New(env, static_cast<double>(n_deleted_)); }

 private:
  std::shared_ptr<Index> index_;
  IdBatch ids_;
  int64_t n_deleted_ = 0;
};

class SearchJob final : public Job {
 public:
  enum Argument {
    kHandle,
    kQueries,
    kNQueries,
    kK,
    kScores,
    kRows,
    kInDoubt,
    kIdNumbers,
    kBitmap,
    kFilterRows,
    kNFilterRows,
    kLayout,
    kHasFilterIds,
    kFilterIds,
    kCount = kFilterIds + kIdArguments
  };

  explicit SearchJob(const Napi::CallbackInfo& info) : index_(index_of(info)) {
    const Napi::Env env = info.Env();
    const IndexOptions& options = index_->options();
    const int64_t n_queries = count_of(info, kNQueries, "nQueries");
    const int64_t k = count_of(info, kK, "k");
    if (k < 1 || k > kTopkMaxK) {
      throw to_error(
          env, fail(Code::kInvalidArgument, "k is %lld; it must be 1 to %d", static_cast<long long>(k), kTopkMaxK));
    }
    int64_t values = 0;
    int64_t answers = 0;
    if (!checked_product(n_queries, options.dim, &values) || !checked_product(n_queries, k, &answers)) {
      throw to_error(env, fail(Code::kShape, "sizes overflow"));
    }
    args_.queries = {input<float>(env, info[kQueries], values, "queries"), n_queries, options.dim};
    args_.k = static_cast<int32_t>(k);
    args_.scores = output<float>(env, info[kScores], answers, "scores");
    args_.rows = output<int32_t>(env, info[kRows], answers, "rows");
    args_.n_in_doubt = output<int32_t>(env, info[kInDoubt], n_queries, "nInDoubt");
    if (options.id_type == IdType::kNumber) {
      args_.id_numbers = output<uint64_t>(env, info[kIdNumbers], answers, "ids");
    } else {
      args_.id_bytes = &id_bytes_;
      args_.id_ends = &id_ends_;
    }
    if (!is_absent(env, info[kBitmap])) {
      args_.filter.bits = input<uint8_t>(env, info[kBitmap], 0, "filter.bitmap");
      args_.filter.bits_bytes = static_cast<int64_t>(info[kBitmap].As<Napi::TypedArray>().ByteLength());
    }
    if (!is_absent(env, info[kFilterRows])) {
      args_.filter.n_rows = count_of(info, kNFilterRows, "the number of rows");
      args_.filter.rows = input<int32_t>(env, info[kFilterRows], args_.filter.n_rows, "filter.rows");
    }
    if (info[kHasFilterIds].ToBoolean()) {
      filter_ids_ = borrow_ids(*this, info, kFilterIds, options.id_type);
      args_.filter.ids = &filter_ids_;
    }
    const double layout = info[kLayout].ToNumber().DoubleValue();
    if (layout >= 1 && layout <= 0x1p53) args_.filter.layout = static_cast<uint64_t>(layout);
  }

  Status execute(const RunContext& context) override { return index_->search(args_, context, &found_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("version", Napi::Number::New(env, static_cast<double>(found_.version)));
    answer.Set("layout", Napi::Number::New(env, static_cast<double>(found_.layout)));
    answer.Set("certified", Napi::Boolean::New(env, found_.certified));
    if (args_.id_bytes != nullptr) {
      Napi::Uint8Array bytes = Napi::Uint8Array::New(env, id_bytes_.size());
      Napi::Uint32Array ends = Napi::Uint32Array::New(env, id_ends_.size());
      if (!id_bytes_.empty()) std::memcpy(bytes.Data(), id_bytes_.data(), id_bytes_.size());
      if (!id_ends_.empty()) std::memcpy(ends.Data(), id_ends_.data(), id_ends_.size() * sizeof(uint32_t));
      answer.Set("idBytes", bytes);
      answer.Set("idEnds", ends);
    }
    return answer;
  }

 private:
  std::shared_ptr<Index> index_;
  IndexSearchArgs args_;
  IdBatch filter_ids_;
  std::string id_bytes_;
  std::vector<uint32_t> id_ends_;
  IndexSearchInfo found_;
};

class CompactJob final : public Job {
 public:
  explicit CompactJob(const Napi::CallbackInfo& info) : index_(index_of(info)) {}
  Status execute(const RunContext& context) override { return index_->compact(context); }

 private:
  std::shared_ptr<Index> index_;
};

class SaveJob final : public Job {
 public:
  explicit SaveJob(const Napi::CallbackInfo& info) : index_(index_of(info)), path_(path_of(info, 1)) {}
  Status execute(const RunContext& context) override { return index_->save(path_, context); }

 private:
  std::shared_ptr<Index> index_;
  std::string path_;
};

template <typename T>
Napi::Value submit(const Napi::CallbackInfo& info, size_t n_arguments, const char* function) {
  expect_arguments(info, n_arguments, function);
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<T>(info));
}

}  // namespace

Napi::Value index_create(const Napi::CallbackInfo& info) {
  expect_arguments(info, 6, "indexCreate");
  IndexOptions options;
  options.dim = info[0].ToNumber().Int64Value();
  options.metric = static_cast<Metric>(info[1].ToNumber().Int32Value());
  options.storage = static_cast<Storage>(info[2].ToNumber().Uint32Value());
  options.keep_f32 = info[3].ToBoolean();
  options.id_type = static_cast<IdType>(info[4].ToNumber().Uint32Value());
  options.most_rows = info[5].ToNumber().Int64Value();
  std::shared_ptr<Index> index;
  check(info.Env(), Index::create(options, &index));
  return IndexHandle::create(info.Env(), std::make_shared<IndexObject>(std::move(index)), 0);
}

Napi::Value index_load(const Napi::CallbackInfo& info) { return submit<LoadJob>(info, 2, "indexLoad"); }
Napi::Value index_upsert(const Napi::CallbackInfo& info) {
  return submit<UpsertJob>(info, 2 + kIdArguments, "indexUpsert");
}
Napi::Value index_delete(const Napi::CallbackInfo& info) {
  return submit<DeleteJob>(info, 1 + kIdArguments, "indexDelete");
}
Napi::Value index_search(const Napi::CallbackInfo& info) {
  return submit<SearchJob>(info, SearchJob::kCount, "indexSearch");
}
Napi::Value index_compact(const Napi::CallbackInfo& info) { return submit<CompactJob>(info, 1, "indexCompact"); }
Napi::Value index_save(const Napi::CallbackInfo& info) { return submit<SaveJob>(info, 2, "indexSave"); }

// Also tells the collector how much memory is behind the handle by now.
Napi::Value index_stats(const Napi::CallbackInfo& info) {
  expect_arguments(info, 1, "indexStats");
  const Napi::Env env = info.Env();
  const IndexStats stats = index_of(info)->stats();
  const int64_t total =
      stats.vector_bytes + stats.encoded_bytes + stats.id_bytes + stats.id_map_bytes + stats.bitmap_bytes;
  IndexHandle::resize(env, info[0], "index", total - stats.mapped_bytes);
  Napi::Object answer = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { answer.Set(name, Napi::Number::New(env, value)); };
  set("live", static_cast<double>(stats.n_live));
  set("deleted", static_cast<double>(stats.n_deleted));
  set("segments", static_cast<double>(stats.n_segments));
  set("version", static_cast<double>(stats.version));
  set("layout", static_cast<double>(stats.layout));
  set("vectors", static_cast<double>(stats.vector_bytes));
  set("encoded", static_cast<double>(stats.encoded_bytes));
  set("ids", static_cast<double>(stats.id_bytes));
  set("idMap", static_cast<double>(stats.id_map_bytes));
  set("bitmaps", static_cast<double>(stats.bitmap_bytes));
  set("mapped", static_cast<double>(stats.mapped_bytes));
  set("reserved", static_cast<double>(stats.reserved_bytes));
  return answer;
}

Napi::Value index_close(const Napi::CallbackInfo& info) {
  expect_arguments(info, 1, "indexClose");
  IndexHandle::close(info.Env(), info[0], "index");
  return info.Env().Undefined();
}

}  // namespace waggle::addon
