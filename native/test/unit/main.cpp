#include "test/unit/check.hpp"

int main() {
  int passed = 0;
  int failed = 0;
  for (const waggle::unit::Test& test : waggle::unit::tests()) {
    const int before = waggle::unit::failures();
    test.body();
    const bool good = waggle::unit::failures() == before;
    (good ? passed : failed) += 1;
    if (!good) std::printf("FAIL %s\n", test.title);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
