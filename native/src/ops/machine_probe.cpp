#include "waggle/ops/machine_probe.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "src/registry.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

namespace {

constexpr int64_t kReadBytes = int64_t{256} << 20;  // several times the last-level cache of a server part
constexpr int64_t kReadChunks = 256;
constexpr int kReadRuns = 9;
constexpr int kFmaRuns = 7;
constexpr int64_t kFmaRounds = 250000;  // of kProbeFmas each: a few milliseconds
constexpr int64_t kChunksPerThread = 4;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double read_rate(const cpu::ProbeKernels& kernels, const RunContext& context) {
  // Written by the threads that read it, so that on machines with several memories the pages lie near.
  const std::unique_ptr<unsigned char[]> buffer(new unsigned char[static_cast<size_t>(kReadBytes)]);
  constexpr int64_t kChunk = kReadBytes / kReadChunks;
  ThreadPool& pool = ThreadPool::instance();
  pool.for_each_chunk(kReadChunks, context, [&](int64_t chunk, int) {
    std::fill_n(buffer.get() + chunk * kChunk, kChunk, static_cast<unsigned char>(chunk));
  });
  double best = 0;
  std::vector<uint64_t> sums(kReadChunks);
  for (int run = 0; run < kReadRuns && !context.stop_requested(); ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.for_each_chunk(kReadChunks, context, [&](int64_t chunk, int) {
      sums[static_cast<size_t>(chunk)] = kernels.read(buffer.get() + chunk * kChunk, kChunk);
    });
    best = std::max(best, static_cast<double>(kReadBytes) / seconds_since(start));
  }
  return best;
}

double fma_rate(const cpu::ProbeKernels& kernels, const RunContext& context, int64_t threads) {
  const int64_t chunks = threads == 1 ? 1 : threads * kChunksPerThread;
  double best = 0;
  std::vector<float> sums(static_cast<size_t>(chunks));
  for (int run = 0; run < kFmaRuns && !context.stop_requested(); ++run) {
    const auto start = std::chrono::steady_clock::now();
    ThreadPool::instance().for_each_chunk(
        chunks, context, [&](int64_t chunk, int) { sums[static_cast<size_t>(chunk)] = kernels.fma(kFmaRounds); });
    const double flops = 2.0 * static_cast<double>(kernels.fmas_per_round) * kFmaRounds * static_cast<double>(chunks);
    best = std::max(best, flops / seconds_since(start));
  }
  return best;
}

}  // namespace

Status machine_probe(const RunContext& context, MachineProbe* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    const cpu::ProbeKernels& kernels = r.table->probe;
    out->threads = ThreadPool::instance().n_threads();
    out->read_bytes_per_second = read_rate(kernels, context);
    out->flops_per_second_one_thread = fma_rate(kernels, context, 1);
    out->flops_per_second = fma_rate(kernels, context, out->threads);
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    return {};
  });
}

}  // namespace waggle
