// Memory of a run of rows: reserved whole, committed by the system as rows are written, or borrowed from a mapped file.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "waggle/file.hpp"
#include "waggle/index.hpp"
#include "waggle/ops/topk_encoded.hpp"
#include "waggle/status.hpp"

namespace waggle::index {

/// Zeroed pages that take memory only once touched.
class Pages {
 public:
  Pages() = default;
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  /// False when the address space or the system's limit does not allow it.
  bool reserve(int64_t bytes);
  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// The columns of a row.
enum Column : int { kVectors, kCodes, kLower, kScale, kError, kNorm, kIds, kColumns };

/// Section of each column in a file.
constexpr const char* kColumnNames[kColumns] = {"VECTORS", "CODES", "LOWER", "SCALE", "ERROR", "NORM", "IDS"};

/// Bytes a row takes in each column, 0 where the column is absent.
struct RowLayout {
  /// Floats kept beside bf16 lie in halves, the codes the upper ones. Files from before that have them whole.
  explicit RowLayout(const IndexOptions& options, bool has_whole_floats = false);
  int64_t bytes[kColumns] = {};
};

/// Rows [0, n) of a segment that a version publishes never change; rows beyond them belong to the writer.
class Segment {
 public:
  /// At least `least_rows` rows and `least_id_bytes` of string ids, up to `rows` where the system lets it.
  static Status reserve(const RowLayout& layout, IdType id_type, int32_t first_row, int64_t rows, int64_t least_rows,
                        int64_t id_bytes, int64_t least_id_bytes, std::shared_ptr<Segment>* out);
  /// The rows of a file. Checks that string ids end where they may.
  static Status map(std::shared_ptr<const MappedFile> file, const RowLayout& layout, IdType id_type, int64_t rows,
                    std::shared_ptr<Segment>* out);

  int32_t first_row() const { return first_row_; }
  int64_t capacity() const { return capacity_; }
  int64_t id_capacity() const { return id_capacity_; }
  bool is_mapped() const { return file_ != nullptr; }
  int64_t reserved_bytes() const { return pages_.bytes(); }

  const uint8_t* column(Column c) const { return columns_[c]; }
  /// Null when absent.
  template <typename T>
  const T* values(Column c) const {
    return reinterpret_cast<const T*>(columns_[c]);
  }
  const uint64_t* ids() const { return values<uint64_t>(kIds); }
  const char* id_text() const { return id_text_; }

  uint8_t* writable(Column c) { return const_cast<uint8_t*>(columns_[c]); }
  char* writable_id_text() { return const_cast<char*>(id_text_); }

  uint64_t number(int64_t row) const { return ids()[row]; }
  int64_t text_begin(int64_t row) const { return row == 0 ? 0 : static_cast<int64_t>(ids()[row - 1]); }
  std::string_view text(int64_t row) const {
    const int64_t begin = text_begin(row);
    return {id_text_ + begin, static_cast<size_t>(static_cast<int64_t>(ids()[row]) - begin)};
  }

 private:
  Pages pages_;
  std::shared_ptr<const MappedFile> file_;
  int32_t first_row_ = 0;
  int64_t capacity_ = 0;
  int64_t id_capacity_ = 0;
  const uint8_t* columns_[kColumns] = {};  // kIds: numbers, or where each string ends
  const char* id_text_ = nullptr;
};

/// The type of the codes of an encoded storage.
Dtype dtype_of(Storage storage);

/// The first n_rows rows of a segment.
EncodedMatrix encoded_of(const IndexOptions& options, const Segment& segment, int64_t n_rows);

/// One bit per row of a segment's capacity, set for the living; rows to come are born alive.
using Bits = std::vector<uint8_t>;

/// A segment as one version sees it.
struct Piece {
  std::shared_ptr<Segment> segment;
  int64_t n_rows = 0;
  std::shared_ptr<const Bits> live;  // null = all
  int64_t n_live = 0;

  bool is_live(int64_t row) const {
    return live == nullptr || (((*live)[static_cast<size_t>(row >> 3)] >> (row & 7)) & 1) != 0;
  }
};

/// What a search sees. Never changes once published.
struct Version {
  std::vector<Piece> pieces;  // by first row, without gaps
  int64_t n_rows = 0;
  int64_t n_live = 0;
  uint64_t number = 1;
  uint64_t layout = 1;
};

}  // namespace waggle::index
