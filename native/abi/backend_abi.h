/*
 * Contract between the engine and an accelerator plugin. C only: no exceptions, no STL, and no ownership of
 * host memory crosses it. Every struct starts with its own size, so that either side may be older: a field
 * beyond the size the other side stated does not exist there.
 */
#ifndef WAGGLE_BACKEND_ABI_H
#define WAGGLE_BACKEND_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a field changes meaning or leaves; adding one at the end only grows struct_size. */
#define WAGGLE_BACKEND_ABI_VERSION 1u
#define WAGGLE_BACKEND_TEXT_BYTES 512

/* What a plugin function returns. */
enum {
  WAGGLE_BACKEND_OK = 0,
  WAGGLE_BACKEND_UNSUPPORTED = 1, /* this shape or machine: the engine uses the CPU */
  WAGGLE_BACKEND_CANCELLED = 2,
  WAGGLE_BACKEND_NOT_FINITE = 3, /* an input made a score NaN or infinite */
  WAGGLE_BACKEND_OUT_OF_MEMORY = 4,
  WAGGLE_BACKEND_FAILED = 5 /* device error: text says which */
};

enum { WAGGLE_METRIC_INNER_PRODUCT = 0, WAGGLE_METRIC_COSINE = 1, WAGGLE_METRIC_L2 = 2 };

/* Filled by the plugin on any result but OK; always zero-terminated. */
typedef struct waggle_text {
  uint32_t struct_size;
  char text[WAGGLE_BACKEND_TEXT_BYTES];
} waggle_text;

typedef struct waggle_device_info {
  uint32_t struct_size;
  char name[256];      /* "NVIDIA H200, 139.8 GiB, sm_90" */
  char libraries[256]; /* run-time libraries beyond the driver, comma separated */
  uint64_t memory_bytes;
} waggle_device_info;

/* All pointers are host memory, borrowed for the call. */
typedef struct waggle_topk_f32_args {
  uint32_t struct_size;
  int32_t metric;
  const float* queries; /* [n_queries x dim] row-major */
  int64_t n_queries;
  const float* matrix; /* [n_rows x dim] row-major */
  int64_t n_rows;
  int64_t dim;
  int32_t k;                              /* 1 .. 2048 */
  const uint8_t* filter;                  /* bit r of byte r >> 3, shared by all queries; null = all rows */
  float* scores;                          /* [n_queries x k], best first, -infinity pads */
  int32_t* rows;                          /* [n_queries x k], -1 pads; ties to the lower row */
  int32_t (*is_cancelled)(void* context); /* polled between tiles; may be null */
  void* cancel_context;
} waggle_topk_f32_args;

enum { WAGGLE_DTYPE_F32 = 0, WAGGLE_DTYPE_F16 = 1, WAGGLE_DTYPE_BF16 = 2, WAGGLE_DTYPE_INT8 = 3 };

/* A matrix that lives on the device between calls. Made and freed by the plugin; safe to use from several threads. */
typedef struct waggle_device_matrix waggle_device_matrix;

typedef struct waggle_matrix_args {
  uint32_t struct_size;
  int32_t dtype;      /* WAGGLE_DTYPE_*: what is scanned */
  const float* exact; /* [n_rows x dim] row-major; every value finite */
  int64_t n_rows;     /* 0 .. 2^31 - 1 */
  int64_t dim;        /* >= 1 */
  int32_t keep_exact; /* 1: f32 rows stay on the device and answers are exact; 0: low precision alone */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_matrix_args;

typedef struct waggle_topk_args {
  uint32_t struct_size;
  int32_t metric;
  const float* queries; /* [n_queries x dim] host, row-major, finite */
  int64_t n_queries;
  int32_t k; /* 1 .. 2048 */
  /* bit r of byte r >> 3 of row q: bits + q * filter_stride; stride 0 = shared by all queries; null = all rows */
  const uint8_t* filter;
  int64_t filter_stride;
  float* scores;      /* [n_queries x k], best first, -infinity pads */
  int32_t* rows;      /* [n_queries x k], -1 pads; ties to the lower row */
  int64_t n_rescored; /* out: rows that the scan could not exclude and that were looked at closely, over all queries */
  int64_t n_in_doubt; /* out: without exact rows, rows that might belong to an answer and are not in it; else 0 */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_topk_args;

typedef struct waggle_matrix_info {
  uint32_t struct_size;
  uint64_t device_bytes;
} waggle_matrix_info;

/* A null slot means: the engine uses the CPU for this operation. */
typedef struct waggle_op_table {
  uint32_t struct_size;
  int32_t (*topk_f32)(void* state, const waggle_topk_f32_args* args, waggle_text* error);
  int32_t (*matrix_open)(void* state, const waggle_matrix_args* args, waggle_device_matrix** matrix,
                         waggle_matrix_info* info, waggle_text* error);
  void (*matrix_close)(void* state, waggle_device_matrix* matrix);
  int32_t (*topk)(void* state, waggle_device_matrix* matrix, waggle_topk_args* args, waggle_text* error);
} waggle_op_table;

typedef struct waggle_backend {
  uint32_t struct_size;
  uint32_t abi_version;
  const char* name; /* "cuda" */
  /* OK when the machine can run it; must not leave anything allocated on the device. */
  int32_t (*probe)(waggle_device_info* info, waggle_text* reason);
  /* Called once, after a good probe. The state is never closed: the library stays loaded until exit. */
  int32_t (*open)(void** state, waggle_text* reason);
  const waggle_op_table* ops;
} waggle_backend;

/* Exported by every plugin. Null when it cannot serve a host of that version. */
#define WAGGLE_BACKEND_ENTRY_NAME "waggle_backend_entry"
typedef const waggle_backend* (*waggle_backend_entry_function)(uint32_t host_abi);

#ifdef __cplusplus
}
#endif

#endif
