// The container of every file this library writes: named sections behind a checked header, written whole or not at
// all, and read by mapping them.
//
//   0   header, 64 bytes: magic, byte-order mark, format version, kind and its version, sizes, checksums
//   64  section table, 32 bytes each: name, offset, length, checksum
//   …   sections, each at a multiple of 64, zeros between
//
// All numbers are little-endian. Files are replaced by renaming, never written in place: a mapped file therefore keeps
// its contents for as long as it is mapped, whatever happens to its name. Whoever truncates a mapped file by other
// means makes the next access to the lost pages fail with SIGBUS, as for any mapping; its size is checked on opening.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

constexpr uint32_t kFileFormatVersion = 1;
constexpr int64_t kSectionAlignment = 64;
constexpr int32_t kMaxSections = 1024;

/// What a reader accepts. Names of kinds and sections are 1 to 8 characters of A-Z, 0-9 and _.
struct FileKind {
  std::string_view name;
  uint32_t least_version = 1;
  uint32_t most_version = 1;
};

/// Collects sections, which stay borrowed, and writes them.
class FileWriter {
 public:
  struct Piece {
    const void* data = nullptr;
    int64_t bytes = 0;
  };
  class Sink;  // where the bytes go, see src/file/file_writer.cpp

  FileWriter(std::string_view kind, uint32_t kind_version) : kind_(kind), kind_version_(kind_version) {}

  void add(std::string_view name, const void* data, int64_t bytes) { add(name, std::vector<Piece>{{data, bytes}}); }
  /// A section made of several pieces, one after the other.
  void add(std::string_view name, std::vector<Piece> pieces) {
    sections_.push_back({std::string(name), std::move(pieces)});
  }

  /// Writes a temporary file beside `path` (`.<name>.<process>-<number>.tmp`), makes it durable, and renames it:
  /// readers see the old file or the new one, whole. kFile naming the system's reason (no space, no permission,
  /// read-only, …) and kCancelled leave the old file as it was and nothing else behind. A symbolic link is replaced,
  /// not followed.
  Status save(const std::string& path, const RunContext& context) const;

  /// The bytes that `save` would write.
  Status to_memory(std::vector<uint8_t>* out) const;

 private:
  struct Section {
    std::string name;
    std::vector<Piece> pieces;
  };
  Status write(Sink& sink, const RunContext& context) const;

  std::string kind_;
  uint32_t kind_version_;
  std::vector<Section> sections_;
};

enum class Verify {
  kFull,    // every byte
  kHeader,  // header and section table alone; a section altered in place goes unnoticed
};

/// A file mapped read-only. Sections live as long as this object.
class MappedFile {
 public:
  /// Refuses with kFile what is missing, unreadable, not a regular file, foreign, of another kind, version or byte
  /// order, truncated, extended or altered, saying which. O(bytes) for kFull, split over the pool; O(sections) for
  /// kHeader.
  static Status open(const std::string& path, const FileKind& kind, Verify verify, const RunContext& context,
                     std::shared_ptr<const MappedFile>* out);

  /// The same checks on a copy of `bytes`, for tests and fuzzers.
  static Status copy_of(const void* bytes, int64_t size, const FileKind& kind, Verify verify, const RunContext& context,
                        std::shared_ptr<const MappedFile>* out);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  uint32_t kind_version() const { return kind_version_; }
  int64_t bytes() const { return size_; }
  bool has(std::string_view name) const { return find(name) != nullptr; }

  /// A section as an array of T, aligned to 64 bytes. kFile when it is missing or not a whole number of T.
  template <typename T>
  Status section(std::string_view name, const T** data, int64_t* count) const {
    const void* bytes_at = nullptr;
    int64_t length = 0;
    if (Status status = raw_section(name, sizeof(T), &bytes_at, &length); !status.ok()) return status;
    *data = static_cast<const T*>(bytes_at);
    *count = length / static_cast<int64_t>(sizeof(T));
    return {};
  }

  /// Fails with kFile and the file's name, for readers that find a section's contents wrong.
  Status wrong(const std::string& what) const;

 private:
  struct Section {
    std::string name;
    int64_t offset = 0;
    int64_t bytes = 0;
    uint64_t checksum = 0;
  };

  MappedFile() = default;
  const Section* find(std::string_view name) const;
  Status raw_section(std::string_view name, size_t unit, const void** data, int64_t* bytes) const;
  Status check(const FileKind& kind, Verify verify, const RunContext& context);
  Status check_contents(const RunContext& context) const;

  std::string path_;
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
  bool mapped_ = false;  // else from new[], aligned
  uint32_t kind_version_ = 0;
  std::vector<Section> sections_;
};

}  // namespace waggle
