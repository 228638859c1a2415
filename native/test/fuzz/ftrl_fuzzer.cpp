// Files of FTRL models: whatever they say, loading, predicting and learning neither crash nor read astray.
#include <cmath>
#include <cstdlib>

#include "test/fuzz/fuzz.hpp"
#include "waggle/file.hpp"
#include "waggle/ftrl.hpp"

using namespace waggle;

namespace {

constexpr int64_t kMostFeatures = 1 << 20;  // what the fuzzer's memory is spent on
constexpr int32_t kIndptr[] = {0, 2, 2, 3};

bool too_large(const uint8_t* data, size_t size, const RunContext& context) {
  std::shared_ptr<const MappedFile> file;
  const int64_t* head = nullptr;
  int64_t count = 0;
  return MappedFile::copy_of(data, static_cast<int64_t>(size), {"FTRL", 1, 1}, Verify::kFull, context, &file).ok() &&
         file->section("HEAD", &head, &count).ok() && count > 0 && head[0] > kMostFeatures;
}

void read(const uint8_t* data, size_t size) {
  RunContext context;
  context.parallel = false;
  if (too_large(data, size, context)) return;
  std::unique_ptr<Ftrl> model;
  const Status status = Ftrl::from_memory(data, static_cast<int64_t>(size), context, &model);
  if (!status.ok()) {
    if (status.code() != Code::kFile || status.text().empty()) std::abort();
    return;
  }
  const int32_t last = static_cast<int32_t>(model->stats().options.n_features - 1);
  const int32_t indices[] = {0, last, last / 2};
  const double successes[] = {1, 0, 1};
  const SparseRows rows{3, kIndptr, indices, nullptr, nullptr, 3};
  double probabilities[3];
  if (!model->predict(rows, nullptr, context, probabilities).ok()) std::abort();
  FtrlLearned learned;
  if (!model->learn(rows, {successes, nullptr, nullptr, nullptr}, nullptr, {}, context, &learned).ok()) std::abort();
  std::vector<uint8_t> again;
  if (!model->to_memory(&again).ok()) std::abort();
}

}  // namespace

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  for (const bool intercept : {true, false}) {
    for (const int64_t n_features : {1, 70}) {
      std::unique_ptr<Ftrl> model;
      if (!Ftrl::create({n_features, 0.1, 1, 0.1, 0.1, intercept}, &model).ok()) std::abort();
      const int32_t last = static_cast<int32_t>(n_features - 1);
      const int32_t indices[] = {0, last, last / 2};
      const double successes[] = {1, 0, 1};
      FtrlLearned learned;
      all.emplace_back();
      if (!model
               ->learn({3, kIndptr, indices, nullptr, nullptr, 3}, {successes, nullptr, nullptr, nullptr}, nullptr, {},
                       RunContext{}, &learned)
               .ok() ||
          !model->to_memory(&all.back()).ok()) {
        std::abort();
      }
    }
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  read(data, size);
  std::vector<uint8_t> repaired(data, data + size);
  fuzz::repair_checksums(repaired);
  read(repaired.data(), repaired.size());
  return 0;
}
