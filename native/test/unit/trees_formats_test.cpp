// Models as LightGBM, XGBoost and ONNX tools wrote them, on rows that meet thresholds exactly, against what those
// libraries predict (test/trees/make_models.py).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "test/conformance/case.hpp"
#include "test/trees/random_ensemble.hpp"
#include "test/unit/check.hpp"
#include "waggle/ops/trees_predict.hpp"

using namespace waggle;

namespace {

std::vector<uint8_t> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Recorded {
  int32_t n_rows = 0, n_features = 0, n_outputs = 0;
  std::vector<float> x, expected;
};

Recorded recorded(const std::filesystem::path& path) {
  const std::vector<uint8_t> bytes = bytes_of(path);
  Recorded r;
  int32_t sizes[3];
  std::memcpy(sizes, bytes.data(), sizeof sizes);
  r.n_rows = sizes[0];
  r.n_features = sizes[1];
  r.n_outputs = sizes[2];
  r.x.resize(static_cast<size_t>(r.n_rows) * static_cast<size_t>(r.n_features));
  r.expected.resize(static_cast<size_t>(r.n_rows) * static_cast<size_t>(r.n_outputs));
  std::memcpy(r.x.data(), bytes.data() + sizeof sizes, r.x.size() * 4);
  std::memcpy(r.expected.data(), bytes.data() + sizeof sizes + r.x.size() * 4, r.expected.size() * 4);
  return r;
}

std::vector<std::filesystem::path> models() {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(WAGGLE_TREES_MODELS)) {
    if (entry.path().extension() != ".rows") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<float> predict(const trees::Model& model, const std::vector<float>& x, int64_t n_rows) {
  std::vector<float> out(static_cast<size_t>(n_rows * model.ensemble().n_outputs()), -9.0f);
  TreesPredictArgs args;
  args.model = &model;
  args.x = x.data();
  args.n_rows = n_rows;
  args.out = out.data();
  EXPECT(trees_predict(args, RunContext{}).ok());
  return out;
}

// They add floats in float; we add them in double. Scores here are of order 1 and of few trees.
constexpr double kTolerance = 3e-6;
// ONNX Runtime inverts the error function by a formula good to about 1e-4.
constexpr double kProbitTolerance = 5e-4;

std::string compare(const std::vector<float>& found, const std::vector<float>& expected, double tolerance) {
  if (found.size() != expected.size()) return "sizes differ";
  for (size_t i = 0; i < found.size(); ++i) {
    const double e = expected[i];
    const double f = found[i];
    if (std::isnan(e) ? std::isnan(f) : f == e) continue;
    if (!(std::fabs(f - e) <= tolerance * (1 + std::fabs(e)))) {
      return "output " + std::to_string(i) + " is " + std::to_string(f) + ", not " + std::to_string(e);
    }
  }
  return {};
}

}  // namespace

TEST("every recorded model predicts what its own library predicts") {
  int n = 0;
  for (const std::filesystem::path& path : models()) {
    const std::vector<uint8_t> bytes = bytes_of(path);
    trees::Ensemble ensemble;
    Status status = trees::read(bytes.data(), bytes.size(), trees::Format::kAuto, &ensemble);
    std::shared_ptr<const trees::Model> model;
    if (status.ok()) status = trees::Model::create(ensemble, &model);
    if (!status.ok()) std::printf("  %s: %s\n", path.filename().c_str(), status.text().c_str());
    EXPECT(status.ok());
    if (!status.ok()) continue;
    Recorded r = recorded(path.string() + ".rows");
    EXPECT(ensemble.n_features == r.n_features);
    EXPECT(ensemble.n_outputs() == r.n_outputs);
    const std::string wrong = compare(predict(*model, r.x, r.n_rows), r.expected,
                                      ensemble.transform == trees::Transform::kProbit ? kProbitTolerance : kTolerance);
    if (!wrong.empty()) std::printf("  %s: %s\n", path.filename().c_str(), wrong.c_str());
    EXPECT(wrong.empty());
    // Our own format gives the same model back.
    std::vector<uint8_t> written;
    EXPECT(trees::write(ensemble, &written).ok());
    trees::Ensemble again;
    EXPECT(trees::read(written.data(), written.size(), trees::Format::kAuto, &again).ok());
    std::shared_ptr<const trees::Model> same;
    EXPECT(trees::Model::create(again, &same).ok());
    const std::vector<float> a = predict(*model, r.x, r.n_rows);
    const std::vector<float> b = predict(*same, r.x, r.n_rows);
    EXPECT(a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0);
    ++n;
  }
  EXPECT(n >= 42);
}

TEST("a model that is cut off, or of which a byte was changed, is refused or is another valid model") {
  conformance::Random random(3);
  for (const std::filesystem::path& path : models()) {
    const std::vector<uint8_t> bytes = bytes_of(path);
    trees::Ensemble ensemble;
    for (int i = 0; i < 60; ++i) {
      std::vector<uint8_t> changed = bytes;
      if (i % 2 == 0) {
        changed.resize(static_cast<size_t>(random.below(static_cast<int64_t>(bytes.size()))));
      } else {
        changed[static_cast<size_t>(random.below(static_cast<int64_t>(bytes.size())))] ^=
            static_cast<uint8_t>(1 + random.below(255));
      }
      const Status status = trees::read(changed.data(), changed.size(), trees::Format::kAuto, &ensemble);
      EXPECT(status.ok() || status.code() == Code::kModel);
      if (status.ok()) EXPECT(trees::validate(ensemble).ok());
    }
  }
}

TEST("our own format refuses every changed byte and every other length") {
  const trees::Ensemble e = conformance::random_ensemble({3, 5, false, 4, 0, 2, 1, true, 8});
  std::vector<uint8_t> bytes;
  EXPECT(trees::write(e, &bytes).ok());
  trees::Ensemble out;
  EXPECT(trees::read(bytes.data(), bytes.size(), trees::Format::kWaggle, &out).ok());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<uint8_t> changed = bytes;
    changed[i] ^= 0x10;
    EXPECT(trees::read(changed.data(), changed.size(), trees::Format::kWaggle, &out).code() == Code::kModel);
    EXPECT(trees::read(bytes.data(), i, trees::Format::kWaggle, &out).code() == Code::kModel);
  }
  bytes.push_back(0);
  EXPECT(trees::read(bytes.data(), bytes.size(), trees::Format::kWaggle, &out).code() == Code::kModel);
}

TEST("ensembles that are no forest are refused") {
  const trees::Ensemble good = conformance::random_ensemble({2, 4, true, 3, 0, 1, 1, false, 4});
  EXPECT(trees::validate(good).ok());
  const auto refused = [&](auto&& change) {
    trees::Ensemble e = good;
    change(e);
    std::shared_ptr<const trees::Model> model;
    return trees::Model::create(e, &model).code() == Code::kModel && model == nullptr;
  };
  EXPECT(refused([](auto& e) { e.nodes[0].left = 0; }));                 // a cycle
  EXPECT(refused([](auto& e) { e.nodes[0].left = e.nodes[0].right; }));  // two parents, and one nobody's
  EXPECT(refused([](auto& e) { e.nodes[0].right = 99; }));
  EXPECT(refused([](auto& e) { e.nodes[0].right = -1; }));
  EXPECT(refused([](auto& e) { e.nodes[0].feature = 3; }));
  EXPECT(refused([](auto& e) { e.nodes[0].feature = -2; }));
  EXPECT(refused([](auto& e) { e.nodes[0].threshold = NAN; }));
  EXPECT(refused([](auto& e) { e.nodes.back().first = 1u << 30; }));
  EXPECT(refused([](auto& e) { e.values[0] = INFINITY; }));
  EXPECT(refused([](auto& e) { e.base.clear(); }));
  EXPECT(refused([](auto& e) { e.trees[1].first_node = 0; }));
  EXPECT(refused([](auto& e) { e.trees[0].first_target = 1; }));
  EXPECT(refused([](auto& e) { e.nodes.emplace_back(); }));
  EXPECT(refused([](auto& e) {
    e.nodes[0].decision = trees::Decision::kCategory;
    e.nodes[0].count = 5;
  }));
  EXPECT(refused([](auto& e) {  // a chain deeper than anything real
    e = trees::Ensemble();
    e.n_features = 1;
    e.base = {0};
    e.values = {1};
    trees::Tree tree;
    for (int32_t i = 0; i < 5000; ++i) {
      trees::Node split;
      split.feature = 0;
      split.left = 2 * i + 1;
      split.right = 2 * i + 2;
      e.nodes.push_back(split);
      e.nodes.emplace_back();
    }
    // Each split is the right child of the one before: nodes are (split, leaf) pairs.
    for (int32_t i = 0; i < 5000; ++i) {
      e.nodes[static_cast<size_t>(2 * i)].left = 2 * i + 1;
      e.nodes[static_cast<size_t>(2 * i)].right = 2 * i + 2;
    }
    e.nodes.emplace_back();
    tree.n_nodes = static_cast<uint32_t>(e.nodes.size());
    e.trees = {tree};
  }));
}

TEST("nesting bombs and counts without bytes are refused at once") {
  trees::Ensemble e;
  const auto refused = [&](const std::string& text, trees::Format format) {
    return trees::read(reinterpret_cast<const uint8_t*>(text.data()), text.size(), format, &e).code() == Code::kModel;
  };
  EXPECT(refused(std::string(1000000, '['), trees::Format::kXgboostJson));
  EXPECT(refused("{\"a\":" + std::string(1000000, '{'), trees::Format::kXgboostJson));
  EXPECT(refused(std::string(1000000, '['), trees::Format::kXgboostUbj));
  EXPECT(
      refused(std::string("{L\0\0\0\0\0\0\0\1a[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", 23), trees::Format::kXgboostUbj));
  EXPECT(refused(std::string("[$T#L\0\0\0\0\x7f\xff\xff\xff", 13), trees::Format::kXgboostUbj));
  EXPECT(refused(std::string("[#L\0\0\0\0\x7f\xff\xff\xffT", 12), trees::Format::kXgboostUbj));
  EXPECT(refused(std::string("SL\x7f\xff\xff\xff\xff\xff\xff\xffx", 11), trees::Format::kXgboostUbj));
  EXPECT(
      refused("tree\nnum_tree_per_iteration=2000000000\nmax_feature_idx=2147483647\nTree=0\nnum_leaves=4000000000\n"
              "leaf_value=1\nend of trees\n",
              trees::Format::kLightgbm));
  EXPECT(
      refused("tree\nmax_feature_idx=1\nTree=0\nnum_leaves=2\nleaf_value=1 2\nsplit_feature=0\nthreshold=0\n"
              "decision_type=2\nleft_child=0\nright_child=-1\nend of trees\n",
              trees::Format::kLightgbm));  // its own child
  EXPECT(refused(std::string("\x08\x0a\x3a\xff\xff\xff\xff\x0f", 8), trees::Format::kOnnx));
  EXPECT(refused("", trees::Format::kAuto));
  EXPECT(refused("neither", trees::Format::kAuto));
}

TEST("what is not supported is refused by name") {
  trees::Ensemble e;
  const auto reason = [&](const std::string& text) {
    const Status status =
        trees::read(reinterpret_cast<const uint8_t*>(text.data()), text.size(), trees::Format::kAuto, &e);
    return status.code() == Code::kModel ? status.text() : std::string("accepted");
  };
  const std::string head = "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=1\nobjective=regression\n";
  const std::string tree = "Tree=0\nnum_leaves=1\nleaf_value=1\n";
  EXPECT(reason(head + tree + "is_linear=1\nend of trees\n").find("is_linear") != std::string::npos);
  EXPECT(reason(head + tree).find("cut off") != std::string::npos);
  EXPECT(reason(head + tree + "end of trees\n") == "accepted");
  std::string other = head;
  other.replace(other.find("regression"), 10, "mystery   ");
  EXPECT(reason(other + tree + "end of trees\n").find("mystery") != std::string::npos);
  EXPECT(
      reason(
          "{\"learner\":{\"learner_model_param\":{\"num_feature\":\"2\",\"num_class\":\"0\",\"base_score\":\"5E-1\"},"
          "\"objective\":{\"name\":\"reg:squarederror\"},\"gradient_booster\":{\"name\":\"gblinear\"}}}")
          .find("gblinear") != std::string::npos);
}

TEST("a row's prediction has the same bits at every batch size, thread count and instruction set") {
  conformance::Random random(31);
  for (const bool mixed : {false, true}) {
    trees::Ensemble e = conformance::random_ensemble({90, 60, false, 11, 0, 2, 1, mixed, 12});
    std::shared_ptr<const trees::Model> model;
    EXPECT(trees::Model::create(e, &model).ok());
    constexpr int64_t kRows = 1100;
    const std::vector<float> x = conformance::random_rows(model->ensemble(), kRows, random, false);
    std::vector<double> sums(2);
    const std::vector<float> all = predict(*model, x, kRows);
    for (const int64_t batch : {1, 3, 20, 64, 100, 513}) {
      for (int64_t r = 0; r + batch <= kRows; r += batch * 7) {
        const std::vector<float> part(x.begin() + r * 11, x.begin() + (r + batch) * 11);
        const std::vector<float> found = predict(*model, part, batch);
        EXPECT(std::memcmp(found.data(), all.data() + r * 2, found.size() * 4) == 0);
      }
    }
    for (const int32_t threads : {1, 2, 5}) {
      std::vector<float> out(all.size());
      TreesPredictArgs args;
      args.model = model.get();
      args.x = x.data();
      args.n_rows = kRows;
      args.threads = threads;
      args.out = out.data();
      EXPECT(trees_predict(args, RunContext{}).ok());
      EXPECT(std::memcmp(out.data(), all.data(), all.size() * 4) == 0);
    }
    for (int64_t r = 0; r < kRows; r += 9) {
      std::fill(sums.begin(), sums.end(), 0.0);
      trees::sum_leaves(model->ensemble(), x.data() + r * 11, sums.data());
      for (size_t t = 0; t < 2; ++t) {
        const float score = static_cast<float>(e.base[t] + e.scale * sums[t]);
        EXPECT(std::memcmp(&score, &all[static_cast<size_t>(r) * 2 + t], 4) == 0);
      }
    }
  }
}

TEST("a cancelled prediction says so") {
  std::shared_ptr<const trees::Model> model;
  EXPECT(trees::Model::create(conformance::random_ensemble({5, 8, true, 3}), &model).ok());
  const std::vector<float> x(3000, 0.5f);
  std::vector<float> out(1000);
  TreesPredictArgs args;
  args.model = model.get();
  args.x = x.data();
  args.n_rows = 1000;
  args.out = out.data();
  const std::atomic<bool> stop{true};
  RunContext context;
  context.cancelled = &stop;
  EXPECT(trees_predict(args, context).code() == Code::kCancelled);
  args.out = nullptr;
  EXPECT(trees_predict(args, RunContext{}).code() == Code::kShape);
}
