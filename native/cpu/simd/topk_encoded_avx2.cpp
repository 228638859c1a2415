// As scan_avx512.inc with eight lanes: 3 panels × 4 queries keep 12 accumulators. Int8 codes become 16-bit pairs, so
// the query keeps 15 bits; bf16 becomes float. Few queries: one row after the other, as memory is read fastest, up to
// four queries sharing what was loaded of it.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr int32_t kLanes = 8;
constexpr int32_t kBlockQueries = 4;
constexpr int32_t kBlockPanels = 3;
constexpr int32_t kRowsAtOnce = 4;
constexpr int64_t kBytesAhead = 1024;
constexpr int32_t kScatteredRowsAhead = 8;
constexpr int32_t kMostByRows = 12;

inline __m256i load128(const void* p) {
  return _mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

// n < 16 bytes, the others zero; a mask cannot stop a byte load from crossing into a page that is not there.
inline __m128i load_bytes(const void* p, int64_t n) {
  alignas(16) uint8_t bytes[16] = {};
  for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<const uint8_t*>(p)[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
}

struct FloatOp {
  static constexpr int64_t kValues = 1;
  static inline __m256i step(__m256i sum, __m256i row, __m256i query) {
    return _mm256_castps_si256(
        _mm256_fmadd_ps(_mm256_castsi256_ps(row), _mm256_castsi256_ps(query), _mm256_castsi256_ps(sum)));
  }
  static inline __m256i add(__m256i a, __m256i b) {
    return _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
  }
  static inline __m128i add(__m128i a, __m128i b) {
    return _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b)));
  }
};

struct F16 : FloatOp {
  static constexpr int64_t kBytes = 2;
  static inline __m256i convert(__m128i halves) { return _mm256_castps_si256(_mm256_cvtph_ps(halves)); }
  static inline __m256i load(const void* row, int64_t i) {
    return convert(_mm256_castsi256_si128(load128(static_cast<const uint16_t*>(row) + i)));
  }
  static inline __m256i load(const void* row, int64_t i, int64_t n) {
    return n >= kLanes ? load(row, i) : convert(load_bytes(static_cast<const uint16_t*>(row) + i, n < 0 ? 0 : 2 * n));
  }
};

struct Bf16 : FloatOp {
  static constexpr int64_t kBytes = 2;
  static inline __m256i convert(__m128i halves) { return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16); }
  static inline __m256i load(const void* row, int64_t i) {
    return convert(_mm256_castsi256_si128(load128(static_cast<const uint16_t*>(row) + i)));
  }
  static inline __m256i load(const void* row, int64_t i, int64_t n) {
    return n >= kLanes ? load(row, i) : convert(load_bytes(static_cast<const uint16_t*>(row) + i, n < 0 ? 0 : 2 * n));
  }
};

struct Int8 {
  static constexpr int64_t kValues = 2;
  static constexpr int64_t kBytes = 1;
  static inline __m256i load(const void* row, int64_t i) {
    return _mm256_cvtepi8_epi16(_mm256_castsi256_si128(load128(static_cast<const int8_t*>(row) + i)));
  }
  static inline __m256i load(const void* row, int64_t i, int64_t n) {
    return n >= 2 * kLanes ? load(row, i)
                           : _mm256_cvtepi8_epi16(load_bytes(static_cast<const int8_t*>(row) + i, n < 0 ? 0 : n));
  }
  static inline __m256i step(__m256i sum, __m256i row, __m256i query) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(row, query));
  }
  static inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
  static inline __m128i add(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }
};

template <typename Op>
inline __m128i fold(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i ab = Op::add(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  const __m256i cd = Op::add(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
  const __m256i abcd = Op::add(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return Op::add(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
}

template <typename Op, int32_t Q>
void row_group(const void* const* rows, int32_t n_rows, int32_t n_left, int32_t rows_ahead, int64_t dim,
               const void* const* queries, const int32_t* starts, int32_t* out, int64_t ld) {
  constexpr int64_t kStep = int64_t{kLanes} * Op::kValues;
  constexpr int64_t kLine = 64 / Op::kBytes;  // values
  constexpr int32_t kParts = static_cast<int32_t>(kLine / kStep);
  constexpr int32_t kSums = Q > 2 ? 2 : 4;  // of a row and a query, for a step does not wait for the one before
  __m256i total[Q][kRowsAtOnce];
#pragma GCC unroll 4
  for (int32_t r = 0; r < kRowsAtOnce; ++r) {
    const void* const row = rows[r < n_rows ? r : 0];
    const char* const ahead = static_cast<const char*>(rows[r + rows_ahead < n_left ? r + rows_ahead : n_left - 1]);
    __m256i sum[Q][kSums];
#pragma GCC unroll 4
    for (int32_t q = 0; q < Q; ++q) {
      sum[q][0] = _mm256_zextsi128_si256(_mm_cvtsi32_si128(starts[q]));
#pragma GCC unroll 4
      for (int32_t j = 1; j < kSums; ++j) sum[q][j] = _mm256_setzero_si256();
    }
    int64_t i = 0;
    int64_t unit = 0;
    for (; i + kLine <= dim; i += kLine) {
      __builtin_prefetch(ahead + i * Op::kBytes, 0, 3);
#pragma GCC unroll 4
      for (int32_t j = 0; j < kParts; ++j, unit += kLanes) {
        const __m256i b = Op::load(row, i + j * kStep);
#pragma GCC unroll 4
        for (int32_t q = 0; q < Q; ++q) {
          const __m256i a =
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const int32_t*>(queries[q]) + unit));
          sum[q][j % kSums] = Op::step(sum[q][j % kSums], b, a);
        }
      }
    }
    for (; i < dim; i += kStep, unit += kLanes) {
      const __m256i b = Op::load(row, i, dim - i);
#pragma GCC unroll 4
      for (int32_t q = 0; q < Q; ++q) {
        const __m256i a =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const int32_t*>(queries[q]) + unit));
        sum[q][0] = Op::step(sum[q][0], b, a);
      }
    }
#pragma GCC unroll 4
    for (int32_t q = 0; q < Q; ++q) {
      total[q][r] = Op::add(sum[q][0], sum[q][1]);
      if constexpr (kSums == 4) total[q][r] = Op::add(total[q][r], Op::add(sum[q][2], sum[q][3]));
    }
  }
#pragma GCC unroll 4
  for (int32_t q = 0; q < Q; ++q) {
    const __m128i folded = fold<Op>(total[q][0], total[q][1], total[q][2], total[q][3]);
    if (n_rows == kRowsAtOnce) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + q * ld), folded);
    } else {
      alignas(16) int32_t values[4];
      _mm_store_si128(reinterpret_cast<__m128i*>(values), folded);
      for (int32_t r = 0; r < n_rows; ++r) out[q * ld + r] = values[r];
    }
  }
}

template <typename Op>
void rows_kernel(const void* const* rows, int32_t n_rows, int64_t dim, const void* const* queries,
                 const int32_t* starts, int32_t n_queries, void* out, int64_t ld) {
  const int64_t row_bytes = dim * Op::kBytes;
  // Scattered rows lie in pages of their own, which take longest to find.
  const bool in_order =
      static_cast<const char*>(rows[n_rows - 1]) - static_cast<const char*>(rows[0]) == (n_rows - 1) * row_bytes;
  const int32_t rows_ahead =
      in_order ? static_cast<int32_t>((kBytesAhead + row_bytes - 1) / row_bytes) : kScatteredRowsAhead;
  for (int32_t r = 0; r < n_rows; r += kRowsAtOnce) {
    const int32_t left = n_rows - r;
    const int32_t n = left < kRowsAtOnce ? left : kRowsAtOnce;
    int32_t* corner = static_cast<int32_t*>(out) + r;
    switch (n_queries) {
      case 1:
        row_group<Op, 1>(rows + r, n, left, rows_ahead, dim, queries, starts, corner, ld);
        break;
      case 2:
        row_group<Op, 2>(rows + r, n, left, rows_ahead, dim, queries, starts, corner, ld);
        break;
      case 3:
        row_group<Op, 3>(rows + r, n, left, rows_ahead, dim, queries, starts, corner, ld);
        break;
      default:
        row_group<Op, 4>(rows + r, n, left, rows_ahead, dim, queries, starts, corner, ld);
        break;
    }
  }
}

// v[r] lane u becomes v[u] lane r.
inline void transpose(__m256i* v) {
  __m256i t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    v[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x20);
    t[4 + j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = t[i];
}

template <typename Op>
void pack_kernel(const void* const* rows, int32_t n_rows, int64_t dim, void* panels) {
  constexpr int64_t kStep = int64_t{kLanes} * Op::kValues;
  const int64_t n_units = (dim + Op::kValues - 1) / Op::kValues;
  __m256i* out = static_cast<__m256i*>(panels);
  for (int32_t r = 0; r < n_rows; r += kLanes, out += n_units) {
    const int32_t n = n_rows - r < kLanes ? n_rows - r : kLanes;
    for (int64_t unit = 0; unit < n_units; unit += kLanes) {
      const int64_t i = unit * Op::kValues;
      __m256i v[kLanes];
      if (n == kLanes && i + kStep <= dim) {
#pragma GCC unroll 8
        for (int32_t lane = 0; lane < kLanes; ++lane) v[lane] = Op::load(rows[r + lane], i);
      } else {
        for (int32_t lane = 0; lane < kLanes; ++lane) {
          v[lane] = lane < n ? Op::load(rows[r + lane], i, dim - i) : _mm256_setzero_si256();
        }
      }
      transpose(v);
      if (unit + kLanes <= n_units) {
#pragma GCC unroll 8
        for (int32_t u = 0; u < kLanes; ++u) _mm256_storeu_si256(out + unit + u, v[u]);
        continue;
      }
      const int64_t count = n_units - unit;
      for (int64_t u = 0; u < count; ++u) _mm256_storeu_si256(out + unit + u, v[u]);
    }
  }
}

template <typename Op, int32_t P, int32_t Q>
void panel_block(const __m256i* panels, int64_t n_units, const int32_t* block, const int32_t* starts, int32_t* out,
                 int64_t ld) {
  __m256i sum[Q][P];
#pragma GCC unroll 4
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int32_t p = 0; p < P; ++p) sum[q][p] = _mm256_set1_epi32(starts[q]);
  }
  for (int64_t u = 0; u < n_units; ++u) {
    __m256i row[P];
#pragma GCC unroll 4
    for (int32_t p = 0; p < P; ++p) row[p] = _mm256_loadu_si256(panels + p * n_units + u);
#pragma GCC unroll 4
    for (int32_t q = 0; q < Q; ++q) {
      const __m256i query = _mm256_set1_epi32(block[u * kBlockQueries + q]);
#pragma GCC unroll 4
      for (int32_t p = 0; p < P; ++p) sum[q][p] = Op::step(sum[q][p], row[p], query);
    }
  }
#pragma GCC unroll 4
  for (int32_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int32_t p = 0; p < P; ++p) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + q * ld + p * kLanes), sum[q][p]);
    }
  }
}

template <typename Op, int32_t Q>
void panels_of_queries(const __m256i* panels, int32_t n_panels, int64_t n_units, const int32_t* block,
                       const int32_t* starts, int32_t* out, int64_t ld) {
  int32_t p = 0;
  for (; p + kBlockPanels <= n_panels; p += kBlockPanels) {
    panel_block<Op, kBlockPanels, Q>(panels + p * n_units, n_units, block, starts, out + p * kLanes, ld);
  }
  for (; p < n_panels; ++p) {
    panel_block<Op, 1, Q>(panels + p * n_units, n_units, block, starts, out + p * kLanes, ld);
  }
}

// Blocks are padded with zero queries, so a rounded-up count computes sums that nobody reads: out has room for them.
template <typename Op>
void panels_kernel(const void* panels, int32_t n_panels, int64_t n_units, const void* block, const int32_t* starts,
                   int32_t n_queries, void* out, int64_t ld) {
  const __m256i* p = static_cast<const __m256i*>(panels);
  const int32_t* b = static_cast<const int32_t*>(block);
  int32_t* o = static_cast<int32_t*>(out);
  if (n_queries > 2) return panels_of_queries<Op, 4>(p, n_panels, n_units, b, starts, o, ld);
  if (n_queries > 1) return panels_of_queries<Op, 2>(p, n_panels, n_units, b, starts, o, ld);
  panels_of_queries<Op, 1>(p, n_panels, n_units, b, starts, o, ld);
}

int32_t collect_kernel(const void* sums, const void* low_sums, int32_t integer, const float* scale, const float* error,
                       const float* norm, int32_t n, const FilterLine* line, int32_t* out, float* out_sums) {
  const __m256 slope = _mm256_set1_ps(line->slope);
  const __m256 error_weight = _mm256_set1_ps(line->error_weight);
  const __m256 norm_weight = _mm256_set1_ps(line->norm_weight);
  const __m256 square_weight = _mm256_set1_ps(line->square_weight);
  const __m256 level = _mm256_set1_ps(line->level);
  int32_t count = 0;
  // Tiles are padded to whole registers; what lies beyond n is masked off.
  for (int32_t i = 0; i < n; i += kLanes) {
    __m256 sum;
    if (integer == 0) {
      sum = _mm256_loadu_ps(static_cast<const float*>(sums) + i);
    } else {
      const int32_t* high = static_cast<const int32_t*>(sums) + i;
      sum = _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
      if (low_sums != nullptr) {
        const int32_t* low = static_cast<const int32_t*>(low_sums) + i;
        sum = _mm256_fmadd_ps(sum, _mm256_set1_ps(128.0f),
                              _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low))));
      }
    }
    const __m256 length = _mm256_loadu_ps(norm + i);
    __m256 rest = _mm256_mul_ps(length, _mm256_fnmadd_ps(square_weight, length, norm_weight));
    rest = _mm256_fmadd_ps(_mm256_loadu_ps(error + i), error_weight, rest);
    const __m256 product = _mm256_mul_ps(sum, _mm256_loadu_ps(scale + i));
    const __m256 value = _mm256_fmadd_ps(product, slope, rest);
    unsigned passing = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(value, level, _CMP_NLT_UQ)));
    if (n - i < kLanes) passing &= (1u << (n - i)) - 1u;
    if (__builtin_expect(passing == 0, 1)) continue;
    alignas(32) float values[kLanes];
    _mm256_store_ps(values, sum);
    while (passing != 0) {
      const int lane = __builtin_ctz(passing);
      out[count] = i + lane;
      out_sums[count++] = values[lane];
      passing &= passing - 1;
    }
  }
  return count;
}

}  // namespace

const EncodedKernels kEncodedAvx2 = {{QueryUnit::kFloat, kLanes, kBlockQueries, kMostByRows, kMaxTerms,
                                      rows_kernel<F16>, pack_kernel<F16>, panels_kernel<FloatOp>},
                                     {QueryUnit::kFloat, kLanes, kBlockQueries, kMostByRows, kMaxTerms,
                                      rows_kernel<Bf16>, pack_kernel<Bf16>, panels_kernel<FloatOp>},
                                     {QueryUnit::kInt16Pair, kLanes, kBlockQueries, kMostByRows, kMaxTerms,
                                      rows_kernel<Int8>, pack_kernel<Int8>, panels_kernel<Int8>},
                                     collect_kernel};

}  // namespace waggle::cpu
