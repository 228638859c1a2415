// 32 rows to a register of bytes.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

void transpose_kernel(const float* x, int64_t stride, int32_t rows, const int32_t* features, int32_t n,
                      float* columns) {
  const int32_t padded = (rows + kTreesBlock - 1) / kTreesBlock * kTreesBlock;
  // Eight rows at a time, so that a row's line is still there for its other features.
  for (int32_t r0 = 0; r0 < padded; r0 += 8) {
    for (int32_t j = 0; j < n; ++j) {
      float* out = columns + static_cast<int64_t>(j) * kTreesTile + r0;
      const float* in = x + r0 * stride + features[j];
      if (r0 + 8 <= rows) {
        for (int32_t i = 0; i < 8; ++i) out[i] = in[i * stride];
      } else {
        for (int32_t i = 0; i < 8; ++i) out[i] = r0 + i < rows ? in[i * stride] : 0.0f;
      }
    }
  }
}

void bin_kernel(const float* column, int32_t blocks, const float* heap, int32_t levels, uint8_t* high, uint8_t* low) {
  const __m256i one = _mm256_set1_epi32(1);
  const __m256i first = _mm256_set1_epi32(1 << levels);
  // The lowest byte of each 32-bit lane, per half.
  const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1,
                                        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i join = _mm256_setr_epi32(0, 4, 1, 1, 1, 1, 1, 1);
  for (int32_t r = 0; r < blocks * kTreesBlock; r += 16) {
    const __m256 x0 = _mm256_load_ps(column + r);
    const __m256 x1 = _mm256_load_ps(column + r + 8);
    __m256i k0 = one;
    __m256i k1 = one;
    for (int32_t l = 0; l < levels; ++l) {
      const __m256 c0 = _mm256_i32gather_ps(heap, k0, 4);
      const __m256 c1 = _mm256_i32gather_ps(heap, k1, 4);
      // A comparison that holds is −1.
      k0 = _mm256_sub_epi32(_mm256_add_epi32(k0, k0), _mm256_castps_si256(_mm256_cmp_ps(c0, x0, _CMP_LE_OQ)));
      k1 = _mm256_sub_epi32(_mm256_add_epi32(k1, k1), _mm256_castps_si256(_mm256_cmp_ps(c1, x1, _CMP_LE_OQ)));
    }
    k0 = _mm256_sub_epi32(k0, first);
    k1 = _mm256_sub_epi32(k1, first);
    const auto store = [&](uint8_t* out, __m256i a, __m256i b) {
      const __m128i bytes_a = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(a, pick), join));
      const __m128i bytes_b = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(b, pick), join));
      _mm_store_si128(reinterpret_cast<__m128i*>(out + r), _mm_unpacklo_epi64(bytes_a, bytes_b));
    };
    // NaN is not at or above any cut, so its k is 0 already.
    if (low != nullptr) store(low, k0, k1);
    if (high != nullptr) {
      const __m256i nan = _mm256_set1_epi32(kTreesNanBin);
      const __m256i nan0 = _mm256_castps_si256(_mm256_cmp_ps(x0, x0, _CMP_UNORD_Q));
      const __m256i nan1 = _mm256_castps_si256(_mm256_cmp_ps(x1, x1, _CMP_UNORD_Q));
      store(high, _mm256_blendv_epi8(k0, nan, nan0), _mm256_blendv_epi8(k1, nan, nan1));
    }
  }
}

inline __m256i bytes_at(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

inline uint32_t at_most(__m256i bytes, __m256i bin) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(bytes, bin), bytes)));
}

inline uint64_t at_most64(const uint8_t* column, __m256i bin) {
  return at_most(bytes_at(column), bin) | static_cast<uint64_t>(at_most(bytes_at(column + 32), bin)) << 32;
}

void compare_kernel(const TreesRun* runs, int32_t n_runs, const uint8_t* bins, const uint8_t* columns, int32_t blocks,
                    uint64_t* planes) {
  for (int32_t i = 0; i < n_runs; ++i) {
    const uint8_t* const column = columns + runs[i].column;
    const uint8_t* const end = bins + runs[i].n;
    for (; bins != end; ++bins) {
      const __m256i bin = _mm256_set1_epi8(static_cast<char>(*bins));
      for (int32_t b = 0; b < blocks; ++b) planes[b] = at_most64(column + b * kTreesBlock, bin);
      planes += kTreesPlaneWords;
    }
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
        bits ^=
            at_most64(columns + terms[t].column + b * kTreesBlock, _mm256_set1_epi8(static_cast<char>(terms[t].bin)));
      }
      plane[b] = bits;
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

// Bit r of the word as bit p of 32-bit lane r.
inline __m256i spread(uint32_t byte, int32_t p) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(byte)), bits), bits);
  return _mm256_and_si256(set, _mm256_set1_epi32(1 << p));
}

void leaves_kernel(const TreesLeaves* trees, int32_t n, const float* tables, const uint8_t*, const uint64_t* planes,
                   int32_t blocks, double* sums) {
  const uint8_t* const base = reinterpret_cast<const uint8_t*>(planes);
  for (int32_t eight = 0; eight < blocks * 8; ++eight) {
    __m256d low = _mm256_setzero_pd();
    __m256d high = low;
    double* kept = nullptr;
    for (int32_t t = 0; t < n; ++t) {
      const TreesLeaves& tree = trees[t];
      __m256i numbers = _mm256_setzero_si256();
      for (int32_t p = 0; p < tree.n_bits; ++p) {
        numbers = _mm256_or_si256(numbers, spread(base[tree.planes[p] + static_cast<uint32_t>(eight)], p));
      }
      const float* table = tables + tree.table;
      const int64_t size = tree.n_bits <= 6 ? 64 : tree.n_bits == 7 ? 128 : 256;
      for (int32_t v = 0; v < tree.n_values; ++v, table += size) {
        double* const wanted = sums + static_cast<int64_t>(tree.target + v) * kTreesTile + 8 * eight;
        if (wanted != kept) {
          if (kept != nullptr) {
            _mm256_store_pd(kept, low);
            _mm256_store_pd(kept + 4, high);
          }
          low = _mm256_load_pd(wanted);
          high = _mm256_load_pd(wanted + 4);
          kept = wanted;
        }
        const __m256 values = _mm256_i32gather_ps(table, numbers, 4);
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
      }
    }
    if (kept != nullptr) {
      _mm256_store_pd(kept, low);
      _mm256_store_pd(kept + 4, high);
    }
  }
}

}  // namespace

const TreesKernels kTreesAvx2 = {nullptr,     transpose_kernel, bin_kernel,   compare_kernel,
                                 sets_kernel, blend_kernel,     leaves_kernel};

}  // namespace waggle::cpu
