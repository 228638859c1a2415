// The hashing trick: (field, value) pairs to 2^bits buckets (Weinberger et al., "Feature Hashing for Large Scale
// Multitask Learning", ICML 2009).
//
//   key     = XXH64(UTF-8 of the field's name, seed)
//   hash    = text:     XXH64(UTF-8 of the value, key)
//             integer:  XXH64(8 bytes, two's complement, lowest first, key + 1)
//   bucket  = hash mod 2^bits
//   sign    = −1 where bit 63 of hash is set and signs are asked for, else +1
//
// The integer 7 and the text "7" are different values. The same everywhere, for good: models on disk rely on it.
#pragma once

#include <cstdint>
#include <vector>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle {

constexpr int32_t kHashMaxBits = 28;

/// One value per row: integers, or texts one after the other with the end of each.
struct HashColumn {
  const char* name = nullptr;
  int64_t name_bytes = 0;
  const int32_t* narrow = nullptr;  // [n_rows], or
  const int64_t* wide = nullptr;    // [n_rows], or
  const uint8_t* text = nullptr;    // [ends[n_rows − 1]]
  const uint32_t* ends = nullptr;   // [n_rows], ascending
  int64_t text_bytes = 0;           // readable at text
};

struct HashFeaturesArgs {
  std::vector<HashColumn> columns;
  int64_t n_rows = 0;
  int32_t bits = 0;  // 1 to kHashMaxBits
  uint64_t seed = 0;
  bool count = true;  // distinct values and collisions

  int32_t* indices = nullptr;  // out [n_rows × columns], row-major
  float* values = nullptr;     // out [n_rows × columns], null = no signs
};

struct HashFeaturesResult {
  std::vector<int64_t> distinct;  // values of each column, when counted
  int64_t buckets = 0;            // hit by any of them
  int64_t collisions = 0;         // Σ distinct − buckets: values that share the bucket of another one
};

/// O(bytes) on all threads, and a set of the distinct values of each column when counting.
Status hash_features(const HashFeaturesArgs& args, const RunContext& context, HashFeaturesResult* result);

/// The 64 bits above, for one value.
uint64_t hash_text(uint64_t key, const void* bytes, int64_t n);
uint64_t hash_integer(uint64_t key, int64_t value);
uint64_t hash_key(const void* name, int64_t n, uint64_t seed);

}  // namespace waggle
