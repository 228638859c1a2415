// From id to row: an open-addressing table of row numbers. The ids themselves stay with the rows, which the caller
// compares; a slot is four bytes.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace waggle::index {

class IdMap {
 public:
  static constexpr uint32_t kEmpty = 0;
  static constexpr uint32_t kErased = 0xffffffffu;

  /// Where a search for an id ended.
  struct Place {
    int64_t slot = 0;
    int32_t row = -1;  // −1 = absent; the id may be put at `slot`, or after it
  };

  IdMap() = default;
  // A move keeps the addresses of `own_`.
  IdMap(IdMap&&) = default;
  IdMap& operator=(IdMap&&) = default;

  /// Reads slots that live elsewhere (a mapped file, unchecked) until the first write copies them.
  void borrow(const uint32_t* slots, int64_t capacity) {
    own_ = {};
    slots_ = slots;
    capacity_ = capacity;
    borrowed_ = true;
  }

  /// May `n` more ids be put?
  bool has_room(int64_t n) const { return !borrowed_ && fits(n_used_ + n, capacity_); }

  /// A copy of its own with room for `n` more ids beside the `n_live` there are.
  template <typename HashOfRow>
  IdMap grown(int64_t n, int64_t n_live, HashOfRow&& hash_of_row) const {
    IdMap next;
    int64_t capacity = kLeastCapacity;
    // A quarter of what it may use stays free: it is not made again before that many ids were put.
    while ((n_live + n) * 5 > capacity * 3) capacity *= 2;
    next.adopt(std::vector<uint32_t>(static_cast<size_t>(capacity), kEmpty));
    for (int64_t slot = 0; slot < capacity_; ++slot) {
      const uint32_t value = slots_[slot];
      uint64_t hash = 0;
      if (value == kEmpty || value == kErased || !hash_of_row(static_cast<int32_t>(value - 1), &hash)) continue;
      // More entries than live rows are only in a file that lies; they must not fill the table.
      if (!fits(next.n_used_ + n + 1, capacity)) break;
      next.put_new(hash, static_cast<int32_t>(value - 1));
    }
    return next;
  }

  /// Puts an id that is surely absent. Needs room.
  void put_new(uint64_t hash, int32_t row) {
    int64_t at = static_cast<int64_t>(hash) & (capacity_ - 1);
    while (own_[static_cast<size_t>(at)] != kEmpty) at = (at + 1) & (capacity_ - 1);
    own_[static_cast<size_t>(at)] = static_cast<uint32_t>(row) + 1;
    ++n_used_;
  }

  void prefetch(uint64_t hash) const {
    if (capacity_ > 0) __builtin_prefetch(slots_ + (static_cast<int64_t>(hash) & (capacity_ - 1)));
  }

  /// Looks from the hash's first slot on; `is_row(row)` says whether a row has the id.
  template <typename IsRow>
  Place find(uint64_t hash, IsRow&& is_row) const {
    if (capacity_ == 0) return {};
    return find_from({static_cast<int64_t>(hash) & (capacity_ - 1), -1}, is_row);
  }

  /// Looks on from where an earlier search ended, after ids were put.
  template <typename IsRow>
  Place find_from(Place place, IsRow&& is_row) const {
    int64_t at = place.slot;
    // Bounded: a file may hold a table without an empty slot.
    for (int64_t step = 0; step < capacity_; ++step) {
      const uint32_t value = slots_[at];
      if (value == kEmpty) return {at, -1};
      if (value != kErased && is_row(static_cast<int32_t>(value - 1))) return {at, static_cast<int32_t>(value - 1)};
      at = (at + 1) & (capacity_ - 1);
    }
    return {at, -1};
  }

  /// Needs room. `place` comes from a find with nothing put since.
  void put(const Place& place, int32_t row) {
    uint32_t& slot = own_[static_cast<size_t>(place.slot)];
    n_used_ += slot == kEmpty;
    slot = static_cast<uint32_t>(row) + 1;
  }

  void erase(const Place& place) { own_[static_cast<size_t>(place.slot)] = kErased; }

  int64_t bytes() const { return capacity_ * static_cast<int64_t>(sizeof(uint32_t)); }
  bool is_borrowed() const { return borrowed_; }
  std::vector<uint32_t> copy() const { return {slots_, slots_ + capacity_}; }

 private:
  static constexpr int64_t kLeastCapacity = 16;

  // At most 4 of 5 slots used, erased ones included.
  static bool fits(int64_t used, int64_t capacity) { return used * 5 <= capacity * 4; }

  void adopt(std::vector<uint32_t> slots) {
    own_ = std::move(slots);
    slots_ = own_.data();
    capacity_ = static_cast<int64_t>(own_.size());
  }

  std::vector<uint32_t> own_;
  const uint32_t* slots_ = nullptr;
  int64_t capacity_ = 0;  // a power of two, or 0
  int64_t n_used_ = 0;    // slots not empty; unknown while borrowed
  bool borrowed_ = false;
};

/// splitmix64's finaliser (Steele, Lea, Flood 2014): neighbouring ids spread over the table.
inline uint64_t hash_number(uint64_t id) {
  id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9u;
  id = (id ^ (id >> 27)) * 0x94d049bb133111ebu;
  return id ^ (id >> 31);
}

}  // namespace waggle::index
