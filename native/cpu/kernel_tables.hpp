// The only symbols the ISA files export: constant tables of pointers to their internal functions.
#pragma once

#include "cpu/kernels.hpp"

namespace waggle::cpu {

extern const TopkKernels kTopkScalar;
extern const EncodeKernels kEncodeScalar;
extern const EncodedKernels kEncodedScalar;
/// Σ query[i] · code[i] of one row in double, the same at every level. `dtype` is a Dtype.
double decoded_dot(int32_t dtype, const void* row, const float* query, int64_t dim);
extern const ScoreKernels kScoreScalar;
extern const GlmKernels kGlmScalar;
extern const ProbeKernels kProbeScalar;
extern const IvfKernels kIvfScalar;
extern const TreesKernels kTreesScalar;
extern const TreesFitKernels kTreesFitScalar;
extern const FfmKernels kFfmScalar;

#if defined(WAGGLE_HAVE_AVX2)
extern const TopkKernels kTopkAvx2;
extern const EncodeKernels kEncodeAvx2;
extern const EncodedKernels kEncodedAvx2;
extern const ScoreKernels kScoreAvx2;
extern const GlmKernels kGlmAvx2;
extern const ProbeKernels kProbeAvx2;
extern const IvfKernels kIvfAvx2;
extern const TreesKernels kTreesAvx2;
extern const TreesFitKernels kTreesFitAvx2;
extern const FfmKernels kFfmAvx2;
#endif

#if defined(WAGGLE_HAVE_AVX512)
extern const TopkKernels kTopkAvx512;
extern const EncodeKernels kEncodeAvx512;
extern const EncodedKernels kEncodedAvx512;
extern const ScoreKernels kScoreAvx512;
extern const GlmKernels kGlmAvx512;
extern const ProbeKernels kProbeAvx512;
extern const IvfKernels kIvfAvx512;
extern const TreesFitKernels kTreesFitAvx512;
extern const FfmKernels kFfmAvx512;
/// For processors with AVX512_VNNI as well.
extern const IvfKernels kIvfAvx512Vnni;
#endif

#if defined(WAGGLE_HAVE_NEON)
extern const TopkKernels kTopkNeon;
extern const EncodedKernels kEncodedNeon;
extern const IvfKernels kIvfNeon;
extern const TreesKernels kTreesNeon;
#endif

// Instructions beyond the level, used where the processor has them.
#if defined(WAGGLE_HAVE_AVX512_VNNI)
extern const ScanKernels kScanInt8Vnni;
#endif
#if defined(WAGGLE_HAVE_AVX512_BF16)
extern const ScanKernels kScanBf16Avx512Bf16;
#endif

#if defined(WAGGLE_HAVE_AVX512_VBMI)
extern const TreesKernels kTreesVbmi;
#endif

}  // namespace waggle::cpu
