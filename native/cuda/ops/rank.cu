// Lists of the best: each block scores a segment of a request's candidates, sorts it in shared memory and passes on the
// best; those lists are merged, several at a time, until one is left. From it the greedy choice is made. Where limits
// eat up the list, the next round begins behind its last entry.
#include "cuda/ops/rank.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/check.cuh"
#include "cuda/device.cuh"
#include "cuda/ops/upload.hpp"

namespace waggle::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSegment = 2048;           // candidates a block sorts
constexpr int kMostKept = kSegment / 2;  // so that at least two lists merge into one
constexpr int64_t kMostEntries = int64_t{1} << 23;
constexpr int kEntryBytes = 12;  // a key and an index
constexpr int kSortShared = kSegment * kEntryBytes;
constexpr int kChooseThreads = 128;
constexpr int32_t kNoIndex = 0x7fffffff;

__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }

// As cpu/score_terms.hpp; returns the sum.
__device__ inline double score_terms(const ScoreColumns& c, int request, int64_t slot, int32_t item,
                                     double terms[kTerms]) {
  const double q = c.d_q != nullptr ? c.d_q[item] : 1.0f;
  float spend_now;
  float payout_now;
  if (c.d_spend != nullptr) {
    spend_now = c.d_spend[item];
    payout_now = c.d_payout[item];
  } else {
    const float volume = c.d_volume != nullptr ? c.d_volume[request] : 1.0f;
    spend_now = __fmul_rn(__fmul_rn(c.d_prediction[slot], c.d_price[item]), volume);
    if (c.d_fixed_spend != nullptr) spend_now = __fadd_rn(spend_now, c.d_fixed_spend[item]);
    payout_now = c.d_payout_share != nullptr ? __fmul_rn(spend_now, c.d_payout_share[item]) : 0.0f;
  }
  const double spend = spend_now;
  const double payout = payout_now;
  const double fit = c.d_fit != nullptr ? c.d_fit[item] : c.d_similarity != nullptr ? c.d_similarity[slot] : 0.0f;
  const waggle_score_weights& w = c.weights;
  const auto value = [item](const float* d_column) { return static_cast<double>(d_column[item]); };
  terms[0] = times(q, times(w.margin, spend));
  terms[1] = times(q, times(w.fit, fit));
  terms[2] = c.d_advertiser != nullptr ? times(q, times(w.advertiser, value(c.d_advertiser))) : 0.0;
  terms[3] = times(q, times(w.payout, payout));
  terms[4] = c.d_mu != nullptr ? -times(q, times(spend, value(c.d_mu))) : 0.0;
  terms[5] = c.d_goal_units != nullptr && c.d_omega != nullptr
                 ? times(q, times(value(c.d_goal_units), value(c.d_omega)))
                 : 0.0;
  terms[6] = c.d_rho != nullptr ? times(q, times(payout, value(c.d_rho))) : 0.0;
  terms[7] = c.d_explore != nullptr ? times(q, times(w.explore, value(c.d_explore))) : 0.0;
  terms[8] = c.d_frequency != nullptr ? -value(c.d_frequency) : 0.0;
  double sum = terms[0];
#pragma unroll
  for (int t = 1; t < kTerms; ++t) sum = __dadd_rn(sum, terms[t]);
  return sum;
}

// Ascending keys: higher score first. −0 counts as +0.
__device__ inline unsigned long long key_of_score(double score) {
  unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(__dadd_rn(score, 0.0)));
  bits = (bits >> 63) != 0 ? ~bits : bits | (1ull << 63);
  return ~bits;
}

struct Entries {
  unsigned long long* keys;
  int32_t* indices;
};

__device__ inline bool comes_before(unsigned long long key, int32_t index, unsigned long long other_key,
                                    int32_t other_index) {
  return key < other_key || (key == other_key && index < other_index);
}

// Sorts the first `size`, a power of two; all threads of the block call it.
__device__ inline void sort_entries(const Entries& entries, int size) {
  for (int span = 2; span <= size; span *= 2) {
    for (int stride = span / 2; stride > 0; stride /= 2) {
      for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = 2 * pair - (pair & (stride - 1));
        const int high = low + stride;
        const bool ascending = (low & span) == 0;
        const unsigned long long key = entries.keys[low];
        const int32_t index = entries.indices[low];
        const unsigned long long other_key = entries.keys[high];
        const int32_t other_index = entries.indices[high];
        if (comes_before(other_key, other_index, key, index) == ascending) {
          entries.keys[low] = other_key;
          entries.indices[low] = other_index;
          entries.keys[high] = key;
          entries.indices[high] = index;
        }
      }
      __syncthreads();
    }
  }
}

__device__ inline int power_of_two_from(int n) {
  int size = 1;
  while (size < n) size *= 2;
  return size;
}

__device__ inline Entries entries_in(unsigned char* shared) {
  return {reinterpret_cast<unsigned long long*>(shared),
          reinterpret_cast<int32_t*>(shared + kSegment * sizeof(unsigned long long))};
}

// The best of the `size` sorted entries as list `list` of the request.
__device__ inline void pass_on(const Entries& entries, int size, int64_t list, int kept, unsigned long long* d_keys,
                               int32_t* d_indices) {
  for (int i = static_cast<int>(threadIdx.x); i < kept; i += kThreads) {
    d_keys[list * kept + i] = i < size ? entries.keys[i] : kNoKey;
    d_indices[list * kept + i] = i < size ? entries.indices[i] : kNoIndex;
  }
}

// Grid: (segments of 2,048 candidates, requests); 256 threads; 24 KiB shared; bound by the columns' way from L2 and by
// the sort. d_last_keys: null in the first round.
__global__ void __launch_bounds__(kThreads)
    segment_kernel(const Candidates candidates, const ScoreColumns columns, int kept,
                   const unsigned long long* d_last_keys, const int32_t* d_last_indices, const int32_t* d_done,
                   unsigned long long* d_keys, int32_t* d_indices, ChoiceFlags* d_flags) {
  WAGGLE_DYNAMIC_SHARED(shared);
  const Entries entries = entries_in(shared);
  const int request = static_cast<int>(blockIdx.y);
  if (d_last_keys != nullptr && d_done[request] != 0) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSegment;
  const int64_t left = candidates.d_counts[request] - begin;
  const int here = static_cast<int>(left < 0 ? 0 : left < kSegment ? left : kSegment);
  const int size = power_of_two_from(here);
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    unsigned long long key = kNoKey;
    int32_t index = kNoIndex;
    if (i < here) {
      const int candidate = static_cast<int>(begin) + i;
      double terms[kTerms];
      const double score = score_terms(columns, request, candidates.slot_of(request, candidate),
                                       candidates.item_of(request, candidate), terms);
      if (!isfinite(score)) {
        atomicMin(&d_flags->bad, static_cast<unsigned long long>(request) << 32 | static_cast<unsigned>(candidate));
      } else if (candidates.d_filter == nullptr ||
                 ((candidates.d_filter[candidate >> 3] >> (candidate & 7)) & 1) != 0) {
        key = key_of_score(score);
        index = candidate;
        if (d_last_keys != nullptr && !comes_before(d_last_keys[request], d_last_indices[request], key, index)) {
          key = kNoKey;
          index = kNoIndex;
        }
      }
    }
    entries.keys[i] = key;
    entries.indices[i] = index;
  }
  __syncthreads();
  sort_entries(entries, size);
  pass_on(entries, here == 0 ? 0 : size, static_cast<int64_t>(request) * gridDim.x + blockIdx.x, kept, d_keys,
          d_indices);
}

// Grid: (lists that come out, requests); 256 threads; 24 KiB shared. Up to kSegment / kept of the n_lists of a request
// become one.
__global__ void __launch_bounds__(kThreads)
    merge_kernel(int n_lists, int kept, const int32_t* d_done, const unsigned long long* d_from_keys,
                 const int32_t* d_from_indices, unsigned long long* d_keys, int32_t* d_indices) {
  WAGGLE_DYNAMIC_SHARED(shared);
  const Entries entries = entries_in(shared);
  const int request = static_cast<int>(blockIdx.y);
  if (d_done[request] != 0) return;
  const int fan = kSegment / kept;
  const int first = static_cast<int>(blockIdx.x) * fan;
  const int n = min(fan, n_lists - first) * kept;
  const int size = power_of_two_from(n);
  const int64_t from = (static_cast<int64_t>(request) * n_lists + first) * kept;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    entries.keys[i] = i < n ? d_from_keys[from + i] : kNoKey;
    entries.indices[i] = i < n ? d_from_indices[from + i] : kNoIndex;
  }
  __syncthreads();
  sort_entries(entries, size);
  pass_on(entries, size, static_cast<int64_t>(request) * gridDim.x + blockIdx.x, kept, d_keys, d_indices);
}

// Grid: requests; 128 threads. From each request's one list, best first, whoever the limits allow beside those chosen
// before: all threads look at the chosen together. Bound by latency: a few hundred cycles a candidate with limits.
__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(const Candidates candidates, const Limits limits, int k, int kept, const unsigned long long* d_keys,
                  const int32_t* d_indices, const Answer d_answer, unsigned long long* d_last_keys,
                  int32_t* d_last_indices, int32_t* d_done) {
  __shared__ int valid;
  __shared__ int in_group;
  __shared__ int blocked;
  const int request = static_cast<int>(blockIdx.x);
  if (d_done[request] != 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned long long* keys = d_keys + static_cast<int64_t>(request) * kept;
  const int32_t* indices = d_indices + static_cast<int64_t>(request) * kept;
  int32_t* chosen = d_answer.indices + static_cast<int64_t>(request) * k;
  int n = d_answer.n_selected[request];  // before a barrier: the first thread changes it in the end
  if (thread == 0) {
    valid = 0;
    in_group = 0;
    blocked = 0;
  }
  __syncthreads();
  int mine = 0;
  for (int i = thread; i < kept; i += kChooseThreads) mine += keys[i] != kNoKey ? 1 : 0;
  if (mine > 0) atomicAdd(&valid, mine);
  __syncthreads();
  const int n_valid = valid;
  const bool limits_groups = limits.d_group != nullptr && limits.max_per_group > 0;
  if (!limits_groups && limits.d_separation == nullptr) {
    const int taken = min(k - n, n_valid);
    for (int i = thread; i < taken; i += kChooseThreads) chosen[n + i] = indices[i];
    n += taken;
  } else {
    for (int i = 0; i < n_valid && n < k; ++i) {
      const int32_t index = indices[i];
      const int32_t item = candidates.item_of(request, index);
      const int32_t group = limits.d_group != nullptr ? limits.d_group[item] : 0;
      const int32_t separation = limits.d_separation != nullptr ? limits.d_separation[item] : -1;
      for (int c = thread; c < n; c += kChooseThreads) {
        const int32_t other = candidates.item_of(request, chosen[c]);
        const bool same_group = limits.d_group != nullptr && limits.d_group[other] == group;
        if (same_group) atomicAdd(&in_group, 1);
        if (separation >= 0 && limits.d_separation[other] == separation && !same_group) atomicOr(&blocked, 1);
      }
      __syncthreads();
      const bool taken = (!limits_groups || in_group < limits.max_per_group) && blocked == 0;
      __syncthreads();  // everybody has seen the counts
      if (thread == 0) {
        in_group = 0;
        blocked = 0;
        if (taken) chosen[n] = index;
      }
      n += taken ? 1 : 0;
      __syncthreads();
    }
  }
  if (thread == 0) {
    d_answer.n_selected[request] = n;
    // A list that is not full holds all there were.
    if (n == k || n_valid < kept || kept >= candidates.d_counts[request]) {
      d_done[request] = 1;
    } else {
      d_last_keys[request] = keys[n_valid - 1];
      d_last_indices[request] = indices[n_valid - 1];
      atomicOr(&d_answer.flags->more, 1u);
    }
  }
}

// Grid: (chosen / 128, requests); 128 threads, one chosen each.
__global__ void __launch_bounds__(kChooseThreads)
    terms_kernel(const Candidates candidates, const ScoreColumns columns, int k, const Answer d_answer) {
  const int place = static_cast<int>(blockIdx.x) * kChooseThreads + static_cast<int>(threadIdx.x);
  const int request = static_cast<int>(blockIdx.y);
  if (place >= k) return;
  const int64_t at = static_cast<int64_t>(request) * k + place;
  double terms[kTerms];
#pragma unroll
  for (int t = 0; t < kTerms; ++t) terms[t] = 0;
  double score = -INFINITY;
  int32_t item = -1;
  float prediction = 0;
  if (place < d_answer.n_selected[request]) {
    const int32_t index = d_answer.indices[at];
    const int64_t slot = candidates.slot_of(request, index);
    item = candidates.item_of(request, index);
    score = score_terms(columns, request, slot, item, terms);
    if (columns.d_prediction != nullptr) prediction = columns.d_prediction[slot];
  }
  d_answer.items[at] = item;
  d_answer.scores[at] = score;
  d_answer.predictions[at] = prediction;
#pragma unroll
  for (int t = 0; t < kTerms; ++t) d_answer.terms[at * kTerms + t] = terms[t];
}

// Places parts one after the other, the widest first, so that each is aligned.
Answer answer_in(unsigned char* memory, int64_t n_requests, int64_t k, size_t* bytes) {
  size_t at = 0;
  const auto place = [&](auto** part, int64_t count) {
    using Part = std::remove_reference_t<decltype(**part)>;
    *part = reinterpret_cast<Part*>(memory + at);
    at += static_cast<size_t>(count) * sizeof(Part);
  };
  Answer answer;
  place(&answer.flags, 1);
  place(&answer.scores, n_requests * k);
  place(&answer.terms, n_requests * k * kTerms);
  place(&answer.n_selected, n_requests);
  place(&answer.items, n_requests * k);
  place(&answer.indices, n_requests * k);
  place(&answer.predictions, n_requests * k);
  *bytes = at;
  return answer;
}

}  // namespace

int64_t Choice::lists_of(int64_t most) { return std::max<int64_t>(1, (most + kSegment - 1) / kSegment); }

int32_t Choice::prepare(int64_t n_requests, int64_t most, int64_t n_lists, int32_t k, bool is_limited,
                        waggle_text* error) {
  n_requests_ = n_requests;
  k_ = k;
  // With limits some of the best will not be chosen.
  const int64_t wanted = is_limited ? 2 * int64_t{k} + 16 : k;
  kept_ = static_cast<int32_t>(std::clamp<int64_t>(std::min<int64_t>(wanted, most), 1, kMostKept));
  kept_later_ = static_cast<int32_t>(std::min<int64_t>({int64_t{kept_} * 8, std::max<int64_t>(most, 1), kMostKept}));
  if (n_lists * kept_later_ > kMostEntries) kept_later_ = kept_;
  (void)answer_in(nullptr, n_requests, k, &answer_bytes_);
  WAGGLE_TRY(state_.scratch.take(&d_memory_, static_cast<int64_t>(answer_bytes_), error));
  WAGGLE_TRY(state_.staging.take(&h_memory_, static_cast<int64_t>(answer_bytes_), error));
  for (Lists& side : lists_) {
    WAGGLE_TRY(state_.scratch.take(&side.d_keys, n_lists * kept_later_, error));
    WAGGLE_TRY(state_.scratch.take(&side.d_indices, n_lists * kept_later_, error));
    n_lists = n_lists / (kSegment / kept_later_) + n_requests;
  }
  WAGGLE_TRY(state_.scratch.take(&last_.d_keys, n_requests, error));
  WAGGLE_TRY(state_.scratch.take(&last_.d_indices, n_requests, error));
  return state_.scratch.take(&d_done_, n_requests, error);
}

int32_t Choice::begin(waggle_text* error) {
  size_t bytes = 0;
  d_ = answer_in(d_memory_, n_requests_, k_, &bytes);
  h_ = answer_in(h_memory_, n_requests_, k_, &bytes);
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_.flags, 0, sizeof(ChoiceFlags), stream_));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(&d_.flags->bad, 0xff, sizeof d_.flags->bad, stream_));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_.n_selected, 0, static_cast<size_t>(n_requests_) * sizeof(int32_t), stream_));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(d_done_, 0, static_cast<size_t>(n_requests_) * sizeof(int32_t), stream_));
  return WAGGLE_BACKEND_OK;
}

int32_t Choice::round(const Candidates& candidates, const ScoreColumns& columns, const Limits& limits, bool first,
                      waggle_text* error) {
  const unsigned n_requests = static_cast<unsigned>(candidates.n_requests);
  const int32_t kept = first ? kept_ : kept_later_;
  int32_t n_lists = static_cast<int32_t>(lists_of(candidates.most));
  WAGGLE_CUDA_CHECK(cudaMemsetAsync(&d_.flags->more, 0, sizeof d_.flags->more, stream_));
  WAGGLE_LAUNCH(segment_kernel, dim3(static_cast<unsigned>(n_lists), n_requests), dim3(kThreads), kSortShared, stream_,
                candidates, columns, kept, first ? nullptr : last_.d_keys, last_.d_indices, d_done_, lists_[0].d_keys,
                lists_[0].d_indices, d_.flags);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  int side = 0;
  while (n_lists > 1) {
    const int32_t fan = kSegment / kept;
    const int32_t merged = (n_lists + fan - 1) / fan;
    WAGGLE_LAUNCH(merge_kernel, dim3(static_cast<unsigned>(merged), n_requests), dim3(kThreads), kSortShared, stream_,
                  n_lists, kept, d_done_, lists_[side].d_keys, lists_[side].d_indices, lists_[side ^ 1].d_keys,
                  lists_[side ^ 1].d_indices);
    WAGGLE_CUDA_CHECK(cudaGetLastError());
    n_lists = merged;
    side ^= 1;
  }
  WAGGLE_LAUNCH(choose_kernel, dim3(n_requests), dim3(kChooseThreads), 0, stream_, candidates, limits, k_, kept,
                lists_[side].d_keys, lists_[side].d_indices, d_, last_.d_keys, last_.d_indices, d_done_);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  WAGGLE_LAUNCH(terms_kernel, dim3(static_cast<unsigned>((k_ + kChooseThreads - 1) / kChooseThreads), n_requests),
                dim3(kChooseThreads), 0, stream_, candidates, columns, k_, d_);
  WAGGLE_CUDA_CHECK(cudaGetLastError());
  WAGGLE_CUDA_CHECK(cudaMemcpyAsync(h_memory_, d_memory_, answer_bytes_, cudaMemcpyDeviceToHost, stream_));
  WAGGLE_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return WAGGLE_BACKEND_OK;
}

int32_t score_rank_on_device(State& state, waggle_score_args& args, waggle_text* error) {
  if (args.n < 1 || args.n > std::numeric_limits<int32_t>::max() || args.k < 1) {
    return fail(error, WAGGLE_BACKEND_UNSUPPORTED, "shape out of range");
  }
  WAGGLE_CUDA_CHECK(cudaSetDevice(state.device));
  WAGGLE_TRY(state.stream.open(error));
  state.scratch.reset();
  state.staging.reset();
  const cudaStream_t stream = state.stream.get();
  const FinishedStream finished(stream);

  ScoreColumns columns;
  columns.weights = args.weights;
  Candidates candidates;
  candidates.n_requests = 1;
  candidates.most = static_cast<int32_t>(args.n);
  Limits limits;
  limits.max_per_group = args.max_per_group;
  Upload upload;
  upload.add(&columns.d_q, args.q, args.n);
  upload.add(&columns.d_spend, args.spend, args.n);
  upload.add(&columns.d_payout, args.payout, args.n);
  upload.add(&columns.d_fit, args.fit, args.n);
  upload.add(&columns.d_advertiser, args.advertiser, args.n);
  upload.add(&columns.d_explore, args.explore, args.n);
  upload.add(&columns.d_goal_units, args.goal_units, args.n);
  upload.add(&columns.d_frequency, args.frequency, args.n);
  upload.add(&columns.d_mu, args.mu, args.n);
  upload.add(&columns.d_omega, args.omega, args.n);
  upload.add(&columns.d_rho, args.rho, args.n);
  upload.add(&candidates.d_filter, args.filter, (args.n + 7) / 8);
  upload.add(&candidates.d_counts, &candidates.most, 1);
  upload.add(&limits.d_group, args.group, args.n);
  upload.add(&limits.d_separation, args.separation, args.n);
  WAGGLE_TRY(upload.send(state, stream, error));

  const int32_t k = static_cast<int32_t>(std::min<int64_t>(args.k, args.n));
  Choice choice(state, stream);
  WAGGLE_TRY(choice.prepare(1, args.n, Choice::lists_of(args.n), k, limits.any(), error));
  WAGGLE_TRY(choice.begin(error));
  for (bool first = true; first || choice.h().flags->more != 0; first = false) {
    if (args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0) return WAGGLE_BACKEND_CANCELLED;
    WAGGLE_TRY(choice.round(candidates, columns, limits, first, error));
    if (choice.h().flags->bad != kNoKey) {
      return fail(error, WAGGLE_BACKEND_NOT_FINITE, "the score of candidate %llu is not finite",
                  choice.h().flags->bad & 0xffffffffu);
    }
  }
  const Answer& answer = choice.h();
  args.n_selected = answer.n_selected[0];
  std::copy_n(answer.items, args.n_selected, args.rows);
  std::copy_n(answer.scores, args.n_selected, args.scores);
  std::copy_n(answer.terms, int64_t{args.n_selected} * kTerms, args.terms);
  return WAGGLE_BACKEND_OK;
}

}  // namespace waggle::cuda
