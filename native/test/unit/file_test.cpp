#include "waggle/file.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "src/file/checksum.hpp"
#include "src/file/layout.hpp"
#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"
#include "test/unit/temporary_folder.hpp"

using namespace waggle;
using unit::read_all;
using unit::TemporaryFolder;
using unit::write_all;

namespace {

constexpr FileKind kKind{"SAMPLE", 2, 3};

struct Sample {
  std::vector<float> numbers;
  std::vector<uint8_t> odd;
  explicit Sample(size_t n, uint64_t seed = 1) : numbers(n), odd(13) {
    conformance::Random random(seed);
    for (float& v : numbers) v = static_cast<float>(random.uniform());
    for (uint8_t& v : odd) v = static_cast<uint8_t>(random.next());
  }
  FileWriter writer(uint32_t version = 3) const {
    FileWriter writer("SAMPLE", version);
    writer.add("ODD", odd.data(), static_cast<int64_t>(odd.size()));
    writer.add("NOTHING", nullptr, 0);
    // In two pieces, cut where no block ends.
    const size_t cut = numbers.size() / 3;
    writer.add("NUMBERS", {{numbers.data(), static_cast<int64_t>(cut * sizeof(float))},
                           {numbers.data() + cut, static_cast<int64_t>((numbers.size() - cut) * sizeof(float))}});
    return writer;
  }
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> out;
    EXPECT(writer().to_memory(&out).ok());
    return out;
  }
};

Status open(const std::string& path, Verify verify = Verify::kFull) {
  std::shared_ptr<const MappedFile> file;
  return MappedFile::open(path, kKind, verify, RunContext{}, &file);
}

Status open_bytes(const std::vector<uint8_t>& bytes, Verify verify = Verify::kFull) {
  std::shared_ptr<const MappedFile> file;
  return MappedFile::copy_of(bytes.data(), static_cast<int64_t>(bytes.size()), kKind, verify, RunContext{}, &file);
}

bool says(const Status& status, const char* word) {
  if (status.code() == Code::kFile && status.text().find(word) != std::string::npos) return true;
  std::printf("  code %d, text '%s', wanted '%s'\n", static_cast<int>(status.code()), status.text().c_str(), word);
  return false;
}

// A change to the header or the table that keeps the checksums right.
template <typename Change>
std::vector<uint8_t> forged(std::vector<uint8_t> bytes, Change&& change) {
  file_layout::Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<file_layout::Entry> table(header.n_sections);
  std::memcpy(table.data(), bytes.data() + sizeof header, table.size() * sizeof table[0]);
  change(header, table);
  header.table_checksum = checksum_of(table.data(), table.size() * sizeof table[0]);
  header.header_checksum = checksum_of(&header, offsetof(file_layout::Header, header_checksum));
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof header, table.data(), table.size() * sizeof table[0]);
  return bytes;
}

}  // namespace

TEST("checksums are those of XXH64, whole or in parts") {
  EXPECT(checksum_of("", 0) == 0xEF46DB3751D8E999u);
  EXPECT(checksum_of("a", 1) == 0xD24EC4F1A98C6E5Bu);
  EXPECT(checksum_of("abc", 3) == 0x44BC2CF5AD770999u);
  std::vector<uint8_t> bytes(1000);
  conformance::Random random(3);
  for (uint8_t& v : bytes) v = static_cast<uint8_t>(random.next());
  for (int round = 0; round < 200; ++round) {
    const size_t n = static_cast<size_t>(random.below(1000));
    Checksum sum(7);
    for (size_t at = 0; at < n;) {
      const size_t step = std::min(n - at, static_cast<size_t>(random.below(70)));
      sum.update(bytes.data() + at, step);
      at += step;
    }
    EXPECT(sum.value() == checksum_of(bytes.data(), n, 7));
  }
}

TEST("a file gives back its sections, aligned, by map and by copy") {
  const TemporaryFolder folder;
  for (const size_t n : {size_t{0}, size_t{1}, size_t{1000}, size_t{900001}}) {
    const Sample sample(n);
    const std::string path = folder.file("sample");
    EXPECT(sample.writer().save(path, RunContext{}).ok());
    EXPECT(folder.n_entries() == 1);
    EXPECT(read_all(path) == sample.bytes());
    for (const Verify verify : {Verify::kFull, Verify::kHeader}) {
      std::shared_ptr<const MappedFile> file;
      EXPECT(MappedFile::open(path, kKind, verify, RunContext{}, &file).ok());
      if (file == nullptr) continue;
      EXPECT(file->kind_version() == 3);
      const float* numbers = nullptr;
      int64_t count = 0;
      EXPECT(file->section("NUMBERS", &numbers, &count).ok());
      EXPECT(count == static_cast<int64_t>(n));
      EXPECT(reinterpret_cast<uintptr_t>(numbers) % kSectionAlignment == 0);
      EXPECT(n == 0 || std::memcmp(numbers, sample.numbers.data(), n * sizeof(float)) == 0);
      const uint8_t* odd = nullptr;
      EXPECT(file->section("ODD", &odd, &count).ok() && count == 13 && std::memcmp(odd, sample.odd.data(), 13) == 0);
      EXPECT(file->section("NOTHING", &odd, &count).ok() && count == 0);
      EXPECT(file->has("ODD") && !file->has("ABSENT"));
      EXPECT(says(file->section("ABSENT", &odd, &count), "section ABSENT is missing"));
      EXPECT(says(file->section("ODD", &numbers, &count), "not a whole number"));
    }
  }
}

TEST("a replaced file stays readable where it is mapped") {
  const TemporaryFolder folder;
  const std::string path = folder.file("sample");
  const Sample before(5000, 1);
  const Sample after(10, 2);
  EXPECT(before.writer().save(path, RunContext{}).ok());
  std::shared_ptr<const MappedFile> file;
  EXPECT(MappedFile::open(path, kKind, Verify::kFull, RunContext{}, &file).ok());
  EXPECT(after.writer().save(path, RunContext{}).ok());
  const float* numbers = nullptr;
  int64_t count = 0;
  EXPECT(file->section("NUMBERS", &numbers, &count).ok() && count == 5000);
  EXPECT(std::memcmp(numbers, before.numbers.data(), 5000 * sizeof(float)) == 0);
  EXPECT(open(path).ok());
  EXPECT(read_all(path) == after.bytes());
}

TEST("every truncation and every flipped bit is refused") {
  const std::vector<uint8_t> good = Sample(300).bytes();
  EXPECT(open_bytes(good).ok());
  for (size_t n = 0; n < good.size(); ++n) {
    const std::vector<uint8_t> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT(open_bytes(cut, Verify::kHeader).code() == Code::kFile);
  }
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  EXPECT(says(open_bytes(longer, Verify::kHeader), "longer"));
  std::vector<uint8_t> bytes = good;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ (1 << (bit % 8)));
    EXPECT(open_bytes(bytes).code() == Code::kFile);
    bytes[bit / 8] = good[bit / 8];
  }
}

TEST("a refused file is told apart: foreign, version, kind, truncated, overlapping, out of range") {
  const TemporaryFolder folder;
  const std::vector<uint8_t> good = Sample(300).bytes();
  const std::string path = folder.file("sample");
  EXPECT(says(open(path), "No such file"));
  EXPECT(says(open(folder.path()), "not a regular file"));
  EXPECT(::mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  EXPECT(says(open(folder.file("pipe")), "not a regular file"));
  write_all(path, {});
  EXPECT(says(open(path), "truncated or foreign"));
  write_all(path, std::vector<uint8_t>(5000, 'x'));
  EXPECT(says(open(path), "foreign"));
  write_all(path, {good.begin(), good.end() - 1});
  EXPECT(says(open(path), "truncated"));
  write_all(path, good);
  EXPECT(open(path).ok());

  using file_layout::Entry;
  using file_layout::Header;
  using Table = std::vector<Entry>;
  const auto refused = [&](auto&& change, const char* word) {
    EXPECT(says(open_bytes(forged(good, change), Verify::kHeader), word));
  };
  refused([](Header& h, Table&) { h.byte_order = 0x04030201; }, "byte order");
  refused([](Header& h, Table&) { h.format_version = 9; }, "container version 9");
  refused([](Header& h, Table&) { std::memcpy(h.kind, "OTHER\0\0", 8); }, "of kind OTHER; SAMPLE is needed");
  refused([](Header& h, Table&) { h.kind_version = 4; }, "SAMPLE version 4; this build reads versions 2 to 3");
  refused([](Header& h, Table&) { h.kind_version = 1; }, "SAMPLE version 1");
  refused([](Header& h, Table&) { h.n_sections = 1 << 30; }, "altered");
  refused([](Header&, Table& t) { t[1].offset = t[0].offset; }, "overlaps");
  refused([](Header&, Table& t) { t[2].offset += 64; }, "gap");
  refused([](Header&, Table& t) { t[2].offset += 1; }, "not aligned");
  refused([](Header&, Table& t) { t[2].bytes += 1; }, "beyond the end");
  refused([](Header&, Table& t) { t[2].bytes = ~uint64_t{0}; }, "beyond the end");
  refused([](Header&, Table& t) { t[0].bytes = ~uint64_t{0} - 100; }, "beyond the end");
  refused([](Header&, Table& t) { t[2].bytes -= 4; }, "after the last section");
  refused([](Header&, Table& t) { std::memcpy(t[1].name, t[0].name, 8); }, "two sections");
  refused([](Header&, Table& t) { t[1].name[7] = 'x'; }, "no good name");

  std::vector<uint8_t> altered = good;
  altered.back() ^= 1;
  EXPECT(open_bytes(altered, Verify::kHeader).ok());
  EXPECT(says(open_bytes(altered), "section NUMBERS does not match its checksum"));
}

TEST("a save that fails leaves the old file and nothing else") {
  const TemporaryFolder folder;
  const std::string path = folder.file("sample");
  const Sample old(100, 1);
  const Sample big(2000000, 2);
  EXPECT(old.writer().save(path, RunContext{}).ok());
  const auto untouched = [&] { return folder.n_entries() == 1 && read_all(path) == old.bytes(); };

  // The device is full half-way: a limit on the size of files is the portable way to get there.
  struct rlimit limit = {};
  EXPECT(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  struct rlimit small = limit;
  small.rlim_cur = 3 << 20;
  auto* const before = std::signal(SIGXFSZ, SIG_IGN);
  EXPECT(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Status full = big.writer().save(path, RunContext{});
  EXPECT(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, before);
  EXPECT(says(full, "cannot write"));
  EXPECT(untouched());

  const std::atomic<bool> stop{true};
  RunContext stopped;
  stopped.cancelled = &stop;
  EXPECT(big.writer().save(path, stopped).code() == Code::kCancelled);
  EXPECT(untouched());

  EXPECT(says(old.writer().save(folder.file("none/sample"), RunContext{}), "cannot create"));
  EXPECT(says(old.writer().save(path + "/sample", RunContext{}), "cannot create"));
  EXPECT(old.writer().save("", RunContext{}).code() == Code::kInvalidArgument);
  EXPECT(old.writer().save(std::string("a\0b", 3), RunContext{}).code() == Code::kInvalidArgument);
  EXPECT(says(old.writer().save("/proc/sample", RunContext{}), "cannot create"));
  EXPECT(untouched());

  EXPECT(::mkdir(folder.file("taken").c_str(), 0700) == 0);
  EXPECT(says(old.writer().save(folder.file("taken"), RunContext{}), "cannot replace"));
  EXPECT(folder.n_entries() == 2);
  EXPECT(::rmdir(folder.file("taken").c_str()) == 0);

  // A superuser may write anywhere, so it lays its rank down for this.
  EXPECT(::chmod(folder.path().c_str(), 0555) == 0);
  const bool superuser = ::geteuid() == 0;
  EXPECT(!superuser || ::seteuid(65534) == 0);
  const Status denied = big.writer().save(path, RunContext{});
  EXPECT(!superuser || ::seteuid(0) == 0);
  EXPECT(::chmod(folder.path().c_str(), 0700) == 0);
  EXPECT(says(denied, "Permission denied"));
  EXPECT(untouched());
}

TEST("bad names of kinds and sections are refused before anything is written") {
  std::vector<uint8_t> out;
  const auto code = [&](const char* kind, const char* first, const char* second) {
    FileWriter writer(kind, 1);
    writer.add(first, "abcd", 4);
    writer.add(second, "abcd", 4);
    return writer.to_memory(&out).code();
  };
  EXPECT(code("KIND", "A", "B") == Code::kOk);
  EXPECT(code("", "A", "B") == Code::kInvalidArgument);
  EXPECT(code("KIND", "NINECHARS", "B") == Code::kInvalidArgument);
  EXPECT(code("KIND", "A", "b") == Code::kInvalidArgument);
  EXPECT(code("KIND", "A", "A") == Code::kInvalidArgument);
  FileWriter many("KIND", 1);
  for (int i = 0; i <= kMaxSections; ++i) many.add("S" + std::to_string(i), nullptr, 0);
  EXPECT(many.to_memory(&out).code() == Code::kInvalidArgument);
}
