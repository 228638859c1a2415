// One thread owns the device: callers queue up, and small searches of one matrix that wait together run as one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "abi/backend_abi.h"
#include "cuda/matrix.hpp"
#include "cuda/resources.hpp"

namespace waggle::cuda {

class Owner {
 public:
  Owner() : thread_([this] { serve(); }) {}
  ~Owner();
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  State& state() { return state_; }

  /// Runs `work` on the owner's thread and waits for it.
  int32_t run(std::function<int32_t(State&)> work);

  /// A search against a resident matrix. Waiting searches with the same matrix, metric and k and without a filter
  /// become one batch; nobody waits for company.
  int32_t search(const waggle_device_matrix& matrix, waggle_topk_args& args, waggle_text* error);

 private:
  struct Request {
    std::function<int32_t(State&)> work;  // empty: a search
    const waggle_device_matrix* matrix = nullptr;
    waggle_topk_args* args = nullptr;
    waggle_text* error = nullptr;
    int32_t status = 0;
    std::atomic<bool> done{false};
  };

  int32_t wait_for(Request& request);
  void serve();
  void serve_searches(const std::vector<Request*>& batch);
  static bool joins(const Request& first, const Request& other);

  State state_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable finished_;
  std::deque<Request*> waiting_;
  std::atomic<unsigned long long> asked_{0};  // requests so far
  bool closing_ = false;
  std::vector<float> queries_;  // of a batch, kept between batches
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  std::thread thread_;
};

}  // namespace waggle::cuda
