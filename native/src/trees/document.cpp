#include "src/trees/document.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "src/trees/decimal.hpp"

namespace waggle::trees {

const Value* Value::find(const char* name) const {
  const Members* members = std::get_if<Members>(&held);
  if (members == nullptr) return nullptr;
  for (const auto& [key, value] : *members) {
    if (key == name) return &value;
  }
  return nullptr;
}

const Numbers* Value::numbers() const {
  static const Numbers none;
  if (const Items* empty = items(); empty != nullptr && empty->empty()) return &none;
  return std::get_if<Numbers>(&held);
}

namespace {

// What array elements become: numbers as long as there are only numbers.
class ArrayBuilder {
 public:
  void add(Value value) {
    if (const double* number = value.number(); number != nullptr && items_.empty()) {
      numbers_.push_back(*number);
      return;
    }
    spill();
    items_.push_back(std::move(value));
  }
  Value finish() {
    Value made;
    if (!numbers_.empty()) {
      made.held = std::move(numbers_);
    } else {
      made.held = std::move(items_);
    }
    return made;
  }

 private:
  void spill() {
    for (const double n : numbers_) items_.push_back(Value{n});
    numbers_.clear();
    numbers_.shrink_to_fit();
  }
  Numbers numbers_;
  Items items_;
};

// ---- JSON ---------------------------------------------------------------------------------------------------

class Json {
 public:
  Json(const uint8_t* data, size_t size)
      : begin_(reinterpret_cast<const char*>(data)), at_(begin_), end_(begin_ + size) {}

  Status parse(Value* out) {
    if (Status status = value(out, 0); !status.ok()) return status;
    skip_space();
    return at_ == end_ ? Status() : error("something follows the document");
  }

 private:
  Status error(const char* what) const {
    return fail(Code::kModel, "JSON: %s at byte %zu", what, static_cast<size_t>(at_ - begin_));
  }
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  bool word(const char* text) {
    const size_t n = std::strlen(text);
    if (static_cast<size_t>(end_ - at_) < n || std::memcmp(at_, text, n) != 0) return false;
    at_ += n;
    return true;
  }

  Status value(Value* out, int depth) {
    if (depth > kMaxNesting) return error("nested too deeply");
    skip_space();
    if (at_ == end_) return error("cut off");
    switch (*at_) {
      case '{':
        return object(out, depth);
      case '[':
        return array(out, depth);
      case '"': {
        std::string text;
        Status status = string(&text);
        if (status.ok()) out->held = std::move(text);
        return status;
      }
      case 't':
        if (!word("true")) return error("an unknown word");
        out->held = true;
        return {};
      case 'f':
        if (!word("false")) return error("an unknown word");
        out->held = false;
        return {};
      case 'n':
        if (!word("null")) return error("an unknown word");
        out->held = std::monostate();
        return {};
      default:
        return number(out);
    }
  }

  Status object(Value* out, int depth) {
    ++at_;
    Members members;
    if (!take('}')) {
      do {
        skip_space();
        if (at_ == end_ || *at_ != '"') return error("a name is missing");
        members.emplace_back();
        if (Status status = string(&members.back().first); !status.ok()) return status;
        if (!take(':')) return error("a colon is missing");
        if (Status status = value(&members.back().second, depth + 1); !status.ok()) return status;
      } while (take(','));
      if (!take('}')) return error("an object does not end");
    }
    out->held = std::move(members);
    return {};
  }

  Status array(Value* out, int depth) {
    ++at_;
    ArrayBuilder builder;
    if (!take(']')) {
      do {
        Value item;
        if (Status status = value(&item, depth + 1); !status.ok()) return status;
        builder.add(std::move(item));
      } while (take(','));
      if (!take(']')) return error("an array does not end");
    }
    *out = builder.finish();
    return {};
  }

  Status string(std::string* out) {
    ++at_;
    while (true) {
      if (at_ == end_) return error("a string does not end");
      const char c = *at_++;
      if (c == '"') return {};
      if (c != '\\') {
        out->push_back(c);
        continue;
      }
      if (at_ == end_) return error("a string does not end");
      const char escaped = *at_++;
      switch (escaped) {
        case 'n':
          out->push_back('\n');
          break;
        case 't':
          out->push_back('\t');
          break;
        case 'r':
          out->push_back('\r');
          break;
        case 'b':
          out->push_back('\b');
          break;
        case 'f':
          out->push_back('\f');
          break;
        case 'u': {
          // Names that matter are ASCII; others only have to be told apart.
          uint32_t code = 0;
          if (end_ - at_ < 4) return error("a string does not end");
          const auto [stop, problem] = std::from_chars(at_, at_ + 4, code, 16);
          if (problem != std::errc() || stop != at_ + 4) return error("a bad escape");
          at_ += 4;
          if (code < 0x80) {
            out->push_back(static_cast<char>(code));
          } else {
            *out += "\\u";
            out->append(at_ - 4, 4);
          }
          break;
        }
        case '"':
        case '\\':
        case '/':
          out->push_back(escaped);
          break;
        default:
          return error("a bad escape");
      }
    }
  }

  Status number(Value* out) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (word("NaN")) {
      out->held = std::numeric_limits<double>::quiet_NaN();
    } else if (word("Infinity")) {
      out->held = kInfinity;
    } else if (word("-Infinity")) {
      out->held = -kInfinity;
    } else {
      const char* const start = at_;
      if (*at_ != '-' && (*at_ < '0' || *at_ > '9')) return error("an unknown character");
      double found = 0;
      const auto [stop, problem] = read_decimal(at_, end_, &found);
      if (problem == std::errc::invalid_argument) return error("a bad number");
      if (problem == std::errc::result_out_of_range) found = std::strtod(std::string(at_, stop).c_str(), nullptr);
      at_ = stop;
      out->held = towards_float(found, start, stop);
    }
    return {};
  }

  // A decimal may round to a double that lies half way between two floats, and then no longer knows on which side the
  // decimal was.
  static double towards_float(double found, const char* start, const char* stop) {
    const float nearest = static_cast<float>(found);
    const double rounded = nearest;
    if (rounded == found || !std::isfinite(rounded)) return found;
    const float other = std::nextafterf(
        nearest, found > rounded ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity());
    if (found - rounded != static_cast<double>(other) - found) return found;
    float direct = 0;
    const auto [end, problem] = read_decimal(start, stop, &direct);
    if (problem != std::errc() || end != stop || direct == nearest) return found;
    return std::nextafter(found, static_cast<double>(direct));
  }

  const char* begin_;
  const char* at_;
  const char* end_;
};

// ---- UBJSON -------------------------------------------------------------------------------------------------

class Ubjson {
 public:
  Ubjson(const uint8_t* data, size_t size) : begin_(data), at_(data), end_(data + size) {}

  Status parse(Value* out) {
    uint8_t type = 0;
    if (!marker(&type)) return error("cut off");
    if (Status status = value(type, out, 0); !status.ok()) return status;
    return at_ == end_ ? Status() : error("something follows the document");
  }

 private:
  Status error(const char* what) const {
    return fail(Code::kModel, "UBJSON: %s at byte %zu", what, static_cast<size_t>(at_ - begin_));
  }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

  // The next type marker; no-ops are skipped.
  bool marker(uint8_t* type) {
    while (at_ != end_ && *at_ == 'N') ++at_;
    if (at_ == end_) return false;
    *type = *at_++;
    return true;
  }
  static size_t number_bytes(uint8_t type) {
    switch (type) {
      case 'i':
      case 'U':
        return 1;
      case 'I':
        return 2;
      case 'l':
      case 'd':
        return 4;
      case 'L':
      case 'D':
        return 8;
      default:
        return 0;
    }
  }
  // Big-endian; the bytes are there.
  double take_number(uint8_t type) {
    const size_t n = number_bytes(type);
    uint64_t bits = 0;
    for (size_t i = 0; i < n; ++i) bits = bits << 8 | *at_++;
    switch (type) {
      case 'i':
        return static_cast<int8_t>(bits);
      case 'U':
        return static_cast<double>(bits);
      case 'I':
        return static_cast<int16_t>(bits);
      case 'l':
        return static_cast<int32_t>(static_cast<uint32_t>(bits));
      case 'L':
        return static_cast<double>(static_cast<int64_t>(bits));
      case 'd': {
        const uint32_t low = static_cast<uint32_t>(bits);
        float v = 0;
        std::memcpy(&v, &low, sizeof v);
        return v;
      }
      default: {
        double v = 0;
        std::memcpy(&v, &bits, sizeof v);
        return v;
      }
    }
  }
  Status length(size_t* out) {
    uint8_t type = 0;
    if (!marker(&type)) return error("cut off");
    const size_t n = number_bytes(type);
    if (n == 0 || type == 'd' || type == 'D') return error("a length is no integer");
    if (left() < n) return error("cut off");
    const double found = take_number(type);
    if (!(found >= 0) || found > 9e15) return error("a bad length");
    *out = static_cast<size_t>(found);
    return {};
  }
  Status text(std::string* out) {
    size_t n = 0;
    if (Status status = length(&n); !status.ok()) return status;
    if (n > left()) return error("a string does not end");
    out->assign(reinterpret_cast<const char*>(at_), n);
    at_ += n;
    return {};
  }

  Status value(uint8_t type, Value* out, int depth) {
    if (depth > kMaxNesting) return error("nested too deeply");
    if (const size_t n = number_bytes(type); n > 0) {
      if (left() < n) return error("cut off");
      out->held = take_number(type);
      return {};
    }
    switch (type) {
      case 'Z':
        out->held = std::monostate();
        return {};
      case 'T':
        out->held = true;
        return {};
      case 'F':
        out->held = false;
        return {};
      case 'C':
        if (left() < 1) return error("cut off");
        out->held = std::string(1, static_cast<char>(*at_++));
        return {};
      case 'S': {
        std::string made;
        Status status = text(&made);
        if (status.ok()) out->held = std::move(made);
        return status;
      }
      case '[':
        return array(out, depth);
      case '{':
        return object(out, depth);
      default:
        return error("an unknown type");
    }
  }

  // Optional "$ type" and "# count" after an opening bracket.
  Status head(uint8_t* type, size_t* count, bool* counted) {
    *type = 0;
    *counted = false;
    if (at_ != end_ && *at_ == '$') {
      ++at_;
      if (at_ == end_) return error("cut off");
      *type = *at_++;
      if (at_ == end_ || *at_ != '#') return error("a typed container without a count");
    }
    if (at_ != end_ && *at_ == '#') {
      ++at_;
      *counted = true;
      if (Status status = length(count); !status.ok()) return status;
    }
    return {};
  }

  Status array(Value* out, int depth) {
    uint8_t type = 0;
    size_t count = 0;
    bool counted = false;
    if (Status status = head(&type, &count, &counted); !status.ok()) return status;
    if (const size_t n = number_bytes(type); n > 0) {
      if (count > left() / n) return error("an array is longer than the document");
      if (count == 0) {
        out->held = Items();
        return {};
      }
      Numbers numbers(count);
      for (double& number : numbers) number = take_number(type);
      out->held = std::move(numbers);
      return {};
    }
    // Elements of other types take at least a byte each, but for constants, of which a typed array could claim any
    // number for free.
    if (counted && (count > left() || type == 'Z' || type == 'T' || type == 'F')) {
      return error("an array is longer than the document");
    }
    ArrayBuilder builder;
    for (size_t i = 0; !counted || i < count; ++i) {
      uint8_t own = type;
      if (own == 0 && !marker(&own)) return error("an array does not end");
      if (!counted && own == ']') break;
      Value item;
      if (Status status = value(own, &item, depth + 1); !status.ok()) return status;
      builder.add(std::move(item));
    }
    *out = builder.finish();
    return {};
  }

  Status object(Value* out, int depth) {
    uint8_t type = 0;
    size_t count = 0;
    bool counted = false;
    if (Status status = head(&type, &count, &counted); !status.ok()) return status;
    if (counted && count > left()) return error("an object is longer than the document");
    Members members;
    for (size_t i = 0; !counted || i < count; ++i) {
      while (at_ != end_ && *at_ == 'N') ++at_;
      if (at_ == end_) return error("an object does not end");
      if (!counted && *at_ == '}') {
        ++at_;
        break;
      }
      members.emplace_back();
      if (Status status = text(&members.back().first); !status.ok()) return status;
      uint8_t own = type;
      if (own == 0 && !marker(&own)) return error("cut off");
      if (Status status = value(own, &members.back().second, depth + 1); !status.ok()) return status;
    }
    out->held = std::move(members);
    return {};
  }

  const uint8_t* begin_;
  const uint8_t* at_;
  const uint8_t* end_;
};

}  // namespace

Status parse_json(const uint8_t* data, size_t size, Value* out) { return Json(data, size).parse(out); }

Status parse_ubjson(const uint8_t* data, size_t size, Value* out) { return Ubjson(data, size).parse(out); }

}  // namespace waggle::trees
