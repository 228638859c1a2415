// How sure an answer is that was merged from several segments whose floats were dropped.
#pragma once

#include <cstdint>
#include <vector>

#include "src/index/segment.hpp"
#include "waggle/index.hpp"
#include "waggle/view.hpp"

namespace waggle::index {

/// Every row that could be among the k best of all is among the k best of its segment, so it was either returned for it
/// (*listed*) or is one of the rows in doubt there. Listed rows have score intervals (cpu/score_bounds.hpp); of the
/// others only their number is known, so each is taken to beat everything.
class Doubts {
 public:
  struct Verdict {
    /// The rows and their order are surely those of an exact search.
    bool certified = true;
    /// At most so many rows may or may not belong among the k best.
    int32_t n_in_doubt = 0;
  };

  Doubts(const IndexOptions& options, const Matrix<const float>& queries, int32_t k);

  /// What topk_encoded said of one segment; `rows` [n_queries × k] are numbered within it.
  void add(const Segment& segment, const int32_t* rows, const int32_t* n_in_doubt, const uint8_t* certified);

  /// `rows` [k] is the merged answer.
  Verdict of(int64_t query, const int32_t* rows) const;

 private:
  struct Listed {
    float low;
    float high;
    int32_t row;
  };

  const IndexOptions& options_;
  const Matrix<const float> queries_;
  const int32_t k_;
  int64_t n_segments_ = 0;
  std::vector<std::vector<Listed>> listed_;  // by query; filled from the second segment on
  std::vector<int64_t> n_in_doubt_;
  std::vector<uint8_t> certified_;
  const Segment* first_ = nullptr;
  std::vector<int32_t> first_rows_;

  void list(const Segment& segment, const int32_t* rows);
};

}  // namespace waggle::index
