#include <cstdlib>

#include "test/fuzz/fuzz.hpp"
#include "waggle/file.hpp"

using namespace waggle;

namespace {

constexpr FileKind kKind{"SAMPLE", 1, 1};

// Reads every byte that a good file promises.
void read(const uint8_t* data, size_t size, Verify verify) {
  RunContext context;
  context.parallel = false;
  std::shared_ptr<const MappedFile> file;
  const Status status = MappedFile::copy_of(data, static_cast<int64_t>(size), kKind, verify, context, &file);
  if (!status.ok()) {
    if (status.code() != Code::kFile || status.text().empty()) std::abort();
    return;
  }
  for (const char* name : {"A", "B", "EMPTY"}) {
    const uint32_t* values = nullptr;
    int64_t count = 0;
    if (!file->section(name, &values, &count).ok()) continue;
    volatile uint32_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum = sum + values[i];
  }
}

}  // namespace

std::vector<std::vector<uint8_t>> fuzz::seeds() {
  std::vector<std::vector<uint8_t>> all;
  for (const size_t n : {0, 1, 40, 500}) {
    const std::vector<uint32_t> values(n, 0x01020304);
    FileWriter writer("SAMPLE", 1);
    writer.add("A", values.data(), static_cast<int64_t>(n * sizeof(uint32_t)));
    writer.add("EMPTY", nullptr, 0);
    writer.add("B", values.data(), static_cast<int64_t>(n));
    all.emplace_back();
    if (!writer.to_memory(&all.back()).ok()) std::abort();
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  read(data, size, Verify::kFull);
  std::vector<uint8_t> repaired(data, data + size);
  fuzz::repair_checksums(repaired);
  read(repaired.data(), repaired.size(), Verify::kFull);
  read(repaired.data(), repaired.size(), Verify::kHeader);
  return 0;
}
