#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>

#include "src/file/checksum.hpp"
#include "src/file/layout.hpp"
#include "waggle/file.hpp"
#include "waggle/thread_pool.hpp"

namespace waggle {

using namespace file_layout;

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Status MappedFile::wrong(const std::string& what) const { return Status(Code::kFile, what + ": " + path_); }

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  if (mapped_) {
    ::munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
  } else {
    ::operator delete[](const_cast<uint8_t*>(data_), std::align_val_t(kSectionAlignment));
  }
}

Status MappedFile::open(const std::string& path, const FileKind& kind, Verify verify, const RunContext& context,
                        std::shared_ptr<const MappedFile>* out) {
  return guarded([&]() -> Status {
    if (path.empty() || path.find('\0') != std::string::npos) {
      return fail(Code::kInvalidArgument, "the path is empty or holds a zero byte");
    }
    const std::shared_ptr<MappedFile> file(new MappedFile());
    file->path_ = path;
    // Not blocking: opening a pipe by mistake would otherwise wait for a writer.
    const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd.get() < 0) return file->wrong(std::string("cannot open the file (") + std::strerror(errno) + ")");
    struct stat about = {};
    if (::fstat(fd.get(), &about) != 0) return file->wrong(std::string("cannot read (") + std::strerror(errno) + ")");
    if (!S_ISREG(about.st_mode)) return file->wrong("not a regular file");
    if (about.st_size < static_cast<off_t>(sizeof(Header))) {
      return file->wrong("truncated or foreign: " + std::to_string(about.st_size) + " bytes hold no header");
    }
    void* mapping = ::mmap(nullptr, static_cast<size_t>(about.st_size), PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (mapping == MAP_FAILED) {
      const int error = errno;
      return Status(error == ENOMEM ? Code::kOutOfMemory : Code::kFile,
                    std::string("cannot map the file (") + std::strerror(error) + "): " + path);
    }
    file->data_ = static_cast<const uint8_t*>(mapping);
    file->size_ = about.st_size;
    file->mapped_ = true;
    if (Status status = file->check(kind, verify, context); !status.ok()) return status;
    *out = file;
    return {};
  });
}

Status MappedFile::copy_of(const void* bytes, int64_t size, const FileKind& kind, Verify verify,
                           const RunContext& context, std::shared_ptr<const MappedFile>* out) {
  return guarded([&]() -> Status {
    const std::shared_ptr<MappedFile> file(new MappedFile());
    file->path_ = "(memory)";
    if (size < static_cast<int64_t>(sizeof(Header))) {
      return file->wrong("truncated or foreign: " + std::to_string(size) + " bytes hold no header");
    }
    void* copy = ::operator new[](static_cast<size_t>(size), std::align_val_t(kSectionAlignment));
    std::memcpy(copy, bytes, static_cast<size_t>(size));
    file->data_ = static_cast<const uint8_t*>(copy);
    file->size_ = size;
    if (Status status = file->check(kind, verify, context); !status.ok()) return status;
    *out = file;
    return {};
  });
}

Status MappedFile::check(const FileKind& kind, Verify verify, const RunContext& context) {
  Header header;
  std::memcpy(&header, data_, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return wrong("foreign: not a file of this library");
  if (header.byte_order != kByteOrder) return wrong("written on a machine of the other byte order, or altered");
  if (header.format_version != kFileFormatVersion) {
    return wrong("container version " + std::to_string(header.format_version) + "; this build reads version " +
                 std::to_string(kFileFormatVersion));
  }
  if (header.header_checksum != checksum_of(&header, offsetof(Header, header_checksum)) || header.reserved != 0) {
    return wrong("altered: the header does not match its checksum");
  }
  const std::string found_kind = get_name(header.kind);
  if (found_kind != kind.name) {
    return wrong("of kind " + found_kind + "; " + std::string(kind.name) + " is needed");
  }
  if (header.kind_version < kind.least_version || header.kind_version > kind.most_version) {
    return wrong(found_kind + " version " + std::to_string(header.kind_version) + "; this build reads versions " +
                 std::to_string(kind.least_version) + " to " + std::to_string(kind.most_version));
  }
  kind_version_ = header.kind_version;
  if (header.file_bytes != static_cast<uint64_t>(size_)) {
    return wrong((header.file_bytes > static_cast<uint64_t>(size_) ? "truncated: " : "longer than written: ") +
                 std::to_string(size_) + " of " + std::to_string(header.file_bytes) + " bytes");
  }
  if (header.n_sections > static_cast<uint32_t>(kMaxSections) || table_end(header.n_sections) > size_) {
    return wrong("altered: the section table does not fit");
  }
  const uint8_t* table = data_ + sizeof header;
  if (header.table_checksum != checksum_of(table, header.n_sections * sizeof(Entry))) {
    return wrong("altered: the section table does not match its checksum");
  }
  sections_.reserve(header.n_sections);
  int64_t end = table_end(header.n_sections);
  for (uint32_t s = 0; s < header.n_sections; ++s) {
    Entry entry;
    std::memcpy(&entry, table + s * sizeof entry, sizeof entry);
    const std::string name = get_name(entry.name);
    if (name.empty()) return wrong("altered: section " + std::to_string(s) + " has no good name");
    if (has(name)) return wrong("altered: two sections are named " + name);
    if (entry.offset % kSectionAlignment != 0) return wrong("altered: section " + name + " is not aligned");
    // Sections lie in the order of the table, each where the one before it ends.
    if (entry.offset != static_cast<uint64_t>(align_up(end))) {
      return wrong("altered: section " + name + " overlaps another or leaves a gap");
    }
    if (entry.offset > header.file_bytes || entry.bytes > header.file_bytes - entry.offset) {
      return wrong("altered: section " + name + " reaches beyond the end");
    }
    sections_.push_back({name, static_cast<int64_t>(entry.offset), static_cast<int64_t>(entry.bytes), entry.checksum});
    end = static_cast<int64_t>(entry.offset + entry.bytes);
  }
  if (end != size_) return wrong("altered: bytes after the last section");
  return verify == Verify::kFull ? check_contents(context) : Status();
}

Status MappedFile::check_contents(const RunContext& context) const {
  struct Block {
    size_t section;
    int64_t begin;
    int64_t bytes;
  };
  std::vector<Block> blocks;
  for (size_t s = 0; s < sections_.size(); ++s) {
    for (int64_t begin = 0; begin < sections_[s].bytes; begin += kChecksumBlock) {
      blocks.push_back({s, sections_[s].offset + begin, std::min(kChecksumBlock, sections_[s].bytes - begin)});
    }
  }
  std::vector<uint64_t> sums(blocks.size());
  const auto sum_block = [&](int64_t b, int) {
    const Block& block = blocks[static_cast<size_t>(b)];
    sums[static_cast<size_t>(b)] = checksum_of(data_ + block.begin, static_cast<size_t>(block.bytes));
  };
  ThreadPool::instance().for_each_chunk(static_cast<int64_t>(blocks.size()), context, sum_block);
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");

  int64_t padding_from = table_end(static_cast<int64_t>(sections_.size()));
  size_t first = 0;
  for (size_t s = 0; s < sections_.size(); ++s) {
    const Section& section = sections_[s];
    for (int64_t at = padding_from; at < section.offset; ++at) {
      if (data_[at] != 0) return wrong("altered: the padding before section " + section.name + " is not zero");
    }
    padding_from = section.offset + section.bytes;
    size_t last = first;
    while (last < blocks.size() && blocks[last].section == s) ++last;
    const uint64_t sum =
        checksum_of(sums.data() + first, (last - first) * sizeof(uint64_t), static_cast<uint64_t>(section.bytes));
    if (sum != section.checksum) return wrong("altered: section " + section.name + " does not match its checksum");
    first = last;
  }
  return {};
}

const MappedFile::Section* MappedFile::find(std::string_view name) const {
  for (const Section& section : sections_) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

Status MappedFile::raw_section(std::string_view name, size_t unit, const void** data, int64_t* bytes) const {
  const Section* section = find(name);
  if (section == nullptr) return wrong("section " + std::string(name) + " is missing");
  if (section->bytes % static_cast<int64_t>(unit) != 0) {
    return wrong("section " + std::string(name) + " has " + std::to_string(section->bytes) +
                 " bytes, which is not a whole number of its elements");
  }
  *data = data_ + section->offset;
  *bytes = section->bytes;
  return {};
}

}  // namespace waggle
