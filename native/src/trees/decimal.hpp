// Reading decimals with the nearest float or double, whatever locale the process is in.
#pragma once

#include <charconv>

#if !defined(__cpp_lib_to_chars)
#include <locale.h>
#if __has_include(<xlocale.h>)
#include <xlocale.h>
#endif

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <string>
#include <type_traits>
#endif

namespace waggle::trees {

/// As std::from_chars, which older standard libraries (that of LLVM, and so of macOS) have for whole numbers only.
template <typename T>
std::from_chars_result read_decimal(const char* first, const char* last, T* out) {
#if defined(__cpp_lib_to_chars)
  return std::from_chars(first, last, *out);
#else
  if constexpr (std::is_integral_v<T>) {
    return std::from_chars(first, last, *out);
  } else {
    // strtod reads more than is asked for here: spaces, a plus, hexadecimal digits. The rest it may see.
    if (first == last || !(*first == '-' || *first == '.' || (*first >= '0' && *first <= '9') || *first == 'i' ||
                           *first == 'I' || *first == 'n' || *first == 'N')) {
      return {first, std::errc::invalid_argument};
    }
    const char* end = first + 1;
    while (end != last && *end != 'x' && *end != 'X' && *end != ' ' && *end != ',' && *end != '(') ++end;
    const std::string text(first, end);
    static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
    char* stop = nullptr;
    errno = 0;
    T found = 0;
    if constexpr (std::is_same_v<T, float>) {
      found = strtof_l(text.c_str(), &stop, plain);
    } else {
      found = strtod_l(text.c_str(), &stop, plain);
    }
    const char* const at = first + (stop - text.c_str());
    if (at == first) return {first, std::errc::invalid_argument};
    // A subnormal number is a number.
    if (errno == ERANGE && (found == 0 || std::isinf(found))) return {at, std::errc::result_out_of_range};
    *out = found;
    return {at, std::errc()};
  }
#endif
}

}  // namespace waggle::trees
