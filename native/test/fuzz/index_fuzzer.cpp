// Files of the mutable index: whatever they say, loading, searching and writing neither crash nor read astray.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "test/conformance/case.hpp"
#include "test/fuzz/fuzz.hpp"
#include "waggle/index.hpp"

using namespace waggle;

namespace {

constexpr FileKind kKind{"VECINDEX", 1, 1};

struct Ids {
  std::vector<uint64_t> numbers;
  std::string bytes;
  std::vector<uint32_t> ends;

  void add(uint64_t number) {
    numbers.push_back(number);
    bytes += "id" + std::to_string(number);
    ends.push_back(static_cast<uint32_t>(bytes.size()));
  }
  IdBatch batch(IdType type) const {
    const int64_t n = static_cast<int64_t>(numbers.size());
    return type == IdType::kNumber ? IdBatch::of_numbers(numbers.data(), n)
                                   : IdBatch::of_strings(bytes.data(), ends.data(), n);
  }
};

void search(const Index& index, const RunContext& context, const IdBatch* ids) {
  constexpr int32_t kK = 3;
  const std::vector<float> queries(static_cast<size_t>(2 * index.options().dim), 0.5f);
  std::vector<float> scores(2 * kK);
  std::vector<int32_t> rows(2 * kK), doubts(2);
  std::vector<uint64_t> numbers(2 * kK);
  std::string bytes;
  std::vector<uint32_t> ends;
  IndexSearchArgs args;
  args.queries = {queries.data(), 2, index.options().dim};
  args.k = kK;
  args.filter.ids = ids;
  args.scores = scores.data();
  args.rows = rows.data();
  args.n_in_doubt = doubts.data();
  args.id_numbers = numbers.data();
  args.id_bytes = &bytes;
  args.id_ends = &ends;
  IndexSearchInfo info;
  // Altered vectors may hold NaN, which is refused.
  if (const Status status = index.search(args, context, &info); !status.ok()) {
    if (status.code() != Code::kNotFinite) std::abort();
    return;
  }
  const IndexStats stats = index.stats();
  for (const int32_t row : rows) {
    if (row < -1 || row >= stats.n_live + stats.n_deleted) std::abort();
  }
}

void use(const std::vector<uint8_t>& bytes, Verify verify) {
  RunContext context;
  context.parallel = false;
  std::shared_ptr<const MappedFile> file;
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (!MappedFile::copy_of(bytes.data(), size, kKind, verify, context, &file).ok()) return;
  std::shared_ptr<Index> index;
  if (const Status status = Index::load(file, &index); !status.ok()) {
    if (status.code() != Code::kFile) std::abort();
    return;
  }
  file = nullptr;
  const int64_t dim = index->options().dim;
  if (dim > 512) return;  // slow, and no different
  Ids ids;
  for (const uint64_t number : {3, 1, 400, 3}) ids.add(number);
  const IdBatch batch = ids.batch(index->options().id_type);
  search(*index, context, nullptr);
  search(*index, context, &batch);
  int64_t n_deleted = 0;
  const std::vector<float> vectors(static_cast<size_t>(4 * dim), 0.25f);
  Ids some;
  some.add(1);
  some.add(7);
  if (!index->remove(some.batch(index->options().id_type), context, &n_deleted).ok()) std::abort();
  const Status written = index->upsert(batch, {vectors.data(), 4, dim}, context);
  if (!written.ok() && written.code() != Code::kShape) std::abort();  // a file may say that it is full
  search(*index, context, &batch);
  std::vector<uint8_t> copy;
  if (!index->to_memory(&copy).ok()) std::abort();
  if (!index->compact(context).ok()) std::abort();
  search(*index, context, nullptr);
  if (!MappedFile::copy_of(copy.data(), static_cast<int64_t>(copy.size()), kKind, Verify::kFull, context, &file).ok() ||
      !Index::load(file, &index).ok()) {
    std::abort();
  }
}

}  // namespace

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  conformance::Random random(1);
  for (const IdType type : {IdType::kNumber, IdType::kString}) {
    for (const int64_t n : {0, 1, 9, 40}) {
      IndexOptions options;
      options.dim = 1 + n % 4;
      options.metric = static_cast<Metric>(n % 3);
      options.id_type = type;
      options.storage = static_cast<Storage>((n + static_cast<int64_t>(type)) % 4);
      options.keep_f32 = options.storage == Storage::kF32 || n % 2 == 0;
      std::shared_ptr<Index> index;
      if (!Index::create(options, &index).ok()) std::abort();
      Ids ids;
      for (int64_t i = 0; i < n; ++i) ids.add(static_cast<uint64_t>(random.below(30)));
      std::vector<float> vectors(static_cast<size_t>(n * options.dim));
      for (float& v : vectors) v = static_cast<float>(random.uniform());
      if (!index->upsert(ids.batch(type), {vectors.data(), n, options.dim}, RunContext{}).ok()) std::abort();
      all.emplace_back();
      if (!index->to_memory(&all.back()).ok()) std::abort();
    }
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> bytes(data, data + size);
  use(bytes, Verify::kFull);
  use(bytes, Verify::kHeader);
  fuzz::repair_checksums(bytes);
  use(bytes, Verify::kFull);
  return 0;
}
