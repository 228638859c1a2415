#include "src/index/doubts.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "cpu/kernel_tables.hpp"
#include "cpu/score_bounds.hpp"

namespace waggle::index {

Doubts::Doubts(const IndexOptions& options, const Matrix<const float>& queries, int32_t k)
    : options_(options), queries_(queries), k_(k) {}

void Doubts::list(const Segment& segment, const int32_t* rows) {
  const EncodedMatrix m = encoded_of(options_, segment, segment.capacity());
  listed_.resize(static_cast<size_t>(queries_.rows));
  for (int64_t q = 0; q < queries_.rows; ++q) {
    const cpu::ScoreBounds bounds(options_.metric, queries_.row(q), options_.dim, 1.0, 0.0,
                                  cpu::ScanArithmetic::kDouble);
    for (int32_t i = 0; i < k_; ++i) {
      const int32_t row = rows[q * k_ + i];
      if (row < 0) break;
      const double sum = cpu::decoded_dot(static_cast<int32_t>(m.dtype), m.row(row), queries_.row(q), options_.dim);
      const double scale = m.scale != nullptr ? static_cast<double>(m.scale[row]) : 1.0;
      cpu::Interval interval =
          bounds.interval(sum, scale, static_cast<double>(m.error[row]), static_cast<double>(m.norm[row]));
      // An altered file may hold bounds that are no numbers.
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      if (!(interval.low <= interval.high)) interval = {-kInfinity, kInfinity};
      listed_[static_cast<size_t>(q)].push_back({interval.low, interval.high, segment.first_row() + row});
    }
  }
}

void Doubts::add(const Segment& segment, const int32_t* rows, const int32_t* n_in_doubt, const uint8_t* certified) {
  const size_t n = static_cast<size_t>(queries_.rows);
  n_in_doubt_.resize(n);
  for (size_t q = 0; q < n; ++q) n_in_doubt_[q] += n_in_doubt[q];
  ++n_segments_;
  if (n_segments_ == 1) {
    // One segment's own verdict is the best there is; intervals are needed once a second one comes.
    certified_.assign(certified, certified + n);
    first_ = &segment;
    first_rows_.assign(rows, rows + n * static_cast<size_t>(k_));
    return;
  }
  if (n_segments_ == 2) list(*first_, first_rows_.data());
  list(segment, rows);
}

Doubts::Verdict Doubts::of(int64_t query, const int32_t* rows) const {
  const size_t q = static_cast<size_t>(query);
  if (n_segments_ == 0) return {};
  if (n_segments_ == 1) return {certified_[q] != 0, static_cast<int32_t>(n_in_doubt_[q])};
  const std::vector<Listed>& listed = listed_[q];
  const int64_t n = static_cast<int64_t>(listed.size());
  std::vector<float> lows, highs;
  for (const Listed& l : listed) {
    lows.push_back(l.low);
    highs.push_back(l.high);
  }
  std::sort(lows.begin(), lows.end(), std::greater<float>());
  std::sort(highs.begin(), highs.end(), std::greater<float>());
  // k rows surely reach `floor`: what surely stays below it is out.
  const float floor = n >= k_ ? lows[static_cast<size_t>(k_ - 1)] : -std::numeric_limits<float>::infinity();
  const int64_t unlisted = n_in_doubt_[q];
  int64_t in_doubt = unlisted;
  for (const Listed& l : listed) {
    if (l.high < floor) continue;
    // How many could beat it: those whose interval reaches its lower end (itself not counted), and all unlisted ones.
    const int64_t reach =
        std::partition_point(highs.begin(), highs.end(), [&](float high) { return high >= l.low; }) - highs.begin();
    if (reach - 1 + unlisted >= k_) ++in_doubt;
  }
  Verdict verdict;
  verdict.n_in_doubt = static_cast<int32_t>(std::min<int64_t>(in_doubt, std::numeric_limits<int32_t>::max()));
  verdict.certified = in_doubt == 0;
  // The order, too, must be beyond doubt.
  float above = std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < k_ && rows[i] >= 0 && verdict.certified; ++i) {
    const auto at = std::find_if(listed.begin(), listed.end(), [&](const Listed& l) { return l.row == rows[i]; });
    if (i > 0 && !(at->high < above)) verdict.certified = false;
    above = at->low;
  }
  return verdict;
}

}  // namespace waggle::index
