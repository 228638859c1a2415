// 16 rows, a group, to a register of bytes. Bit j of byte r of a plane's quarter q is row 16 · (8q + j) + r of the
// tile: so comparisons become bits by an "and", and bits a group's leaf numbers in the order of its rows.
#include <arm_neon.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kGroup = 16;
constexpr int32_t kQuarterGroups = 8;
constexpr uint32_t kQuarters = 4;
constexpr int32_t kGroupsPerBlock = kTreesBlock / kGroup;

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

void bin_kernel(const float* column, int32_t blocks, const float* heap, int32_t levels, uint8_t* high, uint8_t* low) {
  switch (levels) {
    case 0:
      return bins_of<0>(column, blocks, heap, high, low);
    case 1:
      return bins_of<1>(column, blocks, heap, high, low);
    case 2:
      return bins_of<2>(column, blocks, heap, high, low);
    case 3:
      return bins_of<3>(column, blocks, heap, high, low);
    case 4:
      return bins_of<4>(column, blocks, heap, high, low);
    case 5:
      return bins_of<5>(column, blocks, heap, high, low);
    case 6:
      return bins_of<6>(column, blocks, heap, high, low);
    case 7:
      return bins_of<7>(column, blocks, heap, high, low);
    default:
      return bins_of<8>(column, blocks, heap, high, low);
  }
}

inline uint8x16_t bits_of_group(const uint8_t* column, uint8x16_t bin, int32_t j) {
  return vandq_u8(vcleq_u8(vld1q_u8(column + j * kGroup), bin), vdupq_n_u8(static_cast<uint8_t>(1u << j)));
}

// The bits "≤ bin" of up to eight groups of a quarter.
inline uint8x16_t at_most(const uint8_t* column, uint8x16_t bin, int32_t n_groups) {
  uint8x16_t bits = vdupq_n_u8(0);
  if (n_groups >= kQuarterGroups) {
#pragma GCC unroll 8
    for (int32_t j = 0; j < kQuarterGroups; ++j) bits = vorrq_u8(bits, bits_of_group(column, bin, j));
  } else {
    for (int32_t j = 0; j < n_groups; ++j) bits = vorrq_u8(bits, bits_of_group(column, bin, j));
  }
  return bits;
}

void compare_kernel(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns, int32_t blocks,
                    uint64_t* planes) {
  const int32_t groups = blocks * kGroupsPerBlock;
  for (int32_t i = 0; i < n_runs; ++i) {
    const uint8_t* const column = columns + runs[i].column;
    const uint8_t* const end = bins + runs[i].n;
    for (; bins != end; ++bins, planes += kTreesPlaneWords) {
      const uint8x16_t bin = vdupq_n_u8(*bins);
      uint8_t* const quarters = reinterpret_cast<uint8_t*>(planes);
      for (int32_t g = 0; g < groups; g += kQuarterGroups) {
        vst1q_u8(quarters + g / kQuarterGroups * kGroup, at_most(column + g * kGroup, bin, groups - g));
      }
    }
  }
}

void sets_kernel(const TreesSetPlane* sets, int32_t n, const TreesTerm* terms, const uint8_t* columns, int32_t blocks,
                 uint64_t* planes) {
  const int32_t groups = blocks * kGroupsPerBlock;
  for (int32_t i = 0; i < n; ++i) {
    const TreesSetPlane& set = sets[i];
    uint8_t* const quarters = reinterpret_cast<uint8_t*>(planes) + set.plane;
    for (int32_t g = 0; g < groups; g += kQuarterGroups) {
      uint8x16_t bits = vdupq_n_u8(set.invert != 0 ? 0xff : 0);
      for (uint32_t t = set.first; t < set.first + set.n; ++t) {
        const uint8_t* const column = columns + terms[t].column + g * kGroup;
        bits = veorq_u8(bits, at_most(column, vdupq_n_u8(static_cast<uint8_t>(terms[t].bin)), groups - g));
      }
      vst1q_u8(quarters + g / kQuarterGroups * kGroup, bits);
    }
  }
}

void blend_kernel(const TreesBlend* ops, int32_t n, uint64_t* planes) {
  uint8_t* const base = reinterpret_cast<uint8_t*>(planes);
  for (int32_t i = 0; i < n; ++i) {
#pragma GCC unroll 4
    for (uint32_t at = 0; at < kQuarters * kGroup; at += kGroup) {
      vst1q_u8(base + ops[i].out + at, vbslq_u8(vld1q_u8(base + ops[i].test + at), vld1q_u8(base + ops[i].yes + at),
                                                vld1q_u8(base + ops[i].no + at)));
    }
  }
}

inline float32x4_t four_of(const float* table, const uint8_t* numbers) {
  float32x4_t values = vld1q_dup_f32(table + numbers[0]);
  values = vld1q_lane_f32(table + numbers[1], values, 1);
  values = vld1q_lane_f32(table + numbers[2], values, 2);
  return vld1q_lane_f32(table + numbers[3], values, 3);
}

// Leaf numbers of 16 rows at a time, their sums in registers for as long as trees have the same target.
void leaves_kernel(const TreesLeaves* trees, int32_t n, const float* tables, const uint8_t*, const uint64_t* planes,
                   int32_t blocks, double* sums) {
  const uint8_t* const base = reinterpret_cast<const uint8_t*>(planes);
  for (int32_t group = 0; group < blocks * kGroupsPerBlock; ++group) {
    const uint8_t* const quarter = base + group / kQuarterGroups * kGroup;
    const uint8x16_t bit = vdupq_n_u8(static_cast<uint8_t>(1u << (group % kQuarterGroups)));
    float64x2_t held[8];
#pragma GCC unroll 8
    for (int32_t i = 0; i < 8; ++i) held[i] = vdupq_n_f64(0);
    double* kept = nullptr;
    for (int32_t t = 0; t < n; ++t) {
      const TreesLeaves& tree = trees[t];
      uint8x16_t packed = vdupq_n_u8(0);
      for (int32_t p = tree.n_bits - 1; p >= 0; --p) {
        // A bit that is set is −1.
        packed = vsubq_u8(vaddq_u8(packed, packed), vtstq_u8(vld1q_u8(quarter + tree.planes[p]), bit));
      }
      uint8_t numbers[kGroup];
      vst1q_u8(numbers, packed);
      const float* table = tables + tree.table;
      const int64_t size = tree.n_bits <= 6 ? 64 : tree.n_bits == 7 ? 128 : 256;
      for (int32_t v = 0; v < tree.n_values; ++v, table += size) {
        double* const wanted = sums + static_cast<int64_t>(tree.target + v) * kTreesTile + kGroup * group;
        if (wanted != kept) {
          if (kept != nullptr) {
#pragma GCC unroll 8
            for (int32_t i = 0; i < 8; ++i) vst1q_f64(kept + 2 * i, held[i]);
          }
#pragma GCC unroll 8
          for (int32_t i = 0; i < 8; ++i) held[i] = vld1q_f64(wanted + 2 * i);
          kept = wanted;
        }
#pragma GCC unroll 4
        for (int32_t i = 0; i < 4; ++i) {
          const float32x4_t values = four_of(table, numbers + 4 * i);
          held[2 * i] = vaddq_f64(held[2 * i], vcvt_f64_f32(vget_low_f32(values)));
          held[2 * i + 1] = vaddq_f64(held[2 * i + 1], vcvt_high_f64_f32(values));
        }
      }
    }
    if (kept != nullptr) {
#pragma GCC unroll 8
      for (int32_t i = 0; i < 8; ++i) vst1q_f64(kept + 2 * i, held[i]);
    }
  }
}

}  // namespace

const TreesKernels kTreesNeon = {nullptr,     transpose_kernel, bin_kernel,   compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel};

}  // namespace waggle::cpu
