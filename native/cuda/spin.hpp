// Looking out for a moment before sleeping: waking a thread takes longer than much of what the device does.
#pragma once

#include <chrono>
#include <thread>

namespace waggle::cuda {

/// True as soon as `done()` is; false after 100 µs, or at once where processors are few.
template <typename Done>
bool spin_until(Done&& done) {
  static const bool few = std::thread::hardware_concurrency() < 4;
  if (few) return done();
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return true;
}

}  // namespace waggle::cuda
