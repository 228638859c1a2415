#include "cpu/table.hpp"

#include "cpu/kernel_tables.hpp"
#include "src/registry.hpp"

namespace waggle::cpu {

namespace {

#if defined(WAGGLE_HAVE_AVX512)
EncodedKernels with_extras(EncodedKernels kernels) {
#if defined(WAGGLE_HAVE_AVX512_VNNI)
  if (features().avx512_vnni) kernels.int8 = kScanInt8Vnni;
#endif
#if defined(WAGGLE_HAVE_AVX512_BF16)
  if (features().avx512_bf16) kernels.bf16 = kScanBf16Avx512Bf16;
#endif
  return kernels;
}
#endif

#if defined(WAGGLE_HAVE_AVX512)
// Without permutations of bytes the narrower kernels do.
const TreesKernels& trees_kernels() {
#if defined(WAGGLE_HAVE_AVX512_VBMI)
  if (features().avx512_vbmi) return kTreesVbmi;
#endif
  return kTreesAvx2;
}
#endif

// What wider registers do not help is the same at every level.
#if defined(WAGGLE_HAVE_AVX2) || defined(WAGGLE_HAVE_AVX512)
TreesFitKernels with_scalar(TreesFitKernels kernels) {
  kernels.histogram = kTreesFitScalar.histogram;
  kernels.decide = kTreesFitScalar.decide;
  if (kernels.split == nullptr) kernels.split = kTreesFitScalar.split;
  return kernels;
}
#endif

}  // namespace

const Table* table_for(Simd level) {
  switch (level) {
    case Simd::kScalar: {
      static const Table scalar{Simd::kScalar,  kTopkScalar, kScoreScalar, kGlmScalar,      kProbeScalar, kEncodeScalar,
                                kEncodedScalar, kIvfScalar,  kTreesScalar, kTreesFitScalar, kFfmScalar};
      return &scalar;
    }
    case Simd::kAvx2: {
#if defined(WAGGLE_HAVE_AVX2)
      static const Table avx2{Simd::kAvx2, kTopkAvx2,    kScoreAvx2, kGlmAvx2,   kProbeAvx2,
                              kEncodeAvx2, kEncodedAvx2, kIvfAvx2,   kTreesAvx2, with_scalar(kTreesFitAvx2),
                              kFfmAvx2};
      return &avx2;
#else
      return nullptr;
#endif
    }
    case Simd::kNeon: {
#if defined(WAGGLE_HAVE_NEON)
      // The other scalar kernels are what a compiler makes of them, which uses NEON on its own.
      static const Table neon{Simd::kNeon,  kTopkNeon, kScoreScalar, kGlmScalar,      kProbeScalar, kEncodeScalar,
                              kEncodedNeon, kIvfNeon,  kTreesNeon,   kTreesFitScalar, kFfmScalar};
      return &neon;
#else
      return nullptr;
#endif
    }
    case Simd::kAvx512: {
#if defined(WAGGLE_HAVE_AVX512)
      static const Table avx512{Simd::kAvx512,
                                kTopkAvx512,
                                kScoreAvx512,
                                kGlmAvx512,
                                kProbeAvx512,
                                kEncodeAvx512,
                                with_extras(kEncodedAvx512),
                                features().avx512_vnni ? kIvfAvx512Vnni : kIvfAvx512,
                                trees_kernels(),
                                with_scalar(kTreesFitAvx512),
                                kFfmAvx512};
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
