// The k best of a stream. The root is the worst kept, so that most entries are refused by one comparison.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace waggle {

/// Score and row as one integer whose order is the order of the answer: higher score first, lower row on ties.
/// −0 counts as +0.
inline uint64_t ranking_key(float score, int32_t row) {
  const float positive_zero = score + 0.0f;
  uint32_t bits = 0;
  std::memcpy(&bits, &positive_zero, sizeof bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | (0xffffffffu - static_cast<uint32_t>(row));
}

inline float score_of_key(uint64_t key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
  float score = 0;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

inline int32_t row_of_key(uint64_t key) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key)); }

struct ScoredRow {
  double score;
  int32_t row;
};

inline bool ranks_before(const ScoredRow& a, const ScoredRow& b) {
  return a.score > b.score || (a.score == b.score && a.row < b.row);
}

inline bool ranks_before(uint64_t a, uint64_t b) { return a > b; }

/// A bounded heap over borrowed storage of `capacity` entries.
template <typename Entry>
class TopHeap {
 public:
  TopHeap() = default;
  TopHeap(Entry* storage, int32_t capacity) : entries_(storage), capacity_(capacity) {}

  int32_t size() const { return size_; }
  bool full() const { return size_ == capacity_; }
  const Entry& worst() const { return entries_[0]; }
  const Entry* begin() const { return entries_; }
  const Entry* end() const { return entries_ + size_; }

  void push(const Entry& entry) {
    if (size_ < capacity_) {
      int32_t hole = size_++;
      while (hole > 0) {
        const int32_t parent = (hole - 1) / 2;
        if (!ranks_before(entries_[parent], entry)) break;
        entries_[hole] = entries_[parent];
        hole = parent;
      }
      entries_[hole] = entry;
      return;
    }
    if (!ranks_before(entry, entries_[0])) return;
    int32_t hole = 0;
    while (true) {
      int32_t child = 2 * hole + 1;
      if (child >= size_) break;
      if (child + 1 < size_ && ranks_before(entries_[child], entries_[child + 1])) ++child;
      if (!ranks_before(entry, entries_[child])) break;
      entries_[hole] = entries_[child];
      hole = child;
    }
    entries_[hole] = entry;
  }

  /// Best first; the heap is spent afterwards.
  void sort() {
    std::sort(entries_, entries_ + size_, [](const Entry& a, const Entry& b) { return ranks_before(a, b); });
  }

 private:
  Entry* entries_ = nullptr;
  int32_t capacity_ = 0;
  int32_t size_ = 0;
};

}  // namespace waggle
