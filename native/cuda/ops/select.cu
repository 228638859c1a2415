#include "cuda/ops/select.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "cuda/check.cuh"
#include "cuda/device.cuh"

namespace waggle::cuda {

namespace {

constexpr int kSortable = 8192;
constexpr int kSelectThreads = 512;
constexpr int kSelectShared = kSortable * 8;
constexpr int kExactThreads = 256;

static_assert(kListed + kMaxK <= kSortable, "the list and the best so far are sorted together");

__device__ inline int power_of_two_from(int n) {
  int size = 1;
  while (size < n) size *= 2;
  return size;
}

__device__ inline float score_of_word(uint32_t word) {
  return word == 0xffffffffu ? -INFINITY : score_of_key(static_cast<unsigned long long>(word) << 32);
}

__device__ inline int n_listed(const Select& select, const Dense& dense, int query) {
  return dense.n_rows > 0 ? dense.n_rows : static_cast<int>(min(select.d_counts[query], 0x7fffffffu));
}

// The rank-th lowest key's upper word, where the score is; all ones where there are fewer keys. `missing` of its ties
// belong to the rank lowest. All threads of the block call it, after a barrier behind the last write of keys.
struct Ranked {
  uint32_t word;
  int missing;
};
__device__ inline Ranked rank_keys(const unsigned long long* keys, int n, int rank) {
  __shared__ unsigned counts[256];
  __shared__ unsigned chosen[2];
  uint32_t prefix = 0;
  uint32_t mask = 0;
  unsigned missing = static_cast<unsigned>(rank);
  if (n < rank) return {0xffffffffu, rank};
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) counts[i] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
      const uint32_t word = static_cast<uint32_t>(keys[i] >> 32);
      if ((word & mask) == prefix) atomicAdd(&counts[word >> shift & 255u], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const unsigned lane = threadIdx.x;
      unsigned own = 0;
      for (unsigned i = 0; i < 8; ++i) own += counts[8 * lane + i];
      unsigned before = own;
      for (unsigned step = 1; step < 32; step *= 2) {
        const unsigned other = __shfl_up_sync(kFullWarp, before, step);
        if (lane >= step) before += other;
      }
      before -= own;
      if (before < missing && missing <= before + own) {
        unsigned digit = 8 * lane;
        while (before + counts[digit] < missing) before += counts[digit++];
        chosen[0] = digit;
        chosen[1] = missing - before;
      }
    }
    __syncthreads();
    prefix |= chosen[0] << shift;
    mask |= 255u << shift;
    missing = chosen[1];
    __syncthreads();  // before the counts are cleared
  }
  return {prefix, static_cast<int>(missing)};
}

// Raises the flag for a list that lost rows. All threads of the block get the same answer.
__device__ inline bool overflowed(const Select& select, int query, int n) {
  __syncthreads();  // everybody has read the count
  if (n <= kListed) return false;
  if (threadIdx.x == 0) {
    atomicExch(select.d_overflow, 1);
    select.d_counts[query] = 0;
  }
  return true;
}

__device__ inline float lower_bound_of(const Select& select, unsigned long long entry, const RowFacts& q) {
  const RowFacts r = select.matrix.d_facts[row_of_entry(entry)];
  const float lower =
      scanned_score(select.metric, product_of_entry(entry), r, q) - half_width(select.metric, r, q, select.roundoff);
  return lower >= -FLT_MAX && lower <= FLT_MAX ? lower : -FLT_MAX;
}

__device__ inline float upper_bound_of(const Select& select, unsigned long long entry, const RowFacts& q) {
  const float lower = lower_bound_of(select, entry, q);
  const float width = half_width(select.metric, select.matrix.d_facts[row_of_entry(entry)], q, select.roundoff);
  return lower + 2 * width + 1e-6f * (fabsf(lower) + width);
}

// Grid: one block per query; 512 threads; 64 KiB shared; bound by shared memory.
__global__ void __launch_bounds__(kSelectThreads) narrow_kernel(const Select select, const Dense dense) {
  WAGGLE_DYNAMIC_SHARED(shared);
  unsigned long long* keys = reinterpret_cast<unsigned long long*>(shared);
  __shared__ int n_first;
  __shared__ int n_tied;
  __shared__ int n_others;
  const int query = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int n = n_listed(select, dense, query);
  if (overflowed(select, query, n) || n == 0) return;
  unsigned long long* d_list = select.d_lists + static_cast<int64_t>(query) * kListed;
  const RowFacts q = select.d_query_facts[query];
  const auto is_missing = [&](unsigned long long entry) {
    return dense.n_rows > 0 && !is_allowed(dense.d_filter, dense.filter_stride, query, row_of_entry(entry));
  };
  for (int i = thread; i < n; i += kSelectThreads) {
    const unsigned long long entry = d_list[i];
    keys[i] = is_missing(entry) ? kNoKey : key_of(lower_bound_of(select, entry, q), row_of_entry(entry));
  }
  if (thread == 0) {
    n_first = 0;
    n_tied = 0;
    n_others = 0;
  }
  __syncthreads();
  const Ranked last = rank_keys(keys, n, select.k);
  float threshold = score_of_word(last.word);
  const unsigned long long last_best = select.d_best[static_cast<int64_t>(query) * select.k + select.k - 1];
  if (last_best != kNoKey) threshold = fmaxf(threshold, score_of_key(last_best));
  // Who is among the k best is read from the keys that were ranked: computed again, a bound may differ in its last bit.
  static_assert(kListed <= 32 * kSelectThreads, "a bit for each of a thread's entries");
  unsigned stays = 0;
  unsigned is_first = 0;
  for (int i = thread, u = 0; i < n; i += kSelectThreads, ++u) {
    if (keys[i] == kNoKey) continue;
    const uint32_t word = static_cast<uint32_t>(keys[i] >> 32);
    stays |= 1u << u;
    if (word < last.word || (word == last.word && atomicAdd(&n_tied, 1) < last.missing)) is_first |= 1u << u;
  }
  __syncthreads();
  // The keys are read no more: their place takes the entries that stay, the k best first, the others behind them.
  for (int i = thread, u = 0; i < n; i += kSelectThreads, ++u) {
    if ((stays >> u & 1u) == 0) continue;
    const unsigned long long entry = d_list[i];
    if ((is_first >> u & 1u) != 0) {
      keys[atomicAdd(&n_first, 1)] = entry;
    } else if (!(upper_bound_of(select, entry, q) < threshold)) {
      keys[select.k + atomicAdd(&n_others, 1)] = entry;
    }
  }
  __syncthreads();
  // Others exist only behind k first ones.
  const int kept = n_first + n_others;
  for (int i = thread; i < kept; i += kSelectThreads) d_list[i] = keys[i];
  if (thread == 0) {
    select.d_counts[query] = static_cast<unsigned>(kept);
    select.d_tests[query] = query_test(select.metric, q, threshold);
  }
}

// Grid: one block per query; 512 threads; 64 KiB shared.
__global__ void __launch_bounds__(kSelectThreads) guess_kernel(const Select select, const Dense dense, int rank) {
  WAGGLE_DYNAMIC_SHARED(shared);
  unsigned long long* keys = reinterpret_cast<unsigned long long*>(shared);
  const int query = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int n = n_listed(select, dense, query);
  if (overflowed(select, query, n)) return;
  const RowFacts q = select.d_query_facts[query];
  for (int i = thread; i < n; i += kSelectThreads) {
    const unsigned long long entry = select.d_lists[static_cast<int64_t>(query) * kListed + i];
    const uint32_t row = row_of_entry(entry);
    const bool missing = dense.n_rows > 0 && !is_allowed(dense.d_filter, dense.filter_stride, query, row);
    const float score = scanned_score(select.metric, product_of_entry(entry), select.matrix.d_facts[row], q);
    keys[i] = !missing && isfinite(score) ? key_of(score, row) : kNoKey;
  }
  __syncthreads();
  const float threshold = score_of_word(rank_keys(keys, n, rank).word);
  if (thread == 0) {
    select.d_counts[query] = 0;
    select.d_guesses[query] = threshold;
    select.d_tests[query] = query_test(select.metric, q, threshold);
  }
}

// Exact score of a pair by one warp: products and sums in double, rounded once. Every lane gets it.
__device__ inline float exact_score(int metric, const float* d_q, const float* d_x, int64_t dim) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double dot = 0;
  double q2 = 0;
  double x2 = 0;
  for (int64_t i = lane; i < dim; i += 32) {
    const double q = d_q[i];
    const double x = d_x[i];
    if (metric == WAGGLE_METRIC_L2) {
      dot += (q - x) * (q - x);
    } else {
      dot += q * x;
    }
    if (metric == WAGGLE_METRIC_COSINE) {
      q2 += q * q;
      x2 += x * x;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    dot += __shfl_xor_sync(kFullWarp, dot, step);
    q2 += __shfl_xor_sync(kFullWarp, q2, step);
    x2 += __shfl_xor_sync(kFullWarp, x2, step);
  }
  if (metric == WAGGLE_METRIC_L2) return static_cast<float>(-dot);
  if (metric == WAGGLE_METRIC_COSINE) {
    const double norms = sqrt(q2) * sqrt(x2);
    return norms > 0 ? static_cast<float>(dot / norms) : 0.0f;
  }
  return static_cast<float>(dot);
}

// Entries become keys of exact scores: of each list the first k, or else the others, of which those that the first
// ones' exact scores exclude become no key instead. Grid: (blocks per query, queries); 256 threads, a warp per row;
// bound by memory: each row that is scored is read once.
template <bool kFirst>
__global__ void __launch_bounds__(kExactThreads) exact_kernel(const Select select) {
  const int query = static_cast<int>(blockIdx.y);
  const int n = static_cast<int>(min(select.d_counts[query], static_cast<unsigned>(kListed)));
  const int begin = kFirst ? 0 : select.k;
  const int end = kFirst ? min(n, select.k) : n;
  unsigned long long* d_list = select.d_lists + static_cast<int64_t>(query) * kListed;
  constexpr int kWarps = kExactThreads / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int i = begin + static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (i >= end) return;
  const int64_t dim = select.matrix.dim;
  const float* d_query = select.d_queries + static_cast<int64_t>(query) * dim;
  const RowFacts q = select.d_query_facts[query];
  float threshold = -INFINITY;
  if constexpr (!kFirst) {
    // The last of k exact scores is one that the answer's last certainly reaches.
    unsigned long long last = 0;
    for (int j = lane; j < select.k; j += 32) last = max(last, d_list[j]);
    for (int step = 16; step > 0; step /= 2) last = max(last, __shfl_xor_sync(kFullWarp, last, step));
    const unsigned long long best = select.d_best[static_cast<int64_t>(query) * select.k + select.k - 1];
    last = min(last, best);
    if (last != kNoKey) threshold = score_of_key(last);
  }
  unsigned scored = 0;
  for (; i < end; i += static_cast<int>(gridDim.x) * kWarps) {
    const unsigned long long entry = d_list[i];
    if (!kFirst && upper_bound_of(select, entry, q) < threshold) {
      __syncwarp();  // every lane has read the entry
      if (lane == 0) d_list[i] = kNoKey;
      continue;
    }
    const uint32_t scanned = row_of_entry(entry);
    const uint32_t row =
        select.d_row_numbers != nullptr ? static_cast<uint32_t>(select.d_row_numbers[scanned]) : scanned;
    const float score = exact_score(select.metric, d_query, select.d_exact + static_cast<int64_t>(row) * dim, dim);
    ++scored;
    __syncwarp();
    if (lane != 0) continue;
    if (isfinite(score)) {
      d_list[i] = key_of(score, row);
    } else {
      d_list[i] = kNoKey;
      atomicMin(select.d_bad_row, static_cast<unsigned long long>(row));
    }
  }
  if (lane == 0 && scored > 0) atomicAdd(select.d_rescored, static_cast<unsigned long long>(scored));
}

// Keys, or entries whose scanned score counts, into the best. Grid: one block per query; 512 threads; 64 KiB shared.
template <bool kScanned>
__global__ void __launch_bounds__(kSelectThreads) merge_kernel(const Select select, const Dense dense) {
  WAGGLE_DYNAMIC_SHARED(shared);
  unsigned long long* keys = reinterpret_cast<unsigned long long*>(shared);
  __shared__ int n_keys;
  const int query = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int n = n_listed(select, dense, query);
  if (overflowed(select, query, n)) return;
  const unsigned long long* d_list = select.d_lists + static_cast<int64_t>(query) * kListed;
  unsigned long long* d_best = select.d_best + static_cast<int64_t>(query) * select.k;
  const RowFacts q = select.d_query_facts[query];
  if (thread == 0) n_keys = 0;
  __syncthreads();
  for (int i = thread; i < select.k; i += kSelectThreads) {
    if (d_best[i] != kNoKey) keys[atomicAdd(&n_keys, 1)] = d_best[i];
  }
  for (int i = thread; i < n; i += kSelectThreads) {
    unsigned long long key = d_list[i];
    if constexpr (kScanned) {
      const uint32_t scanned = row_of_entry(key);
      const bool missing = dense.n_rows > 0 && !is_allowed(dense.d_filter, dense.filter_stride, query, scanned);
      const uint32_t row =
          select.d_row_numbers != nullptr ? static_cast<uint32_t>(select.d_row_numbers[scanned]) : scanned;
      const float score = scanned_score(select.metric, product_of_entry(key), select.matrix.d_facts[scanned], q);
      key = !missing && isfinite(score) ? key_of(score, row) : kNoKey;
      if (!missing && !isfinite(score)) atomicMin(select.d_bad_row, static_cast<unsigned long long>(row));
    }
    if (key != kNoKey) keys[atomicAdd(&n_keys, 1)] = key;
  }
  __syncthreads();
  const int total = n_keys;
  const int merged = power_of_two_from(max(total, 1));
  for (int i = total + thread; i < merged; i += kSelectThreads) keys[i] = kNoKey;
  __syncthreads();
  sort_keys(keys, merged);
  for (int i = thread; i < select.k; i += kSelectThreads) d_best[i] = i < total ? keys[i] : kNoKey;
  if (thread == 0) {
    select.d_counts[query] = 0;
    const float last = total >= select.k ? score_of_key(keys[select.k - 1]) : -INFINITY;
    select.d_tests[query] = query_test(select.metric, q, last);
    // Rows below the guess were not written down. Unless k rows reach it, some of those belong to the answer.
    if (select.d_guesses != nullptr && last < select.d_guesses[query]) atomicExch(select.d_overflow, 1);
  }
}

// Grid: queries / 256.
__global__ void doubt_kernel(MatrixView matrix, const RowFacts* d_query_facts, int n_queries, int metric, int k,
                             float roundoff, const unsigned long long* d_best, bool open, QueryTest* d_tests,
                             unsigned* d_counts) {
  const int query = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (query >= n_queries) return;
  const RowFacts q = d_query_facts[query];
  float lowest = INFINITY;
  for (int i = 0; i < k; ++i) {
    const unsigned long long key = d_best[static_cast<int64_t>(query) * k + i];
    if (key == kNoKey) {
      lowest = INFINITY;  // fewer than k rows: all of them are in the answer, none is in doubt
      break;
    }
    const float width = half_width(metric, matrix.d_facts[row_of_key(key)], q, roundoff);
    lowest = fminf(lowest, score_of_key(key) - width);
  }
  d_tests[query] = query_test(metric, q, lowest == INFINITY ? -INFINITY : lowest);
  if (lowest == INFINITY && !open) d_tests[query].t = INFINITY;
  d_counts[query] = 0;
}

}  // namespace

int32_t launch_guess(const Select& select, const Dense& dense, int rank, cudaStream_t stream, waggle_text* error) {
  WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&guess_kernel), kSelectShared, error));
  WAGGLE_LAUNCH(guess_kernel, dim3(static_cast<unsigned>(select.n_queries)), dim3(kSelectThreads),
                static_cast<size_t>(kSelectShared), stream, select, dense, rank);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t launch_narrow(const Select& select, const Dense& dense, cudaStream_t stream, waggle_text* error) {
  WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&narrow_kernel), kSelectShared, error));
  WAGGLE_LAUNCH(narrow_kernel, dim3(static_cast<unsigned>(select.n_queries)), dim3(kSelectThreads),
                static_cast<size_t>(kSelectShared), stream, select, dense);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t launch_merge(const Select& select, const Dense& dense, cudaStream_t stream, waggle_text* error) {
  const dim3 per_query(static_cast<unsigned>(select.n_queries));
  if (select.d_exact == nullptr) {
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&merge_kernel<true>), kSelectShared, error));
    WAGGLE_LAUNCH(merge_kernel<true>, per_query, dim3(kSelectThreads), static_cast<size_t>(kSelectShared), stream,
                  select, dense);
  } else {
    const dim3 grid(static_cast<unsigned>(std::clamp(1024 / select.n_queries, 2, 64)),
                    static_cast<unsigned>(select.n_queries));
    WAGGLE_LAUNCH(exact_kernel<true>, grid, dim3(kExactThreads), 0, stream, select);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_LAUNCH(exact_kernel<false>, grid, dim3(kExactThreads), 0, stream, select);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    WAGGLE_TRY(allow_shared_memory(reinterpret_cast<const void*>(&merge_kernel<false>), kSelectShared, error));
    WAGGLE_LAUNCH(merge_kernel<false>, per_query, dim3(kSelectThreads), static_cast<size_t>(kSelectShared), stream,
                  select, Dense{});
  }
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

int32_t launch_doubt(const Select& select, const MatrixView& original, bool open, cudaStream_t stream,
                     waggle_text* error) {
  const int n = select.n_queries;
  WAGGLE_LAUNCH(doubt_kernel, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, stream, original,
                select.d_query_facts, n, select.metric, select.k, select.roundoff, select.d_best, open, select.d_tests,
                select.d_counts);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
