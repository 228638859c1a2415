// Stands in front of the compiler's <immintrin.h>: everything up to AVX2 is the processor's, and what the AVX-512
// kernels use is computed lane by lane as Intel's Intrinsics Guide describes it. So the kernels run, and their bits are
// compared, on processors without AVX-512. Masked loads and stores touch what their mask has, aligned ones insist on
// it.
//
// GCC only: its headers are taken one by one, so that the names of AVX-512 stay free.
#ifndef WAGGLE_EMULATED_IMMINTRIN_H_
#define WAGGLE_EMULATED_IMMINTRIN_H_

#define _IMMINTRIN_H_INCLUDED
// Each needs the ones before.
// clang-format off
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <f16cintrin.h>
#include <fmaintrin.h>
// clang-format on

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The whole of a file is compiled for AVX2: a function that asks for more would get it.
#define target(level) unused

typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef double __m512d __attribute__((vector_size(64), may_alias));
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef short __m512bh __attribute__((vector_size(64), may_alias));
typedef unsigned char __mmask8;
typedef unsigned short __mmask16;
typedef unsigned int __mmask32;
typedef unsigned long long __mmask64;

namespace waggle_emulated {

template <typename T, typename V>
struct View {
  T at[sizeof(V) / sizeof(T)];
  explicit View(V v) { std::memcpy(at, &v, sizeof(V)); }
  T operator[](int i) const { return at[i]; }
};

// A register of type V whose lanes of type T are f(0), f(1), …
template <typename V, typename T, typename F>
inline V lanes(F f) {
  constexpr int kLanes = static_cast<int>(sizeof(V) / sizeof(T));
  T out[kLanes];
  for (int i = 0; i < kLanes; ++i) out[i] = static_cast<T>(f(i));
  V v;
  std::memcpy(&v, out, sizeof(V));
  return v;
}

template <typename V, typename T, typename F>
inline V of_one(V a, F f) {
  const View<T, V> x(a);
  return lanes<V, T>([&](int i) { return f(x[i]); });
}

template <typename V, typename T, typename F>
inline V of_two(V a, V b, F f) {
  const View<T, V> x(a);
  const View<T, V> y(b);
  return lanes<V, T>([&](int i) { return f(x[i], y[i]); });
}

template <typename V, typename T, typename F>
inline V of_three(V a, V b, V c, F f) {
  const View<T, V> x(a);
  const View<T, V> y(b);
  const View<T, V> z(c);
  return lanes<V, T>([&](int i) { return f(x[i], y[i], z[i]); });
}

template <typename V, typename T>
inline V chosen(uint64_t mask, V yes, V no) {
  const View<T, V> x(yes);
  const View<T, V> y(no);
  return lanes<V, T>([&](int i) { return ((mask >> i) & 1) != 0 ? x[i] : y[i]; });
}

template <typename V>
inline V loaded(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

inline void insist(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 64 == 0) return;
  std::fprintf(stderr, "an aligned load or store of 64 bytes at %p\n", p);
  std::abort();
}

template <typename V, typename T>
inline V loaded(uint64_t mask, const void* p) {
  return lanes<V, T>([&](int i) {
    T value{};
    if (((mask >> i) & 1) != 0) std::memcpy(&value, static_cast<const char*>(p) + sizeof(T) * i, sizeof(T));
    return value;
  });
}

template <typename T, typename V>
inline void stored(void* p, uint64_t mask, V v) {
  const View<T, V> x(v);
  for (int i = 0; i < static_cast<int>(sizeof(V) / sizeof(T)); ++i) {
    if (((mask >> i) & 1) != 0) std::memcpy(static_cast<char*>(p) + sizeof(T) * i, &x.at[i], sizeof(T));
  }
}

// Lanes of T from two registers, alternating within each 128 bits: those of the lower or of the upper half.
template <typename T, typename V>
inline V unpacked(V a, V b, bool upper) {
  constexpr int kPer = 16 / static_cast<int>(sizeof(T));
  const View<T, V> x(a);
  const View<T, V> y(b);
  return lanes<V, T>([&](int i) {
    const int from = i / kPer * kPer + (upper ? kPer / 2 : 0) + i % kPer / 2;
    return i % 2 == 0 ? x[from] : y[from];
  });
}

// 128-bit quarters: two of a, then two of b.
template <typename V>
inline V quarters(V a, V b, int choice) {
  const View<uint64_t, V> x(a);
  const View<uint64_t, V> y(b);
  return lanes<V, uint64_t>([&](int i) {
    const int from = (choice >> (i / 2 * 2)) & 3;
    return i < 4 ? x[2 * from + i % 2] : y[2 * from + i % 2];
  });
}

template <typename T, typename V>
inline V compressed(uint64_t mask, V a) {
  const View<T, V> x(a);
  T out[sizeof(V) / sizeof(T)] = {};
  int n = 0;
  for (int i = 0; i < static_cast<int>(sizeof(V) / sizeof(T)); ++i) {
    if (((mask >> i) & 1) != 0) out[n++] = x[i];
  }
  return loaded<V>(out);
}

// Lane i is the one of a, then b, that the low bits of index lane i name.
template <typename T, typename I, typename V>
inline V permuted(V a, __m512i index, V b) {
  constexpr int kLanes = static_cast<int>(sizeof(V) / sizeof(T));
  const View<T, V> x(a);
  const View<T, V> y(b);
  const View<I, __m512i> at(index);
  return lanes<V, T>([&](int i) {
    const int from = static_cast<int>(at[i]) & (2 * kLanes - 1);
    return from < kLanes ? x[from] : y[from - kLanes];
  });
}

template <typename T, typename V, typename F>
inline uint64_t mask_of(V a, V b, F f) {
  const View<T, V> x(a);
  const View<T, V> y(b);
  uint64_t mask = 0;
  for (int i = 0; i < static_cast<int>(sizeof(V) / sizeof(T)); ++i) {
    mask |= static_cast<uint64_t>(f(x[i], y[i]) ? 1 : 0) << i;
  }
  return mask;
}

template <typename T>
inline bool compared(T a, T b, int how) {
  switch (how) {
    case _CMP_GT_OQ:
      return a > b;
    case _CMP_GE_OQ:
      return a >= b;
    case _CMP_LT_OQ:
      return a < b;
    case _CMP_LE_OQ:
      return a <= b;
    case _CMP_NLE_UQ:
      return !(a <= b);
    case _CMP_NLT_UQ:
      return !(a < b);
    case _CMP_UNORD_Q:
      return a != a || b != b;
    default:
      std::fprintf(stderr, "comparison %d is not emulated\n", how);
      std::abort();
  }
}

// Halves first, as the compilers' own sequences do it: 16 lanes fold into 8, 4, 2, 1.
template <typename T, typename V, typename F>
inline T folded(V a, F f) {
  View<T, V> x(a);
  for (int half = static_cast<int>(sizeof(V) / sizeof(T)) / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.at[i] = f(x.at[i], x.at[i + half]);
  }
  return x.at[0];
}

inline float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// Denormals count as zero, and become it.
inline float flushed(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }

}  // namespace waggle_emulated

#define WAGGLE_EMULATED static inline __attribute__((always_inline, unused))

// ---- constants, loads and stores ----------------------------------------------------------------------------

WAGGLE_EMULATED __m512 _mm512_setzero_ps() { return __m512{}; }
WAGGLE_EMULATED __m512d _mm512_setzero_pd() { return __m512d{}; }
WAGGLE_EMULATED __m512i _mm512_setzero_si512() { return __m512i{}; }
WAGGLE_EMULATED __m512 _mm512_set1_ps(float v) {
  return waggle_emulated::lanes<__m512, float>([=](int) { return v; });
}
WAGGLE_EMULATED __m512d _mm512_set1_pd(double v) {
  return waggle_emulated::lanes<__m512d, double>([=](int) { return v; });
}
WAGGLE_EMULATED __m512i _mm512_set1_epi32(int v) {
  return waggle_emulated::lanes<__m512i, int32_t>([=](int) { return v; });
}
WAGGLE_EMULATED __m512i _mm512_set1_epi8(char v) {
  return waggle_emulated::lanes<__m512i, int8_t>([=](int) { return v; });
}
template <typename... T>
WAGGLE_EMULATED __m512i _mm512_setr_epi32(T... v) {
  static_assert(sizeof...(v) == 16);
  const int32_t all[] = {v...};
  return waggle_emulated::loaded<__m512i>(all);
}

WAGGLE_EMULATED __m512 _mm512_loadu_ps(const void* p) { return waggle_emulated::loaded<__m512>(p); }
WAGGLE_EMULATED __m512d _mm512_loadu_pd(const void* p) { return waggle_emulated::loaded<__m512d>(p); }
WAGGLE_EMULATED __m512i _mm512_loadu_si512(const void* p) { return waggle_emulated::loaded<__m512i>(p); }
WAGGLE_EMULATED __m512 _mm512_load_ps(const void* p) {
  waggle_emulated::insist(p);
  return waggle_emulated::loaded<__m512>(p);
}
WAGGLE_EMULATED __m512d _mm512_load_pd(const void* p) {
  waggle_emulated::insist(p);
  return waggle_emulated::loaded<__m512d>(p);
}
WAGGLE_EMULATED __m512i _mm512_load_si512(const void* p) {
  waggle_emulated::insist(p);
  return waggle_emulated::loaded<__m512i>(p);
}
WAGGLE_EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 m, const void* p) {
  return waggle_emulated::loaded<__m512, float>(m, p);
}
WAGGLE_EMULATED __m512i _mm512_maskz_loadu_epi32(__mmask16 m, const void* p) {
  return waggle_emulated::loaded<__m512i, int32_t>(m, p);
}
WAGGLE_EMULATED __m512i _mm512_maskz_loadu_epi16(__mmask32 m, const void* p) {
  return waggle_emulated::loaded<__m512i, int16_t>(m, p);
}
WAGGLE_EMULATED __m512i _mm512_maskz_loadu_epi8(__mmask64 m, const void* p) {
  return waggle_emulated::loaded<__m512i, int8_t>(m, p);
}
WAGGLE_EMULATED __m256i _mm256_maskz_loadu_epi16(__mmask16 m, const void* p) {
  return waggle_emulated::loaded<__m256i, int16_t>(m, p);
}
WAGGLE_EMULATED __m256i _mm256_maskz_loadu_epi8(__mmask32 m, const void* p) {
  return waggle_emulated::loaded<__m256i, int8_t>(m, p);
}
WAGGLE_EMULATED __m128 _mm_maskz_loadu_ps(__mmask8 m, const void* p) {
  return waggle_emulated::loaded<__m128, float>(m, p);
}

WAGGLE_EMULATED void _mm512_storeu_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof(v)); }
WAGGLE_EMULATED void _mm512_storeu_pd(void* p, __m512d v) { std::memcpy(p, &v, sizeof(v)); }
WAGGLE_EMULATED void _mm512_storeu_si512(void* p, __m512i v) { std::memcpy(p, &v, sizeof(v)); }
WAGGLE_EMULATED void _mm512_store_ps(void* p, __m512 v) {
  waggle_emulated::insist(p);
  std::memcpy(p, &v, sizeof(v));
}
WAGGLE_EMULATED void _mm512_store_pd(void* p, __m512d v) {
  waggle_emulated::insist(p);
  std::memcpy(p, &v, sizeof(v));
}
WAGGLE_EMULATED void _mm512_store_si512(void* p, __m512i v) {
  waggle_emulated::insist(p);
  std::memcpy(p, &v, sizeof(v));
}
WAGGLE_EMULATED void _mm_mask_storeu_epi32(void* p, __mmask8 m, __m128i v) {
  waggle_emulated::stored<int32_t>(p, m, v);
}
WAGGLE_EMULATED void _mm_mask_storeu_epi8(void* p, __mmask16 m, __m128i v) { waggle_emulated::stored<int8_t>(p, m, v); }

// ---- the same bits under another type -----------------------------------------------------------------------

WAGGLE_EMULATED __m512i _mm512_castps_si512(__m512 v) { return waggle_emulated::loaded<__m512i>(&v); }
WAGGLE_EMULATED __m512 _mm512_castsi512_ps(__m512i v) { return waggle_emulated::loaded<__m512>(&v); }
WAGGLE_EMULATED __m512d _mm512_castps_pd(__m512 v) { return waggle_emulated::loaded<__m512d>(&v); }
WAGGLE_EMULATED __m512 _mm512_castpd_ps(__m512d v) { return waggle_emulated::loaded<__m512>(&v); }
WAGGLE_EMULATED __m256 _mm512_castps512_ps256(__m512 v) { return waggle_emulated::loaded<__m256>(&v); }
WAGGLE_EMULATED __m256i _mm512_castsi512_si256(__m512i v) { return waggle_emulated::loaded<__m256i>(&v); }
WAGGLE_EMULATED __m128i _mm512_castsi512_si128(__m512i v) { return waggle_emulated::loaded<__m128i>(&v); }
// What lies above is anything: here it is something that shows.
WAGGLE_EMULATED __m512 _mm512_castps128_ps512(__m128 v) {
  const waggle_emulated::View<float, __m128> x(v);
  return waggle_emulated::lanes<__m512, float>([&](int i) { return i < 4 ? x[i] : __builtin_nanf(""); });
}
WAGGLE_EMULATED __m512i _mm512_zextsi128_si512(__m128i v) {
  const waggle_emulated::View<int64_t, __m128i> x(v);
  return waggle_emulated::lanes<__m512i, int64_t>([&](int i) { return i < 2 ? x[i] : 0; });
}
WAGGLE_EMULATED __m128i _mm512_extracti32x4_epi32(__m512i v, int quarter) {
  return waggle_emulated::loaded<__m128i>(reinterpret_cast<const char*>(&v) + 16 * quarter);
}
WAGGLE_EMULATED __m256 _mm512_extractf32x8_ps(__m512 v, int half) {
  return waggle_emulated::loaded<__m256>(reinterpret_cast<const char*>(&v) + 32 * half);
}
WAGGLE_EMULATED unsigned long long _cvtmask64_u64(__mmask64 m) { return m; }

// ---- floats -------------------------------------------------------------------------------------------------

WAGGLE_EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
WAGGLE_EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
WAGGLE_EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
WAGGLE_EMULATED __m512 _mm512_div_ps(__m512 a, __m512 b) { return a / b; }
WAGGLE_EMULATED __m512d _mm512_add_pd(__m512d a, __m512d b) { return a + b; }
WAGGLE_EMULATED __m512d _mm512_mul_pd(__m512d a, __m512d b) { return a * b; }
WAGGLE_EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return waggle_emulated::of_three<__m512, float>(a, b, c,
                                                  [](float x, float y, float z) { return __builtin_fmaf(x, y, z); });
}
WAGGLE_EMULATED __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {
  return waggle_emulated::of_three<__m512, float>(a, b, c,
                                                  [](float x, float y, float z) { return __builtin_fmaf(-x, y, z); });
}
WAGGLE_EMULATED __m512 _mm512_sqrt_ps(__m512 a) {
  return waggle_emulated::of_one<__m512, float>(a, [](float x) { return std::sqrt(x); });
}
WAGGLE_EMULATED __m512 _mm512_abs_ps(__m512 a) {
  return waggle_emulated::of_one<__m512, float>(a, [](float x) { return std::fabs(x); });
}
// The second one wherever either is NaN, and of two zeros.
WAGGLE_EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return waggle_emulated::of_two<__m512, float>(a, b, [](float x, float y) { return x > y ? x : y; });
}
WAGGLE_EMULATED __m512 _mm512_xor_ps(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_castps_si512(a) ^ _mm512_castps_si512(b));
}
WAGGLE_EMULATED __m512d _mm512_xor_pd(__m512d a, __m512d b) {
  return _mm512_castps_pd(_mm512_xor_ps(_mm512_castpd_ps(a), _mm512_castpd_ps(b)));
}
WAGGLE_EMULATED float _mm512_reduce_add_ps(__m512 a) {
  return waggle_emulated::folded<float>(a, [](float x, float y) { return x + y; });
}
WAGGLE_EMULATED float _mm512_reduce_max_ps(__m512 a) {
  return waggle_emulated::folded<float>(a, [](float x, float y) { return x > y ? x : y; });
}
WAGGLE_EMULATED __m512 _mm512_mask_div_ps(__m512 otherwise, __mmask16 m, __m512 a, __m512 b) {
  return waggle_emulated::chosen<__m512, float>(m, a / b, otherwise);
}
WAGGLE_EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  return static_cast<__mmask16>(
      waggle_emulated::mask_of<float>(a, b, [=](float x, float y) { return waggle_emulated::compared(x, y, how); }));
}
WAGGLE_EMULATED __mmask16 _mm512_mask_cmp_ps_mask(__mmask16 m, __m512 a, __m512 b, int how) {
  return static_cast<__mmask16>(m & _mm512_cmp_ps_mask(a, b, how));
}
WAGGLE_EMULATED __mmask8 _mm512_cmp_pd_mask(__m512d a, __m512d b, int how) {
  return static_cast<__mmask8>(
      waggle_emulated::mask_of<double>(a, b, [=](double x, double y) { return waggle_emulated::compared(x, y, how); }));
}
// Pairs of a lane: the odd product first, each multiply-add rounded once.
WAGGLE_EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  using waggle_emulated::flushed;
  const waggle_emulated::View<float, __m512> start(sum);
  const waggle_emulated::View<uint16_t, __m512bh> x(a);
  const waggle_emulated::View<uint16_t, __m512bh> y(b);
  return waggle_emulated::lanes<__m512, float>([&](int i) {
    float total = flushed(start[i]);
    for (int j = 2 * i + 1; j >= 2 * i; --j) {
      total = flushed(
          __builtin_fmaf(flushed(waggle_emulated::from_bf16(x[j])), flushed(waggle_emulated::from_bf16(y[j])), total));
    }
    return total;
  });
}

// ---- integers -----------------------------------------------------------------------------------------------

WAGGLE_EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return waggle_emulated::of_two<__m512i, uint32_t>(a, b, [](uint32_t x, uint32_t y) { return x + y; });
}
WAGGLE_EMULATED __m512i _mm512_add_epi64(__m512i a, __m512i b) {
  return waggle_emulated::of_two<__m512i, uint64_t>(a, b, [](uint64_t x, uint64_t y) { return x + y; });
}
WAGGLE_EMULATED __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
  return waggle_emulated::of_two<__m512i, uint32_t>(a, b, [](uint32_t x, uint32_t y) { return x * y; });
}
WAGGLE_EMULATED __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }
WAGGLE_EMULATED __m512i _mm512_slli_epi32(__m512i a, unsigned n) {
  return waggle_emulated::of_one<__m512i, uint32_t>(a, [=](uint32_t x) { return n > 31 ? 0 : x << n; });
}
WAGGLE_EMULATED __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  const waggle_emulated::View<int16_t, __m512i> x(a);
  const waggle_emulated::View<int16_t, __m512i> y(b);
  return waggle_emulated::lanes<__m512i, uint32_t>([&](int i) {
    return static_cast<uint32_t>(x[2 * i] * y[2 * i]) + static_cast<uint32_t>(x[2 * i + 1] * y[2 * i + 1]);
  });
}
// Bytes of a are unsigned, those of b signed; nothing saturates.
WAGGLE_EMULATED __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const waggle_emulated::View<uint32_t, __m512i> start(sum);
  const waggle_emulated::View<uint8_t, __m512i> x(a);
  const waggle_emulated::View<int8_t, __m512i> y(b);
  return waggle_emulated::lanes<__m512i, uint32_t>([&](int i) {
    uint32_t total = start[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) total += static_cast<uint32_t>(x[j] * y[j]);
    return total;
  });
}
WAGGLE_EMULATED __m512i _mm512_ternarylogic_epi64(__m512i a, __m512i b, __m512i c, int table) {
  return waggle_emulated::of_three<__m512i, uint64_t>(a, b, c, [=](uint64_t x, uint64_t y, uint64_t z) {
    uint64_t out = 0;
    for (int row = 0; row < 8; ++row) {
      if (((table >> row) & 1) == 0) continue;
      out |= ((row & 4) != 0 ? x : ~x) & ((row & 2) != 0 ? y : ~y) & ((row & 1) != 0 ? z : ~z);
    }
    return out;
  });
}
WAGGLE_EMULATED int _mm512_reduce_add_epi32(__m512i a) {
  return static_cast<int>(waggle_emulated::folded<uint32_t>(a, [](uint32_t x, uint32_t y) { return x + y; }));
}
WAGGLE_EMULATED __m512i _mm512_mask_add_epi32(__m512i otherwise, __mmask16 m, __m512i a, __m512i b) {
  return waggle_emulated::chosen<__m512i, uint32_t>(m, _mm512_add_epi32(a, b), otherwise);
}
WAGGLE_EMULATED __m512i _mm512_mask_add_epi8(__m512i otherwise, __mmask64 m, __m512i a, __m512i b) {
  const __m512i sum = waggle_emulated::of_two<__m512i, uint8_t>(a, b, [](uint8_t x, uint8_t y) { return x + y; });
  return waggle_emulated::chosen<__m512i, uint8_t>(m, sum, otherwise);
}
WAGGLE_EMULATED __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b) {
  return static_cast<__mmask16>(
      waggle_emulated::mask_of<uint32_t>(a, b, [](uint32_t x, uint32_t y) { return (x & y) != 0; }));
}
WAGGLE_EMULATED __mmask64 _mm512_cmple_epu8_mask(__m512i a, __m512i b) {
  return waggle_emulated::mask_of<uint8_t>(a, b, [](uint8_t x, uint8_t y) { return x <= y; });
}
WAGGLE_EMULATED __mmask64 _mm512_movepi8_mask(__m512i a) {
  return waggle_emulated::mask_of<int8_t>(a, a, [](int8_t x, int8_t) { return x < 0; });
}

// ---- conversions --------------------------------------------------------------------------------------------

WAGGLE_EMULATED __m512 _mm512_cvtepi32_ps(__m512i a) {
  const waggle_emulated::View<int32_t, __m512i> x(a);
  return waggle_emulated::lanes<__m512, float>([&](int i) { return static_cast<float>(x[i]); });
}
// To the nearest, ties to even; what does not fit is the smallest number.
WAGGLE_EMULATED __m512i _mm512_cvtps_epi32(__m512 a) {
  const waggle_emulated::View<float, __m512> x(a);
  return waggle_emulated::lanes<__m512i, int32_t>([&](int i) {
    const float near = std::nearbyint(x[i]);
    return near >= -0x1p31f && near < 0x1p31f ? static_cast<int32_t>(near) : INT32_MIN;
  });
}
WAGGLE_EMULATED __m512d _mm512_cvtps_pd(__m256 a) {
  const waggle_emulated::View<float, __m256> x(a);
  return waggle_emulated::lanes<__m512d, double>([&](int i) { return static_cast<double>(x[i]); });
}
WAGGLE_EMULATED __m512 _mm512_cvtph_ps(__m256i a) {
  const waggle_emulated::View<uint16_t, __m256i> x(a);
  return waggle_emulated::lanes<__m512, float>([&](int i) { return _cvtsh_ss(x[i]); });
}
WAGGLE_EMULATED __m512i _mm512_cvtepi8_epi16(__m256i a) {
  const waggle_emulated::View<int8_t, __m256i> x(a);
  return waggle_emulated::lanes<__m512i, int16_t>([&](int i) { return x[i]; });
}
WAGGLE_EMULATED __m512i _mm512_cvtepu8_epi16(__m256i a) {
  const waggle_emulated::View<uint8_t, __m256i> x(a);
  return waggle_emulated::lanes<__m512i, uint16_t>([&](int i) { return x[i]; });
}
WAGGLE_EMULATED __m512i _mm512_cvtepu16_epi32(__m256i a) {
  const waggle_emulated::View<uint16_t, __m256i> x(a);
  return waggle_emulated::lanes<__m512i, uint32_t>([&](int i) { return x[i]; });
}
WAGGLE_EMULATED __m128i _mm512_cvtepi32_epi8(__m512i a) {
  const waggle_emulated::View<uint32_t, __m512i> x(a);
  return waggle_emulated::lanes<__m128i, uint8_t>([&](int i) { return x[i]; });
}

// ---- from one lane to another -------------------------------------------------------------------------------

WAGGLE_EMULATED __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) { return waggle_emulated::unpacked<float>(a, b, false); }
WAGGLE_EMULATED __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) { return waggle_emulated::unpacked<float>(a, b, true); }
WAGGLE_EMULATED __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) {
  return waggle_emulated::unpacked<double>(a, b, false);
}
WAGGLE_EMULATED __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) {
  return waggle_emulated::unpacked<double>(a, b, true);
}
WAGGLE_EMULATED __m512i _mm512_unpacklo_epi8(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int8_t>(a, b, false);
}
WAGGLE_EMULATED __m512i _mm512_unpackhi_epi8(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int8_t>(a, b, true);
}
WAGGLE_EMULATED __m512i _mm512_unpacklo_epi16(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int16_t>(a, b, false);
}
WAGGLE_EMULATED __m512i _mm512_unpackhi_epi16(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int16_t>(a, b, true);
}
WAGGLE_EMULATED __m512i _mm512_unpacklo_epi32(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int32_t>(a, b, false);
}
WAGGLE_EMULATED __m512i _mm512_unpackhi_epi32(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int32_t>(a, b, true);
}
WAGGLE_EMULATED __m512i _mm512_unpacklo_epi64(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int64_t>(a, b, false);
}
WAGGLE_EMULATED __m512i _mm512_unpackhi_epi64(__m512i a, __m512i b) {
  return waggle_emulated::unpacked<int64_t>(a, b, true);
}
WAGGLE_EMULATED __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int choice) {
  return waggle_emulated::quarters(a, b, choice);
}
WAGGLE_EMULATED __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int choice) {
  return waggle_emulated::quarters(a, b, choice);
}
WAGGLE_EMULATED __m512i _mm512_shuffle_i64x2(__m512i a, __m512i b, int choice) {
  return waggle_emulated::quarters(a, b, choice);
}
WAGGLE_EMULATED __m512 _mm512_mask_broadcast_f32x4(__m512 otherwise, __mmask16 m, __m128 a) {
  const waggle_emulated::View<float, __m128> x(a);
  const __m512 all = waggle_emulated::lanes<__m512, float>([&](int i) { return x[i % 4]; });
  return waggle_emulated::chosen<__m512, float>(m, all, otherwise);
}
WAGGLE_EMULATED __m512 _mm512_permutexvar_ps(__m512i index, __m512 a) {
  return waggle_emulated::permuted<float, uint32_t>(a, index, a);
}
WAGGLE_EMULATED __m512 _mm512_permutex2var_ps(__m512 a, __m512i index, __m512 b) {
  return waggle_emulated::permuted<float, uint32_t>(a, index, b);
}
WAGGLE_EMULATED __m512i _mm512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
  return waggle_emulated::permuted<int32_t, uint32_t>(a, index, b);
}
WAGGLE_EMULATED __m512i _mm512_permutexvar_epi8(__m512i index, __m512i a) {
  return waggle_emulated::permuted<int8_t, uint8_t>(a, index, a);
}
WAGGLE_EMULATED __m512i _mm512_permutex2var_epi8(__m512i a, __m512i index, __m512i b) {
  return waggle_emulated::permuted<int8_t, uint8_t>(a, index, b);
}
WAGGLE_EMULATED __m512i _mm512_maskz_compress_epi32(__mmask16 m, __m512i a) {
  return waggle_emulated::compressed<int32_t>(m, a);
}
WAGGLE_EMULATED __m512 _mm512_maskz_compress_ps(__mmask16 m, __m512 a) {
  return waggle_emulated::compressed<float>(m, a);
}
WAGGLE_EMULATED __m512 _mm512_mask_mov_ps(__m512 otherwise, __mmask16 m, __m512 a) {
  return waggle_emulated::chosen<__m512, float>(m, a, otherwise);
}
WAGGLE_EMULATED __m512i _mm512_mask_mov_epi32(__m512i otherwise, __mmask16 m, __m512i a) {
  return waggle_emulated::chosen<__m512i, int32_t>(m, a, otherwise);
}
WAGGLE_EMULATED __m512 _mm512_mask_blend_ps(__mmask16 m, __m512 a, __m512 b) {
  return waggle_emulated::chosen<__m512, float>(m, b, a);
}
WAGGLE_EMULATED __m512i _mm512_mask_blend_epi8(__mmask64 m, __m512i a, __m512i b) {
  return waggle_emulated::chosen<__m512i, int8_t>(m, b, a);
}

#endif  // WAGGLE_EMULATED_IMMINTRIN_H_
