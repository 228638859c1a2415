#include "test/fuzz/trees_fuzzing.hpp"
#include "test/trees/random_ensemble.hpp"

using namespace waggle;

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  for (const bool mixed : {false, true}) {
    all.emplace_back();
    const trees::Ensemble e = conformance::random_ensemble({6, 9, !mixed, 5, 0, 3, 2, mixed, 4});
    if (!trees::write(e, &all.back()).ok()) std::abort();
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> repaired(data, data + size);
  fuzz::repair_checksums(repaired);
  fuzz::load(repaired.data(), repaired.size(), trees::Format::kWaggle);
  return 0;
}
