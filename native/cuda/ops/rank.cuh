// The last stage of ranking: scores of candidates, the best of each request, and a greedy choice among them.
//
// The bits are the CPU's (cpu/score_terms.hpp): every operation of the definition is rounded by itself, in its order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "abi/backend_abi.h"
#include "cuda/device.cuh"
#include "cuda/resources.hpp"

namespace waggle::cuda {

constexpr int kTerms = 9;

/// The candidates of several requests. One is told by its index among those of its request; what is kept of it lies at
/// request · most + index, its slot.
struct Candidates {
  const int32_t* d_items = nullptr;    // null: candidate i is item i
  const int32_t* d_offsets = nullptr;  // [n_requests] where a request's begin in d_items; null: at request · stride
  int64_t stride = 0;                  // 0: all requests have the same
  const int32_t* d_counts = nullptr;   // [n_requests]
  const uint8_t* d_filter = nullptr;   // by index: who may be chosen; null: all
  int32_t n_requests = 0;
  int32_t most = 0;  // candidates that a request has at most

  __device__ int64_t slot_of(int request, int index) const { return static_cast<int64_t>(request) * most + index; }
  __device__ int32_t item_of(int request, int index) const {
    if (d_items == nullptr) return index;
    return d_items[(d_offsets != nullptr ? d_offsets[request] : request * stride) + index];
  }
};

/// Device columns by item, but for those said to be by slot or by request. Null as in ScoreRankArgs; without d_spend,
/// spend and payout are made of the prediction, as in RankBatchArgs.
struct ScoreColumns {
  const float* d_q = nullptr;
  const float* d_spend = nullptr;
  const float* d_payout = nullptr;
  const float* d_fit = nullptr;
  const float* d_advertiser = nullptr;
  const float* d_explore = nullptr;
  const float* d_goal_units = nullptr;
  const float* d_frequency = nullptr;
  const float* d_mu = nullptr;
  const float* d_omega = nullptr;
  const float* d_rho = nullptr;
  const float* d_prediction = nullptr;  // by slot
  const float* d_similarity = nullptr;  // by slot: the fit where there is no other
  const float* d_price = nullptr;
  const float* d_volume = nullptr;  // by request
  const float* d_fixed_spend = nullptr;
  const float* d_payout_share = nullptr;
  waggle_score_weights weights = {};
};

struct Limits {
  const int32_t* d_group = nullptr;  // by item
  const int32_t* d_separation = nullptr;
  int32_t max_per_group = 0;

  bool any() const { return (d_group != nullptr && max_per_group > 0) || d_separation != nullptr; }
};

struct ChoiceFlags {
  unsigned long long bad;  // lowest request << 32 | candidate with a number that is not finite, or kNoKey
  unsigned more;           // not 0: a request needs another round
  unsigned n_doubts;       // for whoever makes the predictions
};

/// An answer in one stretch of memory, in the same places on the device and on the host.
struct Answer {
  ChoiceFlags* flags = nullptr;
  double* scores = nullptr;  // [n_requests × k]
  double* terms = nullptr;   // [n_requests × k × kTerms]
  int32_t* n_selected = nullptr;
  int32_t* items = nullptr;  // [n_requests × k]
  int32_t* indices = nullptr;
  float* predictions = nullptr;
};

/// Scores and chooses. Takes its scratch memory once, in `prepare`.
class Choice {
 public:
  Choice(State& state, cudaStream_t stream) : state_(state), stream_(stream) {}

  /// For batches of at most so many requests, of candidates of one request, and of lists over all requests.
  int32_t prepare(int64_t n_requests, int64_t most, int64_t n_lists, int32_t k, bool is_limited, waggle_text* error);
  /// Lists that the candidates of one request make.
  static int64_t lists_of(int64_t most);
  /// Nothing chosen yet, no flag raised: before the predictions of a batch are made.
  int32_t begin(waggle_text* error);
  /// Chooses from the best that no round since begin() has looked at, `first` telling the first of them; then the terms
  /// of what is chosen. Waits: the answer so far is in h().
  int32_t round(const Candidates& candidates, const ScoreColumns& columns, const Limits& limits, bool first,
                waggle_text* error);

  const Answer& d() const { return d_; }
  const Answer& h() const { return h_; }

 private:
  struct Lists {
    unsigned long long* d_keys = nullptr;
    int32_t* d_indices = nullptr;
  };

  State& state_;
  cudaStream_t stream_;
  int64_t n_requests_ = 0;
  int32_t k_ = 0;
  int32_t kept_ = 0;        // of each list in the first round
  int32_t kept_later_ = 0;  // and in others: limits have eaten up a list
  size_t answer_bytes_ = 0;
  unsigned char* d_memory_ = nullptr;
  unsigned char* h_memory_ = nullptr;
  Answer d_;
  Answer h_;
  Lists lists_[2];
  Lists last_;  // [n_requests] where the last round ended
  int32_t* d_done_ = nullptr;
};

/// Rows of the host, as waggle_score_args says.
int32_t score_rank_on_device(State& state, waggle_score_args& args, waggle_text* error);

}  // namespace waggle::cuda
