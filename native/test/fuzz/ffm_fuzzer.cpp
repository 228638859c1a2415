// Files of field-aware factorisation machines: whatever they say, loading, predicting and fitting neither crash nor
// read astray.
#include <cstdlib>

#include "test/fuzz/fuzz.hpp"
#include "waggle/ffm.hpp"

using namespace waggle;

namespace {

constexpr int32_t kIndptr[] = {0, 1, 1, 2};

void read(const uint8_t* data, size_t size) {
  RunContext context;
  context.parallel = false;
  std::unique_ptr<Ffm> model;
  const Status status = Ffm::from_memory(data, static_cast<int64_t>(size), context, &model);
  if (!status.ok()) {
    if (status.code() != Code::kFile || status.text().empty()) std::abort();
    return;
  }
  const FfmOptions options = model->stats().options;
  const int32_t indices[] = {0, static_cast<int32_t>(options.n_features - 1)};
  const int32_t fields[] = {0, options.n_fields - 1};
  const double successes[] = {1, 0, 1};
  const SparseRows rows{3, kIndptr, indices, nullptr, fields, 2};
  double probabilities[3];
  if (!model->predict(rows, nullptr, context, probabilities).ok()) std::abort();
  double loss = 0;
  FfmFitArgs args;
  args.rows = rows;
  args.targets = {successes, nullptr, nullptr, nullptr};
  args.train_loss = &loss;
  FfmFitResult result;
  const Status fitted = model->fit(args, context, &result);
  if (!fitted.ok() && fitted.code() != Code::kNotFinite) std::abort();
  std::vector<uint8_t> again;
  if (!model->to_memory(&again).ok()) std::abort();
}

}  // namespace

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  for (const int32_t k : {1, 6}) {
    for (const bool plain : {true, false}) {
      std::unique_ptr<Ffm> model;
      all.emplace_back();
      if (!Ffm::create({5, 2, k, 0.1, 0.5, 1e-5, 0, plain, plain, 3}, &model).ok() ||
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
