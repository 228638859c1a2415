// Times the conformance suite's large cases through the public API; JSON on stdout, one record per case.
//
//   native_bench [--quick] [--filter TEXT]
//   native_bench --device [--quick] [--huge] [--filter TEXT]    what the accelerator is for, at 10M rows
//   (device_bench.hpp)
//
// WAGGLE_SIMD and WAGGLE_BACKEND choose what is measured. Each record gives the median of the runs and, for judging
// it, the read bandwidth and the multiply-adds this machine reached in this process.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bench/device_bench.hpp"
#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"
#include "waggle/ops/machine_probe.hpp"

using namespace waggle;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Quartiles {
  double median = 0;
  double spread = 0;  // interquartile range
};

Quartiles quartiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {at(0.5), at(0.75) - at(0.25)};
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  bool device = false;
  bool huge = false;
  const char* filter = "";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else if (std::strcmp(argv[i], "--device") == 0) {
      device = true;
    } else if (std::strcmp(argv[i], "--huge") == 0) {
      huge = true;
    } else if (std::strcmp(argv[i], "--filter") == 0 && i + 1 < argc) {
      filter = argv[++i];
    } else {
      std::fprintf(stderr, "usage: native_bench [--device [--huge]] [--quick] [--filter TEXT]\n");
      return 2;
    }
  }
  if (const Status status = backend_status(); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.text().c_str());
    return 1;
  }
  const BackendInfo& info = backend_info();
  if (device) {
    if (info.backend == "cpu") {
      std::fprintf(stderr, "native_bench: no accelerator is in use\n");
      for (const RejectedBackend& one : info.rejected)
        if (one.name == "cuda") std::fprintf(stderr, "  cuda: %s\n", one.reason.c_str());
      return 1;
    }
    return bench::device_bench({quick, huge, filter});
  }
  conformance::Cases cases;
  for (auto& item : conformance::all_cases(true))
    if (std::strstr(item->name().c_str(), filter) != nullptr) cases.push_back(std::move(item));
  if (cases.empty()) {
    std::fprintf(stderr, "native_bench: no case has %s in its name\n", filter);
    return 1;
  }
  MachineProbe limits;
  if (const Status status = machine_probe(RunContext{}, &limits); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.text().c_str());
    return 1;
  }
  std::printf("[\n");
  bool first = true;
  for (auto& item : cases) {
    const std::string name = item->name();
    item->prepare();
    const Status warm = item->call(RunContext{});
    if (!warm.ok()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), warm.text().c_str());
      return 1;
    }
    // Calls per run so that a run lasts long enough for the clock.
    auto start = std::chrono::steady_clock::now();
    (void)item->call(RunContext{});
    const double once = seconds_since(start);
    const int calls = std::max(1, static_cast<int>(0.002 / std::max(once, 1e-9)));
    const int runs = std::clamp(static_cast<int>((quick ? 1.0 : 4.0) / std::max(once, 1e-9)), 3, quick ? 5 : 21);
    std::vector<double> times;
    for (int run = 0; run < runs; ++run) {
      start = std::chrono::steady_clock::now();
      for (int c = 0; c < calls; ++c) (void)item->call(RunContext{});
      times.push_back(seconds_since(start) / calls);
    }
    const Quartiles q = quartiles(times);
    std::printf(
        "%s  {\"suite\": \"native\", \"case\": \"%s\", \"metric\": \"us\", \"unit\": \"us\", \"value\": %.3f, "
        "\"better\": \"lower\", \"runs\": %d, \"iqr\": %.3f, \"gigaMultiplyAddsPerSecond\": %.3f, "
        "\"gigabytesPerSecond\": %.3f, \"readBandwidthGigabytesPerSecond\": %.3f, "
        "\"peakGigaMultiplyAddsPerSecond\": %.3f, \"backend\": \"%s\", "
        "\"simd\": \"%s\", \"threads\": %d}",
        first ? "" : ",\n", name.c_str(), q.median * 1e6, runs, q.spread * 1e6, item->multiply_adds() / q.median / 1e9,
        item->bytes() / q.median / 1e9, limits.read_bytes_per_second / 1e9, limits.flops_per_second / 2e9,
        info.backend.c_str(), info.simd.c_str(), info.n_threads);
    first = false;
    item.reset();
    std::fflush(stdout);
  }
  std::printf("\n]\n");
  return 0;
}
