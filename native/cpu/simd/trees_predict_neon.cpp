// 16 rows to a register of bytes; see trees_planes.inc.
#include <arm_neon.h>

#include <algorithm>
#include <type_traits>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kGroup = 16;

#include "cpu/simd/trees_transpose.inc"

// Sixteen floats as the bytes that a look-up takes.
inline uint8x16x4_t sixteen(const float* p) {
  uint8x16x4_t table;
  for (int32_t i = 0; i < 4; ++i) table.val[i] = vreinterpretq_u8_f32(vld1q_f32(p + 4 * i));
  return table;
}

// heap[0 … 63], where the first six levels of a search are.
struct Top {
  uint8x16x4_t table[4];

  explicit Top(const float* heap, int32_t n_levels) {
    const int32_t used = n_levels <= 4 ? 1 : n_levels == 5 ? 2 : 4;
    for (int32_t i = 0; i < 4; ++i) table[i] = i < used ? sixteen(heap + 16 * i) : table[0];
  }
};

// heap[k] of a level's places, 2^level ≤ k < 2^(level + 1). Look-ups choose among bytes: place k is bytes 4k to 4k + 3.
inline __attribute__((always_inline)) float32x4_t cut_at(const Top& top, const float* heap, int32_t level,
                                                         uint32x4_t k) {
  const auto bytes_of = [](uint32x4_t place) {
    return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100u), place, 0x04040404u));
  };
  if (level < 4) return vreinterpretq_f32_u8(vqtbl4q_u8(top.table[0], bytes_of(k)));
  if (level == 4) return vreinterpretq_f32_u8(vqtbl4q_u8(top.table[1], bytes_of(vsubq_u32(k, vdupq_n_u32(16)))));
  if (level == 5) {
    // Bytes of places beyond a table are 64 and more: they find nothing, and leave what the first table found.
    const uint8x16_t at = bytes_of(vsubq_u32(k, vdupq_n_u32(32)));
    const uint8x16_t found = vqtbl4q_u8(top.table[2], at);
    return vreinterpretq_f32_u8(vqtbx4q_u8(found, top.table[3], vsubq_u8(at, vdupq_n_u8(64))));
  }
  float32x4_t cuts = vld1q_dup_f32(heap + vgetq_lane_u32(k, 0));
  cuts = vld1q_lane_f32(heap + vgetq_lane_u32(k, 1), cuts, 1);
  cuts = vld1q_lane_f32(heap + vgetq_lane_u32(k, 2), cuts, 2);
  return vld1q_lane_f32(heap + vgetq_lane_u32(k, 3), cuts, 3);
}

inline uint8x16_t as_bytes(const uint32x4_t (&k)[4]) {
  const uint16x8_t low = vcombine_u16(vmovn_u32(k[0]), vmovn_u32(k[1]));
  const uint16x8_t high = vcombine_u16(vmovn_u32(k[2]), vmovn_u32(k[3]));
  return vcombine_u8(vmovn_u16(low), vmovn_u16(high));
}

template <int32_t kLevels>
void bins_of(const float* column, int32_t blocks, const float* heap, uint8_t* high, uint8_t* low) {
  const Top top(heap, kLevels);
  for (int32_t r = 0; r < blocks * kTreesBlock; r += kGroup) {
    float32x4_t x[4];
    uint32x4_t k[4];
#pragma GCC unroll 4
    for (int32_t i = 0; i < 4; ++i) {
      x[i] = vld1q_f32(column + r + 4 * i);
      k[i] = vdupq_n_u32(1);
    }
#pragma GCC unroll 8
    for (int32_t level = 0; level < kLevels; ++level) {
#pragma GCC unroll 4
      for (int32_t i = 0; i < 4; ++i) {
        // A comparison that holds is −1.
        const uint32x4_t reached = vcleq_f32(cut_at(top, heap, level, k[i]), x[i]);
        k[i] = vsubq_u32(vaddq_u32(k[i], k[i]), reached);
      }
    }
#pragma GCC unroll 4
    for (int32_t i = 0; i < 4; ++i) k[i] = vsubq_u32(k[i], vdupq_n_u32(1u << kLevels));
    // NaN is not at or above any cut, so its number is 0 already.
    const uint8x16_t bins = as_bytes(k);
    if (low != nullptr) vst1q_u8(low + r, bins);
    if (high != nullptr) {
      uint32x4_t nan[4];
#pragma GCC unroll 4
      for (int32_t i = 0; i < 4; ++i) nan[i] = vmvnq_u32(vceqq_f32(x[i], x[i]));
      static_assert(kTreesNanBin == 255);
      vst1q_u8(high + r, vorrq_u8(bins, as_bytes(nan)));
    }
  }
}

#include "cpu/simd/trees_bin.inc"

using Bytes = uint8x16_t;
inline Bytes bytes_at(const uint8_t* p) { return vld1q_u8(p); }
inline void store_bytes_at(uint8_t* p, Bytes v) { vst1q_u8(p, v); }
inline Bytes in_every_byte(uint32_t value) { return vdupq_n_u8(static_cast<uint8_t>(value)); }
inline Bytes no_bytes() { return vdupq_n_u8(0); }
inline Bytes comparable(Bytes column) { return column; }
inline Bytes cut_after(uint8_t bin) { return in_every_byte(bin); }
inline Bytes at_most(Bytes column, Bytes cut) { return vcleq_u8(column, cut); }
template <int kBits>
inline Bytes bits_up(Bytes a) {
  return vshlq_n_u8(a, kBits);
}
template <int kBits>
inline Bytes bits_down(Bytes a) {
  return vshrq_n_u8(a, kBits);
}
inline Bytes both(Bytes a, Bytes b) { return vandq_u8(a, b); }
inline Bytes either(Bytes a, Bytes b) { return vorrq_u8(a, b); }
inline Bytes one_of(Bytes a, Bytes b) { return veorq_u8(a, b); }
inline Bytes add(Bytes a, Bytes b) { return vaddq_u8(a, b); }
inline Bytes subtract(Bytes a, Bytes b) { return vsubq_u8(a, b); }
inline Bytes choose(Bytes test, Bytes yes, Bytes no) { return vbslq_u8(test, yes, no); }

using Doubles = float64x2_t;
inline Doubles no_doubles() { return vdupq_n_f64(0); }
inline Doubles doubles_at(const double* p) { return vld1q_f64(p); }
inline void store_doubles_at(double* p, Doubles v) { vst1q_f64(p, v); }

inline float32x4_t four_of(const float* table, const uint8_t* numbers) {
  float32x4_t values = vld1q_dup_f32(table + numbers[0]);
  values = vld1q_lane_f32(table + numbers[1], values, 1);
  values = vld1q_lane_f32(table + numbers[2], values, 2);
  return vld1q_lane_f32(table + numbers[3], values, 3);
}

inline __attribute__((always_inline)) void add_leaves(const float* table, const uint8_t*, int32_t,
                                                      const uint8_t* numbers, Doubles (&held)[8]) {
#pragma GCC unroll 4
  for (int32_t i = 0; i < 4; ++i) {
    const float32x4_t values = four_of(table, numbers + 4 * i);
    held[2 * i] = vaddq_f64(held[2 * i], vcvt_f64_f32(vget_low_f32(values)));
    held[2 * i + 1] = vaddq_f64(held[2 * i + 1], vcvt_high_f64_f32(values));
  }
}

#include "cpu/simd/trees_planes.inc"

}  // namespace

const TreesKernels kTreesNeon = {nullptr,     transpose_kernel, bin_kernel,    compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel, 320};

}  // namespace waggle::cpu
