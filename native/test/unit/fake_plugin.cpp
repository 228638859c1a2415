// Behaves as WAGGLE_FAKE_PLUGIN says.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "abi/backend_abi.h"

namespace {

bool told(const char* behaviour) {
  const char* value = std::getenv("WAGGLE_FAKE_PLUGIN");
  return value != nullptr && std::strcmp(value, behaviour) == 0;
}

int32_t probe(waggle_device_info* info, waggle_text* reason) {
  if (told("refuses")) {
    std::snprintf(reason->text, sizeof reason->text, "no such device here");
    return WAGGLE_BACKEND_UNSUPPORTED;
  }
  std::snprintf(info->name, sizeof info->name, "fake device");
  return WAGGLE_BACKEND_OK;
}

int32_t open(void** state, waggle_text*) {
  static int memory = 0;
  *state = &memory;
  return WAGGLE_BACKEND_OK;
}

int32_t topk(void*, const waggle_topk_f32_args* args, waggle_text* error) {
  if (told("unsupported")) return WAGGLE_BACKEND_UNSUPPORTED;
  if (told("fails")) {
    std::snprintf(error->text, sizeof error->text, "the device caught fire");
    return WAGGLE_BACKEND_FAILED;
  }
  if (told("writes_answer")) {
    for (int64_t i = 0; i < args->n_queries * args->k; ++i) {
      args->scores[i] = 42.0f;
      args->rows[i] = 7;
    }
    return WAGGLE_BACKEND_OK;
  }
  return WAGGLE_BACKEND_UNSUPPORTED;
}

// "breaks": a call that had begun ends without its device.
int32_t lose_device(waggle_text* error) {
  std::snprintf(error->text, sizeof error->text, "the device fell off the bus");
  return WAGGLE_BACKEND_FAILED;
}

// "breaks": a training begins and then loses its device.
int32_t fit_open(void*, const waggle_fit_args*, waggle_fit** fit, waggle_text* error) {
  if (told("fails")) {
    std::snprintf(error->text, sizeof error->text, "no memory left");
    return WAGGLE_BACKEND_OUT_OF_MEMORY;
  }
  if (!told("breaks")) return WAGGLE_BACKEND_UNSUPPORTED;
  static int memory = 0;
  *fit = reinterpret_cast<waggle_fit*>(&memory);
  return WAGGLE_BACKEND_OK;
}

void fit_close(void*, waggle_fit*) {}

int32_t fit_gradients(void*, waggle_fit*, waggle_fit_gradients_args*, waggle_text* error) { return lose_device(error); }

int32_t answer_as_told(waggle_text* error) {
  if (told("breaks")) return lose_device(error);
  if (!told("fails")) return WAGGLE_BACKEND_UNSUPPORTED;
  std::snprintf(error->text, sizeof error->text, "no memory left");
  return WAGGLE_BACKEND_OUT_OF_MEMORY;
}

int32_t score_rank(void*, waggle_score_args* args, waggle_text* error) {
  // What a failing device wrote must not be seen.
  args->n_selected = 1;
  args->rows[0] = 12345;
  return answer_as_told(error);
}

int32_t rank_batch(void*, waggle_rank_args* args, waggle_text* error) {
  args->chosen[0] = 12345;
  return answer_as_told(error);
}

int32_t points_open(void*, waggle_points_args*, waggle_points** points, waggle_text* error) {
  if (!told("breaks")) return answer_as_told(error);
  static int memory = 0;
  *points = reinterpret_cast<waggle_points*>(&memory);
  return WAGGLE_BACKEND_OK;
}

void points_close(void*, waggle_points*) {}

int32_t points_assign(void*, waggle_points*, waggle_assign_args* args, waggle_text* error) {
  args->labels[0] = 12345;
  return lose_device(error);
}

int32_t points_means(void*, waggle_points*, waggle_means_args*, waggle_text* error) { return lose_device(error); }

int32_t nearest_codes(void*, waggle_nearest_args*, waggle_text* error) { return answer_as_told(error); }

waggle_op_table all_ops() {
  waggle_op_table ops = {};
  ops.struct_size = sizeof ops;
  ops.topk_f32 = topk;
  ops.fit_open = fit_open;
  ops.fit_close = fit_close;
  ops.fit_gradients = fit_gradients;
  ops.score_rank = score_rank;
  ops.rank_batch = rank_batch;
  ops.points_open = points_open;
  ops.points_close = points_close;
  ops.points_assign = points_assign;
  ops.points_means = points_means;
  ops.nearest_codes = nearest_codes;
  return ops;
}
const waggle_op_table kOps = all_ops();
const waggle_op_table kNoOps = {sizeof(waggle_op_table), nullptr};
waggle_backend backend = {sizeof(waggle_backend), WAGGLE_BACKEND_ABI_VERSION, "cuda", probe, open, &kOps};

}  // namespace

extern "C" __attribute__((visibility("default"))) const waggle_backend* waggle_backend_entry(uint32_t) {
  if (told("old")) backend.abi_version = 0;
  if (told("null_op")) backend.ops = &kNoOps;
  return &backend;
}
