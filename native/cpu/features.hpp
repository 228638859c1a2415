// What this processor and this operating system let us execute. Read once.
#pragma once

namespace waggle::cpu {

enum class Simd { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kNeon = 3 };

struct Features {
  bool avx2 = false;         // AVX2 + FMA + F16C, and the OS saves ymm state
  bool avx512 = false;       // AVX-512 F, BW, DQ, VL, and the OS saves zmm and opmask state
  bool avx512_vnni = false;  // on top of avx512: dot products of bytes
  bool avx512_bf16 = false;  // on top of avx512: dot products of bf16 pairs
  bool avx512_vbmi = false;  // on top of avx512: permutations of bytes
  bool neon = false;         // every 64-bit ARM processor has it
  bool supports(Simd level) const;
};

const Features& features();
const char* name_of(Simd level);

}  // namespace waggle::cpu
