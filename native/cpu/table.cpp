#include "cpu/table.hpp"

#include "cpu/kernel_tables.hpp"
#include "src/registry.hpp"

namespace waggle::cpu {

const Table* table_for(Simd level) {
  switch (level) {
    case Simd::kScalar: {
      static const Table scalar{Simd::kScalar, kTopkScalar, kScoreScalar, kGlmScalar, kProbeScalar};
      return &scalar;
    }
    case Simd::kAvx2: {
#if defined(WAGGLE_HAVE_AVX2)
      static const Table avx2{Simd::kAvx2, kTopkAvx2, kScoreAvx2, kGlmAvx2, kProbeAvx2};
      return &avx2;
#else
      return nullptr;
#endif
    }
    case Simd::kAvx512: {
#if defined(WAGGLE_HAVE_AVX512)
      static const Table avx512{Simd::kAvx512, kTopkAvx512, kScoreAvx512, kGlmAvx512, kProbeAvx512};
      return &avx512;
#else
      return nullptr;
#endif
    }
  }
  return nullptr;
}

const Table& table() { return *registry().table; }

}  // namespace waggle::cpu
