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
#define WAGGLE_BACKEND_ABI_VERSION 2u
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
  /*
   * Told the sums of rows [first, first + n_rows) while others are under way, in order, on the plugin's thread. sums
   * [n_rows x n_targets]: leaves summed in the order of the trees; gone when it returns. Another answer than OK ends
   * the call with it.
   */
  int32_t (*take_sums)(void* context, int64_t first, int64_t n_rows, const double* sums);
  void* take_context;
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_predict_args;

typedef struct waggle_matrix_info {
  uint32_t struct_size;
  uint64_t device_bytes;
} waggle_matrix_info;

/*
 * Training of trees. The host bins the rows, grows trees and keeps the model; the device does whatever takes time per
 * row or per bin: gradients, partitions, histograms, the search for splits, sums of leaves, scores. Each function gives
 * the bits that the CPU's gives. Rows are numbers below n_rows; a tree orders them by node, so that a node is a stretch
 * [begin, end) of them, in one of two buffers that alternate by depth.
 */
typedef struct waggle_fit waggle_fit;

/* Numbers as in TreesObjective. */
enum {
  WAGGLE_OBJECTIVE_LOGISTIC = 0,
  WAGGLE_OBJECTIVE_SQUARED = 2,
  WAGGLE_OBJECTIVE_POISSON = 3,
  WAGGLE_OBJECTIVE_QUANTILE = 4
};

/* Rows that losses and sums of leaves are summed by, one after the other. */
#define WAGGLE_FIT_CHUNK 4096

typedef struct waggle_fit_feature {
  int32_t n_bins;       /* a row's slot is its bin, or n_bins where the value is missing; at most 255 */
  int32_t n_categories; /* -1: numbers, in order; else slots from here to n_bins are for all other categories */
  int32_t has_missing;
  int32_t monotone; /* -1, 0 or 1 */
} waggle_fit_feature;

/* Consecutive features, side by side. */
typedef struct waggle_fit_block {
  const uint8_t* bins; /* [n_rows x n_features] */
  int32_t first_feature;
  int32_t n_features;
} waggle_fit_block;

/* All pointers are host memory, borrowed for the call. */
typedef struct waggle_fit_args {
  uint32_t struct_size;
  int32_t objective;
  double quantile;
  int64_t n_rows; /* 1 .. 2^31 - 1 */
  int32_t n_features;
  int32_t n_blocks;
  const waggle_fit_feature* features;
  const waggle_fit_block* blocks;
  const double* y;
  const double* trials;  /* null = 1 */
  const double* weights; /* null = 1 */
  const double* scores;  /* where training starts */
  double l1;
  double l2;
  double max_step; /* bound of a leaf's value, 0 = none */
  int64_t min_child_rows;
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_fit_args;

typedef struct waggle_fit_gradients_args {
  uint32_t struct_size;
  float g_most; /* out: the largest |g|, the largest and the smallest h */
  float h_most;
  float h_least;
  double* losses; /* out: [n_rows / WAGGLE_FIT_CHUNK rounded up] */
} waggle_fit_gradients_args;

typedef struct waggle_fit_tree_args {
  uint32_t struct_size;
  float g_scale; /* a row counts as g times this, rounded to an integer */
  float h_scale;
  int32_t bounded; /* values of leaves may be clipped */
  double g_unit;
  double h_unit;
  double h_least;          /* units of h that a side needs */
  const uint8_t* features; /* [n_features], 0 = not in this tree */
  double row_sample;       /* part of the rows, drawn by seed and round; 1 = all */
  uint64_t seed;
  uint64_t round;
  int64_t n_rows; /* out: those drawn, in order */
  double g;       /* out: their sums in units */
  double h;
} waggle_fit_tree_args;

typedef struct waggle_fit_part {
  int64_t begin;
  int64_t end;
  int32_t depth;
  int32_t feature;
  uint64_t left[4]; /* slots whose rows go left */
  int64_t n_left;   /* out */
} waggle_fit_part;

/* Rows of each part go to the other buffer: those that go left first, each in their order. */
typedef struct waggle_fit_parts_args {
  uint32_t struct_size;
  waggle_fit_part* parts;
  int64_t n_parts;
} waggle_fit_parts_args;

typedef struct waggle_fit_node {
  int64_t begin;
  int64_t end;
  int32_t depth;
  int32_t histogram; /* a number from 0, reused by the host */
  double g;          /* in units */
  double h;
  double lower; /* bounds of its value */
  double upper;
} waggle_fit_node;

/* As FitSplit: the best of one node's, before the node's own gain is taken off. */
typedef struct waggle_fit_split {
  double gain; /* -1: none */
  double left_g;
  double left_h;
  uint64_t left[4]; /* of a category feature: slots that go left */
  int32_t feature;
  int32_t bin; /* of numbers: bins up to this one go left */
  int32_t missing_left;
  int32_t ordered; /* of a category feature: categories were ordered, not tried one by one */
} waggle_fit_split;

typedef struct waggle_fit_search_args {
  uint32_t struct_size;
  const waggle_fit_node* nodes; /* those searched */
  int64_t n_nodes;
  const int32_t* builds; /* places in nodes: histograms made from the rows */
  int64_t n_builds;
  const int32_t* subtractions; /* pairs of histograms: the second is taken off the first */
  int64_t n_subtractions;
  /* Null: every feature is searched. Else a feature for each node: rows are counted by its slots, and where its split
     leaves a side fewer than min_child_rows, the feature is searched again without such splits. */
  const int32_t* recounts;
  const int32_t* candidates; /* with recounts: each node's place in the last search without */
  waggle_fit_split* splits;  /* out: [n_nodes] */
} waggle_fit_search_args;

typedef struct waggle_fit_leaf {
  int64_t begin;
  int64_t end;
  int32_t depth;
  int32_t unused;
  double value; /* fit_leaves, out: the quantile of the residuals; fit_update: what its rows' scores gain */
} waggle_fit_leaf;

typedef struct waggle_fit_leaves_args {
  uint32_t struct_size;
  waggle_fit_leaf* leaves;
  int64_t n_leaves;
  double*
      sums; /* out: g and h of each stretch of WAGGLE_FIT_CHUNK rows of each leaf; null with the quantile objective */
} waggle_fit_leaves_args;

/* A node of the whole tree, for rows that were not drawn. */
typedef struct waggle_fit_branch {
  int32_t feature; /* -1: a leaf */
  int32_t left;    /* nodes; of a leaf: its place in leaves */
  int32_t right;
  int32_t unused;
  uint64_t left_slots[4];
} waggle_fit_branch;

typedef struct waggle_fit_update_args {
  uint32_t struct_size;
  const waggle_fit_leaf* leaves;
  int64_t n_leaves;
  const waggle_fit_branch* branches;
  int64_t n_branches; /* 0 = every row was drawn */
} waggle_fit_update_args;

/*
 * The one scoring function; what its columns mean is told in waggle/ops/score_rank.hpp. Scores, terms and the choice
 * have the CPU's bits. A null optional column makes its terms +0.
 */
typedef struct waggle_score_weights {
  double margin;
  double fit;
  double advertiser;
  double payout;
  double explore;
} waggle_score_weights;

/* [n] columns of the host, borrowed for the call. */
typedef struct waggle_score_args {
  uint32_t struct_size;
  int32_t k;
  int64_t n;
  const float* q;
  const float* spend;
  const float* payout;
  const float* fit;
  const float* advertiser; /* optional from here */
  const float* explore;
  const float* goal_units; /* together with omega */
  const float* frequency;
  const float* mu;
  const float* omega;
  const float* rho;
  waggle_score_weights weights;
  const uint8_t* filter; /* bit i of byte i >> 3; null = all */
  const int32_t* group;
  const int32_t* separation;
  int32_t max_per_group; /* 0 = no limit */
  int32_t n_selected;    /* out */
  int32_t* rows;         /* out [k], best first; what follows n_selected is left as it is, as in scores and terms */
  double* scores;        /* out [k] */
  double* terms;         /* out [k x 9] */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_score_args;

/* Items that stay on the device between calls: what is large of them and seldom changes. */
typedef struct waggle_rank_items waggle_rank_items;

typedef struct waggle_rank_items_args {
  uint32_t struct_size;
  int32_t sums_in_double;  /* as in waggle_rank_args */
  int64_t n_items;         /* 0 .. 2^31 - 1 */
  const float* embeddings; /* [n_items x dim]; null and dim 0: none */
  int64_t dim;
  const float* features; /* [n_items x n_features]; null and 0: none */
  int64_t n_features;
  uint64_t device_bytes; /* out */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_rank_items_args;

/* Numbers as in trees::Transform: those whose prediction depends on one target alone. */
enum {
  WAGGLE_TRANSFORM_NONE = 0,
  WAGGLE_TRANSFORM_LOGISTIC = 1,
  WAGGLE_TRANSFORM_EXP = 5,
  WAGGLE_TRANSFORM_COMPLEMENT = 9,
  WAGGLE_TRANSFORM_TWO_LOGISTIC = 10,
  WAGGLE_TRANSFORM_NEGATE = 11
};

/*
 * From requests to their best items; see waggle/ops/rank_batch.hpp. The answer has the bits of the CPU's at the level
 * that sums_in_double names. Checked by the host, borrowed for the call.
 */
typedef struct waggle_rank_args {
  uint32_t struct_size;
  int32_t k;
  int64_t n_requests;
  int64_t n_items;
  const int32_t* counts; /* [n_requests] candidates of each request */
  /* Bit i of byte i >> 3 of request r: filter + r * filter_stride; stride 0 = shared. Null: lists, or all items. */
  const uint8_t* filter;
  int64_t filter_stride;
  const int32_t* candidates; /* lists: request r's begin at offsets[r] */
  const int32_t* offsets;
  waggle_rank_items* items; /* null: embeddings and features travel with the call */
  int32_t metric;
  /* Similarities are summed 0: in float, a chain of fused multiply-adds per 512 dimensions and the chains in order;
   * 1: in double. */
  int32_t sums_in_double;
  int64_t dim;                /* 0: no similarity */
  const float* queries;       /* [n_requests x dim] */
  const float* query_factors; /* cosine: [n_requests] 1 / norm, NaN = computed in double */
  const float* embeddings;
  int64_t n_item_features;
  int64_t n_request_features;
  const float* item_features;
  const float* request_features;
  int32_t similarity_is_feature;
  int32_t target; /* of the forest: whose sum the prediction is made of */
  /* Either a forest: prediction = transform(base + scale * sum) ... */
  waggle_forest* forest;
  double base;
  double scale;
  double transform_parameter;
  int32_t transform; /* WAGGLE_TRANSFORM_*; others are unsupported */
  int32_t output;    /* of transforms with two outputs */
  /* ... or, with no forest, coefficients in the order of the features. */
  const double* coefficients;
  double intercept;
  double calibration_a;
  double calibration_b;
  const float* price;  /* [n_items], as all columns but volume */
  const float* volume; /* [n_requests], optional */
  const float* fixed_spend;
  const float* payout_share;
  const float* q;
  const float* fit;
  const float* advertiser;
  const float* explore;
  const float* goal_units;
  const float* frequency;
  const float* mu;
  const float* omega;
  const float* rho;
  waggle_score_weights weights;
  const int32_t* group;
  const int32_t* separation;
  int32_t max_per_group;
  int32_t n_finished;  /* out: predictions whose rounding the device could not be sure of */
  int32_t* chosen;     /* out [n_requests x k] items, -1 pads */
  double* scores;      /* out [n_requests x k], -infinity pads */
  double* terms;       /* out [n_requests x k x 9], 0 pads */
  float* predictions;  /* out [n_requests x k], 0 pads */
  int32_t* n_selected; /* out [n_requests] */
  /* Predictions from sums of the target (the linear model: from its logit), as the CPU makes them: for those few whose
   * last bit a processor's exp decides. Returns WAGGLE_BACKEND_*. */
  int32_t (*finish)(void* context, int64_t n, const double* sums, float* predictions);
  void* finish_context;
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_rank_args;

/*
 * Clusters around means. The host starts, refills empty clusters and ends; the device finds the nearest centroids and
 * sums. Each function gives the bits that the CPU's gives.
 */
typedef struct waggle_points waggle_points;

typedef struct waggle_points_args {
  uint32_t struct_size;
  int32_t sums_in_double; /* as in waggle_rank_args */
  const float* rows;      /* [n_rows x dim], copied to the device */
  int64_t n_rows;         /* 1 .. 2^31 - 1 */
  int64_t dim;
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_points_args;

typedef struct waggle_assign_args {
  uint32_t struct_size;
  int32_t k;
  const float* centroids; /* [k x dim] */
  int32_t* labels;        /* out [n_rows]: the nearest, ties to the lower */
  float* distances;       /* out [n_rows]: squared */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_assign_args;

typedef struct waggle_means_args {
  uint32_t struct_size;
  int32_t k;
  const int32_t* members; /* rows by cluster */
  const int64_t* begins;  /* [k + 1] where a cluster's begin */
  float* centroids;       /* [k x dim]: means of their rows, summed in double in their order; without rows as it was */
} waggle_means_args;

/* Nearest centroids by int8 codes: of row i the centroid c with the largest
 * float(sum of products of their codes) * (scales[i] * centroid_scales[c]) + biases[c], ties to the lower. */
typedef struct waggle_nearest_args {
  uint32_t struct_size;
  int32_t k;
  const int8_t* codes; /* [n_rows x 4 quads] */
  const float* scales; /* [n_rows] */
  int64_t n_rows;
  int64_t quads;
  const int8_t* centroids; /* [k x 4 quads] */
  const float* centroid_scales;
  const float* biases;
  int32_t* labels; /* out [n_rows] */
  float* scores;   /* out [n_rows] */
  int32_t (*is_cancelled)(void* context);
  void* cancel_context;
} waggle_nearest_args;

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
  int32_t (*fit_open)(void* state, const waggle_fit_args* args, waggle_fit** fit, waggle_text* error);
  void (*fit_close)(void* state, waggle_fit* fit);
  int32_t (*fit_gradients)(void* state, waggle_fit* fit, waggle_fit_gradients_args* args, waggle_text* error);
  int32_t (*fit_tree)(void* state, waggle_fit* fit, waggle_fit_tree_args* args, waggle_text* error);
  int32_t (*fit_parts)(void* state, waggle_fit* fit, waggle_fit_parts_args* args, waggle_text* error);
  int32_t (*fit_search)(void* state, waggle_fit* fit, waggle_fit_search_args* args, waggle_text* error);
  int32_t (*fit_leaves)(void* state, waggle_fit* fit, waggle_fit_leaves_args* args, waggle_text* error);
  int32_t (*fit_update)(void* state, waggle_fit* fit, waggle_fit_update_args* args, waggle_text* error);
  /* NOT_FINITE: the CPU is to say which number it is. */
  int32_t (*score_rank)(void* state, waggle_score_args* args, waggle_text* error);
  int32_t (*rank_items_open)(void* state, waggle_rank_items_args* args, waggle_rank_items** items, waggle_text* error);
  void (*rank_items_close)(void* state, waggle_rank_items* items);
  int32_t (*rank_batch)(void* state, waggle_rank_args* args, waggle_text* error);
  int32_t (*points_open)(void* state, waggle_points_args* args, waggle_points** points, waggle_text* error);
  void (*points_close)(void* state, waggle_points* points);
  int32_t (*points_assign)(void* state, waggle_points* points, waggle_assign_args* args, waggle_text* error);
  int32_t (*points_means)(void* state, waggle_points* points, waggle_means_args* args, waggle_text* error);
  int32_t (*nearest_codes)(void* state, waggle_nearest_args* args, waggle_text* error);
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
