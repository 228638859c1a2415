// A JSON or UBJSON document in memory. Numbers in a row are kept as plain doubles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "waggle/status.hpp"

namespace waggle::trees {

struct Value;
struct Member;
using Numbers = std::vector<double>;
using Items = std::vector<Value>;
using Members = std::vector<Member>;

struct Value {
  std::variant<std::monostate, bool, double, std::string, Numbers, Items, Members> held;

  /// The member of that name of an object; null for none.
  const Value* find(const char* name) const;
  const std::string* text() const { return std::get_if<std::string>(&held); }
  const double* number() const { return std::get_if<double>(&held); }
  const Numbers* numbers() const;
  const Items* items() const { return std::get_if<Items>(&held); }
};

struct Member {
  std::string first;
  Value second;
};

/// Deeper nesting is refused.
constexpr int kMaxNesting = 64;

/// RFC 8259, and NaN, Infinity and -Infinity. A decimal rounds to a double such that rounding that to float gives the
/// float nearest to the decimal.
Status parse_json(const uint8_t* data, size_t size, Value* out);

/// UBJSON draft 12 without high-precision numbers.
Status parse_ubjson(const uint8_t* data, size_t size, Value* out);

}  // namespace waggle::trees
