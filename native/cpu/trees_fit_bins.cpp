#include "cpu/trees_fit_bins.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "src/ivf/codes.hpp"

namespace waggle::cpu {

namespace {

constexpr int64_t kSampleRows = 200'000;
constexpr uint32_t kSlotsPerBlock = 5120;  // 8 bytes each: within 48 KiB
constexpr int64_t kFeaturesPerBlock = 64;
constexpr int32_t kTableCategories = 1 << 16;  // below this, a category is looked up; beyond, searched for

// Bits of a float in the order of the numbers.
uint32_t ordered(float x) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float unordered(uint32_t bits) {
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
  float x = 0;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Least significant digits first, 11 bits at a time.
void sort_floats(std::vector<float>& values, std::vector<uint32_t>& a, std::vector<uint32_t>& b) {
  constexpr int kBits = 11;
  constexpr size_t kDigits = size_t{1} << kBits;
  a.resize(values.size());
  b.resize(values.size());
  std::vector<uint32_t> counts(3 * kDigits, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    a[i] = ordered(values[i] + 0.0f);  // −0 is 0
    for (size_t pass = 0; pass < 3; ++pass) ++counts[pass * kDigits + ((a[i] >> (kBits * pass)) & (kDigits - 1))];
  }
  for (size_t pass = 0; pass < 3; ++pass) {
    uint32_t* const count = counts.data() + pass * kDigits;
    uint32_t before = 0;
    for (size_t d = 0; d < kDigits; ++d) before += std::exchange(count[d], before);
    for (const uint32_t v : a) b[count[(v >> (kBits * pass)) & (kDigits - 1)]++] = v;
    a.swap(b);
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = unordered(a[i]);
}

bool is_category(float x) { return x >= 0 && x <= static_cast<float>(kTreesFitMaxCategory) && x == std::floor(x); }

Status wrong_value(const TreesFitRows& rows, const char* name, int64_t row, const std::vector<FitFeature>& features) {
  for (int64_t f = 0; f < rows.x.cols; ++f) {
    const float x = rows.x.row(row)[f];
    if (std::isinf(x)) {
      return fail(Code::kNotFinite, "%sx is infinite at row %lld, feature %lld; NaN stands for a missing value", name,
                  static_cast<long long>(row), static_cast<long long>(f));
    }
    if (features[static_cast<size_t>(f)].categorical && !std::isnan(x) && !is_category(x)) {
      return fail(Code::kInvalidArgument, "%sx is %g at row %lld, feature %lld; a category is an integer from 0 to %d",
                  name, static_cast<double>(x), static_cast<long long>(row), static_cast<long long>(f),
                  kTreesFitMaxCategory);
    }
  }
  return fail(Code::kInternal, "no wrong value in row %lld", static_cast<long long>(row));
}

std::vector<FitFeature> kinds(const TreesFitArgs& args) {
  std::vector<FitFeature> features(static_cast<size_t>(args.train.x.cols));
  for (int64_t i = 0; i < args.n_categorical; ++i)
    features[static_cast<size_t>(args.categorical[i])].categorical = true;
  return features;
}

void lower(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load(std::memory_order_relaxed);
  while (value < seen && !least.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// The most frequent ones, the lower one of equally frequent ones first.
void find_categories(const std::vector<float>& sorted, int32_t most, bool whole, FitFeature* feature) {
  std::vector<std::pair<int64_t, int32_t>> counts;  // of −frequency, value
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i;
    while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
    counts.emplace_back(-static_cast<int64_t>(end - i), static_cast<int32_t>(sorted[i]));
    i = end;
  }
  std::sort(counts.begin(), counts.end());
  const size_t room = static_cast<size_t>(most);
  const bool others = !whole || counts.size() > room;
  const size_t kept = std::min(counts.size(), others ? room - 1 : room);
  for (size_t i = 0; i < kept; ++i) feature->categories.push_back(counts[i].second);
  feature->n_bins = static_cast<int32_t>(kept) + (others ? 1 : 0);
  feature->n_bins = std::max(feature->n_bins, 1);
}

// A category's bin.
class CategoryBins {
 public:
  explicit CategoryBins(const FitFeature& feature) {
    others_ = static_cast<uint8_t>(feature.categories.size());
    int32_t most = -1;
    for (const int32_t c : feature.categories) most = c < kTableCategories ? std::max(most, c) : most;
    table_.assign(static_cast<size_t>(most) + 1, others_);
    for (size_t i = 0; i < feature.categories.size(); ++i) {
      const int32_t c = feature.categories[i];
      if (c < kTableCategories) {
        table_[static_cast<size_t>(c)] = static_cast<uint8_t>(i);
      } else {
        large_.emplace_back(c, static_cast<uint8_t>(i));
      }
    }
    std::sort(large_.begin(), large_.end());
  }

  uint8_t operator()(int32_t c) const {
    if (static_cast<size_t>(c) < table_.size()) return table_[static_cast<size_t>(c)];
    if (c < kTableCategories) return others_;
    const auto at = std::lower_bound(large_.begin(), large_.end(), std::pair<int32_t, uint8_t>(c, 0));
    return at != large_.end() && at->first == c ? at->second : others_;
  }

 private:
  uint8_t others_ = 0;
  std::vector<uint8_t> table_;
  std::vector<std::pair<int32_t, uint8_t>> large_;
};

struct AlignedFree {
  void operator()(void* p) const { ::operator delete (p, std::align_val_t{64}); }
};
template <typename T>
std::unique_ptr<T, AlignedFree> aligned(size_t n) {
  return std::unique_ptr<T, AlignedFree>(static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})));
}

// Tiles of kTreesTile rows, through the kernels that prediction bins with where the level has them.
class Binner {
 public:
  Binner(const Table& table, const TreesFitArgs& args, FitBins* bins, int workers)
      : kernels_(table.trees), x_(args.train.x), bins_(*bins), scratch_(static_cast<size_t>(workers)) {
    for (size_t f = 0; f < bins_.features.size(); ++f) {
      const FitFeature& feature = bins_.features[f];
      all_.push_back(static_cast<int32_t>(f));
      categories_.push_back(feature.categorical ? std::make_unique<CategoryBins>(feature) : nullptr);
      int32_t levels = 0;
      while ((size_t{1} << levels) <= feature.cuts.size()) ++levels;
      levels_.push_back(levels);
      // The implicit search tree of the kernels; see TreesKernels::bin.
      const size_t start = heaps_.size();
      heaps_.resize(start + 256, std::numeric_limits<float>::quiet_NaN());
      for (int32_t l = 0; l < levels; ++l) {
        for (size_t k = 0; k < (size_t{1} << l); ++k) {
          const size_t at = (2 * k + 1) * (size_t{1} << (levels - 1 - l)) - 1;
          if (at < feature.cuts.size()) heaps_[start + (size_t{1} << l) + k] = feature.cuts[at];
        }
      }
    }
    for (Scratch& s : scratch_) {
      s.columns = aligned<float>(bins_.features.size() * kTreesTile + 16);
      s.bytes = aligned<uint8_t>(kTreesTile);
      s.missing.assign(bins_.features.size(), 0);
    }
  }

  // The first row with a wrong value, or −1.
  int64_t tile(int64_t first, int32_t rows, int worker) {
    Scratch& s = scratch_[static_cast<size_t>(worker)];
    float* const columns = s.columns.get();
    const float* const x = x_.row(first);
    const int32_t p = static_cast<int32_t>(x_.cols);
    if (kernels_.transpose != nullptr) {
      kernels_.transpose(x, x_.cols, rows, all_.data(), p, columns);
    } else {
      for (int32_t r = 0; r < rows; ++r) {
        for (int32_t f = 0; f < p; ++f) columns[int64_t{f} * kTreesTile + r] = x[int64_t{r} * p + f];
      }
    }
    for (int32_t f = 0; f < p; ++f) {
      const int64_t wrong = column(f, first, rows, columns + int64_t{f} * kTreesTile, s);
      if (wrong >= 0) {
        // The lowest one, whichever feature it is in.
        for (int32_t r = 0; r < rows; ++r) {
          for (int32_t j = 0; j < p; ++j) {
            if (is_wrong(j, columns[int64_t{j} * kTreesTile + r])) return first + r;
          }
        }
        return wrong;
      }
    }
    return -1;
  }

  bool found_missing(size_t f) const {
    return std::any_of(scratch_.begin(), scratch_.end(), [f](const Scratch& s) { return s.missing[f] != 0; });
  }

 private:
  struct Scratch {
    std::unique_ptr<float, AlignedFree> columns;
    std::unique_ptr<uint8_t, AlignedFree> bytes;
    std::vector<uint8_t> missing;
  };

  bool is_wrong(int32_t f, float x) const {
    return std::isinf(x) || (bins_.features[static_cast<size_t>(f)].categorical && !std::isnan(x) && !is_category(x));
  }

  int64_t column(int32_t f, int64_t first, int32_t rows, const float* values, Scratch& s) {
    const FitFeature& feature = bins_.features[static_cast<size_t>(f)];
    const CategoryBins* const categories = categories_[static_cast<size_t>(f)].get();
    uint8_t* const bytes = s.bytes.get();
    float largest = 0;
    uint8_t missing = 0;
    for (int32_t r = 0; r < rows; ++r) {
      const float size = std::fabs(values[r]);
      largest = size > largest ? size : largest;
      missing |= static_cast<uint8_t>(values[r] != values[r]);
    }
    if (largest > std::numeric_limits<float>::max()) return first;
    s.missing[static_cast<size_t>(f)] |= missing;
    if (categories != nullptr) {
      for (int32_t r = 0; r < rows; ++r) {
        const float v = values[r];
        if (v != v) {
          bytes[r] = kTreesNanBin;
        } else if (!is_category(v)) {
          return first;
        } else {
          bytes[r] = (*categories)(static_cast<int32_t>(v));
        }
      }
    } else if (kernels_.bin != nullptr) {
      kernels_.bin(values, (rows + kTreesBlock - 1) / kTreesBlock, heaps_.data() + static_cast<size_t>(f) * 256,
                   levels_[static_cast<size_t>(f)], bytes, nullptr);
    } else {
      for (int32_t r = 0; r < rows; ++r) {
        const float v = values[r];
        bytes[r] = v != v ? kTreesNanBin
                          : static_cast<uint8_t>(std::upper_bound(feature.cuts.begin(), feature.cuts.end(), v) -
                                                 feature.cuts.begin());
      }
    }
    if (feature.block < 0) return -1;
    FitBlock& block = bins_.blocks[static_cast<size_t>(feature.block)];
    const int64_t stride = block.stride();
    uint8_t* const out = block.bins.data() + first * stride + feature.column;
    const uint8_t nan = static_cast<uint8_t>(feature.n_bins);
    for (int32_t r = 0; r < rows; ++r) out[r * stride] = std::min(bytes[r], nan);
    return -1;
  }

  const TreesKernels& kernels_;
  const Matrix<const float> x_;
  FitBins& bins_;
  std::vector<int32_t> all_;
  std::vector<int32_t> levels_;
  trees::AlignedVector<float> heaps_;
  std::vector<std::unique_ptr<CategoryBins>> categories_;
  std::vector<Scratch> scratch_;
};

// Consecutive features share a block while their slots fit. One slot more than bins each: whether a value is missing
// somewhere is known later.
void lay_out(FitBins* bins, int64_t n) {
  for (size_t f = 0; f < bins->features.size(); ++f) {
    FitFeature& feature = bins->features[f];
    const uint32_t slots = static_cast<uint32_t>(feature.n_bins) + 1;
    if (bins->blocks.empty() || bins->blocks.back().n_slots + slots > kSlotsPerBlock ||
        bins->blocks.back().stride() == kFeaturesPerBlock) {
      bins->blocks.emplace_back();
      bins->blocks.back().first_slot = bins->n_slots;
    }
    FitBlock& block = bins->blocks.back();
    feature.block = static_cast<int32_t>(bins->blocks.size()) - 1;
    feature.column = static_cast<uint16_t>(block.features.size());
    feature.first_slot = bins->n_slots;
    block.features.push_back(static_cast<int32_t>(f));
    block.n_slots += slots;
    bins->n_slots += slots;
  }
  for (FitBlock& block : bins->blocks) block.bins.resize(static_cast<size_t>(n * block.stride()) + 64);
}

}  // namespace

std::vector<float> find_cuts(const float* values, int64_t n, int32_t most) {
  std::vector<std::pair<float, int64_t>> distinct;
  for (int64_t i = 0; i < n;) {
    int64_t end = i;
    while (end < n && values[end] == values[i]) ++end;
    distinct.emplace_back(values[i], end - i);
    i = end;
  }
  std::vector<float> cuts;
  const auto cut_before = [&](size_t i) {
    const float a = distinct[i - 1].first;
    const float b = distinct[i].first;
    const float middle = static_cast<float>((static_cast<double>(a) + static_cast<double>(b)) / 2);
    cuts.push_back(middle > a && middle <= b ? middle : b);
  };
  if (static_cast<int64_t>(distinct.size()) <= most) {
    for (size_t i = 1; i < distinct.size(); ++i) cut_before(i);
    return cuts;
  }
  // A value with more than its share has a bin of its own; the others share what is left.
  const double share = static_cast<double>(n) / most;
  int64_t rest = 0;
  int32_t bins_left = most;
  for (const auto& [value, count] : distinct) {
    if (static_cast<double>(count) >= share) {
      --bins_left;
    } else {
      rest += count;
    }
  }
  double target = static_cast<double>(rest) / std::max(bins_left, 1);
  int64_t in_bin = 0;
  for (size_t i = 0; i + 1 < distinct.size(); ++i) {
    const bool heavy = static_cast<double>(distinct[i].second) >= share;
    const bool next_heavy = static_cast<double>(distinct[i + 1].second) >= share;
    in_bin += distinct[i].second;
    if (!heavy) rest -= distinct[i].second;
    const bool full = static_cast<double>(in_bin) >= target;
    if (heavy || full || (next_heavy && static_cast<double>(in_bin) >= target / 2)) {
      cut_before(i + 1);
      if (static_cast<int32_t>(cuts.size()) == most - 1) break;
      in_bin = 0;
      if (!heavy) {
        --bins_left;
        target = static_cast<double>(rest) / std::max(bins_left, 1);
      }
    }
  }
  return cuts;
}

Status check_values(const TreesFitArgs& args, const TreesFitRows& rows, const char* name, Team& team) {
  const std::vector<FitFeature> features = kinds(args);
  constexpr int64_t kRows = 4096;
  std::atomic<int64_t> wrong{std::numeric_limits<int64_t>::max()};
  const int64_t p = rows.x.cols;
  team.run((rows.x.rows + kRows - 1) / kRows, [&](int64_t i, int) {
    for (int64_t r = i * kRows; r < std::min(rows.x.rows, (i + 1) * kRows); ++r) {
      const float* x = rows.x.row(r);
      bool bad = false;
      for (int64_t f = 0; f < p; ++f) bad |= std::fabs(x[f]) > std::numeric_limits<float>::max();
      for (int64_t c = 0; c < args.n_categorical; ++c) {
        const float v = x[args.categorical[c]];
        bad |= v == v && !is_category(v);
      }
      if (bad) return lower(wrong, r);
    }
  });
  if (wrong.load() < rows.x.rows) return wrong_value(rows, name, wrong.load(), features);
  return {};
}

Status make_bins(const Table& table, const TreesFitArgs& args, const RunContext& context, Team& team, FitBins* out) {
  const int64_t n = args.train.x.rows;
  const int64_t p = args.train.x.cols;
  const int64_t n_sample = std::min(n, kSampleRows);
  out->features = kinds(args);
  std::vector<int64_t> sample(static_cast<size_t>(n_sample));
  for (int64_t i = 0; i < n_sample; ++i) {
    sample[static_cast<size_t>(i)] = n_sample < n ? ivf::stratified(i, n_sample, n, args.seed) : i;
  }
  // Features side by side in memory are read together.
  constexpr int64_t kTogether = 4;
  std::atomic<bool> wrong{false};
  team.run((p + kTogether - 1) / kTogether, [&](int64_t group, int) {
    if (context.stop_requested()) return;
    const int64_t begin = group * kTogether;
    const int64_t end = std::min(p, begin + kTogether);
    std::vector<std::vector<float>> values(static_cast<size_t>(end - begin));
    for (auto& v : values) v.reserve(sample.size());
    for (const int64_t row : sample) {
      const float* x = args.train.x.row(row);
      for (int64_t f = begin; f < end; ++f) {
        if (x[f] == x[f]) values[static_cast<size_t>(f - begin)].push_back(x[f]);
      }
    }
    std::vector<uint32_t> a;
    std::vector<uint32_t> b;
    for (int64_t f = begin; f < end; ++f) {
      std::vector<float>& v = values[static_cast<size_t>(f - begin)];
      FitFeature& feature = out->features[static_cast<size_t>(f)];
      sort_floats(v, a, b);
      // Infinities and negative categories are at the ends; the rest is looked at when rows are binned.
      if (!v.empty() && (std::isinf(v.front()) || std::isinf(v.back()) ||
                         (feature.categorical && !std::all_of(v.begin(), v.end(), is_category)))) {
        wrong.store(true, std::memory_order_relaxed);
        continue;
      }
      if (feature.categorical) {
        find_categories(v, args.max_bins, n_sample == n, &feature);
      } else {
        feature.cuts = find_cuts(v.data(), static_cast<int64_t>(v.size()), args.max_bins);
        feature.n_bins = static_cast<int32_t>(feature.cuts.size()) + 1;
      }
    }
  });
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (wrong.load()) return check_values(args, args.train, "", team);
  lay_out(out, n);
  Binner binner(table, args, out, team.max_workers());
  std::atomic<int64_t> first_wrong{std::numeric_limits<int64_t>::max()};
  team.run((n + kTreesTile - 1) / kTreesTile, [&](int64_t i, int worker) {
    if (context.stop_requested()) return;
    const int64_t first = i * kTreesTile;
    const int64_t at = binner.tile(first, static_cast<int32_t>(std::min<int64_t>(kTreesTile, n - first)), worker);
    if (at >= 0) lower(first_wrong, at);
  });
  if (context.stop_requested()) return fail(Code::kCancelled, "cancelled");
  if (first_wrong.load() < n) return wrong_value(args.train, "", first_wrong.load(), out->features);
  for (size_t f = 0; f < out->features.size(); ++f) out->features[f].has_missing = binner.found_missing(f);
  return {};
}

}  // namespace waggle::cpu
