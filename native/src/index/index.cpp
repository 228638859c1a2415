#include "waggle/index.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "src/file/checksum.hpp"
#include "src/index/doubts.hpp"
#include "src/index/id_map.hpp"
#include "src/index/segment.hpp"
#include "src/squared_length.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

using index::Bits;
using index::Column;
using index::IdMap;
using index::Piece;
using index::RowLayout;
using index::Segment;
using index::Version;

namespace {

constexpr int64_t kFirstSegmentBytes = int64_t{1} << 20;
constexpr int64_t kQueriesPerPass = 1024;  // bounds the scratch of a search over several segments
constexpr int64_t kCopyChunkBytes = int64_t{1} << 19;
// Version 2: floats beside bf16 in halves. Written where there are any, so that all others stay readable as version 1.
constexpr FileKind kIndexKind{"VECINDEX", 1, 2};

struct Meta {
  uint32_t metric;
  uint32_t storage;
  uint32_t keep_f32;
  uint32_t id_type;
  int64_t dim;
  int64_t most_rows;
  int64_t n_rows;
  int64_t n_live;
  uint64_t version;
  uint64_t layout;
};
static_assert(sizeof(Meta) == 64);

Meta meta_of(const IndexOptions& o, const Version& v) {
  return {static_cast<uint32_t>(o.metric),
          static_cast<uint32_t>(o.storage),
          o.keep_f32 ? 1u : 0u,
          static_cast<uint32_t>(o.id_type),
          o.dim,
          o.most_rows,
          v.n_rows,
          v.n_live,
          v.number,
          v.layout};
}

Status check_options(const IndexOptions& o) {
  if (o.dim < 1 || o.dim > kIndexMaxDim) {
    return fail(Code::kShape, "dim is %lld; it must be 1 to %lld", static_cast<long long>(o.dim),
                static_cast<long long>(kIndexMaxDim));
  }
  if (o.metric != Metric::kInnerProduct && o.metric != Metric::kCosine && o.metric != Metric::kL2) {
    return fail(Code::kInvalidArgument, "unknown metric %d", static_cast<int>(o.metric));
  }
  if (o.id_type != IdType::kNumber && o.id_type != IdType::kString) {
    return fail(Code::kInvalidArgument, "unknown type of ids %u", static_cast<unsigned>(o.id_type));
  }
  if (static_cast<uint32_t>(o.storage) > static_cast<uint32_t>(Storage::kInt8)) {
    return fail(Code::kInvalidArgument, "unknown storage %u", static_cast<unsigned>(o.storage));
  }
  if (o.storage == Storage::kF32 && !o.keep_f32) {
    return fail(Code::kInvalidArgument, "storage f32 is the floats: they cannot be dropped");
  }
  if (o.most_rows < 1 || o.most_rows > kIndexMaxRows) {
    return fail(Code::kInvalidArgument, "most_rows is %lld; it must be 1 to %lld", static_cast<long long>(o.most_rows),
                static_cast<long long>(kIndexMaxRows));
  }
  return {};
}

Status check_ids(const IdBatch& ids, IdType type) {
  if (ids.type != type) {
    return fail(Code::kInvalidArgument, "the ids of this index are %s",
                type == IdType::kNumber ? "64-bit numbers" : "strings");
  }
  if (ids.size < 0 || ids.size > kIndexMaxRows) return fail(Code::kShape, "the number of ids is out of range");
  if (ids.size == 0) return {};
  if (type == IdType::kNumber) return ids.numbers == nullptr ? fail(Code::kShape, "ids are missing") : Status();
  if (ids.ends == nullptr || ids.bytes == nullptr) return fail(Code::kShape, "ids are missing");
  uint32_t begin = 0;
  for (int64_t i = 0; i < ids.size; ++i) {
    if (ids.ends[i] < begin) return fail(Code::kShape, "id %lld ends before it begins", static_cast<long long>(i));
    if (ids.ends[i] - begin > static_cast<uint32_t>(kIndexMaxIdBytes)) {
      return fail(Code::kInvalidArgument, "id %lld has %u bytes; %lld is the most", static_cast<long long>(i),
                  ids.ends[i] - begin, static_cast<long long>(kIndexMaxIdBytes));
    }
    begin = ids.ends[i];
  }
  return {};
}

std::string_view text_of(const IdBatch& ids, int64_t i) {
  const uint32_t begin = i == 0 ? 0 : ids.ends[i - 1];
  return {ids.bytes + begin, ids.ends[i] - begin};
}

uint64_t hash_of(const IdBatch& ids, int64_t i) {
  if (ids.type == IdType::kNumber) return index::hash_number(ids.numbers[i]);
  const std::string_view text = text_of(ids, i);
  return checksum_of(text.data(), text.size());
}

const Piece* piece_of(const std::vector<Piece>& pieces, int32_t row) {
  // From the back: there are few, and the last ones are asked for most.
  for (size_t p = pieces.size(); p-- > 0;) {
    const Piece& piece = pieces[p];
    if (row < piece.segment->first_row()) continue;
    return row - piece.segment->first_row() < piece.n_rows ? &piece : nullptr;
  }
  return nullptr;
}

// False for a row that is not there (a table in a file may say anything).
bool hash_of_row(const std::vector<Piece>& pieces, IdType type, int32_t row, uint64_t* hash) {
  const Piece* piece = piece_of(pieces, row);
  if (piece == nullptr) return false;
  const int64_t local = row - piece->segment->first_row();
  if (type == IdType::kNumber) {
    *hash = index::hash_number(piece->segment->number(local));
  } else {
    const std::string_view text = piece->segment->text(local);
    *hash = checksum_of(text.data(), text.size());
  }
  return true;
}

bool is_id_of_row(const std::vector<Piece>& pieces, const IdBatch& ids, int64_t i, int32_t row) {
  const Piece* piece = piece_of(pieces, row);
  if (piece == nullptr) return false;
  const int64_t local = row - piece->segment->first_row();
  return ids.type == IdType::kNumber ? piece->segment->number(local) == ids.numbers[i]
                                     : piece->segment->text(local) == text_of(ids, i);
}

IdMap::Place find(const IdMap& map, const std::vector<Piece>& pieces, const IdBatch& ids, int64_t i, uint64_t hash) {
  return map.find(hash, [&](int32_t row) { return is_id_of_row(pieces, ids, i, row); });
}

// Calls body(i, place) for each id, in order.
template <typename Body>
void find_all(const IdMap& map, const std::vector<Piece>& pieces, const IdBatch& ids, Body&& body) {
  constexpr int64_t kAhead = 16;
  uint64_t hashes[kAhead];
  for (int64_t i = 0; i < std::min(kAhead, ids.size); ++i) map.prefetch(hashes[i] = hash_of(ids, i));
  for (int64_t i = 0; i < ids.size; ++i) {
    const uint64_t hash = hashes[i % kAhead];
    if (i + kAhead < ids.size) map.prefetch(hashes[i % kAhead] = hash_of(ids, i + kAhead));
    body(i, find(map, pieces, ids, i, hash));
  }
}

Bits all_live(int64_t capacity) { return Bits(static_cast<size_t>((capacity + 7) / 8), 0xff); }

bool clear_bit(Bits& bits, int64_t row) {
  uint8_t& byte = bits[static_cast<size_t>(row >> 3)];
  const uint8_t bit = static_cast<uint8_t>(1u << (row & 7));
  if ((byte & bit) == 0) return false;
  byte = static_cast<uint8_t>(byte & ~bit);
  return true;
}

bool all_finite(const float* values, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

void lower(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load(std::memory_order_relaxed);
  while (value < seen && !least.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

}  // namespace

struct Index::State {
  explicit State(const IndexOptions& o, bool has_whole_floats = false)
      : options(o), layout(o, has_whole_floats), version(std::make_shared<Version>()) {}

  std::shared_ptr<const Version> snapshot() const {
    const std::lock_guard<std::mutex> lock(version_mutex);
    return version;
  }

  // Under map_mutex. Hands the old version back, so that it dies outside the locks.
  std::shared_ptr<const Version> publish(std::shared_ptr<const Version> next) {
    const std::lock_guard<std::mutex> lock(version_mutex);
    map_bytes = map.bytes();
    map_is_mapped = map.is_borrowed();
    version.swap(next);
    return next;
  }

  Status append(Version& next, const IdBatch& ids, const Matrix<const float>& vectors, const RunContext& context);
  Status reserve_segment(Version& next, const IdBatch& ids, int64_t first);
  Status write_rows(Segment& segment, int64_t at, const IdBatch& ids, const Matrix<const float>& vectors, int64_t first,
                    int64_t n, const RunContext& context);

  const IndexOptions options;
  const RowLayout layout;

  mutable std::mutex write_mutex;       // one writer at a time; taken first
  mutable std::shared_mutex map_mutex;  // `map` and `version` change together under it
  mutable std::mutex version_mutex;     // `version` and what is told of `map`; held for a copy of both
  std::shared_ptr<const Version> version;
  IdMap map;
  std::shared_ptr<const MappedFile> map_file;  // where `map` is borrowed from
  int64_t map_bytes = 0;                       // of `map`, under version_mutex, as is the next
  bool map_is_mapped = false;
};

Index::Index(std::unique_ptr<State> state) : state_(std::move(state)) {}
Index::~Index() = default;

const IndexOptions& Index::options() const { return state_->options; }

Status Index::create(const IndexOptions& options, std::shared_ptr<Index>* out) {
  return guarded([&]() -> Status {
    if (Status status = check_options(options); !status.ok()) return status;
    out->reset(new Index(std::make_unique<State>(options)));
    return {};
  });
}

// ---- writing ------------------------------------------------------------------------------------------------

Status Index::State::reserve_segment(Version& next, const IdBatch& ids, int64_t first) {
  const int64_t left = ids.size - first;
  int64_t row_bytes = 0;
  for (const int64_t bytes : layout.bytes) row_bytes += bytes;
  const int64_t first_rows = std::max<int64_t>(1, kFirstSegmentBytes / row_bytes);
  const int64_t room = options.most_rows - next.n_rows;
  const int64_t rows = std::min(room, std::max({first_rows, next.n_rows, left}));
  int64_t id_bytes = 0;
  int64_t least_id_bytes = 0;
  if (options.id_type == IdType::kString) {
    constexpr int64_t kUsualId = 24;
    const int64_t batch_bytes = static_cast<int64_t>(ids.ends[ids.size - 1]) - (first == 0 ? 0 : ids.ends[first - 1]);
    least_id_bytes = static_cast<int64_t>(text_of(ids, first).size());
    id_bytes = std::max(batch_bytes, rows * std::max(kUsualId, batch_bytes / left + 1));
  }
  std::shared_ptr<Segment> segment;
  if (Status status = Segment::reserve(layout, options.id_type, static_cast<int32_t>(next.n_rows), rows,
                                       std::min(rows, std::min(left, first_rows)), id_bytes, least_id_bytes, &segment);
      !status.ok()) {
    return status;
  }
  next.pieces.push_back({std::move(segment), 0, nullptr, 0});
  return {};
}

Status Index::State::append(Version& next, const IdBatch& ids, const Matrix<const float>& vectors,
                            const RunContext& context) {
  for (int64_t done = 0; done < ids.size;) {
    int64_t take = 0;
    if (!next.pieces.empty()) {
      const Piece& tail = next.pieces.back();
      take = std::min(ids.size - done, tail.segment->capacity() - tail.n_rows);
      if (options.id_type == IdType::kString) {
        const int64_t room = tail.segment->id_capacity() - tail.segment->text_begin(tail.n_rows);
        const int64_t begin = done == 0 ? 0 : ids.ends[done - 1];
        while (take > 0 && static_cast<int64_t>(ids.ends[done + take - 1]) - begin > room) {
          // Halving finds a fitting part fast; what is left over goes to the next round.
          take /= 2;
        }
      }
    }
    if (take == 0) {
      if (Status status = reserve_segment(next, ids, done); !status.ok()) return status;
      continue;
    }
    Piece& tail = next.pieces.back();
    if (Status status = write_rows(*tail.segment, tail.n_rows, ids, vectors, done, take, context); !status.ok()) {
      return status;
    }
    tail.n_rows += take;
    tail.n_live += take;
    next.n_rows += take;
    next.n_live += take;
    done += take;
  }
  return {};
}

namespace {

// A finite row whose squared length a float's products stay far below (cosines are scaled and need no limit): one that
// is longer would fail every search that meets it.
bool may_be_stored(const float* row, int64_t dim, Metric metric) {
  if (!all_finite(row, dim)) return false;
  return metric == Metric::kCosine || squared_length(row, dim) <= kLargestSquare;
}

}  // namespace

// Rows at … at + n − 1 are beyond what any version shows.
Status Index::State::write_rows(Segment& segment, int64_t at, const IdBatch& ids, const Matrix<const float>& vectors,
                                int64_t first, int64_t n, const RunContext& context) {
  const int64_t dim = options.dim;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(float));
  float* const to = reinterpret_cast<float*>(segment.writable(index::kVectors));
  const int64_t rows_per_chunk = std::max<int64_t>(1, kCopyChunkBytes / row_bytes);
  std::atomic<int64_t> bad{n};
  const auto copy = [&](int64_t chunk, int) {
    const int64_t begin = chunk * rows_per_chunk;
    const int64_t end = std::min(n, begin + rows_per_chunk);
    for (int64_t r = begin; r < end; ++r) {
      const float* row = vectors.row(first + r);
      if (!may_be_stored(row, dim, options.metric)) {
        lower(bad, r);
        return;
      }
      if (to != nullptr) std::memcpy(to + (at + r) * dim, row, static_cast<size_t>(row_bytes));
    }
  };
  const int64_t n_chunks = (n + rows_per_chunk - 1) / rows_per_chunk;
  if (n_chunks == 1) {
    copy(0, 0);
  } else {
    ThreadPool::instance().for_each_chunk(n_chunks, context, copy);
  }
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (bad.load() < n) {
    const long long row = first + bad.load();
    return fail(Code::kNotFinite, "vector %lld holds NaN or infinity%s", row,
                options.metric == Metric::kCosine ? "" : ", or its squared length exceeds 1e36");
  }
  if (layout.bytes[index::kCodes] > 0) {
    EncodeArgs encoding;
    encoding.matrix = {vectors.row(first), n, dim};
    encoding.dtype = index::dtype_of(options.storage);
    encoding.row_stride = dim;
    encoding.data = segment.writable(index::kCodes) + at * layout.bytes[index::kCodes];
    const auto floats = [&](Column c) { return reinterpret_cast<float*>(segment.writable(c)) + at; };
    if (layout.bytes[index::kScale] > 0) encoding.scale = floats(index::kScale);
    encoding.error = floats(index::kError);
    encoding.norm = floats(index::kNorm);
    if (layout.bytes[index::kLower] > 0) {
      encoding.lower = reinterpret_cast<uint16_t*>(segment.writable(index::kLower)) + at * dim;
    }
    if (Status status = encode(encoding, context); !status.ok()) return status;
  }
  uint64_t* id = reinterpret_cast<uint64_t*>(segment.writable(index::kIds)) + at;
  if (ids.type == IdType::kNumber) {
    std::memcpy(id, ids.numbers + first, static_cast<size_t>(n) * sizeof(uint64_t));
    return {};
  }
  const int64_t text_at = segment.text_begin(at);
  const int64_t begin = first == 0 ? 0 : ids.ends[first - 1];
  const int64_t end = ids.ends[first + n - 1];
  if (end > begin)
    std::memcpy(segment.writable_id_text() + text_at, ids.bytes + begin, static_cast<size_t>(end - begin));
  for (int64_t r = 0; r < n; ++r)
    id[r] = static_cast<uint64_t>(text_at + static_cast<int64_t>(ids.ends[first + r]) - begin);
  return {};
}

namespace {

// The bitmaps a write may change, made before anything is changed, so that the change itself cannot fail.
class Deaths {
 public:
  explicit Deaths(Version& next) : next_(next), bits_(next.pieces.size()) {}

  /// A row of piece p may die: from here on that needs no memory.
  void prepare(size_t p) {
    if (bits_[p] != nullptr) return;
    auto bits = std::make_shared<Bits>();
    bits->reserve(static_cast<size_t>((next_.pieces[p].segment->capacity() + 7) / 8));
    bits_[p] = std::move(bits);
  }

  size_t piece_index(int32_t row) const {
    size_t p = next_.pieces.size() - 1;
    while (row < next_.pieces[p].segment->first_row()) --p;
    return p;
  }

  /// False when it was dead already. Its piece is prepared.
  bool kill(int32_t row) {
    const size_t p = piece_index(row);
    Piece& piece = next_.pieces[p];
    Bits& bits = *bits_[p];
    if (bits.empty()) {
      if (piece.live != nullptr) {
        bits.assign(piece.live->begin(), piece.live->end());
      } else {
        bits.assign(static_cast<size_t>((piece.segment->capacity() + 7) / 8), 0xff);
      }
    }
    if (!clear_bit(bits, row - piece.segment->first_row())) return false;
    --piece.n_live;
    --next_.n_live;
    return true;
  }

  void finish() {
    for (size_t p = 0; p < bits_.size(); ++p) {
      if (bits_[p] != nullptr && !bits_[p]->empty()) next_.pieces[p].live = std::move(bits_[p]);
    }
  }

 private:
  Version& next_;
  std::vector<std::shared_ptr<Bits>> bits_;
};

}  // namespace

Status Index::upsert(const IdBatch& ids, const Matrix<const float>& vectors, const RunContext& context) {
  return guarded([&]() -> Status {
    State& s = *state_;
    if (Status status = check_ids(ids, s.options.id_type); !status.ok()) return status;
    if (vectors.cols != s.options.dim || vectors.rows != ids.size) {
      return fail(Code::kShape, "vectors are %lld x %lld; %lld x %lld are needed", static_cast<long long>(vectors.rows),
                  static_cast<long long>(vectors.cols), static_cast<long long>(ids.size),
                  static_cast<long long>(s.options.dim));
    }
    if (ids.size == 0) return {};
    if (vectors.data == nullptr) return fail(Code::kShape, "vectors are missing");

    const std::lock_guard<std::mutex> writing(s.write_mutex);
    const auto next = std::make_shared<Version>(*s.version);
    if (ids.size > s.options.most_rows - next->n_rows) {
      return fail(Code::kShape,
                  "%lld rows and %lld more exceed the %lld this index may hold; compact() drops deleted ones",
                  static_cast<long long>(next->n_rows), static_cast<long long>(ids.size),
                  static_cast<long long>(s.options.most_rows));
    }
    const int64_t first_row = next->n_rows;
    const int64_t n_live_before = next->n_live;
    if (Status status = s.append(*next, ids, vectors, context); !status.ok()) return status;
    const std::vector<Piece>& pieces = next->pieces;

    IdMap grown;
    const bool grows = !s.map.has_room(ids.size);
    if (grows) {
      grown = s.map.grown(ids.size, n_live_before, [&](int32_t row, uint64_t* hash) {
        return hash_of_row(pieces, s.options.id_type, row, hash);
      });
    }
    Deaths deaths(*next);
    std::vector<IdMap::Place> places(static_cast<size_t>(ids.size));
    find_all(grows ? grown : s.map, pieces, ids, [&](int64_t i, const IdMap::Place& place) {
      places[static_cast<size_t>(i)] = place;
      if (place.row >= 0) deaths.prepare(deaths.piece_index(place.row));
    });
    if (ids.size > 1) {  // two equal ids: the first one's new row dies at once
      for (size_t p = deaths.piece_index(static_cast<int32_t>(first_row)); p < pieces.size(); ++p) deaths.prepare(p);
    }
    ++next->number;
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");

    // Nothing fails from here on.
    std::shared_ptr<const Version> old;
    std::unique_lock<std::shared_mutex> changing(s.map_mutex);
    if (grows) s.map = std::move(grown);
    for (int64_t i = 0; i < ids.size; ++i) {
      const IdMap::Place place = s.map.find_from(places[static_cast<size_t>(i)],
                                                 [&](int32_t row) { return is_id_of_row(pieces, ids, i, row); });
      if (place.row >= 0) deaths.kill(place.row);
      s.map.put(place, static_cast<int32_t>(first_row + i));
    }
    deaths.finish();
    old = s.publish(next);
    changing.unlock();
    return {};
  });
}

Status Index::remove(const IdBatch& ids, const RunContext& context, int64_t* n_deleted) {
  return guarded([&]() -> Status {
    *n_deleted = 0;
    State& s = *state_;
    if (Status status = check_ids(ids, s.options.id_type); !status.ok()) return status;
    if (ids.size == 0) return {};
    const std::lock_guard<std::mutex> writing(s.write_mutex);
    const auto next = std::make_shared<Version>(*s.version);
    IdMap grown;
    const bool grows = s.map.is_borrowed();
    if (grows) {
      int64_t n_known = 0;  // ids that are not there need no table of our own
      find_all(s.map, next->pieces, ids, [&](int64_t, const IdMap::Place& place) { n_known += place.row >= 0; });
      if (n_known == 0) return {};
      grown = s.map.grown(0, next->n_live, [&](int32_t row, uint64_t* hash) {
        return hash_of_row(next->pieces, s.options.id_type, row, hash);
      });
    }
    Deaths deaths(*next);
    std::vector<IdMap::Place> places;
    int64_t n = 0;
    find_all(grows ? grown : s.map, next->pieces, ids, [&](int64_t, const IdMap::Place& place) {
      if (place.row < 0) return;
      deaths.prepare(deaths.piece_index(place.row));
      if (!deaths.kill(place.row)) return;
      places.push_back(place);
      ++n;
    });
    if (n == 0) return {};
    deaths.finish();
    ++next->number;
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");

    std::shared_ptr<const Version> old;
    std::unique_lock<std::shared_mutex> changing(s.map_mutex);
    if (grows) s.map = std::move(grown);
    for (const IdMap::Place& place : places) s.map.erase(place);
    old = s.publish(next);
    changing.unlock();
    *n_deleted = n;
    return {};
  });
}

Status Index::compact(const RunContext& context) {
  return guarded([&]() -> Status {
    State& s = *state_;
    const std::lock_guard<std::mutex> writing(s.write_mutex);
    const Version& now = *s.version;  // only a writer replaces it
    if (now.n_live == now.n_rows && now.pieces.size() <= 1) return {};
    const auto next = std::make_shared<Version>();
    next->number = now.number + 1;
    next->layout = now.layout + (now.n_live == now.n_rows ? 0 : 1);
    next->n_rows = next->n_live = now.n_live;
    IdMap map;
    if (now.n_live > 0) {
      const bool strings = s.options.id_type == IdType::kString;
      // Runs of living rows, and where each goes.
      struct Run {
        const Segment* segment;
        int64_t from, n, to;
      };
      constexpr int64_t kLongestRun = 4096;
      std::vector<Run> runs;
      int64_t to = 0;
      int64_t text_bytes = 0;
      for (const Piece& piece : now.pieces) {
        for (int64_t r = 0; r < piece.n_rows;) {
          if (!piece.is_live(r)) {
            ++r;
            continue;
          }
          int64_t end = r + 1;
          while (end < piece.n_rows && end - r < kLongestRun && piece.is_live(end)) ++end;
          runs.push_back({piece.segment.get(), r, end - r, to});
          to += end - r;
          if (strings) {
            text_bytes += static_cast<int64_t>(piece.segment->ids()[end - 1]) - piece.segment->text_begin(r);
          }
          r = end;
        }
      }
      std::shared_ptr<Segment> segment;
      if (Status status = Segment::reserve(s.layout, s.options.id_type, 0, now.n_live, now.n_live, text_bytes,
                                           text_bytes, &segment);
          !status.ok()) {
        return status;
      }
      const auto copy = [&](int64_t i, int) {
        const Run& run = runs[static_cast<size_t>(i)];
        for (int c = 0; c < index::kColumns; ++c) {
          const int64_t bytes = s.layout.bytes[c];
          if (bytes == 0 || (c == index::kIds && strings)) continue;
          std::memcpy(segment->writable(static_cast<Column>(c)) + run.to * bytes,
                      run.segment->column(static_cast<Column>(c)) + run.from * bytes,
                      static_cast<size_t>(run.n * bytes));
        }
      };
      ThreadPool::instance().for_each_chunk(static_cast<int64_t>(runs.size()), context, copy);
      if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
      if (strings) {
        uint64_t* ends = reinterpret_cast<uint64_t*>(segment->writable(index::kIds));
        uint64_t at = 0;
        for (const Run& run : runs) {
          const int64_t begin = run.segment->text_begin(run.from);
          const int64_t bytes = static_cast<int64_t>(run.segment->ids()[run.from + run.n - 1]) - begin;
          if (bytes > 0) {
            std::memcpy(segment->writable_id_text() + at, run.segment->id_text() + begin, static_cast<size_t>(bytes));
          }
          for (int64_t r = 0; r < run.n; ++r) {
            ends[run.to + r] = at + run.segment->ids()[run.from + r] - static_cast<uint64_t>(begin);
          }
          at += static_cast<uint64_t>(bytes);
        }
      }
      next->pieces.push_back({segment, now.n_live, nullptr, now.n_live});
      map = IdMap().grown(0, now.n_live, [](int32_t, uint64_t*) { return false; });
      for (int64_t r = 0; r < now.n_live; ++r) {
        uint64_t hash = 0;
        hash_of_row(next->pieces, s.options.id_type, static_cast<int32_t>(r), &hash);
        map.put_new(hash, static_cast<int32_t>(r));
      }
    }
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    std::shared_ptr<const Version> old;
    std::unique_lock<std::shared_mutex> changing(s.map_mutex);
    s.map = std::move(map);
    old = s.publish(next);
    changing.unlock();
    s.map_file = nullptr;
    return {};
  });
}

// ---- searching ----------------------------------------------------------------------------------------------

namespace {

// The caller's filter, per piece and without the dead.
class PieceFilter {
 public:
  /// `rows` ascending and unique when `has_list`.
  PieceFilter(const IndexFilter& filter, const std::vector<int32_t>& rows, bool has_list)
      : filter_(filter), rows_(rows), has_list_(has_list) {}

  /// False when no row of the piece is allowed.
  bool apply(const Piece& piece, RowFilter* out) {
    *out = {};
    if (piece.n_live == 0) return false;
    if (has_list_) return apply_list(piece, out);
    if (filter_.bits != nullptr) return apply_bits(piece, out);
    if (piece.n_live < piece.n_rows) {
      *out = RowFilter::shared(piece.live->data(), static_cast<int64_t>(piece.live->size()));
    }
    return true;
  }

 private:
  bool apply_list(const Piece& piece, RowFilter* out) {
    const int32_t first = piece.segment->first_row();
    local_.clear();
    auto at = std::lower_bound(rows_.begin(), rows_.end(), first);
    for (; at != rows_.end() && *at - first < piece.n_rows; ++at) {
      if (piece.is_live(*at - first)) local_.push_back(*at - first);
    }
    *out = RowFilter::list(local_.data(), static_cast<int64_t>(local_.size()));
    return !local_.empty();
  }

  // Bit first_row of the caller's bitmap becomes bit 0 of ours.
  bool apply_bits(const Piece& piece, RowFilter* out) {
    const int64_t first = piece.segment->first_row();
    const int64_t bytes = (piece.n_rows + 7) / 8;
    bits_.assign(static_cast<size_t>(bytes), 0);
    const int shift = static_cast<int>(first & 7);
    uint8_t any = 0;
    for (int64_t b = 0; b < bytes; ++b) {
      const int64_t from = (first >> 3) + b;
      unsigned word = from < filter_.bits_bytes ? filter_.bits[from] : 0u;
      if (shift != 0 && from + 1 < filter_.bits_bytes) word |= static_cast<unsigned>(filter_.bits[from + 1]) << 8;
      word >>= shift;
      if (piece.live != nullptr) word &= (*piece.live)[static_cast<size_t>(b)];
      bits_[static_cast<size_t>(b)] = static_cast<uint8_t>(word);
      any = static_cast<uint8_t>(any | bits_[static_cast<size_t>(b)]);
    }
    *out = RowFilter::shared(bits_.data(), bytes);
    return any != 0;
  }

  const IndexFilter& filter_;
  const std::vector<int32_t>& rows_;
  const bool has_list_;
  std::vector<int32_t> local_;
  std::vector<uint8_t> bits_;
};

struct Answer {
  float* scores;
  int32_t* rows;
};

void pad(const Answer& answer, int64_t n) {
  std::fill(answer.scores, answer.scores + n, -std::numeric_limits<float>::infinity());
  std::fill(answer.rows, answer.rows + n, -1);
}

// The best k of two sorted lists. Rows of `more` come after those of `best`, which therefore win ties.
void merge(int32_t k, const Answer& best, const float* more_scores, const int32_t* more_rows, int32_t first_row,
           float* scratch_scores, int32_t* scratch_rows) {
  if (more_rows[0] < 0) return;
  int32_t a = 0;
  int32_t b = 0;
  for (int32_t i = 0; i < k; ++i) {
    const bool has_a = best.rows[a] >= 0;
    const bool has_b = b < k && more_rows[b] >= 0;
    if (has_a && (!has_b || best.scores[a] >= more_scores[b])) {
      scratch_scores[i] = best.scores[a];
      scratch_rows[i] = best.rows[a++];
    } else if (has_b) {
      scratch_scores[i] = more_scores[b];
      scratch_rows[i] = more_rows[b++] + first_row;
    } else {
      scratch_scores[i] = -std::numeric_limits<float>::infinity();
      scratch_rows[i] = -1;
    }
  }
  std::copy(scratch_scores, scratch_scores + k, best.scores);
  std::copy(scratch_rows, scratch_rows + k, best.rows);
}

// Rows of the answer are numbered within the piece.
Status search_piece(const IndexOptions& options, const Piece& piece, const Matrix<const float>& queries, int32_t k,
                    const RowFilter& filter, const Answer& answer, int32_t* n_in_doubt, uint8_t* certified,
                    const RunContext& context) {
  const Matrix<const float> matrix{piece.segment->values<float>(index::kVectors), piece.n_rows, options.dim};
  if (options.storage == Storage::kF32) {
    TopkArgs args;
    args.queries = queries;
    args.matrix = matrix;
    args.k = k;
    args.metric = options.metric;
    args.filter = filter;
    args.scores = answer.scores;
    args.rows = answer.rows;
    return topk(args, context);
  }
  TopkEncodedArgs args;
  args.queries = queries;
  args.encoded = index::encoded_of(options, *piece.segment, piece.n_rows);
  args.matrix = matrix;
  args.k = k;
  args.metric = options.metric;
  args.filter = filter;
  args.scores = answer.scores;
  args.rows = answer.rows;
  args.n_in_doubt = n_in_doubt;
  args.is_certified = certified;
  TopkEncodedReport report;
  return topk_encoded(args, context, &report);
}

}  // namespace

Status Index::search(const IndexSearchArgs& args, const RunContext& context, IndexSearchInfo* info) const {
  return guarded([&]() -> Status {
    const State& s = *state_;
    const IndexFilter& filter = args.filter;
    const bool by_ids = filter.ids != nullptr;
    const bool by_rows = filter.n_rows >= 0;
    if (int{by_ids} + int{by_rows} + int{filter.bits != nullptr} > 1) {
      return fail(Code::kInvalidArgument, "give one of a bitmap, rows and ids");
    }
    if (by_rows && filter.n_rows > 0 && filter.rows == nullptr) return fail(Code::kShape, "rows are missing");
    if (by_ids) {
      if (Status status = check_ids(*filter.ids, s.options.id_type); !status.ok()) return status;
    }

    std::shared_ptr<const Version> version;
    std::vector<int32_t> rows;
    if (by_ids) {
      // Table and version belong together only under the lock.
      const std::shared_lock<std::shared_mutex> lock(s.map_mutex);
      version = s.snapshot();
      find_all(s.map, version->pieces, *filter.ids, [&](int64_t, const IdMap::Place& place) {
        if (place.row >= 0) rows.push_back(place.row);
      });
    } else {
      version = s.snapshot();
      if (filter.layout != 0 && filter.layout != version->layout) {
        return fail(Code::kInvalidArgument, "the rows of the filter are of layout %llu; compact() made it %llu",
                    static_cast<unsigned long long>(filter.layout), static_cast<unsigned long long>(version->layout));
      }
      if (by_rows) rows.assign(filter.rows, filter.rows + filter.n_rows);
    }
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    if (!rows.empty() && (rows.front() < 0 || rows.back() >= version->n_rows)) {
      return fail(Code::kInvalidArgument, "the filter names row %d; there are %lld rows",
                  rows.front() < 0 ? rows.front() : rows.back(), static_cast<long long>(version->n_rows));
    }
    info->version = version->number;
    info->layout = version->layout;
    info->certified = true;

    // Shapes, k and queries are checked by topk even where no segment is searched.
    TopkArgs none;
    none.queries = args.queries;
    none.matrix = {nullptr, 0, s.options.dim};
    none.k = args.k;
    none.metric = s.options.metric;
    none.scores = args.scores;
    none.rows = args.rows;
    if (Status status = topk(none, context); !status.ok()) return status;
    for (int64_t q = 0; q < args.queries.rows; ++q) {
      if (!may_be_stored(args.queries.row(q), s.options.dim, s.options.metric)) {
        return fail(Code::kNotFinite, "the squared length of query %lld exceeds 1e36", static_cast<long long>(q));
      }
    }
    if (args.n_in_doubt != nullptr) std::fill(args.n_in_doubt, args.n_in_doubt + args.queries.rows, 0);

    // Encoded rows are certain only up to their bounds where the floats were dropped.
    const bool exact = s.options.keep_f32;
    PieceFilter pieces(filter, rows, by_ids || by_rows);
    const int64_t n_queries = args.queries.rows;
    std::vector<float> more_scores, scratch_scores;
    std::vector<int32_t> more_rows, scratch_rows, piece_doubts;
    std::vector<uint8_t> piece_certified;
    // One segment needs no scratch, so all queries go at once.
    const int64_t pass = version->pieces.size() == 1 ? n_queries : kQueriesPerPass;
    for (int64_t first = 0; first < n_queries; first += pass) {
      const int64_t count = std::min(pass, n_queries - first);
      const Matrix<const float> queries{args.queries.row(first), count, s.options.dim};
      const Answer best{args.scores + first * args.k, args.rows + first * args.k};
      index::Doubts doubts(s.options, queries, args.k);
      bool is_first = true;
      for (const Piece& piece : version->pieces) {
        RowFilter allowed;
        if (!pieces.apply(piece, &allowed)) continue;
        const int32_t first_row = piece.segment->first_row();
        Answer found = best;
        if (!is_first) {
          more_scores.resize(static_cast<size_t>(count * args.k));
          more_rows.resize(more_scores.size());
          scratch_scores.resize(static_cast<size_t>(args.k));
          scratch_rows.resize(static_cast<size_t>(args.k));
          found = {more_scores.data(), more_rows.data()};
        }
        if (!exact) {
          piece_doubts.assign(static_cast<size_t>(count), 0);
          piece_certified.assign(static_cast<size_t>(count), 0);
        }
        if (Status status =
                search_piece(s.options, piece, queries, args.k, allowed, found, exact ? nullptr : piece_doubts.data(),
                             exact ? nullptr : piece_certified.data(), context);
            !status.ok()) {
          return status;
        }
        if (!exact) doubts.add(*piece.segment, found.rows, piece_doubts.data(), piece_certified.data());
        if (is_first) {
          is_first = false;
          if (first_row != 0) {
            for (int64_t i = 0; i < count * args.k; ++i) best.rows[i] += best.rows[i] >= 0 ? first_row : 0;
          }
          continue;
        }
        for (int64_t q = 0; q < count; ++q) {
          merge(args.k, {best.scores + q * args.k, best.rows + q * args.k}, more_scores.data() + q * args.k,
                more_rows.data() + q * args.k, first_row, scratch_scores.data(), scratch_rows.data());
        }
      }
      if (is_first) pad(best, count * args.k);
      if (!exact) {
        for (int64_t q = 0; q < count; ++q) {
          const index::Doubts::Verdict verdict = doubts.of(q, best.rows + q * args.k);
          if (!verdict.certified) info->certified = false;
          if (args.n_in_doubt != nullptr) args.n_in_doubt[first + q] = verdict.n_in_doubt;
        }
      }
    }

    const int64_t n_answers = n_queries * args.k;
    if (args.id_numbers != nullptr && s.options.id_type == IdType::kNumber) {
      for (int64_t i = 0; i < n_answers; ++i) {
        const Piece* piece = args.rows[i] < 0 ? nullptr : piece_of(version->pieces, args.rows[i]);
        args.id_numbers[i] =
            piece == nullptr ? ~uint64_t{0} : piece->segment->number(args.rows[i] - piece->segment->first_row());
      }
    }
    if (args.id_bytes != nullptr && args.id_ends != nullptr && s.options.id_type == IdType::kString) {
      args.id_bytes->clear();
      args.id_ends->resize(static_cast<size_t>(n_answers));
      for (int64_t i = 0; i < n_answers; ++i) {
        const Piece* piece = args.rows[i] < 0 ? nullptr : piece_of(version->pieces, args.rows[i]);
        if (piece != nullptr) args.id_bytes->append(piece->segment->text(args.rows[i] - piece->segment->first_row()));
        if (args.id_bytes->size() > std::numeric_limits<uint32_t>::max()) {
          return fail(Code::kShape, "the ids of the answer exceed 4 GiB; ask fewer queries at a time");
        }
        (*args.id_ends)[static_cast<size_t>(i)] = static_cast<uint32_t>(args.id_bytes->size());
      }
    }
    return {};
  });
}

// ---- files --------------------------------------------------------------------------------------------------

namespace {

// What a file of the index needs beside the segments themselves.
struct FileContents {
  Meta meta = {};
  std::shared_ptr<const Version> version;
  std::vector<uint32_t> slots;
  std::vector<uint8_t> live;
  std::vector<uint64_t> ends;

  void fill(FileWriter& writer, const IndexOptions& options, const RowLayout& layout) {
    const bool strings = options.id_type == IdType::kString;
    writer.add("META", &meta, sizeof meta);
    for (int c = 0; c < index::kColumns; ++c) {
      if (layout.bytes[c] == 0) continue;
      if (c == index::kIds && strings) continue;
      std::vector<FileWriter::Piece> pieces;
      for (const Piece& piece : version->pieces) {
        pieces.push_back({piece.segment->column(static_cast<Column>(c)), piece.n_rows * layout.bytes[c]});
      }
      writer.add(index::kColumnNames[c], std::move(pieces));
    }
    if (strings) {
      ends.reserve(static_cast<size_t>(version->n_rows));
      std::vector<FileWriter::Piece> texts;
      uint64_t before = 0;
      for (const Piece& piece : version->pieces) {
        const uint64_t* piece_ends = piece.segment->ids();
        for (int64_t r = 0; r < piece.n_rows; ++r) ends.push_back(before + piece_ends[r]);
        const int64_t bytes = piece.segment->text_begin(piece.n_rows);
        texts.push_back({piece.segment->id_text(), bytes});
        before += static_cast<uint64_t>(bytes);
      }
      writer.add("IDS", ends.data(), static_cast<int64_t>(ends.size() * sizeof(uint64_t)));
      writer.add("IDTEXT", std::move(texts));
    }
    if (version->n_live < version->n_rows) {
      live = all_live(version->n_rows);
      for (int64_t r = version->n_rows; r < static_cast<int64_t>(live.size()) * 8; ++r) clear_bit(live, r);
      for (const Piece& piece : version->pieces) {
        for (int64_t r = 0; r < piece.n_rows; ++r) {
          if (!piece.is_live(r)) clear_bit(live, piece.segment->first_row() + r);
        }
      }
      writer.add("LIVE", live.data(), static_cast<int64_t>(live.size()));
    }
    writer.add("IDMAP", slots.data(), static_cast<int64_t>(slots.size() * sizeof(uint32_t)));
  }
};

}  // namespace

Status Index::write(const std::function<Status(const FileWriter&)>& write) const {
  return guarded([&]() -> Status {
    FileContents contents;
    {
      const std::shared_lock<std::shared_mutex> lock(state_->map_mutex);
      contents.version = state_->snapshot();
      contents.slots = state_->map.copy();
    }
    contents.meta = meta_of(state_->options, *contents.version);
    FileWriter writer(kIndexKind.name, state_->layout.bytes[index::kLower] > 0 ? 2 : 1);
    contents.fill(writer, state_->options, state_->layout);
    return write(writer);
  });
}

Status Index::save(const std::string& path, const RunContext& context) const {
  return write([&](const FileWriter& writer) { return writer.save(path, context); });
}

Status Index::to_memory(std::vector<uint8_t>* out) const {
  return write([&](const FileWriter& writer) { return writer.to_memory(out); });
}

Status Index::load(const std::string& path, Verify verify, const RunContext& context, std::shared_ptr<Index>* out) {
  std::shared_ptr<const MappedFile> file;
  if (Status status = MappedFile::open(path, kIndexKind, verify, context, &file); !status.ok()) return status;
  return load(std::move(file), out);
}

Status Index::load(std::shared_ptr<const MappedFile> file, std::shared_ptr<Index>* out) {
  return guarded([&]() -> Status {
    const Meta* meta = nullptr;
    int64_t count = 0;
    if (Status status = file->section("META", &meta, &count); !status.ok()) return status;
    if (count != 1) return file->wrong("section META has the wrong size");
    IndexOptions options;
    options.dim = meta->dim;
    options.metric = static_cast<Metric>(meta->metric);
    options.storage = static_cast<Storage>(meta->storage);
    options.keep_f32 = meta->keep_f32 == 1;
    options.id_type = static_cast<IdType>(meta->id_type);
    options.most_rows = meta->most_rows;
    if (Status status = check_options(options); !status.ok() || meta->keep_f32 > 1) {
      return file->wrong("section META makes no sense (" + status.text() + ")");
    }
    if (meta->n_rows < 0 || meta->n_rows > options.most_rows || meta->n_live < 0 || meta->n_live > meta->n_rows ||
        meta->version < 1 || meta->layout < 1) {
      return file->wrong("section META makes no sense (row counts or versions)");
    }
    auto state = std::make_unique<State>(options, file->kind_version() == 1);
    const auto version = std::make_shared<Version>();
    version->n_rows = meta->n_rows;
    version->n_live = meta->n_live;
    version->number = meta->version;
    version->layout = meta->layout;

    const uint32_t* slots = nullptr;
    if (Status status = file->section("IDMAP", &slots, &count); !status.ok()) return status;
    if ((count & (count - 1)) != 0 || count > int64_t{1} << 33) return file->wrong("section IDMAP has a bad size");
    state->map.borrow(slots, count);
    state->map_bytes = state->map.bytes();
    state->map_is_mapped = true;
    state->map_file = file;

    if (meta->n_rows > 0) {
      Piece piece;
      if (Status status = Segment::map(file, state->layout, options.id_type, meta->n_rows, &piece.segment);
          !status.ok()) {
        return status;
      }
      piece.n_rows = meta->n_rows;
      piece.n_live = meta->n_rows;
      if (file->has("LIVE")) {
        const uint8_t* live = nullptr;
        if (Status status = file->section("LIVE", &live, &count); !status.ok()) return status;
        if (count != (meta->n_rows + 7) / 8) return file->wrong("section LIVE has a bad size");
        piece.live = std::make_shared<Bits>(live, live + count);
        piece.n_live = 0;
        for (int64_t r = 0; r < meta->n_rows; ++r) piece.n_live += piece.is_live(r);
      }
      if (piece.n_live != meta->n_live) return file->wrong("sections LIVE and META differ in living rows");
      version->pieces.push_back(std::move(piece));
    }
    state->version = version;
    out->reset(new Index(std::move(state)));
    return {};
  });
}

IndexStats Index::stats() const {
  IndexStats stats;
  const State& s = *state_;
  std::shared_ptr<const Version> version;
  {
    // Not the table's lock, which a write holds for as long as it has ids.
    const std::lock_guard<std::mutex> lock(s.version_mutex);
    version = s.version;
    stats.id_map_bytes = s.map_bytes;
    if (s.map_is_mapped) stats.mapped_bytes = stats.id_map_bytes;
  }
  stats.n_live = version->n_live;
  stats.n_deleted = version->n_rows - version->n_live;
  stats.n_segments = static_cast<int64_t>(version->pieces.size());
  stats.version = version->number;
  stats.layout = version->layout;
  for (const Piece& piece : version->pieces) {
    const int64_t* row_bytes = s.layout.bytes;
    const int64_t vectors = piece.n_rows * (row_bytes[index::kVectors] + row_bytes[index::kLower]);
    const int64_t encoded = piece.n_rows * (row_bytes[index::kCodes] + row_bytes[index::kScale] +
                                            row_bytes[index::kError] + row_bytes[index::kNorm]);
    int64_t ids = piece.n_rows * row_bytes[index::kIds];
    if (s.options.id_type == IdType::kString) ids += piece.segment->text_begin(piece.n_rows);
    stats.vector_bytes += vectors;
    stats.encoded_bytes += encoded;
    stats.id_bytes += ids;
    if (piece.live != nullptr) stats.bitmap_bytes += static_cast<int64_t>(piece.live->size());
    if (piece.segment->is_mapped()) {
      stats.mapped_bytes += vectors + encoded + ids;
    } else {
      stats.reserved_bytes += std::max<int64_t>(0, piece.segment->reserved_bytes() - vectors - encoded - ids);
    }
  }
  return stats;
}

}  // namespace waggle
