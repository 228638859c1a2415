#include <cstring>

#include "test/unit/check.hpp"

// Tests whose titles hold one of the arguments; all without any.
int main(int argc, char** argv) {
  const auto wanted = [&](const char* title) {
    bool any = argc < 2;
    for (int i = 1; i < argc; ++i) any = any || std::strstr(title, argv[i]) != nullptr;
    return any;
  };
  int passed = 0;
  int failed = 0;
  for (const waggle::unit::Test& test : waggle::unit::tests()) {
    if (!wanted(test.title)) continue;
    const int before = waggle::unit::failures();
    test.body();
    const bool good = waggle::unit::failures() == before;
    (good ? passed : failed) += 1;
    if (!good) std::printf("FAIL %s\n", test.title);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
