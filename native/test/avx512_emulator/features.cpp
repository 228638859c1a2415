// What the emulated processor has: WAGGLE_EMULATED_AVX512=base leaves out what only some with AVX-512 have.
#include "cpu/features.hpp"

#include <cstdlib>
#include <cstring>

namespace waggle::cpu {

Features emulated(Features found) {
  const char* choice = std::getenv("WAGGLE_EMULATED_AVX512");
  const bool all = choice == nullptr || std::strcmp(choice, "base") != 0;
  found.avx512 = found.avx2;
  found.avx512_vnni = found.avx512_bf16 = found.avx512_vbmi = found.avx2 && all;
  return found;
}

}  // namespace waggle::cpu
