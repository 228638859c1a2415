// 32 rows to a register of bytes; see trees_planes.inc.
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kGroup = 32;

#include "cpu/simd/trees_transpose.inc"

// heap[k] of a level's places, 2^level ≤ k < 2^(level + 1). A permutation looks at the low three bits of k only, so up
// to five of them and their blends choose among 32 entries, sooner than a gather does.
inline __m256 entries(const float* table, __m256i k) { return _mm256_permutevar8x32_ps(_mm256_load_ps(table), k); }

inline __m256 choose(__m256 a, __m256 b, __m256i k, int bit) {
  return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(k, 31 - bit)));
}

inline __attribute__((always_inline)) __m256 cut_at(const float* heap, int32_t level, __m256i k) {
  switch (level) {
    case 0:
    case 1:
    case 2:
      return entries(heap, k);
    case 3:
      return entries(heap + 8, k);
    case 4:
      return choose(entries(heap + 16, k), entries(heap + 24, k), k, 3);
    case 5:
      return choose(choose(entries(heap + 32, k), entries(heap + 40, k), k, 3),
                    choose(entries(heap + 48, k), entries(heap + 56, k), k, 3), k, 4);
    default:
      return _mm256_i32gather_ps(heap, k, 4);
  }
}

// 32 numbers below 256 as bytes.
inline void store_bytes(uint8_t* out, const __m256i (&k)[4]) {
  // Packing works on halves: it leaves four-byte pieces in the order 0 2 4 6 1 3 5 7.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i packed = _mm256_packus_epi16(_mm256_packs_epi32(k[0], k[1]), _mm256_packs_epi32(k[2], k[3]));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(packed, order));
}

template <int32_t kLevels>
void bins_of(const float* column, int32_t blocks, const float* heap, uint8_t* high, uint8_t* low) {
  const __m256i first = _mm256_set1_epi32(1 << kLevels);
  const __m256i nan = _mm256_set1_epi32(kTreesNanBin);
  for (int32_t r = 0; r < blocks * kTreesBlock; r += 32) {
    __m256 x[4];
    __m256i k[4];
#pragma GCC unroll 4
    for (int32_t i = 0; i < 4; ++i) {
      x[i] = _mm256_load_ps(column + r + 8 * i);
      k[i] = _mm256_set1_epi32(1);
    }
#pragma GCC unroll 8
    for (int32_t level = 0; level < kLevels; ++level) {
#pragma GCC unroll 4
      for (int32_t i = 0; i < 4; ++i) {
        // A comparison that holds is −1.
        const __m256 reached = _mm256_cmp_ps(cut_at(heap, level, k[i]), x[i], _CMP_LE_OQ);
        k[i] = _mm256_sub_epi32(_mm256_add_epi32(k[i], k[i]), _mm256_castps_si256(reached));
      }
    }
#pragma GCC unroll 4
    for (int32_t i = 0; i < 4; ++i) k[i] = _mm256_sub_epi32(k[i], first);
    // NaN is not at or above any cut, so its k is 0 already.
    if (low != nullptr) store_bytes(low + r, k);
    if (high != nullptr) {
#pragma GCC unroll 4
      for (int32_t i = 0; i < 4; ++i) {
        k[i] = _mm256_blendv_epi8(k[i], nan, _mm256_castps_si256(_mm256_cmp_ps(x[i], x[i], _CMP_UNORD_Q)));
      }
      store_bytes(high + r, k);
    }
  }
}

#include "cpu/simd/trees_bin.inc"

using Bytes = __m256i;
inline Bytes bytes_at(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
inline void store_bytes_at(void* p, Bytes v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
inline Bytes in_every_byte(uint32_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
inline Bytes no_bytes() { return _mm256_setzero_si256(); }
// There is a comparison of signed bytes only: "a ≤ bin" is "bin + 1 > a", all of them less 128. The greatest bin asked
// is 254.
inline Bytes comparable(Bytes column) { return _mm256_xor_si256(column, in_every_byte(0x80)); }
inline Bytes cut_after(uint8_t bin) {
  return _mm256_add_epi8(_mm256_set1_epi8(static_cast<char>(bin)), _mm256_set1_epi8(-127));
}
inline Bytes at_most(Bytes column, Bytes cut) { return _mm256_cmpgt_epi8(cut, column); }
template <int kBits>
inline Bytes bits_up(Bytes a) {
  return _mm256_slli_epi16(a, kBits);
}
template <int kBits>
inline Bytes bits_down(Bytes a) {
  return _mm256_srli_epi16(a, kBits);
}
inline Bytes both(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
inline Bytes either(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
inline Bytes one_of(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
inline Bytes add(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }
inline Bytes subtract(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
inline Bytes choose(Bytes test, Bytes yes, Bytes no) {
  return _mm256_or_si256(_mm256_and_si256(test, yes), _mm256_andnot_si256(test, no));
}

using Doubles = __m256d;
inline Doubles no_doubles() { return _mm256_setzero_pd(); }
inline Doubles doubles_at(const double* p) { return _mm256_load_pd(p); }
inline void store_doubles_at(double* p, Doubles v) { _mm256_store_pd(p, v); }

inline void add_floats(__m256 values, Doubles& low, Doubles& high) {
  low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}

// Values of tables with 16 · kSixteens entries, a byte of each float at a time: among sixteen bytes there is an
// instruction to look up, which answers 0 to an index of 128 or more, as others' entries are made to be.
template <int32_t kSixteens>
inline __attribute__((always_inline)) void add_bytewise(const uint8_t* table, Bytes numbers, Doubles (&held)[8]) {
  Bytes index[kSixteens];
#pragma GCC unroll 4
  for (int32_t q = 0; q < kSixteens; ++q) {
    index[q] = add(one_of(numbers, in_every_byte(static_cast<uint32_t>(q) << 4)), in_every_byte(0x70));
  }
  Bytes of_float[4];
#pragma GCC unroll 4
  for (int32_t b = 0; b < 4; ++b) {
    of_float[b] = no_bytes();
#pragma GCC unroll 4
    for (int32_t q = 0; q < kSixteens; ++q) {
      const __m128i sixteen = _mm_load_si128(reinterpret_cast<const __m128i*>(table + 64 * b + 16 * q));
      of_float[b] = either(of_float[b], _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(sixteen), index[q]));
    }
  }
  // Unpacking works on halves: register i gets rows 4 i … 4 i + 3 and sixteen further.
  const Bytes low[2] = {_mm256_unpacklo_epi8(of_float[0], of_float[1]), _mm256_unpackhi_epi8(of_float[0], of_float[1])};
  const Bytes high[2] = {_mm256_unpacklo_epi8(of_float[2], of_float[3]),
                         _mm256_unpackhi_epi8(of_float[2], of_float[3])};
#pragma GCC unroll 2
  for (int32_t i = 0; i < 2; ++i) {
    add_floats(_mm256_castsi256_ps(_mm256_unpacklo_epi16(low[i], high[i])), held[2 * i], held[2 * i + 4]);
    add_floats(_mm256_castsi256_ps(_mm256_unpackhi_epi16(low[i], high[i])), held[2 * i + 1], held[2 * i + 5]);
  }
}

inline __attribute__((always_inline)) void add_leaves(const float* table, const uint8_t* byte_table, int32_t n_bits,
                                                      const uint8_t* numbers, Doubles (&held)[8]) {
  if (n_bits <= 4) return add_bytewise<1>(byte_table, bytes_at(numbers), held);
  if (n_bits == 5) return add_bytewise<2>(byte_table, bytes_at(numbers), held);
  if (n_bits == 6) return add_bytewise<4>(byte_table, bytes_at(numbers), held);
#pragma GCC unroll 4
  for (int32_t i = 0; i < 4; ++i) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(numbers + 8 * i));
    add_floats(_mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(eight), 4), held[2 * i], held[2 * i + 1]);
  }
}

#include "cpu/simd/trees_planes.inc"

}  // namespace

// 1,024 planes at once: 5 % (200 trees × 64 leaves) and 20 % (500 × 256) sooner than 320 (Zen 3).
const TreesKernels kTreesAvx2 = {nullptr,     transpose_kernel, bin_kernel,    compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel, 1024};

}  // namespace waggle::cpu
