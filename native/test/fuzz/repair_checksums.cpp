#include <cstddef>
#include <cstring>

#include "src/file/checksum.hpp"
#include "src/file/layout.hpp"
#include "test/fuzz/fuzz.hpp"

namespace waggle::fuzz {

void repair_checksums(std::vector<uint8_t>& bytes) {
  using file_layout::Entry;
  using file_layout::Header;
  if (bytes.size() < sizeof(Header)) return;
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const size_t n_sections = header.n_sections;
  if (n_sections <= static_cast<size_t>(kMaxSections) && sizeof(Header) + n_sections * sizeof(Entry) <= bytes.size()) {
    uint8_t* table = bytes.data() + sizeof header;
    for (size_t s = 0; s < n_sections; ++s) {
      Entry entry;
      std::memcpy(&entry, table + s * sizeof entry, sizeof entry);
      if (entry.offset > bytes.size() || entry.bytes > bytes.size() - entry.offset) continue;
      Checksum sum(entry.bytes);
      for (uint64_t begin = 0; begin < entry.bytes; begin += kChecksumBlock) {
        const uint64_t n = std::min<uint64_t>(kChecksumBlock, entry.bytes - begin);
        const uint64_t block = checksum_of(bytes.data() + entry.offset + begin, n);
        sum.update(&block, sizeof block);
      }
      entry.checksum = sum.value();
      std::memcpy(table + s * sizeof entry, &entry, sizeof entry);
    }
    header.table_checksum = checksum_of(table, n_sections * sizeof(Entry));
  }
  header.file_bytes = bytes.size();
  header.header_checksum = checksum_of(&header, offsetof(Header, header_checksum));
  std::memcpy(bytes.data(), &header, sizeof header);
}

}  // namespace waggle::fuzz
