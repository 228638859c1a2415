// What a split decides, for those who walk trees node by node.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "waggle/trees.hpp"

namespace waggle::trees {

inline bool in_bitset(const Ensemble& e, const Node& node, double category) {
  if (!(category >= 0) || category >= 32.0 * node.count) return false;
  const uint64_t c = static_cast<uint64_t>(category);
  return ((e.categories[node.first + (c >> 5)] >> (c & 31)) & 1u) != 0;
}

/// Which way a value goes at a split.
inline bool goes_left(const Ensemble& e, const Node& node, float x) {
  if (std::isnan(x)) {
    if (node.missing != Missing::kNanIsZero) return node.default_left;
    x = 0;
  }
  if (node.missing == Missing::kZeroOrNan && std::fabs(x) <= kZeroThreshold) return node.default_left;
  switch (node.decision) {
    case Decision::kLess:
      return x < node.threshold;
    case Decision::kLessEqual:
      return x <= node.threshold;
    case Decision::kEqual:
      return x == node.threshold;
    case Decision::kMember:
      return std::any_of(e.members.begin() + node.first, e.members.begin() + node.first + node.count,
                         [x](float member) { return member == x; });
    case Decision::kCategory:
      return x >= 0 && in_bitset(e, node, std::trunc(static_cast<double>(x)));
    case Decision::kCategoryTruncated:
      return in_bitset(e, node, std::trunc(static_cast<double>(x)));
  }
  return false;
}

}  // namespace waggle::trees
