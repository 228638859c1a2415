// The function types behind the table. Plain C types and no standard header: files compiled with ISA flags
// include this one, and an inline function they shared with the rest could be kept by the linker for everybody.
#pragma once

#include <stdint.h>

#include "cpu/ffm_kernels.hpp"
#include "cpu/trees_fit_kernels.hpp"
#include "cpu/trees_kernels.hpp"

namespace waggle::cpu {

/// Most queries a panel holds, and rows a call of a topk kernel looks ahead.
constexpr int32_t kTopkMaxLanes = 32;
constexpr int32_t kTopkAhead = 16;
/// A pair's sum is one chain of multiply-adds per this many dimensions, i ascending, and the chains added in order.
/// Every kernel of a level keeps to it, so the bits of a score depend on its two vectors alone.
constexpr int64_t kTopkDepth = 512;

/// Squared norms outside this range make a cosine in double: in float they under- or overflow.
constexpr float kTopkSmallestSafeSquare = 1e-24f;
constexpr float kTopkLargestSafeSquare = 1e24f;

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
  /// Cosine: one over the norms, [lanes] and [n_rows]; else null. NaN marks a pair that is a hit always. `few` makes
  /// the row factors itself.
  const float* query_factors;
  const float* row_factors;
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
  /// out[r] = 1 / √Σᵢ rows[r][i]², or NaN where the sum is outside the safe range. Reads rows ahead as tiles do.
  void (*factors)(const float* const* rows, int32_t n_rows, int64_t dim, float* out);
};

/// encode: one row into low precision (include/waggle/ops/encode.hpp). The same bits at every level.
struct EncodeKernels {
  /// Writes [dim] codes, the row's scale, and squares[0] = ‖x‖², squares[1] = ‖x − x̂‖². 0 when x is not finite, else 1.
  int32_t (*f16)(const float* x, int64_t dim, void* codes, float* scale, double* squares);
  int32_t (*bf16)(const float* x, int64_t dim, void* codes, float* scale, double* squares);
  int32_t (*int8)(const float* x, int64_t dim, void* codes, float* scale, double* squares);
  /// As bf16, but upper[i] and lower[i] are the halves of x[i].
  int32_t (*halves)(const float* x, int64_t dim, uint16_t* upper, uint16_t* lower, double* squares);
};

/// What the 32 bits of one unit of a packed query hold. Sums of the last two are int32, else float.
enum class QueryUnit : int32_t {
  kFloat,      // one value
  kBf16Pair,   // two values
  kInt16Pair,  // two codes
  kInt8Quad    // four codes; the rows count from −128, so a sum starts at −128 · Σ codes
};

/// Units of queries and rows are padded with zeros to a multiple of this.
constexpr int32_t kUnitsPerStep = 16;
constexpr int32_t kMaxTerms = 4;

/// topk over encoded rows: Σ code(q) · code(x) of every pair of a tile. Integer sums wrap: only their end must fit.
struct ScanKernels {
  QueryUnit unit;
  int32_t panel_rows;     // rows a panel interleaves; 0 = there are no panels at this level
  int32_t block_queries;  // queries a block interleaves
  int32_t most_by_rows;   // up to so many queries, `rows` is sooner than panels
  int32_t rows_at_once;   // queries that one pass of `rows` over a tile serves best; their terms at most kMaxTerms
  /// Few queries: rows as they lie in memory. queries[t] are padded units, starts[t] what a sum starts with, at most
  /// kMaxTerms of them; out[t * ld + r].
  void (*rows)(const void* const* rows, int32_t n_rows, int64_t dim, const void* const* queries, const int32_t* starts,
               int32_t n_queries, void* out, int64_t ld);
  /// Many queries: panels[(p * n_units + u) * panel_rows + lane] = unit u of row p * panel_rows + lane, zero rows last.
  void (*pack)(const void* const* rows, int32_t n_rows, int64_t dim, void* panels);
  /// One block of queries, units [n_units × block_queries], against panels; writes whole panels: ld ≥ n_panels ·
  /// panel_rows.
  void (*panels)(const void* panels, int32_t n_panels, int64_t n_units, const void* block, const int32_t* starts,
                 int32_t n_queries, void* out, int64_t ld);
};

/// A row passes unless sum · scale · slope + error · error_weight + norm · (norm_weight − square_weight · norm) <
/// level.
struct FilterLine {
  float slope;
  float error_weight;
  float norm_weight;
  float square_weight;
  float level;
};

struct EncodedKernels {
  ScanKernels f16;
  ScanKernels bf16;
  ScanKernels int8;
  /// Rows of a tile that pass, ascending, into out, their sums into out_sums; returns how many. Integer sums (`integer`
  /// not 0) may have a second term: high · 128 + low. NaN passes.
  int32_t (*collect)(const void* sums, const void* low_sums, int32_t integer, const float* scale, const float* error,
                     const float* norm, int32_t n, const FilterLine* line, int32_t* out, float* out_sums);
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

/// Rows per group of ivf codes.
constexpr int32_t kIvfGroup = 16;

/// What `IvfKernels::encode` tells beside the codes.
struct IvfEncoding {
  float scale;   // v[i] ≈ scale · codes[i]
  int32_t sum;   // Σᵢ codes[i]
  float square;  // Σᵢ v[i]²
  float along;   // Σᵢ v[i] · centre[i]
};

/// ivf: int8 codes of residuals. A group holds sixteen rows, interleaved by four dimensions (a *quad*): code i of row
/// r, plus 128, is byte ((i / 4) · 16 + r) · 4 + i % 4; dimensions past the end have code 0. Integer arithmetic is
/// exact, so `dots` is the same at every level; the float operations of `collect` and `best` are unfused for the same
/// reason.
struct IvfKernels {
  /// v = x · factor − centre (null = 0), codes[i] = round(v[i] / scale), scale = max |v| / 127; codes past dim are 0.
  /// Values of magnitude below 1e-30 in every dimension count as 0.
  void (*encode)(const float* x, float factor, const float* centre, int64_t dim, int64_t quads, int8_t* codes,
                 IvfEncoding* out);
  /// out[q · ld + 16 · g + r] = Σᵢ queries[q · 4 · quads + i] · code i of row r of group g, where sums[q] = Σᵢ
  /// queries[q][i].
  void (*dots)(const uint8_t* groups, int64_t n_groups, const int8_t* queries, const int32_t* sums, int32_t n_queries,
               int64_t quads, int32_t* out, int64_t ld);
  /// score[r] = base + (dots[r] · (query_scale · scale[r]) + bias[r]). Rows with a score above `threshold`, ascending,
  /// go to `rows` and `scores`, both [n rounded up to 16]; returns how many.
  int32_t (*collect)(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale,
                     float base, float threshold, int32_t* rows, float* scores);
  /// The best score (base 0) over n rows and its first row + `first`, if above *score.
  void (*best)(const int32_t* dots, const float* scale, const float* bias, int32_t n, float query_scale, int32_t first,
               float* score, int32_t* row);
};

}  // namespace waggle::cpu
