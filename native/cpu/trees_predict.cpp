// Tiles of 512 rows through all trees: planes where they are cheaper, walks elsewhere. Sums are doubles, one per row
// and target, to which the trees add in their order whichever way they are computed: so the bits do not depend on it.
#include "cpu/trees_predict.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "cpu/kernel_tables.hpp"
#include "cpu/trees_layout.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::cpu {

namespace {

using trees::Ensemble;
using trees::Layout;
using trees::Transform;

// Aligned memory that grows, kept by each thread between calls and given back when large.
template <typename T>
class Buffer {
 public:
  T* at_least(size_t n) {
    if (n > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})));
      size_ = n;
    }
    return memory_.get();
  }
  void trim(size_t most) {
    if (size_ > most) {
      memory_.reset();
      size_ = 0;
    }
  }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> memory_;
  size_t size_ = 0;
};

struct Scratch {
  Buffer<double> sums;
  Buffer<float> columns;
  Buffer<uint8_t> bytes;
  Buffer<uint64_t> planes;

  void trim() {
    sums.trim(size_t{1} << 17);
    columns.trim(size_t{1} << 18);
    bytes.trim(size_t{1} << 18);
    planes.trim(size_t{1} << 16);
  }
};

Scratch& scratch() {
  thread_local Scratch kept;
  return kept;
}

double logistic(double s) { return 1.0 / (1.0 + std::exp(-s)); }

// √2 · erf⁻¹(2 p − 1) by Giles' approximation (GPU Computing Gems, 2011) and two Newton steps on Φ.
double probit(double p) {
  if (!(p > 0)) return p == 0 ? -HUGE_VAL : NAN;
  if (!(p < 1)) return p == 1 ? HUGE_VAL : NAN;
  const double u = 2 * p - 1;
  double w = -std::log((1 - u) * (1 + u));
  double z = 0;
  if (w < 5) {
    w -= 2.5;
    const double c[] = {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                        -0.00125372503, -0.00417768164, 0.246640727,    1.50140941};
    for (const double k : c) z = z * w + k;
  } else {
    w = std::sqrt(w) - 3;
    const double c[] = {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                        -0.0076224613,   0.00943887047,  1.00167406,    2.83297682};
    for (const double k : c) z = z * w + k;
  }
  z *= u * std::sqrt(2.0);
  for (int i = 0; i < 2; ++i) {
    const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * 3.14159265358979323846);
    if (!(density > 0)) break;
    z -= (0.5 * std::erfc(-z / std::sqrt(2.0)) - p) / density;
  }
  return z;
}

void softmax(const double* s, int32_t n, bool keep_zeros, float* out) {
  constexpr double kZero = 1e-7;  // ONNX Runtime's idea of 0
  const auto zero = [&](double v) { return keep_zeros && std::fabs(v) <= kZero; };
  double most = -HUGE_VAL;
  for (int32_t t = 0; t < n; ++t) most = std::max(most, s[t]);
  double sum = 0;
  for (int32_t t = 0; t < n; ++t) sum += zero(s[t]) ? 0 : std::exp(s[t] - most);
  for (int32_t t = 0; t < n; ++t) out[t] = static_cast<float>(zero(s[t]) ? s[t] : std::exp(s[t] - most) / sum);
}

void transform(const Ensemble& e, const double* s, float* out) {
  const int32_t n = e.n_targets;
  const auto each = [&](auto&& f) {
    for (int32_t t = 0; t < n; ++t) out[t] = static_cast<float>(f(s[t]));
  };
  switch (e.transform) {
    case Transform::kNone:
      return each([](double v) { return v; });
    case Transform::kLogistic:
      return each([&](double v) { return logistic(e.transform_parameter * v); });
    case Transform::kSoftmax:
      return softmax(s, n, false, out);
    case Transform::kSoftmaxZero:
      return softmax(s, n, true, out);
    case Transform::kProbit:
      return each(probit);
    case Transform::kExp:
      return each([](double v) { return std::exp(v); });
    case Transform::kHinge:
      return each([](double v) { return v > 0 ? 1.0 : 0.0; });
    case Transform::kSignedSquare:
      return each([](double v) { return std::copysign(v * v, v); });
    case Transform::kLog1pExp:
      return each([](double v) { return v > 0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v)); });
    case Transform::kComplement:
      out[0] = static_cast<float>(1 - s[0]);
      out[1] = static_cast<float>(s[0]);
      return;
    case Transform::kTwoLogistic:
      out[0] = static_cast<float>(logistic(-s[0]));
      out[1] = static_cast<float>(logistic(s[0]));
      return;
    case Transform::kNegate:
      out[0] = static_cast<float>(-s[0]);
      out[1] = static_cast<float>(s[0]);
      return;
  }
}

// Sums into outputs: value t of row r at sums[r * row_stride + t * target_stride]; scores is room for [n_targets].
void finish(const Ensemble& e, const double* sums, int64_t row_stride, int64_t target_stride, int64_t rows, bool raw,
            double* scores, float* out) {
  const bool as_is = raw || e.transform == Transform::kNone;
  const int32_t n_outputs = as_is ? e.n_targets : e.n_outputs();
  for (int64_t r = 0; r < rows; ++r) {
    for (int32_t t = 0; t < e.n_targets; ++t) {
      scores[t] = e.base[static_cast<size_t>(t)] + e.scale * sums[r * row_stride + t * target_stride];
    }
    float* const row_out = out + r * n_outputs;
    if (as_is) {
      for (int32_t t = 0; t < e.n_targets; ++t) row_out[t] = static_cast<float>(scores[t]);
    } else {
      transform(e, scores, row_out);
    }
  }
}

void run_planes(const TreesKernels& k, const Layout& layout, const trees::Segment& segment, int32_t blocks, Scratch& s,
                const float* columns, double* sums) {
  uint8_t* const bytes = s.bytes.at_least(static_cast<size_t>(layout.n_byte_columns) * kTreesTile);
  uint64_t* const planes = s.planes.at_least(static_cast<size_t>(std::max(layout.n_planes, 2)) * kTreesPlaneWords);
  std::memset(planes, 0, kTreesPlaneWords * sizeof(uint64_t));
  std::memset(planes + kTreesPlaneWords, 0xff, kTreesPlaneWords * sizeof(uint64_t));
  for (uint32_t c = segment.first_column; c < segment.first_column + segment.n_columns; ++c) {
    const trees::BinColumn& column = layout.columns[c];
    const auto byte_column = [&](int32_t number) {
      return number < 0 ? nullptr : bytes + static_cast<int64_t>(number) * kTreesTile;
    };
    k.bin(columns + static_cast<int64_t>(column.source) * kTreesTile, blocks, layout.heaps.data() + column.heap,
          column.levels, byte_column(column.high), byte_column(column.low));
  }
  for (uint32_t b = segment.first_batch; b < segment.first_batch + segment.n_batches; ++b) {
    const trees::PlaneBatch& batch = layout.batches[b];
    k.compare(layout.runs.data() + batch.first_run, static_cast<int32_t>(batch.n_runs),
              layout.bins.data() + batch.first_bin, bytes, blocks, planes + 2 * kTreesPlaneWords);
    k.sets(layout.sets.data() + batch.first_set, static_cast<int32_t>(batch.n_sets), layout.terms.data(), bytes, blocks,
           planes);
    for (uint32_t i = batch.first_step; i < batch.first_step + batch.n_steps; ++i) {
      const trees::PlaneStep& step = layout.steps[i];
      k.blend(layout.blends.data() + step.first_blend, static_cast<int32_t>(step.n_blends), planes);
      k.leaves(layout.leaves.data() + step.first_leaves, static_cast<int32_t>(step.n_leaves), layout.tables.data(),
               layout.byte_tables.data(), planes, blocks, sums);
    }
  }
}

// At most kTreesTile rows.
void run_tile(const Table& table, const trees::Model& model, const float* x, int64_t stride, int32_t rows, bool raw,
              float* out) {
  const Ensemble& e = model.ensemble();
  const Layout& layout = model.layout();
  const TreesKernels& k = table.trees;
  Scratch& s = scratch();
  const size_t n_targets = static_cast<size_t>(e.n_targets);
  double* const sums = s.sums.at_least(n_targets * kTreesTile + 2 * n_targets);
  const int32_t blocks = (rows + kTreesBlock - 1) / kTreesBlock;
  for (size_t t = 0; t < n_targets; ++t) {
    std::fill_n(sums + t * kTreesTile, static_cast<size_t>(blocks) * kTreesBlock, 0.0);
  }
  const TreesWalk walk{layout.walk_nodes.data(), layout.walk_flags.data(), e.n_features,
                       layout.walk_sets.data(),  layout.walk_cuts.data(),  e.values.data()};
  const float* columns = nullptr;
  for (size_t i = 0; i < layout.segments.size(); ++i) {
    const trees::Segment& segment = layout.segments[i];
    const Layout::Cost& cost = layout.costs[i];
    const bool planes = k.compare != nullptr && segment.n_batches > 0 &&
                        cost.planes + cost.planes_block * blocks < cost.walk_row * rows;
    if (planes) {
      if (columns == nullptr) {
        float* const made = s.columns.at_least(layout.features.size() * kTreesTile + 1);
        k.transpose(x, stride, rows, layout.features.data(), static_cast<int32_t>(layout.features.size()), made);
        columns = made;
      }
      run_planes(k, layout, segment, blocks, s, columns, sums);
    } else {
      kTreesScalar.walk(&walk, layout.walk_trees.data() + segment.first_tree, segment.n_trees, x, stride, rows, sums);
    }
  }
  finish(e, sums, 1, kTreesTile, rows, raw, sums + n_targets * kTreesTile, out);
  s.trim();
}

}  // namespace

void trees_finish(const trees::Model& model, const double* sums, int64_t rows, bool raw, float* out) {
  const Ensemble& e = model.ensemble();
  std::vector<double> scores(static_cast<size_t>(e.n_targets));
  finish(e, sums, e.n_targets, 1, rows, raw, scores.data(), out);
}

void trees_predict_rows(const Table& table, const trees::Model& model, const float* x, int64_t stride, int64_t rows,
                        bool raw, float* out) {
  const int64_t n_outputs = raw ? model.ensemble().n_targets : model.ensemble().n_outputs();
  for (int64_t r = 0; r < rows; r += kTreesTile) {
    run_tile(table, model, x + r * stride, stride, static_cast<int32_t>(std::min<int64_t>(kTreesTile, rows - r)), raw,
             out + r * n_outputs);
  }
}

Status trees_predict(const Table& table, const TreesPredictArgs& args, const RunContext& context) {
  ThreadPool& pool = ThreadPool::instance();
  const int64_t stride = args.model->ensemble().n_features;
  const int64_t n_outputs = args.raw ? args.model->ensemble().n_targets : args.model->ensemble().n_outputs();
  // Whole blocks per tile, and no more tiles in flight than threads are allowed.
  const int64_t threads = !context.parallel ? 1 : args.threads > 0 ? args.threads : pool.n_threads();
  const int64_t share = (args.n_rows + threads - 1) / threads;
  const int64_t tile =
      std::clamp<int64_t>((share + kTreesBlock - 1) / kTreesBlock * kTreesBlock, kTreesBlock, kTreesTile);
  const int64_t n_tiles = (args.n_rows + tile - 1) / tile;
  const int64_t n_chunks = args.threads > 0 ? std::min<int64_t>(threads, n_tiles) : n_tiles;
  std::atomic<bool> out_of_memory{false};
  pool.for_each_chunk(n_chunks, context, [&](int64_t chunk, int) {
    for (int64_t t = chunk * n_tiles / n_chunks; t < (chunk + 1) * n_tiles / n_chunks; ++t) {
      if (context.stop_requested() || out_of_memory.load(std::memory_order_relaxed)) return;
      const int64_t r = t * tile;
      try {
        run_tile(table, *args.model, args.x + r * stride, stride, static_cast<int32_t>(std::min(tile, args.n_rows - r)),
                 args.raw, args.out + r * n_outputs);
      } catch (const std::bad_alloc&) {
        out_of_memory.store(true);
      }
    }
  });
  if (out_of_memory.load()) return fail(Code::kOutOfMemory, "not enough memory");
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return {};
}

}  // namespace waggle::cpu
