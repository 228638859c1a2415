// What require('waggle_native.node') returns. Validation, defaults and documentation live in ts/.
#include <dlfcn.h>
#include <napi.h>

#include "addon/env_state.hpp"
#include "addon/jobs/jobs.hpp"
#include "waggle/backend.hpp"

namespace waggle::addon {

namespace {

Napi::Value start(const Napi::CallbackInfo& info) {
  check(info.Env(), backend_status());
  return info.Env().Undefined();
}

Napi::Value backend_info_object(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const BackendInfo& b = backend_info();
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("backend", b.backend);
  answer.Set("simd", b.simd);
  Napi::Array available = Napi::Array::New(env, b.available.size());
  for (size_t i = 0; i < b.available.size(); ++i) available.Set(static_cast<uint32_t>(i), b.available[i]);
  answer.Set("available", available);
  Napi::Array rejected = Napi::Array::New(env, b.rejected.size());
  for (size_t i = 0; i < b.rejected.size(); ++i) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", b.rejected[i].name);
    entry.Set("reason", b.rejected[i].reason);
    rejected.Set(static_cast<uint32_t>(i), entry);
  }
  answer.Set("rejected", rejected);
  answer.Set("threads", b.n_threads);
  answer.Set("requestedBackend", b.requested_backend);
  answer.Set("requestedSimd", b.requested_simd);
  answer.Set("device", b.device);
  Napi::Array operations = Napi::Array::New(env, b.device_operations.size());
  for (size_t i = 0; i < b.device_operations.size(); ++i) {
    operations.Set(static_cast<uint32_t>(i), b.device_operations[i]);
  }
  answer.Set("deviceOperations", operations);
  answer.Set("deviceLibraries", b.device_libraries);
  answer.Set("pluginPath", b.plugin_path);
  return answer;
}

Napi::Value cancel(const Napi::CallbackInfo& info) {
  EnvState::of(info.Env()).cancel(info[0].ToNumber().Uint32Value());
  return info.Env().Undefined();
}

Napi::Value queue_depth(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), EnvState::of(info.Env()).depth());
}

// Node closes an addon's library when the last environment that loaded it ends, a worker's end included. The
// pool's threads would then run unmapped code, so the library keeps itself open for good.
void stay_loaded() {
  static const bool once = [] {
    Dl_info info = {};
    if (dladdr(reinterpret_cast<const void*>(&stay_loaded), &info) != 0 && info.dli_fname != nullptr) {
      (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    }
    return true;
  }();
  (void)once;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  env.SetInstanceData(new EnvState(env));
  exports.Set("start", Napi::Function::New(env, start, "start"));
  exports.Set("backendInfo", Napi::Function::New(env, backend_info_object, "backendInfo"));
  exports.Set("cancel", Napi::Function::New(env, cancel, "cancel"));
  exports.Set("queueDepth", Napi::Function::New(env, queue_depth, "queueDepth"));
  exports.Set("topk", Napi::Function::New(env, topk_job, "topk"));
  exports.Set("deviceMatrixOpen", Napi::Function::New(env, device_matrix_open, "deviceMatrixOpen"));
  exports.Set("deviceMatrixTopk", Napi::Function::New(env, device_matrix_topk, "deviceMatrixTopk"));
  exports.Set("deviceMatrixClose", Napi::Function::New(env, device_matrix_close, "deviceMatrixClose"));
  exports.Set("deviceItemsOpen", Napi::Function::New(env, device_items_open, "deviceItemsOpen"));
  exports.Set("deviceItemsClose", Napi::Function::New(env, device_items_close, "deviceItemsClose"));
  exports.Set("topkSync", Napi::Function::New(env, topk_sync, "topkSync"));
  exports.Set("encodeMatrix", Napi::Function::New(env, encode_job, "encodeMatrix"));
  exports.Set("topkEncoded", Napi::Function::New(env, topk_encoded_job, "topkEncoded"));
  exports.Set("scoreRank", Napi::Function::New(env, score_rank_job, "scoreRank"));
  exports.Set("glmFit", Napi::Function::New(env, glm_fit_job, "glmFit"));
  exports.Set("rankBatch", Napi::Function::New(env, rank_batch_job, "rankBatch"));
  exports.Set("loadTrees", Napi::Function::New(env, load_trees_job, "loadTrees"));
  exports.Set("treesFit", Napi::Function::New(env, trees_fit_job, "treesFit"));
  exports.Set("treesPredict", Napi::Function::New(env, trees_predict_job, "treesPredict"));
  exports.Set("treesPredictSync", Napi::Function::New(env, trees_predict_sync, "treesPredictSync"));
  exports.Set("treesShap", Napi::Function::New(env, trees_shap_job, "treesShap"));
  exports.Set("dumpTrees", Napi::Function::New(env, dump_trees, "dumpTrees"));
  exports.Set("writeTrees", Napi::Function::New(env, write_trees, "writeTrees"));
  exports.Set("closeTrees", Napi::Function::New(env, close_trees, "closeTrees"));
  exports.Set("machineProbe", Napi::Function::New(env, machine_probe_job, "machineProbe"));
  exports.Set("kmeans", Napi::Function::New(env, kmeans_job, "kmeans"));
  exports.Set("ivfBuild", Napi::Function::New(env, ivf_build_job, "ivfBuild"));
  exports.Set("ivfSearch", Napi::Function::New(env, ivf_search_job, "ivfSearch"));
  exports.Set("ivfSave", Napi::Function::New(env, ivf_save_job, "ivfSave"));
  exports.Set("ivfLoad", Napi::Function::New(env, ivf_load_job, "ivfLoad"));
  exports.Set("ivfStats", Napi::Function::New(env, ivf_stats, "ivfStats"));
  exports.Set("ivfClose", Napi::Function::New(env, ivf_close, "ivfClose"));
  exports.Set("indexCreate", Napi::Function::New(env, index_create, "indexCreate"));
  exports.Set("indexLoad", Napi::Function::New(env, index_load, "indexLoad"));
  exports.Set("indexUpsert", Napi::Function::New(env, index_upsert, "indexUpsert"));
  exports.Set("indexDelete", Napi::Function::New(env, index_delete, "indexDelete"));
  exports.Set("indexSearch", Napi::Function::New(env, index_search, "indexSearch"));
  exports.Set("indexCompact", Napi::Function::New(env, index_compact, "indexCompact"));
  exports.Set("indexSave", Napi::Function::New(env, index_save, "indexSave"));
  exports.Set("indexStats", Napi::Function::New(env, index_stats, "indexStats"));
  exports.Set("indexClose", Napi::Function::New(env, index_close, "indexClose"));
  exports.Set("hashFeatures", Napi::Function::New(env, hash_features_job, "hashFeatures"));
  exports.Set("effectsFit", Napi::Function::New(env, effects_fit_job, "effectsFit"));
  exports.Set("glmSparse", Napi::Function::New(env, glm_sparse_job, "glmSparse"));
  exports.Set("ftrlCreate", Napi::Function::New(env, ftrl_create, "ftrlCreate"));
  exports.Set("ftrlLearn", Napi::Function::New(env, ftrl_learn, "ftrlLearn"));
  exports.Set("ftrlPredict", Napi::Function::New(env, ftrl_predict, "ftrlPredict"));
  exports.Set("ftrlWeights", Napi::Function::New(env, ftrl_weights, "ftrlWeights"));
  exports.Set("ftrlSave", Napi::Function::New(env, ftrl_save, "ftrlSave"));
  exports.Set("ftrlLoad", Napi::Function::New(env, ftrl_load, "ftrlLoad"));
  exports.Set("ftrlStats", Napi::Function::New(env, ftrl_stats, "ftrlStats"));
  exports.Set("ftrlClose", Napi::Function::New(env, ftrl_close, "ftrlClose"));
  exports.Set("ffmCreate", Napi::Function::New(env, ffm_create, "ffmCreate"));
  exports.Set("ffmFit", Napi::Function::New(env, ffm_fit, "ffmFit"));
  exports.Set("ffmPredict", Napi::Function::New(env, ffm_predict, "ffmPredict"));
  exports.Set("ffmWeights", Napi::Function::New(env, ffm_weights, "ffmWeights"));
  exports.Set("ffmSave", Napi::Function::New(env, ffm_save, "ffmSave"));
  exports.Set("ffmLoad", Napi::Function::New(env, ffm_load, "ffmLoad"));
  exports.Set("ffmStats", Napi::Function::New(env, ffm_stats, "ffmStats"));
  exports.Set("ffmClose", Napi::Function::New(env, ffm_close, "ffmClose"));
  napi_value hot = nullptr;
  if (napi_create_function(env, "scoreRankSync", NAPI_AUTO_LENGTH, score_rank_sync, nullptr, &hot) != napi_ok) {
    throw Napi::Error::New(env, "waggle: cannot create a function");
  }
  exports.Set("scoreRankSync", hot);
  return exports;
}

}  // namespace

}  // namespace waggle::addon

using waggle::addon::init;
NODE_API_MODULE(waggle_native, init)
