// A set of vectors that changes while it is searched.
//
// Vectors carry external ids (64-bit numbers or UTF-8 strings) and live in rows. A row is written once: overwriting an
// id appends a row and marks the old one deleted, so readers of the version before still find it whole. Each search
// sees exactly one version; writers follow one another; a write that fails leaves the version before.
//
// Rows are int32 numbers in order of arrival. They survive upserts, deletes, saving and loading; compact() renumbers
// them whenever it drops a deleted row, and `layout` counts how often. Ids never change.
//
// Storage is a list of segments, each reserved as large as all before it together and committed page by page as rows
// arrive: appending copies nothing, and n rows lie in O(log n) segments.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "waggle/file.hpp"
#include "waggle/ops/topk.hpp"
#include "waggle/run_context.hpp"
#include "waggle/status.hpp"
#include "waggle/view.hpp"

namespace waggle {

constexpr int64_t kIndexMaxDim = 65'536;
constexpr int64_t kIndexMaxRows = 2'147'483'646;
constexpr int64_t kIndexMaxIdBytes = 65'535;

enum class IdType : uint32_t { kNumber = 0, kString = 1 };

/// How vectors are kept.
enum class Storage : uint32_t { kF32 = 0, kF16 = 1, kBf16 = 2, kInt8 = 3 };

struct IndexOptions {
  int64_t dim = 0;  // 1 … kIndexMaxDim
  Metric metric = Metric::kInnerProduct;
  Storage storage = Storage::kF32;
  /// Keeps the floats beside encoded vectors, so that answers are those of `topk`. Always so for kF32. kBf16 costs
  /// nothing then: its codes are the upper halves of the floats, and what is kept beside them the lower halves.
  bool keep_f32 = true;
  IdType id_type = IdType::kNumber;
  /// Rows it may hold, deleted ones included; 1 … kIndexMaxRows.
  int64_t most_rows = kIndexMaxRows;
};

/// A batch of ids of one type.
struct IdBatch {
  IdType type = IdType::kNumber;
  int64_t size = 0;
  const uint64_t* numbers = nullptr;  // [size]
  const char* bytes = nullptr;        // strings, one after the other
  const uint32_t* ends = nullptr;     // [size]: where each string ends in `bytes`

  static IdBatch of_numbers(const uint64_t* numbers, int64_t size) {
    return {IdType::kNumber, size, numbers, nullptr, nullptr};
  }
  static IdBatch of_strings(const char* bytes, const uint32_t* ends, int64_t size) {
    return {IdType::kString, size, nullptr, bytes, ends};
  }
};

/// Which rows a search may return; at most one of the three.
struct IndexFilter {
  const uint8_t* bits = nullptr;  // bit r of byte r >> 3; rows beyond the bitmap are not allowed
  int64_t bits_bytes = 0;
  const int32_t* rows = nullptr;  // in any order; read when n_rows >= 0
  int64_t n_rows = -1;
  const IdBatch* ids = nullptr;  // unknown ones are ignored
  /// The layout that `bits` or `rows` belong to; 0 = do not check.
  uint64_t layout = 0;
};

struct IndexSearchArgs {
  Matrix<const float> queries;  // [n_queries × dim]
  int32_t k = 0;                // 1 … kTopkMaxK
  IndexFilter filter;
  float* scores = nullptr;                   // out [n_queries × k], best first, −infinity pads
  int32_t* rows = nullptr;                   // out [n_queries × k], −1 pads
  int32_t* n_in_doubt = nullptr;             // out [n_queries]: rows that may or may not belong to the k best; optional
  uint64_t* id_numbers = nullptr;            // out [n_queries × k], 2⁶⁴ − 1 pads; optional, number ids
  std::string* id_bytes = nullptr;           // out: string ids, one after the other, nothing for pads; optional
  std::vector<uint32_t>* id_ends = nullptr;  // out [n_queries × k]: where each ends
};

struct IndexSearchInfo {
  uint64_t version = 0;
  uint64_t layout = 0;
  /// The rows of every query are those of `topk` over floats. False only where the floats were dropped.
  bool certified = true;
};

struct IndexStats {
  int64_t n_live = 0;
  int64_t n_deleted = 0;
  int64_t n_segments = 0;
  uint64_t version = 0;        // rises with every write that changed something
  uint64_t layout = 0;         // rises when rows are renumbered
  int64_t vector_bytes = 0;    // floats, or their lower halves
  int64_t encoded_bytes = 0;   // codes, scales and bounds
  int64_t id_bytes = 0;        // ids of rows, string contents included
  int64_t id_map_bytes = 0;    // from id to row
  int64_t bitmap_bytes = 0;    // which rows are deleted
  int64_t mapped_bytes = 0;    // of the above, how much is the mapped file
  int64_t reserved_bytes = 0;  // address space not yet committed
};

class Index {
 public:
  static Status create(const IndexOptions& options, std::shared_ptr<Index>* out);

  /// Maps a file written by `save`. Vectors stay in the file; what is written later stays in memory.
  static Status load(const std::string& path, Verify verify, const RunContext& context, std::shared_ptr<Index>* out);
  /// The same from a file that is open already.
  static Status load(std::shared_ptr<const MappedFile> file, std::shared_ptr<Index>* out);

  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  const IndexOptions& options() const;

  /// Sets the vector of each id, as if one by one in order: the last of two equal ids in a batch wins. All or nothing:
  /// a NaN or infinity anywhere is kNotFinite and changes nothing. kShape when most_rows would be passed (compact, then
  /// try again). O(n · dim).
  Status upsert(const IdBatch& ids, const Matrix<const float>& vectors, const RunContext& context);

  /// Deletes what is there; *n_deleted gets how many were. O(n), plus a copy of the bitmap of each segment touched.
  Status remove(const IdBatch& ids, const RunContext& context, int64_t* n_deleted);

  /// Rewrites all rows into one segment without the deleted ones. Searches go on meanwhile; writers wait. Takes the
  /// memory of both until the last search of the old version ends. O(n · dim).
  Status compact(const RunContext& context);

  /// The k best live rows of each query, exactly as `topk` over them all: by score, ties to the lower row.
  /// Codes of topk; kInvalidArgument for a filter of another layout.
  Status search(const IndexSearchArgs& args, const RunContext& context, IndexSearchInfo* info) const;

  /// Writes one version, atomically; see FileWriter::save.
  Status save(const std::string& path, const RunContext& context) const;
  Status to_memory(std::vector<uint8_t>* out) const;

  IndexStats stats() const;

 private:
  struct State;
  Status write(const std::function<Status(const FileWriter&)>& write) const;
  explicit Index(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace waggle
