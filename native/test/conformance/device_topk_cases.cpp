// Searches of a resident matrix; only where an accelerator (or its emulation) is in use.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "test/conformance/case.hpp"
#include "waggle/backend.hpp"
#include "waggle/device_matrix.hpp"

namespace waggle::conformance {

namespace {

enum class Data { kGaussian, kIntegers, kEqual, kAscending, kNearTies, kExtreme, kAligned, kPeriodic, kHugeQueries };
enum class Filter { kNone, kShared, kPerQuery, kList };

struct Shape {
  DeviceDtype dtype;
  int64_t n_queries;
  int64_t n_rows;
  int64_t dim;
  int32_t k;
  Metric metric;
  Data data = Data::kGaussian;
  Filter filter = Filter::kNone;
  double allowed = 1.0;
  ExactRows exact = ExactRows::kOnDevice;
  uint64_t seed = 1;
};

const char* const kDtypes[] = {"f32", "f16", "bf16", "int8"};
const char* const kMetrics[] = {"ip", "cosine", "l2"};
const char* const kExact[] = {"", " host", " alone"};
const char* const kDatas[] = {"gaussian", "integers", "equal",    "ascending",   "near-ties",
                              "extreme",  "aligned",  "periodic", "huge-queries"};

class DeviceTopkCase final : public Case {
 public:
  explicit DeviceTopkCase(const Shape& shape) : s_(shape) {}

  std::string name() const override {
    char text[200];
    std::snprintf(text, sizeof text, "device/%s/%s%s q=%lld n=%lld d=%lld k=%d %s filter=%d:%.2f",
                  kDtypes[static_cast<int>(s_.dtype)], kMetrics[static_cast<int>(s_.metric)],
                  kExact[static_cast<int>(s_.exact)], static_cast<long long>(s_.n_queries),
                  static_cast<long long>(s_.n_rows), static_cast<long long>(s_.dim), s_.k,
                  kDatas[static_cast<int>(s_.data)], static_cast<int>(s_.filter), s_.allowed);
    return text;
  }

  void prepare() override {
    Random random(s_.seed);
    queries_.resize(static_cast<size_t>(s_.n_queries * s_.dim));
    matrix_.resize(static_cast<size_t>(s_.n_rows * s_.dim));
    for (size_t i = 0; i < queries_.size(); ++i) queries_[i] = value(0, random);
    std::vector<float> base(static_cast<size_t>(s_.dim));
    for (float& x : base) x = value(0, random);
    for (int64_t r = 0; r < s_.n_rows; ++r) {
      double scale = 1.0;
      if (s_.data == Data::kExtreme) {
        scale = r % 5 == 0 ? 0.0 : std::pow(10.0, static_cast<double>(random.below(31)) - 15.0);
      }
      for (int64_t i = 0; i < s_.dim; ++i) {
        float& x = matrix_[static_cast<size_t>(r * s_.dim + i)];
        switch (s_.data) {
          case Data::kEqual:
            x = base[static_cast<size_t>(i)];
            break;
          case Data::kAscending:
            x = static_cast<float>(static_cast<double>(r + 1) / static_cast<double>(s_.n_rows + 1));
            break;
          case Data::kNearTies:  // one value differs in its last bits
            x = base[static_cast<size_t>(i)];
            if (i == r % s_.dim) x = std::nextafterf(x, random.below(2) == 0 ? 10.0f : -10.0f);
            break;
          case Data::kAligned:
            break;               // below
          case Data::kPeriodic:  // every fourth tile of 128 rows is better than all others: a sample of those misleads
            x = value(r, random) * (r / 128 % 4 == 0 ? 10.0f : 1.0f);
            break;
          case Data::kHugeQueries:  // products overflow, to either side, cosines do not
            x = static_cast<float>((i < 16 ? -0.5 : 0.5) - 0.1 * random.uniform()) * 1e10f;
            break;
          default:
            x = static_cast<float>(value(r, random) * scale);
        }
      }
    }
    if (s_.data == Data::kAligned) {
      // Every row is stored as the same low-precision row; what is lost points along the queries, by a different length
      // for each. The bound of Cauchy and Schwarz is met with equality, and the true order is all in what was lost.
      constexpr double kSteps[] = {0x1p-10, 0x1p-10, 0x1p-7, 0.01};
      const double step = kSteps[static_cast<int>(s_.dtype)];
      const bool truncates = s_.dtype == DeviceDtype::kF32;
      std::fill(queries_.begin(), queries_.end(), 1.0f);
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        const double lost = (truncates ? 0.98 * random.uniform() : 0.49 * (2 * random.uniform() - 1)) * step;
        for (int64_t i = 0; i < s_.dim; ++i)
          matrix_[static_cast<size_t>(r * s_.dim + i)] = static_cast<float>(1 + lost);
        if (s_.dtype == DeviceDtype::kInt8) matrix_[static_cast<size_t>(r * s_.dim)] = 1.27f;
      }
    }
    if (s_.data == Data::kHugeQueries) {
      for (float& x : queries_) x = static_cast<float>(0.5 + random.uniform()) * 1e37f;
    }
    if (s_.data == Data::kAscending) std::fill(queries_.begin(), queries_.end(), 1.0f);
    if (s_.filter == Filter::kShared || s_.filter == Filter::kPerQuery) {
      const int64_t bitmaps = s_.filter == Filter::kShared ? 1 : s_.n_queries;
      bits_.assign(static_cast<size_t>(bitmaps * row_bytes()), 0);
      for (int64_t b = 0; b < bitmaps; ++b) {
        for (int64_t r = 0; r < s_.n_rows; ++r) {
          if (random.uniform() < s_.allowed) {
            bits_[static_cast<size_t>(b * row_bytes() + (r >> 3))] |= static_cast<uint8_t>(1 << (r & 7));
          }
        }
      }
    } else if (s_.filter == Filter::kList) {
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (random.uniform() < s_.allowed) list_.push_back(static_cast<int32_t>(r));
      }
    }
    scores_.assign(static_cast<size_t>(s_.n_queries * s_.k), 123.0f);
    rows_.assign(scores_.size(), 456);
    DeviceMatrixArgs args;
    args.matrix = {matrix_.data(), s_.n_rows, s_.dim};
    args.dtype = s_.dtype;
    args.exact = s_.exact;
    opened_ = DeviceMatrix::open(args, RunContext{}, &device_);
  }

  Status call(const RunContext& context) override {
    if (!opened_.ok()) return opened_;
    DeviceTopkArgs args;
    args.queries = {queries_.data(), s_.n_queries, s_.dim};
    args.k = s_.k;
    args.metric = s_.metric;
    if (s_.filter == Filter::kShared) {
      args.filter = RowFilter::shared(bits_.data(), static_cast<int64_t>(bits_.size()));
    } else if (s_.filter == Filter::kPerQuery) {
      args.filter = RowFilter::per_query(bits_.data(), row_bytes(), s_.n_queries);
    } else if (s_.filter == Filter::kList) {
      args.filter = RowFilter::list(list_.data(), static_cast<int64_t>(list_.size()));
    }
    args.scores = scores_.data();
    args.rows = rows_.data();
    const Status status = device_->topk(args, context);
    n_in_doubt_ = args.n_in_doubt;
    n_rescored_ = args.n_rescored;
    return status;
  }

  std::string verify() override {
    char text[300];
    std::vector<double> truth(static_cast<size_t>(s_.n_rows));
    int64_t missed = 0;
    for (int64_t q = 0; q < s_.n_queries; ++q) {
      std::vector<int32_t> order;
      double size = 0;
      for (int64_t r = 0; r < s_.n_rows; ++r) {
        if (!allowed(q, r)) continue;
        truth[static_cast<size_t>(r)] = score(q, r, &size);
        order.push_back(static_cast<int32_t>(r));
      }
      // The device rounds the double score once; so does this, up to the order of the double additions.
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return static_cast<float>(truth[static_cast<size_t>(a)]) > static_cast<float>(truth[static_cast<size_t>(b)]);
      });
      const size_t found = std::min(order.size(), static_cast<size_t>(s_.k));
      const double last = found > 0 ? truth[static_cast<size_t>(order[found - 1])] : 0;
      std::vector<uint8_t> taken(static_cast<size_t>(s_.n_rows));
      for (size_t i = 0; i < static_cast<size_t>(s_.k); ++i) {
        const size_t at = static_cast<size_t>(q * s_.k) + i;
        if (i >= found) {
          if (rows_[at] != -1 || scores_[at] != -std::numeric_limits<float>::infinity()) return "no padding";
          continue;
        }
        const int32_t r = rows_[at];
        if (r < 0 || r >= s_.n_rows || !allowed(q, r) || taken[static_cast<size_t>(r)] != 0) {
          std::snprintf(text, sizeof text, "query %lld, rank %zu: row %d is out of range, filtered or repeated",
                        static_cast<long long>(q), i, r);
          return text;
        }
        taken[static_cast<size_t>(r)] = 1;
        if (s_.exact == ExactRows::kNone) {
          if (std::fabs(scores_[at] - truth[static_cast<size_t>(r)]) > 0.05 * size) {
            std::snprintf(text, sizeof text, "query %lld, row %d: score %.9g, truth %.9g", static_cast<long long>(q), r,
                          static_cast<double>(scores_[at]), truth[static_cast<size_t>(r)]);
            return text;
          }
          // Which rows are missed, counted against the rows the device is in doubt about.
          missed += static_cast<float>(truth[static_cast<size_t>(r)]) < static_cast<float>(last) ? 1 : 0;
          continue;
        }
        // One unit in the last place of the float answer, for double sums in another order.
        const double wanted = truth[static_cast<size_t>(order[i])];
        const double slack = 1.2e-7 * std::fabs(wanted) + 1e-14 * size + 1e-44;
        if (std::fabs(scores_[at] - wanted) > slack || std::fabs(scores_[at] - truth[static_cast<size_t>(r)]) > slack) {
          std::snprintf(
              text, sizeof text, "query %lld, rank %zu: row %d score %.9g, truth of the row %.9g, of the rank %.9g",
              static_cast<long long>(q), i, r, static_cast<double>(scores_[at]), truth[static_cast<size_t>(r)], wanted);
          return text;
        }
        if ((s_.data == Data::kIntegers || s_.data == Data::kEqual) && s_.metric != Metric::kCosine && r != order[i]) {
          return "ties are not in the order of rows";
        }
      }
    }
    if (s_.exact == ExactRows::kNone && missed > n_in_doubt_) {
      std::snprintf(text, sizeof text, "%lld rows of the true answer are missing, %lld said to be in doubt",
                    static_cast<long long>(missed), static_cast<long long>(n_in_doubt_));
      return text;
    }
    // A scan that excludes nothing would be right, too, and useless: an operand that never arrived shows here.
    if (s_.exact != ExactRows::kNone && s_.data == Data::kGaussian && s_.k * 20 < s_.n_rows &&
        n_rescored_ * 4 > s_.n_queries * s_.n_rows) {
      std::snprintf(text, sizeof text, "%lld rows looked at closely: the scan excludes too little",
                    static_cast<long long>(n_rescored_));
      return text;
    }
    if (s_.exact != ExactRows::kNone && n_in_doubt_ != 0) return "an exact answer in doubt";
    return {};
  }

  double multiply_adds() const override {
    return static_cast<double>(s_.n_queries) * static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim);
  }
  double bytes() const override {
    constexpr double kBytes[] = {4, 2, 2, 1};
    return static_cast<double>(s_.n_rows) * static_cast<double>(s_.dim) * kBytes[static_cast<int>(s_.dtype)];
  }

 private:
  int64_t row_bytes() const { return (s_.n_rows + 7) / 8; }

  bool allowed(int64_t q, int64_t r) const {
    if (s_.filter == Filter::kNone) return true;
    if (s_.filter == Filter::kList) return std::binary_search(list_.begin(), list_.end(), static_cast<int32_t>(r));
    const int64_t at = (s_.filter == Filter::kPerQuery ? q * row_bytes() : 0) + (r >> 3);
    return ((bits_[static_cast<size_t>(at)] >> (r & 7)) & 1) != 0;
  }

  float value(int64_t, Random& random) const {
    if (s_.data == Data::kIntegers) return static_cast<float>(random.below(3) - 1);
    // Sum of uniforms: near enough to a Gaussian, the same on every machine.
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += random.uniform() - 0.5;
    return static_cast<float>(sum);
  }

  double score(int64_t q, int64_t r, double* size) const {
    const float* a = queries_.data() + q * s_.dim;
    const float* b = matrix_.data() + r * s_.dim;
    double dot = 0, aa = 0, bb = 0, distance = 0;
    for (int64_t i = 0; i < s_.dim; ++i) {
      const double x = a[i];
      const double y = b[i];
      dot += x * y;
      aa += x * x;
      bb += y * y;
      distance += (x - y) * (x - y);
    }
    if (s_.metric == Metric::kCosine) {
      *size = std::max(*size, 1.0);
      return aa > 0 && bb > 0 ? dot / (std::sqrt(aa) * std::sqrt(bb)) : 0.0;
    }
    if (s_.metric == Metric::kL2) {
      *size = std::max(*size, aa + bb);
      return -distance;
    }
    *size = std::max(*size, std::sqrt(aa) * std::sqrt(bb));
    return dot;
  }

  Shape s_;
  Status opened_;
  std::shared_ptr<DeviceMatrix> device_;
  std::vector<float> queries_;
  std::vector<float> matrix_;
  std::vector<uint8_t> bits_;
  std::vector<int32_t> list_;
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  int64_t n_in_doubt_ = 0;
  int64_t n_rescored_ = 0;
};

}  // namespace

void add_device_topk_cases(Cases& cases, bool for_bench) {
  if (backend_info().backend != "cuda") return;
  const auto add = [&](const Shape& shape) { cases.push_back(std::make_unique<DeviceTopkCase>(shape)); };
  constexpr DeviceDtype kAll[] = {DeviceDtype::kF32, DeviceDtype::kF16, DeviceDtype::kBf16, DeviceDtype::kInt8};
  constexpr Metric kEach[] = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};
  if (for_bench) {
    for (const DeviceDtype dtype : kAll) {
      for (const int64_t q : {1, 64, 1024}) add({dtype, q, 1000000, 384, 100, Metric::kInnerProduct});
    }
    return;
  }
  // The emulated device is slow: each way through the code once, not each combination.
  for (const DeviceDtype dtype : kAll) {
    for (const Metric metric : kEach) {
      add({dtype, 2, 5, 3, 8, metric});
      add({dtype, 1, 700, 37, 10, metric, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice, 2});
      add({dtype, 3, 400, 33, 7, metric, Data::kNearTies, Filter::kNone, 1.0, ExactRows::kOnDevice, 6});
      add({dtype, 2, 900, 40, 6, metric, Data::kAligned, Filter::kNone, 1.0, ExactRows::kOnDevice, 21});
      add({dtype, 2, 300, 12, 30, metric, Data::kExtreme, Filter::kNone, 1.0, ExactRows::kOnDevice, 7});
      add({dtype, 2, 500, 40, 10, metric, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kNone, 13});
      add({dtype, 3, 700, 33, 7, metric, Data::kNearTies, Filter::kNone, 1.0, ExactRows::kOnHost, 6});
    }
    const Metric metric = kEach[static_cast<int>(dtype) % 3];
    add({dtype, 5, 600, 37, 10, metric, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice, 3});
    add({dtype, 6, 300, 5, 50, Metric::kInnerProduct, Data::kIntegers, Filter::kNone, 1.0, ExactRows::kOnDevice, 5});
    add({dtype, 4, 500, 24, 12, metric, Data::kGaussian, Filter::kShared, 0.05, ExactRows::kOnDevice, 9});
    add({dtype, 3, 500, 24, 12, metric, Data::kGaussian, Filter::kPerQuery, 0.3, ExactRows::kOnDevice, 10});
    add({dtype, 2, 400, 40, 10, metric, Data::kGaussian, Filter::kShared, 0.1, ExactRows::kNone, 14});
    add({dtype, 1, 900, 40, 10, metric, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnHost, 19});
    add({dtype, 2, 400, 40, 10, metric, Data::kAligned, Filter::kShared, 0.1, ExactRows::kOnHost, 20});
    add({dtype, 2, 500, 12, 300, metric, Data::kExtreme, Filter::kPerQuery, 0.5, ExactRows::kOnHost, 22});
    add({dtype, 1, 9000, 4, 60, Metric::kL2, Data::kEqual, Filter::kNone, 1.0, ExactRows::kOnHost, 23});  // overflows
    add({dtype, 1, 9000, 3, 2048, Metric::kInnerProduct, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice,
         15});
    add({dtype, 2, 9000, 4, 60, Metric::kInnerProduct, Data::kAscending, Filter::kNone, 1.0, ExactRows::kOnDevice,
         16});                                                                                              // overflows
    add({dtype, 1, 7000, 4, 60, Metric::kL2, Data::kEqual, Filter::kNone, 1.0, ExactRows::kOnDevice, 17});  // overflows
    add({dtype, 2, 9000, 4, 60, metric, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice, 24});
    add({dtype, 2, 4000, 60, 10, Metric::kCosine, Data::kHugeQueries, Filter::kNone, 1.0, ExactRows::kOnDevice, 28});
    add({dtype, 2, 9000, 4, 60, Metric::kInnerProduct, Data::kPeriodic, Filter::kNone, 1.0, ExactRows::kOnDevice, 25});
    add({dtype, 2, 150, 1300, 9, Metric::kCosine, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice,
         18});  // many blocks of depth
  }
  const DeviceDtype dtype = DeviceDtype::kF16;
  add({dtype, 0, 10, 4, 3, Metric::kInnerProduct});
  add({dtype, 3, 0, 4, 3, Metric::kInnerProduct});
  add({dtype, 1, 1, 1, 1, Metric::kCosine});
  add({dtype, 130, 300, 70, 20, Metric::kInnerProduct, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kOnDevice, 4});
  add({dtype, 4, 800, 24, 12, Metric::kInnerProduct, Data::kGaussian, Filter::kShared, 0.5, ExactRows::kOnDevice, 8});
  add({dtype, 3, 800, 24, 12, Metric::kCosine, Data::kGaussian, Filter::kList, 0.1, ExactRows::kOnDevice, 11});
  add({dtype, 2, 9000, 4, 60, Metric::kL2, Data::kGaussian, Filter::kPerQuery, 0.5, ExactRows::kOnDevice, 26});
  add({dtype, 2, 9000, 4, 60, Metric::kCosine, Data::kGaussian, Filter::kNone, 1.0, ExactRows::kNone, 27});
  add({dtype, 3, 300, 24, 12, Metric::kL2, Data::kGaussian, Filter::kShared, 0.0, ExactRows::kOnDevice, 12});
}

}  // namespace waggle::conformance
