// Copies of pageable memory into pinned staging by several threads: one thread moves some 10 GB/s, a PCIe 5 link five
// times that.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace waggle::cuda {

/// Belongs to the owner's thread. The helpers start with the first large copy; after one they look out for the next for
/// some 100 µs, then sleep.
class Copiers {
 public:
  Copiers() = default;
  ~Copiers();
  Copiers(const Copiers&) = delete;
  Copiers& operator=(const Copiers&) = delete;

  /// memcpy, split among the helpers and the caller when that pays. Returns when all is copied.
  void copy(void* to, const void* from, size_t bytes);

 private:
  void serve(size_t helper);
  void copy_share(size_t share) const;

  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable finished_;
  std::vector<std::thread> helpers_;
  unsigned char* to_ = nullptr;
  const unsigned char* from_ = nullptr;
  size_t bytes_ = 0;
  std::atomic<size_t> running_{0};
  std::atomic<unsigned long long> round_{0};
  bool closing_ = false;
};

}  // namespace waggle::cuda
