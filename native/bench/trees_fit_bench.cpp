// Training of trees on the accelerator against the CPU, on the same rows; a JSON record on stdout, progress on stderr.
//
//   trees_fit_bench [--rows N] [--features P] [--trees T] [--leaves L] [--depth-wise] [--objective NAME]
//                   [--cpu-trees C] [--cpu-threads K] [--device-threads K]
//
// A fifth of the features are categories. The CPU trains the first C trees on K threads (default: all T on 2; 0 leaves
// it out); with C < T its time is scaled by rounds, and the record says so. Losses of the rounds both trained must
// agree to the bit. WAGGLE_BACKEND=cuda makes a missing accelerator an error.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "cpu/trees_fit.hpp"
#include "src/device_fit.hpp"
#include "src/registry.hpp"
#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"
#include "waggle/ops/trees_fit.hpp"

using namespace waggle;

namespace {

struct Options {
  int64_t rows = 1'000'000;
  int64_t features = 50;
  int32_t trees = 200;
  int32_t leaves = 63;
  bool depth_wise = false;
  std::string objective = "logistic";
  int32_t cpu_trees = -1;
  int32_t cpu_threads = 2;
  int32_t device_threads = 0;
};

struct Data {
  std::vector<float> x;
  std::vector<double> y;
  std::vector<int32_t> categorical;
};

// Row r draws from a stream of its own, so that any number of threads makes the same rows.
void fill_rows(const Options& o, int64_t begin, int64_t end, Data& data) {
  const int64_t p = o.features;
  const int64_t n_categorical = static_cast<int64_t>(data.categorical.size());
  for (int64_t r = begin; r < end; ++r) {
    conformance::Random random(0x51ed270b + static_cast<uint64_t>(r) * 0x9e3779b97f4a7c15u);
    float* x = data.x.data() + r * p;
    double signal = -1;
    for (int64_t f = 0; f < p; ++f) {
      const double u = random.uniform();
      if (f < n_categorical) {
        const int64_t categories = 4 + 25 * f;
        const int64_t c = static_cast<int64_t>(u * u * static_cast<double>(categories));
        x[f] = static_cast<float>(c);
        signal += 0.25 * (static_cast<double>((c * 2654435761u) % 97) / 48.0 - 1);
        continue;
      }
      if (f % 7 == 3 && u < 0.1) {
        x[f] = std::numeric_limits<float>::quiet_NaN();
        signal += 0.1;
        continue;
      }
      const double v = f % 3 == 0 ? std::floor(u * 40) / 40 : u;
      x[f] = static_cast<float>(v);
      signal += static_cast<double>(f % 5 - 2) * 0.2 * (f % 2 == 0 ? v * v : std::fabs(v - 0.5));
    }
    signal += 1.5 * static_cast<double>(x[p - 1] > 0.7f && x[p / 2] < 0.4f);
    const double noise = random.uniform();
    if (o.objective == "logistic") {
      data.y[static_cast<size_t>(r)] = noise < 1 / (1 + std::exp(-signal)) ? 1 : 0;
    } else if (o.objective == "poisson") {
      data.y[static_cast<size_t>(r)] = std::floor(std::exp(0.4 * signal) * 3 * noise);
    } else {
      data.y[static_cast<size_t>(r)] = signal + noise;
    }
  }
}

Data make_data(const Options& o) {
  Data data;
  data.x.resize(static_cast<size_t>(o.rows * o.features));
  data.y.resize(static_cast<size_t>(o.rows));
  for (int32_t f = 0; f < o.features / 5; ++f) data.categorical.push_back(f);
  const int64_t n_threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t] { fill_rows(o, o.rows * t / n_threads, o.rows * (t + 1) / n_threads, data); });
  }
  for (std::thread& thread : threads) thread.join();
  return data;
}

TreesFitArgs arguments(const Options& o, const Data& data, int64_t rows) {
  TreesFitArgs args;
  args.train.x = {data.x.data(), rows, o.features};
  args.train.y = data.y.data();
  args.objective = o.objective == "logistic"  ? TreesObjective::kLogistic
                   : o.objective == "poisson" ? TreesObjective::kPoisson
                   : o.objective == "squared" ? TreesObjective::kSquared
                                              : TreesObjective::kQuantile;
  args.quantile = 0.8;
  args.categorical = data.categorical.data();
  args.n_categorical = static_cast<int64_t>(data.categorical.size());
  args.max_leaves = o.leaves;
  args.growth = o.depth_wise ? TreesGrowth::kDepth : TreesGrowth::kLeaf;
  return args;
}

double total(const TreesFitResult::Seconds& s) { return s.bin + s.upload + s.boost; }

bool parse(int argc, char** argv, Options* o) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--depth-wise") {
      o->depth_wise = true;
      continue;
    }
    if (i + 1 >= argc) return false;
    const char* value = argv[++i];
    if (name == "--rows") {
      o->rows = std::atoll(value);
    } else if (name == "--features") {
      o->features = std::atoll(value);
    } else if (name == "--trees") {
      o->trees = std::atoi(value);
    } else if (name == "--leaves") {
      o->leaves = std::atoi(value);
    } else if (name == "--objective") {
      o->objective = value;
    } else if (name == "--cpu-trees") {
      o->cpu_trees = std::atoi(value);
    } else if (name == "--cpu-threads") {
      o->cpu_threads = std::atoi(value);
    } else if (name == "--device-threads") {
      o->device_threads = std::atoi(value);
    } else {
      return false;
    }
  }
  return o->rows > 0 && o->features > 1 && o->trees > 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, &o)) {
    std::fprintf(stderr,
                 "usage: trees_fit_bench [--rows N] [--features P] [--trees T] [--leaves L] [--depth-wise]\n"
                 "  [--objective logistic|squared|poisson|quantile] [--cpu-trees C] [--cpu-threads K]\n"
                 "  [--device-threads K]\n");
    return 2;
  }
  if (o.cpu_trees < 0) o.cpu_trees = o.trees;
  o.cpu_trees = std::min(o.cpu_trees, o.trees);
  if (const Status status = backend_status(); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.text().c_str());
    return 1;
  }
  const BackendInfo& info = backend_info();
  std::fprintf(stderr, "backend %s (%s), simd %s, %d threads\n", info.backend.c_str(), info.device.c_str(),
               info.simd.c_str(), info.n_threads);
  const Data data = make_data(o);
  std::fprintf(stderr, "made %lld rows of %lld features\n", static_cast<long long>(o.rows),
               static_cast<long long>(o.features));
  const RunContext context;

  TreesFitResult device;
  bool on_device = false;
  if (info.backend == "cuda" && registry().plugin->ops->fit_open != nullptr) {
    // The driver starts, kernels are loaded: not what is measured.
    TreesFitArgs args = arguments(o, data, std::min<int64_t>(o.rows, 60'000));
    args.n_trees = 3;
    TreesFitResult warm;
    const auto start = std::chrono::steady_clock::now();
    DeviceFit first(registry());
    Status status = cpu::trees_fit(*registry().table, args, context, &warm, &first);
    std::fprintf(stderr, "first call %.2f s: %s\n",
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                 status.ok() ? "ok" : status.text().c_str());
    args = arguments(o, data, o.rows);
    args.n_trees = o.trees;
    args.threads = o.device_threads;
    DeviceFit fit(registry());
    if (status.ok()) status = cpu::trees_fit(*registry().table, args, context, &device, &fit);
    if (!status.ok()) {
      std::fprintf(stderr, "cuda: %s\n", status.text().c_str());
      return 1;
    }
    on_device = device.on_device;
    std::fprintf(stderr, "%s: bin %.3f s, upload %.3f s, boost %.3f s (%.2f ms a tree), total %.3f s; loss %.17g\n",
                 on_device ? "cuda" : "not on the device", device.seconds.bin, device.seconds.upload,
                 device.seconds.boost, device.seconds.boost / o.trees * 1e3, total(device.seconds),
                 device.train_loss.back());
    const DeviceFit::Seconds& of = fit.seconds();
    std::fprintf(
        stderr,
        "of that, %lld calls: gradients %.3f s, starts of trees %.3f s, partition %.3f s, histograms and search "
        "%.3f s, leaves %.3f s, scores %.3f s\n",
        static_cast<long long>(of.calls), of.gradients, of.start, of.part, of.search, of.leaves, of.update);
  }

  TreesFitResult cpu;
  double cpu_seconds = 0;
  if (o.cpu_trees > 0) {
    TreesFitArgs args = arguments(o, data, o.rows);
    args.n_trees = o.cpu_trees;
    args.threads = o.cpu_threads;
    if (const Status status = cpu::trees_fit(*registry().table, args, context, &cpu); !status.ok()) {
      std::fprintf(stderr, "cpu: %s\n", status.text().c_str());
      return 1;
    }
    cpu_seconds = cpu.seconds.bin + cpu.seconds.boost * o.trees / o.cpu_trees;
    std::fprintf(stderr, "cpu, %d threads: bin %.3f s, boost %.3f s for %d of %d trees, total %.3f s%s; loss %.17g\n",
                 o.cpu_threads, cpu.seconds.bin, cpu.seconds.boost, o.cpu_trees, o.trees, cpu_seconds,
                 o.cpu_trees < o.trees ? " (scaled by rounds)" : "", cpu.train_loss.back());
  }

  bool same = true;
  double apart = 0;
  if (on_device && o.cpu_trees > 0) {
    for (size_t i = 0; i < cpu.train_loss.size(); ++i) {
      same = same && cpu.train_loss[i] == device.train_loss[i];
      apart = std::max(apart, std::fabs(cpu.train_loss[i] - device.train_loss[i]));
    }
    std::fprintf(stderr, "losses of %d rounds: %s (largest difference %g)\n", o.cpu_trees,
                 same ? "the same bits" : "DIFFERENT", apart);
    std::fprintf(stderr, "cuda is %.2f times as fast\n", cpu_seconds / total(device.seconds));
  }
  std::printf(
      "{\"case\": \"trees-fit/%lldx%lld\", \"objective\": \"%s\", \"trees\": %d, \"leaves\": %d, \"device\": \"%s\", "
      "\"onDevice\": %s, \"deviceBinS\": %.4f, \"deviceUploadS\": %.4f, \"deviceBoostS\": %.4f, \"deviceS\": %.4f, "
      "\"cpuSimd\": \"%s\", \"cpuThreads\": %d, \"cpuTrees\": %d, \"cpuBinS\": %.4f, \"cpuBoostS\": %.4f, "
      "\"cpuS\": %.4f, \"cpuScaled\": %s, \"speedup\": %.3f, \"sameLosses\": %s, \"loss\": %.17g}\n",
      static_cast<long long>(o.rows), static_cast<long long>(o.features), o.objective.c_str(), o.trees, o.leaves,
      info.device.c_str(), on_device ? "true" : "false", device.seconds.bin, device.seconds.upload,
      device.seconds.boost, total(device.seconds), info.simd.c_str(), o.cpu_threads, o.cpu_trees, cpu.seconds.bin,
      cpu.seconds.boost, cpu_seconds, o.cpu_trees < o.trees ? "true" : "false",
      on_device && cpu_seconds > 0 ? cpu_seconds / total(device.seconds) : 0.0, same ? "true" : "false",
      on_device                ? device.train_loss.back()
      : cpu.train_loss.empty() ? 0.0
                               : cpu.train_loss.back());
  return same ? 0 : 1;
}
