// The functions module.cpp exports.
#pragma once

#include <napi.h>

namespace waggle::addon {

Napi::Value topk_job(const Napi::CallbackInfo& info);
Napi::Value topk_sync(const Napi::CallbackInfo& info);
Napi::Value encode_job(const Napi::CallbackInfo& info);
Napi::Value topk_encoded_job(const Napi::CallbackInfo& info);
Napi::Value device_matrix_open(const Napi::CallbackInfo& info);
Napi::Value device_matrix_topk(const Napi::CallbackInfo& info);
Napi::Value device_matrix_close(const Napi::CallbackInfo& info);
Napi::Value device_items_open(const Napi::CallbackInfo& info);
Napi::Value device_items_close(const Napi::CallbackInfo& info);
Napi::Value score_rank_job(const Napi::CallbackInfo& info);
napi_value score_rank_sync(napi_env env, napi_callback_info info);
Napi::Value glm_fit_job(const Napi::CallbackInfo& info);
Napi::Value index_create(const Napi::CallbackInfo& info);
Napi::Value index_load(const Napi::CallbackInfo& info);
Napi::Value index_upsert(const Napi::CallbackInfo& info);
Napi::Value index_delete(const Napi::CallbackInfo& info);
Napi::Value index_search(const Napi::CallbackInfo& info);
Napi::Value index_compact(const Napi::CallbackInfo& info);
Napi::Value index_save(const Napi::CallbackInfo& info);
Napi::Value index_stats(const Napi::CallbackInfo& info);
Napi::Value index_close(const Napi::CallbackInfo& info);
Napi::Value machine_probe_job(const Napi::CallbackInfo& info);
Napi::Value kmeans_job(const Napi::CallbackInfo& info);
Napi::Value ivf_build_job(const Napi::CallbackInfo& info);
Napi::Value ivf_search_job(const Napi::CallbackInfo& info);
Napi::Value ivf_save_job(const Napi::CallbackInfo& info);
Napi::Value ivf_load_job(const Napi::CallbackInfo& info);
Napi::Value ivf_stats(const Napi::CallbackInfo& info);
Napi::Value ivf_close(const Napi::CallbackInfo& info);
Napi::Value load_trees_job(const Napi::CallbackInfo& info);
Napi::Value trees_fit_job(const Napi::CallbackInfo& info);
Napi::Value trees_predict_job(const Napi::CallbackInfo& info);
Napi::Value trees_predict_sync(const Napi::CallbackInfo& info);
Napi::Value trees_shap_job(const Napi::CallbackInfo& info);
Napi::Value dump_trees(const Napi::CallbackInfo& info);
Napi::Value write_trees(const Napi::CallbackInfo& info);
Napi::Value close_trees(const Napi::CallbackInfo& info);
Napi::Value rank_batch_job(const Napi::CallbackInfo& info);
Napi::Value hash_features_job(const Napi::CallbackInfo& info);
Napi::Value effects_fit_job(const Napi::CallbackInfo& info);
Napi::Value glm_sparse_job(const Napi::CallbackInfo& info);
Napi::Value ftrl_create(const Napi::CallbackInfo& info);
Napi::Value ftrl_learn(const Napi::CallbackInfo& info);
Napi::Value ftrl_predict(const Napi::CallbackInfo& info);
Napi::Value ftrl_weights(const Napi::CallbackInfo& info);
Napi::Value ftrl_save(const Napi::CallbackInfo& info);
Napi::Value ftrl_load(const Napi::CallbackInfo& info);
Napi::Value ftrl_stats(const Napi::CallbackInfo& info);
Napi::Value ftrl_close(const Napi::CallbackInfo& info);
Napi::Value ffm_create(const Napi::CallbackInfo& info);
Napi::Value ffm_fit(const Napi::CallbackInfo& info);
Napi::Value ffm_predict(const Napi::CallbackInfo& info);
Napi::Value ffm_weights(const Napi::CallbackInfo& info);
Napi::Value ffm_save(const Napi::CallbackInfo& info);
Napi::Value ffm_load(const Napi::CallbackInfo& info);
Napi::Value ffm_stats(const Napi::CallbackInfo& info);
Napi::Value ffm_close(const Napi::CallbackInfo& info);

}  // namespace waggle::addon
