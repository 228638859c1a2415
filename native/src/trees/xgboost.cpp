// XGBoost models as JSON or UBJSON (schema of versions 1.0 to 3): gbtree and dart.
//
// A split asks x < split_condition in float; missing (NaN) goes by default_left. A categorical split sends the listed
// categories right; everything else, also what is no category at all, goes left.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>

#include "src/trees/decimal.hpp"
#include "src/trees/document.hpp"
#include "src/trees/readers.hpp"

namespace waggle::trees {

namespace {

constexpr const char* kFormat = "XGBoost";

// Follows names from one object to the next.
const Value* at(const Value* value, std::initializer_list<const char*> path) {
  for (const char* name : path) {
    if (value == nullptr) return nullptr;
    value = value->find(name);
  }
  return value;
}

Status missing(const char* field) { return fail(Code::kModel, "XGBoost: %s is missing or of the wrong kind", field); }

// Parameters are strings: "12", "5E-1", "[5E-1,2E-1]".
bool parse_floats(const std::string& text, std::vector<float>* out) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == '[' || *at == ']' || *at == ',' || *at == ' ') {
      ++at;
      continue;
    }
    float value = 0;
    const auto [stop, problem] = read_decimal(at, end, &value);
    if (problem != std::errc()) return false;
    out->push_back(value);
    at = stop;
  }
  return true;
}

bool parse_integer(const Value* value, int64_t least, int64_t most, int64_t* out) {
  if (value == nullptr) return false;
  if (const double* number = value->number()) {
    if (!(*number >= static_cast<double>(least)) || !(*number <= static_cast<double>(most))) return false;
    *out = static_cast<int64_t>(*number);
    return true;
  }
  const std::string* text = value->text();
  if (text == nullptr) return false;
  const auto [stop, problem] = std::from_chars(text->data(), text->data() + text->size(), *out);
  return problem == std::errc() && stop == text->data() + text->size() && *out >= least && *out <= most;
}

// An array of integers (or booleans) as int64.
bool integers(const Value* value, std::vector<int64_t>* out) {
  if (value == nullptr) return false;
  out->clear();
  if (const Numbers* numbers = value->numbers()) {
    out->reserve(numbers->size());
    for (const double n : *numbers) {
      if (!(n >= -9e15 && n <= 9e15)) return false;
      out->push_back(static_cast<int64_t>(n));
    }
    return true;
  }
  const Items* items = value->items();
  if (items == nullptr) return false;
  for (const Value& item : *items) {
    const bool* flag = std::get_if<bool>(&item.held);
    if (flag == nullptr) return false;
    out->push_back(*flag ? 1 : 0);
  }
  return true;
}

struct Objective {
  const char* name;
  Transform transform;
  Kind kind;
  enum class Base { kAsIs, kLogit, kLog } base;
};

constexpr Objective kObjectives[] = {
    {"reg:squarederror", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:linear", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:squaredlogerror", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:pseudohubererror", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:absoluteerror", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:quantileerror", Transform::kNone, Kind::kRegression, Objective::Base::kAsIs},
    {"reg:logistic", Transform::kLogistic, Kind::kRegression, Objective::Base::kLogit},
    {"binary:logistic", Transform::kLogistic, Kind::kClassification, Objective::Base::kLogit},
    {"binary:logitraw", Transform::kNone, Kind::kClassification, Objective::Base::kAsIs},
    {"binary:hinge", Transform::kHinge, Kind::kClassification, Objective::Base::kAsIs},
    {"multi:softprob", Transform::kSoftmax, Kind::kClassification, Objective::Base::kAsIs},
    {"multi:softmax", Transform::kSoftmax, Kind::kClassification, Objective::Base::kAsIs},
    {"count:poisson", Transform::kExp, Kind::kRegression, Objective::Base::kLog},
    {"reg:gamma", Transform::kExp, Kind::kRegression, Objective::Base::kLog},
    {"reg:tweedie", Transform::kExp, Kind::kRegression, Objective::Base::kLog},
    {"survival:cox", Transform::kExp, Kind::kRegression, Objective::Base::kLog},
    {"survival:aft", Transform::kExp, Kind::kRegression, Objective::Base::kLog},
    {"rank:pairwise", Transform::kNone, Kind::kRanking, Objective::Base::kAsIs},
    {"rank:ndcg", Transform::kNone, Kind::kRanking, Objective::Base::kAsIs},
    {"rank:map", Transform::kNone, Kind::kRanking, Objective::Base::kAsIs},
};

Status read_objective(const Value* learner, Ensemble* e) {
  const Value* name = at(learner, {"objective", "name"});
  if (name == nullptr || name->text() == nullptr) return missing("learner.objective.name");
  const Objective* found = nullptr;
  for (const Objective& o : kObjectives) {
    if (*name->text() == o.name) found = &o;
  }
  if (found == nullptr) {
    return fail(Code::kModel, "XGBoost: learner.objective.name %.60s is not supported", name->text()->c_str());
  }
  e->kind = found->kind;
  e->transform = found->transform;
  const Value* base = at(learner, {"learner_model_param", "base_score"});
  std::vector<float> scores;
  if (base == nullptr || base->text() == nullptr || !parse_floats(*base->text(), &scores) || scores.empty()) {
    return missing("learner.learner_model_param.base_score");
  }
  if (scores.size() != 1 && scores.size() != static_cast<size_t>(e->n_targets)) {
    return fail(Code::kModel, "XGBoost: base_score has %zu values for %d targets", scores.size(), e->n_targets);
  }
  // The stored score is on the scale of predictions; sums begin on the scale of margins. In float, as XGBoost does it.
  for (float& s : scores) {
    if (found->base == Objective::Base::kLogit) {
      if (!(s > 0.0f && s < 1.0f)) return fail(Code::kModel, "XGBoost: base_score is not inside (0, 1)");
      s = -std::log(1.0f / s - 1.0f);
    } else if (found->base == Objective::Base::kLog) {
      if (!(s > 0.0f)) return fail(Code::kModel, "XGBoost: base_score is not above 0");
      s = std::log(s);
    }
  }
  for (int32_t t = 0; t < e->n_targets; ++t) {
    e->base.push_back(static_cast<double>(scores[scores.size() == 1 ? 0 : static_cast<size_t>(t)]));
  }
  return {};
}

// The categories of a tree's nodes, as bitsets in the ensemble. first[i] = −1: node i has none.
Status read_categories(const Value& tree, size_t n_nodes, Ensemble* e, std::vector<int64_t>* first,
                       std::vector<uint32_t>* words) {
  first->assign(n_nodes, -1);
  words->assign(n_nodes, 0);
  if (tree.find("categories_nodes") == nullptr) return {};
  std::vector<int64_t> nodes, segments, sizes, categories;
  if (!integers(tree.find("categories_nodes"), &nodes) || !integers(tree.find("categories_segments"), &segments) ||
      !integers(tree.find("categories_sizes"), &sizes) || !integers(tree.find("categories"), &categories) ||
      nodes.size() != segments.size() || nodes.size() != sizes.size()) {
    return missing("categories, categories_nodes, categories_segments or categories_sizes");
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int64_t total = static_cast<int64_t>(categories.size());
    if (nodes[i] < 0 || nodes[i] >= static_cast<int64_t>(n_nodes) || segments[i] < 0 || sizes[i] < 0 ||
        segments[i] > total || sizes[i] > total - segments[i] || (*first)[static_cast<size_t>(nodes[i])] >= 0) {
      return fail(Code::kModel, "XGBoost: categories_nodes, _segments or _sizes is out of range");
    }
    int64_t most = -1;
    for (int64_t c = segments[i]; c < segments[i] + sizes[i]; ++c) {
      const int64_t category = categories[static_cast<size_t>(c)];
      if (category < 0 || category >= (1 << 24)) return fail(Code::kModel, "XGBoost: a category is out of range");
      most = std::max(most, category);
    }
    const size_t n_words = static_cast<size_t>(most / 32 + 1) * (most >= 0 ? 1 : 0);
    // A bitset takes up to 2 MiB for one listed category: together they may take 64 times what lists them, or 1 MiB.
    const size_t start = e->categories.size();
    if (start + n_words > (size_t{1} << 18) + 16 * (e->nodes.size() + categories.size())) {
      return fail(Code::kModel, "XGBoost: categories are too large for their number");
    }
    e->categories.resize(start + n_words, 0);
    for (int64_t c = segments[i]; c < segments[i] + sizes[i]; ++c) {
      const int64_t category = categories[static_cast<size_t>(c)];
      e->categories[start + static_cast<size_t>(category >> 5)] |= uint32_t{1} << (category & 31);
    }
    (*first)[static_cast<size_t>(nodes[i])] = static_cast<int64_t>(start);
    (*words)[static_cast<size_t>(nodes[i])] = static_cast<uint32_t>(n_words);
  }
  return {};
}

Status read_tree(const Value& tree, int64_t target, float weight, Ensemble* e) {
  std::vector<int64_t> left, right, feature, default_left, kind;
  const Value* conditions_value = tree.find("split_conditions");
  const Numbers* conditions = conditions_value == nullptr ? nullptr : conditions_value->numbers();
  if (conditions == nullptr || !integers(tree.find("left_children"), &left) ||
      !integers(tree.find("right_children"), &right) || !integers(tree.find("split_indices"), &feature) ||
      !integers(tree.find("default_left"), &default_left)) {
    return missing("left_children, right_children, split_indices, split_conditions or default_left");
  }
  const size_t n = left.size();
  if (tree.find("split_type") != nullptr) {
    if (!integers(tree.find("split_type"), &kind)) return missing("split_type");
  } else {
    kind.assign(n, 0);
  }
  if (n == 0 || right.size() != n || feature.size() != n || default_left.size() != n || conditions->size() != n ||
      kind.size() != n) {
    return fail(Code::kModel, "XGBoost: a tree's arrays are empty or of different lengths");
  }
  int64_t vector = 1;
  if (const Value* size = at(&tree, {"tree_param", "size_leaf_vector"})) {
    if (!parse_integer(size, 0, 1 << 30, &vector)) return missing("tree_param.size_leaf_vector");
  }
  if (vector > 1) return fail(Code::kModel, "XGBoost: tree_param.size_leaf_vector above 1 is not supported");
  const Value* covers_value = tree.find("sum_hessian");
  const Numbers* covers = covers_value == nullptr ? nullptr : covers_value->numbers();
  if (covers != nullptr && covers->size() != n) covers = nullptr;
  std::vector<int64_t> first;
  std::vector<uint32_t> words;
  if (Status status = read_categories(tree, n, e, &first, &words); !status.ok()) return status;
  Tree made;
  made.first_target = static_cast<int32_t>(target);
  std::vector<uint8_t> seen(n, 0);
  return append_tree(e, made, static_cast<int64_t>(n), 0, &seen, kFormat, [&](int64_t source, Node* node) -> Status {
    const size_t i = static_cast<size_t>(source);
    if (covers != nullptr) e->covers.push_back(static_cast<float>((*covers)[i]));
    if (left[i] == -1) {
      node->first = static_cast<uint32_t>(e->values.size());
      e->values.push_back(static_cast<float>((*conditions)[i]) * weight);
      return {};
    }
    if (left[i] < 0 || left[i] >= static_cast<int64_t>(n) || right[i] < 0 || right[i] >= static_cast<int64_t>(n) ||
        feature[i] < 0 || feature[i] >= e->n_features) {
      return fail(Code::kModel, "XGBoost: a child or a split index is out of range");
    }
    node->feature = static_cast<int32_t>(feature[i]);
    node->left = static_cast<int32_t>(left[i]);
    node->right = static_cast<int32_t>(right[i]);
    node->default_left = default_left[i] != 0;
    if (kind[i] == 0) {
      node->threshold = static_cast<float>((*conditions)[i]);
      node->decision = Decision::kLess;
      return {};
    }
    if (kind[i] != 1) return fail(Code::kModel, "XGBoost: split_type is neither numerical nor categorical");
    if (first[i] < 0) return fail(Code::kModel, "XGBoost: a categorical split without categories");
    // The listed ones go right.
    std::swap(node->left, node->right);
    node->default_left = !node->default_left;
    node->decision = Decision::kCategory;
    node->first = static_cast<uint32_t>(first[i]);
    node->count = words[i];
    return {};
  });
}

}  // namespace

Status read_xgboost(const uint8_t* data, size_t size, bool binary, Ensemble* e) {
  Value document;
  if (Status status = binary ? parse_ubjson(data, size, &document) : parse_json(data, size, &document); !status.ok()) {
    return status;
  }
  const Value* learner = document.find("learner");
  if (learner == nullptr) return missing("learner");
  int64_t n_features = 0, n_class = 0, n_target = 1;
  if (!parse_integer(at(learner, {"learner_model_param", "num_feature"}), 0, kMaxFeatures, &n_features)) {
    return missing("learner.learner_model_param.num_feature");
  }
  if (!parse_integer(at(learner, {"learner_model_param", "num_class"}), 0, kMaxTargets, &n_class)) {
    return missing("learner.learner_model_param.num_class");
  }
  if (at(learner, {"learner_model_param", "num_target"}) != nullptr &&
      !parse_integer(at(learner, {"learner_model_param", "num_target"}), 0, kMaxTargets, &n_target)) {
    return missing("learner.learner_model_param.num_target");
  }
  e->n_features = static_cast<int32_t>(n_features);
  e->n_targets = static_cast<int32_t>(std::max<int64_t>({n_class, n_target, 1}));
  if (Status status = read_objective(learner, e); !status.ok()) return status;

  const Value* booster = learner->find("gradient_booster");
  const Value* name = at(booster, {"name"});
  if (name == nullptr || name->text() == nullptr) return missing("learner.gradient_booster.name");
  const bool dart = *name->text() == "dart";
  if (!dart && *name->text() != "gbtree") {
    return fail(Code::kModel, "XGBoost: learner.gradient_booster.name %.60s is not supported", name->text()->c_str());
  }
  const Value* model = dart ? at(booster, {"gbtree", "model"}) : at(booster, {"model"});
  const Value* trees_value = at(model, {"trees"});
  const Items* trees = trees_value == nullptr ? nullptr : trees_value->items();
  std::vector<int64_t> info;
  if (trees == nullptr || !integers(at(model, {"tree_info"}), &info)) {
    return missing("learner.gradient_booster.model.trees or tree_info");
  }
  if (info.size() != trees->size()) return fail(Code::kModel, "XGBoost: tree_info is not one number per tree");
  const Numbers* weights = nullptr;
  if (dart) {
    const Value* drop = at(booster, {"weight_drop"});
    weights = drop == nullptr ? nullptr : drop->numbers();
    if (weights == nullptr || weights->size() != trees->size()) return missing("weight_drop, one per tree,");
  }
  for (size_t t = 0; t < trees->size(); ++t) {
    if (info[t] < 0 || info[t] >= e->n_targets) return fail(Code::kModel, "XGBoost: tree_info is out of range");
    const float weight = weights == nullptr ? 1.0f : static_cast<float>((*weights)[t]);
    if (Status status = read_tree((*trees)[t], info[t], weight, e); !status.ok()) return status;
  }
  keep_whole_covers(e);
  return {};
}

}  // namespace waggle::trees
