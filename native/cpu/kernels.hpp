// The function types behind the table. Plain C types and no standard header: files compiled with ISA flags
// include this one, and an inline function they shared with the rest could be kept by the linker for everybody.
#pragma once

#include <stdint.h>

namespace waggle::cpu {

/// Most queries a panel holds, and rows a call of a topk kernel looks ahead.
constexpr int32_t kTopkMaxLanes = 32;
constexpr int32_t kTopkAhead = 16;
/// A pair's sum is one chain of multiply-adds per this many dimensions, i ascending, and the chains added in order.
/// Every kernel of a level keeps to it, so the bits of a score depend on its two vectors alone.
constexpr int64_t kTopkDepth = 512;

/// A tile of rows against a group of queries, and where scores worth keeping go.
struct TopkTile {
  /// [n_rows + kTopkAhead]: those behind the tile are only prefetched.
  const float* const* rows;
  int32_t n_rows;
  int32_t n_queries;
  int64_t dim;
  /// Group as a panel: [dim × lanes], lane = query, zero beyond n_queries.
  const float* panel;
  /// Group as pointers: [n_queries].
  const float* const* queries;
  /// [lanes]
  const float* thresholds;
  /// Cosine: one over the norms, [n_rows] and [lanes]; else null. NaN marks a pair that is a hit always.
  const float* row_factors;
  const float* query_factors;
  /// Scores above the threshold of their query, and all that are not finite: (row << 8 | query) and the score.
  /// Room for n_rows · lanes and kTopkMaxLanes more.
  uint32_t* hit_places;
  float* hit_scores;
};

/// topk: similarity of every query of a group with every row of a tile, kept in registers until it is compared.
struct TopkKernels {
  /// Queries of a full panel, of a half one, and the most that `few` takes.
  int32_t wide_lanes;
  int32_t narrow_lanes;
  int32_t max_few;
  /// Each returns the number of hits. Lanes run along the queries of a panel …
  int32_t (*wide)(const TopkTile* tile, bool l2);
  int32_t (*narrow)(const TopkTile* tile, bool l2);
  /// … or along rows, which are turned around in registers: reads each row once, bound by memory.
  int32_t (*few)(const TopkTile* tile, bool l2);
  /// out[r] = similarity of one query with rows[r].
  void (*scores)(const float* query, const float* const* rows, int32_t n_rows, int64_t dim, bool l2, float* out);
  /// out[r] = Σᵢ rows[r][i]², in an order of its own.
  void (*squares)(const float* const* rows, int32_t n_rows, int64_t dim, float* out);
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
  /// Indexes i with scores[i] > threshold, ascending, into out [n]; returns how many.
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
