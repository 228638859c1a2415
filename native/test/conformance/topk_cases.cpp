#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "test/conformance/case.hpp"
#include "waggle/ops/topk.hpp"

namespace waggle::conformance {

namespace {

enum class Data {
  kUniform,   // −0.5 … 0.5
  kIntegers,  // small integers with many equal rows: every score is exact, so the order must be, too
  kExtreme,   // norms from 1e-18 to 1e18, zero rows
  kAscending  // each row better than the one before: the worst case for the heaps
};

enum class FilterKind { kShared, kPerQuery, kList };

struct Shape {
  int64_t n_queries;
  int64_t n_rows;
  int64_t dim;
  int32_t k;
  Metric metric;
  Data data = Data::kUniform;
  double filter = 1.0;  // share of allowed rows; 1 = no filter, more = a filter that allows all
  uint64_t seed = 1;
  FilterKind kind = FilterKind::kShared;
};

const char* name_of(Metric metric) {
  switch (metric) {
    case Metric::kInnerProduct:
      return "ip";
    case Metric::kCosine:
      return "cosine";
    default:
      return "l2";
  }
}

const char* name_of(Data data) {
  switch (data) {
    case Data::kUniform:
      return "uniform";
    case Data::kIntegers:
      return "integers";
    case Data::kExtreme:
      return "extreme";
    default:
      return "ascending";
  }
}

const char* name_of(FilterKind kind) {
  switch (kind) {
    case FilterKind::kShared:
      return "shared";
    case FilterKind::kPerQuery:
      return "per-query";
    default:
      return "list";
  }
}

class TopkCase final : public Case {
 public:
  explicit TopkCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text, "topk/%s q=%lld n=%lld d=%lld k=%d %s filter=%s/%.4f seed=%llu",
                  name_of(s_.metric), static_cast<long long>(s_.n_queries), static_cast<long long>(s_.n_rows),
                  static_cast<long long>(s_.dim), s_.k, name_of(s_.data), s_.filter == 1.0 ? "none" : name_of(s_.kind),
                  s_.filter, static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    queries_.resize(static_cast<size_t>(s_.n_queries * s_.dim));
    fill(queries_, s_.n_queries, random);
    if (timed()) {
      // Large and alike for all timed cases: made once.
      static Shape made{};
      static std::vector<float> large;
      if (made.n_rows != s_.n_rows || made.dim != s_.dim) {
        large.clear();
        large.resize(static_cast<size_t>(s_.n_rows * s_.dim));
        Random numbers(7);
        for (float& value : large) value = static_cast<float>(numbers.uniform() - 0.5);
        made = s_;
      }
      matrix_ = large.data();
    } else {
      own_matrix_.resize(static_cast<size_t>(s_.n_rows * s_.dim));
      fill(own_matrix_, s_.n_rows, random);
      matrix_ = own_matrix_.data();
    }
    if (s_.data == Data::kAscending) {
      std::fill(queries_.begin(), queries_.end(), 1.0f);
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        for (int64_t i = 0; i < s_.dim; ++i) {
          // Inner products rise with r; so do cosines and negative distances, towards the all-ones query.
          own_matrix_[static_cast<size_t>(r * s_.dim + i)] =
              static_cast<float>((static_cast<double>(r) + 1.0) / (static_cast<double>(s_.n_rows) + 1.0));
        }
      }
    }
    if (s_.filter != 1.0) {
      filter_bytes_ = (s_.n_rows + 7) / 8;
      const int64_t n_bitmaps = s_.kind == FilterKind::kPerQuery ? s_.n_queries : 1;
      filter_.assign(static_cast<size_t>(n_bitmaps * filter_bytes_), 0);
      for (int64_t b = 0; b < n_bitmaps; ++b) {
        for (int64_t r = 0; r < s_.n_rows; ++r) {
          // One share for all, but per query also bitmaps that are empty, dense and full.
          const double share = b % 7 == 3 ? 0.0 : b % 7 == 5 ? 0.6 : b % 7 == 6 ? 1.0 : s_.filter;
          if (random.uniform() >= (s_.kind == FilterKind::kPerQuery && !timed() ? share : s_.filter)) continue;
          filter_[static_cast<size_t>(b * filter_bytes_ + (r >> 3))] |= static_cast<uint8_t>(1 << (r & 7));
          if (s_.kind == FilterKind::kList) list_.push_back(static_cast<int32_t>(r));
        }
        // Bits beyond the last row mean nothing.
        if (s_.n_rows % 8 != 0) {
          filter_[static_cast<size_t>((b + 1) * filter_bytes_ - 1)] |= static_cast<uint8_t>(0xff << (s_.n_rows % 8));
        }
      }
    }
    scores_.assign(static_cast<size_t>(s_.n_queries * s_.k), 123.0f);
    rows_.assign(scores_.size(), 456);
  }

  Status call(const RunContext& context) override {
    TopkArgs args;
    args.queries = {queries_.data(), s_.n_queries, s_.dim};
    args.matrix = {matrix_, s_.n_rows, s_.dim};
    args.k = s_.k;
    args.metric = s_.metric;
    if (s_.filter != 1.0) {
      switch (s_.kind) {
        case FilterKind::kShared:
          args.filter = RowFilter::shared(filter_.data(), static_cast<int64_t>(filter_.size()));
          break;
        case FilterKind::kPerQuery:
          args.filter = RowFilter::per_query(filter_.data(), filter_bytes_, s_.n_queries);
          break;
        case FilterKind::kList:
          args.filter = RowFilter::list(list_.data(), static_cast<int64_t>(list_.size()));
      }
    }
    args.scores = scores_.data();
    args.rows = rows_.data();
    return topk(args, context);
  }

  std::string verify() override {
    char text[300];
    std::vector<double> truth(static_cast<size_t>(s_.n_rows));
    std::vector<double> bound(truth.size());
    std::vector<uint8_t> taken(truth.size());
    for (int64_t q = 0; q < s_.n_queries; ++q) {
      int64_t n_allowed = 0;
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (!allowed(q, r)) continue;
        ++n_allowed;
        score(q, r, &truth[static_cast<size_t>(r)], &bound[static_cast<size_t>(r)]);
      }
      std::fill(taken.begin(), taken.end(), uint8_t{0});
      const float* scores = scores_.data() + q * s_.k;
      const int32_t* rows = rows_.data() + q * s_.k;
      const int64_t found = std::min<int64_t>(s_.k, n_allowed);
      double worst_lower_edge = std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < s_.k; ++i) {
        if (i >= found) {
          if (rows[i] != -1 || scores[i] != -std::numeric_limits<float>::infinity()) {
            std::snprintf(text, sizeof text, "query %lld, rank %lld: no padding", static_cast<long long>(q),
                          static_cast<long long>(i));
            return text;
          }
          continue;
        }
        const int32_t r = rows[i];
        if (r < 0 || r >= s_.n_rows || !allowed(q, r) || taken[static_cast<size_t>(r)] != 0) {
          std::snprintf(text, sizeof text, "query %lld, rank %lld: row %d is out of range, filtered or repeated",
                        static_cast<long long>(q), static_cast<long long>(i), r);
          return text;
        }
        taken[static_cast<size_t>(r)] = 1;
        const double error = std::fabs(static_cast<double>(scores[i]) - truth[static_cast<size_t>(r)]);
        if (!(error <= bound[static_cast<size_t>(r)])) {
          std::snprintf(text, sizeof text, "query %lld, row %d: score %.9g, truth %.9g, error %.3g over %.3g",
                        static_cast<long long>(q), r, static_cast<double>(scores[i]), truth[static_cast<size_t>(r)],
                        error, bound[static_cast<size_t>(r)]);
          return text;
        }
        if (i > 0 && (scores[i - 1] < scores[i] || (scores[i - 1] == scores[i] && rows[i - 1] > r))) {
          std::snprintf(text, sizeof text, "query %lld, rank %lld: out of order", static_cast<long long>(q),
                        static_cast<long long>(i));
          return text;
        }
        worst_lower_edge = std::min(worst_lower_edge, truth[static_cast<size_t>(r)] + bound[static_cast<size_t>(r)]);
      }
      if (found < s_.k) continue;
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (!allowed(q, r) || taken[static_cast<size_t>(r)] != 0) continue;
        if (truth[static_cast<size_t>(r)] - bound[static_cast<size_t>(r)] > worst_lower_edge) {
          std::snprintf(text, sizeof text, "query %lld: row %lld was missed", static_cast<long long>(q),
                        static_cast<long long>(r));
          return text;
        }
      }
      if (s_.data == Data::kIntegers && s_.metric != Metric::kCosine) {
        std::string wrong = verify_exact_order(q, truth);
        if (!wrong.empty()) return wrong;
      }
    }
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(s_.n_queries) * static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim);
  }
  double bytes() const override { return static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim) * 4; }

 private:
  bool timed() const { return s_.n_rows >= 100000; }

  bool allowed(int64_t q, int64_t r) const {
    if (filter_.empty()) return true;
    const int64_t bitmap = s_.kind == FilterKind::kPerQuery ? q * filter_bytes_ : 0;
    return ((filter_[static_cast<size_t>(bitmap + (r >> 3))] >> (r & 7)) & 1) != 0;
  }

  void fill(std::vector<float>& values, int64_t n, Random& random) {
    for (int64_t r = 0; r < n; ++r) {
      double scale = 1.0;
      if (s_.data == Data::kExtreme)
        scale = r % 5 == 0 ? 0.0 : std::pow(10.0, static_cast<double>(random.below(37)) - 18.0);
      for (int64_t i = 0; i < s_.dim; ++i) {
        float& value = values[static_cast<size_t>(r * s_.dim + i)];
        value = s_.data == Data::kIntegers ? static_cast<float>(random.below(3) - 1)
                                           : static_cast<float>((random.uniform() - 0.5) * scale);
      }
    }
  }

  // The score in double, and how far float arithmetic may be from it: each of the dim additions, in whatever
  // order, and the roundings around them err by at most one unit roundoff (2⁻²⁴) of the sum of magnitudes.
  void score(int64_t q, int64_t r, double* value, double* bound) const {
    const float* a = queries_.data() + q * s_.dim;
    const float* b = matrix_ + r * s_.dim;
    double dot = 0, magnitude = 0, aa = 0, bb = 0, distance = 0;
    for (int64_t i = 0; i < s_.dim; ++i) {
      const double x = a[i];
      const double y = b[i];
      dot += x * y;
      magnitude += std::fabs(x * y);
      aa += x * x;
      bb += y * y;
      distance += (x - y) * (x - y);
    }
    const double roundoff = (static_cast<double>(s_.dim) + 8) * 0x1.0p-24;
    // Sums of tiny products lose up to half a denormal at each step.
    const double denormal = (static_cast<double>(s_.dim) + 8) * 0x1.0p-149;
    switch (s_.metric) {
      case Metric::kInnerProduct:
        *value = dot;
        *bound = roundoff * magnitude + denormal;
        break;
      case Metric::kCosine:
        *value = aa > 0 && bb > 0 ? dot / (std::sqrt(aa) * std::sqrt(bb)) : 0.0;
        *bound = aa > 0 && bb > 0 ? 3 * roundoff : 0.0;
        break;
      default:
        *value = -distance;
        *bound = 3 * roundoff * distance + denormal;
    }
  }

  std::string verify_exact_order(int64_t q, const std::vector<double>& truth) const {
    std::vector<int32_t> order;
    for (int64_t r = 0; r < s_.n_rows; ++r) {
      if (allowed(q, r)) order.push_back(static_cast<int32_t>(r));
    }
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return truth[static_cast<size_t>(a)] > truth[static_cast<size_t>(b)];
    });
    for (size_t i = 0; i < std::min(order.size(), static_cast<size_t>(s_.k)); ++i) {
      if (rows_[static_cast<size_t>(q * s_.k) + i] != order[i]) return "ties are not in the order of rows";
    }
    return {};
  }

  Shape s_;
  std::vector<float> queries_;
  std::vector<float> own_matrix_;
  const float* matrix_ = nullptr;
  std::vector<uint8_t> filter_;
  int64_t filter_bytes_ = 0;
  std::vector<int32_t> list_;
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
};

}  // namespace

void add_topk_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<TopkCase>(shape)); };
  if (for_bench) {
    for (const int64_t q : {1, 8, 64, 256}) add({q, 100000, 384, 100, Metric::kInnerProduct});
    add({1, 100000, 384, 100, Metric::kCosine});
    add({64, 100000, 384, 100, Metric::kL2});
    add({1, 100000, 384, 100, Metric::kInnerProduct, Data::kUniform, 0.1});
    add({1, 5000, 384, 100, Metric::kCosine});
    add({1, 1000, 64, 10, Metric::kInnerProduct});
    add({1, 10, 8, 3, Metric::kInnerProduct});
    constexpr int64_t kMillion = 1000000;
    for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
      for (const int64_t q : {1, 64, 1024}) add({q, kMillion, 384, 100, metric});
    }
    for (const int64_t q : {2, 4, 8, 12, 16, 24, 32}) add({q, kMillion, 384, 100, Metric::kInnerProduct});
    add({64, kMillion, 384, 2048, Metric::kInnerProduct});
    for (const double share : {0.001, 0.01, 0.1, 0.5}) {
      add({1, kMillion, 384, 100, Metric::kInnerProduct, Data::kUniform, share});
      add({64, kMillion, 384, 100, Metric::kInnerProduct, Data::kUniform, share});
      add({64, kMillion, 384, 100, Metric::kInnerProduct, Data::kUniform, share, 1, FilterKind::kPerQuery});
      add({64, kMillion, 384, 100, Metric::kInnerProduct, Data::kUniform, share, 1, FilterKind::kList});
    }
    return;
  }
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    add({0, 10, 4, 3, metric});                              // no queries
    add({3, 0, 4, 3, metric});                               // no rows
    add({1, 1, 1, 1, metric});                               // one of everything
    add({2, 5, 3, 8, metric});                               // more answers than rows
    add({5, 1000, 37, 10, metric, Data::kUniform, 1.0, 2});  // odd dimension
    add({7, 997, 16, 33, metric, Data::kUniform, 0.5, 3});   // odd rows, half allowed
    add({4, 300, 31, 5, metric, Data::kUniform, 0.0, 4});    // nothing allowed
    add({3, 2000, 384, 100, metric, Data::kUniform, 0.03, 5});
    for (const FilterKind kind : {FilterKind::kShared, FilterKind::kPerQuery, FilterKind::kList}) {
      add({9, 2003, 21, 40, metric, Data::kUniform, 0.0, 20, kind});
      add({9, 2003, 21, 40, metric, Data::kUniform, 0.001, 21, kind});
      add({70, 2003, 21, 40, metric, Data::kUniform, 0.05, 22, kind});
      add({1, 2003, 21, 40, metric, Data::kIntegers, 0.4, 23, kind});
      add({35, 2003, 21, 40, metric, Data::kIntegers, 0.9, 24, kind});
      add({8, 2003, 21, 40, metric, Data::kExtreme, 2.0, 25, kind});  // a filter that allows every row
      add({3, 0, 21, 4, metric, Data::kUniform, 0.5, 26, kind});
    }
    add({6, 500, 5, 50, metric, Data::kIntegers, 1.0, 6});  // many ties
    add({70, 1500, 7, 20, metric, Data::kIntegers, 0.7, 7});
    add({2, 3000, 24, 2048, metric, Data::kUniform, 1.0, 8});  // largest k
    add({300, 700, 20, 9, metric, Data::kUniform, 1.0, 9});    // more queries than one pass holds
    add({66, 20000, 48, 100, metric, Data::kUniform, 1.0, 10});
    add({2, 9000, 12, 700, metric, Data::kAscending, 1.0, 11});
    for (int64_t dim = 1; dim <= 33; dim += 2)
      add({5, 29, dim, 4, metric, Data::kUniform, 1.0, 100 + static_cast<uint64_t>(dim)});
  }
  add({11, 200, 40, 30, Metric::kCosine, Data::kExtreme, 1.0, 12});
}

}  // namespace waggle::conformance
