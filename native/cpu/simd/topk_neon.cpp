// 12 rows × 8 queries: 24 of 32 registers hold sums. Turned around: 4 rows at a time, up to 8 queries.
#include <arm_neon.h>
#include <string.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

using Vector = float32x4_t;
constexpr int32_t kLanes = 4;
constexpr int32_t kRowBlock = 12;
constexpr int32_t kFew = 8;
constexpr bool kFetchRowByRow = true;

inline Vector zero() { return vdupq_n_f32(0.0f); }
inline Vector broadcast(const float* p) { return vld1q_dup_f32(p); }
inline Vector load(const float* p) { return vld1q_f32(p); }
inline Vector load_tail(const float* p, int32_t n) {
  float lanes[kLanes] = {};
  memcpy(lanes, p, static_cast<size_t>(n) * sizeof(float));
  return vld1q_f32(lanes);
}
inline void store(float* p, Vector v) { vst1q_f32(p, v); }
inline Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
inline Vector subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
inline Vector multiply(Vector a, Vector b) { return vmulq_f32(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
inline Vector negate(Vector a) { return vnegq_f32(a); }

inline Vector inverse_norm(Vector square) {
  const uint32x4_t safe = vandq_u32(vcgeq_f32(square, vdupq_n_f32(kTopkSmallestSafeSquare)),
                                    vcleq_f32(square, vdupq_n_f32(kTopkLargestSafeSquare)));
  const Vector inverse = vdivq_f32(vdupq_n_f32(1.0f), vsqrtq_f32(square));
  return vbslq_f32(safe, inverse, vdupq_n_f32(__builtin_nanf("")));
}

inline unsigned above(Vector score, Vector threshold) {
  // "Not less or equal" is also true of NaN, and of +infinity.
  const uint32x4_t hit = vorrq_u32(vmvnq_u32(vcleq_f32(score, threshold)), vcltq_f32(score, vdupq_n_f32(-__FLT_MAX__)));
  const uint32x4_t bits = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(hit, bits));
}

#include "cpu/simd/topk_keep.inc"

// Four columns of four rows.
inline void turn(const Vector (&v)[4], Vector (&out)[4]) {
  const float32x4_t low01 = vzip1q_f32(v[0], v[1]);
  const float32x4_t high01 = vzip2q_f32(v[0], v[1]);
  const float32x4_t low23 = vzip1q_f32(v[2], v[3]);
  const float32x4_t high23 = vzip2q_f32(v[2], v[3]);
  out[0] = vcombine_f32(vget_low_f32(low01), vget_low_f32(low23));
  out[1] = vcombine_f32(vget_high_f32(low01), vget_high_f32(low23));
  out[2] = vcombine_f32(vget_low_f32(high01), vget_low_f32(high23));
  out[3] = vcombine_f32(vget_high_f32(high01), vget_high_f32(high23));
}

inline void columns(const float* const* rows, int64_t i, Vector (&out)[4]) {
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) v[r] = vld1q_f32(rows[r] + i);
  turn(v, out);
}

inline void columns_tail(const float* const* rows, int64_t i, int32_t n, Vector (&out)[4]) {
  Vector v[4];
#pragma GCC unroll 4
  for (int32_t r = 0; r < 4; ++r) v[r] = load_tail(rows[r] + i, n);
  turn(v, out);
}

#include "cpu/simd/topk_block.inc"

}  // namespace

const TopkKernels kTopkNeon = {2 * kLanes,    kLanes,     kFew,          wide_kernel,
                               narrow_kernel, few_kernel, scores_kernel, factors_kernel};

}  // namespace waggle::cpu
