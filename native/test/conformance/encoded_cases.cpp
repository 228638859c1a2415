// Encoded matrices: what encode() stores against plain double arithmetic, and the answer of topk_encoded() against
// topk() on the CPU, bit by bit where the floats are there, and by its promises about doubt where they are not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "cpu/table.hpp"
#include "cpu/topk.hpp"
#include "cpu/topk_encoded.hpp"
#include "test/conformance/case.hpp"
#include "waggle/ops/topk_encoded.hpp"

namespace waggle::conformance {

namespace {

enum class Data {
  kGaussian,
  kClustered,  // unit rows around 64 centres
  kTies,       // small integers with many equal rows
  kNear,       // copies of a few rows that differ in the last bit of one value
  kNorms,      // norms from 1e-18 to 1e18, zero rows, so that rows leave the float filter's range
  kDenormal,   // values down to the smallest denormal
  kSpike,      // one value a million times the others: the int8 scale says nothing about them
  kEqual       // every row the same
};
constexpr Data kAllData[] = {Data::kGaussian, Data::kClustered, Data::kTies,  Data::kNear,
                             Data::kNorms,    Data::kDenormal,  Data::kSpike, Data::kEqual};

enum class Filter { kNone, kShared, kPerQuery, kList };

enum class Floats { kBeside, kInHalves, kDropped };

struct Shape {
  Dtype dtype;
  int64_t n_queries;
  int64_t n_rows;
  int64_t dim;
  int32_t k;
  Metric metric;
  Data data = Data::kGaussian;
  Filter filter = Filter::kNone;
  double share = 1.0;  // of allowed rows
  Floats floats = Floats::kBeside;
  uint64_t seed = 1;
  const char* title = nullptr;  // of a timed case
};

const char* name_of(Metric metric) {
  return metric == Metric::kInnerProduct ? "ip" : metric == Metric::kCosine ? "cosine" : "l2";
}
const char* name_of(Dtype dtype) { return dtype == Dtype::kF16 ? "f16" : dtype == Dtype::kBf16 ? "bf16" : "int8"; }
const char* name_of(Data data) {
  constexpr const char* kNames[] = {"gaussian", "clustered", "ties", "near", "norms", "denormal", "spike", "equal"};
  return kNames[static_cast<int>(data)];
}
const char* name_of(Floats floats) {
  constexpr const char* kNames[] = {"certified", "certified in halves", "without floats"};
  return kNames[static_cast<int>(floats)];
}
const char* name_of(Filter filter) {
  constexpr const char* kNames[] = {"none", "shared", "per-query", "list"};
  return kNames[static_cast<int>(filter)];
}

double gaussian(Random& random) {
  return std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(6.283185307179586 * random.uniform());
}

// Twelve uniform numbers from two draws: close enough to normal to time with, and quick to make by the gigabyte.
double quick_gaussian(Random& random) {
  const uint64_t a = random.next();
  const uint64_t b = random.next();
  double sum = 0;
  for (int i = 0; i < 6; ++i) {
    sum += static_cast<double>((a >> (10 * i)) & 1023) + static_cast<double>((b >> (10 * i)) & 1023);
  }
  return (sum - 12 * 511.5) / 1024;
}

double decode(Dtype dtype, const void* row, int64_t i) {
  if (dtype == Dtype::kInt8) return static_cast<const int8_t*>(row)[i];
  const uint16_t half = static_cast<const uint16_t*>(row)[i];
  if (dtype == Dtype::kBf16) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<double>(value);
  }
  const int exponent = (half >> 10) & 31;
  const double magnitude =
      exponent == 0 ? std::ldexp(half & 1023, -24) : std::ldexp(1024 + (half & 1023), exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

class EncodedCase final : public Case {
 public:
  explicit EncodedCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    char text[240];
    if (s_.title != nullptr) {
      std::snprintf(text, sizeof text, "encoded/%s n=%lld d=%lld k=%d %s %s", s_.title,
                    static_cast<long long>(s_.n_rows), static_cast<long long>(s_.dim), s_.k, name_of(s_.metric),
                    name_of(s_.data));
      return text;
    }
    std::snprintf(text, sizeof text, "encoded/%s/%s q=%lld n=%lld d=%lld k=%d %s filter=%s/%.3f %s seed=%llu",
                  name_of(s_.dtype), name_of(s_.metric), static_cast<long long>(s_.n_queries),
                  static_cast<long long>(s_.n_rows), static_cast<long long>(s_.dim), s_.k, name_of(s_.data),
                  name_of(s_.filter), s_.share, name_of(s_.floats), static_cast<unsigned long long>(s_.seed));
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    queries_.resize(static_cast<size_t>(s_.n_queries * s_.dim));
    matrix_.resize(static_cast<size_t>(s_.n_rows * s_.dim));
    fill(random);
    const int64_t n = s_.n_rows;
    stride_ = timed() ? s_.dim : s_.dim + s_.dim % 3;
    codes_.resize(static_cast<size_t>(n * stride_ * bytes_of(s_.dtype)));
    lower_.resize(s_.floats == Floats::kInHalves ? static_cast<size_t>(n * stride_) : 0);
    scale_.assign(static_cast<size_t>(n), -1.0f);
    error_.assign(static_cast<size_t>(n), -1.0f);
    norm_.assign(static_cast<size_t>(n), -1.0f);
    const int64_t bytes = (n + 7) / 8;
    bits_.assign(static_cast<size_t>(bytes * std::max<int64_t>(1, s_.n_queries)), 0);
    list_.clear();
    if (s_.filter != Filter::kNone) {
      for (int64_t b = 0; b < (s_.filter == Filter::kPerQuery ? s_.n_queries : 1); ++b) {
        for (int64_t r = 0; r < n; ++r) {
          if (random.uniform() >= s_.share) continue;
          bits_[static_cast<size_t>(b * bytes + (r >> 3))] |= static_cast<uint8_t>(1 << (r & 7));
          if (s_.filter == Filter::kList) list_.push_back(static_cast<int32_t>(r));
        }
      }
    }
    scores_.resize(static_cast<size_t>(s_.n_queries * s_.k));
    rows_.resize(scores_.size());
    in_doubt_.resize(static_cast<size_t>(s_.n_queries));
    certified_.resize(static_cast<size_t>(s_.n_queries));
    encoded_ = false;
  }

  Status call(const RunContext& context) override {
    if (!encoded_ || !timed()) {
      EncodeArgs args;
      args.matrix = {matrix_.data(), s_.n_rows, s_.dim};
      args.dtype = s_.dtype;
      args.data = codes_.data();
      args.row_stride = stride_;
      args.scale = scale_.data();
      args.error = error_.data();
      args.norm = norm_.data();
      if (s_.floats == Floats::kInHalves) args.lower = lower_.data();
      if (Status status = encode(args, context); !status.ok()) return status;
      encoded_ = true;
    }
    return topk_encoded(arguments(), context, &report_);
  }

  std::string verify() override {
    if (std::string wrong = verify_encoding(); !wrong.empty()) return wrong;
    std::vector<float> scores(scores_.size());
    std::vector<int32_t> rows(rows_.size());
    if (Status status = exact(scores.data(), rows.data()); !status.ok()) return "topk: " + status.text();
    if (std::string wrong = compare(scores, rows); !wrong.empty() || timed() || s_.n_queries == 0) return wrong;
    // Few rows may have been multiplied as floats: a scan answers alike.
    const TopkEncodedArgs args = arguments();
    if (Status status = cpu::topk_encoded(cpu::table(), args, RunContext{}, &report_); !status.ok()) {
      return "scan: " + status.text();
    }
    if (std::string wrong = compare(scores, rows); !wrong.empty()) return "scan: " + wrong;
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(s_.n_queries) * static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim);
  }
  double bytes() const override {
    return static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim * bytes_of(s_.dtype) + 12);
  }

 private:
  // With the outputs emptied.
  TopkEncodedArgs arguments() {
    std::fill(scores_.begin(), scores_.end(), 123.0f);
    std::fill(rows_.begin(), rows_.end(), 456);
    TopkEncodedArgs args;
    args.queries = {queries_.data(), s_.n_queries, s_.dim};
    args.encoded = matrix();
    if (s_.floats == Floats::kBeside) args.matrix = {matrix_.data(), s_.n_rows, s_.dim};
    args.k = s_.k;
    args.metric = s_.metric;
    args.filter = filter();
    args.scores = scores_.data();
    args.rows = rows_.data();
    args.n_in_doubt = in_doubt_.data();
    args.is_certified = certified_.data();
    return args;
  }

  // What was answered, with what topk says.
  std::string compare(const std::vector<float>& scores, const std::vector<int32_t>& rows) const {
    char text[300];
    if (s_.floats != Floats::kDropped) {
      for (size_t i = 0; i < scores.size(); ++i) {
        if (rows[i] == rows_[i] && std::memcmp(&scores[i], &scores_[i], sizeof(float)) == 0) continue;
        std::snprintf(text, sizeof text, "query %zu, rank %zu: row %d score %.9g, topk says row %d score %.9g",
                      i / static_cast<size_t>(s_.k), i % static_cast<size_t>(s_.k), rows_[i],
                      static_cast<double>(scores_[i]), rows[i], static_cast<double>(scores[i]));
        return text;
      }
      for (size_t q = 0; q < certified_.size(); ++q) {
        if (certified_[q] != 1 || in_doubt_[q] != 0) return "not certified with the floats at hand";
      }
      return report_.certified ? std::string() : "the report is not certified";
    }
    bool all = true;
    for (int64_t q = 0; q < s_.n_queries; ++q) {
      const auto at = q * s_.k;
      const std::vector<int32_t> truth(rows.begin() + at, rows.begin() + at + s_.k);
      const std::vector<int32_t> got(rows_.begin() + at, rows_.begin() + at + s_.k);
      all = all && certified_[static_cast<size_t>(q)] != 0;
      if (certified_[static_cast<size_t>(q)] != 0 && truth != got) return "certified, but not the rows of topk";
      std::vector<int32_t> missing;
      std::vector<int32_t> a = truth, b = got;
      std::sort(a.begin(), a.end());
      std::sort(b.begin(), b.end());
      std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(missing));
      // A row missing and the row in its place are both in doubt.
      if (2 * static_cast<int64_t>(missing.size()) > in_doubt_[static_cast<size_t>(q)]) {
        std::snprintf(text, sizeof text, "query %lld: %zu rows differ from topk with %d in doubt",
                      static_cast<long long>(q), missing.size(), in_doubt_[static_cast<size_t>(q)]);
        return text;
      }
    }
    return all == report_.certified ? std::string() : "the report contradicts the queries";
  }

  bool timed() const { return s_.title != nullptr; }

  EncodedMatrix matrix() const {
    EncodedMatrix m{s_.dtype,      codes_.data(), s_.n_rows,
                    s_.dim,        stride_,       has_scale(s_.dtype) ? scale_.data() : nullptr,
                    error_.data(), norm_.data()};
    if (s_.floats == Floats::kInHalves) m.lower = lower_.data();
    return m;
  }

  RowFilter filter() const {
    const int64_t bytes = (s_.n_rows + 7) / 8;
    switch (s_.filter) {
      case Filter::kShared:
        return RowFilter::shared(bits_.data(), static_cast<int64_t>(bits_.size()));
      case Filter::kPerQuery:
        return RowFilter::per_query(bits_.data(), bytes, s_.n_queries);
      case Filter::kList:
        return RowFilter::list(list_.data(), static_cast<int64_t>(list_.size()));
      default:
        return {};
    }
  }

  Status exact(float* scores, int32_t* rows) const {
    TopkArgs args;
    args.queries = {queries_.data(), s_.n_queries, s_.dim};
    args.matrix = {matrix_.data(), s_.n_rows, s_.dim};
    args.k = s_.k;
    args.metric = s_.metric;
    args.filter = filter();
    args.scores = scores;
    args.rows = rows;
    return s_.n_queries == 0 ? Status() : cpu::topk(cpu::table(), args, RunContext{});
  }

  void fill(Random& random) {
    const int64_t dim = s_.dim;
    const auto draw = [&] { return timed() ? quick_gaussian(random) : gaussian(random); };
    std::vector<double> centres;
    if (s_.data == Data::kClustered) {
      for (int64_t i = 0; i < 64 * dim; ++i) centres.push_back(draw());
    }
    const auto row = [&](float* x, int64_t r) {
      const double scale = s_.data == Data::kNorms ? (r % 7 == 3 ? 0.0 : std::pow(10.0, double(random.below(37)) - 18))
                           : s_.data == Data::kDenormal ? std::pow(10.0, -45 + double(random.below(9)))
                                                        : 1.0;
      double square = 0;
      const int64_t centre = random.below(64);
      for (int64_t i = 0; i < dim; ++i) {
        double value = s_.data == Data::kTies ? static_cast<double>(random.below(3) - 1) : draw() * scale;
        if (s_.data == Data::kClustered) value = centres[static_cast<size_t>(centre * dim + i)] + 0.25 * value;
        square += value * value;
        x[i] = static_cast<float>(value);
      }
      if (s_.data == Data::kClustered) {
        for (int64_t i = 0; i < dim; ++i) x[i] = static_cast<float>(x[i] / std::sqrt(square));
      }
      if (s_.data == Data::kSpike) x[random.below(dim)] *= 1e6f;
    };
    for (int64_t r = 0; r < s_.n_rows; ++r) {
      float* x = matrix_.data() + r * dim;
      row(x, r);
      if (s_.data == Data::kEqual && r > 0) std::copy_n(matrix_.data(), dim, x);
      if (s_.data == Data::kNear && r >= 5) {
        std::copy_n(matrix_.data() + r % 5 * dim, dim, x);
        float& value = x[random.below(dim)];
        value = std::nextafter(value, random.below(2) == 0 ? -1e30f : 1e30f);
      }
    }
    for (int64_t q = 0; q < s_.n_queries; ++q) {
      float* x = queries_.data() + q * dim;
      row(x, q);
      // Every third query lies on a row.
      if (q % 3 == 1 && s_.n_rows > 0 && !timed()) {
        std::copy_n(matrix_.data() + random.below(s_.n_rows) * dim, dim, x);
      }
    }
  }

  std::string verify_encoding() const {
    char text[200];
    for (int64_t r = 0; r < s_.n_rows; ++r) {
      const double scale = has_scale(s_.dtype) ? static_cast<double>(scale_[static_cast<size_t>(r)]) : 1.0;
      const float* x = matrix_.data() + r * s_.dim;
      double square = 0;
      double lost = 0;
      for (int64_t i = 0; i < s_.dim; ++i) {
        const double difference = x[i] - scale * decode(s_.dtype, matrix().row(r), i);
        square += static_cast<double>(x[i]) * x[i];
        lost += difference * difference;
        if (s_.floats != Floats::kInHalves) continue;
        uint32_t bits = 0;
        std::memcpy(&bits, x + i, sizeof bits);
        const uint32_t upper = static_cast<const uint16_t*>(matrix().row(r))[i];
        if ((upper << 16 | lower_[static_cast<size_t>(r * stride_ + i)]) != bits)
          return "halves that are not the float";
      }
      const double norm = static_cast<double>(norm_[static_cast<size_t>(r)]);
      const double error = static_cast<double>(error_[static_cast<size_t>(r)]);
      // Bounds, and tight ones: an ulp and what a sum in double may lose; a relative error as the format has it.
      const double cut = s_.floats == Floats::kInHalves ? 2.0 : 1.0;  // off, instead of rounded
      const double relative = s_.dtype == Dtype::kF16 ? 0x1p-11 : s_.dtype == Dtype::kBf16 ? cut * 0x1p-8 : 1.0;
      const double step = s_.dtype == Dtype::kBf16 ? 0x1p-134 : 0x1p-149;  // half of one, where values are denormal
      const double tiny = 1.01 * cut * step * std::sqrt(static_cast<double>(s_.dim));
      // An ulp of float above what the slack for sums in double left.
      const double ulp = 0x1p-23 + 1e-12;
      if (norm < std::sqrt(square) * (1 - 1e-14) || norm > std::sqrt(square) * (1 + ulp) + 2e-45 ||
          error < std::sqrt(lost) * (1 - 1e-14) || error > std::sqrt(lost) * (1 + ulp) + 2e-45 ||
          error > relative * norm * 1.01 + tiny) {
        std::snprintf(text, sizeof text, "row %lld: norm %.9g of %.9g, error %.9g of %.9g", static_cast<long long>(r),
                      norm, std::sqrt(square), error, std::sqrt(lost));
        return text;
      }
      if (s_.dtype == Dtype::kInt8 && s_.data == Data::kGaussian && error > norm * 0.02) return "int8 loses too much";
    }
    return {};
  }

  Shape s_;
  std::vector<float> queries_;
  std::vector<float> matrix_;
  std::vector<uint8_t> codes_;
  std::vector<uint16_t> lower_;
  int64_t stride_ = 0;
  bool encoded_ = false;
  std::vector<float> scale_, error_, norm_;
  std::vector<uint8_t> bits_;
  std::vector<int32_t> list_;
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  std::vector<int32_t> in_doubt_;
  std::vector<uint8_t> certified_;
  TopkEncodedReport report_;
};

}  // namespace

void add_encoded_cases(Cases& cases, bool for_bench) {
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<EncodedCase>(shape)); };
  constexpr Dtype kDtypes[] = {Dtype::kF16, Dtype::kBf16, Dtype::kInt8};
  if (for_bench) {
    static const struct {
      Dtype dtype;
      int64_t n_queries;
      const char* title;
    } kTimed[] = {{Dtype::kInt8, 1, "int8/q1"}, {Dtype::kInt8, 64, "int8/q64"}, {Dtype::kInt8, 256, "int8/q256"},
                  {Dtype::kBf16, 1, "bf16/q1"}, {Dtype::kBf16, 64, "bf16/q64"}, {Dtype::kF16, 1, "f16/q1"},
                  {Dtype::kF16, 64, "f16/q64"}};
    for (const Data data : {Data::kGaussian, Data::kClustered}) {
      for (const auto& t : kTimed) {
        const Metric metric = data == Data::kClustered ? Metric::kCosine : Metric::kInnerProduct;
        add({t.dtype, t.n_queries, 100000, 384, 100, metric, data, Filter::kNone, 1.0, Floats::kBeside, 1, t.title});
      }
    }
    return;
  }
  uint64_t seed = 1000;
  for (const Dtype dtype : kDtypes) {
    for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
      for (const Floats floats : {Floats::kBeside, Floats::kInHalves, Floats::kDropped}) {
        if (floats == Floats::kInHalves && dtype != Dtype::kBf16) continue;
        const auto plain = [&](int64_t q, int64_t n, int64_t dim, int32_t k, Data data = Data::kGaussian,
                               Filter filter = Filter::kNone, double share = 1.0) {
          add({dtype, q, n, dim, k, metric, data, filter, share, floats, ++seed});
        };
        plain(0, 10, 4, 3);
        plain(3, 0, 4, 3);
        plain(1, 1, 1, 1);
        plain(2, 5, 3, 8);
        plain(5, 3000, 384, 10);
        plain(1, 2003, 129, 33);
        plain(40, 3001, 40, 2048);
        plain(1100, 300, 20, 5);   // more queries than a pass holds
        plain(1100, 600, 20, 1);   // the same, with more rows than are multiplied outright
        plain(17, 6000, 130, 10);  // panels, and a last block of one
        for (const double share : {0.01, 0.9}) plain(20, 5000, 40, 4, Data::kTies, Filter::kShared, share);
        for (const Data data : kAllData) {
          // Ip and l2 of norms up to 1e18 squared leave float.
          if (data == Data::kNorms && metric == Metric::kL2) continue;
          for (const int64_t q : {1, 2, 3, 13}) plain(q, 1500, 24, 20, data);
          plain(9, 900, 70, 150, data, Filter::kShared, 0.3);
        }
        for (const Filter filter : {Filter::kShared, Filter::kPerQuery, Filter::kList}) {
          for (const double share : {0.0, 0.01, 0.5, 1.0}) plain(11, 2003, 33, 12, Data::kClustered, filter, share);
          plain(20, 3000, 40, 6, Data::kTies, filter, 0.05);
        }
        for (int64_t dim = 1; dim <= 70; dim += 3) plain(1 + dim % 10, 100, dim, 4);
        plain(6, 20000, 48, 100);
      }
    }
  }
}

}  // namespace waggle::conformance
