// 32 rows, a group, to a register of bytes. Bit j of byte r of a plane's half h is row 32 · (8h + j) + r of the tile:
// so comparisons become bits by an "and", and bits a group's leaf numbers in the order of its rows, with no way through
// general registers.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kGroup = 32;
constexpr int32_t kHalfGroups = 8;

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

inline __m256i bytes_at(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }

inline __m256i in_every_byte(uint32_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }

inline __m256i bits_of_group(const uint8_t* column, __m256i bin, int32_t j) {
  const __m256i bytes = bytes_at(column + j * kGroup);
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_min_epu8(bytes, bin), bytes), in_every_byte(1u << j));
}

// The bits "≤ bin" of up to eight groups of a half.
inline __m256i at_most(const uint8_t* column, __m256i bin, int32_t n_groups) {
  __m256i bits = _mm256_setzero_si256();
  if (n_groups >= kHalfGroups) {
#pragma GCC unroll 8
    for (int32_t j = 0; j < kHalfGroups; ++j) bits = _mm256_or_si256(bits, bits_of_group(column, bin, j));
  } else {
    for (int32_t j = 0; j < n_groups; ++j) bits = _mm256_or_si256(bits, bits_of_group(column, bin, j));
  }
  return bits;
}

void compare_kernel(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns, int32_t blocks,
                    uint64_t* planes) {
  const int32_t groups = blocks * kTreesBlock / kGroup;
  for (int32_t i = 0; i < n_runs; ++i) {
    const uint8_t* const column = columns + runs[i].column;
    const uint8_t* const end = bins + runs[i].n;
    for (; bins != end; ++bins, planes += kTreesPlaneWords) {
      const __m256i bin = in_every_byte(*bins);
      __m256i* const halves = reinterpret_cast<__m256i*>(planes);
      for (int32_t g = 0; g < groups; g += kHalfGroups) {
        _mm256_store_si256(halves + g / kHalfGroups, at_most(column + g * kGroup, bin, groups - g));
      }
    }
  }
}

void sets_kernel(const TreesSetPlane* sets, int32_t n, const TreesTerm* terms, const uint8_t* columns, int32_t blocks,
                 uint64_t* planes) {
  const int32_t groups = blocks * kTreesBlock / kGroup;
  for (int32_t i = 0; i < n; ++i) {
    const TreesSetPlane& set = sets[i];
    __m256i* const halves = reinterpret_cast<__m256i*>(planes + set.plane / sizeof(uint64_t));
    for (int32_t g = 0; g < groups; g += kHalfGroups) {
      __m256i bits = _mm256_set1_epi32(set.invert != 0 ? -1 : 0);
      for (uint32_t t = set.first; t < set.first + set.n; ++t) {
        const uint8_t* const column = columns + terms[t].column + g * kGroup;
        bits = _mm256_xor_si256(bits, at_most(column, in_every_byte(terms[t].bin), groups - g));
      }
      _mm256_store_si256(halves + g / kHalfGroups, bits);
    }
  }
}

void blend_kernel(const TreesBlend* ops, int32_t n, uint64_t* planes) {
  char* const base = reinterpret_cast<char*>(planes);
  const auto load = [base](uint32_t at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(base + at)); };
  for (int32_t i = 0; i < n; ++i) {
    for (uint32_t half = 0; half < 64; half += 32) {
      const __m256i test = load(ops[i].test + half);
      const __m256i yes = load(ops[i].yes + half);
      const __m256i no = load(ops[i].no + half);
      const __m256i out = _mm256_or_si256(_mm256_and_si256(test, yes), _mm256_andnot_si256(test, no));
      _mm256_store_si256(reinterpret_cast<__m256i*>(base + ops[i].out + half), out);
    }
  }
}

// Leaf numbers of 32 rows at a time, their sums in registers for as long as trees have the same target.
void leaves_kernel(const TreesLeaves* trees, int32_t n, const float* tables, const uint8_t*, const uint64_t* planes,
                   int32_t blocks, double* sums) {
  const uint8_t* const base = reinterpret_cast<const uint8_t*>(planes);
  for (int32_t group = 0; group < blocks * kTreesBlock / kGroup; ++group) {
    const uint8_t* const half = base + group / kHalfGroups * kGroup;
    const __m256i bit = in_every_byte(1u << (group % kHalfGroups));
    __m256d held[8];
#pragma GCC unroll 8
    for (int32_t i = 0; i < 8; ++i) held[i] = _mm256_setzero_pd();
    double* kept = nullptr;
    for (int32_t t = 0; t < n; ++t) {
      const TreesLeaves& tree = trees[t];
      __m256i packed = _mm256_setzero_si256();
      for (int32_t p = tree.n_bits - 1; p >= 0; --p) {
        const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes_at(half + tree.planes[p]), bit), bit);
        packed = _mm256_sub_epi8(_mm256_add_epi8(packed, packed), set);
      }
      alignas(32) uint8_t numbers[kGroup];
      _mm256_store_si256(reinterpret_cast<__m256i*>(numbers), packed);
      const float* table = tables + tree.table;
      const int64_t size = tree.n_bits <= 6 ? 64 : tree.n_bits == 7 ? 128 : 256;
      for (int32_t v = 0; v < tree.n_values; ++v, table += size) {
        double* const wanted = sums + static_cast<int64_t>(tree.target + v) * kTreesTile + kGroup * group;
        if (wanted != kept) {
          if (kept != nullptr) {
#pragma GCC unroll 8
            for (int32_t i = 0; i < 8; ++i) _mm256_store_pd(kept + 4 * i, held[i]);
          }
#pragma GCC unroll 8
          for (int32_t i = 0; i < 8; ++i) held[i] = _mm256_load_pd(wanted + 4 * i);
          kept = wanted;
        }
#pragma GCC unroll 4
        for (int32_t i = 0; i < 4; ++i) {
          const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(numbers + 8 * i));
          const __m256 values = _mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(eight), 4);
          held[2 * i] = _mm256_add_pd(held[2 * i], _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
          held[2 * i + 1] = _mm256_add_pd(held[2 * i + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
        }
      }
    }
    if (kept != nullptr) {
#pragma GCC unroll 8
      for (int32_t i = 0; i < 8; ++i) _mm256_store_pd(kept + 4 * i, held[i]);
    }
  }
}

}  // namespace

const TreesKernels kTreesAvx2 = {nullptr,     transpose_kernel, bin_kernel,   compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel};

}  // namespace waggle::cpu
