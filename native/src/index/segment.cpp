#include "src/index/segment.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace waggle::index {

namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePages = int64_t{64} << 20;

int64_t page_up(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Fewer pages to look up in a scan; only where rounding the last one up to 2 MiB is lost in the size.
void use_huge_pages(uint8_t* at, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes >= kHugePages) ::madvise(at, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#else
  (void)at;
  (void)bytes;
#endif
}

// What `rows` rows and `id_bytes` of text take, each column on its own pages; −1 when it overflows.
int64_t bytes_needed(const RowLayout& layout, int64_t rows, int64_t id_bytes) {
  int64_t total = page_up(id_bytes);
  for (const int64_t row_bytes : layout.bytes) {
    int64_t bytes = 0;
    if (!checked_product(rows, row_bytes, &bytes) || __builtin_add_overflow(total, page_up(bytes), &total)) return -1;
  }
  return total;
}

}  // namespace

RowLayout::RowLayout(const IndexOptions& options, bool has_whole_floats) {
  const bool encoded = options.storage != Storage::kF32;
  constexpr int64_t kFloat = sizeof(float);
  const bool in_halves = options.storage == Storage::kBf16 && options.keep_f32 && !has_whole_floats;
  if ((!encoded || options.keep_f32) && !in_halves) bytes[kVectors] = options.dim * kFloat;
  if (encoded) {
    bytes[kCodes] = options.dim * (options.storage == Storage::kInt8 ? 1 : 2);
    bytes[kLower] = in_halves ? options.dim * static_cast<int64_t>(sizeof(uint16_t)) : 0;
    bytes[kScale] = options.storage == Storage::kBf16 ? 0 : kFloat;
    bytes[kError] = kFloat;
    bytes[kNorm] = kFloat;
  }
  bytes[kIds] = sizeof(uint64_t);
}

Dtype dtype_of(Storage storage) {
  switch (storage) {
    case Storage::kF16:
      return Dtype::kF16;
    case Storage::kBf16:
      return Dtype::kBf16;
    default:
      return Dtype::kInt8;
  }
}

EncodedMatrix encoded_of(const IndexOptions& options, const Segment& segment, int64_t n_rows) {
  EncodedMatrix encoded;
  encoded.dtype = dtype_of(options.storage);
  encoded.data = segment.column(kCodes);
  encoded.rows = n_rows;
  encoded.cols = options.dim;
  encoded.row_stride = options.dim;
  encoded.scale = segment.values<float>(kScale);
  encoded.error = segment.values<float>(kError);
  encoded.norm = segment.values<float>(kNorm);
  encoded.lower = segment.values<uint16_t>(kLower);
  return encoded;
}

Pages::~Pages() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(bytes_));
}

bool Pages::reserve(int64_t bytes) {
  void* mapping = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return false;
  data_ = static_cast<uint8_t*>(mapping);
  bytes_ = bytes;
  return true;
}

Status Segment::reserve(const RowLayout& layout, IdType id_type, int32_t first_row, int64_t rows, int64_t least_rows,
                        int64_t id_bytes, int64_t least_id_bytes, std::shared_ptr<Segment>* out) {
  auto segment = std::make_shared<Segment>();
  if (id_type != IdType::kString) id_bytes = least_id_bytes = 0;
  while (true) {
    const int64_t bytes = bytes_needed(layout, rows, id_bytes);
    if (bytes >= 0 && segment->pages_.reserve(std::max(bytes, kPage))) break;
    if (rows <= least_rows && id_bytes <= least_id_bytes) {
      return fail(Code::kOutOfMemory, "no address space for %lld rows", static_cast<long long>(rows));
    }
    rows = std::max(least_rows, rows / 2);
    id_bytes = std::max(least_id_bytes, id_bytes / 2);
  }
  segment->first_row_ = first_row;
  segment->capacity_ = rows;
  segment->id_capacity_ = id_bytes;
  uint8_t* at = segment->pages_.data();
  for (int c = 0; c < kColumns; ++c) {
    if (layout.bytes[c] == 0) continue;
    segment->columns_[c] = at;
    const int64_t bytes = page_up(rows * layout.bytes[c]);
    use_huge_pages(at, bytes);
    at += bytes;
  }
  segment->id_text_ = reinterpret_cast<const char*>(at);
  *out = std::move(segment);
  return {};
}

Status Segment::map(std::shared_ptr<const MappedFile> file, const RowLayout& layout, IdType id_type, int64_t rows,
                    std::shared_ptr<Segment>* out) {
  auto segment = std::make_shared<Segment>();
  for (int c = 0; c < kColumns; ++c) {
    if (layout.bytes[c] == 0) continue;
    const uint8_t* data = nullptr;
    int64_t bytes = 0;
    if (Status status = file->section(kColumnNames[c], &data, &bytes); !status.ok()) return status;
    int64_t expected = 0;
    if (!checked_product(rows, layout.bytes[c], &expected) || bytes != expected) {
      return file->wrong(std::string("section ") + kColumnNames[c] + " has " + std::to_string(bytes) + " bytes for " +
                         std::to_string(rows) + " rows");
    }
    segment->columns_[c] = data;
  }
  if (id_type == IdType::kString) {
    const char* text = nullptr;
    int64_t bytes = 0;
    if (Status status = file->section("IDTEXT", &text, &bytes); !status.ok()) return status;
    uint64_t end = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const uint64_t next = segment->ids()[r];
      if (next < end || next - end > static_cast<uint64_t>(kIndexMaxIdBytes)) {
        return file->wrong("the ids of the rows overlap or are too long");
      }
      end = next;
    }
    if (end != static_cast<uint64_t>(bytes)) return file->wrong("the ids of the rows do not fill their section");
    segment->id_text_ = text;
    segment->id_capacity_ = bytes;
  }
  segment->capacity_ = rows;
  segment->file_ = std::move(file);
  *out = std::move(segment);
  return {};
}

}  // namespace waggle::index
