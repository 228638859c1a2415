// One operation on one shape: how to make its data, call it through the public API, and judge the answer by
// plain double arithmetic. To add an operation: write its cases in one file, add them in cases().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "waggle/run_context.hpp"
#include "waggle/status.hpp"

namespace waggle::conformance {

class Case {
 public:
  virtual ~Case() = default;

  /// "topk/ip n=1000 d=37 …": operation, variant, shape, seed.
  virtual std::string name() const = 0;
  virtual void prepare() = 0;
  virtual Status call(const RunContext& context) = 0;
  /// Empty when the answer is right, else what is wrong with it.
  virtual std::string verify() = 0;

  /// For the bench: multiply-adds and bytes that must be read, 0 = this case is too small to time.
  virtual double multiply_adds() const { return 0; }
  virtual double bytes() const { return 0; }
};

using Cases = std::vector<std::unique_ptr<Case>>;

void add_topk_cases(Cases& cases, bool for_bench);
void add_encoded_cases(Cases& cases, bool for_bench);
void add_device_topk_cases(Cases& cases, bool for_bench);
void add_score_rank_cases(Cases& cases, bool for_bench);
void add_glm_fit_cases(Cases& cases, bool for_bench);
void add_ivf_cases(Cases& cases, bool for_bench);
void add_trees_cases(Cases& cases, bool for_bench);
void add_trees_shap_cases(Cases& cases, bool for_bench);
void add_rank_batch_cases(Cases& cases, bool for_bench);
void add_trees_fit_cases(Cases& cases, bool for_bench);
void add_sparse_cases(Cases& cases, bool for_bench);
void add_effects_cases(Cases& cases, bool for_bench);

inline Cases all_cases(bool for_bench) {
  Cases cases;
  add_topk_cases(cases, for_bench);
  add_encoded_cases(cases, for_bench);
  add_device_topk_cases(cases, for_bench);
  add_score_rank_cases(cases, for_bench);
  add_glm_fit_cases(cases, for_bench);
  add_ivf_cases(cases, for_bench);
  add_trees_cases(cases, for_bench);
  add_trees_shap_cases(cases, for_bench);
  add_rank_batch_cases(cases, for_bench);
  add_trees_fit_cases(cases, for_bench);
  add_sparse_cases(cases, for_bench);
  add_effects_cases(cases, for_bench);
  return cases;
}

/// splitmix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

 private:
  uint64_t state_;
};

}  // namespace waggle::conformance
