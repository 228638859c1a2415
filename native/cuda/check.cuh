// Every CUDA call is checked and becomes a status with a text; nothing aborts.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <new>

#include "abi/backend_abi.h"

namespace waggle::cuda {

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
inline int32_t
fail(waggle_text* error, int32_t status, const char* format, ...) {
  if (error != nullptr) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
  }
  return status;
}

inline int32_t fail_cuda(waggle_text* error, cudaError_t result, const char* what) {
  // Out of memory is no lasting damage: clear it, so that the next call does not report it again.
  (void)cudaGetLastError();
  return fail(error, result == cudaErrorMemoryAllocation ? WAGGLE_BACKEND_OUT_OF_MEMORY : WAGGLE_BACKEND_FAILED,
              "%s: %s (%s)", what, cudaGetErrorString(result), cudaGetErrorName(result));
}

/// The body's answer; no exception crosses the line to the host.
template <typename Body>
int32_t guarded(waggle_text* error, Body&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(error, WAGGLE_BACKEND_OUT_OF_MEMORY, "no host memory");
  } catch (const std::exception& thrown) {
    return fail(error, WAGGLE_BACKEND_FAILED, "%s", thrown.what());
  } catch (...) {
    return fail(error, WAGGLE_BACKEND_FAILED, "unexpected exception");
  }
}

}  // namespace waggle::cuda

/// Returns from the enclosing function when a plugin function did not answer OK.
#define WAGGLE_TRY(call)                                                           \
  do {                                                                             \
    if (const int32_t status = (call); status != WAGGLE_BACKEND_OK) return status; \
  } while (false)

/// Returns from the enclosing function (int32_t, with a `waggle_text* error` in scope) on failure.
#define WAGGLE_CUDA_CHECK(call)                                      \
  do {                                                               \
    const cudaError_t waggle_result = (call);                        \
    if (waggle_result != cudaSuccess) {                              \
      return ::waggle::cuda::fail_cuda(error, waggle_result, #call); \
    }                                                                \
  } while (false)
