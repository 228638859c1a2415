#include "waggle/ffm.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/registry.hpp"
#include "src/sparse/ffm_state.hpp"
#include "src/sparse/logistic.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

constexpr FileKind kKind{"FFM", 1, 1};
/// Rows between two looks at the flag that cancels, and of one chunk of a parallel loop.
constexpr int64_t kTile = 1024;

/// The section HEAD. Fixed widths, no padding.
struct Head {
  int64_t n_features;
  int64_t epochs;
  uint64_t seed;
  double learning_rate;
  double accumulator;
  double l2;
  double linear_l2;
  double intercept;
  double intercept_square;
  int32_t n_fields;
  int32_t k;
  int32_t normalize;
  int32_t linear;
};
static_assert(sizeof(Head) == 88);

// splitmix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
float uniform(uint64_t bits) { return static_cast<float>(bits >> 40) * 0x1.0p-24f; }

int32_t longest_row(const SparseRows& rows) {
  int32_t longest = 0;
  for (int64_t i = 0; i < rows.n_rows; ++i) longest = std::max(longest, rows.indptr[i + 1] - rows.indptr[i]);
  return longest;
}

// Fisher and Yates, the same for a seed and an epoch whatever came before.
void order_of_rows(uint64_t seed, int64_t epoch, bool shuffle, std::vector<int32_t>* order) {
  std::iota(order->begin(), order->end(), 0);
  if (!shuffle) return;
  uint64_t state = mix(mix(seed) ^ static_cast<uint64_t>(epoch));
  for (size_t i = order->size(); i > 1; --i) {
    state += 0x9e3779b97f4a7c15u;
    std::swap((*order)[i - 1], (*order)[static_cast<size_t>(((mix(state) >> 32) * i) >> 32)]);  // i < 2^31
  }
}

}  // namespace

Status check_ffm_options(const FfmOptions& o) {
  if (o.n_features < 1 || o.n_features > kSparseMaxFeatures) {
    return fail(Code::kInvalidArgument, "nFeatures is %lld; it must be 1 to %lld", static_cast<long long>(o.n_features),
                static_cast<long long>(kSparseMaxFeatures));
  }
  if (o.n_fields < 1 || o.n_fields > kSparseMaxFields) {
    return fail(Code::kInvalidArgument, "nFields is %d; it must be 1 to %d", o.n_fields, kSparseMaxFields);
  }
  if (o.k < 1 || o.k > kFfmMaxK) return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d", o.k, kFfmMaxK);
  if (!(o.learning_rate > 0 && o.learning_rate <= 1e6)) {
    return fail(Code::kInvalidArgument, "learningRate is %g; it must be above 0 and at most 1e6", o.learning_rate);
  }
  if (!(o.accumulator >= 1e-12 && o.accumulator <= 1e12)) {
    return fail(Code::kInvalidArgument, "accumulator is %g; it must be 1e-12 to 1e12", o.accumulator);
  }
  if (!(o.l2 >= 0 && o.l2 <= 1e6) || !(o.linear_l2 >= 0 && o.linear_l2 <= 1e6)) {
    return fail(Code::kInvalidArgument, "l2 is %g and linearL2 %g; they must be 0 to 1e6", o.l2, o.linear_l2);
  }
  return {};
}

// ---- state --------------------------------------------------------------------------------------------------

Ffm::State::State(const FfmOptions& o, Blank)
    : options(o), blocks(o.n_features * 2 * o.n_fields * cpu::ffm_width(o.k)), linear(o.linear ? o.n_features : 0) {}

Ffm::State::State(const FfmOptions& o) : State(o, Blank{}) {
  const int32_t width = cpu::ffm_width(o.k);
  const int64_t half = int64_t{o.n_fields} * width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(o.k));
  const float accumulator = static_cast<float>(o.accumulator);
  for (int64_t feature = 0; feature < o.n_features; ++feature) {
    float* block = blocks.data() + feature * 2 * half;
    for (int64_t i = 0; i < half; ++i) {
      const int64_t d = i % width;
      // Numbered by feature, field and d, so that weights do not depend on how they are laid out.
      const uint64_t number = static_cast<uint64_t>((feature * o.n_fields + i / width) * o.k + d);
      block[i] = d < o.k ? scale * (uniform(mix(mix(o.seed) ^ mix(number))) - 0.5f) : 0.0f;
    }
    std::fill(block + half, block + 2 * half, accumulator);
  }
  for (cpu::FfmLinear& at : linear) at.square = accumulator;
}

std::unique_ptr<Ffm::State> Ffm::State::blank(const FfmOptions& o) {
  return std::unique_ptr<State>(new State(o, Blank{}));
}

std::unique_ptr<Ffm::State> Ffm::State::copy() const {
  FfmOptions none = options;
  none.n_features = 0;
  std::unique_ptr<State> other = blank(none);
  other->options = options;
  other->epochs = epochs;
  other->blocks = blocks.copy();
  other->linear = linear.copy();
  std::copy(intercept, intercept + 2, other->intercept);
  return other;
}

void Ffm::State::take(State& other) {
  epochs = other.epochs;
  std::swap(blocks, other.blocks);
  std::swap(linear, other.linear);
  std::copy(other.intercept, other.intercept + 2, intercept);
}

cpu::FfmWeights Ffm::State::weights() {
  cpu::FfmWeights w;
  w.blocks = blocks.data();
  w.linear = options.linear ? linear.data() : nullptr;
  w.intercept = options.linear ? intercept : nullptr;
  w.n_fields = options.n_fields;
  w.width = cpu::ffm_width(options.k);
  w.normalize = options.normalize;
  w.rate = static_cast<float>(options.learning_rate);
  w.l2 = static_cast<float>(options.l2);
  w.linear_l2 = static_cast<float>(options.linear_l2);
  return w;
}

bool Ffm::State::finite() const {
  float check = 0;
  for (const float v : blocks) check += v - v;
  for (const cpu::FfmLinear& at : linear) check += (at.weight - at.weight) + (at.square - at.square);
  return check == 0 && std::isfinite(intercept[0]) && std::isfinite(intercept[1]);
}

template <typename To>
Status Ffm::State::write(To&& to) const {
  const Head head{options.n_features,  epochs,           options.seed,      options.learning_rate,
                  options.accumulator, options.l2,       options.linear_l2, intercept[0],
                  intercept[1],        options.n_fields, options.k,         options.normalize,
                  options.linear};
  FileWriter writer(kKind.name, kKind.most_version);
  writer.add("HEAD", &head, sizeof head);
  writer.add("BLOCKS", blocks.data(), blocks.bytes());
  writer.add("LINEAR", linear.data(), linear.bytes());
  return to(writer);
}

Status Ffm::State::read(const MappedFile& file, std::unique_ptr<State>* out) {
  const Head* head = nullptr;
  int64_t count = 0;
  if (Status status = file.section("HEAD", &head, &count); !status.ok()) return status;
  if (count != 1) return file.wrong("section HEAD has the wrong size");
  const FfmOptions options{head->n_features,  head->n_fields, head->k,         head->learning_rate,
                           head->accumulator, head->l2,       head->linear_l2, head->normalize == 1,
                           head->linear == 1, head->seed};
  if (Status status = check_ffm_options(options); !status.ok()) {
    return file.wrong("section HEAD makes no sense (" + status.text() + ")");
  }
  if (head->epochs < 0 || (head->normalize | head->linear | 1) != 1 || !std::isfinite(head->intercept) ||
      !(std::isfinite(head->intercept_square) && head->intercept_square >= 1)) {
    return file.wrong("section HEAD makes no sense (epochs, flags or intercept)");
  }
  const float* blocks = nullptr;
  int64_t n_blocks = 0;
  const cpu::FfmLinear* linear = nullptr;
  int64_t n_linear = 0;
  if (Status status = file.section("BLOCKS", &blocks, &n_blocks); !status.ok()) return status;
  if (Status status = file.section("LINEAR", &linear, &n_linear); !status.ok()) return status;
  const int32_t width = cpu::ffm_width(options.k);
  const int64_t half = int64_t{options.n_fields} * width;
  const float least = static_cast<float>(options.accumulator);  // sums only grow
  // Sizes first: what a file says must not make this allocate more than the file is long.
  if (n_blocks != options.n_features * 2 * half) return file.wrong("section BLOCKS has the wrong size");
  if (n_linear != (options.linear ? options.n_features : 0)) return file.wrong("section LINEAR has the wrong size");
  for (int64_t i = 0; i < n_blocks; ++i) {
    const int64_t at = i % (2 * half);
    const bool good = at >= half               ? std::isfinite(blocks[i]) && blocks[i] >= least
                      : at % width < options.k ? std::isfinite(blocks[i])
                                               : blocks[i] == 0;
    if (!good) return file.wrong("section BLOCKS holds an impossible number");
  }
  for (int64_t i = 0; i < n_linear; ++i) {
    if (!std::isfinite(linear[i].weight) || !std::isfinite(linear[i].square) || !(linear[i].square >= least)) {
      return file.wrong("section LINEAR holds an impossible number");
    }
  }
  std::unique_ptr<State> state = blank(options);
  std::copy(blocks, blocks + n_blocks, state->blocks.begin());
  std::copy(linear, linear + n_linear, state->linear.begin());
  state->epochs = head->epochs;
  state->intercept[0] = head->intercept;
  state->intercept[1] = head->intercept_square;
  *out = std::move(state);
  return {};
}

// ---- fit ----------------------------------------------------------------------------------------------------

namespace {

class Fit {
 public:
  Fit(const cpu::FfmKernels& kernels, Ffm::State& state, const FfmFitArgs& args, const RunContext& context)
      : kernels_(kernels),
        state_(state),
        args_(args),
        context_(context),
        order_(static_cast<size_t>(args.rows.n_rows)),
        longest_(std::max(longest_row(args.rows), args.validation.n_rows > 0 ? longest_row(args.validation) : 0)) {
    for (int i = 0; i < ThreadPool::instance().max_workers(); ++i) scratch_.emplace_back(longest_);
    const int64_t most = std::max(args.rows.n_rows, args.validation.n_rows);
    sums_.resize(static_cast<size_t>((most + kTile - 1) / kTile));
  }

  Status run(FfmFitResult* result) {
    if (state_.epochs == 0 && state_.options.linear) start_intercept();
    std::unique_ptr<Ffm::State> best;
    double best_loss = 0;
    for (int32_t epoch = 1; epoch <= args_.epochs; ++epoch) {
      double loss = 0;
      if (Status status = learn(epoch, &loss); !status.ok()) return status;
      args_.train_loss[epoch - 1] = loss;
      state_.epochs += 1;
      result->epochs_run = epoch;
      result->best_epoch = epoch;
      if (args_.validation.n_rows == 0) continue;
      if (Status status = validate(&loss); !status.ok()) return status;
      args_.validation_loss[epoch - 1] = loss;
      if (best == nullptr || loss < best_loss) {
        best_loss = loss;
        best_epoch_ = epoch;
        if (epoch < args_.epochs) best = state_.copy();
        if (epoch == args_.epochs) best.reset();
      }
      result->best_epoch = best_epoch_;
      if (args_.patience > 0 && epoch - best_epoch_ >= args_.patience) break;
    }
    if (best != nullptr && result->best_epoch < result->epochs_run) state_.take(*best);
    if (!state_.finite()) return diverged();
    return {};
  }

 private:
  Status diverged() const {
    return fail(Code::kNotFinite,
                "the fit ran out of the range of float; lower learningRate, or the size of values and weights");
  }

  void start_intercept() {
    double s = 0;
    double t = 0;
    double offset = 0;
    for (int64_t i = 0; i < args_.rows.n_rows; ++i) {
      const double w = args_.targets.weight(i);
      s += w * args_.targets.successes[i];
      t += w * args_.targets.trial(i);
      offset += w * args_.targets.trial(i) * args_.targets.shift(i);
    }
    const double rate = (s + 0.5) / (t + 1.0);
    state_.intercept[0] = std::log(rate / (1.0 - rate)) - offset / t;
  }

  Status learn(int32_t epoch, double* mean_loss) {
    const int64_t n = args_.rows.n_rows;
    order_of_rows(state_.options.seed, state_.epochs, args_.shuffle, &order_);
    const cpu::FfmWeights weights = state_.weights();
    const auto tile = [&](int64_t chunk, int worker) {
      cpu::FfmSum sum;
      const int64_t end = std::min(n, (chunk + 1) * kTile);
      for (int64_t i = chunk * kTile; i < end; ++i) {
        if (i + 1 < end) cpu::ffm_prefetch(weights, args_.rows, order_[static_cast<size_t>(i + 1)]);
        cpu::ffm_learn(kernels_, weights, args_.rows, args_.targets, order_[static_cast<size_t>(i)],
                       scratch_[static_cast<size_t>(worker)], &sum);
      }
      sums_[static_cast<size_t>(chunk)] = sum;
      if (args_.progress && worker == 0) args_.progress(epoch - 1, static_cast<double>(end) / static_cast<double>(n));
    };
    RunContext one_thread = context_;
    one_thread.parallel = context_.parallel && args_.schedule == FfmSchedule::kHogwild;
    ThreadPool::instance().for_each_chunk((n + kTile - 1) / kTile, one_thread, tile);
    return add_up(n, mean_loss);
  }

  Status validate(double* mean_loss) {
    const int64_t n = args_.validation.n_rows;
    const cpu::FfmWeights weights = state_.weights();
    ThreadPool::instance().for_each_chunk((n + kTile - 1) / kTile, context_, [&](int64_t chunk, int worker) {
      cpu::FfmSum sum;
      const SparseTargets& targets = args_.validation_targets;
      for (int64_t row = chunk * kTile; row < std::min(n, (chunk + 1) * kTile); ++row) {
        const double eta = cpu::ffm_predictor(kernels_, weights, args_.validation, row, targets.shift(row),
                                              scratch_[static_cast<size_t>(worker)]);
        sum.weight += targets.weight(row) * targets.trial(row);
        sum.loss +=
            targets.weight(row) * logistic_loss(logistic_at(eta), eta, targets.successes[row], targets.trial(row));
      }
      sums_[static_cast<size_t>(chunk)] = sum;
    });
    return add_up(n, mean_loss);
  }

  Status add_up(int64_t n, double* mean_loss) const {
    if (context_.stop_requested()) return fail(Code::kCancelled, "cancelled");
    cpu::FfmSum total;
    for (int64_t chunk = 0; chunk < (n + kTile - 1) / kTile; ++chunk) {
      total.weight += sums_[static_cast<size_t>(chunk)].weight;
      total.loss += sums_[static_cast<size_t>(chunk)].loss;
    }
    *mean_loss = total.loss / total.weight;
    return std::isfinite(*mean_loss) ? Status() : diverged();
  }

  const cpu::FfmKernels& kernels_;
  Ffm::State& state_;
  const FfmFitArgs& args_;
  const RunContext& context_;
  std::vector<int32_t> order_;
  const int32_t longest_;
  std::vector<cpu::FfmScratch> scratch_;
  std::vector<cpu::FfmSum> sums_;
  int32_t best_epoch_ = 0;
};

Status check_set(const char* name, const SparseRows& rows, const SparseTargets& targets, const FfmOptions& o,
                 const RunContext& context) {
  if (Status status = check_sparse_rows(rows, o.n_features, o.n_fields, context); !status.ok()) return status;
  if (Status status = check_sparse_targets(targets, rows.n_rows); !status.ok()) return status;
  double total = 0;
  for (int64_t i = 0; i < rows.n_rows; ++i) total += targets.weight(i) * targets.trial(i);
  if (total > 0) return {};
  return fail(Code::kInvalidArgument, "%s weights times trials are all zero", name);
}

Status check(const FfmFitArgs& args, const FfmOptions& options, const RunContext& context) {
  if (args.rows.n_rows < 1) return fail(Code::kShape, "nRows must be at least 1");
  if (args.epochs < 1 || args.train_loss == nullptr) return fail(Code::kInvalidArgument, "epochs must be at least 1");
  if (args.patience < 0 || (args.patience > 0 && args.validation.n_rows == 0)) {
    return fail(Code::kInvalidArgument, "patience needs validation rows and must not be negative");
  }
  if (args.schedule != FfmSchedule::kOrdered && args.schedule != FfmSchedule::kHogwild) {
    return fail(Code::kInvalidArgument, "unknown schedule %d", static_cast<int>(args.schedule));
  }
  if (Status status = check_set("training", args.rows, args.targets, options, context); !status.ok()) return status;
  if (args.validation.n_rows == 0) return {};
  if (args.validation_loss == nullptr) return fail(Code::kShape, "validationLoss is missing");
  return check_set("validation", args.validation, args.validation_targets, options, context);
}

}  // namespace

Ffm::Ffm(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ffm::~Ffm() = default;

Status Ffm::create(const FfmOptions& options, std::unique_ptr<Ffm>* out) {
  return guarded([&]() -> Status {
    if (Status status = check_ffm_options(options); !status.ok()) return status;
    out->reset(new Ffm(std::make_unique<State>(options)));
    return {};
  });
}

Status Ffm::fit(const FfmFitArgs& args, const RunContext& context, FfmFitResult* result) {
  *result = {};
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args, state_->options, context); !status.ok()) return status;
    const std::unique_ptr<State> before = state_->copy();
    const Status status = guarded([&] { return Fit(r.table->ffm, *state_, args, context).run(result); });
    if (!status.ok()) state_->take(*before);
    return status;
  });
}

Status Ffm::predict(const SparseRows& rows, const double* offset, const RunContext& context,
                    double* probabilities) const {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    State& s = *state_;
    if (Status status = check_sparse_rows(rows, s.options.n_features, s.options.n_fields, context); !status.ok()) {
      return status;
    }
    if (Status status = check_sparse_offset(offset, rows.n_rows); !status.ok()) return status;
    const int32_t longest = longest_row(rows);
    std::vector<cpu::FfmScratch> scratch;
    scratch.reserve(static_cast<size_t>(ThreadPool::instance().max_workers()));
    for (int i = 0; i < ThreadPool::instance().max_workers(); ++i) scratch.emplace_back(longest);
    const cpu::FfmWeights weights = s.weights();
    ThreadPool::instance().for_each_chunk((rows.n_rows + kTile - 1) / kTile, context, [&](int64_t chunk, int worker) {
      const int64_t end = std::min(rows.n_rows, (chunk + 1) * kTile);
      for (int64_t row = chunk * kTile; row < end; ++row) {
        probabilities[row] =
            logistic_mean(cpu::ffm_predictor(r.table->ffm, weights, rows, row, offset != nullptr ? offset[row] : 0.0,
                                             scratch[static_cast<size_t>(worker)]));
      }
    });
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return {};
  });
}

void Ffm::weights(double* intercept, float* linear, float* interactions) const {
  const State& s = *state_;
  const FfmOptions& o = s.options;
  const int32_t width = cpu::ffm_width(o.k);
  *intercept = o.linear ? s.intercept[0] : 0;
  for (int64_t feature = 0; feature < o.n_features; ++feature) {
    linear[feature] = o.linear ? s.linear[feature].weight : 0;
    const float* block = s.blocks.data() + feature * 2 * o.n_fields * width;
    for (int32_t field = 0; field < o.n_fields; ++field) {
      std::copy(block + field * width, block + field * width + o.k,
                interactions + (feature * o.n_fields + field) * o.k);
    }
  }
}

const FfmOptions& Ffm::options() const { return state_->options; }

int64_t Ffm::bytes() const { return state_->blocks.bytes() + state_->linear.bytes(); }

FfmStats Ffm::stats() const { return {options(), state_->epochs, bytes()}; }

Status Ffm::save(const std::string& path, const RunContext& context) const {
  return guarded([&]() -> Status { return state_->write([&](const FileWriter& w) { return w.save(path, context); }); });
}

Status Ffm::to_memory(std::vector<uint8_t>* out) const {
  return guarded([&]() -> Status { return state_->write([&](const FileWriter& w) { return w.to_memory(out); }); });
}

Status Ffm::load(const std::string& path, const RunContext& context, std::unique_ptr<Ffm>* out) {
  return guarded([&]() -> Status {
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::open(path, kKind, Verify::kFull, context, &file); !status.ok()) return status;
    std::unique_ptr<State> state;
    if (Status status = State::read(*file, &state); !status.ok()) return status;
    out->reset(new Ffm(std::move(state)));
    return {};
  });
}

Status Ffm::from_memory(const void* bytes, int64_t size, const RunContext& context, std::unique_ptr<Ffm>* out) {
  return guarded([&]() -> Status {
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::copy_of(bytes, size, kKind, Verify::kFull, context, &file); !status.ok()) {
      return status;
    }
    std::unique_ptr<State> state;
    if (Status status = State::read(*file, &state); !status.ok()) return status;
    out->reset(new Ffm(std::move(state)));
    return {};
  });
}

}  // namespace waggle
