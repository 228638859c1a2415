#include "src/placement.hpp"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace waggle {

#if defined(__linux__)

bool take_cpu(CpuSet* taken) {
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE) return true;
  const bool was_free = CPU_ISSET(cpu, taken) == 0;
  CPU_SET(cpu, taken);
  return was_free;
}

void Placement::start() { thread_ = static_cast<pid_t>(syscall(SYS_gettid)); }

void Placement::keep_off(const CpuSet& taken) {
  // Asked for anew each time, since somebody else may have bound the thread meanwhile.
  if (thread_ == 0 || (!narrowed_ && sched_getaffinity(thread_, sizeof allowed_, &allowed_) != 0)) return;
  CpuSet others;
  CPU_XOR(&others, &allowed_, &taken);
  CPU_AND(&others, &others, &allowed_);
  if (CPU_COUNT(&others) == 0) return;
  narrowed_ = sched_setaffinity(thread_, sizeof others, &others) == 0 || narrowed_;
}

void Placement::widen() {
  if (narrowed_) (void)sched_setaffinity(thread_, sizeof allowed_, &allowed_);
  narrowed_ = false;
}

#else

bool take_cpu(CpuSet*) { return true; }
void Placement::start() {}
void Placement::keep_off(const CpuSet&) {}
void Placement::widen() {}

#endif

}  // namespace waggle
