// The only symbols the ISA files export: constant tables of pointers to their internal functions.
#pragma once

#include "cpu/kernels.hpp"

namespace waggle::cpu {

extern const TopkKernels kTopkScalar;
extern const ScoreKernels kScoreScalar;
extern const GlmKernels kGlmScalar;
extern const ProbeKernels kProbeScalar;

#if defined(WAGGLE_HAVE_AVX2)
extern const TopkKernels kTopkAvx2;
extern const ScoreKernels kScoreAvx2;
extern const GlmKernels kGlmAvx2;
extern const ProbeKernels kProbeAvx2;
#endif

#if defined(WAGGLE_HAVE_AVX512)
extern const TopkKernels kTopkAvx512;
extern const ScoreKernels kScoreAvx512;
extern const GlmKernels kGlmAvx512;
extern const ProbeKernels kProbeAvx512;
#endif

}  // namespace waggle::cpu
