#include "waggle/status.hpp"

#include <cstdarg>
#include <cstdio>

namespace waggle {

Status fail(Code code, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return Status(code, text);
}

}  // namespace waggle
