// Tree ensembles: one in-memory model for every format that is read, and what is made of it for prediction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "waggle/status.hpp"

namespace waggle::trees {

/// What a split asks of its feature's value x. True goes left. NaN is not asked: see Missing.
enum class Decision : uint8_t {
  kLess = 0,       // x < threshold
  kLessEqual = 1,  // x ≤ threshold
  kEqual = 2,      // x = threshold
  kMember = 3,     // x equals one of the node's member values exactly
  /// The integer part of x is in the node's bitset; a negative x, and one beyond the bitset, is not.
  kCategory = 4,
  /// The same with x rounded towards zero first: −0.5 is category 0.
  kCategoryTruncated = 5,
};
constexpr int kDecisions = 6;

/// Which values count as missing. A missing value goes where `default_left` says.
enum class Missing : uint8_t {
  kNan = 0,
  kZeroOrNan = 1,  // |x| ≤ 1e-35 or NaN
  kNanIsZero = 2,  // nothing is missing: NaN is asked as if it were 0
};
constexpr int kMissings = 3;

constexpr float kZeroThreshold = 1e-35f;

struct Node {
  /// Of a split ≥ 0; −1 marks a leaf.
  int32_t feature = -1;
  /// Splits only: nodes of the same tree, counted from the tree's first.
  int32_t left = -1;
  int32_t right = -1;
  float threshold = 0;
  Decision decision = Decision::kLess;
  Missing missing = Missing::kNan;
  bool default_left = false;
  /// kMember: `count` values from Ensemble::members[first]. Categories: `count` words from Ensemble::categories[first].
  /// Leaf: its values start at Ensemble::values[first]; their number is the tree's.
  uint32_t first = 0;
  uint32_t count = 0;

  bool is_leaf() const { return feature < 0; }
};

struct Tree {
  /// Nodes [first_node, first_node + n_nodes) of Ensemble::nodes; the first one is the root.
  uint32_t first_node = 0;
  uint32_t n_nodes = 0;
  /// Each leaf holds `n_values` values, for targets first_target, first_target + 1, …
  int32_t first_target = 0;
  int32_t n_values = 1;
};

enum class Transform : int32_t {
  kNone = 0,
  kLogistic = 1,  // 1 / (1 + e^(−p·s)), each target for itself; p is Ensemble::transform_parameter
  kSoftmax = 2,
  kSoftmaxZero = 3,  // softmax, but targets with score 0 (|s| ≤ 1e-7) stay 0
  kProbit = 4,       // √2 · erf⁻¹(2s − 1)
  kExp = 5,
  kHinge = 6,         // s > 0 ? 1 : 0
  kSignedSquare = 7,  // sign(s) · s²
  kLog1pExp = 8,      // log(1 + e^s)
  /// One summed score s becomes two outputs: (1 − s, s), (σ(−s), σ(s)), (−s, s).
  kComplement = 9,
  kTwoLogistic = 10,
  kNegate = 11,
};
constexpr int kTransforms = 12;

enum class Kind : int32_t { kRegression = 0, kClassification = 1, kRanking = 2 };

/// score[t] = base[t] + scale · Σ leaf values of target t, in the order of the trees, in double; then the transform.
struct Ensemble {
  int32_t n_features = 0;
  /// Scores that are summed. `n_outputs()` come out: one more where the transform makes two of one.
  int32_t n_targets = 1;
  Kind kind = Kind::kRegression;
  Transform transform = Transform::kNone;
  double transform_parameter = 1;
  double scale = 1;
  std::vector<double> base;  // [n_targets]
  std::vector<Tree> trees;
  std::vector<Node> nodes;
  std::vector<float> values;
  std::vector<float> members;
  std::vector<uint32_t> categories;
  /// [nodes] how much of the training data met each node (rows, or their hessians); empty = not known.
  std::vector<float> covers;

  int32_t n_outputs() const;
  size_t bytes() const;
};

constexpr int32_t kMaxFeatures = 1 << 24;
constexpr int32_t kMaxTargets = 1 << 16;
constexpr int64_t kMaxNodes = int64_t{1} << 28;
constexpr int64_t kMaxValues = int64_t{1} << 29;
/// Longer chains of splits are refused: no trainer makes them.
constexpr int32_t kMaxDepth = 4096;

/// Every index in range, every tree a tree (no cycle, nothing shared, nothing unreachable), every number finite
/// (thresholds may be infinite), sizes within the limits above. kModel names the first thing wrong. O(nodes).
Status validate(const Ensemble& ensemble);

/// The score of one row by plain recursion, before base, scale and transform: sums[n_targets] += …. For tests and
/// trainers; prediction goes through trees_predict().
void sum_leaves(const Ensemble& ensemble, const float* row, double* sums);

enum class Format : int32_t { kAuto = 0, kWaggle = 1, kOnnx = 2, kXgboostJson = 3, kXgboostUbj = 4, kLightgbm = 5 };

/// Reads a model; kModel says what is malformed or which field is not supported. Memory stays within a small multiple
/// of `size`. The result is validated.
Status read(const uint8_t* data, size_t size, Format format, Ensemble* out);

/// What `read` would take the bytes for; kAuto when they look like nothing known.
Format detect(const uint8_t* data, size_t size);

/// Our own format: a container (waggle/file.hpp) of kind TREES, versioned and checksummed. The ensemble must be valid.
Status write(const Ensemble& ensemble, std::vector<uint8_t>* out);

struct Layout;
}  // namespace waggle::trees

namespace waggle {
class DeviceForest;
}

namespace waggle::trees {

/// A validated ensemble with what prediction wants, immutable and safe to share between threads.
class Model {
 public:
  static Status create(Ensemble ensemble, std::shared_ptr<const Model>* out);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Ensemble& ensemble() const { return ensemble_; }
  const Layout& layout() const { return *layout_; }
  /// Its copy on the accelerator, made at the first use; safe from several threads.
  DeviceForest& device() const { return *device_; }
  /// Heap memory held.
  size_t bytes() const;

 private:
  Model();
  Ensemble ensemble_;
  std::unique_ptr<Layout> layout_;
  std::unique_ptr<DeviceForest> device_;
};

}  // namespace waggle::trees
