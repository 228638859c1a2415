#include "src/registry.hpp"

#include <cstdlib>
#include <string>

#include "src/plugin_loader.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : fallback;
}

void choose_simd(Registry& r) {
  constexpr cpu::Simd kBestFirst[] = {cpu::Simd::kAvx512, cpu::Simd::kAvx2, cpu::Simd::kNeon, cpu::Simd::kScalar};
  const std::string& wanted = r.info.requested_simd;
  const cpu::Table* best = nullptr;
  const cpu::Table* forced = nullptr;
  std::string why_not;
  for (const cpu::Simd level : kBestFirst) {
    const char* name = cpu::name_of(level);
    const cpu::Table* table = cpu::table_for(level);
    const char* reason = nullptr;
    if (table == nullptr) {
      reason = "not compiled in: the compiler or the target lacks it";
    } else if (!cpu::features().supports(level)) {
      reason = "this processor or operating system does not support it";
    }
    if (reason != nullptr) {
      r.info.rejected.push_back({name, reason});
      if (wanted == name) why_not = reason;
      continue;
    }
    r.info.available.emplace_back(name);
    if (best == nullptr) best = table;
    if (wanted == name) forced = table;
  }
  r.table = forced != nullptr ? forced : best;
  if (wanted != "auto" && forced == nullptr) {
    if (why_not.empty()) why_not = "unknown; use auto, scalar, avx2, avx512 or neon";
    r.status = Status(Code::kBackend, "WAGGLE_SIMD=" + wanted + " cannot be used: " + why_not);
  }
  r.info.simd = cpu::name_of(r.table->level);
}

// An operation is there when every function it needs is.
std::vector<std::string> operations_of(const waggle_op_table& ops) {
  std::vector<std::string> names;
  const auto add = [&](const char* name, auto... needed) {
    if (((needed != nullptr) && ...)) names.emplace_back(name);
  };
  add("topk", ops.topk_f32);
  add("deviceMatrix", ops.matrix_open, ops.matrix_close, ops.topk);
  add("trees.predict", ops.forest_open, ops.forest_close, ops.forest_predict);
  add("trees.fit", ops.fit_open, ops.fit_close, ops.fit_gradients, ops.fit_tree, ops.fit_parts, ops.fit_search,
      ops.fit_leaves, ops.fit_update);
  add("scoreRank", ops.score_rank);
  add("rankBatch", ops.rank_batch, ops.forest_open, ops.forest_close);
  add("deviceItems", ops.rank_items_open, ops.rank_items_close, ops.rank_batch);
  add("kmeans", ops.points_open, ops.points_close, ops.points_assign, ops.points_means);
  add("ivf.build", ops.nearest_codes);
  return names;
}

void choose_backend(Registry& r) {
  const std::string& wanted = r.info.requested_backend;
  r.info.backend = "cpu";
  if (wanted != "auto" && wanted != "cpu" && wanted != "cuda") {
    r.status = Status(Code::kBackend, "WAGGLE_BACKEND=" + wanted + " is unknown; use auto, cpu or cuda");
    return;
  }
  if (wanted == "cpu") {
    r.info.rejected.push_back({"cuda", "WAGGLE_BACKEND=cpu"});
    return;
  }
  const LoadedPlugin loaded = load_plugin("cuda");
  if (loaded.backend == nullptr) {
    r.info.rejected.push_back({"cuda", loaded.reason});
    if (wanted == "cuda" && r.status.ok()) {
      r.status = Status(Code::kBackend, "WAGGLE_BACKEND=cuda cannot be used: " + loaded.reason);
    }
    return;
  }
  r.info.available.emplace_back("cuda");
  r.info.backend = "cuda";
  r.info.device_operations = operations_of(*loaded.backend->ops);
  r.info.device = loaded.device;
  r.info.device_libraries = loaded.libraries;
  r.info.plugin_path = loaded.path;
  r.plugin = loaded.backend;
  r.plugin_state = loaded.state;
  r.plugin_forced = wanted == "cuda";
}

Registry* make_registry() {
  auto* r = new Registry();
  r->info.requested_backend = environment("WAGGLE_BACKEND", "auto");
  r->info.requested_simd = environment("WAGGLE_SIMD", "auto");
  r->info.n_threads = usable_cpus();
  choose_simd(*r);
  choose_backend(*r);
  return r;
}

}  // namespace

const Registry& registry() {
  static const Registry* const instance = make_registry();
  return *instance;
}

Status backend_status() { return registry().status; }

const BackendInfo& backend_info() { return registry().info; }

}  // namespace waggle
