// Blocks of up to 2 queries × 1 group of sixteen rows: the products of two quads fit into sixteen bits and are added in
// pairs from there, so a row stays in two lanes until the end.
#include <arm_neon.h>

#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

constexpr float kSmallest = 1e-30f;
constexpr int32_t kQueries = 2;
constexpr int kParts = 4;  // of a group: four rows each

// v[i … i + 3], zero from dim on.
struct Residuals {
  const float* x;
  const float* centre;  // or null
  float factor;
  int64_t dim;

  inline float32x4_t at(int64_t i, float32x4_t* c) const {
    if (i + 4 <= dim) {
      *c = centre == nullptr ? vdupq_n_f32(0) : vld1q_f32(centre + i);
      return vsubq_f32(vmulq_n_f32(vld1q_f32(x + i), factor), *c);
    }
    float v[4] = {};
    float of_centre[4] = {};
    for (int64_t j = i; j < dim; ++j) {
      of_centre[j - i] = centre == nullptr ? 0.0f : centre[j];
      v[j - i] = x[j] * factor - of_centre[j - i];
    }
    *c = vld1q_f32(of_centre);
    return vld1q_f32(v);
  }
};

void encode_kernel(const float* x, float factor, const float* centre, int64_t dim, int64_t quads, int8_t* codes,
                   IvfEncoding* out) {
  const Residuals residuals{x, centre, factor, dim};
  float32x4_t largest_lanes = vdupq_n_f32(0);
  float32x4_t square = vdupq_n_f32(0);
  float32x4_t along = vdupq_n_f32(0);
  float32x4_t c;
  for (int64_t i = 0; i < dim; i += 4) {
    const float32x4_t v = residuals.at(i, &c);
    largest_lanes = vmaxq_f32(largest_lanes, vabsq_f32(v));
    square = vfmaq_f32(square, v, v);
    along = vfmaq_f32(along, v, c);
  }
  const float largest = vmaxvq_f32(largest_lanes);
  out->square = vaddvq_f32(square);
  out->along = vaddvq_f32(along);
  const bool zero = !(largest >= kSmallest);
  out->scale = zero ? 0.0f : largest / 127.0f;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  int32x4_t sum = vdupq_n_s32(0);
  for (int64_t i = 0; i < 4 * quads; i += 4) {
    const int32x4_t four = vcvtnq_s32_f32(vmulq_n_f32(residuals.at(i, &c), inverse));
    sum = vaddq_s32(sum, four);
    int32_t lanes[4];
    vst1q_s32(lanes, four);
    for (int j = 0; j < 4; ++j) codes[i + j] = static_cast<int8_t>(lanes[j]);
  }
  out->sum = vaddvq_s32(sum);
}

inline int8x16_t codes_at(const uint8_t* group, int64_t quad, int part) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(group + quad * 64 + part * 16), vdupq_n_u8(128)));
}

inline int8x16_t query_at(const int8_t* query, int64_t quad) {
  int32_t four;
  __builtin_memcpy(&four, query + quad * 4, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

template <int Q>
void block(const uint8_t* group, const int8_t* queries, int64_t quads, int32_t* out, int64_t ld) {
  int32x4_t sum[Q][2 * kParts];
  for (int q = 0; q < Q; ++q) {
    for (int half = 0; half < 2 * kParts; ++half) sum[q][half] = vdupq_n_s32(0);
  }
  int64_t quad = 0;
  for (; quad + 2 <= quads; quad += 2) {
    int8x16_t query[Q][2];
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q) {
      query[q][0] = query_at(queries + q * quads * 4, quad);
      query[q][1] = query_at(queries + q * quads * 4, quad + 1);
    }
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      const int8x16_t a = codes_at(group, quad, part);
      const int8x16_t b = codes_at(group, quad + 1, part);
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q) {
        // 2 · 128 · 127 fits.
        const int16x8_t low =
            vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(query[q][0])), vget_low_s8(b), vget_low_s8(query[q][1]));
        const int16x8_t high = vmlal_high_s8(vmull_high_s8(a, query[q][0]), b, query[q][1]);
        sum[q][2 * part] = vpadalq_s16(sum[q][2 * part], low);
        sum[q][2 * part + 1] = vpadalq_s16(sum[q][2 * part + 1], high);
      }
    }
  }
  if (quad < quads) {
    for (int q = 0; q < Q; ++q) {
      const int8x16_t query = query_at(queries + q * quads * 4, quad);
      for (int part = 0; part < kParts; ++part) {
        const int8x16_t a = codes_at(group, quad, part);
        sum[q][2 * part] = vpadalq_s16(sum[q][2 * part], vmull_s8(vget_low_s8(a), vget_low_s8(query)));
        sum[q][2 * part + 1] = vpadalq_s16(sum[q][2 * part + 1], vmull_high_s8(a, query));
      }
    }
  }
  for (int q = 0; q < Q; ++q) {
    for (int part = 0; part < kParts; ++part) {
      vst1q_s32(out + q * ld + 4 * part, vpaddq_s32(sum[q][2 * part], sum[q][2 * part + 1]));
    }
  }
}

// The sums of queries are for levels that count codes from −128.
void dots_kernel(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t*, int32_t n_queries,
                 int64_t quads, int32_t* out, int64_t ld) {
  for (int64_t g = 0; g < n_groups; ++g) {
    const uint8_t* const group = groups + g * quads * 64;
    int32_t* const to = out + g * kIvfGroup;
    int32_t q = 0;
    for (; q + kQueries <= n_queries; q += kQueries) {
      block<kQueries>(group, queries + q * quads * 4, quads, to + q * ld, ld);
    }
    if (q < n_queries) block<1>(group, queries + q * quads * 4, quads, to + q * ld, ld);
  }
}

inline float32x4_t scores_of(const int32_t* dots, const float* scale, const float* bias, float query_scale) {
  const float32x4_t dot = vcvtq_f32_s32(vld1q_s32(dots));
  return vaddq_f32(vmulq_f32(dot, vmulq_n_f32(vld1q_f32(scale), query_scale)), vld1q_f32(bias));
}

inline float score_of(int32_t dot, float scale, float bias, float query_scale) {
  return static_cast<float>(dot) * (query_scale * scale) + bias;
}

int32_t collect_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                       float base, float threshold, int32_t* rows, float* scores) {
  const uint32x4_t bits = {1, 2, 4, 8};
  int32_t count = 0;
  int32_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t score = vaddq_f32(vdupq_n_f32(base), scores_of(dots + i, scale + i, bias + i, query_scale));
    unsigned above = vaddvq_u32(vandq_u32(vcgtq_f32(score, vdupq_n_f32(threshold)), bits));
    if (above == 0) continue;
    float four[4];
    vst1q_f32(four, score);
    for (; above != 0; above &= above - 1) {
      const int32_t lane = __builtin_ctz(above);
      rows[count] = i + lane;
      scores[count++] = four[lane];
    }
  }
  for (; i < n; ++i) {
    const float score = base + score_of(dots[i], scale[i], bias[i], query_scale);
    if (!(score > threshold)) continue;
    rows[count] = i;
    scores[count++] = score;
  }
  return count;
}

void best_kernel(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                 int32_t first, float* score, int32_t* row) {
  float32x4_t best = vdupq_n_f32(*score);
  int32x4_t at = vdupq_n_s32(-1);
  int32x4_t here = {0, 1, 2, 3};
  int32_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t value = scores_of(dots + i, scale + i, bias + i, query_scale);
    const uint32x4_t above = vcgtq_f32(value, best);
    best = vbslq_f32(above, value, best);
    at = vbslq_s32(above, here, at);
    here = vaddq_s32(here, vdupq_n_s32(4));
  }
  float values[4];
  int32_t places[4];
  vst1q_f32(values, best);
  vst1q_s32(places, at);
  int32_t winner = -1;
  for (int lane = 0; lane < 4; ++lane) {
    if (places[lane] < 0) continue;
    if (values[lane] > *score || (winner >= 0 && values[lane] == *score && places[lane] < winner)) {
      *score = values[lane];
      winner = places[lane];
    }
  }
  for (; i < n; ++i) {
    const float value = score_of(dots[i], scale[i], bias[i], query_scale);
    if (value > *score) {
      *score = value;
      winner = i;
    }
  }
  if (winner >= 0) *row = first + winner;
}

}  // namespace

const IvfKernels kIvfNeon = {encode_kernel, dots_kernel, collect_kernel, best_kernel};

}  // namespace waggle::cpu
