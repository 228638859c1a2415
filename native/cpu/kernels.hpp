// The function types behind the table. Plain C types and no standard header: files compiled with ISA flags
// include this one, and an inline function they shared with the rest could be kept by the linker for everybody.
#pragma once

#include <stdint.h>

namespace waggle::cpu {

/// topk: similarity of every query with every row of one tile, and the scan for scores worth keeping.
/// The value of a pair depends on its two vectors alone, not on its place in a tile.
struct TopkKernels {
  /// out[q * ld + r] = Σᵢ queries[q][i] · rows[r][i]
  void (*dot)(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows, int64_t dim,
              float* out, int64_t ld);
  /// out[q * ld + r] = −Σᵢ (queries[q][i] − rows[r][i])²
  void (*neg_l2)(const float* const* queries, int32_t n_queries, const float* const* rows, int32_t n_rows, int64_t dim,
                 float* out, int64_t ld);
  /// Indexes i with scores[i] > threshold, ascending, into out [n]; returns how many. *not_finite gets the
  /// first i whose score is NaN or infinite, else −1.
  int32_t (*collect)(const float* scores, int32_t n, float threshold, int32_t* out, int32_t* not_finite);
};

/// Columns of score.rank; null = absent.
struct ScoreColumns {
  const float* q;
  const float* spend;
  const float* payout;
  const float* fit;
  const float* advertiser;
  const float* explore;
  const float* goal_units;
  const float* frequency;
  const float* mu;
  const float* omega;
  const float* rho;
  double margin;
  double fit_weight;
  double advertiser_weight;
  double payout_weight;
  double explore_weight;
};

struct ScoreKernels {
  /// scores[i] for rows begin … begin + n − 1, written to out[0 … n). No contraction: same bits everywhere.
  void (*score)(const ScoreColumns* columns, int64_t begin, int64_t n, double* out);
  /// Like TopkKernels::collect, without the check.
  int32_t (*collect)(const double* scores, int32_t n, double threshold, int32_t* out);
};

/// Rows per block of glm.fit. A block is feature-major: z[j * kGlmBlock + r], rows past the end are zero.
constexpr int32_t kGlmBlock = 128;
/// Sums over r run in this many lanes (lane = r mod 8), then ((0+4)+(2+6)) + ((1+5)+(3+7)).
constexpr int32_t kGlmLanes = 8;

/// Multiply and add stay separate operations, so all levels give the same bits.
struct GlmKernels {
  /// eta[r] += Σⱼ beta[j] · z[j][r], j ascending
  void (*linear)(const double* z, int32_t p, const double* beta, double* eta);
  /// gradient[j] += Σᵣ residual[r] · z[j][r]
  void (*gradient)(const double* z, int32_t p, const double* residual, double* gradient);
  /// hessian[i * p + j] += Σᵣ weight[r] · z[i][r] · z[j][r] for j ≤ i
  void (*hessian)(const double* z, int32_t p, const double* weight, double* hessian);
};

struct ProbeKernels {
  /// `rounds` times fmas_per_round multiply-adds in registers; the sum keeps the compiler honest.
  float (*fma)(int64_t rounds);
  int32_t fmas_per_round;
  /// Reads n bytes, a multiple of 256.
  uint64_t (*read)(const unsigned char* bytes, int64_t n);
};

}  // namespace waggle::cpu
