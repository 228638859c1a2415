// half over the emulator, by the compiler's _Float16.
#pragma once

#include <cstring>

struct __half {
  _Float16 value;
};
using half = __half;
inline __half __float2half_rn(float x) { return {static_cast<_Float16>(x)}; }
inline float __half2float(__half x) { return static_cast<float>(x.value); }
inline unsigned short __half_as_ushort(__half x) {
  unsigned short bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline __half __ushort_as_half(unsigned short bits) {
  __half x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
