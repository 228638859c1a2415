// Waiting for what is sooner there than a sleeping thread wakes.
#pragma once

namespace waggle {

/// Looks between which one pauses, before it is better to sleep: some tens of microseconds.
constexpr int kSpins = 4000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace waggle
