// What an operation answers: a code and one sentence. No exception crosses a public function of the core.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace waggle {

/// Order is shared with `addon/error.cpp`, which turns each into a `WAGGLE_NATIVE_*` string.
enum class Code : int32_t {
  kOk = 0,
  kInvalidArgument,
  kShape,
  kDtype,
  kDetached,
  kNotFinite,
  kLeased,
  kBusy,
  kTooLarge,
  kSingular,
  kOutOfMemory,
  kBackend,
  kCancelled,
  kInternal,
  kClosed,
  kFile,
  kModel,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string text) : code_(code), text_(std::move(text)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& text() const { return text_; }

 private:
  Code code_ = Code::kOk;
  std::string text_;
};

/// printf-style constructor of a failed status.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
Status
fail(Code code, const char* format, ...);

/// Runs `body` (returning Status) and turns any exception into a Status.
template <typename Body>
Status guarded(Body&& body) noexcept;

}  // namespace waggle

#include <exception>
#include <new>

namespace waggle {

template <typename Body>
Status guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Status(Code::kOutOfMemory, "not enough memory");
  } catch (const std::exception& error) {
    try {
      return Status(Code::kInternal, error.what());
    } catch (...) {
      return Status(Code::kInternal, {});
    }
  } catch (...) {
    return Status(Code::kInternal, "unknown exception");
  }
}

}  // namespace waggle
