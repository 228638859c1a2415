#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "src/file/checksum.hpp"
#include "src/file/layout.hpp"
#include "waggle/file.hpp"

namespace waggle {

using namespace file_layout;

class FileWriter::Sink {
 public:
  virtual ~Sink() = default;
  virtual Status write_at(int64_t offset, const void* data, int64_t bytes) = 0;
};

namespace {

class MemorySink final : public FileWriter::Sink {
 public:
  explicit MemorySink(std::vector<uint8_t>* out) : out_(*out) { out_.clear(); }
  Status write_at(int64_t offset, const void* data, int64_t bytes) override {
    const size_t end = static_cast<size_t>(offset + bytes);
    if (out_.size() < end) out_.resize(end);
    if (bytes > 0) std::memcpy(out_.data() + offset, data, static_cast<size_t>(bytes));
    return {};
  }

 private:
  std::vector<uint8_t>& out_;
};

Status system_error(const char* doing, const std::string& path, int error) {
  return Status(Code::kFile, std::string("cannot ") + doing + " " + path + ": " + std::strerror(error));
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Removes itself unless it was renamed.
class TemporaryFile final : public FileWriter::Sink {
 public:
  explicit TemporaryFile(const std::string& path) : target_(path) {}
  ~TemporaryFile() override {
    if (fd_ >= 0) ::close(fd_);
    if (exists_) ::unlink(path_.c_str());
  }

  Status create() {
    const size_t slash = target_.rfind('/');
    const size_t name_at = slash == std::string::npos ? 0 : slash + 1;
    // A long name is cut: the file system's limit (255 bytes as a rule) holds for the temporary one, too.
    const std::string name = target_.substr(name_at, 200);
    static std::atomic<uint32_t> last_number{0};
    // A container's processes often have one number all, and what a killed one left behind stays.
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    for (int attempt = 0; attempt < 100; ++attempt) {
      path_ = target_.substr(0, name_at);
      path_ += '.';
      path_ += name;
      path_ +=
          '.' + std::to_string(::getpid()) + '-' + std::to_string(now) + '-' + std::to_string(++last_number) + ".tmp";
      fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ >= 0) {
        exists_ = true;
        return {};
      }
      if (errno != EEXIST && errno != EINTR) break;
    }
    return system_error("create", path_, errno);
  }

  Status write_at(int64_t offset, const void* data, int64_t bytes) override {
    const uint8_t* p = static_cast<const uint8_t*>(data);
    while (bytes > 0) {
      const ssize_t written = ::pwrite(fd_, p, static_cast<size_t>(bytes), offset);
      if (written < 0) {
        if (errno == EINTR) continue;
        return system_error("write", path_, errno);
      }
      if (written == 0) return system_error("write", path_, ENOSPC);
      p += written;
      offset += written;
      bytes -= written;
    }
    return {};
  }

  Status publish() {
    int failed = 0;
    do {
      failed = ::fsync(fd_);
    } while (failed != 0 && errno == EINTR);
    if (failed != 0) return system_error("write", path_, errno);
    const int closed = ::close(fd_);
    fd_ = -1;
    if (closed != 0 && errno != EINTR) return system_error("write", path_, errno);
    // A folder that cannot be opened is told before anything is replaced.
    const std::string folder = folder_of(target_);
    const int folder_fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0) return system_error("open the folder", folder, errno);
    const Status status = replace(folder, folder_fd);
    ::close(folder_fd);
    return status;
  }

 private:
  // Without the folder's own sync a power failure may undo the renaming.
  Status replace(const std::string& folder, int folder_fd) {
    if (::rename(path_.c_str(), target_.c_str()) != 0) return system_error("replace", target_, errno);
    exists_ = false;
    // Some file systems cannot sync folders.
    if (::fsync(folder_fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
      return system_error("sync the folder", folder, errno);
    }
    return {};
  }

  std::string target_;
  std::string path_;
  int fd_ = -1;
  bool exists_ = false;
};

// Sums a section block by block as its bytes go by.
class SectionSum {
 public:
  explicit SectionSum(int64_t length) : blocks_(static_cast<uint64_t>(length)) {}

  /// How many bytes may come before the block ends.
  int64_t room() const { return kChecksumBlock - in_block_; }

  void update(const void* data, int64_t bytes) {
    block_.update(data, static_cast<size_t>(bytes));
    in_block_ += bytes;
    if (in_block_ == kChecksumBlock) end_block();
  }

  uint64_t value() {
    if (in_block_ > 0) end_block();
    return blocks_.value();
  }

 private:
  void end_block() {
    const uint64_t sum = block_.value();
    blocks_.update(&sum, sizeof sum);
    block_ = Checksum();
    in_block_ = 0;
  }

  Checksum blocks_;
  Checksum block_;
  int64_t in_block_ = 0;
};

}  // namespace

Status FileWriter::write(Sink& sink, const RunContext& context) const {
  if (!is_name(kind_)) return Status(Code::kInvalidArgument, "bad kind of file: " + kind_);
  if (sections_.size() > static_cast<size_t>(kMaxSections)) {
    return fail(Code::kInvalidArgument, "%zu sections; a file holds at most %d", sections_.size(), kMaxSections);
  }
  std::vector<Entry> table(sections_.size());
  int64_t end = table_end(static_cast<int64_t>(table.size()));
  for (size_t s = 0; s < table.size(); ++s) {
    const Section& section = sections_[s];
    if (!is_name(section.name)) return Status(Code::kInvalidArgument, "bad name of a section: " + section.name);
    for (size_t other = 0; other < s; ++other) {
      if (sections_[other].name == section.name) {
        return Status(Code::kInvalidArgument, "two sections are named " + section.name);
      }
    }
    int64_t bytes = 0;
    for (const Piece& piece : section.pieces) bytes += piece.bytes;
    put_name(section.name, table[s].name);
    const int64_t offset = align_up(end);
    table[s].offset = static_cast<uint64_t>(offset);
    table[s].bytes = static_cast<uint64_t>(bytes);
    static constexpr uint8_t kZeros[kSectionAlignment] = {};
    if (Status status = sink.write_at(end, kZeros, offset - end); !status.ok()) return status;
    SectionSum sum(bytes);
    end = offset;
    for (const Piece& piece : section.pieces) {
      const uint8_t* p = static_cast<const uint8_t*>(piece.data);
      for (int64_t left = piece.bytes; left > 0;) {
        if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
        const int64_t step = std::min(left, sum.room());
        sum.update(p, step);
        if (Status status = sink.write_at(end, p, step); !status.ok()) return status;
        p += step;
        end += step;
        left -= step;
      }
    }
    table[s].checksum = sum.value();
  }

  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.byte_order = kByteOrder;
  header.format_version = kFileFormatVersion;
  put_name(kind_, header.kind);
  header.kind_version = kind_version_;
  header.n_sections = static_cast<uint32_t>(table.size());
  header.file_bytes = static_cast<uint64_t>(end);
  header.table_checksum = checksum_of(table.data(), table.size() * sizeof(Entry));
  header.header_checksum = checksum_of(&header, offsetof(Header, header_checksum));
  if (Status status = sink.write_at(sizeof header, table.data(), static_cast<int64_t>(table.size() * sizeof(Entry)));
      !status.ok()) {
    return status;
  }
  return sink.write_at(0, &header, sizeof header);
}

Status FileWriter::save(const std::string& path, const RunContext& context) const {
  return guarded([&]() -> Status {
    if (path.empty() || path.find('\0') != std::string::npos) {
      return fail(Code::kInvalidArgument, "the path is empty or holds a zero byte");
    }
    TemporaryFile file(path);
    if (Status status = file.create(); !status.ok()) return status;
    if (Status status = write(file, context); !status.ok()) return status;
    return file.publish();
  });
}

Status FileWriter::to_memory(std::vector<uint8_t>* out) const {
  return guarded([&]() -> Status {
    MemorySink sink(out);
    return write(sink, RunContext{});
  });
}

}  // namespace waggle
