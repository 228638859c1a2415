#include "waggle/index.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "src/index/id_map.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/temporary_folder.hpp"
#include "waggle/ops/encode.hpp"

using namespace waggle;
using conformance::Random;
using unit::TemporaryFolder;

namespace {

std::string id_name(uint64_t number) {
  return number % 7 == 0 ? std::to_string(number) : "item-" + std::to_string(number);
}

// Ids of either type from numbers.
struct Ids {
  std::vector<uint64_t> numbers;
  std::string bytes;
  std::vector<uint32_t> ends;
  IdType type;

  Ids(IdType t, std::vector<uint64_t> n) : numbers(std::move(n)), type(t) {
    for (const uint64_t number : numbers) {
      bytes += id_name(number);
      ends.push_back(static_cast<uint32_t>(bytes.size()));
    }
  }
  IdBatch batch() const {
    const int64_t n = static_cast<int64_t>(numbers.size());
    return type == IdType::kNumber ? IdBatch::of_numbers(numbers.data(), n)
                                   : IdBatch::of_strings(bytes.data(), ends.data(), n);
  }
};

struct Hit {
  float score;
  int32_t row;
  std::string id;
  bool operator==(const Hit& o) const { return score == o.score && row == o.row && id == o.id; }
};

struct Query {
  std::vector<float> values;
  int32_t k = 5;
  const std::vector<int32_t>* rows = nullptr;
  const std::vector<uint8_t>* bits = nullptr;
  const Ids* ids = nullptr;
  uint64_t layout = 0;
};

// What an index of these vectors must answer.
Status topk_of(const Matrix<const float>& vectors, const Matrix<const float>& queries, int32_t k, Metric metric,
               std::vector<float>* scores, std::vector<int32_t>* rows) {
  TopkArgs args;
  args.queries = queries;
  args.matrix = vectors;
  args.k = k;
  args.metric = metric;
  args.scores = scores->data();
  args.rows = rows->data();
  return topk(args, RunContext{});
}

Status search(const Index& index, const Query& query, std::vector<std::vector<Hit>>* hits,
              IndexSearchInfo* info_out = nullptr) {
  const int64_t dim = index.options().dim;
  const int64_t n = static_cast<int64_t>(query.values.size()) / dim;
  const size_t n_answers = static_cast<size_t>(n * query.k);
  std::vector<float> scores(n_answers, 77.0f);
  std::vector<int32_t> rows(n_answers, 77);
  std::vector<uint64_t> numbers(n_answers, 77);
  std::string bytes;
  std::vector<uint32_t> ends;
  IndexSearchArgs args;
  args.queries = {query.values.data(), n, dim};
  args.k = query.k;
  args.scores = scores.data();
  args.rows = rows.data();
  args.id_numbers = numbers.data();
  args.id_bytes = &bytes;
  args.id_ends = &ends;
  args.filter.layout = query.layout;
  IdBatch batch;
  if (query.rows != nullptr) {
    args.filter.rows = query.rows->data();
    args.filter.n_rows = static_cast<int64_t>(query.rows->size());
  }
  if (query.bits != nullptr) {
    args.filter.bits = query.bits->data();
    args.filter.bits_bytes = static_cast<int64_t>(query.bits->size());
  }
  if (query.ids != nullptr) {
    batch = query.ids->batch();
    args.filter.ids = &batch;
  }
  IndexSearchInfo info;
  const Status status = index.search(args, RunContext{}, &info);
  if (info_out != nullptr) *info_out = info;
  hits->assign(static_cast<size_t>(n), {});
  if (!status.ok()) return status;
  for (int64_t q = 0; q < n; ++q) {
    for (int64_t i = 0; i < query.k; ++i) {
      const size_t at = static_cast<size_t>(q * query.k + i);
      if (rows[at] < 0) {
        EXPECT(scores[at] == -std::numeric_limits<float>::infinity());
        EXPECT(index.options().id_type == IdType::kString || numbers[at] == ~uint64_t{0});
        continue;
      }
      std::string id;
      if (index.options().id_type == IdType::kNumber) {
        id = id_name(numbers[at]);
      } else {
        const uint32_t begin = at == 0 ? 0 : ends[at - 1];
        id = bytes.substr(begin, ends[at] - begin);
      }
      (*hits)[static_cast<size_t>(q)].push_back({scores[at], rows[at], id});
    }
  }
  return status;
}

// What the index should be: a map from id to row and vector. Vectors of small integers, so that every score is exact.
struct Model {
  struct Entry {
    int32_t row;
    std::vector<float> vector;
  };
  int64_t dim;
  Metric metric;
  std::map<uint64_t, Entry> entries;
  int32_t n_rows = 0;
  uint64_t layout = 1;

  void upsert(const std::vector<uint64_t>& ids, const std::vector<float>& vectors) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto from = vectors.begin() + static_cast<std::ptrdiff_t>(i) * dim;
      entries[ids[i]] = {n_rows++, std::vector<float>(from, from + dim)};
    }
  }
  int64_t remove(const std::vector<uint64_t>& ids) {
    int64_t n = 0;
    for (const uint64_t id : ids) n += static_cast<int64_t>(entries.erase(id));
    return n;
  }
  void compact() {
    if (n_rows == static_cast<int32_t>(entries.size())) return;
    std::vector<Entry*> by_row;
    for (auto& [id, entry] : entries) by_row.push_back(&entry);
    std::sort(by_row.begin(), by_row.end(), [](const Entry* a, const Entry* b) { return a->row < b->row; });
    for (size_t r = 0; r < by_row.size(); ++r) by_row[r]->row = static_cast<int32_t>(r);
    n_rows = static_cast<int32_t>(by_row.size());
    ++layout;
  }
  template <typename Allowed>
  std::vector<Hit> search(const float* query, int32_t k, Allowed&& allowed) const {
    std::vector<Hit> hits;
    for (const auto& [id, entry] : entries) {
      if (!allowed(id, entry.row)) continue;
      double dot = 0, distance = 0;
      for (int64_t i = 0; i < dim; ++i) {
        const double a = query[i], b = entry.vector[static_cast<size_t>(i)];
        dot += a * b;
        distance += (a - b) * (a - b);
      }
      hits.push_back({static_cast<float>(metric == Metric::kL2 ? -distance : dot), entry.row, id_name(id)});
    }
    std::sort(hits.begin(), hits.end(),
              [](const Hit& a, const Hit& b) { return a.score > b.score || (a.score == b.score && a.row < b.row); });
    hits.resize(std::min(hits.size(), static_cast<size_t>(k)));
    return hits;
  }
};

std::vector<float> integers(Random& random, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(random.below(7) - 3);
  return values;
}

std::shared_ptr<Index> make(const IndexOptions& options) {
  std::shared_ptr<Index> index;
  EXPECT(Index::create(options, &index).ok());
  return index;
}

// Random histories; after each step the index answers what the model does.
void compare_with_model(uint64_t seed, const IndexOptions& options, const TemporaryFolder& folder) {
  Random random(seed);
  std::shared_ptr<Index> index = make(options);
  Model model{options.dim, options.metric, {}, 0, 1};
  const std::string path = folder.file("index-" + std::to_string(seed));
  const uint64_t n_ids = 20 + static_cast<uint64_t>(random.below(3000));
  const auto some_ids = [&](int64_t most) {
    std::vector<uint64_t> ids(static_cast<size_t>(random.below(most + 1)));
    for (uint64_t& id : ids) id = static_cast<uint64_t>(random.below(static_cast<int64_t>(n_ids)));
    return ids;
  };
  for (int step = 0; step < 25; ++step) {
    const int64_t action = random.below(10);
    if (action < 4) {
      const std::vector<uint64_t> ids = some_ids(action == 0 ? 3 : 700);
      std::vector<float> vectors = integers(random, static_cast<int64_t>(ids.size()) * options.dim);
      const Matrix<const float> rows{vectors.data(), static_cast<int64_t>(ids.size()), options.dim};
      if (!ids.empty() && random.below(3) == 0) {  // a bad batch first, which must change nothing
        const size_t at = static_cast<size_t>(random.below(static_cast<int64_t>(vectors.size())));
        const float good = vectors[at];
        vectors[at] = std::numeric_limits<float>::quiet_NaN();
        const IndexStats before = index->stats();
        EXPECT(index->upsert(Ids(options.id_type, ids).batch(), rows, RunContext{}).code() == Code::kNotFinite);
        EXPECT(index->stats().version == before.version && index->stats().n_live == before.n_live);
        vectors[at] = good;
      }
      EXPECT(index->upsert(Ids(options.id_type, ids).batch(), rows, RunContext{}).ok());
      model.upsert(ids, vectors);
    } else if (action < 6) {
      const std::vector<uint64_t> ids = some_ids(action == 4 ? 2 : static_cast<int64_t>(n_ids));
      int64_t n = -1;
      EXPECT(index->remove(Ids(options.id_type, ids).batch(), RunContext{}, &n).ok());
      EXPECT(n == model.remove(ids));
    } else if (action == 6) {
      EXPECT(index->compact(RunContext{}).ok());
      model.compact();
      EXPECT(index->stats().n_segments <= 1);
    } else if (action == 7) {
      EXPECT(index->save(path, RunContext{}).ok());
      const uint64_t version = index->stats().version;
      EXPECT(Index::load(path, random.below(2) == 0 ? Verify::kFull : Verify::kHeader, RunContext{}, &index).ok());
      EXPECT(index->stats().version == version);
    }
    const IndexStats stats = index->stats();
    EXPECT(stats.n_live == static_cast<int64_t>(model.entries.size()));
    EXPECT(stats.n_live + stats.n_deleted == model.n_rows);
    EXPECT(stats.layout == model.layout);

    Query query;
    query.values = integers(random, options.dim * random.below(4));
    query.k = static_cast<int32_t>(1 + random.below(40));
    std::vector<int32_t> rows;
    std::vector<uint8_t> bits(static_cast<size_t>(random.below(model.n_rows / 8 + 2)));
    const Ids ids(options.id_type, some_ids(static_cast<int64_t>(n_ids)));
    const int64_t filter = random.below(5);
    if (filter == 1 && model.n_rows > 0) {
      for (int64_t i = random.below(200); i > 0; --i) rows.push_back(static_cast<int32_t>(random.below(model.n_rows)));
      query.rows = &rows;
      query.layout = model.layout;
    } else if (filter == 2) {
      for (uint8_t& byte : bits) byte = static_cast<uint8_t>(random.next());
      query.bits = &bits;
      bits.push_back(0);  // never empty: null means no bitmap
    } else if (filter == 3) {
      query.ids = &ids;
    }
    const auto allowed = [&](uint64_t id, int32_t row) {
      if (query.rows != nullptr) return std::find(rows.begin(), rows.end(), row) != rows.end();
      if (query.bits != nullptr) {
        return row / 8 < static_cast<int32_t>(bits.size()) &&
               ((bits[static_cast<size_t>(row / 8)] >> (row % 8)) & 1) != 0;
      }
      if (query.ids != nullptr) return std::find(ids.numbers.begin(), ids.numbers.end(), id) != ids.numbers.end();
      return true;
    };
    std::vector<std::vector<Hit>> hits;
    EXPECT(search(*index, query, &hits).ok());
    for (size_t q = 0; q < hits.size(); ++q) {
      const bool same =
          hits[q] == model.search(query.values.data() + static_cast<int64_t>(q) * options.dim, query.k, allowed);
      EXPECT(same);
      if (!same) {
        std::printf("  seed %llu, step %d, filter %lld\n", static_cast<unsigned long long>(seed), step,
                    static_cast<long long>(filter));
        return;
      }
    }
  }
}

IndexOptions options_of(int64_t dim, IdType type = IdType::kNumber, Metric metric = Metric::kInnerProduct) {
  IndexOptions options;
  options.dim = dim;
  options.id_type = type;
  options.metric = metric;
  return options;
}

Status put(Index& index, std::vector<uint64_t> ids, const std::vector<float>& vectors,
           const RunContext& context = RunContext{}) {
  const int64_t n = static_cast<int64_t>(ids.size());
  return index.upsert(Ids(index.options().id_type, std::move(ids)).batch(), {vectors.data(), n, index.options().dim},
                      context);
}

}  // namespace

TEST("an index answers as a plain map does, whatever happened to it before") {
  const TemporaryFolder folder;
  uint64_t seed = 1;
  for (int round = 0; round < 6; ++round) {
    for (const IdType type : {IdType::kNumber, IdType::kString}) {
      for (const Metric metric : {Metric::kInnerProduct, Metric::kL2}) {
        for (const int64_t dim : {1, 3, 64, 500}) {
          IndexOptions options = options_of(dim, type, metric);
          // Encoded beside the floats, answers are the same.
          options.storage = static_cast<Storage>(round % 4);
          compare_with_model(seed++, options, folder);
        }
      }
    }
  }
}

TEST("the last of two equal ids in a batch wins") {
  for (const IdType type : {IdType::kNumber, IdType::kString}) {
    const auto index = make(options_of(1, type));
    EXPECT(put(*index, {4, 9, 4, 4, 9}, {1, 2, 3, 4, 5}).ok());
    EXPECT(index->stats().n_live == 2 && index->stats().n_deleted == 3);
    std::vector<std::vector<Hit>> hits;
    EXPECT(search(*index, {{1.0f}, 5}, &hits).ok());
    EXPECT((hits[0] == std::vector<Hit>{{5, 4, id_name(9)}, {4, 3, id_name(4)}}));
    // Old rows and new ones at once.
    EXPECT(put(*index, {9, 4, 9, 8}, {7, 6, 3, 2}).ok());
    EXPECT(search(*index, {{1.0f}, 5}, &hits).ok());
    EXPECT((hits[0] == std::vector<Hit>{{6, 6, id_name(4)}, {3, 7, id_name(9)}, {2, 8, id_name(8)}}));
  }
}

TEST("an index refuses what it cannot mean") {
  const auto code = [](auto&& change) {
    IndexOptions options = options_of(4);
    change(options);
    std::shared_ptr<Index> index;
    return Index::create(options, &index).code();
  };
  EXPECT(code([](IndexOptions&) {}) == Code::kOk);
  EXPECT(code([](IndexOptions& o) { o.dim = 0; }) == Code::kShape);
  EXPECT(code([](IndexOptions& o) { o.dim = -1; }) == Code::kShape);
  EXPECT(code([](IndexOptions& o) { o.dim = kIndexMaxDim + 1; }) == Code::kShape);
  EXPECT(code([](IndexOptions& o) { o.metric = static_cast<Metric>(3); }) == Code::kInvalidArgument);
  EXPECT(code([](IndexOptions& o) { o.id_type = static_cast<IdType>(3); }) == Code::kInvalidArgument);
  EXPECT(code([](IndexOptions& o) { o.storage = static_cast<Storage>(9); }) == Code::kInvalidArgument);
  EXPECT(code([](IndexOptions& o) { o.keep_f32 = false; }) == Code::kInvalidArgument);
  EXPECT(code([](IndexOptions& o) { o.most_rows = 0; }) == Code::kInvalidArgument);
  EXPECT(code([](IndexOptions& o) { o.most_rows = kIndexMaxRows + 1; }) == Code::kInvalidArgument);

  const auto index = make(options_of(2));
  const std::vector<float> vectors = {1, 2, 3, 4};
  const Matrix<const float> good{vectors.data(), 2, 2};
  const std::vector<uint64_t> numbers = {1, 2};
  const IdBatch ids = IdBatch::of_numbers(numbers.data(), 2);
  const RunContext run;
  EXPECT(index->upsert(Ids(IdType::kString, {1, 2}).batch(), good, run).code() == Code::kInvalidArgument);
  EXPECT(index->upsert(ids, {vectors.data(), 1, 2}, run).code() == Code::kShape);
  EXPECT(index->upsert(ids, {vectors.data(), 2, 1}, run).code() == Code::kShape);
  EXPECT(index->upsert(ids, {nullptr, 2, 2}, run).code() == Code::kShape);
  EXPECT(index->upsert(IdBatch::of_numbers(nullptr, 2), good, run).code() == Code::kShape);
  EXPECT(index->upsert(IdBatch::of_numbers(nullptr, 0), {nullptr, 0, 2}, run).ok());
  EXPECT(index->upsert(ids, good, run).ok());

  std::vector<std::vector<Hit>> hits;
  EXPECT(search(*index, {{1, 1}, 0}, &hits).code() == Code::kInvalidArgument);
  EXPECT(search(*index, {{1, 1}, kTopkMaxK + 1}, &hits).code() == Code::kInvalidArgument);
  EXPECT(search(*index, {{1, std::nanf("")}, 1}, &hits).code() == Code::kNotFinite);
  EXPECT(search(*make(options_of(2)), {{1, std::nanf("")}, 1}, &hits).code() == Code::kNotFinite);
  const std::vector<int32_t> beyond = {0, 2};
  const std::vector<int32_t> negative = {-1};
  const std::vector<int32_t> first = {0, 0};
  EXPECT(search(*index, {{1, 1}, 1, &beyond}, &hits).code() == Code::kInvalidArgument);
  EXPECT(search(*index, {{1, 1}, 1, &negative}, &hits).code() == Code::kInvalidArgument);
  EXPECT(search(*index, {{1, 1}, 1, &first, nullptr, nullptr, 7}, &hits).code() == Code::kInvalidArgument);
  EXPECT(search(*index, {{1, 1}, 2, &first, nullptr, nullptr, 1}, &hits).ok() && hits[0].size() == 1);
  const std::vector<uint8_t> bits = {1};
  EXPECT(search(*index, {{1, 1}, 1, &first, &bits}, &hits).code() == Code::kInvalidArgument);

  const auto strings = make(options_of(1, IdType::kString));
  const std::string text(70000, 'x');
  const std::vector<uint32_t> ends = {70000};
  EXPECT(strings->upsert(IdBatch::of_strings(text.data(), ends.data(), 1), {vectors.data(), 1, 1}, run).code() ==
         Code::kInvalidArgument);
  const std::vector<uint32_t> backwards = {5, 3};
  EXPECT(strings->upsert(IdBatch::of_strings(text.data(), backwards.data(), 2), {vectors.data(), 2, 1}, run).code() ==
         Code::kShape);
  // The longest id, and the empty one.
  const std::vector<uint32_t> longest = {65535, 65535};
  EXPECT(strings->upsert(IdBatch::of_strings(text.data(), longest.data(), 2), {vectors.data(), 2, 1}, run).ok());
  EXPECT(search(*strings, {{1}, 2}, &hits).ok() && hits[0][0].id.empty() && hits[0][1].id.size() == 65535);
}

TEST("a vector too long for products in float is refused, and fails no search later") {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kL2, Metric::kCosine}) {
    for (const Storage storage : {Storage::kF32, Storage::kInt8}) {
      IndexOptions options = options_of(2);
      options.metric = metric;
      options.storage = storage;
      const auto index = make(options);
      const bool cosine = metric == Metric::kCosine;
      EXPECT(put(*index, {1, 2}, {1, 2, 0.9e18f, 0}).ok());
      const Status status = put(*index, {3, 4}, {1, 2, 2e19f, 0});
      EXPECT(status.ok() == cosine);
      EXPECT(cosine || (status.code() == Code::kNotFinite && status.text().find("vector 1 ") != std::string::npos));
      EXPECT(index->stats().n_live == (cosine ? 4 : 2));
      std::vector<std::vector<Hit>> hits;
      EXPECT(search(*index, {{0.9e18f, 0.1e18f}, 2}, &hits).ok() && hits[0].size() == 2);
      EXPECT(search(*index, {{2e19f, 1}, 2}, &hits).ok() == cosine);
    }
  }
}

TEST("a table of ids is not made again for every write near a size that is just full") {
  // 0.8 of 2^10 slots: with one more, a table of that size is full; deleting one for each that comes keeps it so.
  constexpr int64_t kLive = 818;
  const auto hash_of_row = [](int32_t row, uint64_t* hash) {
    *hash = index::hash_number(static_cast<uint64_t>(row));
    return true;
  };
  const auto find = [](const index::IdMap& map, int32_t row) {
    return map.find(index::hash_number(static_cast<uint64_t>(row)), [&](int32_t other) { return other == row; });
  };
  index::IdMap map;
  int made = 0;
  for (int32_t row = 0; row < 20000; ++row) {
    if (!map.has_room(1)) {
      map = map.grown(1, std::min<int64_t>(row, kLive), hash_of_row);
      ++made;
    }
    map.put(find(map, row), row);
    if (row >= kLive) map.erase(find(map, static_cast<int32_t>(row - kLive)));
  }
  EXPECT(made < 60);
  EXPECT(find(map, 20000 - kLive).row == 20000 - kLive && find(map, 19999 - kLive).row == -1);
}

TEST("a full index refuses more rows until it is compacted") {
  IndexOptions options = options_of(1);
  options.most_rows = 10;
  const auto index = make(options);
  EXPECT(put(*index, {1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8}).ok());
  EXPECT(put(*index, {1, 2, 3}, {1, 2, 3}).code() == Code::kShape);
  EXPECT(index->stats().n_live == 8 && index->stats().n_deleted == 0);
  EXPECT(put(*index, {1, 2}, {10, 20}).ok());
  EXPECT(put(*index, {1}, {1}).code() == Code::kShape);
  EXPECT(index->compact(RunContext{}).ok());
  EXPECT(index->stats().n_live == 8 && index->stats().n_deleted == 0 && index->stats().layout == 2);
  EXPECT(put(*index, {1}, {100}).ok());
  std::vector<std::vector<Hit>> hits;
  EXPECT(search(*index, {{1.0f}, 2}, &hits).ok());
  EXPECT((hits[0] == std::vector<Hit>{{100, 8, id_name(1)}, {20, 7, id_name(2)}}));
}

TEST("a stopped write changes nothing") {
  const auto index = make(options_of(8));
  EXPECT(put(*index, {1, 2}, std::vector<float>(16, 1.0f)).ok());
  const std::atomic<bool> stop{true};
  RunContext stopped;
  stopped.cancelled = &stop;
  EXPECT(put(*index, {1, 3}, std::vector<float>(16, 2.0f), stopped).code() == Code::kCancelled);
  int64_t n = 0;
  EXPECT(index->remove(Ids(IdType::kNumber, {1}).batch(), stopped, &n).code() == Code::kCancelled);
  EXPECT(index->stats().version == 2 && index->stats().n_live == 2 && index->stats().n_deleted == 0);
  EXPECT(put(*index, {1}, std::vector<float>(8, 3.0f)).ok());
  EXPECT(index->compact(stopped).code() == Code::kCancelled);
  EXPECT(index->stats().n_deleted == 1 && index->stats().layout == 1);
}

TEST("rows keep their numbers until a compaction drops one, and ids always") {
  const TemporaryFolder folder;
  auto index = make(options_of(1));
  EXPECT(put(*index, {10, 11, 12, 13}, {1, 2, 3, 4}).ok());
  int64_t n = 0;
  EXPECT(index->remove(Ids(IdType::kNumber, {11, 99}).batch(), RunContext{}, &n).ok() && n == 1);
  EXPECT(index->save(folder.file("index"), RunContext{}).ok());
  EXPECT(Index::load(folder.file("index"), Verify::kFull, RunContext{}, &index).ok());
  EXPECT(put(*index, {12}, {9}).ok());
  std::vector<std::vector<Hit>> hits;
  IndexSearchInfo info;
  EXPECT(search(*index, {{1.0f}, 9}, &hits, &info).ok() && info.layout == 1);
  EXPECT((hits[0] == std::vector<Hit>{{9, 4, id_name(12)}, {4, 3, id_name(13)}, {1, 0, id_name(10)}}));
  EXPECT(index->compact(RunContext{}).ok());
  EXPECT(search(*index, {{1.0f}, 9}, &hits, &info).ok() && info.layout == 2);
  EXPECT((hits[0] == std::vector<Hit>{{9, 2, id_name(12)}, {4, 1, id_name(13)}, {1, 0, id_name(10)}}));
  const uint64_t version = index->stats().version;
  EXPECT(index->compact(RunContext{}).ok() && index->stats().version == version);
  EXPECT(index->remove(Ids(IdType::kNumber, {10, 12, 13}).batch(), RunContext{}, &n).ok() && n == 3);
  EXPECT(index->compact(RunContext{}).ok());
  EXPECT(index->stats().n_segments == 0 && index->stats().n_live == 0);
  EXPECT(search(*index, {{1.0f}, 9}, &hits).ok() && hits[0].empty());
  EXPECT(put(*index, {10}, {3}).ok());
  EXPECT(search(*index, {{1.0f}, 9}, &hits).ok());
  EXPECT((hits[0] == std::vector<Hit>{{3, 0, id_name(10)}}));
}

TEST("readers see whole versions while others write, compact and save") {
  // Each version gives all ids the same value: a reader that mixes two versions sees two scores.
  const TemporaryFolder folder;
  constexpr int64_t kIds = 300;
  constexpr int64_t kDim = 16;
  for (const IdType type : {IdType::kNumber, IdType::kString}) {
    const auto index = make(options_of(kDim, type));
    std::vector<uint64_t> all(kIds);
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    EXPECT(put(*index, all, std::vector<float>(kIds * kDim, 1.0f)).ok());
    std::atomic<bool> done{false};
    std::atomic<int> mixed{0};
    std::atomic<int> failed{0};
    std::atomic<int64_t> searches{0};
    const Ids half(type, std::vector<uint64_t>(all.begin(), all.begin() + kIds / 2));
    std::vector<std::thread> readers;
    for (int t = 0; t < 3; ++t) {
      readers.emplace_back([&, t] {
        while (!done.load()) {
          std::vector<float> scores(kIds);
          std::vector<int32_t> rows(kIds);
          const std::vector<float> query(kDim, 1.0f);
          const IdBatch batch = half.batch();
          IndexSearchArgs args;
          args.queries = {query.data(), 1, kDim};
          args.k = kIds;
          args.scores = scores.data();
          args.rows = rows.data();
          if (t == 0) args.filter.ids = &batch;
          IndexSearchInfo info;
          if (!index->search(args, RunContext{}, &info).ok()) ++failed;
          const size_t expected = t == 0 ? kIds / 2 : kIds;
          for (size_t i = 0; i < scores.size(); ++i) {
            if (i < expected ? scores[i] != scores[0] : rows[i] != -1) ++mixed;
          }
          ++searches;
        }
      });
    }
    std::thread saver([&] {
      while (!done.load()) {
        std::shared_ptr<Index> loaded;
        if (!index->save(folder.file("index"), RunContext{}).ok() ||
            !Index::load(folder.file("index"), Verify::kFull, RunContext{}, &loaded).ok() ||
            loaded->stats().n_live != kIds) {
          ++failed;
        }
      }
    });
    for (int round = 2; round < 60 || searches.load() < 30; ++round) {
      if (!put(*index, all, std::vector<float>(kIds * kDim, static_cast<float>(round % 50 + 1))).ok()) ++failed;
      if (round % 5 == 0 && !index->compact(RunContext{}).ok()) ++failed;
      (void)index->stats();
    }
    done.store(true);
    for (std::thread& reader : readers) reader.join();
    saver.join();
    EXPECT(mixed.load() == 0);
    EXPECT(failed.load() == 0);
  }
}

TEST("many segments answer as one matrix does, bit for bit") {
  constexpr int64_t kDim = 48;
  constexpr int64_t kRows = 20000;
  constexpr int32_t kK = 50;
  Random random(31);
  std::vector<float> vectors(kRows * kDim), queries(5 * kDim);
  for (float& v : vectors) v = static_cast<float>(random.uniform() - 0.5);
  for (float& v : queries) v = static_cast<float>(random.uniform() - 0.5);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kBf16, Storage::kInt8}) {
    for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
      IndexOptions options = options_of(kDim, IdType::kNumber, metric);
      options.storage = storage;
      const auto index = make(options);
      for (int64_t first = 0; first < kRows; first += 1000) {
        std::vector<uint64_t> ids(1000);
        for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint64_t>(first) + i;
        EXPECT(index
                   ->upsert(IdBatch::of_numbers(ids.data(), 1000), {vectors.data() + first * kDim, 1000, kDim},
                            RunContext{})
                   .ok());
      }
      EXPECT(index->stats().n_segments >= 3 && index->stats().n_segments <= 6);
      std::vector<float> scores(5 * kK), expected_scores(5 * kK);
      std::vector<int32_t> rows(5 * kK), expected_rows(5 * kK);
      IndexSearchArgs args;
      args.queries = {queries.data(), 5, kDim};
      EXPECT(topk_of({vectors.data(), kRows, kDim}, args.queries, kK, metric, &expected_scores, &expected_rows).ok());
      args.k = kK;
      args.scores = scores.data();
      args.rows = rows.data();
      IndexSearchInfo info;
      EXPECT(index->search(args, RunContext{}, &info).ok());
      EXPECT(rows == expected_rows);
      EXPECT(std::memcmp(scores.data(), expected_scores.data(), scores.size() * sizeof(float)) == 0);
    }
  }
}

TEST("without floats an index never claims more than it knows") {
  constexpr int64_t kDim = 24;
  constexpr int32_t kK = 5;
  constexpr int64_t kQueries = 20;
  Random random(77);
  int n_certified = 0;
  int n_doubted = 0;
  for (const Storage storage : {Storage::kInt8, Storage::kF16, Storage::kBf16}) {
    for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
      for (const int64_t rows : {100, 40000}) {  // one segment and several
        IndexOptions options = options_of(kDim, IdType::kNumber, metric);
        options.storage = storage;
        options.keep_f32 = false;
        const auto index = make(options);
        std::vector<float> vectors(static_cast<size_t>(rows * kDim)), queries(kQueries * kDim);
        for (float& v : vectors) v = static_cast<float>(random.uniform() - 0.5);
        for (float& v : queries) v = static_cast<float>(random.uniform() - 0.5);
        // Half of the queries have their k best far ahead of all others, wherever these lie.
        for (int64_t q = 0; q < kQueries; q += 2) {
          for (int32_t i = 0; i < kK; ++i) {
            float* row = vectors.data() + random.below(rows) * kDim;
            for (int64_t d = 0; d < kDim; ++d) {
              const float along = queries[static_cast<size_t>(q * kDim + d)];
              row[d] = metric == Metric::kL2 ? along * (1.0f + 0.1f * static_cast<float>(i))
                                             : along * (20.0f - 2.0f * static_cast<float>(i));
              if (metric == Metric::kCosine)
                row[d] += 0.02f * static_cast<float>(i) * static_cast<float>(random.uniform());
            }
          }
        }
        for (int64_t first = 0; first < rows; first += 1000) {
          const int64_t n = std::min<int64_t>(1000, rows - first);
          std::vector<uint64_t> ids(static_cast<size_t>(n));
          for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint64_t>(first) + i;
          EXPECT(
              put(*index, ids, std::vector<float>(vectors.begin() + first * kDim, vectors.begin() + (first + n) * kDim))
                  .ok());
        }
        EXPECT(rows == 100 || index->stats().n_segments > 1);
        EXPECT(index->stats().vector_bytes == 0 && index->stats().encoded_bytes > 0);
        std::vector<float> scores(kK), true_scores(kK);
        std::vector<int32_t> found(kK), truth(kK);
        for (int64_t q = 0; q < kQueries; ++q) {
          int32_t in_doubt = -1;
          IndexSearchArgs args;
          args.queries = {queries.data() + q * kDim, 1, kDim};
          EXPECT(topk_of({vectors.data(), rows, kDim}, args.queries, kK, metric, &true_scores, &truth).ok());
          args.k = kK;
          args.scores = scores.data();
          args.rows = found.data();
          args.n_in_doubt = &in_doubt;
          IndexSearchInfo info;
          EXPECT(index->search(args, RunContext{}, &info).ok());
          int32_t missed = 0;
          for (const int32_t row : truth) missed += std::find(found.begin(), found.end(), row) == found.end();
          EXPECT(in_doubt >= missed);
          EXPECT(!info.certified || found == truth);
          EXPECT(!info.certified || in_doubt == 0);
          n_certified += info.certified && rows > 100;
          n_doubted += !info.certified;
        }
      }
    }
  }
  // The claim is made where it can be, and not where it cannot.
  EXPECT(n_certified >= 20);
  EXPECT(n_doubted >= 20);
}

TEST("an index takes little more memory than its vectors") {
  struct Limit {
    Storage storage;
    bool keep_f32;
    double most;
  };
  for (const Limit& limit :
       {Limit{Storage::kF32, true, 1.05}, Limit{Storage::kInt8, true, 1.30}, Limit{Storage::kInt8, false, 0.28},
        Limit{Storage::kF16, false, 0.55}, Limit{Storage::kBf16, true, 1.05}}) {
    constexpr int64_t kDim = 384;
    constexpr int64_t kRows = 30000;
    IndexOptions options = options_of(kDim);
    options.storage = limit.storage;
    options.keep_f32 = limit.keep_f32;
    const auto index = make(options);
    const std::vector<float> vectors(static_cast<size_t>(1000 * kDim), 0.5f);
    for (int64_t first = 0; first < kRows; first += 1000) {
      std::vector<uint64_t> ids(1000);
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint64_t>(first) + i;
      EXPECT(index->upsert(IdBatch::of_numbers(ids.data(), 1000), {vectors.data(), 1000, kDim}, RunContext{}).ok());
    }
    const IndexStats stats = index->stats();
    const double raw = static_cast<double>(kRows * kDim * 4);
    const int64_t total =
        stats.vector_bytes + stats.encoded_bytes + stats.id_bytes + stats.id_map_bytes + stats.bitmap_bytes;
    EXPECT(static_cast<double>(total) <= limit.most * raw);
    const int64_t value_bytes = limit.storage == Storage::kBf16 ? 2 : 4;
    EXPECT(stats.vector_bytes == (limit.keep_f32 ? kRows * kDim * value_bytes : 0));
  }
}

TEST("an index whose file is from before floats lay in halves answers, grows and is saved as it was") {
  constexpr int64_t kDim = 20;
  constexpr int64_t kRows = 700;
  const TemporaryFolder folder;
  Random random(5);
  std::vector<float> vectors(kRows * kDim);
  for (float& v : vectors) v = static_cast<float>(random.uniform() - 0.5);
  std::vector<uint64_t> ids(kRows);
  std::iota(ids.begin(), ids.end(), 1);
  const auto upsert = [&](Index& index, int64_t first, int64_t n) {
    return index.upsert(IdBatch::of_numbers(ids.data() + first, n), {vectors.data() + first * kDim, n, kDim},
                        RunContext{});
  };
  IndexOptions options = options_of(kDim);
  options.storage = Storage::kBf16;
  const auto fresh = make(options);
  EXPECT(upsert(*fresh, 0, 500).ok());

  // The file as version 1 had it: codes rounded, the floats whole beside them.
  std::vector<uint8_t> bytes;
  EXPECT(fresh->to_memory(&bytes).ok());
  const FileKind kind{"VECINDEX", 2, 2};
  std::shared_ptr<const MappedFile> file;
  EXPECT(MappedFile::copy_of(bytes.data(), static_cast<int64_t>(bytes.size()), kind, Verify::kFull, RunContext{}, &file)
             .ok());
  EXPECT(!file->has("VECTORS"));
  std::vector<uint16_t> codes(500 * kDim);
  std::vector<float> error(500), norm(500);
  EncodeArgs encoding;
  encoding.matrix = {vectors.data(), 500, kDim};
  encoding.dtype = Dtype::kBf16;
  encoding.data = codes.data();
  encoding.row_stride = kDim;
  encoding.error = error.data();
  encoding.norm = norm.data();
  EXPECT(encode(encoding, RunContext{}).ok());
  FileWriter before("VECINDEX", 1);
  before.add("VECTORS", vectors.data(), 500 * kDim * 4);
  before.add("CODES", codes.data(), 500 * kDim * 2);
  before.add("ERROR", error.data(), 500 * 4);
  before.add("NORM", norm.data(), 500 * 4);
  for (const char* name : {"META", "IDS", "IDMAP"}) {
    const uint8_t* data = nullptr;
    int64_t n = 0;
    EXPECT(file->section(name, &data, &n).ok());
    before.add(name, data, n);
  }
  EXPECT(before.save(folder.file("before"), RunContext{}).ok());

  std::shared_ptr<Index> old;
  EXPECT(Index::load(folder.file("before"), Verify::kFull, RunContext{}, &old).ok());
  Query query{std::vector<float>(vectors.begin(), vectors.begin() + 3 * kDim), 40};
  std::vector<std::vector<Hit>> expected, hits;
  const auto same = [&] {
    return search(*fresh, query, &expected).ok() && search(*old, query, &hits).ok() && hits == expected;
  };
  EXPECT(same());
  EXPECT(upsert(*fresh, 400, 300).ok() && upsert(*old, 400, 300).ok());
  EXPECT(same() && old->stats().n_segments == 2);
  EXPECT(fresh->compact(RunContext{}).ok() && old->compact(RunContext{}).ok());
  EXPECT(same() && old->stats().vector_bytes == 2 * fresh->stats().vector_bytes);
  EXPECT(old->save(folder.file("again"), RunContext{}).ok());
  EXPECT(MappedFile::open(folder.file("again"), {"VECINDEX", 1, 1}, Verify::kFull, RunContext{}, &file).ok());
  EXPECT(Index::load(folder.file("again"), Verify::kFull, RunContext{}, &old).ok() && same());
}
