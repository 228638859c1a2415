// What explains a tree ensemble: Shapley values, and its structure as columns.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/trees_handle.hpp"
#include "waggle/ops/trees_shap.hpp"
#include "waggle/view.hpp"

namespace waggle::addon {

namespace {

enum Argument { kModel, kX, kNRows, kBackground, kNBackground, kThreads, kOut, kCount };

class TreesShapJob final : public Job {
 public:
  explicit TreesShapJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "treesShap takes %d arguments", static_cast<int>(kCount)));
    }
    model_ = Handle<TreesModel>::get(env, info[kModel], "model");
    const trees::Ensemble& e = model_->model->ensemble();
    args_.model = model_->model.get();
    args_.n_rows = info[kNRows].ToNumber().Int64Value();
    args_.n_background = info[kNBackground].ToNumber().Int64Value();
    args_.threads = info[kThreads].ToNumber().Int32Value();
    int64_t inputs = 0;
    int64_t background = 0;
    int64_t outputs = 0;
    if (!checked_product(args_.n_rows, e.n_features, &inputs) ||
        !checked_product(args_.n_background, e.n_features, &background) ||
        !checked_product(args_.n_rows, e.n_targets, &outputs) ||
        !checked_product(outputs, int64_t{e.n_features} + 1, &outputs)) {
      throw to_error(env, fail(Code::kShape, "sizes are negative or overflow"));
    }
    args_.x = input<float>(env, info[kX], inputs, "x");
    args_.background = optional_input<float>(env, info[kBackground], background, "background");
    args_.out = output<double>(env, info[kOut], outputs, "out");
  }
  Status execute(const RunContext& context) override { return trees_shap(args_, context); }

 private:
  std::shared_ptr<TreesModel> model_;
  TreesShapArgs args_;
};

template <typename Array, typename T, typename Read>
Array column(Napi::Env env, const std::vector<T>& from, Read&& read) {
  Array made = Array::New(env, from.size());
  for (size_t i = 0; i < from.size(); ++i) made[i] = read(from[i]);
  return made;
}

template <typename Array, typename T>
Array copy(Napi::Env env, const std::vector<T>& from) {
  Array made = Array::New(env, from.size());
  std::copy(from.begin(), from.end(), made.Data());
  return made;
}

}  // namespace

Napi::Value trees_shap_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<TreesShapJob>(info));
}

// dumpTrees(model) → the vectors of trees::Ensemble as typed arrays, one per field.
Napi::Value dump_trees(const Napi::CallbackInfo& info) {
  using trees::Node;
  using trees::Tree;
  const Napi::Env env = info.Env();
  const std::shared_ptr<TreesModel> model = Handle<TreesModel>::get(env, info[0], "model");
  const trees::Ensemble& e = model->model->ensemble();
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("transform", static_cast<int32_t>(e.transform));
  answer.Set("transformParameter", e.transform_parameter);
  answer.Set("scale", e.scale);
  answer.Set("base", copy<Napi::Float64Array>(env, e.base));
  answer.Set("treeFirstNode", column<Napi::Uint32Array>(env, e.trees, [](const Tree& t) { return t.first_node; }));
  answer.Set("treeNodes", column<Napi::Uint32Array>(env, e.trees, [](const Tree& t) { return t.n_nodes; }));
  answer.Set("treeTarget", column<Napi::Int32Array>(env, e.trees, [](const Tree& t) { return t.first_target; }));
  answer.Set("treeValues", column<Napi::Int32Array>(env, e.trees, [](const Tree& t) { return t.n_values; }));
  answer.Set("feature", column<Napi::Int32Array>(env, e.nodes, [](const Node& n) { return n.feature; }));
  answer.Set("left", column<Napi::Int32Array>(env, e.nodes, [](const Node& n) { return n.left; }));
  answer.Set("right", column<Napi::Int32Array>(env, e.nodes, [](const Node& n) { return n.right; }));
  answer.Set("threshold", column<Napi::Float32Array>(env, e.nodes, [](const Node& n) { return n.threshold; }));
  answer.Set("decision",
             column<Napi::Uint8Array>(env, e.nodes, [](const Node& n) { return static_cast<uint8_t>(n.decision); }));
  answer.Set("missing",
             column<Napi::Uint8Array>(env, e.nodes, [](const Node& n) { return static_cast<uint8_t>(n.missing); }));
  answer.Set("defaultLeft", column<Napi::Uint8Array>(env, e.nodes, [](const Node& n) {
               return static_cast<uint8_t>(n.default_left ? 1 : 0);
             }));
  answer.Set("first", column<Napi::Uint32Array>(env, e.nodes, [](const Node& n) { return n.first; }));
  answer.Set("count", column<Napi::Uint32Array>(env, e.nodes, [](const Node& n) { return n.count; }));
  answer.Set("values", copy<Napi::Float32Array>(env, e.values));
  answer.Set("members", copy<Napi::Float32Array>(env, e.members));
  answer.Set("categories", copy<Napi::Uint32Array>(env, e.categories));
  answer.Set("covers", copy<Napi::Float32Array>(env, e.covers));
  return answer;
}

}  // namespace waggle::addon
