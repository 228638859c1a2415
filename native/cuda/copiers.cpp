#include "cuda/copiers.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "cuda/spin.hpp"

namespace waggle::cuda {

namespace {

constexpr size_t kMostHelpers = 7;
constexpr size_t kWorthSharing = size_t{1} << 20;  // bytes; waking helpers takes some ten microseconds
constexpr size_t kChunk = size_t{1} << 17;         // bytes that a thread takes at a time
constexpr int kPausesBeforeYield = 1 << 10;

size_t helpers_for_machine() {
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  return processors < 4 ? 0 : std::min(kMostHelpers, processors / 2 - 1);
}

// Waits a moment for somebody else; the longer the wait, the more of the processor it leaves to others.
void pause(int* waited) {
  if (++*waited > kPausesBeforeYield) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Copiers::Copiers() : Copiers(helpers_for_machine()) {}

Copiers::~Copiers() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    ++round_;
  }
  wanted_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Copiers::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  Pieces whole(*this, from, bytes, bytes, &to, 1);
  whole.allow(1);
  whole.await(0);
}

bool Copiers::copy_next() {
  size_t chunk = next_.load();
  do {
    if (chunk >= std::min(n_chunks_, allowed_.load() * chunks_per_piece_)) return false;
  } while (!next_.compare_exchange_weak(chunk, chunk + 1));
  const size_t piece = chunk / chunks_per_piece_;
  const size_t in_piece = chunk % chunks_per_piece_ * kChunk;
  const size_t begin = piece * piece_bytes_ + in_piece;
  const size_t end = std::min({begin + kChunk, (piece + 1) * piece_bytes_, bytes_});
  if (begin < end) {
    std::memcpy(static_cast<unsigned char*>(sides_[piece % n_sides_]) + in_piece, from_ + begin, end - begin);
  }
  ++copied_[piece];
  return true;
}

void Copiers::wake_helpers() {
  try {
    helpers_.reserve(n_helpers_);
    while (helpers_.size() < n_helpers_) helpers_.emplace_back([this] { serve(); });
  } catch (const std::system_error&) {
    // Whoever did start helps.
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    ++round_;
  }
  wanted_.notify_all();
}

void Copiers::serve() {
  unsigned long long seen = 0;
  while (true) {
    if (!spin_until([&] { return round_ != seen; })) {
      std::unique_lock<std::mutex> lock(mutex_);
      wanted_.wait(lock, [&] { return round_ != seen; });
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closing_) return;
      seen = round_;
      if (!open_) continue;  // over before this one woke
      ++active_;
    }
    int waited = 0;
    while (!stopped_ && next_ < n_chunks_) {
      if (copy_next()) {
        waited = 0;
      } else {
        pause(&waited);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--active_ == 0) left_.notify_one();
  }
}

Copiers::Pieces::Pieces(Copiers& copiers, const void* from, size_t bytes, size_t piece_bytes, void* const* sides,
                        size_t n_sides)
    : copiers_(copiers) {
  Copiers& c = copiers;
  const size_t n_pieces = piece_bytes == 0 ? 0 : (bytes + piece_bytes - 1) / piece_bytes;
  if (n_pieces > c.most_pieces_) {
    c.most_pieces_ = 0;
    c.copied_.reset(new std::atomic<size_t>[n_pieces]);
    c.most_pieces_ = n_pieces;
  }
  for (size_t i = 0; i < n_pieces; ++i) c.copied_[i] = 0;
  c.from_ = static_cast<const unsigned char*>(from);
  c.sides_ = sides;
  c.n_sides_ = n_sides;
  c.bytes_ = bytes;
  c.piece_bytes_ = piece_bytes;
  c.chunks_per_piece_ = (piece_bytes + kChunk - 1) / kChunk;
  c.n_chunks_ = n_pieces * c.chunks_per_piece_;
  c.next_ = 0;
  c.allowed_ = 0;
  c.stopped_ = false;
  if (bytes >= kWorthSharing && c.n_helpers_ > 0) c.wake_helpers();
}

Copiers::Pieces::~Pieces() {
  Copiers& c = copiers_;
  c.stopped_ = true;
  {
    const std::lock_guard<std::mutex> lock(c.mutex_);
    c.open_ = false;
  }
  if (spin_until([&] { return c.active_ == 0; })) return;
  std::unique_lock<std::mutex> lock(c.mutex_);
  c.left_.wait(lock, [&] { return c.active_ == 0; });
}

void Copiers::Pieces::await(size_t piece) {
  Copiers& c = copiers_;
  int waited = 0;
  while (c.copied_[piece] != c.chunks_per_piece_) {
    if (c.copy_next()) {
      waited = 0;
    } else {
      pause(&waited);
    }
  }
}

}  // namespace waggle::cuda
