// LightGBM's text models (versions 2 to 4).
//
// A numerical split asks x ≤ threshold in double; inputs here are floats, so the threshold becomes the greatest float
// below it. decision_type: bit 0 categorical, bit 1 default left, bits 2 and 3 what is missing: nothing (NaN is then
// 0), zero (and NaN), or NaN. A categorical split sends the categories of its bitset left, everything else right.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "src/trees/decimal.hpp"
#include "src/trees/readers.hpp"

namespace waggle::trees {

namespace {

constexpr const char* kFormat = "LightGBM";

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\r')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

class Lines {
 public:
  Lines(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  bool next(std::string_view* line) {
    if (rest_.empty()) return false;
    const size_t end = rest_.find('\n');
    *line = trim(rest_.substr(0, end));
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
    return true;
  }

 private:
  std::string_view rest_;
};

Status bad(std::string_view field) {
  return fail(Code::kModel, "LightGBM: %.*s is missing, malformed or of the wrong length",
              static_cast<int>(std::min<size_t>(field.size(), 60)), field.data());
}

template <typename T>
bool parse_one(std::string_view text, T* out) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto [stop, problem] = read_decimal(text.data(), text.data() + text.size(), out);
  if (problem == std::errc::result_out_of_range) {
    if constexpr (std::is_floating_point_v<T>) {
      *out = std::strtod(std::string(text).c_str(), nullptr);
      return true;
    }
  }
  return problem == std::errc() && stop == text.data() + text.size();
}

template <typename T>
bool parse_list(std::string_view text, std::vector<T>* out) {
  out->clear();
  while (true) {
    text = trim(text);
    if (text.empty()) return true;
    const size_t end = text.find(' ');
    T value{};
    if (!parse_one(text.substr(0, end), &value)) return false;
    out->push_back(value);
    if (end == std::string_view::npos) return true;
    text.remove_prefix(end);
  }
}

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// "binary sigmoid:1", "multiclass num_class:3", "regression sqrt"
Status read_objective(std::string_view text, Ensemble* e) {
  const size_t end = text.find(' ');
  const std::string_view name = text.substr(0, end);
  const std::string_view options = end == std::string_view::npos ? std::string_view() : text.substr(end);
  e->kind = Kind::kRegression;
  double sigmoid = 1;
  if (const size_t at = options.find("sigmoid:"); at != std::string_view::npos) {
    const std::string_view rest = options.substr(at + 8);
    if (!parse_one(rest.substr(0, rest.find(' ')), &sigmoid)) return bad("objective");
  }
  if (name == "binary" || name == "multiclassova" || name == "ova" || name == "multiclass_ova") {
    e->kind = Kind::kClassification;
    e->transform = Transform::kLogistic;
    e->transform_parameter = sigmoid;
  } else if (name == "multiclass" || name == "softmax") {
    e->kind = Kind::kClassification;
    e->transform = Transform::kSoftmax;
  } else if (name == "cross_entropy" || name == "xentropy") {
    e->transform = Transform::kLogistic;
  } else if (name == "cross_entropy_lambda" || name == "xentlambda") {
    e->transform = Transform::kLog1pExp;
  } else if (name == "poisson" || name == "gamma" || name == "tweedie") {
    e->transform = Transform::kExp;
  } else if (name == "lambdarank" || name == "rank_xendcg") {
    e->kind = Kind::kRanking;
  } else if (name == "regression" || name == "regression_l2" || name == "regression_l1" || name == "l1" ||
             name == "l2" || name == "huber" || name == "fair" || name == "quantile" || name == "mape" ||
             name == "custom" || name.empty()) {
    if (options.find("sqrt") != std::string_view::npos) e->transform = Transform::kSignedSquare;
  } else {
    return fail(Code::kModel, "LightGBM: objective %.*s is not supported",
                static_cast<int>(std::min<size_t>(name.size(), 60)), name.data());
  }
  return {};
}

struct TreeText {
  std::string_view num_leaves, num_cat, split_feature, threshold, decision_type, left_child, right_child, leaf_value,
      cat_boundaries, cat_threshold, is_linear, leaf_count, internal_count;
};

Status read_tree(const TreeText& text, int32_t target, Ensemble* e) {
  int64_t n_leaves = 0;
  if (!parse_one(text.num_leaves, &n_leaves) || n_leaves < 1) return bad("num_leaves");
  if (!text.is_linear.empty() && text.is_linear != "0") {
    return fail(Code::kModel, "LightGBM: is_linear=1 (linear trees) is not supported");
  }
  std::vector<double> leaves, thresholds;
  std::vector<int32_t> features, left, right, boundaries;
  std::vector<int32_t> types;
  std::vector<uint32_t> bits;
  if (!parse_list(text.leaf_value, &leaves) || static_cast<int64_t>(leaves.size()) != n_leaves)
    return bad("leaf_value");
  Tree made;
  made.first_target = target;
  const size_t n_splits = static_cast<size_t>(n_leaves - 1);
  if (n_splits > 0) {
    if (!parse_list(text.split_feature, &features) || features.size() != n_splits) return bad("split_feature");
    if (!parse_list(text.threshold, &thresholds) || thresholds.size() != n_splits) return bad("threshold");
    if (!parse_list(text.decision_type, &types) || types.size() != n_splits) return bad("decision_type");
    if (!parse_list(text.left_child, &left) || left.size() != n_splits) return bad("left_child");
    if (!parse_list(text.right_child, &right) || right.size() != n_splits) return bad("right_child");
  }
  int64_t n_cat = 0;
  if (!text.num_cat.empty() && (!parse_one(text.num_cat, &n_cat) || n_cat < 0)) return bad("num_cat");
  const size_t first_word = e->categories.size();
  if (n_cat > 0) {
    if (!parse_list(text.cat_boundaries, &boundaries) || static_cast<int64_t>(boundaries.size()) != n_cat + 1) {
      return bad("cat_boundaries");
    }
    if (!parse_list(text.cat_threshold, &bits)) return bad("cat_threshold");
    e->categories.insert(e->categories.end(), bits.begin(), bits.end());
  }
  // Rows of the training set at each node; files trimmed to what predicts have none.
  std::vector<double> leaf_counts, split_counts;
  const bool counted = parse_list(text.leaf_count, &leaf_counts) && parse_list(text.internal_count, &split_counts) &&
                       static_cast<int64_t>(leaf_counts.size()) == n_leaves && split_counts.size() == n_splits;
  // Source nodes: splits first, then leaves.
  std::vector<uint8_t> seen(n_splits + static_cast<size_t>(n_leaves), 0);
  const auto source_of = [n_splits](int32_t child) {
    return child >= 0 ? static_cast<int64_t>(child) : static_cast<int64_t>(n_splits) - 1 - child;
  };
  return append_tree(
      e, made, static_cast<int64_t>(seen.size()), 0, &seen, kFormat, [&](int64_t source, Node* node) -> Status {
        const size_t i = static_cast<size_t>(source);
        if (counted) {
          e->covers.push_back(static_cast<float>(i < n_splits ? split_counts[i] : leaf_counts[i - n_splits]));
        } else if (n_splits == 0) {
          e->covers.push_back(0);  // a single leaf: nothing depends on it
        }
        if (i >= n_splits) {
          node->first = static_cast<uint32_t>(e->values.size());
          e->values.push_back(static_cast<float>(leaves[i - n_splits]));
          return {};
        }
        if (source_of(left[i]) >= static_cast<int64_t>(seen.size()) ||
            source_of(right[i]) >= static_cast<int64_t>(seen.size()) ||
            (left[i] >= 0 && static_cast<size_t>(left[i]) >= n_splits) ||
            (right[i] >= 0 && static_cast<size_t>(right[i]) >= n_splits)) {
          return fail(Code::kModel, "LightGBM: left_child or right_child is out of range");
        }
        if (features[i] < 0 || features[i] >= e->n_features) {
          return fail(Code::kModel, "LightGBM: split_feature %d of %d", features[i], e->n_features);
        }
        node->feature = features[i];
        node->left = static_cast<int32_t>(source_of(left[i]));
        node->right = static_cast<int32_t>(source_of(right[i]));
        const int32_t type = types[i];
        if ((type & 1) == 0) {
          const int32_t missing = (type >> 2) & 3;
          if (type < 0 || type > 15 || missing == 3) {
            return fail(Code::kModel, "LightGBM: decision_type %d is not supported", type);
          }
          if (std::isnan(thresholds[i])) return bad("threshold");
          node->decision = Decision::kLessEqual;
          node->threshold = floor_float(thresholds[i]);
          // LightGBM takes |x| ≤ 1e-35 for 0 before it asks: such thresholds do not tell them apart.
          if (node->threshold >= -kZeroThreshold && node->threshold < 0) {
            node->threshold = std::nextafterf(-kZeroThreshold, -1.0f);
          } else if (node->threshold >= 0 && node->threshold < kZeroThreshold) {
            node->threshold = kZeroThreshold;
          }
          node->default_left = (type & 2) != 0;
          node->missing = missing == 0 ? Missing::kNanIsZero : missing == 1 ? Missing::kZeroOrNan : Missing::kNan;
          return {};
        }
        const double number = thresholds[i];
        if (!(number >= 0) || !(number < static_cast<double>(n_cat))) {
          return fail(Code::kModel, "LightGBM: the threshold of a categorical split is out of range");
        }
        const size_t c = static_cast<size_t>(number);
        if (boundaries[c] < 0 || boundaries[c] > boundaries[c + 1] ||
            static_cast<size_t>(boundaries[c + 1]) > bits.size()) {
          return fail(Code::kModel, "LightGBM: cat_boundaries is out of range");
        }
        node->decision = Decision::kCategoryTruncated;
        node->default_left = false;
        node->first = static_cast<uint32_t>(first_word + static_cast<size_t>(boundaries[c]));
        node->count = static_cast<uint32_t>(boundaries[c + 1] - boundaries[c]);
        return {};
      });
}

}  // namespace

Status read_lightgbm(const uint8_t* data, size_t size, Ensemble* e) {
  Lines lines(data, size);
  std::string_view line;
  if (!lines.next(&line) || line != "tree") return fail(Code::kModel, "LightGBM: the first line is not 'tree'");
  int32_t per_iteration = 1;
  int32_t most_feature = -1;
  bool average = false;
  bool in_header = true;
  bool ended = false;
  std::string_view objective;
  TreeText text;
  bool in_tree = false;
  const auto finish_tree = [&]() -> Status {
    if (!in_tree) return {};
    in_tree = false;
    return read_tree(text, static_cast<int32_t>(e->trees.size() % static_cast<size_t>(per_iteration)), e);
  };
  while (!ended && lines.next(&line)) {
    if (line.empty()) continue;
    if (starts_with(line, "Tree=")) {
      if (in_header) {
        if (per_iteration < 1 || per_iteration > kMaxTargets) return bad("num_tree_per_iteration");
        if (most_feature < 0 || most_feature >= kMaxFeatures) return bad("max_feature_idx");
        e->n_features = most_feature + 1;
        in_header = false;
      }
      if (Status status = finish_tree(); !status.ok()) return status;
      text = {};
      in_tree = true;
      continue;
    }
    if (line == "end of trees") {
      ended = true;
      break;
    }
    const size_t equals = line.find('=');
    const std::string_view key = line.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : trim(line.substr(equals + 1));
    if (in_header) {
      if (key == "version" && value != "v2" && value != "v3" && value != "v4") {
        return fail(Code::kModel, "LightGBM: version=%.*s is not supported",
                    static_cast<int>(std::min<size_t>(value.size(), 20)), value.data());
      }
      if (key == "num_tree_per_iteration" && !parse_one(value, &per_iteration)) return bad(key);
      if (key == "max_feature_idx" && !parse_one(value, &most_feature)) return bad(key);
      if (key == "objective") objective = value;
      if (key == "average_output") average = true;
      continue;
    }
    std::pair<std::string_view, std::string_view*> fields[] = {
        {"num_leaves", &text.num_leaves},         {"num_cat", &text.num_cat},
        {"split_feature", &text.split_feature},   {"threshold", &text.threshold},
        {"decision_type", &text.decision_type},   {"left_child", &text.left_child},
        {"right_child", &text.right_child},       {"leaf_value", &text.leaf_value},
        {"cat_boundaries", &text.cat_boundaries}, {"cat_threshold", &text.cat_threshold},
        {"is_linear", &text.is_linear},           {"leaf_count", &text.leaf_count},
        {"internal_count", &text.internal_count}};
    for (auto& [name, field] : fields) {
      if (key == name) *field = value;
    }
  }
  if (!ended) return fail(Code::kModel, "LightGBM: 'end of trees' is missing: the model is cut off");
  if (in_header) {  // no tree at all
    if (per_iteration < 1 || per_iteration > kMaxTargets) return bad("num_tree_per_iteration");
    if (most_feature < 0 || most_feature >= kMaxFeatures) return bad("max_feature_idx");
    e->n_features = most_feature + 1;
  }
  if (Status status = finish_tree(); !status.ok()) return status;
  keep_whole_covers(e);
  e->n_targets = per_iteration;
  e->base.assign(static_cast<size_t>(per_iteration), 0.0);
  if (average && !e->trees.empty()) {
    e->scale = 1.0 / static_cast<double>(std::max<size_t>(1, e->trees.size() / static_cast<size_t>(per_iteration)));
  }
  return read_objective(objective, e);
}

}  // namespace waggle::trees
