#include "test/fuzz/trees_fuzzing.hpp"

using namespace waggle;

std::vector<std::vector<uint8_t>> fuzz::seeds() { return fuzz::models(".lightgbm.txt"); }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::load(data, size, trees::Format::kLightgbm);
  return 0;
}
