// The plugin's one exported symbol, its probe and its state.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <memory>

#include "abi/backend_abi.h"
#include "cuda/check.cuh"
#include "cuda/matrix.hpp"
#include "cuda/ops/cluster.cuh"
#include "cuda/ops/rank.cuh"
#include "cuda/ops/rank_batch.cuh"
#include "cuda/ops/topk.cuh"
#include "cuda/ops/trees.cuh"
#include "cuda/ops/trees_fit.cuh"
#include "cuda/owner.hpp"
#include "cuda/resources.hpp"

namespace waggle::cuda {

namespace {

constexpr int kOldestMajor = 8;  // sm_80: the oldest code in the library

// The device with the most memory that can run our code; −1 with a reason when there is none.
int32_t choose_device(int* device, cudaDeviceProp* properties, waggle_text* error) {
  int count = 0;
  WAGGLE_CUDA_CHECK(cudaGetDeviceCount(&count));
  *device = -1;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp candidate;
    WAGGLE_CUDA_CHECK(cudaGetDeviceProperties(&candidate, i));
    if (candidate.major < kOldestMajor) continue;
    if (*device < 0 || candidate.totalGlobalMem > properties->totalGlobalMem) {
      *device = i;
      *properties = candidate;
    }
  }
  if (*device < 0) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "%d CUDA device(s), none of compute capability %d.0 or newer", count,
                kOldestMajor);
  }
  return WAGGLE_BACKEND_OK;
}

// What is opened to stay may need the memory that calls left behind for the next of their kind.
template <typename Body>
int32_t guarded_with_room(State& device, waggle_text* error, Body&& body) {
  const int32_t status = guarded(error, body);
  if (status != WAGGLE_BACKEND_OUT_OF_MEMORY) return status;
  device.scratch.release();
  device.staging.release();
  return guarded(error, body);
}

int32_t probe(waggle_device_info* info, waggle_text* error) {
  int device = -1;
  cudaDeviceProp properties = {};
  if (const int32_t status = choose_device(&device, &properties, error); status != WAGGLE_BACKEND_OK) return status;
  if (info != nullptr && info->struct_size >= sizeof(waggle_device_info)) {
    std::snprintf(info->name, sizeof info->name, "%.200s, %.1f GiB, sm_%d%d", properties.name,
                  static_cast<double>(properties.totalGlobalMem) / (1u << 30), properties.major, properties.minor);
    std::snprintf(info->libraries, sizeof info->libraries, "none (CUDA runtime %d.%d linked statically)",
                  CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    info->memory_bytes = properties.totalGlobalMem;
  }
  return WAGGLE_BACKEND_OK;
}

int32_t open(void** state, waggle_text* error) {
  int device = -1;
  cudaDeviceProp properties = {};
  if (const int32_t status = choose_device(&device, &properties, error); status != WAGGLE_BACKEND_OK) return status;
  return guarded(error, [&]() -> int32_t {
    Owner* made = new Owner();
    made->state().device = device;
    made->state().memory_bytes = properties.totalGlobalMem;
    made->state().multiprocessors = properties.multiProcessorCount;
    made->state().has_wgmma = properties.major == 9;
    *state = made;
    return WAGGLE_BACKEND_OK;
  });
}

int32_t topk_f32(void* state, const waggle_topk_f32_args* args, waggle_text* error) {
  if (state == nullptr || args == nullptr || args->struct_size < sizeof(waggle_topk_f32_args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's topk arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run(
        [&](State& device) { return guarded(error, [&] { return topk_f32_on_device(device, *args, error); }); });
  });
}

int32_t matrix_open(void* state, const waggle_matrix_args* args, waggle_device_matrix** matrix,
                    waggle_matrix_info* info, waggle_text* error) {
  if (state == nullptr || args == nullptr || matrix == nullptr || args->struct_size < sizeof(waggle_matrix_args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's matrix arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run([&](State& device) {
      return guarded_with_room(device, error, [&] {
        std::unique_ptr<waggle_device_matrix> made;
        const int32_t status = open_matrix(device, *args, &made, error);
        if (status != WAGGLE_BACKEND_OK) return status;
        if (info != nullptr && info->struct_size >= sizeof(waggle_matrix_info)) info->device_bytes = made->device_bytes;
        *matrix = made.release();
        return status;
      });
    });
  });
}

void matrix_close(void* state, waggle_device_matrix* matrix) {
  if (state == nullptr || matrix == nullptr) return;
  (void)guarded(nullptr, [&] {
    return static_cast<Owner*>(state)->run([matrix](State& device) {
      (void)cudaSetDevice(device.device);
      delete matrix;
      return static_cast<int32_t>(WAGGLE_BACKEND_OK);
    });
  });
}

int32_t topk(void* state, waggle_device_matrix* matrix, waggle_topk_args* args, waggle_text* error) {
  if (state == nullptr || matrix == nullptr || args == nullptr || args->struct_size < sizeof(waggle_topk_args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's topk arguments are too old");
  }
  return guarded(error, [&] { return static_cast<Owner*>(state)->search(*matrix, *args, error); });
}

int32_t forest_predict(void* state, waggle_forest* forest, const waggle_predict_args* args, waggle_text* error) {
  if (state == nullptr || forest == nullptr || args == nullptr || args->struct_size < sizeof(waggle_predict_args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's tree arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run([&](State& device) {
      return guarded(error, [&] { return predict_on_device(device, *forest, *args, error); });
    });
  });
}

// A step of a training.
template <typename Args, int32_t (*kStep)(State&, waggle_fit&, Args&, waggle_text*)>
int32_t fit_step(void* state, waggle_fit* fit, Args* args, waggle_text* error) {
  if (state == nullptr || fit == nullptr || args == nullptr || args->struct_size < sizeof(Args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's training arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run(
        [&](State& device) { return guarded(error, [&] { return kStep(device, *fit, *args, error); }); });
  });
}

// A call of its own, without a handle.
template <typename Args, int32_t (*kCall)(State&, Args&, waggle_text*)>
int32_t call(void* state, Args* args, waggle_text* error) {
  if (state == nullptr || args == nullptr || args->struct_size < sizeof(Args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run(
        [&](State& device) { return guarded(error, [&] { return kCall(device, *args, error); }); });
  });
}

template <typename Handle, typename Args, int32_t (*kOpen)(State&, Args&, std::unique_ptr<Handle>*, waggle_text*)>
int32_t open_handle(void* state, Args* args, Handle** handle, waggle_text* error) {
  if (state == nullptr || args == nullptr || handle == nullptr || args->struct_size < sizeof(Args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run([&](State& device) {
      return guarded_with_room(device, error, [&] {
        std::unique_ptr<Handle> made;
        const int32_t status = kOpen(device, *args, &made, error);
        if (status == WAGGLE_BACKEND_OK) *handle = made.release();
        return status;
      });
    });
  });
}

template <typename Handle>
void close_handle(void* state, Handle* handle) {
  if (state == nullptr || handle == nullptr) return;
  (void)guarded(nullptr, [&] {
    return static_cast<Owner*>(state)->run([handle](State& device) {
      (void)cudaSetDevice(device.device);
      delete handle;
      return static_cast<int32_t>(WAGGLE_BACKEND_OK);
    });
  });
}

// A step with the rows of a clustering.
template <typename Args, int32_t (*kStep)(State&, waggle_points&, Args&, waggle_text*)>
int32_t points_step(void* state, waggle_points* points, Args* args, waggle_text* error) {
  if (state == nullptr || points == nullptr || args == nullptr || args->struct_size < sizeof(Args)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host's arguments are too old");
  }
  return guarded(error, [&] {
    return static_cast<Owner*>(state)->run(
        [&](State& device) { return guarded(error, [&] { return kStep(device, *points, *args, error); }); });
  });
}

constexpr waggle_op_table kOps = {sizeof(waggle_op_table),
                                  topk_f32,
                                  matrix_open,
                                  matrix_close,
                                  topk,
                                  open_handle<waggle_forest, const waggle_forest_args, open_forest>,
                                  close_handle<waggle_forest>,
                                  forest_predict,
                                  open_handle<waggle_fit, const waggle_fit_args, open_fit>,
                                  close_handle<waggle_fit>,
                                  fit_step<waggle_fit_gradients_args, fit_gradients_on_device>,
                                  fit_step<waggle_fit_tree_args, fit_tree_on_device>,
                                  fit_step<waggle_fit_parts_args, fit_parts_on_device>,
                                  fit_step<waggle_fit_search_args, fit_search_on_device>,
                                  fit_step<waggle_fit_leaves_args, fit_leaves_on_device>,
                                  fit_step<waggle_fit_update_args, fit_update_on_device>,
                                  call<waggle_score_args, score_rank_on_device>,
                                  open_handle<waggle_rank_items, waggle_rank_items_args, open_rank_items>,
                                  close_handle<waggle_rank_items>,
                                  call<waggle_rank_args, rank_batch_on_device>,
                                  open_handle<waggle_points, waggle_points_args, open_points>,
                                  close_handle<waggle_points>,
                                  points_step<waggle_assign_args, assign_on_device>,
                                  points_step<waggle_means_args, means_on_device>,
                                  call<waggle_nearest_args, nearest_on_device>};
constexpr waggle_backend kBackend = {
    sizeof(waggle_backend), WAGGLE_BACKEND_ABI_VERSION, "cuda", probe, open, &kOps,
};

}  // namespace

}  // namespace waggle::cuda

extern "C" __attribute__((visibility("default"))) const waggle_backend* waggle_backend_entry(uint32_t host_abi) {
  return host_abi == WAGGLE_BACKEND_ABI_VERSION ? &waggle::cuda::kBackend : nullptr;
}
