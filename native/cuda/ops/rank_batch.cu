// Passes that bound the memory. Of each pass: the candidates out of the bitmaps, their similarities, their predictions,
// then the choice (rank.cuh). Everything has the CPU's bits; the one thing a device cannot promise, the last bit of
// exp, is watched: a prediction whose rounding to float that bit could decide goes back to the host, once in some ten
// million.
#include "cuda/ops/rank_batch.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/chain.cuh"
#include "cuda/ops/rank.cuh"
#include "cuda/ops/scan.cuh"
#include "cuda/ops/trees_walk.cuh"
#include "cuda/ops/upload.hpp"

namespace waggle::cuda {

namespace {

constexpr int kTile = 128;  // candidates of a block, one thread each
constexpr int kPieceDim = 32;
constexpr int kRowStride = kPieceDim + 1;  // of rows in shared memory: threads side by side read different banks
constexpr int kRequestsTogether = 4;
constexpr int kCompactThreads = 256;
constexpr int kMaxSharedBytes = 96 * 1024;
#if defined(WAGGLE_CUDA_SMALL_PIECES)
constexpr int64_t kSlotsPerPass = int64_t{1} << 11;  // so that tests have several passes
#else
constexpr int64_t kSlotsPerPass = int64_t{1} << 22;
#endif
constexpr int64_t kRequestsPerPass = 32768;  // a grid's second dimension ends at 65,535

// Norms outside this range make a cosine in double, as on the CPU.
constexpr float kSmallestSafeSquare = 1e-24f;
constexpr float kLargestSafeSquare = 1e24f;

// ---- candidates -----------------------------------------------------------------------------------------------------

// Grid: requests, or 1 where all share a bitmap; 256 threads, 32 items each at a time. Items in ascending order, those
// of request r from r · stride on. Bound by memory: a bit is read and, where it is set, four bytes are written.
__global__ void __launch_bounds__(kCompactThreads)
    compact_kernel(const uint8_t* d_bits, int64_t bits_stride, int64_t n_items, int64_t stride, int32_t* d_items) {
  __shared__ int of_warp[kCompactThreads / 32];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const uint8_t* bits = d_bits + static_cast<int64_t>(blockIdx.x) * bits_stride;
  int32_t* items = d_items + static_cast<int64_t>(blockIdx.x) * stride;
  const int64_t n_bytes = (n_items + 7) / 8;
  int64_t written = 0;
  for (int64_t first = 0; first < n_items; first += kCompactThreads * 32) {
    const int64_t own = first + thread * 32;
    unsigned word = 0;
    for (int b = 0; b < 4; ++b) {
      if (own / 8 + b < n_bytes) word |= static_cast<unsigned>(bits[own / 8 + b]) << (8 * b);
    }
    if (own + 32 > n_items) word &= own >= n_items ? 0u : (1u << (n_items - own)) - 1u;
    const int count = __popc(word);
    int before = count;  // of the lanes up to this one
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kFullWarp, before, static_cast<unsigned>(step));
      if (lane >= step) before += other;
    }
    if (lane == 31) of_warp[warp] = before;
    __syncthreads();
    int64_t at = written + before - count;
    for (int w = 0; w < kCompactThreads / 32; ++w) {
      if (w < warp) at += of_warp[w];
      written += of_warp[w];
    }
    for (; word != 0; word &= word - 1) items[at++] = static_cast<int32_t>(own + __ffs(static_cast<int>(word)) - 1);
    __syncthreads();  // of_warp is read
  }
}

// ---- similarity -----------------------------------------------------------------------------------------------------

__device__ inline double square_in_double(const float* v, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum = __dadd_rn(sum, __dmul_rn(v[i], v[i]));
  return sum;
}

__device__ inline float cosine_in_double(const float* a, const float* b, int64_t dim) {
  double dot = 0;
  for (int64_t i = 0; i < dim; ++i) dot = __dadd_rn(dot, __dmul_rn(a[i], b[i]));
  const double norms = __dmul_rn(__dsqrt_rn(square_in_double(a, dim)), __dsqrt_rn(square_in_double(b, dim)));
  return norms == 0 ? 0.0f : static_cast<float>(__ddiv_rn(dot, norms));
}

// kTile rows × kPieceDim of their dimensions into shared memory; a warp per row, side by side.
__device__ inline void fetch_rows(const float* d_rows, const int32_t* items, int64_t dim, int64_t begin, float* rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (begin + lane >= dim) return;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < kTile; row += kTile / 32) {
    rows[row * kRowStride + lane] = d_rows[items[row] * dim + begin + lane];
  }
}

// Grid: rows / 128; 128 threads; 1 / norm of every row, NaN where a cosine must be computed in double. Bound by memory.
template <bool kDouble>
__global__ void __launch_bounds__(kTile)
    factors_kernel(const float* d_rows, int64_t n_rows, int64_t dim, float* d_factors) {
  __shared__ float rows[kTile * kRowStride];
  __shared__ int32_t items[kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile + thread;
  items[thread] = static_cast<int32_t>(min(row, n_rows - 1));
  __syncthreads();
  Chain<kDouble> sum = 0;
  float total = 0;
  for (int64_t begin = 0; begin < dim; begin += kPieceDim) {
    fetch_rows(d_rows, items, dim, begin, rows);
    __syncthreads();
    next_chain<kDouble>(&sum, &total, begin);
    const int width = static_cast<int>(min(static_cast<int64_t>(kPieceDim), dim - begin));
    for (int i = 0; i < width; ++i) {
      const float x = rows[thread * kRowStride + i];
      sum = add_term<kDouble, false>(sum, x, x);
    }
    __syncthreads();
  }
  if (row >= n_rows) return;
  const float square = end_chains<kDouble>(sum, total, dim);
  const bool safe = square >= kSmallestSafeSquare && square <= kLargestSafeSquare;
  d_factors[row] = safe ? __fdiv_rn(1.0f, __fsqrt_rn(square)) : NAN;
}

struct Similarity {
  int metric;
  int64_t dim;
  const float* d_queries;
  const float* d_query_factors;
  const float* d_embeddings;
  const float* d_item_factors;
};

// Grid: (candidates / 128, requests / kTogether); 128 threads, a candidate each with kTogether requests, which share
// their candidates where that is more than one; 18 KiB shared. Bound by reads of shared memory: 1 + 1 / kTogether for a
// multiply-add.
template <int kTogether, bool kDouble, bool kL2>
__global__ void __launch_bounds__(kTile)
    similarity_kernel(const Candidates candidates, const Similarity s, float* d_similarity, ChoiceFlags* d_flags) {
  __shared__ float rows[kTile * kRowStride];
  __shared__ float queries[kTogether * kPieceDim];
  __shared__ int32_t items[kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const int request0 = static_cast<int>(blockIdx.y) * kTogether;
  const int count = candidates.d_counts[request0];
  const int index0 = static_cast<int>(blockIdx.x) * kTile;
  if (index0 >= count) return;
  const int index = index0 + thread;
  items[thread] = candidates.item_of(request0, min(index, count - 1));
  __syncthreads();
  Chain<kDouble> sum[kTogether];
  float total[kTogether];
#pragma unroll
  for (int r = 0; r < kTogether; ++r) {
    sum[r] = 0;
    total[r] = 0;
  }
  for (int64_t begin = 0; begin < s.dim; begin += kPieceDim) {
    fetch_rows(s.d_embeddings, items, s.dim, begin, rows);
    for (int i = thread; i < kTogether * kPieceDim; i += kTile) {
      const int request = request0 + i / kPieceDim;
      const int64_t at = begin + i % kPieceDim;
      queries[i] = request < candidates.n_requests && at < s.dim ? s.d_queries[request * s.dim + at] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kTogether; ++r) next_chain<kDouble>(&sum[r], &total[r], begin);
    const int width = static_cast<int>(min(static_cast<int64_t>(kPieceDim), s.dim - begin));
    for (int i = 0; i < width; ++i) {
      const float x = rows[thread * kRowStride + i];
#pragma unroll
      for (int r = 0; r < kTogether; ++r) sum[r] = add_term<kDouble, kL2>(sum[r], queries[r * kPieceDim + i], x);
    }
    __syncthreads();
  }
  if (index >= count) return;
#pragma unroll
  for (int r = 0; r < kTogether; ++r) {
    const int request = request0 + r;
    if (request >= candidates.n_requests) continue;
    const float whole = end_chains<kDouble>(sum[r], total[r], s.dim);
    float score = kL2 ? -whole : whole;
    if (s.metric == WAGGLE_METRIC_COSINE) {
      const int64_t item = items[thread];
      score = __fmul_rn(__fmul_rn(score, s.d_query_factors[request]), s.d_item_factors[item]);
      if (!isfinite(score)) {
        score = cosine_in_double(s.d_queries + request * s.dim, s.d_embeddings + item * s.dim, s.dim);
      }
    }
    if (!isfinite(score)) {
      atomicMin(&d_flags->bad, static_cast<unsigned long long>(request) << 32 | static_cast<unsigned>(index));
    }
    d_similarity[candidates.slot_of(request, index)] = score;
  }
}

// ---- prediction -----------------------------------------------------------------------------------------------------

// exp of CUDA is at most one unit in the last place off, that of C libraries less; with the additions and divisions
// around them two results are less than eight units, 2^-49, apart.
#if defined(WAGGLE_CUDA_SMALL_PIECES)
// A device's exp hardly ever differs from the CPU's, the emulator's never: made wrong on purpose, so that a prediction
// that is not watched shows.
constexpr double kDoubt = 0x1p-29;
__device__ inline double exp_of(double x) { return exp(x) * (1 + 0x1p-31); }
#else
constexpr double kDoubt = 0x1p-49;
__device__ inline double exp_of(double x) { return exp(x); }
#endif

__device__ inline bool is_sure(double p) {
  return static_cast<float>(__dmul_rn(p, 1 - kDoubt)) == static_cast<float>(__dmul_rn(p, 1 + kDoubt));
}

__device__ inline double logistic(double x) {
  if (x >= 0) return 1.0 / (1.0 + exp_of(-x));
  const double e = exp_of(x);
  return e / (1.0 + e);
}

struct Prediction {
  Forest forest;
  int target;
  int transform;
  int output;
  double base;
  double scale;
  double parameter;
  const double* d_coefficients;
  double intercept;
  double calibration_a;
  double calibration_b;
  int n_item;
  int n_request;
  const float* d_item_features;
  const float* d_request_features;
  const float* d_similarity;  // null: no feature
};

// What a prediction is made of where the device is not sure of its rounding.
struct Doubts {
  int32_t* d_slots;
  double* d_sums;
};

// Of a forest's sum; `sure` tells whether the CPU rounds to the same float.
__device__ inline float transformed(const Prediction& p, double sum, bool* sure) {
  const double score = __dadd_rn(p.base, __dmul_rn(p.scale, sum));
  *sure = true;
  double value = score;
  switch (p.transform) {
    case WAGGLE_TRANSFORM_LOGISTIC:
      value = logistic(__dmul_rn(p.parameter, score));
      *sure = is_sure(value);
      break;
    case WAGGLE_TRANSFORM_TWO_LOGISTIC:
      value = logistic(p.output == 0 ? -score : score);
      *sure = is_sure(value);
      break;
    case WAGGLE_TRANSFORM_EXP:
      value = exp_of(score);
      *sure = is_sure(value);
      break;
    case WAGGLE_TRANSFORM_COMPLEMENT:
      if (p.output == 0) value = __dadd_rn(1.0, -score);
      break;
    case WAGGLE_TRANSFORM_NEGATE:
      if (p.output == 0) value = -score;
      break;
    default:
      break;
  }
  return static_cast<float>(value);
}

enum class Kind { kPlainTrees, kTrees, kLinear };

// Grid: (candidates / 128, requests); 128 threads, one candidate each; 512 bytes of shared memory per feature for trees
// where that fits: a thread's features lie in its own column, which nobody else reads. Bound by the walk's loads from
// L1 and L2, or by the features' way from L2.
template <Kind kKind>
__global__ void __launch_bounds__(kTile)
    predict_candidates_kernel(const Candidates candidates, const Prediction p, bool staged, float* d_prediction,
                              const Doubts doubts, ChoiceFlags* d_flags) {
  WAGGLE_DYNAMIC_SHARED(shared);
  float* columns = reinterpret_cast<float*>(shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int request = static_cast<int>(blockIdx.y);
  const int index = static_cast<int>(blockIdx.x) * kTile + thread;
  if (index >= candidates.d_counts[request]) return;
  const int64_t slot = candidates.slot_of(request, index);
  const float* of_item = p.d_item_features + static_cast<int64_t>(candidates.item_of(request, index)) * p.n_item;
  const float* of_request = p.d_request_features + static_cast<int64_t>(request) * p.n_request;
  const auto fetch = [&](int f) {
    if (f < p.n_item) return of_item[f];
    if (f < p.n_item + p.n_request) return of_request[f - p.n_item];
    return p.d_similarity[slot];
  };
  const int n_features = p.n_item + p.n_request + (p.d_similarity != nullptr ? 1 : 0);
  double sum = 0;
  bool sure = true;
  float prediction = 0;
  if constexpr (kKind == Kind::kLinear) {
    sum = p.intercept;
    for (int f = 0; f < n_features; ++f) sum = __dadd_rn(sum, __dmul_rn(p.d_coefficients[f], fetch(f)));
    sum = __dadd_rn(__dmul_rn(p.calibration_a, sum), p.calibration_b);
    if (isfinite(sum)) {
      const double value = logistic(sum);
      sure = is_sure(value);
      prediction = static_cast<float>(value);
    } else {
      atomicMin(&d_flags->bad, static_cast<unsigned long long>(request) << 32 | static_cast<unsigned>(index));
    }
  } else {
    if (staged) {
      for (int f = 0; f < n_features; ++f) columns[f * kTile + thread] = fetch(f);
    }
    const auto feature_of = [&](int f) { return staged ? columns[f * kTile + thread] : fetch(f); };
    walk_trees<kKind == Kind::kPlainTrees>(p.forest, feature_of, [&](int t, unsigned value) {
      if (p.forest.n_targets > 1) {
        const waggle_forest_tree tree = p.forest.d_trees[t];
        const int of_target = p.target - tree.first_target;
        if (of_target < 0 || of_target >= tree.n_values) return;
        value += static_cast<unsigned>(of_target);
      }
      sum = __dadd_rn(sum, static_cast<double>(p.forest.d_values[value]));
    });
    prediction = transformed(p, sum, &sure);
  }
  d_prediction[slot] = prediction;
  if (!sure) {
    const unsigned at = atomicAdd(&d_flags->n_doubts, 1u);
    doubts.d_slots[at] = static_cast<int32_t>(slot);
    doubts.d_sums[at] = sum;
  }
}

// Grid: values / 256; 256 threads.
__global__ void __launch_bounds__(256)
    settle_kernel(const int32_t* d_slots, const float* d_values, int n, float* d_prediction) {
  const int i = static_cast<int>(blockIdx.x) * 256 + static_cast<int>(threadIdx.x);
  if (i < n) d_prediction[d_slots[i]] = d_values[i];
}

// ---- a batch --------------------------------------------------------------------------------------------------------

template <bool kDouble>
int32_t launch_factors(const float* d_rows, int64_t n_rows, int64_t dim, float* d_factors, cudaStream_t stream,
                       waggle_text* error) {
  if (n_rows == 0) return WAGGLE_BACKEND_OK;
  WAGGLE_LAUNCH(factors_kernel<kDouble>, dim3(static_cast<unsigned>((n_rows + kTile - 1) / kTile)), dim3(kTile), 0,
                stream, d_rows, n_rows, dim, d_factors);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t launch_factors(bool in_double, const float* d_rows, int64_t n_rows, int64_t dim, float* d_factors,
                       cudaStream_t stream, waggle_text* error) {
  return in_double ? launch_factors<true>(d_rows, n_rows, dim, d_factors, stream, error)
                   : launch_factors<false>(d_rows, n_rows, dim, d_factors, stream, error);
}

bool is_known(int32_t transform) {
  switch (transform) {
    case WAGGLE_TRANSFORM_NONE:
    case WAGGLE_TRANSFORM_LOGISTIC:
    case WAGGLE_TRANSFORM_EXP:
    case WAGGLE_TRANSFORM_COMPLEMENT:
    case WAGGLE_TRANSFORM_TWO_LOGISTIC:
    case WAGGLE_TRANSFORM_NEGATE:
      return true;
    default:
      return false;
  }
}

class Batch {
 public:
  Batch(State& state, waggle_rank_args& args) : state_(state), args_(args), choice_(state, state.stream.get()) {}

  int32_t run(waggle_text* error) {
    // More than there are cannot be chosen.
    k_ = std::clamp(*std::max_element(args_.counts, args_.counts + args_.n_requests), 1, args_.k);
    plan();
    WAGGLE_TRY(send(error));
    WAGGLE_TRY(take_memory(error));
    if (args_.filter != nullptr && args_.filter_stride == 0) {
      WAGGLE_TRY(compact(0, 1, args_.counts[0], d_items_, error));
    }
    args_.n_finished = 0;
    for (const Pass& pass : passes_) {
      if (cancelled()) return WAGGLE_BACKEND_CANCELLED;
      WAGGLE_TRY(run(pass, error));
    }
    return WAGGLE_BACKEND_OK;
  }

 private:
  struct Pass {
    int64_t first;
    int64_t count;
    int32_t most;  // candidates of one of its requests
  };

  cudaStream_t stream() const { return state_.stream.get(); }
  bool cancelled() const { return args_.is_cancelled != nullptr && args_.is_cancelled(args_.cancel_context) != 0; }
  bool has_own_bitmaps() const { return args_.filter != nullptr && args_.filter_stride != 0; }

  // Slots are requests × the most candidates of one: a pass ends where that grows beyond its bound.
  void plan() {
    for (int64_t first = 0; first < args_.n_requests;) {
      Pass pass = {first, 1, args_.counts[first]};
      while (first + pass.count < args_.n_requests && pass.count < kRequestsPerPass) {
        const int32_t most = std::max(pass.most, args_.counts[first + pass.count]);
        // (What is kept of one chosen takes four times what is kept of one candidate.)
        if ((pass.count + 1) * std::max<int64_t>(most, 4 * int64_t{k_}) > kSlotsPerPass) break;
        pass.most = most;
        ++pass.count;
      }
      passes_.push_back(pass);
      first += pass.count;
    }
  }

  int32_t send(waggle_text* error) {
    const int64_t n_requests = args_.n_requests;
    const int64_t n_items = args_.n_items;
    Upload upload;
    upload.add(&d_counts_, args_.counts, n_requests);
    if (args_.offsets != nullptr) {
      upload.add(&d_offsets_, args_.offsets, n_requests);
      upload.add(&d_lists_, args_.candidates, args_.offsets[n_requests]);
    }
    if (args_.filter != nullptr) {
      const int64_t row_bytes = (n_items + 7) / 8;
      upload.add(&d_bits_, args_.filter, args_.filter_stride * (n_requests - 1) + row_bytes);
    }
    if (args_.dim > 0) {
      upload.add(&d_queries_, args_.queries, n_requests * args_.dim);
      upload.add(&d_query_factors_, args_.query_factors, n_requests);
      if (args_.items == nullptr) upload.add(&d_embeddings_, args_.embeddings, n_items * args_.dim);
    }
    if (args_.items == nullptr && args_.n_item_features > 0) {
      upload.add(&d_item_features_, args_.item_features, n_items * args_.n_item_features);
    }
    if (args_.n_request_features > 0) {
      upload.add(&d_request_features_, args_.request_features, n_requests * args_.n_request_features);
    }
    if (args_.forest == nullptr) {
      upload.add(&d_coefficients_, args_.coefficients,
                 args_.n_item_features + args_.n_request_features + (args_.similarity_is_feature != 0 ? 1 : 0));
    }
    columns_.weights = args_.weights;
    upload.add(&columns_.d_price, args_.price, n_items);
    upload.add(&d_volume_, args_.volume, n_requests);
    upload.add(&columns_.d_fixed_spend, args_.fixed_spend, n_items);
    upload.add(&columns_.d_payout_share, args_.payout_share, n_items);
    upload.add(&columns_.d_q, args_.q, n_items);
    upload.add(&columns_.d_fit, args_.fit, n_items);
    upload.add(&columns_.d_advertiser, args_.advertiser, n_items);
    upload.add(&columns_.d_explore, args_.explore, n_items);
    upload.add(&columns_.d_goal_units, args_.goal_units, n_items);
    upload.add(&columns_.d_frequency, args_.frequency, n_items);
    upload.add(&columns_.d_mu, args_.mu, n_items);
    upload.add(&columns_.d_omega, args_.omega, n_items);
    upload.add(&columns_.d_rho, args_.rho, n_items);
    upload.add(&limits_.d_group, args_.group, n_items);
    upload.add(&limits_.d_separation, args_.separation, n_items);
    limits_.max_per_group = args_.max_per_group;
    WAGGLE_TRY(upload.send(state_, stream(), error));
    if (args_.items != nullptr) {
      d_embeddings_ = args_.items->d_embeddings.get();
      d_item_features_ = args_.items->d_features.get();
      d_item_factors_ = args_.items->d_factors.get();
    } else if (args_.dim > 0 && args_.metric == WAGGLE_METRIC_COSINE) {
      float* d_factors = nullptr;
      WAGGLE_TRY(state_.scratch.take(&d_factors, n_items, error));
      WAGGLE_TRY(
          launch_factors(args_.sums_in_double != 0, d_embeddings_, n_items, args_.dim, d_factors, stream(), error));
      d_item_factors_ = d_factors;
    }
    return WAGGLE_BACKEND_OK;
  }

  int32_t take_memory(waggle_text* error) {
    int64_t slots = 0;
    int64_t requests = 0;
    int64_t most = 0;
    int64_t lists = 0;
    for (const Pass& pass : passes_) {
      slots = std::max(slots, pass.count * pass.most);
      requests = std::max(requests, pass.count);
      most = std::max<int64_t>(most, pass.most);
      lists = std::max(lists, pass.count * Choice::lists_of(pass.most));
    }
    if (args_.filter != nullptr) {
      WAGGLE_TRY(state_.scratch.take(&d_items_, has_own_bitmaps() ? slots : int64_t{args_.counts[0]}, error));
    }
    if (args_.dim > 0) WAGGLE_TRY(state_.scratch.take(&d_similarity_, slots, error));
    WAGGLE_TRY(state_.scratch.take(&d_prediction_, slots, error));
    WAGGLE_TRY(state_.scratch.take(&doubts_.d_slots, slots, error));
    WAGGLE_TRY(state_.scratch.take(&doubts_.d_sums, slots, error));
    return choice_.prepare(requests, most, lists, k_, limits_.any(), error);
  }

  int32_t compact(int64_t first, int64_t count, int64_t stride, int32_t* d_items, waggle_text* error) {
    WAGGLE_LAUNCH(compact_kernel, dim3(static_cast<unsigned>(count)), dim3(kCompactThreads), 0, stream(),
                  d_bits_ + first * args_.filter_stride, args_.filter_stride, args_.n_items, stride, d_items);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    return WAGGLE_BACKEND_OK;
  }

  int32_t run(const Pass& pass, waggle_text* error) {
    Candidates candidates;
    candidates.n_requests = static_cast<int32_t>(pass.count);
    candidates.most = pass.most;
    candidates.d_counts = d_counts_ + pass.first;
    if (args_.offsets != nullptr) {
      candidates.d_items = d_lists_;
      candidates.d_offsets = d_offsets_ + pass.first;
    } else if (args_.filter != nullptr) {
      candidates.d_items = d_items_;
      if (has_own_bitmaps()) {
        candidates.stride = pass.most;
        WAGGLE_TRY(compact(pass.first, pass.count, pass.most, d_items_, error));
      }
    }
    ScoreColumns columns = columns_;
    columns.d_prediction = d_prediction_;
    columns.d_similarity = d_similarity_;
    columns.d_volume = d_volume_ != nullptr ? d_volume_ + pass.first : nullptr;
    WAGGLE_TRY(choice_.begin(error));
    if (pass.most > 0) {
      if (args_.dim > 0) WAGGLE_TRY(compare(pass, candidates, error));
      WAGGLE_TRY(predict(pass, candidates, error));
    }
    WAGGLE_TRY(choice_.round(candidates, columns, limits_, true, error));
    if (choice_.h().flags->bad != kNoKey) return not_finite(pass, error);
    if (const int32_t n_doubts = static_cast<int32_t>(choice_.h().flags->n_doubts); n_doubts > 0) {
      WAGGLE_TRY(settle(n_doubts, error));
      WAGGLE_TRY(choice_.begin(error));
      WAGGLE_TRY(choice_.round(candidates, columns, limits_, true, error));
      if (choice_.h().flags->bad != kNoKey) return not_finite(pass, error);
    }
    while (choice_.h().flags->more != 0) {
      if (cancelled()) return WAGGLE_BACKEND_CANCELLED;
      WAGGLE_TRY(choice_.round(candidates, columns, limits_, false, error));
    }
    hand_over(pass);
    return WAGGLE_BACKEND_OK;
  }

  void hand_over(const Pass& pass) {
    const Answer& answer = choice_.h();
    std::copy_n(answer.n_selected, pass.count, args_.n_selected + pass.first);
    const auto fill = [&](const auto* from, auto* to, int64_t width, auto pad) {
      for (int64_t r = 0; r < pass.count; ++r) {
        auto* row = to + (pass.first + r) * args_.k * width;
        std::fill(std::copy_n(from + r * k_ * width, k_ * width, row), row + args_.k * width, pad);
      }
    };
    fill(answer.items, args_.chosen, 1, -1);
    fill(answer.scores, args_.scores, 1, -std::numeric_limits<double>::infinity());
    fill(answer.terms, args_.terms, kTerms, 0.0);
    fill(answer.predictions, args_.predictions, 1, 0.0f);
  }

  int32_t not_finite(const Pass& pass, waggle_text* error) const {
    return fail(error, WAGGLE_BACKEND_NOT_FINITE, "a number of request %llu is not finite",
                static_cast<unsigned long long>(pass.first) + (choice_.h().flags->bad >> 32));
  }

  static unsigned tiles_of(const Pass& pass) { return static_cast<unsigned>((int64_t{pass.most} + kTile - 1) / kTile); }

  template <int kTogether, bool kDouble, bool kL2>
  int32_t launch_similarity(const Pass& pass, const Candidates& candidates, const Similarity& s, waggle_text* error) {
    const dim3 grid(tiles_of(pass), static_cast<unsigned>((pass.count + kTogether - 1) / kTogether));
    WAGGLE_LAUNCH((similarity_kernel<kTogether, kDouble, kL2>), grid, dim3(kTile), 0, stream(), candidates, s,
                  d_similarity_, choice_.d().flags);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    return WAGGLE_BACKEND_OK;
  }

  int32_t compare(const Pass& pass, const Candidates& candidates, waggle_text* error) {
    const Similarity s = {args_.metric,
                          args_.dim,
                          d_queries_ + pass.first * args_.dim,
                          d_query_factors_ != nullptr ? d_query_factors_ + pass.first : nullptr,
                          d_embeddings_,
                          d_item_factors_};
    return args_.metric == WAGGLE_METRIC_L2 ? compare_by<true>(pass, candidates, s, error)
                                            : compare_by<false>(pass, candidates, s, error);
  }

  template <bool kL2>
  int32_t compare_by(const Pass& pass, const Candidates& candidates, const Similarity& s, waggle_text* error) {
    const bool together = args_.offsets == nullptr && !has_own_bitmaps();
    if (args_.sums_in_double != 0) return launch_similarity<1, true, kL2>(pass, candidates, s, error);
    return together ? launch_similarity<kRequestsTogether, false, kL2>(pass, candidates, s, error)
                    : launch_similarity<1, false, kL2>(pass, candidates, s, error);
  }

  template <Kind kKind>
  int32_t launch_predict(const Pass& pass, const Candidates& candidates, const Prediction& p, int shared,
                         waggle_text* error) {
    if (shared > 0) {
      WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&predict_candidates_kernel<kKind>), kMaxSharedBytes,
                                     error));
    }
    const dim3 grid(tiles_of(pass), static_cast<unsigned>(pass.count));
    WAGGLE_LAUNCH(predict_candidates_kernel<kKind>, grid, dim3(kTile), static_cast<size_t>(shared), stream(),
                  candidates, p, shared > 0, d_prediction_, doubts_, choice_.d().flags);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    return WAGGLE_BACKEND_OK;
  }

  int32_t predict(const Pass& pass, const Candidates& candidates, waggle_text* error) {
    Prediction p = {};
    p.n_item = static_cast<int>(args_.n_item_features);
    p.n_request = static_cast<int>(args_.n_request_features);
    p.d_item_features = d_item_features_;
    p.d_request_features = d_request_features_ + pass.first * args_.n_request_features;
    p.d_similarity = args_.similarity_is_feature != 0 ? d_similarity_ : nullptr;
    if (args_.forest == nullptr) {
      p.d_coefficients = d_coefficients_;
      p.intercept = args_.intercept;
      p.calibration_a = args_.calibration_a;
      p.calibration_b = args_.calibration_b;
      return launch_predict<Kind::kLinear>(pass, candidates, p, 0, error);
    }
    p.forest = forest_view(*args_.forest);
    p.target = args_.target;
    p.transform = args_.transform;
    p.output = args_.output;
    p.base = args_.base;
    p.scale = args_.scale;
    p.parameter = args_.transform_parameter;
    const int64_t wanted = int64_t{p.forest.n_features} * kTile * 4;
    const int shared = wanted <= kMaxSharedBytes ? static_cast<int>(wanted) : 0;
    return args_.forest->is_plain ? launch_predict<Kind::kPlainTrees>(pass, candidates, p, shared, error)
                                  : launch_predict<Kind::kTrees>(pass, candidates, p, shared, error);
  }

  // The host makes the predictions that the device is not sure of.
  int32_t settle(int32_t n, waggle_text* error) {
    args_.n_finished += n;
    sums_.resize(static_cast<size_t>(n));
    values_.resize(static_cast<size_t>(n));
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(sums_.data(), doubts_.d_sums, sums_.size() * sizeof(double), cudaMemcpyDeviceToHost, stream()));
    WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream()));
    if (args_.finish == nullptr) return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the host finishes no predictions");
    WAGGLE_TRY(args_.finish(args_.finish_context, n, sums_.data(), values_.data()));
    // The sums are read; their place takes the values.
    float* d_values = reinterpret_cast<float*>(doubts_.d_sums);
    WAGGLE_CUDA_CHECK(
        cudaMemcpyAsync(d_values, values_.data(), values_.size() * sizeof(float), cudaMemcpyHostToDevice, stream()));
    WAGGLE_LAUNCH(settle_kernel, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, stream(), doubts_.d_slots,
                  d_values, n, d_prediction_);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    return WAGGLE_BACKEND_OK;
  }

  State& state_;
  waggle_rank_args& args_;
  Choice choice_;
  int32_t k_ = 0;
  std::vector<Pass> passes_;
  const int32_t* d_counts_ = nullptr;
  const int32_t* d_offsets_ = nullptr;
  const int32_t* d_lists_ = nullptr;
  const uint8_t* d_bits_ = nullptr;
  const float* d_queries_ = nullptr;
  const float* d_query_factors_ = nullptr;
  const float* d_embeddings_ = nullptr;
  const float* d_item_factors_ = nullptr;
  const float* d_item_features_ = nullptr;
  const float* d_request_features_ = nullptr;
  const float* d_volume_ = nullptr;
  const double* d_coefficients_ = nullptr;
  ScoreColumns columns_;
  Limits limits_;
  int32_t* d_items_ = nullptr;  // out of bitmaps
  float* d_similarity_ = nullptr;
  float* d_prediction_ = nullptr;
  Doubts doubts_ = {};
  std::vector<double> sums_;
  std::vector<float> values_;
};

}  // namespace

int32_t open_rank_items(State& state, waggle_rank_items_args& args, std::unique_ptr<waggle_rank_items>* out,
                        waggle_text* error) {
  if (args.n_items < 0 || args.n_items > std::numeric_limits<int32_t>::max() || args.dim < 0 || args.n_features < 0) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  WAGGLE_TRY(state.second.open(error));
  const cudaStream_t stream = state.stream.get();
  auto items = std::make_unique<waggle_rank_items>();
  const FinishedStream finished(stream);  // before the items go, where this fails
  items->n_items = args.n_items;
  items->dim = args.dim;
  items->n_features = args.n_features;
  const auto copy = [&](DeviceArray<float>& to, const float* from, int64_t width) -> int32_t {
    const size_t values = static_cast<size_t>(args.n_items) * static_cast<size_t>(width);
    WAGGLE_TRY(to.allocate(values, error));
    return send_in_pieces(state, to.get(), from, values * sizeof(float), args.is_cancelled, args.cancel_context, error);
  };
  WAGGLE_TRY(copy(items->d_embeddings, args.embeddings, args.dim));
  WAGGLE_TRY(copy(items->d_features, args.features, args.n_features));
  if (args.dim > 0) {
    WAGGLE_TRY(items->d_factors.allocate(static_cast<size_t>(args.n_items), error));
    WAGGLE_TRY(launch_factors(args.sums_in_double != 0, items->d_embeddings.get(), args.n_items, args.dim,
                              items->d_factors.get(), stream, error));
  }
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream));
  args.device_bytes = static_cast<uint64_t>(args.n_items) * 4 *
                      static_cast<uint64_t>(args.dim + args.n_features + (args.dim > 0 ? 1 : 0));
  *out = std::move(items);
  return WAGGLE_BACKEND_OK;
}

int32_t rank_batch_on_device(State& state, waggle_rank_args& args, waggle_text* error) {
  if (args.k < 1 || args.n_requests < 1 || args.n_items < 0 || args.n_items > std::numeric_limits<int32_t>::max()) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  if (args.forest != nullptr && !is_known(args.transform)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "transform %d", args.transform);
  }
  if (args.items != nullptr && (args.items->n_items != args.n_items || args.items->dim != args.dim ||
                                args.items->n_features != args.n_item_features)) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "the items on the device are others");
  }
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  state.scratch.reset();
  state.staging.reset();
  const FinishedStream finished(state.stream.get());
  return Batch(state, args).run(error);
}

}  // namespace waggle::cuda
