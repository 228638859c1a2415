// The weights of a field-aware factorisation machine and its file.
#pragma once

#include <memory>

#include "cpu/ffm.hpp"
#include "src/sparse/zeroed.hpp"
#include "waggle/ffm.hpp"
#include "waggle/file.hpp"

namespace waggle {

Status check_ffm_options(const FfmOptions& options);

struct Ffm::State {
  FfmOptions options;
  int64_t epochs = 0;
  Zeroed<float> blocks;
  Zeroed<cpu::FfmLinear> linear;
  double intercept[2] = {0, 1};

  /// Random weights; throws std::bad_alloc.
  explicit State(const FfmOptions& o);
  /// Zeros, for a reader to fill in.
  static std::unique_ptr<State> blank(const FfmOptions& o);
  std::unique_ptr<State> copy() const;
  void take(State& other);

  cpu::FfmWeights weights();
  bool finite() const;

  static Status read(const MappedFile& file, std::unique_ptr<State>* out);
  template <typename To>
  Status write(To&& to) const;

 private:
  struct Blank {};
  State(const FfmOptions& o, Blank);
};

}  // namespace waggle
