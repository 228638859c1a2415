// 64 rows to a register of bytes; needs permutations of bytes (VBMI).
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

// ---- columns ------------------------------------------------------------------------------------------------

// 16 × 16 floats: rows in, columns out.
inline void transpose16(__m512 r[16]) {
  __m512 t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(t[4 * i]);
    const __m512d b = _mm512_castps_pd(t[4 * i + 1]);
    const __m512d c = _mm512_castps_pd(t[4 * i + 2]);
    const __m512d d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

void transpose_kernel(const float* x, int64_t stride, int32_t rows, const int32_t* features, int32_t n,
                      float* columns) {
  const int32_t padded = (rows + kTreesBlock - 1) / kTreesBlock * kTreesBlock;
  for (int32_t j = 0; j < n;) {
    // Features [features[j], features[j] + 16), of which the wanted ones are stored.
    const int32_t first = features[j];
    int32_t count = 1;
    while (j + count < n && features[j + count] < first + 16) ++count;
    const int64_t left = stride - first;
    const __mmask16 inside = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1u);
    for (int32_t r = 0; r < padded; r += 16) {
      __m512 block[16];
      for (int32_t i = 0; i < 16; ++i) {
        block[i] = r + i < rows ? _mm512_maskz_loadu_ps(inside, x + (r + i) * stride + first) : _mm512_setzero_ps();
      }
      transpose16(block);
      alignas(64) float out[16][16];
      for (int32_t i = 0; i < 16; ++i) _mm512_store_ps(out[i], block[i]);
      for (int32_t c = 0; c < count; ++c) {
        _mm512_store_ps(columns + static_cast<int64_t>(j + c) * kTreesTile + r,
                        _mm512_load_ps(out[features[j + c] - first]));
      }
    }
    j += count;
  }
}

// heap[2^level + k] for each k < 2^level.
template <int kLevel>
inline __m512 candidates(const float* heap, __m512i k) {
  if constexpr (kLevel <= 4) {
    // Loads past the level's entries, inside the heap; k never asks for those.
    return _mm512_permutexvar_ps(k, _mm512_loadu_ps(heap + (1 << kLevel)));
  } else if constexpr (kLevel == 5) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(heap + 32), k, _mm512_loadu_ps(heap + 48));
  } else {
    // Pairs of registers by the low five bits, then chosen by the bits above.
    constexpr int kPairs = (1 << kLevel) / 32;
    __m512 found =
        _mm512_permutex2var_ps(_mm512_loadu_ps(heap + (1 << kLevel)), k, _mm512_loadu_ps(heap + (1 << kLevel) + 16));
    const __mmask16 bit5 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(32));
    const __m512 second = _mm512_permutex2var_ps(_mm512_loadu_ps(heap + (1 << kLevel) + 32), k,
                                                 _mm512_loadu_ps(heap + (1 << kLevel) + 48));
    found = _mm512_mask_blend_ps(bit5, found, second);
    if constexpr (kPairs == 4) {
      __m512 upper = _mm512_permutex2var_ps(_mm512_loadu_ps(heap + (1 << kLevel) + 64), k,
                                            _mm512_loadu_ps(heap + (1 << kLevel) + 80));
      const __m512 fourth = _mm512_permutex2var_ps(_mm512_loadu_ps(heap + (1 << kLevel) + 96), k,
                                                   _mm512_loadu_ps(heap + (1 << kLevel) + 112));
      upper = _mm512_mask_blend_ps(bit5, upper, fourth);
      found = _mm512_mask_blend_ps(_mm512_test_epi32_mask(k, _mm512_set1_epi32(64)), found, upper);
    }
    return found;
  }
}

template <int kLevel, int kLevels>
inline void descend(const float* heap, const __m512 x[4], __m512i k[4]) {
  if constexpr (kLevel < kLevels) {
    const __m512i one = _mm512_set1_epi32(1);
    for (int i = 0; i < 4; ++i) {
      const __mmask16 above = _mm512_cmp_ps_mask(candidates<kLevel>(heap, k[i]), x[i], _CMP_LE_OQ);
      k[i] = _mm512_add_epi32(k[i], k[i]);
      k[i] = _mm512_mask_add_epi32(k[i], above, k[i], one);
    }
    descend<kLevel + 1, kLevels>(heap, x, k);
  }
}

template <int kLevels>
void bins_of(const float* column, int32_t blocks, const float* heap, uint8_t* high, uint8_t* low) {
  for (int32_t b = 0; b < blocks; ++b) {
    __m512 x[4];
    __m512i k[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = _mm512_load_ps(column + b * kTreesBlock + 16 * i);
      k[i] = _mm512_setzero_si512();
    }
    descend<0, kLevels>(heap, x, k);
    for (int i = 0; i < 4; ++i) {
      const __mmask16 nan = _mm512_cmp_ps_mask(x[i], x[i], _CMP_UNORD_Q);
      const int64_t at = static_cast<int64_t>(b) * kTreesBlock + 16 * i;
      // NaN is not at or above any cut, so its k is 0 already.
      if (low != nullptr) _mm_store_si128(reinterpret_cast<__m128i*>(low + at), _mm512_cvtepi32_epi8(k[i]));
      if (high != nullptr) {
        const __m512i bins = _mm512_mask_mov_epi32(k[i], nan, _mm512_set1_epi32(kTreesNanBin));
        _mm_store_si128(reinterpret_cast<__m128i*>(high + at), _mm512_cvtepi32_epi8(bins));
      }
    }
  }
}

#include "cpu/simd/trees_bin.inc"

// ---- planes -------------------------------------------------------------------------------------------------

inline __m512i bytes_at(const uint8_t* p) { return _mm512_load_si512(p); }

template <int kBlocks>
void compare_blocks(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns,
                    uint64_t* planes) {
  for (int32_t i = 0; i < n_runs; ++i) {
    __m512i column[kBlocks];
    for (int b = 0; b < kBlocks; ++b) column[b] = bytes_at(columns + runs[i].column + b * kTreesBlock);
    const uint8_t* const end = bins + runs[i].n;
    for (; bins != end; ++bins) {
      const __m512i bin = _mm512_set1_epi8(static_cast<char>(*bins));
      for (int b = 0; b < kBlocks; ++b) {
        uint64_t bits = _cvtmask64_u64(_mm512_cmple_epu8_mask(column[b], bin));
        // A mask register is stored every other cycle, and moved to a general one every other: taking turns, a third
        // of the time is saved (Zen 4).
        if ((b & 1) != 0) __asm__("" : "+r"(bits));
        planes[b] = bits;
      }
      planes += kTreesPlaneWords;
    }
  }
}

void compare_kernel(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns, int32_t blocks,
                    uint64_t* planes) {
  switch (blocks) {
    case 1:
      return compare_blocks<1>(runs, n_runs, bins, columns, planes);
    case 2:
      return compare_blocks<2>(runs, n_runs, bins, columns, planes);
    case 3:
      return compare_blocks<3>(runs, n_runs, bins, columns, planes);
    case 4:
      return compare_blocks<4>(runs, n_runs, bins, columns, planes);
    case 5:
      return compare_blocks<5>(runs, n_runs, bins, columns, planes);
    case 6:
      return compare_blocks<6>(runs, n_runs, bins, columns, planes);
    case 7:
      return compare_blocks<7>(runs, n_runs, bins, columns, planes);
    default:
      return compare_blocks<8>(runs, n_runs, bins, columns, planes);
  }
}

void sets_kernel(const TreesSetPlane* sets, int32_t n, const TreesTerm* terms, const uint8_t* columns, int32_t blocks,
                 uint64_t* planes) {
  for (int32_t i = 0; i < n; ++i) {
    const TreesSetPlane& set = sets[i];
    uint64_t* plane = planes + set.plane / sizeof(uint64_t);
    for (int32_t b = 0; b < blocks; ++b) {
      uint64_t bits = set.invert != 0 ? ~uint64_t{0} : 0;
      for (uint32_t t = set.first; t < set.first + set.n; ++t) {
        const __m512i bin = _mm512_set1_epi8(static_cast<char>(terms[t].bin));
        bits ^= _cvtmask64_u64(_mm512_cmple_epu8_mask(bytes_at(columns + terms[t].column + b * kTreesBlock), bin));
      }
      plane[b] = bits;
    }
  }
}

void blend_kernel(const TreesBlend* ops, int32_t n, uint64_t* planes) {
  char* const base = reinterpret_cast<char*>(planes);
  for (int32_t i = 0; i < n; ++i) {
    const __m512i test = _mm512_load_si512(base + ops[i].test);
    const __m512i yes = _mm512_load_si512(base + ops[i].yes);
    const __m512i no = _mm512_load_si512(base + ops[i].no);
    _mm512_store_si512(base + ops[i].out, _mm512_ternarylogic_epi64(test, yes, no, 0xca));
  }
}

// ---- leaves -------------------------------------------------------------------------------------------------

// Bytes 0 … 3 of 64 table entries → what adds up, in four registers of 16 floats, to the order of the rows: entry i of
// `numbers` was put where the unpacking below wants it.
template <int kBits>
inline __m512i look_up(const uint8_t* table, __m512i numbers, __mmask64 upper) {
  if constexpr (kBits == 6) {
    return _mm512_permutexvar_epi8(numbers, bytes_at(table));
  } else if constexpr (kBits == 7) {
    return _mm512_permutex2var_epi8(bytes_at(table), numbers, bytes_at(table + 64));
  } else {
    const __m512i low = _mm512_permutex2var_epi8(bytes_at(table), numbers, bytes_at(table + 64));
    const __m512i high = _mm512_permutex2var_epi8(bytes_at(table + 128), numbers, bytes_at(table + 192));
    return _mm512_mask_blend_epi8(upper, low, high);
  }
}

template <int kBits>
inline void add_values(const uint8_t* table, __m512i numbers, __m512d sums[8]) {
  constexpr int kSize = 1 << kBits;
  const __mmask64 upper = kBits == 8 ? _mm512_movepi8_mask(numbers) : 0;
  const __m512i b0 = look_up<kBits>(table, numbers, upper);
  const __m512i b1 = look_up<kBits>(table + kSize, numbers, upper);
  const __m512i b2 = look_up<kBits>(table + 2 * kSize, numbers, upper);
  const __m512i b3 = look_up<kBits>(table + 3 * kSize, numbers, upper);
  const __m512i low01 = _mm512_unpacklo_epi8(b0, b1);
  const __m512i high01 = _mm512_unpackhi_epi8(b0, b1);
  const __m512i low23 = _mm512_unpacklo_epi8(b2, b3);
  const __m512i high23 = _mm512_unpackhi_epi8(b2, b3);
  const __m512i values[4] = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
                             _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
  for (int v = 0; v < 4; ++v) {
    const __m512 floats = _mm512_castsi512_ps(values[v]);
    sums[2 * v] = _mm512_add_pd(sums[2 * v], _mm512_cvtps_pd(_mm512_castps512_ps256(floats)));
    sums[2 * v + 1] = _mm512_add_pd(sums[2 * v + 1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(floats, 1)));
  }
}

inline void load_sums(const double* from, __m512d sums[8]) {
  for (int i = 0; i < 8; ++i) sums[i] = _mm512_load_pd(from + 8 * i);
}

inline void store_sums(double* to, const __m512d sums[8]) {
  for (int i = 0; i < 8; ++i) _mm512_store_pd(to + 8 * i, sums[i]);
}

void leaves_kernel(const TreesLeaves* trees, int32_t n, const float*, const uint8_t* tables, const uint64_t* planes,
                   int32_t blocks, double* sums) {
  // Byte 16 L + 4 v + j of the numbers ends in register v, 32-bit lane 4 L + j: row 16 v + 4 L + j belongs there.
  alignas(64) uint8_t order_bytes[64];
  for (int l = 0; l < 4; ++l) {
    for (int v = 0; v < 4; ++v) {
      for (int j = 0; j < 4; ++j) order_bytes[16 * l + 4 * v + j] = static_cast<uint8_t>(16 * v + 4 * l + j);
    }
  }
  const __m512i order = _mm512_load_si512(order_bytes);
  const char* const base = reinterpret_cast<const char*>(planes);
  for (int32_t b = 0; b < blocks; ++b) {
    __m512d kept[8];
    int32_t kept_target = -1;
    for (int32_t t = 0; t < n; ++t) {
      const TreesLeaves& tree = trees[t];
      __m512i numbers = _mm512_setzero_si512();
      for (int32_t p = 0; p < tree.n_bits; ++p) {
        const __mmask64 bit = *reinterpret_cast<const uint64_t*>(base + tree.planes[p] + 8 * b);
        numbers = _mm512_mask_add_epi8(numbers, bit, numbers, _mm512_set1_epi8(static_cast<char>(1 << p)));
      }
      numbers = _mm512_permutexvar_epi8(order, numbers);
      const uint8_t* table = tables + static_cast<int64_t>(tree.table) * 4;
      for (int32_t v = 0; v < tree.n_values; ++v) {
        const int32_t target = tree.target + v;
        if (target != kept_target) {
          if (kept_target >= 0) store_sums(sums + static_cast<int64_t>(kept_target) * kTreesTile + b * 64, kept);
          load_sums(sums + static_cast<int64_t>(target) * kTreesTile + b * 64, kept);
          kept_target = target;
        }
        if (tree.n_bits <= 6) {
          add_values<6>(table, numbers, kept);
          table += 4 * 64;
        } else if (tree.n_bits == 7) {
          add_values<7>(table, numbers, kept);
          table += 4 * 128;
        } else {
          add_values<8>(table, numbers, kept);
          table += 4 * 256;
        }
      }
    }
    if (kept_target >= 0) store_sums(sums + static_cast<int64_t>(kept_target) * kTreesTile + b * 64, kept);
  }
}

}  // namespace

const TreesKernels kTreesVbmi = {nullptr,     transpose_kernel, bin_kernel,    compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel, 320};

}  // namespace waggle::cpu
