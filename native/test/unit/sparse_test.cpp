#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cpu/ffm.hpp"
#include "cpu/table.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/temporary_folder.hpp"
#include "waggle/ffm.hpp"
#include "waggle/ftrl.hpp"
#include "waggle/ops/glm_sparse.hpp"
#include "waggle/ops/hash_features.hpp"

using namespace waggle;

namespace {

// A stream of rows with one entry per field, some of them alike.
struct Stream {
  std::vector<int32_t> indptr{0}, indices;
  std::vector<double> successes;
  int32_t fields;

  Stream(int64_t n, int32_t n_fields, int32_t n_features, uint64_t seed) : fields(n_fields) {
    conformance::Random random(seed);
    for (int64_t i = 0; i < n; ++i) {
      for (int32_t f = 0; f < n_fields; ++f) indices.push_back(static_cast<int32_t>(random.below(n_features)));
      indptr.push_back(static_cast<int32_t>(indices.size()));
      const int32_t both = indices[indices.size() - 1] + indices[indices.size() - 2];
      successes.push_back(random.uniform() < (both % 3 == 0 ? 0.7 : 0.1) ? 1 : 0);
    }
  }
  int64_t n() const { return static_cast<int64_t>(successes.size()); }
  SparseRows rows() const {
    return {n(), indptr.data(), indices.data(), nullptr, nullptr, static_cast<int64_t>(indices.size())};
  }
  SparseTargets targets() const { return {successes.data(), nullptr, nullptr, nullptr}; }
};

struct Part {
  std::vector<int32_t> indptr{0};
  SparseRows rows;
  SparseTargets targets;

  Part(const Stream& s, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) indptr.push_back(indptr.back() + s.fields);
    rows = {end - begin, indptr.data(), s.indices.data() + begin * s.fields, nullptr, nullptr, indptr.back()};
    targets = {s.successes.data() + begin, nullptr, nullptr, nullptr};
  }
};

template <typename Model>
std::vector<uint8_t> bytes_of(const Model& model) {
  std::vector<uint8_t> bytes;
  EXPECT(model.to_memory(&bytes).ok());
  return bytes;
}

std::unique_ptr<Ftrl> new_ftrl(int64_t n_features) {
  std::unique_ptr<Ftrl> model;
  EXPECT(Ftrl::create({n_features, 0.1, 1, 0.5, 0.1, true}, &model).ok());
  return model;
}

FtrlLearned learn(Ftrl& model, const SparseRows& rows, const SparseTargets& targets) {
  FtrlLearned learned;
  EXPECT(model.learn(rows, targets, nullptr, {}, RunContext{}, &learned).ok());
  return learned;
}

Status fit(Ffm& model, const SparseRows& rows, const SparseTargets& targets, int32_t epochs,
           const RunContext& context = {}) {
  std::vector<double> losses(static_cast<size_t>(epochs));
  FfmFitArgs args;
  args.rows = rows;
  args.targets = targets;
  args.epochs = epochs;
  args.train_loss = losses.data();
  FfmFitResult result;
  return model.fit(args, context, &result);
}

template <typename Model>
void refuses_damage(const std::vector<uint8_t>& good) {
  std::unique_ptr<Model> model;
  const auto code_of = [&](const std::vector<uint8_t>& bytes) {
    return Model::from_memory(bytes.data(), static_cast<int64_t>(bytes.size()), RunContext{}, &model).code();
  };
  EXPECT(code_of(good) == Code::kOk);
  int n_survived = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    std::vector<uint8_t> bad = good;
    bad[at] ^= 0x10;
    // Bytes between sections carry nothing.
    n_survived += code_of(bad) == Code::kOk ? 1 : 0;
  }
  EXPECT(n_survived < 4 * 64);
  for (const size_t size : {size_t{0}, size_t{63}, good.size() / 2, good.size() - 1}) {
    EXPECT(code_of({good.begin(), good.begin() + static_cast<int64_t>(size)}) == Code::kFile);
  }
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  EXPECT(code_of(longer) == Code::kFile);
}

}  // namespace

TEST("ffm kernels give the same bits at every level, for every width, with repeated features") {
  conformance::Random random(3);
  const cpu::Table* scalar = cpu::table_for(cpu::Simd::kScalar);
  for (const cpu::Simd level : {cpu::Simd::kAvx2, cpu::Simd::kAvx512}) {
    const cpu::Table* table = cpu::table_for(level);
    if (table == nullptr || !cpu::features().supports(level)) continue;
    for (const int32_t width : {4, 8, 16, 48}) {
      for (const int32_t n : {0, 1, 2, 7, 20}) {
        constexpr int32_t kFields = 5;
        constexpr int32_t kFeatures = 6;
        const size_t stride = static_cast<size_t>(2 * kFields * width);
        std::vector<float> a(stride * kFeatures);
        for (float& v : a) v = static_cast<float>(random.uniform() + 0.1);
        std::vector<float> b = a;
        std::vector<float*> a_blocks, b_blocks;
        std::vector<int32_t> fields;
        std::vector<float> x;
        for (int32_t e = 0; e < n; ++e) {
          const size_t feature = static_cast<size_t>(random.below(kFeatures));
          a_blocks.push_back(a.data() + feature * stride);
          b_blocks.push_back(b.data() + feature * stride);
          fields.push_back(static_cast<int32_t>(random.below(kFields)));
          x.push_back(static_cast<float>(random.uniform() - 0.3));
        }
        const cpu::FfmRow left{a_blocks.data(), fields.data(), x.data(), n, kFields, width};
        const cpu::FfmRow right{b_blocks.data(), fields.data(), x.data(), n, kFields, width};
        for (int step = 0; step < 3; ++step) {
          const double expected = scalar->ffm.interactions(&left);
          const double got = table->ffm.interactions(&right);
          EXPECT(std::memcmp(&expected, &got, sizeof got) == 0);
          scalar->ffm.learn(&left, 0.4f, 0.2f, 1e-3f);
          table->ffm.learn(&right, 0.4f, 0.2f, 1e-3f);
          EXPECT(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST("an FTRL stream gives the same bits in batches of any size, saved and loaded half-way") {
  const Stream s(10000, 6, 900, 1);
  const std::unique_ptr<Ftrl> whole = new_ftrl(900);
  const FtrlLearned all = learn(*whole, s.rows(), s.targets());
  std::unique_ptr<Ftrl> parts = new_ftrl(900);
  const unit::TemporaryFolder folder;
  for (const int64_t cut : {0, 1, 37, 4096, 5000, 9999}) {
    const int64_t ends[] = {1, 37, 4096, 5000, 9999, 10000};
    int64_t end = 10000;
    for (const int64_t e : ends) end = e > cut ? std::min(end, e) : end;
    const Part part(s, cut, end);
    learn(*parts, part.rows, part.targets);
    EXPECT(parts->save(folder.file("model.ftrl"), RunContext{}).ok());
    EXPECT(Ftrl::load(folder.file("model.ftrl"), RunContext{}, &parts).ok());
  }
  EXPECT(parts->stats().n_rows == 10000);
  EXPECT(parts->stats().total_weight == all.total_weight);
  std::vector<int32_t> indices[2];
  std::vector<double> weights[2];
  double intercepts[2];
  whole->weights(&indices[0], &weights[0], &intercepts[0]);
  parts->weights(&indices[1], &weights[1], &intercepts[1]);
  EXPECT(indices[0] == indices[1] && weights[0] == weights[1] && intercepts[0] == intercepts[1]);
  EXPECT(!weights[0].empty() && weights[0].size() < 900);  // the lasso left some out
}

TEST("FTRL that is cancelled stops between rows and says where") {
  const Stream s(30000, 4, 200, 2);
  const std::unique_ptr<Ftrl> model = new_ftrl(200);
  std::atomic<bool> stop{false};
  RunContext context;
  context.cancelled = &stop;
  FtrlLearned learned;
  const Status status = model->learn(
      s.rows(), s.targets(), nullptr, [&](double done) { stop = done > 0.4; }, context, &learned);
  EXPECT(status.code() == Code::kCancelled);
  EXPECT(learned.n_rows > 0 && learned.n_rows < 30000);
  const Part rest(s, learned.n_rows, 30000);
  learn(*model, rest.rows, rest.targets);
  const std::unique_ptr<Ftrl> whole = new_ftrl(200);
  learn(*whole, s.rows(), s.targets());
  std::vector<int32_t> indices[2];
  std::vector<double> weights[2];
  double intercepts[2];
  whole->weights(&indices[0], &weights[0], &intercepts[0]);
  model->weights(&indices[1], &weights[1], &intercepts[1]);
  EXPECT(weights[0] == weights[1] && intercepts[0] == intercepts[1]);
}

TEST("an FFM fitted for 2 epochs, saved, loaded and fitted for 3 has the bits of 5, at any thread count") {
  const Stream s(3000, 4, 120, 4);
  std::unique_ptr<Ffm> whole, parts;
  const FfmOptions options{120, 4, 5, 0.2, 1, 1e-4, 1e-4, true, true, 9};
  EXPECT(Ffm::create(options, &whole).ok() && Ffm::create(options, &parts).ok());
  EXPECT(bytes_of(*whole) == bytes_of(*parts));
  EXPECT(fit(*whole, s.rows(), s.targets(), 5).ok());
  RunContext serial;
  serial.parallel = false;
  EXPECT(fit(*parts, s.rows(), s.targets(), 2, serial).ok());
  const std::vector<uint8_t> saved = bytes_of(*parts);
  EXPECT(Ffm::from_memory(saved.data(), static_cast<int64_t>(saved.size()), RunContext{}, &parts).ok());
  EXPECT(fit(*parts, s.rows(), s.targets(), 3).ok());
  EXPECT(bytes_of(*whole) == bytes_of(*parts));
  EXPECT(whole->stats().epochs == 5);
}

TEST("an FFM keeps the best epoch by validation and stops when patience ends") {
  const Stream s(800, 3, 400, 5);  // too few rows for 400 features: it overfits
  const Stream later(500, 3, 400, 6);
  std::unique_ptr<Ffm> model, alone;
  const FfmOptions options{400, 3, 4, 0.5, 0.1, 0, 0, true, true, 1};
  EXPECT(Ffm::create(options, &model).ok() && Ffm::create(options, &alone).ok());
  double train[40], validation[40];
  FfmFitArgs args;
  args.rows = s.rows();
  args.targets = s.targets();
  args.validation = later.rows();
  args.validation_targets = later.targets();
  args.epochs = 40;
  args.patience = 3;
  args.train_loss = train;
  args.validation_loss = validation;
  FfmFitResult result;
  EXPECT(model->fit(args, RunContext{}, &result).ok());
  EXPECT(result.epochs_run < 40 && result.best_epoch == result.epochs_run - 3);
  for (int32_t e = 0; e < result.epochs_run; ++e) EXPECT(validation[e] >= validation[result.best_epoch - 1]);
  EXPECT(fit(*alone, s.rows(), s.targets(), result.best_epoch).ok());
  EXPECT(bytes_of(*alone) == bytes_of(*model));
}

TEST("an FFM that is cancelled or diverges is what it was before") {
  const Stream s(5000, 4, 100, 7);
  std::unique_ptr<Ffm> model;
  EXPECT(Ffm::create({100, 4, 4, 0.2, 1, 0, 0, false, true, 1}, &model).ok());
  EXPECT(fit(*model, s.rows(), s.targets(), 1).ok());
  const std::vector<uint8_t> before = bytes_of(*model);
  std::atomic<bool> stop{false};
  RunContext context;
  context.cancelled = &stop;
  double losses[3];
  FfmFitArgs args;
  args.rows = s.rows();
  args.targets = s.targets();
  args.epochs = 3;
  args.train_loss = losses;
  args.progress = [&](int32_t epochs, double part) { stop = epochs == 1 && part > 0.4; };
  FfmFitResult result;
  EXPECT(model->fit(args, context, &result).code() == Code::kCancelled);
  EXPECT(bytes_of(*model) == before);
  const std::vector<float> huge(s.indices.size(), 1e30f);
  args.rows.values = huge.data();
  args.progress = {};
  EXPECT(model->fit(args, RunContext{}, &result).code() == Code::kNotFinite);
  EXPECT(bytes_of(*model) == before);
}

TEST("files of sparse models that are damaged are refused") {
  const Stream s(50, 3, 12, 8);
  const std::unique_ptr<Ftrl> ftrl = new_ftrl(12);
  learn(*ftrl, s.rows(), s.targets());
  refuses_damage<Ftrl>(bytes_of(*ftrl));
  std::unique_ptr<Ffm> ffm;
  EXPECT(Ffm::create({12, 3, 2, 0.2, 1, 0, 0, true, true, 1}, &ffm).ok());
  EXPECT(fit(*ffm, s.rows(), s.targets(), 1).ok());
  refuses_damage<Ffm>(bytes_of(*ffm));
  std::unique_ptr<Ffm> foreign;
  const std::vector<uint8_t> other = bytes_of(*ftrl);
  const Status status = Ffm::from_memory(other.data(), static_cast<int64_t>(other.size()), RunContext{}, &foreign);
  EXPECT(status.code() == Code::kFile && status.text().find("FTRL") != std::string::npos);
}

TEST("hashes are those of XXH64, the same for good") {
  // Known answers of XXH64 with seed 0: the empty input, "a", "abc".
  EXPECT(hash_key("", 0, 0) == 0xef46db3751d8e999u);
  EXPECT(hash_text(0, "a", 1) == 0xd24ec4f1a98c6e5bu);
  EXPECT(hash_text(0, "abc", 3) == 0x44bc2cf5ad770999u);
  const int32_t values[] = {7, -1};
  const uint32_t ends[] = {1, 3};
  int32_t indices[4];
  float signs[4];
  HashFeaturesArgs args;
  HashColumn numbers, texts;
  numbers.name = texts.name = "f";
  numbers.name_bytes = texts.name_bytes = 1;
  numbers.narrow = values;
  texts.text = reinterpret_cast<const uint8_t*>("7-1");
  texts.text_bytes = 3;
  texts.ends = ends;
  args.columns = {numbers, texts};
  args.n_rows = 2;
  args.bits = 20;
  args.indices = indices;
  args.values = signs;
  HashFeaturesResult result;
  EXPECT(hash_features(args, RunContext{}, &result).ok());
  const uint64_t key = hash_key("f", 1, 0);
  EXPECT(indices[0] == static_cast<int32_t>(hash_integer(key, 7) & 0xfffff));
  EXPECT(indices[3] == static_cast<int32_t>(hash_text(key, "-1", 2) & 0xfffff));
  EXPECT(indices[0] != indices[1]);
  EXPECT((signs[2] < 0) == ((hash_integer(key, -1) >> 63) != 0));
  EXPECT(result.distinct == (std::vector<int64_t>{2, 2}) && result.collisions == 0 && result.buckets == 4);
  args.bits = 1;
  EXPECT(hash_features(args, RunContext{}, &result).ok());
  EXPECT(result.buckets + result.collisions == 4 && result.buckets <= 2);
}

TEST("wrong sparse rows are refused by name, and nothing is learned") {
  Stream s(100, 3, 50, 9);
  const std::unique_ptr<Ftrl> model = new_ftrl(50);
  const std::vector<uint8_t> before = bytes_of(*model);
  FtrlLearned learned;
  const auto code_of = [&](const SparseRows& rows) {
    const Status status = model->learn(rows, s.targets(), nullptr, {}, RunContext{}, &learned);
    return status.code();
  };
  s.indices[200] = 50;
  EXPECT(code_of(s.rows()) == Code::kInvalidArgument);
  s.indices[200] = -1;
  EXPECT(code_of(s.rows()) == Code::kInvalidArgument);
  s.indices[200] = 0;
  s.indptr[50] = 10;
  EXPECT(code_of(s.rows()) == Code::kInvalidArgument);
  s.indptr[50] = 150;
  s.indptr[0] = 1;
  EXPECT(code_of(s.rows()) == Code::kInvalidArgument);
  s.indptr[0] = 0;
  SparseRows few = s.rows();
  few.n_entries = 299;
  EXPECT(code_of(few) == Code::kShape);
  std::vector<float> values(300, 1);
  values[77] = std::numeric_limits<float>::infinity();
  SparseRows wild = s.rows();
  wild.values = values.data();
  EXPECT(code_of(wild) == Code::kNotFinite);
  s.successes[5] = 1.5;
  EXPECT(code_of(s.rows()) == Code::kInvalidArgument);
  s.successes[5] = std::nan("");
  EXPECT(code_of(s.rows()) == Code::kNotFinite);
  EXPECT(bytes_of(*model) == before);
  s.successes[5] = 0;
  std::unique_ptr<Ffm> ffm;
  EXPECT(Ffm::create({50, 2, 4, 0.2, 1, 0, 0, true, true, 1}, &ffm).ok());
  EXPECT(fit(*ffm, s.rows(), s.targets(), 1).code() == Code::kShape);  // 3 entries, 2 fields
}
