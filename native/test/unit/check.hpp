// Just enough of a test framework: named functions, an expectation that says what it saw, a count at the end.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace waggle::unit {

struct Test {
  const char* title;
  std::function<void()> body;
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* title, std::function<void()> body) { tests().push_back({title, std::move(body)}); }
};

inline void expect(bool condition, const char* text, const char* file, int line) {
  if (condition) return;
  ++failures();
  std::printf("  %s:%d: expected %s\n", file, line, text);
}

}  // namespace waggle::unit

#define WAGGLE_JOIN_(a, b) a##b
#define WAGGLE_JOIN(a, b) WAGGLE_JOIN_(a, b)
#define TEST(title)                                                                                            \
  static void WAGGLE_JOIN(test_, __LINE__)();                                                                  \
  static const ::waggle::unit::Register WAGGLE_JOIN(register_, __LINE__)(title, WAGGLE_JOIN(test_, __LINE__)); \
  static void WAGGLE_JOIN(test_, __LINE__)()
#define EXPECT(condition) ::waggle::unit::expect((condition), #condition, __FILE__, __LINE__)
