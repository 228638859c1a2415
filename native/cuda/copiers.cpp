#include "cuda/copiers.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "cuda/spin.hpp"

namespace waggle::cuda {

namespace {

constexpr size_t kMostHelpers = 7;
constexpr size_t kWorthSharing = size_t{1} << 20;  // bytes; waking helpers takes some ten microseconds

}  // namespace

Copiers::~Copiers() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    ++round_;
  }
  wanted_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Copiers::copy_share(size_t share) const {
  // Whole pages each; the last takes the rest.
  const size_t part = bytes_ / (helpers_.size() + 1) / 4096 * 4096;
  const size_t begin = share * part;
  const size_t end = share == helpers_.size() ? bytes_ : begin + part;
  std::memcpy(to_ + begin, from_ + begin, end - begin);
}

void Copiers::copy(void* to, const void* from, size_t bytes) {
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  if (bytes < kWorthSharing || processors < 4) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return;
  }
  if (helpers_.empty()) {
    try {
      const size_t helpers = std::min(kMostHelpers, processors / 2 - 1);
      helpers_.reserve(helpers);
      for (size_t i = 0; i < helpers; ++i) helpers_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error&) {
      // Whoever did start helps.
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    to_ = static_cast<unsigned char*>(to);
    from_ = static_cast<const unsigned char*>(from);
    bytes_ = bytes;
    running_ = helpers_.size();
    ++round_;
  }
  wanted_.notify_all();
  copy_share(helpers_.size());
  if (spin_until([&] { return running_ == 0; })) return;
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [&] { return running_ == 0; });
}

void Copiers::serve(size_t helper) {
  unsigned long long seen = 0;
  while (true) {
    if (!spin_until([&] { return round_ != seen; })) {
      std::unique_lock<std::mutex> lock(mutex_);
      wanted_.wait(lock, [&] { return round_ != seen; });
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closing_) return;
      seen = round_;
    }
    copy_share(helper);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--running_ == 0) finished_.notify_one();
  }
}

}  // namespace waggle::cuda
