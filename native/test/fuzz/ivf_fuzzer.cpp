#include <cmath>
#include <cstdlib>

#include "test/fuzz/fuzz.hpp"
#include "waggle/ivf.hpp"

using namespace waggle;

namespace {

constexpr int64_t kLargestAnswer = 1 << 16;  // dimensions: what the fuzzer's memory is spent on

// What loads must be searchable, whatever it holds.
void read(const uint8_t* data, size_t size) {
  RunContext context;
  context.parallel = false;
  std::shared_ptr<const IvfIndex> index;
  const Status status = IvfIndex::from_memory(data, static_cast<int64_t>(size), context, &index);
  if (!status.ok()) {
    if (status.code() != Code::kFile || status.text().empty()) std::abort();
    return;
  }
  const IvfStats stats = index->stats();
  if (stats.dim > kLargestAnswer) return;
  const std::vector<float> queries(static_cast<size_t>(2 * stats.dim), 0.25f);
  const std::vector<uint8_t> bits(static_cast<size_t>((stats.n_rows + 7) / 8), 0x5a);
  std::vector<float> scores(14);
  std::vector<int32_t> rows(14);
  for (const int32_t n_probe : {0, 1, stats.n_lists}) {
    for (const bool filtered : {false, true}) {
      IvfSearchArgs args;
      args.queries = {queries.data(), 2, stats.dim};
      args.k = 7;
      args.n_probe = n_probe;
      if (filtered) args.filter = RowFilter::shared(bits.data(), static_cast<int64_t>(bits.size()));
      args.scores = scores.data();
      args.rows = rows.data();
      const Status searched = index->search(args, context, nullptr);
      if (!searched.ok() && searched.code() != Code::kNotFinite) std::abort();
      if (!searched.ok()) continue;
      for (const int32_t row : rows) {
        if (row < -1 || row >= stats.n_rows) std::abort();
      }
    }
  }
}

}  // namespace

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const bool int8_lists : {true, false}) {
      for (const int64_t n : {1, 90}) {
        std::vector<float> matrix;
        for (int64_t i = 0; i < n * 5; ++i) matrix.push_back(static_cast<float>(std::sin(static_cast<double>(i * i))));
        IvfBuildArgs args;
        args.matrix = {matrix.data(), n, 5};
        args.metric = metric;
        args.int8_lists = int8_lists;
        args.keep_rows = n == 90;
        args.n_lists = 6;
        args.n_sample = 8;
        std::shared_ptr<const IvfIndex> index;
        all.emplace_back();
        if (!IvfIndex::build(args, RunContext{}, &index).ok() || !index->to_memory(&all.back()).ok()) std::abort();
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
