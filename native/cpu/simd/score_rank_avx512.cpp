// Eight rows at a time, every operation in the order of score_terms.hpp.
#include <immintrin.h>

#include "cpu/kernel_tables.hpp"
#include "cpu/score_terms.hpp"

namespace waggle::cpu {

namespace {

__m512d load(const float* column, int64_t row) { return _mm512_cvtps_pd(_mm256_loadu_ps(column + row)); }

__m512d negate(__m512d x) { return _mm512_xor_pd(x, _mm512_set1_pd(-0.0)); }

void score_kernel(const ScoreColumns* c, int64_t begin, int64_t n, double* out) {
  const __m512d zero = _mm512_setzero_pd();
  const __m512d margin = _mm512_set1_pd(c->margin);
  const __m512d fit_weight = _mm512_set1_pd(c->fit_weight);
  const __m512d advertiser_weight = _mm512_set1_pd(c->advertiser_weight);
  const __m512d payout_weight = _mm512_set1_pd(c->payout_weight);
  const __m512d explore_weight = _mm512_set1_pd(c->explore_weight);
  const bool delivery = c->goal_units != nullptr && c->omega != nullptr;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const int64_t row = begin + i;
    const __m512d q = load(c->q, row);
    const __m512d spend = load(c->spend, row);
    const __m512d payout = load(c->payout, row);
    __m512d sum = _mm512_mul_pd(q, _mm512_mul_pd(margin, spend));
    sum = _mm512_add_pd(sum, _mm512_mul_pd(q, _mm512_mul_pd(fit_weight, load(c->fit, row))));
    sum = _mm512_add_pd(sum, c->advertiser != nullptr
                                 ? _mm512_mul_pd(q, _mm512_mul_pd(advertiser_weight, load(c->advertiser, row)))
                                 : zero);
    sum = _mm512_add_pd(sum, _mm512_mul_pd(q, _mm512_mul_pd(payout_weight, payout)));
    sum =
        _mm512_add_pd(sum, c->mu != nullptr ? negate(_mm512_mul_pd(q, _mm512_mul_pd(spend, load(c->mu, row)))) : zero);
    sum = _mm512_add_pd(
        sum, delivery ? _mm512_mul_pd(q, _mm512_mul_pd(load(c->goal_units, row), load(c->omega, row))) : zero);
    sum = _mm512_add_pd(sum, c->rho != nullptr ? _mm512_mul_pd(q, _mm512_mul_pd(payout, load(c->rho, row))) : zero);
    sum = _mm512_add_pd(
        sum, c->explore != nullptr ? _mm512_mul_pd(q, _mm512_mul_pd(explore_weight, load(c->explore, row))) : zero);
    sum = _mm512_add_pd(sum, c->frequency != nullptr ? negate(load(c->frequency, row)) : zero);
    _mm512_storeu_pd(out + i, sum);
  }
  double terms[9];
  for (; i < n; ++i) out[i] = score_terms(*c, begin + i, terms);
}

int32_t collect_kernel(const double* scores, int32_t n, double threshold, int32_t* out) {
  const __m512d bound = _mm512_set1_pd(threshold);
  int32_t count = 0;
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    unsigned mask = _mm512_cmp_pd_mask(_mm512_loadu_pd(scores + i), bound, _CMP_GT_OQ);
    while (mask != 0) {
      out[count++] = i + __builtin_ctz(mask);
      mask &= mask - 1;
    }
  }
  for (; i < n; ++i) {
    if (scores[i] > threshold) out[count++] = i;
  }
  return count;
}

}  // namespace

const ScoreKernels kScoreAvx512 = {score_kernel, collect_kernel};

}  // namespace waggle::cpu
