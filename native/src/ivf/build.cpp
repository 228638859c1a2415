#include <algorithm>
#include <atomic>
#include <cmath>

#include "cpu/topk.hpp"
#include "src/ivf/parts.hpp"
#include "src/squared_length.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle::ivf {

namespace {

constexpr int64_t kRowsPerChunk = 2048;

enum Stage { kTrain = 0, kAssign = 1, kEncode = 2, kMeasure = 3 };

void chunks(int64_t n, int64_t step, const RunContext& context,
            const std::function<void(int64_t, int64_t, int)>& body) {
  ThreadPool::instance().for_each_chunk((n + step - 1) / step, context, [&](int64_t chunk, int worker) {
    body(chunk * step, std::min(n, (chunk + 1) * step), worker);
  });
}

/// Finite rows whose products fit a float; `factor` [rows] for cosines.
Status check_rows(const Matrix<const float>& matrix, const RunContext& context, const char* what, float* factor) {
  std::atomic<int64_t> bad{matrix.rows};
  chunks(matrix.rows, kRowsPerChunk, context, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = matrix.row(r);
      if (!(squared_length(x, matrix.cols) <= kLargestSquare)) {
        int64_t first = bad.load();
        while (r < first && !bad.compare_exchange_weak(first, r)) {
        }
      }
      if (factor != nullptr) factor[r] = inverse_length(x, matrix.cols);
    }
  });
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (bad.load() < matrix.rows) {
    return fail(Code::kNotFinite, "%s row %lld holds NaN or infinity, or its squared length exceeds 1e36", what,
                static_cast<long long>(bad.load()));
  }
  return {};
}

/// The root of the mean squared length of up to 4,096 rows.
float typical_length(const Matrix<const float>& matrix) {
  const int64_t n = std::min<int64_t>(matrix.rows, 4096);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float* x = matrix.row(stratified(i, n, matrix.rows, 0));
    for (int64_t j = 0; j < matrix.cols; ++j) sum += static_cast<double>(x[j]) * x[j];
  }
  return static_cast<float>(std::sqrt(sum / static_cast<double>(n)));
}

}  // namespace

/// Lists out of labels: empty ones vanish, rows keep their order.
static void make_lists(const Space& space, const Centroids& trained, const std::vector<int32_t>& labels,
                       IvfIndex::Parts& parts) {
  std::vector<int64_t> size(static_cast<size_t>(trained.count()), 0);
  for (const int32_t label : labels) ++size[static_cast<size_t>(label)];
  std::vector<int32_t> renumbered(size.size(), -1);
  int32_t n_lists = 0;
  for (size_t c = 0; c < size.size(); ++c) {
    if (size[c] > 0) renumbered[c] = n_lists++;
  }
  float* centroids = parts.centroids.allocate(n_lists * parts.dim);
  int32_t* sizes = parts.sizes.allocate(n_lists);
  int64_t* first_group = parts.first_group.allocate(n_lists + 1);
  for (size_t c = 0; c < size.size(); ++c) {
    if (renumbered[c] < 0) continue;
    const int64_t list = renumbered[c];
    sizes[list] = static_cast<int32_t>(size[c]);
    first_group[list + 1] = first_group[list] + groups_of(size[c]);
    for (int64_t i = 0; i < parts.dim; ++i) {
      centroids[list * parts.dim + i] = trained.values[c * static_cast<size_t>(parts.dim) + static_cast<size_t>(i)] +
                                        space.mean[static_cast<size_t>(i)];
    }
  }
  int32_t* rows = parts.rows.allocate(first_group[n_lists] * kGroup);
  std::fill_n(rows, parts.rows.size(), -1);
  std::vector<int64_t> cursor(static_cast<size_t>(n_lists));
  for (int32_t list = 0; list < n_lists; ++list) cursor[static_cast<size_t>(list)] = first_group[list] * kGroup;
  for (size_t r = 0; r < labels.size(); ++r) {
    rows[cursor[static_cast<size_t>(renumbered[static_cast<size_t>(labels[r])])]++] = static_cast<int32_t>(r);
  }
}

static Status encode_lists(const cpu::Table& table, const Space& space, const RunContext& context,
                           const std::function<void(double)>& progress, IvfIndex::Parts& parts) {
  const int64_t n_groups = parts.first_group[parts.n_lists()];
  uint8_t* groups = parts.groups.allocate(n_groups * parts.quads * 64);
  float* scale = parts.scale.allocate(n_groups * kGroup);
  float* bias = parts.bias.allocate(n_groups * kGroup);
  const int64_t stride = parts.quads * 4;
  std::vector<int8_t> codes(static_cast<size_t>(stride * ThreadPool::instance().max_workers()));
  std::atomic<int64_t> done{0};
  chunks(parts.n_lists(), 4, context, [&](int64_t begin, int64_t end, int worker) {
    int8_t* row_codes = codes.data() + worker * stride;
    for (int64_t list = begin; list < end; ++list) {
      const float* centroid = parts.centroids.data() + list * parts.dim;
      const int64_t first = parts.first_group[list] * kGroup;
      std::fill_n(groups + first * stride, (parts.first_group[list + 1] - parts.first_group[list]) * kGroup * stride,
                  uint8_t{128});
      for (int64_t i = first; i < first + parts.sizes[list]; ++i) {
        const int64_t row = parts.rows[i];
        cpu::IvfEncoding e;
        table.ivf.encode(space.matrix.row(row), space.factor_of(row), centroid, parts.dim, parts.quads, row_codes, &e);
        put_row(row_codes, parts.quads, i % kGroup, groups + i / kGroup * parts.quads * 64);
        scale[i] = e.scale;
        bias[i] = parts.metric == Metric::kL2 ? -e.square : e.along;
      }
    }
    done.fetch_add(end - begin, std::memory_order_relaxed);
    if (worker == 0) progress(static_cast<double>(done.load()) / static_cast<double>(parts.n_lists()));
  });
  progress(1);
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return {};
}

Status measure(const cpu::Table& table, const IvfBuildArgs& args, const RunContext& context, IvfIndex::Parts& parts) {
  const bool given = args.held_out.rows > 0;
  const int64_t n = given ? args.held_out.rows : std::min<int64_t>(args.n_sample, parts.n_rows);
  const int64_t dim = parts.dim;
  std::vector<float> sampled;
  std::vector<int32_t> own(static_cast<size_t>(n), -1);
  Matrix<const float> queries = args.held_out;
  if (!given) {
    sampled.resize(static_cast<size_t>(n * dim));
    for (int64_t i = 0; i < n; ++i) {
      own[static_cast<size_t>(i)] = static_cast<int32_t>(stratified(i, n, parts.n_rows, args.seed ^ 0x5eed));
      std::copy_n(args.matrix.row(own[static_cast<size_t>(i)]), dim, sampled.data() + i * dim);
    }
    queries = {sampled.data(), n, dim};
  }
  const int32_t k = args.recall_k + (given ? 0 : 1);
  std::vector<float> scores(static_cast<size_t>(n * k));
  std::vector<int32_t> truth(scores.size()), found(scores.size());
  TopkArgs exact;
  exact.queries = queries;
  exact.matrix = args.matrix;
  exact.k = k;
  exact.metric = args.metric;
  exact.scores = scores.data();
  exact.rows = truth.data();
  if (Status status = cpu::topk(table, exact, context); !status.ok()) return status;

  // The first recall_k rows of an answer, its own row left out.
  const auto answer_of = [&](const std::vector<int32_t>& rows, int64_t q, std::vector<int32_t>& out) {
    out.clear();
    for (int32_t i = 0; i < k && static_cast<int32_t>(out.size()) < args.recall_k; ++i) {
      const int32_t row = rows[static_cast<size_t>(q * k + i)];
      if (row >= 0 && row != own[static_cast<size_t>(q)]) out.push_back(row);
    }
    std::sort(out.begin(), out.end());
  };
  std::vector<int32_t> wanted, got, both;
  int steps = 0;
  const auto probe = [&](int64_t n_probe, IvfRecallPoint* point) -> Status {
    IvfSearchArgs search_args;
    search_args.queries = queries;
    search_args.k = k;
    search_args.n_probe = static_cast<int32_t>(n_probe);
    search_args.scores = scores.data();
    search_args.rows = found.data();
    IvfSearchReport ignored;
    if (Status status = search(table, parts, search_args, context, &ignored); !status.ok()) return status;
    double sum = 0;
    double squares = 0;
    for (int64_t q = 0; q < n; ++q) {
      answer_of(truth, q, wanted);
      answer_of(found, q, got);
      both.clear();
      std::set_intersection(wanted.begin(), wanted.end(), got.begin(), got.end(), std::back_inserter(both));
      const double recall =
          wanted.empty() ? 1.0 : static_cast<double>(both.size()) / static_cast<double>(wanted.size());
      sum += recall;
      squares += recall * recall;
    }
    const double count = static_cast<double>(n);
    const double mean = sum / count;
    const double variance = std::max(0.0, squares / count - mean * mean);
    *point = {static_cast<int32_t>(n_probe), mean, n > 1 ? std::sqrt(variance / (count - 1)) : 0.0};
    if (args.progress) args.progress(kMeasure, std::min(0.99, 0.5 + 0.01 * ++steps));
    return {};
  };
  if (parts.metric == Metric::kInnerProduct) {
    const int64_t few = std::min<int64_t>(parts.n_lists(), 8);
    IvfRecallPoint distance;
    IvfRecallPoint product;
    parts.order_lists_by(table, false);
    if (Status status = probe(few, &product); !status.ok()) return status;
    parts.order_lists_by(table, true);
    if (Status status = probe(few, &distance); !status.ok()) return status;
    if (product.recall > distance.recall) parts.order_lists_by(table, false);
  }
  const auto enough = [&](const IvfRecallPoint& p) { return p.recall - p.standard_error >= args.recall; };

  const int64_t n_lists = parts.n_lists();
  parts.curve.clear();
  int64_t below = 0;   // the largest number of probes seen to be too few
  int64_t chosen = 0;  // the smallest seen to be enough
  for (int64_t p = 1;; p = std::min(n_lists, std::max(p + 1, p * 5 / 4))) {
    IvfRecallPoint point;
    if (Status status = probe(p, &point); !status.ok()) return status;
    parts.curve.push_back(point);
    if (chosen == 0) (enough(point) ? chosen : below) = p;
    if (p == n_lists || (chosen != 0 && point.recall >= 0.9995)) break;
  }
  while (chosen - below > 1) {
    const int64_t middle = (below + chosen) / 2;
    IvfRecallPoint point;
    if (Status status = probe(middle, &point); !status.ok()) return status;
    parts.curve.push_back(point);
    (enough(point) ? chosen : below) = middle;
  }
  std::sort(parts.curve.begin(), parts.curve.end(),
            [](const IvfRecallPoint& a, const IvfRecallPoint& b) { return a.n_probe < b.n_probe; });
  if (chosen == 0) {
    // Out of reach: the codes alone cannot tell such near neighbours apart. Probe where more probes stop helping.
    double best = 0;
    for (const IvfRecallPoint& point : parts.curve) best = std::max(best, point.recall);
    for (const IvfRecallPoint& point : parts.curve) {
      if (chosen == 0 && point.recall >= best - 1e-3) chosen = point.n_probe;
    }
  }
  parts.n_probe = static_cast<int32_t>(chosen);
  parts.recall_target = args.recall;
  parts.recall_k = args.recall_k;
  parts.n_measured = n;
  parts.held_out = given;
  return {};
}

/// The work of IvfIndex::build, arguments checked.
Status build(const cpu::Table& table, const IvfBuildArgs& args, const RunContext& context, IvfIndex::Parts& parts) {
  const int64_t n = args.matrix.rows;
  const auto report = [&](Stage stage) {
    return [&args, stage](double done) {
      if (args.progress) args.progress(stage, done);
    };
  };
  std::vector<float> factor(args.metric == Metric::kCosine ? static_cast<size_t>(n) : 0);
  if (Status status = check_rows(args.matrix, context, "matrix", factor.empty() ? nullptr : factor.data());
      !status.ok()) {
    return status;
  }
  if (Status status = check_rows(args.held_out, context, "heldOut", nullptr); !status.ok()) return status;

  Space space;
  space.matrix = args.matrix;
  space.factor = factor.empty() ? nullptr : factor.data();
  TrainOptions options;
  options.n_lists = args.n_lists > 0 ? args.n_lists
                                     : std::clamp<int64_t>(static_cast<int64_t>(4 * std::sqrt(static_cast<double>(n))),
                                                           1, kIvfMaxLists);
  options.seed = args.seed;
  options.progress = report(kTrain);
  Centroids trained;
  if (Status status = train(table, space, options, context, &trained); !status.ok()) return status;
  if (args.metric == Metric::kInnerProduct) parts.typical_length = typical_length(args.matrix);
  std::vector<int32_t> labels(static_cast<size_t>(n));
  if (Status status = assign(table, space, trained, context, report(kAssign), labels.data()); !status.ok())
    return status;

  parts.n_rows = n;
  parts.dim = args.matrix.cols;
  parts.quads = quads_of(parts.dim);
  parts.metric = args.metric;
  make_lists(space, trained, labels, parts);
  std::copy(space.mean.begin(), space.mean.end(), parts.mean.allocate(parts.dim));
  if (args.int8_lists) {
    if (Status status = encode_lists(table, space, context, report(kEncode), parts); !status.ok()) return status;
  }
  if (args.keep_rows || !args.int8_lists) {
    float* values = parts.values.allocate(n * parts.dim);
    chunks(n, kRowsPerChunk, context, [&](int64_t begin, int64_t end, int) {
      std::copy(args.matrix.row(begin), args.matrix.row(end), values + begin * parts.dim);
    });
  }
  parts.prepare(table);
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  report(kMeasure)(0);
  const Status status = measure(table, args, context, parts);
  parts.coarse.values = {};  // only their codes are searched
  return status;
}

}  // namespace waggle::ivf

namespace waggle {

void IvfIndex::Parts::order_lists_by(const cpu::Table& table, bool distance) {
  by_distance = distance;
  coarse.encode(table);
  if (!distance) std::fill(coarse.bias.begin(), coarse.bias.end(), 0.0f);
}

void IvfIndex::Parts::prepare(const cpu::Table& table) {
  coarse = ivf::Centroids{};
  coarse.dim = dim;
  coarse.quads = quads;
  coarse.values.resize(static_cast<size_t>(n_lists() * dim));
  centroid_square.resize(static_cast<size_t>(n_lists()));
  for (int64_t l = 0; l < n_lists(); ++l) {
    double square = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const float c = centroids[l * dim + i];
      coarse.values[static_cast<size_t>(l * dim + i)] = c - mean[i];
      square += static_cast<double>(c) * c;
    }
    centroid_square[static_cast<size_t>(l)] = static_cast<float>(square);
  }
  order_lists_by(table, by_distance);
  list_of.resize(static_cast<size_t>(n_rows));
  for (int64_t l = 0; l < n_lists(); ++l) {
    const int32_t* row = rows.data() + first_group[l] * ivf::kGroup;
    for (int32_t i = 0; i < sizes[l]; ++i) list_of[static_cast<size_t>(row[i])] = static_cast<int32_t>(l);
  }
}

}  // namespace waggle
