// ONNX files that hold one tree ensemble: TreeEnsembleRegressor and TreeEnsembleClassifier of ai.onnx.ml 1 to 3,
// TreeEnsemble of ai.onnx.ml 5. Of protobuf only what these need.
//
// Around the ensemble a graph may have Cast and Identity, and ZipMap behind it; anything else computes something that a
// tree ensemble does not, and is refused by name.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "src/trees/readers.hpp"

namespace waggle::trees {

namespace {

constexpr const char* kFormat = "ONNX";

// ---- protobuf -----------------------------------------------------------------------------------------------

using Bytes = std::string_view;

struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;   // 0 varint, 1 fixed64, 2 bytes, 5 fixed32
  uint64_t value = 0;  // of varint and fixed
  Bytes bytes;
};

class Message {
 public:
  explicit Message(Bytes bytes) : rest_(bytes) {}

  /// False at the end and at a fault; `broken()` tells which.
  bool next(Field* field) {
    if (rest_.empty()) return false;
    uint64_t key = 0;
    if (!varint(&key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) return fault();
    field->number = static_cast<uint32_t>(key >> 3);
    field->wire = static_cast<uint32_t>(key & 7);
    switch (field->wire) {
      case 0:
        return varint(&field->value) || fault();
      case 1:
        return fixed(8, &field->value) || fault();
      case 5:
        return fixed(4, &field->value) || fault();
      case 2: {
        uint64_t n = 0;
        if (!varint(&n) || n > rest_.size()) return fault();
        field->bytes = rest_.substr(0, n);
        rest_.remove_prefix(n);
        return true;
      }
      default:
        return fault();
    }
  }
  bool broken() const { return broken_; }

  static bool take_varint(Bytes* from, uint64_t* out) {
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (from->empty()) return false;
      const uint8_t byte = static_cast<uint8_t>(from->front());
      from->remove_prefix(1);
      *out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }

 private:
  bool fault() {
    broken_ = true;
    return false;
  }
  bool varint(uint64_t* out) { return take_varint(&rest_, out); }
  bool fixed(size_t n, uint64_t* out) {
    if (rest_.size() < n) return false;
    *out = 0;
    for (size_t i = 0; i < n; ++i) *out |= static_cast<uint64_t>(static_cast<uint8_t>(rest_[i])) << (8 * i);
    rest_.remove_prefix(n);
    return true;
  }
  Bytes rest_;
  bool broken_ = false;
};

Status broken(const char* where) { return fail(Code::kModel, "ONNX: the protobuf is malformed in %s", where); }

float float_of(uint64_t bits) {
  const uint32_t low = static_cast<uint32_t>(bits);
  float v = 0;
  std::memcpy(&v, &low, sizeof v);
  return v;
}

double double_of(uint64_t bits) {
  double v = 0;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

uint64_t little_endian(Bytes bytes, size_t at, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; ++i) v |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  return v;
}

// A repeated scalar comes packed (one field of bytes) or not (one field each).
bool add_floats(const Field& field, std::vector<double>* out) {
  if (field.wire == 5) {
    out->push_back(static_cast<double>(float_of(field.value)));
    return true;
  }
  if (field.wire != 2 || field.bytes.size() % 4 != 0) return false;
  for (size_t i = 0; i < field.bytes.size(); i += 4) {
    out->push_back(static_cast<double>(float_of(little_endian(field.bytes, i, 4))));
  }
  return true;
}

bool add_integers(const Field& field, std::vector<int64_t>* out) {
  if (field.wire == 0) {
    out->push_back(static_cast<int64_t>(field.value));
    return true;
  }
  if (field.wire != 2) return false;
  Bytes rest = field.bytes;
  while (!rest.empty()) {
    uint64_t v = 0;
    if (!Message::take_varint(&rest, &v)) return false;
    out->push_back(static_cast<int64_t>(v));
  }
  return true;
}

// ---- what of ONNX is needed ---------------------------------------------------------------------------------

struct Attribute {
  std::string name;
  int64_t i = 0;
  std::string s;
  std::vector<double> floats;  // floats, or a tensor's values
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
};

// Float, double, and integer tensors of one byte; others are refused by name.
Status read_tensor(Bytes bytes, const std::string& name, std::vector<double>* out) {
  Message message(bytes);
  Field f;
  int64_t type = 0;
  bool external = false;
  Bytes raw;
  bool has_raw = false;
  while (message.next(&f)) {
    if (f.number == 2 && f.wire == 0) type = static_cast<int64_t>(f.value);
    if (f.number == 4 && !add_floats(f, out)) return broken("a tensor");
    if (f.number == 5) {
      std::vector<int64_t> ints;
      if (!add_integers(f, &ints)) return broken("a tensor");
      for (const int64_t v : ints) out->push_back(static_cast<double>(v));
    }
    if (f.number == 9 && f.wire == 2) {
      raw = f.bytes;
      has_raw = true;
    }
    if (f.number == 10) {
      if (f.wire == 1) {
        out->push_back(double_of(f.value));
      } else if (f.wire == 2 && f.bytes.size() % 8 == 0) {
        for (size_t i = 0; i < f.bytes.size(); i += 8) out->push_back(double_of(little_endian(f.bytes, i, 8)));
      } else {
        return broken("a tensor");
      }
    }
    if (f.number == 13 || (f.number == 14 && f.value != 0)) external = true;
  }
  if (message.broken()) return broken("a tensor");
  if (external)
    return fail(Code::kModel, "ONNX: %s keeps its data in another file, which is not supported", name.c_str());
  size_t width = 0;
  if (type == 1) width = 4;   // FLOAT
  if (type == 11) width = 8;  // DOUBLE
  if (type == 2) width = 1;   // UINT8
  if (width == 0) {
    return fail(Code::kModel, "ONNX: %s has element type %lld, which is not supported", name.c_str(),
                static_cast<long long>(type));
  }
  if (!has_raw) return {};
  if (!out->empty() || raw.size() % width != 0) return broken("a tensor");
  for (size_t i = 0; i < raw.size(); i += width) {
    const uint64_t bits = little_endian(raw, i, width);
    out->push_back(width == 4   ? static_cast<double>(float_of(bits))
                   : width == 8 ? double_of(bits)
                                : static_cast<double>(bits));
  }
  return {};
}

Status read_attribute(Bytes bytes, Attribute* out) {
  Message message(bytes);
  Field f;
  Bytes tensor;
  bool has_tensor = false;
  while (message.next(&f)) {
    bool good = true;
    if (f.number == 1 && f.wire == 2) out->name = std::string(f.bytes.substr(0, 80));
    if (f.number == 3) out->i = static_cast<int64_t>(f.value);
    if (f.number == 4 && f.wire == 2) out->s = std::string(f.bytes.substr(0, 80));
    if (f.number == 5 && f.wire == 2) {
      tensor = f.bytes;
      has_tensor = true;
    }
    if (f.number == 7) good = add_floats(f, &out->floats);
    if (f.number == 8) good = add_integers(f, &out->ints);
    if (f.number == 9 && f.wire == 2) out->strings.emplace_back(f.bytes.substr(0, 80));
    if (!good) return broken("an attribute");
  }
  if (message.broken()) return broken("an attribute");
  return has_tensor ? read_tensor(tensor, out->name, &out->floats) : Status();
}

struct GraphNode {
  std::string type;
  std::string domain;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  Bytes bytes;
};

Status read_node(Bytes bytes, GraphNode* out) {
  out->bytes = bytes;
  Message message(bytes);
  Field f;
  while (message.next(&f)) {
    if (f.wire != 2) continue;
    if (f.number == 1) out->inputs.emplace_back(f.bytes);
    if (f.number == 2) out->outputs.emplace_back(f.bytes);
    if (f.number == 4) out->type = std::string(f.bytes.substr(0, 80));
    if (f.number == 7) out->domain = std::string(f.bytes.substr(0, 80));
  }
  return message.broken() ? broken("a node") : Status();
}

bool only_field(Bytes bytes, uint32_t number, Bytes* out) {
  Message message(bytes);
  Field f;
  bool found = false;
  while (message.next(&f)) {
    if (f.number == number && f.wire == 2) {
      *out = f.bytes;
      found = true;
    }
  }
  return found && !message.broken();
}

// The number of columns of an input, −1 where it is left open.
int64_t columns_of(Bytes value_info) {
  Bytes type, tensor, shape;
  if (!only_field(value_info, 2, &type) || !only_field(type, 1, &tensor) || !only_field(tensor, 2, &shape)) return -1;
  Message dims(shape);
  Field dim;
  int position = 0;
  int64_t columns = -1;
  while (dims.next(&dim)) {
    if (dim.number != 1 || dim.wire != 2) continue;
    if (++position == 2) {
      Message value(dim.bytes);
      Field v;
      while (value.next(&v)) {
        if (v.number == 1 && v.wire == 0) columns = static_cast<int64_t>(v.value);
      }
    }
  }
  return columns;
}

class Attributes {
 public:
  Status read(Bytes node) {
    Message message(node);
    Field f;
    while (message.next(&f)) {
      if (f.number != 5 || f.wire != 2) continue;
      Attribute a;
      if (Status status = read_attribute(f.bytes, &a); !status.ok()) return status;
      all_[a.name] = std::move(a);
    }
    return message.broken() ? broken("a node") : Status();
  }
  const Attribute* find(const std::string& name) const {
    const auto found = all_.find(name);
    return found == all_.end() ? nullptr : &found->second;
  }
  const std::vector<int64_t>& ints(const std::string& name) const {
    static const std::vector<int64_t> none;
    const Attribute* a = find(name);
    return a == nullptr ? none : a->ints;
  }
  /// The attribute, or its twin in double precision.
  const std::vector<double>& floats(const std::string& name) const {
    static const std::vector<double> none;
    const Attribute* a = find(name);
    if (a == nullptr || a->floats.empty()) {
      const Attribute* twin = find(name + "_as_tensor");
      if (twin != nullptr) a = twin;
    }
    return a == nullptr ? none : a->floats;
  }
  /// The names of all attributes must be among these: one that is not known may change what the model means.
  Status only(std::initializer_list<const char*> names) const {
    for (const auto& attribute : all_) {
      const std::string& name = attribute.first;
      if (std::none_of(names.begin(), names.end(), [&](const char* known) { return name == known; })) {
        return fail(Code::kModel, "ONNX: the attribute %s is not supported", name.c_str());
      }
    }
    return {};
  }

 private:
  std::map<std::string, Attribute> all_;
};

// ---- splits -------------------------------------------------------------------------------------------------

enum class Mode { kLeq, kLt, kGte, kGt, kEq, kNeq, kMember, kLeaf };

bool mode_of(const std::string& text, Mode* out) {
  const std::pair<const char*, Mode> modes[] = {
      {"BRANCH_LEQ", Mode::kLeq}, {"BRANCH_LT", Mode::kLt},   {"BRANCH_GTE", Mode::kGte}, {"BRANCH_GT", Mode::kGt},
      {"BRANCH_EQ", Mode::kEq},   {"BRANCH_NEQ", Mode::kNeq}, {"LEAF", Mode::kLeaf}};
  for (const auto& [name, mode] : modes) {
    if (text == name) {
      *out = mode;
      return true;
    }
  }
  return false;
}

// True goes left; a question that is asked the other way round swaps the children. NaN answers no to every comparison
// but ≠, unless missing values track true.
Status set_split(Mode mode, double threshold, int64_t yes, int64_t no, bool missing_true, Node* node) {
  const bool opposite = mode == Mode::kGte || mode == Mode::kGt || mode == Mode::kNeq;
  const bool nan_true = missing_true || mode == Mode::kNeq;
  node->left = static_cast<int32_t>(opposite ? no : yes);
  node->right = static_cast<int32_t>(opposite ? yes : no);
  node->default_left = nan_true != opposite;
  if (mode == Mode::kMember) {
    node->decision = Decision::kMember;
    return {};
  }
  if (std::isnan(threshold)) return fail(Code::kModel, "ONNX: a split value is NaN");
  switch (mode) {
    case Mode::kLeq:
    case Mode::kGt:
      node->decision = Decision::kLessEqual;
      node->threshold = floor_float(threshold);
      break;
    case Mode::kLt:
    case Mode::kGte:
      node->decision = Decision::kLess;
      node->threshold = ceil_float(threshold);
      break;
    default: {
      node->threshold = static_cast<float>(threshold);
      node->decision = Decision::kEqual;
      if (static_cast<double>(node->threshold) != threshold) {
        // No float equals it: a set without members.
        node->decision = Decision::kMember;
      }
    }
  }
  return {};
}

bool set_transform(const std::string& name, Transform* out) {
  const std::pair<const char*, Transform> names[] = {{"", Transform::kNone},
                                                     {"NONE", Transform::kNone},
                                                     {"LOGISTIC", Transform::kLogistic},
                                                     {"SOFTMAX", Transform::kSoftmax},
                                                     {"SOFTMAX_ZERO", Transform::kSoftmaxZero},
                                                     {"PROBIT", Transform::kProbit}};
  for (const auto& [text, transform] : names) {
    if (name == text) {
      *out = transform;
      return true;
    }
  }
  return false;
}

// ---- leaves -------------------------------------------------------------------------------------------------

struct Weight {
  int64_t target;
  double value;
};

// The targets that a tree's leaves touch become its range; what a leaf says nothing of is 0.
class LeafValues {
 public:
  void span(int64_t target) {
    first_ = std::min(first_, target);
    last_ = std::max(last_, target);
  }
  void describe(Tree* tree) const {
    tree->first_target = last_ < first_ ? 0 : static_cast<int32_t>(first_);
    tree->n_values = last_ < first_ ? 1 : static_cast<int32_t>(last_ - first_ + 1);
  }
  Status add(const std::vector<Weight>& weights, const Tree& tree, size_t size, Ensemble* e, Node* node) const {
    // One number per target and leaf, though a hostile file may name few of many.
    if (e->values.size() + static_cast<size_t>(tree.n_values) > (size_t{1} << 22) + 16 * size ||
        e->values.size() + static_cast<size_t>(tree.n_values) > static_cast<size_t>(kMaxValues)) {
      return fail(Code::kModel, "ONNX: too many targets per leaf for a file of %zu bytes", size);
    }
    node->first = static_cast<uint32_t>(e->values.size());
    std::vector<double> sums(static_cast<size_t>(tree.n_values), 0.0);
    for (const Weight& w : weights) sums[static_cast<size_t>(w.target - tree.first_target)] += w.value;
    for (const double s : sums) e->values.push_back(static_cast<float>(s));
    return {};
  }

 private:
  int64_t first_ = std::numeric_limits<int64_t>::max();
  int64_t last_ = -1;
};

// ---- ai.onnx.ml 1 to 3 --------------------------------------------------------------------------------------

Status read_v1(const Attributes& a, bool classifier, size_t size, Ensemble* e) {
  if (Status status = a.only({"base_values",
                              "base_values_as_tensor",
                              "nodes_falsenodeids",
                              "nodes_featureids",
                              "nodes_hitrates",
                              "nodes_hitrates_as_tensor",
                              "nodes_missing_value_tracks_true",
                              "nodes_modes",
                              "nodes_nodeids",
                              "nodes_treeids",
                              "nodes_truenodeids",
                              "nodes_values",
                              "nodes_values_as_tensor",
                              "post_transform",
                              "aggregate_function",
                              "n_targets",
                              "target_ids",
                              "target_nodeids",
                              "target_treeids",
                              "target_weights",
                              "target_weights_as_tensor",
                              "class_ids",
                              "class_nodeids",
                              "class_treeids",
                              "class_weights",
                              "class_weights_as_tensor",
                              "classlabels_int64s",
                              "classlabels_strings"});
      !status.ok()) {
    return status;
  }
  const std::vector<int64_t>& tree_ids = a.ints("nodes_treeids");
  const std::vector<int64_t>& node_ids = a.ints("nodes_nodeids");
  const std::vector<int64_t>& features = a.ints("nodes_featureids");
  const std::vector<int64_t>& yes = a.ints("nodes_truenodeids");
  const std::vector<int64_t>& no = a.ints("nodes_falsenodeids");
  const std::vector<int64_t>& tracks = a.ints("nodes_missing_value_tracks_true");
  const std::vector<double>& values = a.floats("nodes_values");
  const Attribute* modes = a.find("nodes_modes");
  const size_t n = tree_ids.size();
  if (modes == nullptr || node_ids.size() != n || features.size() != n || yes.size() != n || no.size() != n ||
      values.size() != n || modes->strings.size() != n || (!tracks.empty() && tracks.size() != n)) {
    return fail(Code::kModel, "ONNX: the nodes_* attributes are missing or of different lengths");
  }
  const std::string prefix = classifier ? "class" : "target";
  const std::vector<int64_t>& leaf_trees = a.ints(prefix + "_treeids");
  const std::vector<int64_t>& leaf_nodes = a.ints(prefix + "_nodeids");
  const std::vector<int64_t>& leaf_targets = a.ints(prefix + "_ids");
  const std::vector<double>& leaf_weights = a.floats(prefix + "_weights");
  const size_t n_weights = leaf_trees.size();
  if (leaf_nodes.size() != n_weights || leaf_targets.size() != n_weights || leaf_weights.size() != n_weights) {
    return fail(Code::kModel, "ONNX: the %s_* attributes are missing or of different lengths", prefix.c_str());
  }
  int64_t n_targets = 0;
  if (classifier) {
    const Attribute* strings = a.find("classlabels_strings");
    n_targets = static_cast<int64_t>(
        std::max(a.ints("classlabels_int64s").size(), strings == nullptr ? size_t{0} : strings->strings.size()));
  } else if (const Attribute* count = a.find("n_targets")) {
    n_targets = count->i;
  }
  if (n_targets < 1 || n_targets > kMaxTargets) return fail(Code::kModel, "ONNX: n_targets or the class labels");

  // ONNX Runtime's rules for two classes of which the leaves only ever name one.
  const bool binary = classifier && n_targets == 2;
  int64_t only_class = -1;
  bool one_class = n_weights > 0;
  bool all_positive = true;
  for (size_t i = 0; i < n_weights; ++i) {
    if (leaf_targets[i] < 0 || leaf_targets[i] >= n_targets) {
      return fail(Code::kModel, "ONNX: %s_ids holds %lld", prefix.c_str(), static_cast<long long>(leaf_targets[i]));
    }
    if (only_class < 0) only_class = leaf_targets[i];
    one_class = one_class && leaf_targets[i] == only_class;
    all_positive = all_positive && leaf_weights[i] >= 0;
  }
  // (Class 1 alone is no such case: class 0 then scores 0.)
  const bool two_of_one = binary && one_class && only_class == 0;
  e->n_targets = two_of_one ? 1 : static_cast<int32_t>(n_targets);

  std::string transform_name;
  if (const Attribute* t = a.find("post_transform")) transform_name = t->s;
  if (!set_transform(transform_name, &e->transform)) {
    return fail(Code::kModel, "ONNX: post_transform %s is not supported", transform_name.c_str());
  }
  e->kind = classifier ? Kind::kClassification : Kind::kRegression;
  if (two_of_one) {
    if (e->transform == Transform::kProbit) {
      return fail(Code::kModel, "ONNX: post_transform PROBIT of a binary classifier is not supported");
    }
    // (Softmax over a single score is left out there as well.)
    if (e->transform == Transform::kLogistic) {
      e->transform = Transform::kTwoLogistic;
    } else {
      e->transform = all_positive ? Transform::kComplement : Transform::kNegate;
    }
  }
  const std::vector<double>& base = a.floats("base_values");
  if (base.empty()) {
    e->base.assign(static_cast<size_t>(e->n_targets), 0.0);
  } else if (binary && !(two_of_one && base.size() == 1)) {
    return fail(Code::kModel,
                "ONNX: base_values of a classifier with two classes is not supported: implementations disagree");
  } else if (two_of_one || base.size() == static_cast<size_t>(n_targets)) {
    e->base = base;
  } else {
    return fail(Code::kModel, "ONNX: base_values has %zu values for %lld targets", base.size(),
                static_cast<long long>(n_targets));
  }

  // Nodes by (tree, node); a tree's nodes need not be side by side, nor its identifiers small.
  std::map<std::pair<int64_t, int64_t>, int64_t> position;
  std::vector<int64_t> tree_order;
  std::unordered_map<int64_t, size_t> tree_position;
  for (size_t i = 0; i < n; ++i) {
    if (!position.emplace(std::make_pair(tree_ids[i], node_ids[i]), static_cast<int64_t>(i)).second) {
      return fail(Code::kModel, "ONNX: tree %lld has two nodes %lld", static_cast<long long>(tree_ids[i]),
                  static_cast<long long>(node_ids[i]));
    }
    if (tree_position.emplace(tree_ids[i], tree_order.size()).second) tree_order.push_back(tree_ids[i]);
  }
  std::vector<Mode> mode(n);
  std::vector<int64_t> child_yes(n, -1), child_no(n, -1);
  std::vector<uint8_t> is_child(n, 0);
  for (size_t i = 0; i < n; ++i) {
    if (!mode_of(modes->strings[i], &mode[i])) {
      return fail(Code::kModel, "ONNX: nodes_modes %s is not supported", modes->strings[i].c_str());
    }
    if (mode[i] == Mode::kLeaf) continue;
    const auto y = position.find({tree_ids[i], yes[i]});
    const auto f = position.find({tree_ids[i], no[i]});
    if (y == position.end() || f == position.end()) {
      return fail(Code::kModel, "ONNX: node %lld of tree %lld has a child that is missing",
                  static_cast<long long>(node_ids[i]), static_cast<long long>(tree_ids[i]));
    }
    child_yes[i] = y->second;
    child_no[i] = f->second;
    is_child[static_cast<size_t>(y->second)] = 1;
    is_child[static_cast<size_t>(f->second)] = 1;
  }
  std::vector<std::vector<Weight>> weights(n);
  std::vector<LeafValues> spans(tree_order.size());
  for (size_t i = 0; i < n_weights; ++i) {
    const auto leaf = position.find({leaf_trees[i], leaf_nodes[i]});
    if (leaf == position.end() || mode[static_cast<size_t>(leaf->second)] != Mode::kLeaf) {
      return fail(Code::kModel, "ONNX: a weight belongs to no leaf");
    }
    const int64_t target = two_of_one ? 0 : leaf_targets[i];
    weights[static_cast<size_t>(leaf->second)].push_back({target, leaf_weights[i]});
    spans[tree_position[leaf_trees[i]]].span(target);
  }
  std::vector<int64_t> roots(tree_order.size(), -1);
  for (size_t i = 0; i < n; ++i) {
    if (is_child[i] != 0) continue;
    int64_t& root = roots[tree_position[tree_ids[i]]];
    if (root >= 0) return fail(Code::kModel, "ONNX: tree %lld has two roots", static_cast<long long>(tree_ids[i]));
    root = static_cast<int64_t>(i);
  }
  std::vector<uint8_t> seen(n, 0);
  for (size_t t = 0; t < tree_order.size(); ++t) {
    Tree tree;
    spans[t].describe(&tree);
    const Status status = append_tree(
        e, tree, static_cast<int64_t>(n), roots[t], &seen, kFormat, [&](int64_t source, Node* node) -> Status {
          const size_t i = static_cast<size_t>(source);
          if (mode[i] == Mode::kLeaf) return spans[t].add(weights[i], tree, size, e, node);
          if (features[i] < 0 || features[i] >= kMaxFeatures) return fail(Code::kModel, "ONNX: nodes_featureids");
          node->feature = static_cast<int32_t>(features[i]);
          e->n_features = std::max(e->n_features, node->feature + 1);
          return set_split(mode[i], values[i], child_yes[i], child_no[i], !tracks.empty() && tracks[i] != 0, node);
        });
    if (!status.ok()) return status;
  }
  std::string aggregate = "SUM";
  if (const Attribute* f = a.find("aggregate_function")) aggregate = f->s;
  if (aggregate == "AVERAGE") {
    e->scale = 1.0 / static_cast<double>(std::max<size_t>(1, tree_order.size()));
  } else if (aggregate != "SUM") {
    return fail(Code::kModel, "ONNX: aggregate_function %s is not supported", aggregate.c_str());
  }
  // ONNX Runtime leaves a single regression score as it is, but for PROBIT.
  if (!classifier && e->n_targets == 1 && e->transform != Transform::kProbit) e->transform = Transform::kNone;
  return {};
}

// ---- ai.onnx.ml 5 -------------------------------------------------------------------------------------------

Status read_v5(const Attributes& a, size_t size, Ensemble* e) {
  if (Status status = a.only({"aggregate_function", "leaf_targetids", "leaf_weights", "membership_values", "n_targets",
                              "nodes_falseleafs", "nodes_falsenodeids", "nodes_featureids", "nodes_hitrates",
                              "nodes_missing_value_tracks_true", "nodes_modes", "nodes_splits", "nodes_trueleafs",
                              "nodes_truenodeids", "post_transform", "tree_roots"});
      !status.ok()) {
    return status;
  }
  const std::vector<int64_t>& features = a.ints("nodes_featureids");
  const std::vector<int64_t>& yes = a.ints("nodes_truenodeids");
  const std::vector<int64_t>& no = a.ints("nodes_falsenodeids");
  const std::vector<int64_t>& yes_leaf = a.ints("nodes_trueleafs");
  const std::vector<int64_t>& no_leaf = a.ints("nodes_falseleafs");
  const std::vector<int64_t>& tracks = a.ints("nodes_missing_value_tracks_true");
  const std::vector<double>& modes = a.floats("nodes_modes");
  const std::vector<double>& splits = a.floats("nodes_splits");
  const std::vector<int64_t>& roots = a.ints("tree_roots");
  const std::vector<int64_t>& targets = a.ints("leaf_targetids");
  const std::vector<double>& leaf_weights = a.floats("leaf_weights");
  const std::vector<double>& members = a.floats("membership_values");
  const size_t n = features.size();
  const size_t n_leaves = targets.size();
  if (n == 0 || yes.size() != n || no.size() != n || yes_leaf.size() != n || no_leaf.size() != n || modes.size() != n ||
      splits.size() != n || (!tracks.empty() && tracks.size() != n) || leaf_weights.size() != n_leaves ||
      roots.empty()) {
    return fail(Code::kModel, "ONNX: the attributes of TreeEnsemble are missing or of different lengths");
  }
  const Attribute* count = a.find("n_targets");
  const int64_t n_targets = count == nullptr ? 1 : count->i;
  if (n_targets < 1 || n_targets > kMaxTargets) return fail(Code::kModel, "ONNX: n_targets");
  e->n_targets = static_cast<int32_t>(n_targets);
  e->base.assign(static_cast<size_t>(n_targets), 0.0);
  const Attribute* transform = a.find("post_transform");
  constexpr Transform kByNumber[] = {Transform::kNone, Transform::kSoftmax, Transform::kLogistic,
                                     Transform::kSoftmaxZero, Transform::kProbit};
  if (transform != nullptr && (transform->i < 0 || transform->i > 4)) return fail(Code::kModel, "ONNX: post_transform");
  if (transform != nullptr && (transform->i == 1 || transform->i == 2)) {
    return fail(Code::kModel,
                "ONNX: post_transform %d of TreeEnsemble is not supported: the standard and ONNX Runtime disagree on "
                "whether it is softmax or logistic",
                static_cast<int>(transform->i));
  }
  e->transform = transform == nullptr ? Transform::kNone : kByNumber[transform->i];
  const Attribute* aggregate = a.find("aggregate_function");
  if (aggregate != nullptr && aggregate->i == 0) {
    e->scale = 1.0 / static_cast<double>(roots.size());
  } else if (aggregate != nullptr && aggregate->i != 1) {
    return fail(Code::kModel, "ONNX: aggregate_function %lld is not supported", static_cast<long long>(aggregate->i));
  }

  // A set of member values per BRANCH_MEMBER node, each ended by NaN.
  std::vector<uint32_t> first_member(n, 0), n_members(n, 0);
  size_t next = 0;
  for (size_t i = 0; i < n; ++i) {
    if (modes[i] != 6) continue;
    first_member[i] = static_cast<uint32_t>(e->members.size());
    for (; next < members.size() && !std::isnan(members[next]); ++next) {
      const float member = static_cast<float>(members[next]);
      if (static_cast<double>(member) == members[next]) e->members.push_back(member);
    }
    if (next == members.size()) return fail(Code::kModel, "ONNX: membership_values does not end each set with NaN");
    ++next;
    n_members[i] = static_cast<uint32_t>(e->members.size()) - first_member[i];
  }
  for (size_t l = 0; l < n_leaves; ++l) {
    if (targets[l] < 0 || targets[l] >= n_targets) return fail(Code::kModel, "ONNX: leaf_targetids");
  }
  const int64_t n_source = static_cast<int64_t>(n + n_leaves);
  std::vector<uint8_t> seen(static_cast<size_t>(n_source), 0);
  for (const int64_t root : roots) {
    // The targets of the tree's leaves come first: a walk over numbers alone.
    if (root < 0 || root >= static_cast<int64_t>(n)) return fail(Code::kModel, "ONNX: tree_roots");
    const auto child = [&](int64_t node, bool is_leaf) { return is_leaf ? node + static_cast<int64_t>(n) : node; };
    const auto in_range = [&](int64_t node, bool is_leaf) {
      return node >= 0 && node < static_cast<int64_t>(is_leaf ? n_leaves : n);
    };
    LeafValues values;
    {
      std::vector<int64_t> pending{root};
      size_t visited = 0;
      while (!pending.empty()) {
        const int64_t at = pending.back();
        pending.pop_back();
        if (++visited > static_cast<size_t>(n_source)) return fail(Code::kModel, "ONNX: a tree has a cycle");
        if (at >= static_cast<int64_t>(n)) {
          values.span(targets[static_cast<size_t>(at) - n]);
          continue;
        }
        const size_t i = static_cast<size_t>(at);
        if (!in_range(yes[i], yes_leaf[i] != 0) || !in_range(no[i], no_leaf[i] != 0)) {
          return fail(Code::kModel, "ONNX: nodes_truenodeids or nodes_falsenodeids is out of range");
        }
        // ONNX Runtime writes a tree of one leaf as a split whose children are the same leaf.
        pending.push_back(child(yes[i], yes_leaf[i] != 0));
        if (yes[i] != no[i] || yes_leaf[i] != no_leaf[i]) pending.push_back(child(no[i], no_leaf[i] != 0));
      }
    }
    Tree tree;
    values.describe(&tree);
    const Status status =
        append_tree(e, tree, n_source, root, &seen, kFormat, [&](int64_t source, Node* node) -> Status {
          const size_t i = static_cast<size_t>(source);
          const auto leaf = [&](size_t l) { return values.add({{targets[l], leaf_weights[l]}}, tree, size, e, node); };
          if (i >= n) return leaf(i - n);
          if (yes[i] == no[i] && yes_leaf[i] != 0 && no_leaf[i] != 0) return leaf(static_cast<size_t>(yes[i]));
          if (features[i] < 0 || features[i] >= kMaxFeatures) return fail(Code::kModel, "ONNX: nodes_featureids");
          if (!(modes[i] >= 0 && modes[i] <= 6)) return fail(Code::kModel, "ONNX: nodes_modes");
          constexpr Mode kModes[] = {Mode::kLeq, Mode::kLt,  Mode::kGte,   Mode::kGt,
                                     Mode::kEq,  Mode::kNeq, Mode::kMember};
          node->feature = static_cast<int32_t>(features[i]);
          e->n_features = std::max(e->n_features, node->feature + 1);
          node->first = first_member[i];
          node->count = n_members[i];
          return set_split(kModes[static_cast<int>(modes[i])], splits[i], child(yes[i], yes_leaf[i] != 0),
                           child(no[i], no_leaf[i] != 0), !tracks.empty() && tracks[i] != 0, node);
        });
    if (!status.ok()) return status;
  }
  return {};
}

bool is_ensemble(const GraphNode& node) {
  return node.type == "TreeEnsembleRegressor" || node.type == "TreeEnsembleClassifier" || node.type == "TreeEnsemble";
}

}  // namespace

Status read_onnx(const uint8_t* data, size_t size, Ensemble* e) {
  Message model(Bytes(reinterpret_cast<const char*>(data), size));
  Field f;
  Bytes graph;
  bool has_graph = false;
  while (model.next(&f)) {
    if (f.number == 7 && f.wire == 2) {
      graph = f.bytes;
      has_graph = true;
    }
  }
  if (model.broken() || !has_graph) return broken("the model: no graph");
  std::vector<GraphNode> nodes;
  std::vector<std::pair<std::string, Bytes>> inputs;
  Message message(graph);
  while (message.next(&f)) {
    if (f.wire != 2) continue;
    if (f.number == 1) {
      nodes.emplace_back();
      if (Status status = read_node(f.bytes, &nodes.back()); !status.ok()) return status;
      if (nodes.size() > 1000) return fail(Code::kModel, "ONNX: the graph has more than 1,000 nodes");
    }
    if (f.number == 11) {
      Bytes name;
      (void)only_field(f.bytes, 1, &name);
      inputs.emplace_back(std::string(name), f.bytes);
    }
  }
  if (message.broken()) return broken("the graph");
  const GraphNode* ensemble = nullptr;
  for (const GraphNode& node : nodes) {
    if (!is_ensemble(node)) continue;
    if (ensemble != nullptr) return fail(Code::kModel, "ONNX: the graph has two tree ensembles");
    ensemble = &node;
  }
  if (ensemble == nullptr) return fail(Code::kModel, "ONNX: the graph has no tree ensemble");
  for (const GraphNode& node : nodes) {
    if (&node == ensemble || node.type == "Cast" || node.type == "Identity" || node.type == "ZipMap") continue;
    return fail(Code::kModel, "ONNX: the operator %s beside the tree ensemble is not supported", node.type.c_str());
  }
  // From the ensemble's input back to the graph's.
  std::string source = ensemble->inputs.empty() ? std::string() : ensemble->inputs[0];
  for (size_t hops = 0; hops <= nodes.size(); ++hops) {
    const auto producer = std::find_if(nodes.begin(), nodes.end(), [&](const GraphNode& node) {
      return std::find(node.outputs.begin(), node.outputs.end(), source) != node.outputs.end();
    });
    if (producer == nodes.end()) break;
    if (&*producer == ensemble || producer->inputs.empty() || hops == nodes.size()) {
      return fail(Code::kModel, "ONNX: the graph has a cycle");
    }
    source = producer->inputs[0];
  }
  int64_t columns = -1;
  bool found = false;
  for (const auto& [name, bytes] : inputs) {
    if (name == source) {
      columns = columns_of(bytes);
      found = true;
    }
  }
  if (!found) return fail(Code::kModel, "ONNX: the tree ensemble's input is not an input of the graph");
  Attributes attributes;
  if (Status status = attributes.read(ensemble->bytes); !status.ok()) return status;
  const Status status = ensemble->type == "TreeEnsemble"
                            ? read_v5(attributes, size, e)
                            : read_v1(attributes, ensemble->type == "TreeEnsembleClassifier", size, e);
  if (!status.ok()) return status;
  if (columns >= 0) {
    if (columns < e->n_features || columns > kMaxFeatures) {
      return fail(Code::kModel, "ONNX: the input has %lld columns; the trees ask for %d",
                  static_cast<long long>(columns), e->n_features);
    }
    e->n_features = static_cast<int32_t>(columns);
  }
  return {};
}

}  // namespace waggle::trees
