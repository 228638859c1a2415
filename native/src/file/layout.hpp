// The bytes of the container, shared by writer and reader.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "waggle/file.hpp"

namespace waggle::file_layout {

// As in PNG: a byte above 127, and both kinds of line ends, show files mangled in transfer.
constexpr uint8_t kMagic[8] = {0x89, 'W', 'G', 'L', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kByteOrder = 0x01020304;

struct Header {
  uint8_t magic[8];
  uint32_t byte_order;
  uint32_t format_version;
  char kind[8];
  uint32_t kind_version;
  uint32_t n_sections;
  uint64_t file_bytes;
  uint64_t reserved;
  uint64_t table_checksum;
  uint64_t header_checksum;  // of the 56 bytes before
};
static_assert(sizeof(Header) == 64);

struct Entry {
  char name[8];
  uint64_t offset;
  uint64_t bytes;
  uint64_t checksum;
};
static_assert(sizeof(Entry) == 32);

inline int64_t align_up(int64_t offset) {
  return (offset + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
}

inline int64_t table_end(int64_t n_sections) {
  return static_cast<int64_t>(sizeof(Header)) + n_sections * static_cast<int64_t>(sizeof(Entry));
}

inline bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 8) return false;
  for (const char c : name) {
    if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) return false;
  }
  return true;
}

inline void put_name(std::string_view name, char out[8]) {
  std::memset(out, 0, 8);
  std::memcpy(out, name.data(), name.size());
}

/// Empty unless `name` is a good one, padded with zeros.
inline std::string get_name(const char name[8]) {
  size_t length = 0;
  while (length < 8 && name[length] != '\0') ++length;
  for (size_t i = length; i < 8; ++i) {
    if (name[i] != '\0') return {};
  }
  const std::string_view view(name, length);
  return is_name(view) ? std::string(view) : std::string();
}

}  // namespace waggle::file_layout
