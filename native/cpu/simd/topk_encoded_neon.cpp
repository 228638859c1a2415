// Rows as they lie, sixteen values at a time, up to four queries sharing what was loaded of a row; no panels. Int8
// codes become 16-bit ones, so the query keeps 15 bits; f16 and bf16 become floats.
#include <arm_neon.h>
#include <string.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kStep = 16;

struct FloatSums {
  using Sum = float32x4_t;
  using Value = float;
  static inline Sum zero() { return vdupq_n_f32(0.0f); }
  static inline Value total(const Sum (&s)[4], int32_t) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3])));
  }
  static inline void step(Sum (&sum)[4], const float32x4_t (&row)[4], const void* query, int64_t i) {
    const float* const q = static_cast<const float*>(query) + i;
#pragma GCC unroll 4
    for (int32_t p = 0; p < 4; ++p) sum[p] = vfmaq_f32(sum[p], row[p], vld1q_f32(q + 4 * p));
  }
};

struct F16 : FloatSums {
  using Stored = uint16_t;
  using Row = float32x4_t[4];
  static inline void load(const uint16_t* p, Row& row) {
    const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p));
    const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
    row[0] = vcvt_f32_f16(vget_low_f16(low));
    row[1] = vcvt_f32_f16(vget_high_f16(low));
    row[2] = vcvt_f32_f16(vget_low_f16(high));
    row[3] = vcvt_f32_f16(vget_high_f16(high));
  }
};

struct Bf16 : FloatSums {
  using Stored = uint16_t;
  using Row = float32x4_t[4];
  static inline void load(const uint16_t* p, Row& row) {
#pragma GCC unroll 4
    for (int32_t i = 0; i < 4; ++i) row[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  }
};

struct Int8 {
  using Stored = int8_t;
  using Sum = int32x4_t;
  using Value = int32_t;
  using Row = int16x8_t[2];
  static inline Sum zero() { return vdupq_n_s32(0); }
  static inline Value total(const Sum (&s)[4], int32_t start) {
    // Wraps like the other levels: only the end must fit.
    const uint32_t sum = static_cast<uint32_t>(vaddvq_s32(vaddq_s32(vaddq_s32(s[0], s[1]), vaddq_s32(s[2], s[3]))));
    return static_cast<int32_t>(sum + static_cast<uint32_t>(start));
  }
  static inline void load(const int8_t* p, Row& row) {
    const int8x16_t codes = vld1q_s8(p);
    row[0] = vmovl_s8(vget_low_s8(codes));
    row[1] = vmovl_high_s8(codes);
  }
  static inline void step(Sum (&sum)[4], const Row& row, const void* query, int64_t i) {
    const int16_t* const q = static_cast<const int16_t*>(query) + i;
#pragma GCC unroll 2
    for (int32_t p = 0; p < 2; ++p) {
      const int16x8_t codes = vld1q_s16(q + 8 * p);
      sum[2 * p] = vmlal_s16(sum[2 * p], vget_low_s16(row[p]), vget_low_s16(codes));
      sum[2 * p + 1] = vmlal_high_s16(sum[2 * p + 1], row[p], codes);
    }
  }
};

template <typename Op, int32_t Q>
void rows_of(const void* const* rows, int32_t n_rows, int64_t dim, const void* const* queries, const int32_t* starts,
             void* out, int64_t ld) {
  for (int32_t r = 0; r < n_rows; ++r) {
    const auto* const row = static_cast<const typename Op::Stored*>(rows[r]);
    typename Op::Sum sum[Q][4];
    for (int32_t q = 0; q < Q; ++q) {
      for (int32_t p = 0; p < 4; ++p) sum[q][p] = Op::zero();
    }
    typename Op::Row values;
    int64_t i = 0;
    for (; i + kStep <= dim; i += kStep) {
      Op::load(row + i, values);
#pragma GCC unroll 4
      for (int32_t q = 0; q < Q; ++q) Op::step(sum[q], values, queries[q], i);
    }
    if (i < dim) {
      typename Op::Stored rest[kStep] = {};
      memcpy(rest, row + i, static_cast<size_t>(dim - i) * sizeof(typename Op::Stored));
      Op::load(rest, values);
#pragma GCC unroll 4
      for (int32_t q = 0; q < Q; ++q) Op::step(sum[q], values, queries[q], i);
    }
    for (int32_t q = 0; q < Q; ++q) static_cast<typename Op::Value*>(out)[q * ld + r] = Op::total(sum[q], starts[q]);
  }
}

template <typename Op>
void rows_kernel(const void* const* rows, int32_t n_rows, int64_t dim, const void* const* queries,
                 const int32_t* starts, int32_t n_queries, void* out, int64_t ld) {
  switch (n_queries) {
    case 1:
      return rows_of<Op, 1>(rows, n_rows, dim, queries, starts, out, ld);
    case 2:
      return rows_of<Op, 2>(rows, n_rows, dim, queries, starts, out, ld);
    case 3:
      return rows_of<Op, 3>(rows, n_rows, dim, queries, starts, out, ld);
    default:
      return rows_of<Op, 4>(rows, n_rows, dim, queries, starts, out, ld);
  }
}

int32_t collect_kernel(const void* sums, const void* low_sums, int32_t integer, const float* scale, const float* error,
                       const float* norm, int32_t n, const FilterLine* line, int32_t* out, float* out_sums) {
  int32_t count = 0;
  // Tiles are padded to whole registers; what lies beyond n is masked off.
  for (int32_t i = 0; i < n; i += 4) {
    float32x4_t sum;
    if (integer == 0) {
      sum = vld1q_f32(static_cast<const float*>(sums) + i);
    } else {
      sum = vcvtq_f32_s32(vld1q_s32(static_cast<const int32_t*>(sums) + i));
      if (low_sums != nullptr) {
        sum = vfmaq_n_f32(vcvtq_f32_s32(vld1q_s32(static_cast<const int32_t*>(low_sums) + i)), sum, 128.0f);
      }
    }
    const float32x4_t length = vld1q_f32(norm + i);
    float32x4_t rest = vmulq_f32(length, vfmsq_n_f32(vdupq_n_f32(line->norm_weight), length, line->square_weight));
    rest = vfmaq_n_f32(rest, vld1q_f32(error + i), line->error_weight);
    const float32x4_t value = vfmaq_n_f32(rest, vmulq_f32(sum, vld1q_f32(scale + i)), line->slope);
    const uint32x4_t bits = {1, 2, 4, 8};
    unsigned passing = vaddvq_u32(vandq_u32(vmvnq_u32(vcltq_f32(value, vdupq_n_f32(line->level))), bits));
    if (n - i < 4) passing &= (1u << (n - i)) - 1u;
    if (__builtin_expect(passing == 0, 1)) continue;
    float values[4];
    vst1q_f32(values, sum);
    for (; passing != 0; passing &= passing - 1) {
      const int lane = __builtin_ctz(passing);
      out[count] = i + lane;
      out_sums[count++] = values[lane];
    }
  }
  return count;
}

}  // namespace

const EncodedKernels kEncodedNeon = {{QueryUnit::kFloat, 0, 0, 0, kMaxTerms, rows_kernel<F16>, nullptr, nullptr},
                                     {QueryUnit::kFloat, 0, 0, 0, kMaxTerms, rows_kernel<Bf16>, nullptr, nullptr},
                                     {QueryUnit::kInt16Pair, 0, 0, 0, kMaxTerms, rows_kernel<Int8>, nullptr, nullptr},
                                     collect_kernel};

}  // namespace waggle::cpu
