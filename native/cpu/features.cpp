#include "cpu/features.hpp"

#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace waggle::cpu {

namespace {

#if defined(__x86_64__) || defined(__i386__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (__get_cpuid_max(0, nullptr) >= leaf) __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

// XCR0: which register files the operating system saves on a context switch. CPUID alone is not enough: with
// the state not enabled every AVX instruction faults. (Intel SDM vol. 1, 13.3.) Needs OSXSAVE.
uint64_t extended_state() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool bit(uint32_t value, int index) { return ((value >> index) & 1u) != 0; }

Features detect() {
  Features found;
  const Registers leaf1 = cpuid(1, 0);
  const bool osxsave = bit(leaf1.ecx, 27);
  const bool avx = bit(leaf1.ecx, 28);
  const bool fma = bit(leaf1.ecx, 12);
  const bool f16c = bit(leaf1.ecx, 29);
  if (!osxsave || !avx) return found;
  const uint64_t state = extended_state();
  constexpr uint64_t kYmm = 0x6;   // xmm, ymm
  constexpr uint64_t kZmm = 0xe6;  // … opmask, zmm0-15 upper halves, zmm16-31
  const Registers leaf7 = cpuid(7, 0);
  found.avx2 = (state & kYmm) == kYmm && fma && f16c && bit(leaf7.ebx, 5);
  const bool f = bit(leaf7.ebx, 16);
  const bool dq = bit(leaf7.ebx, 17);
  const bool bw = bit(leaf7.ebx, 30);
  const bool vl = bit(leaf7.ebx, 31);
  found.avx512 = found.avx2 && (state & kZmm) == kZmm && f && dq && bw && vl;
  found.avx512_vnni = found.avx512 && bit(leaf7.ecx, 11);
  found.avx512_bf16 = found.avx512 && leaf7.eax >= 1 && bit(cpuid(7, 1).eax, 5);
  found.avx512_vbmi = found.avx512 && bit(leaf7.ecx, 1);
  return found;
}

#else

Features detect() {
  Features found;
#if defined(__aarch64__)
  found.neon = true;
#endif
  return found;
}

#endif

}  // namespace

bool Features::supports(Simd level) const {
  switch (level) {
    case Simd::kScalar:
      return true;
    case Simd::kAvx2:
      return avx2;
    case Simd::kAvx512:
      return avx512;
    case Simd::kNeon:
      return neon;
  }
  return false;
}

#if defined(WAGGLE_EMULATED_AVX512)
Features emulated(Features found);  // test/avx512_emulator
#endif

const Features& features() {
#if defined(WAGGLE_EMULATED_AVX512)
  static const Features found = emulated(detect());
#else
  static const Features found = detect();
#endif
  return found;
}

const char* name_of(Simd level) {
  switch (level) {
    case Simd::kScalar:
      return "scalar";
    case Simd::kAvx2:
      return "avx2";
    case Simd::kAvx512:
      return "avx512";
    case Simd::kNeon:
      return "neon";
  }
  return "unknown";
}

}  // namespace waggle::cpu
