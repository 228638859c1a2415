#include "waggle/ops/hash_features.hpp"

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/sparse_rows.hpp"
#include "waggle/view.hpp"

namespace waggle::addon {

namespace {

enum Argument { kNRows, kColumns, kBits, kSeed, kCount, kIndices, kValues, kArguments };
// Of each column, an array.
enum ColumnPart { kName, kNarrow, kWide, kText, kEnds };

class HashFeaturesJob final : public Job {
 public:
  explicit HashFeaturesJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    expect_count(info, kArguments, "hashFeatures");
    args_.n_rows = info[kNRows].ToNumber().Int64Value();
    const Napi::Array columns = info[kColumns].As<Napi::Array>();
    int64_t entries = 0;
    if (!checked_product(args_.n_rows, columns.Length(), &entries)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    for (uint32_t c = 0; c < columns.Length(); ++c) add(env, columns.Get(c).As<Napi::Array>());
    args_.bits = info[kBits].ToNumber().Int32Value();
    bool lossless = false;
    args_.seed = info[kSeed].As<Napi::BigInt>().Uint64Value(&lossless);
    args_.count = info[kCount].ToBoolean();
    args_.indices = output<int32_t>(env, info[kIndices], entries, "indices");
    if (!is_absent(env, info[kValues])) args_.values = output<float>(env, info[kValues], entries, "values");
  }

  Status execute(const RunContext& context) override { return hash_features(args_, context, &result_); }

  Napi::Value result(Napi::Env env) override {
    Napi::Object answer = Napi::Object::New(env);
    Napi::Array distinct = Napi::Array::New(env, result_.distinct.size());
    for (size_t c = 0; c < result_.distinct.size(); ++c) {
      distinct.Set(static_cast<uint32_t>(c), static_cast<double>(result_.distinct[c]));
    }
    answer.Set("distinct", distinct);
    answer.Set("buckets", static_cast<double>(result_.buckets));
    answer.Set("collisions", static_cast<double>(result_.collisions));
    return answer;
  }

 private:
  void add(Napi::Env env, const Napi::Array& parts) {
    HashColumn column;
    const Napi::Value name = parts.Get(kName);
    column.name = reinterpret_cast<const char*>(input<uint8_t>(env, name, 0, "field"));
    column.name_bytes = static_cast<int64_t>(name.As<Napi::TypedArray>().ElementLength());
    column.narrow = optional_input<int32_t>(env, parts.Get(kNarrow), args_.n_rows, "values");
    column.wide = optional_input<int64_t>(env, parts.Get(kWide), args_.n_rows, "values");
    const Napi::Value text = parts.Get(kText);
    column.text = optional_input<uint8_t>(env, text, 0, "text");
    if (column.text != nullptr) {
      column.text_bytes = static_cast<int64_t>(text.As<Napi::TypedArray>().ElementLength());
      column.ends = input<uint32_t>(env, parts.Get(kEnds), args_.n_rows, "ends");
    }
    args_.columns.push_back(column);
  }

  HashFeaturesArgs args_;
  HashFeaturesResult result_;
};

}  // namespace

Napi::Value hash_features_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<HashFeaturesJob>(info));
}

}  // namespace waggle::addon
