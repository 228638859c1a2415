#include "src/top_heap.hpp"

#include <cmath>
#include <functional>
#include <iterator>
#include <limits>

#include "test/conformance/case.hpp"
#include "test/unit/check.hpp"

using namespace waggle;

TEST("a ranking key orders by score, then by lower row, and gives both back") {
  const float scores[] = {-std::numeric_limits<float>::max(), -1.5f, -1e-30f, 0.0f, 1e-40f, 2.0f,
                          std::numeric_limits<float>::max()};
  for (size_t i = 0; i < std::size(scores); ++i) {
    for (const int32_t row : {0, 1, 77, std::numeric_limits<int32_t>::max()}) {
      const uint64_t key = ranking_key(scores[i], row);
      EXPECT(score_of_key(key) == scores[i]);
      EXPECT(row_of_key(key) == row);
    }
    EXPECT(ranking_key(scores[i], 3) > ranking_key(scores[i], 4));
    if (i > 0) EXPECT(ranking_key(scores[i], 9) > ranking_key(scores[i - 1], 1));
  }
  EXPECT(ranking_key(-0.0f, 5) == ranking_key(0.0f, 5));
}

TEST("a heap keeps the best of a stream, whatever its order") {
  conformance::Random random(7);
  for (int round = 0; round < 300; ++round) {
    const int32_t capacity = static_cast<int32_t>(1 + random.below(40));
    const int64_t n = random.below(200);
    std::vector<uint64_t> storage(static_cast<size_t>(capacity));
    std::vector<uint64_t> all;
    TopHeap<uint64_t> heap(storage.data(), capacity);
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = ranking_key(static_cast<float>(random.below(20)) - 10.0f, static_cast<int32_t>(i));
      all.push_back(key);
      heap.push(key);
    }
    heap.sort();
    std::sort(all.begin(), all.end(), std::greater<uint64_t>());
    all.resize(std::min(all.size(), static_cast<size_t>(capacity)));
    EXPECT(std::vector<uint64_t>(heap.begin(), heap.end()) == all);
  }
}

TEST("scored rows tie to the lower row") {
  EXPECT(ranks_before(ScoredRow{1.0, 3}, ScoredRow{1.0, 4}));
  EXPECT(!ranks_before(ScoredRow{1.0, 4}, ScoredRow{1.0, 3}));
  EXPECT(ranks_before(ScoredRow{2.0, 9}, ScoredRow{1.0, 0}));
}
