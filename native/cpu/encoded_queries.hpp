// Queries as a scan reads them.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/score_bounds.hpp"

namespace waggle::cpu {

int64_t values_of(QueryUnit unit);
bool has_integer_sums(QueryUnit unit);

/// One query in the units of a scan.
struct EncodedQuery {
  double step = 1;                                     // q̂ = step · code
  double lost = 0;                                     // ≥ ‖q − q̂‖₂
  ScanArithmetic arithmetic = ScanArithmetic::kFloat;  // of its sums
  int32_t n_terms = 1;                                 // 2: codes are 128 · high + low
  int32_t starts[2] = {0, 0};                          // what the sums of each term start with
};

/// Writes n_terms · padded units to `out`, zeros behind the last value. `two_terms` is looked at for kInt8Quad alone:
/// a second pass over bytes that are in registers anyway buys 7 more bits. Code magnitudes are held so small that no
/// sum leaves int32. O(dim).
EncodedQuery encode_query(QueryUnit unit, bool two_terms, const float* query, int64_t dim, int64_t padded_units,
                          int32_t* out);

}  // namespace waggle::cpu
