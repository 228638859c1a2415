// Copies of pageable memory into pinned staging by several threads: one thread moves some 10 GB/s, a PCIe 5 link five
// times that.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace waggle::cuda {

/// Belongs to the owner's thread. The helpers start with the first large copy; after one they look out for the next for
/// some 100 µs, then sleep.
class Copiers {
 public:
  /// Helpers for the machine: none where it has few processors.
  Copiers();
  explicit Copiers(size_t n_helpers) : n_helpers_(n_helpers) {}
  ~Copiers();
  Copiers(const Copiers&) = delete;
  Copiers& operator=(const Copiers&) = delete;

  /// memcpy, shared with the helpers when that pays. Returns when all is copied.
  void copy(void* to, const void* from, size_t bytes);

  /// A copy in pieces that goes on while its owner does other things: piece i, of piece_bytes (the last has what is
  /// left), is copied to sides[i % n_sides]. One at a time; nobody reads or writes anything once it is destroyed.
  class Pieces {
   public:
    Pieces(Copiers& copiers, const void* from, size_t bytes, size_t piece_bytes, void* const* sides, size_t n_sides);
    ~Pieces();
    Pieces(const Pieces&) = delete;
    Pieces& operator=(const Pieces&) = delete;

    /// The places of the first n_pieces are free to be written.
    void allow(size_t n_pieces) { copiers_.allowed_.store(n_pieces); }
    /// Returns when an allowed piece is copied; the caller helps.
    void await(size_t piece);

   private:
    Copiers& copiers_;
  };

 private:
  void serve();
  void wake_helpers();
  // Copies one chunk of an allowed piece; false: there is none now.
  bool copy_next();

  const size_t n_helpers_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable left_;
  std::vector<std::thread> helpers_;
  std::atomic<unsigned long long> round_{0};
  std::atomic<size_t> active_{0};  // helpers that are in the round
  bool open_ = false;              // to helpers that wake
  bool closing_ = false;

  // Of the round: written while no helper is in it.
  const unsigned char* from_ = nullptr;
  void* const* sides_ = nullptr;
  size_t n_sides_ = 0;
  size_t bytes_ = 0;
  size_t piece_bytes_ = 0;
  size_t chunks_per_piece_ = 0;
  size_t n_chunks_ = 0;
  std::unique_ptr<std::atomic<size_t>[]> copied_;  // chunks of each piece
  size_t most_pieces_ = 0;
  std::atomic<size_t> next_{0};     // chunk
  std::atomic<size_t> allowed_{0};  // pieces
  std::atomic<bool> stopped_{false};
};

}  // namespace waggle::cuda
