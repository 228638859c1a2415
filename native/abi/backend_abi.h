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
  /* Instead of `exact`, when that is null: writes rows [first, first + count), [count x dim], finite. Returns
   * WAGGLE_BACKEND_*. */
  int32_t (*read_rows)(void* context, int64_t first, int64_t count, float* rows);
  void* read_context;
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
  /* Of a matrix without exact rows on the device: exact scores of pairs, from the host. Answers are exact then. Returns
   * WAGGLE_BACKEND_*. */
  int32_t (*score_pairs)(void* context, int64_t n_pairs, const int32_t* queries, const int32_t* rows, float* scores);
  void* score_context;
} waggle_topk_args;

/* An ensemble of trees on the device. */
typedef struct waggle_forest waggle_forest;

enum { WAGGLE_MISSING_NAN = 0, WAGGLE_MISSING_ZERO_OR_NAN = 1, WAGGLE_MISSING_NAN_IS_ZERO = 2 };
enum {
  WAGGLE_DECISION_LESS = 0,
  WAGGLE_DECISION_LESS_EQUAL = 1,
  WAGGLE_DECISION_EQUAL = 2,
  WAGGLE_DECISION_MEMBER = 3,
  WAGGLE_DECISION_CATEGORY = 4,
  WAGGLE_DECISION_CATEGORY_TRUNCATED = 5
};
#define WAGGLE_NODE_LEAF 0x80000000u

/* What each field means is told in waggle/trees.hpp. Node numbers count over the whole forest. */
typedef struct waggle_forest_node {
  float threshold; /* of a set decision: the bits of its number in `sets` */
  uint32_t rules;  /* bits 0-23 feature, 24-26 decision, 27-28 missing, 29 default left; WAGGLE_NODE_LEAF */
  uint32_t left;   /* of a leaf: its first value */
  uint32_t right;
} waggle_forest_node;

typedef struct waggle_forest_tree {
  uint32_t first_node;
  int32_t first_target;
  int32_t n_values; /* per leaf */
} waggle_forest_tree;

typedef struct waggle_forest_set {
  uint32_t first; /* in members, or in categories (words) */
  uint32_t count;
} waggle_forest_set;

/* Borrowed for the call; checked by the host. */
typedef struct waggle_forest_args {
  uint32_t struct_size;
  int32_t n_features;
  int32_t n_targets;
  const waggle_forest_tree* trees;
  int64_t n_trees;
  const waggle_forest_node* nodes;
  int64_t n_nodes;
  const float* values;
  int64_t n_values;
  const float* members;
  int64_t n_members;
  const uint32_t* categories;
  int64_t n_categories;
  const waggle_forest_set* sets;
  int64_t n_sets;
} waggle_forest_args;

typedef struct waggle_predict_args {
  uint32_t struct_size;
  const float* x; /* [n_rows x n_features] host, row-major; NaN = missing */
  int64_t n_rows;
  double* sums; /* out: [n_rows x n_targets], leaves summed in the order of the trees */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_predict_args;

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
  int32_t (*forest_open)(void* state, const waggle_forest_args* args, waggle_forest** forest, waggle_text* error);
  void (*forest_close)(void* state, waggle_forest* forest);
  int32_t (*forest_predict)(void* state, waggle_forest* forest, const waggle_predict_args* args, waggle_text* error);
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
