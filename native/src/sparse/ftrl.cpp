#include "waggle/ftrl.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/ftrl.hpp"
#include "src/sparse/logistic.hpp"
#include "src/sparse/zeroed.hpp"
#include "waggle/file.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

constexpr FileKind kKind{"FTRL", 1, 1};
/// Rows between two looks at the flag that cancels.
constexpr int64_t kTile = 4096;

/// The section HEAD. Fixed widths, no padding.
struct Head {
  int64_t n_features;
  int64_t n_rows;
  double total_weight;
  double loss;
  double alpha;
  double beta;
  double l1;
  double l2;
  double intercept_z;
  double intercept_n;
  int64_t has_intercept;
};
static_assert(sizeof(Head) == 88);

bool at_least_zero(double value) { return std::isfinite(value) && value >= 0; }

Status check(const FtrlOptions& o) {
  if (o.n_features < 1 || o.n_features > kSparseMaxFeatures) {
    return fail(Code::kInvalidArgument, "nFeatures is %lld; it must be 1 to %lld", static_cast<long long>(o.n_features),
                static_cast<long long>(kSparseMaxFeatures));
  }
  if (!(o.alpha >= 1e-12 && o.alpha <= 1e12)) {
    return fail(Code::kInvalidArgument, "alpha is %g; it must be 1e-12 to 1e12", o.alpha);
  }
  if (!(o.beta >= 1e-12 && o.beta <= 1e12)) {  // at 0 the first gradient's size would not matter
    return fail(Code::kInvalidArgument, "beta is %g; it must be 1e-12 to 1e12", o.beta);
  }
  if (!at_least_zero(o.l1) || !at_least_zero(o.l2)) {
    return fail(Code::kInvalidArgument, "l1 and l2 must be finite and not negative");
  }
  return {};
}

bool touched(const cpu::FtrlCoordinate& c) { return c.n != 0 || c.z != 0; }
bool sane(const cpu::FtrlCoordinate& c) { return std::isfinite(c.z) && at_least_zero(c.n); }

}  // namespace

struct Ftrl::State {
  FtrlOptions options;
  cpu::FtrlRates rates;
  Zeroed<cpu::FtrlCoordinate> table;
  cpu::FtrlCoordinate intercept = {};
  FtrlLearned learned;  // in all
  std::vector<cpu::FtrlEntry> scratch;

  explicit State(const FtrlOptions& o) : options(o), rates{1 / o.alpha, o.beta, o.l1, o.l2}, table(o.n_features) {}

  cpu::FtrlCoordinate* base() { return options.intercept ? &intercept : nullptr; }

  template <typename Write>
  Status write(Write&& to) const {
    std::vector<int32_t> indices;
    std::vector<cpu::FtrlCoordinate> coordinates;
    for (int64_t i = 0; i < table.size(); ++i) {
      if (!touched(table[i])) continue;
      indices.push_back(static_cast<int32_t>(i));
      coordinates.push_back(table[i]);
    }
    const Head head{options.n_features, learned.n_rows, learned.total_weight, learned.loss,
                    options.alpha,      options.beta,   options.l1,           options.l2,
                    intercept.z,        intercept.n,    options.intercept};
    FileWriter writer(kKind.name, kKind.most_version);
    writer.add("HEAD", &head, sizeof head);
    writer.add("INDEX", indices.data(), static_cast<int64_t>(indices.size() * sizeof(int32_t)));
    writer.add("ZN", coordinates.data(), static_cast<int64_t>(coordinates.size() * sizeof(cpu::FtrlCoordinate)));
    return to(writer);
  }

  static Status read(const MappedFile& file, std::unique_ptr<Ftrl>* out) {
    const Head* head = nullptr;
    int64_t count = 0;
    if (Status status = file.section("HEAD", &head, &count); !status.ok()) return status;
    if (count != 1) return file.wrong("section HEAD has the wrong size");
    const FtrlOptions options{head->n_features, head->alpha, head->beta, head->l1, head->l2, head->has_intercept == 1};
    if (Status status = check(options); !status.ok()) {
      return file.wrong("section HEAD makes no sense (" + status.text() + ")");
    }
    const cpu::FtrlCoordinate intercept{head->intercept_z, head->intercept_n};
    if (head->has_intercept < 0 || head->has_intercept > 1 || head->n_rows < 0 || !std::isfinite(head->loss) ||
        !at_least_zero(head->total_weight) || !sane(intercept) || (head->has_intercept == 0 && touched(intercept))) {
      return file.wrong("section HEAD makes no sense (counts or intercept)");
    }
    const int32_t* indices = nullptr;
    const cpu::FtrlCoordinate* coordinates = nullptr;
    int64_t n_coordinates = 0;
    if (Status status = file.section("INDEX", &indices, &count); !status.ok()) return status;
    if (Status status = file.section("ZN", &coordinates, &n_coordinates); !status.ok()) return status;
    if (count != n_coordinates) return file.wrong("sections INDEX and ZN differ in length");
    if (count > 0 && (indices == nullptr || coordinates == nullptr)) return file.wrong("a section is missing");
    int64_t last = -1;
    for (int64_t i = 0; i < count; ++i) {
      if (indices[i] <= last || indices[i] >= options.n_features) return file.wrong("section INDEX is out of order");
      if (!sane(coordinates[i])) return file.wrong("section ZN holds an impossible number");
      last = indices[i];
    }
    auto state = std::make_unique<State>(options);
    for (int64_t i = 0; i < count; ++i) state->table[indices[i]] = coordinates[i];
    state->intercept = intercept;
    state->learned = {head->n_rows, head->total_weight, head->loss};
    out->reset(new Ftrl(std::move(state)));
    return {};
  }
};

Ftrl::Ftrl(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ftrl::~Ftrl() = default;

Status Ftrl::create(const FtrlOptions& options, std::unique_ptr<Ftrl>* out) {
  return guarded([&]() -> Status {
    if (Status status = check(options); !status.ok()) return status;
    out->reset(new Ftrl(std::make_unique<State>(options)));
    return {};
  });
}

Status Ftrl::learn(const SparseRows& rows, const SparseTargets& targets, double* predictions,
                   const std::function<void(double)>& progress, const RunContext& context, FtrlLearned* learned) {
  *learned = {};
  return guarded([&]() -> Status {
    State& s = *state_;
    if (Status status = check_sparse_rows(rows, s.options.n_features, 0, context); !status.ok()) return status;
    if (Status status = check_sparse_targets(targets, rows.n_rows); !status.ok()) return status;
    int32_t longest = 0;
    for (int64_t row = 0; row < rows.n_rows; ++row)
      longest = std::max(longest, rows.indptr[row + 1] - rows.indptr[row]);
    s.scratch.resize(std::max(s.scratch.size(), static_cast<size_t>(longest)));
    for (int64_t begin = 0; begin < rows.n_rows; begin += kTile) {
      if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
      const int64_t end = std::min(rows.n_rows, begin + kTile);
      FtrlLearned tile;
      cpu::ftrl_learn(s.rates, s.table.data(), s.base(), rows, targets, begin, end, s.scratch, predictions, &tile);
      for (FtrlLearned* sum : {learned, &s.learned}) {
        sum->n_rows += tile.n_rows;
        sum->total_weight += tile.total_weight;
        sum->loss += tile.loss;
      }
      if (progress) progress(static_cast<double>(end) / static_cast<double>(rows.n_rows));
    }
    return {};
  });
}

Status Ftrl::predict(const SparseRows& rows, const double* offset, const RunContext& context,
                     double* probabilities) const {
  return guarded([&]() -> Status {
    State& s = *state_;
    if (Status status = check_sparse_rows(rows, s.options.n_features, 0, context); !status.ok()) return status;
    if (Status status = check_sparse_offset(offset, rows.n_rows); !status.ok()) return status;
    ThreadPool::instance().for_each_chunk((rows.n_rows + kTile - 1) / kTile, context, [&](int64_t chunk, int) {
      const int64_t end = std::min(rows.n_rows, (chunk + 1) * kTile);
      for (int64_t row = chunk * kTile; row < end; ++row) {
        probabilities[row] = logistic_mean(
            cpu::ftrl_linear(s.rates, s.table.data(), s.base(), rows, row, offset != nullptr ? offset[row] : 0.0));
      }
    });
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return {};
  });
}

void Ftrl::weights(std::vector<int32_t>* indices, std::vector<double>* values, double* intercept) const {
  const State& s = *state_;
  indices->clear();
  values->clear();
  for (int64_t i = 0; i < s.table.size(); ++i) {
    const double weight = cpu::ftrl_weight(s.rates, s.table[i]);
    if (weight == 0) continue;
    indices->push_back(static_cast<int32_t>(i));
    values->push_back(weight);
  }
  *intercept = s.options.intercept ? cpu::ftrl_intercept(s.rates, s.intercept) : 0;
}

const FtrlOptions& Ftrl::options() const { return state_->options; }

int64_t Ftrl::bytes() const { return state_->table.bytes(); }

FtrlStats Ftrl::stats() const {
  const State& s = *state_;
  FtrlStats stats;
  stats.options = s.options;
  stats.n_rows = s.learned.n_rows;
  stats.total_weight = s.learned.total_weight;
  stats.loss = s.learned.loss;
  for (const cpu::FtrlCoordinate& c : s.table) {
    stats.n_touched += touched(c);
    stats.n_nonzero += cpu::ftrl_weight(s.rates, c) != 0;
  }
  stats.bytes = bytes();
  return stats;
}

Status Ftrl::save(const std::string& path, const RunContext& context) const {
  return guarded(
      [&]() -> Status { return state_->write([&](const FileWriter& writer) { return writer.save(path, context); }); });
}

Status Ftrl::to_memory(std::vector<uint8_t>* out) const {
  return guarded([&]() -> Status { return state_->write([&](const FileWriter& w) { return w.to_memory(out); }); });
}

Status Ftrl::load(const std::string& path, const RunContext& context, std::unique_ptr<Ftrl>* out) {
  return guarded([&]() -> Status {
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::open(path, kKind, Verify::kFull, context, &file); !status.ok()) return status;
    return State::read(*file, out);
  });
}

Status Ftrl::from_memory(const void* bytes, int64_t size, const RunContext& context, std::unique_ptr<Ftrl>* out) {
  return guarded([&]() -> Status {
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::copy_of(bytes, size, kKind, Verify::kFull, context, &file); !status.ok()) {
      return status;
    }
    return State::read(*file, out);
  });
}

}  // namespace waggle
