// Runs a fuzz target without libFuzzer: on its seeds and on quick mutations of them, on the files named, or
// (--seeds FOLDER) writes the seeds for a fuzzer to start from.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "test/conformance/case.hpp"
#include "test/fuzz/fuzz.hpp"

using namespace waggle;

namespace {

void mutate(std::vector<uint8_t>& bytes, conformance::Random& random) {
  const int64_t n_edits = 1 + random.below(4);
  for (int64_t e = 0; e < n_edits && !bytes.empty(); ++e) {
    const int64_t n = static_cast<int64_t>(bytes.size());
    // Half of the edits go to the first bytes, where headers are.
    const int64_t at = random.below(random.below(2) == 0 ? std::min<int64_t>(n, 512) : n);
    switch (random.below(6)) {
      case 0:
        bytes[static_cast<size_t>(at)] ^= static_cast<uint8_t>(1 << random.below(8));
        break;
      case 1:
        bytes[static_cast<size_t>(at)] = static_cast<uint8_t>(random.next());
        break;
      case 2:
        bytes.resize(static_cast<size_t>(at));
        break;
      case 3:
        bytes.erase(bytes.begin() + at, bytes.begin() + at + std::min<int64_t>(n - at, 1 + random.below(16)));
        break;
      case 4:
        bytes.insert(bytes.begin() + at, static_cast<size_t>(1 + random.below(16)),
                     static_cast<uint8_t>(random.next()));
        break;
      default: {  // a whole word of 0s or 1s
        const int64_t end = std::min(n, at + 8);
        std::fill(bytes.begin() + at, bytes.begin() + end, random.below(2) == 0 ? uint8_t{0} : uint8_t{255});
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::vector<uint8_t>> seeds = fuzz::seeds();
  if (argc == 3 && std::strcmp(argv[1], "--seeds") == 0) {
    std::filesystem::create_directories(argv[2]);
    for (size_t s = 0; s < seeds.size(); ++s) {
      std::ofstream(std::string(argv[2]) + "/seed-" + std::to_string(s), std::ios::binary)
          .write(reinterpret_cast<const char*>(seeds[s].data()), static_cast<std::streamsize>(seeds[s].size()));
    }
    std::printf("%zu seeds\n", seeds.size());
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    std::printf("survived %s\n", argv[i]);
  }
  if (argc > 1) return 0;
  constexpr int kMutations = 4000;
  conformance::Random random(20);
  for (const std::vector<uint8_t>& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  for (int m = 0; m < kMutations && !seeds.empty(); ++m) {
    std::vector<uint8_t> bytes = seeds[static_cast<size_t>(m) % seeds.size()];
    mutate(bytes, random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("survived %zu seeds and %d mutations\n", seeds.size(), kMutations);
  return 0;
}
