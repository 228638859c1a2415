// Runs every case on the level that WAGGLE_SIMD and WAGGLE_BACKEND force. Exit status 77 = this machine lacks it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"

using namespace waggle;

int main(int argc, char** argv) {
  // Names with any of these in them; all without any.
  const auto wanted = [&](const std::string& name) {
    bool any = argc < 2;
    for (int i = 1; i < argc; ++i) any = any || std::strstr(name.c_str(), argv[i]) != nullptr;
    return any;
  };
  if (const Status status = backend_status(); !status.ok()) {
    const char* required = std::getenv("WAGGLE_REQUIRE_GPU");
    const char* backend = std::getenv("WAGGLE_BACKEND");
    const bool gpu = backend != nullptr && std::strcmp(backend, "cuda") == 0;
    if (gpu && required != nullptr && std::strcmp(required, "1") == 0) {
      std::fprintf(stderr, "FAIL (WAGGLE_REQUIRE_GPU=1): %s\n", status.text().c_str());
      return 1;
    }
    std::fprintf(stderr, "SKIP: %s\n", status.text().c_str());
    return 77;
  }
  const BackendInfo& info = backend_info();
  std::printf("backend %s, simd %s, %d threads\n", info.backend.c_str(), info.simd.c_str(), info.n_threads);
  int passed = 0;
  int failed = 0;
  for (const auto& item : conformance::all_cases(false)) {
    const std::string name = item->name();
    if (!wanted(name)) continue;
    item->prepare();
    const Status status = item->call(RunContext{});
    std::string wrong = status.ok() ? item->verify() : status.text();
    if (wrong.empty()) {
      RunContext serial;
      serial.parallel = false;
      const Status again = item->call(serial);
      wrong = again.ok() ? item->verify() : again.text();
      if (!wrong.empty()) wrong += " (on one thread)";
    }
    if (wrong.empty()) {
      ++passed;
    } else {
      ++failed;
      std::printf("FAIL %s: %s\n", name.c_str(), wrong.c_str());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  if (passed + failed == 0) std::fprintf(stderr, "FAIL: no case has any of these in its name\n");
  return failed == 0 && passed > 0 ? 0 : 1;
}
