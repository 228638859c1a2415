#include "waggle/ops/hash_features.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>

#include "src/file/checksum.hpp"
#include "waggle/thread_pool.hpp"
#include "waggle/view.hpp"

namespace waggle {

namespace {

static_assert(std::endian::native == std::endian::little, "hashes of integers are of little-endian bytes");

constexpr int64_t kChunk = 4096;
constexpr uint64_t kSignBit = uint64_t{1} << 63;

// Open addressing, hashes as their own hashes.
class HashSet {
 public:
  HashSet() : slots_(1024) {}

  void insert(uint64_t hash) {
    if (hash == 0) {
      has_zero_ = true;
      return;
    }
    if (2 * n_ >= slots_.size()) grow();
    n_ += place(slots_, hash);
  }

  int64_t size() const { return static_cast<int64_t>(n_) + has_zero_; }

  template <typename Body>
  void for_each(Body&& body) const {
    if (has_zero_) body(uint64_t{0});
    for (const uint64_t hash : slots_) {
      if (hash != 0) body(hash);
    }
  }

 private:
  static bool place(std::vector<uint64_t>& slots, uint64_t hash) {
    const size_t mask = slots.size() - 1;
    size_t at = static_cast<size_t>(hash >> 20) & mask;
    while (slots[at] != 0) {
      if (slots[at] == hash) return false;
      at = (at + 1) & mask;
    }
    slots[at] = hash;
    return true;
  }

  void grow() {
    std::vector<uint64_t> larger(slots_.size() * 2);
    for (const uint64_t hash : slots_) {
      if (hash != 0) place(larger, hash);
    }
    slots_ = std::move(larger);
  }

  std::vector<uint64_t> slots_;
  size_t n_ = 0;
  bool has_zero_ = false;
};

uint64_t hash_at(const HashColumn& column, uint64_t key, int64_t row) {
  if (column.narrow != nullptr) return hash_integer(key, column.narrow[row]);
  if (column.wide != nullptr) return hash_integer(key, column.wide[row]);
  const uint32_t begin = row > 0 ? column.ends[row - 1] : 0;
  return hash_text(key, column.text + begin, column.ends[row] - begin);
}

Status check(const HashFeaturesArgs& args) {
  if (args.bits < 1 || args.bits > kHashMaxBits) {
    return fail(Code::kInvalidArgument, "bits is %d; it must be 1 to %d", args.bits, kHashMaxBits);
  }
  int64_t entries = 0;
  if (args.n_rows < 0 || !checked_product(args.n_rows, static_cast<int64_t>(args.columns.size()), &entries) ||
      entries > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "rows times columns exceed 2^31 - 1");
  }
  if (entries > 0 && args.indices == nullptr) return fail(Code::kShape, "indices is missing");
  for (size_t c = 0; c < args.columns.size(); ++c) {
    const HashColumn& column = args.columns[c];
    const int given = (column.narrow != nullptr) + (column.wide != nullptr) + (column.ends != nullptr);
    if (given != 1 || (column.ends != nullptr && column.text == nullptr) || column.name == nullptr) {
      return fail(Code::kInvalidArgument, "column %zu needs a name and either integers or texts", c);
    }
    if (column.ends == nullptr) continue;
    uint32_t last = 0;
    for (int64_t row = 0; row < args.n_rows; ++row) {
      if (column.ends[row] < last || column.ends[row] > column.text_bytes) {
        return fail(Code::kInvalidArgument, "the ends of the texts of column %zu fall or exceed them at row %lld", c,
                    static_cast<long long>(row));
      }
      last = column.ends[row];
    }
  }
  return {};
}

}  // namespace

uint64_t hash_key(const void* name, int64_t n, uint64_t seed) {
  return checksum_of(name, static_cast<size_t>(n), seed);
}
uint64_t hash_text(uint64_t key, const void* bytes, int64_t n) {
  return checksum_of(bytes, static_cast<size_t>(n), key);
}
uint64_t hash_integer(uint64_t key, int64_t value) { return checksum_of(&value, sizeof value, key + 1); }

Status hash_features(const HashFeaturesArgs& args, const RunContext& context, HashFeaturesResult* result) {
  return guarded([&]() -> Status {
    *result = {};
    if (Status status = check(args); !status.ok()) return status;
    const size_t n_columns = args.columns.size();
    std::vector<uint64_t> keys;
    for (const HashColumn& column : args.columns) keys.push_back(hash_key(column.name, column.name_bytes, args.seed));
    const uint64_t mask = (uint64_t{1} << args.bits) - 1;
    ThreadPool::instance().for_each_chunk((args.n_rows + kChunk - 1) / kChunk, context, [&](int64_t chunk, int) {
      for (int64_t row = chunk * kChunk; row < std::min(args.n_rows, (chunk + 1) * kChunk); ++row) {
        for (size_t c = 0; c < n_columns; ++c) {
          const uint64_t hash = hash_at(args.columns[c], keys[c], row);
          const size_t at = static_cast<size_t>(row) * n_columns + c;
          args.indices[at] = static_cast<int32_t>(hash & mask);
          if (args.values != nullptr) args.values[at] = (hash & kSignBit) != 0 ? -1.0f : 1.0f;
        }
      }
    });
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (!args.count) return {};

    std::vector<HashSet> sets(n_columns);
    std::atomic<bool> out_of_memory{false};
    ThreadPool::instance().for_each_chunk(static_cast<int64_t>(n_columns), context, [&](int64_t c, int) {
      const size_t at = static_cast<size_t>(c);
      try {
        for (int64_t row = 0; row < args.n_rows && !context.stop_requested(); ++row) {
          sets[at].insert(hash_at(args.columns[at], keys[at], row));
        }
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
      }
    });
    if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (out_of_memory) return fail(Code::kOutOfMemory, "not enough memory to count distinct values");
    std::vector<bool> hit(static_cast<size_t>(mask) + 1);
    int64_t distinct = 0;
    for (const HashSet& set : sets) {
      result->distinct.push_back(set.size());
      distinct += set.size();
      set.for_each([&](uint64_t hash) {
        std::vector<bool>::reference bucket = hit[static_cast<size_t>(hash & mask)];
        result->buckets += bucket ? 0 : 1;
        bucket = true;
      });
    }
    result->collisions = distinct - result->buckets;
    return {};
  });
}

}  // namespace waggle
