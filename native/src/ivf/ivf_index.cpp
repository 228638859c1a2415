#include "waggle/ivf.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "src/ivf/parts.hpp"
#include "src/registry.hpp"
#include "src/squared_length.hpp"

namespace waggle {

namespace ivf {
Status build(const cpu::Table& table, const IvfBuildArgs& args, const RunContext& context, IvfIndex::Parts& parts);
}

namespace {

constexpr char kKind[] = "IVF";
constexpr uint32_t kVersion = 1;

/// The section HEAD. Fixed widths, no padding.
struct Head {
  int64_t n_rows;
  int64_t dim;
  int64_t n_measured;
  double recall_target;
  int32_t metric;
  int32_t n_probe;
  int32_t recall_k;
  int32_t held_out;
  int32_t by_distance;
  float typical_length;
};
static_assert(sizeof(Head) == 56);

/// The section CURVE.
struct CurvePoint {
  double recall;
  double standard_error;
  int64_t n_probe;
};

bool known(Metric metric) {
  return metric == Metric::kInnerProduct || metric == Metric::kCosine || metric == Metric::kL2;
}

Status check(const IvfBuildArgs& args) {
  const int64_t dim = args.matrix.cols;
  if (!known(args.metric)) return fail(Code::kInvalidArgument, "unknown metric %d", static_cast<int>(args.metric));
  if (dim < 1 || dim > kIvfMaxDim) {
    return fail(Code::kShape, "dim is %lld; it must be 1 to %lld", static_cast<long long>(dim),
                static_cast<long long>(kIvfMaxDim));
  }
  if (args.matrix.rows < 1 || args.matrix.rows > std::numeric_limits<int32_t>::max()) {
    return fail(Code::kShape, "nRows is %lld; an index needs 1 to 2^31 - 1", static_cast<long long>(args.matrix.rows));
  }
  int64_t elements = 0;
  if (!checked_product(args.matrix.rows, dim, &elements) || !checked_product(args.held_out.rows, dim, &elements)) {
    return fail(Code::kShape, "sizes are negative or overflow");
  }
  if (args.matrix.data == nullptr) return fail(Code::kShape, "matrix is missing");
  if (args.held_out.rows > 0 && (args.held_out.data == nullptr || args.held_out.cols != dim)) {
    return fail(Code::kShape, "held-out queries are missing or differ from the matrix in dim");
  }
  if (args.n_lists < 0 || args.n_lists > kIvfMaxLists) {
    return fail(Code::kInvalidArgument, "nLists is %d; it must be 0 to %d", args.n_lists, kIvfMaxLists);
  }
  if (!(args.recall > 0 && args.recall <= 1)) {
    return fail(Code::kInvalidArgument, "recall is %g; it must be above 0 and at most 1", args.recall);
  }
  if (args.recall_k < 1 || args.recall_k >= kTopkMaxK) {
    return fail(Code::kInvalidArgument, "recallK is %d; it must be 1 to %d", args.recall_k, kTopkMaxK - 1);
  }
  if (args.n_sample < 1) return fail(Code::kInvalidArgument, "nSample is %d; it must be at least 1", args.n_sample);
  return {};
}

FileWriter writer_of(const IvfIndex::Parts& p, const Head& head, const std::vector<CurvePoint>& curve) {
  FileWriter writer(kKind, kVersion);
  writer.add("HEAD", &head, sizeof head);
  writer.add("CURVE", curve.data(), static_cast<int64_t>(curve.size() * sizeof(CurvePoint)));
  writer.add("CENTROID", p.centroids.data(), p.centroids.bytes());
  writer.add("MEAN", p.mean.data(), p.mean.bytes());
  writer.add("FIRST", p.first_group.data(), p.first_group.bytes());
  writer.add("SIZES", p.sizes.data(), p.sizes.bytes());
  writer.add("ROWS", p.rows.data(), p.rows.bytes());
  writer.add("CODES", p.groups.data(), p.groups.bytes());
  writer.add("SCALE", p.scale.data(), p.scale.bytes());
  writer.add("BIAS", p.bias.data(), p.bias.bytes());
  writer.add("VALUES", p.values.data(), p.values.bytes());
  return writer;
}

Head head_of(const IvfIndex::Parts& p) {
  return {p.n_rows,  p.dim,      p.n_measured,       p.recall_target,       static_cast<int32_t>(p.metric),
          p.n_probe, p.recall_k, p.held_out ? 1 : 0, p.by_distance ? 1 : 0, p.typical_length};
}

std::vector<CurvePoint> curve_of(const IvfIndex::Parts& p) {
  std::vector<CurvePoint> curve;
  for (const IvfRecallPoint& point : p.curve) curve.push_back({point.recall, point.standard_error, point.n_probe});
  return curve;
}

template <typename T>
Status read(const MappedFile& file, const char* name, ivf::Store<T>& store) {
  const T* data = nullptr;
  int64_t count = 0;
  if (Status status = file.section(name, &data, &count); !status.ok()) return status;
  store.borrow(data, count);
  return {};
}

/// Rows are no longer than 1e18, so neither are their means.
bool short_enough(const ivf::Store<float>& vectors, int64_t dim) {
  for (int64_t at = 0; at < vectors.size(); at += dim) {
    if (!(squared_length(vectors.data() + at, dim) <= 1.01 * kLargestSquare)) return false;
  }
  return true;
}

bool finite(const ivf::Store<float>& store) {
  // The exponent of NaN and infinity is all ones; integers vectorise where isfinite() does not.
  uint32_t worst = 0;
  for (int64_t i = 0; i < store.size(); ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, store.data() + i, sizeof bits);
    worst = std::max(worst, bits & 0x7fffffffu);
  }
  return worst < 0x7f800000u;
}

/// Everything that a search relies on, so that no file can make it read outside of the arrays.
Status read_parts(std::shared_ptr<const MappedFile> file, IvfIndex::Parts& p) {
  const Head* head = nullptr;
  const CurvePoint* curve = nullptr;
  int64_t n_heads = 0;
  int64_t n_points = 0;
  if (Status status = file->section("HEAD", &head, &n_heads); !status.ok()) return status;
  if (Status status = file->section("CURVE", &curve, &n_points); !status.ok()) return status;
  if (n_heads != 1) return file->wrong("the head of the IVF file has the wrong size");
  p.n_rows = head->n_rows;
  p.dim = head->dim;
  p.metric = static_cast<Metric>(head->metric);
  p.n_probe = head->n_probe;
  p.n_measured = head->n_measured;
  p.recall_target = head->recall_target;
  p.recall_k = head->recall_k;
  p.held_out = head->held_out != 0;
  p.by_distance = head->by_distance != 0;
  p.typical_length = head->typical_length;
  if (p.n_rows < 1 || p.n_rows > std::numeric_limits<int32_t>::max() || p.dim < 1 || p.dim > kIvfMaxDim ||
      !known(p.metric) || p.recall_k < 1 || p.n_measured < 0 || !(p.recall_target > 0 && p.recall_target <= 1) ||
      (head->held_out & ~1) != 0 || (head->by_distance & ~1) != 0 ||
      !(p.typical_length >= 0 && p.typical_length <= 1e18f)) {
    return file->wrong("the head of the IVF file is out of range");
  }
  p.quads = ivf::quads_of(p.dim);
  if (Status status = read(*file, "CENTROID", p.centroids); !status.ok()) return status;
  if (Status status = read(*file, "MEAN", p.mean); !status.ok()) return status;
  if (Status status = read(*file, "FIRST", p.first_group); !status.ok()) return status;
  if (Status status = read(*file, "SIZES", p.sizes); !status.ok()) return status;
  if (Status status = read(*file, "ROWS", p.rows); !status.ok()) return status;
  if (Status status = read(*file, "CODES", p.groups); !status.ok()) return status;
  if (Status status = read(*file, "SCALE", p.scale); !status.ok()) return status;
  if (Status status = read(*file, "BIAS", p.bias); !status.ok()) return status;
  if (Status status = read(*file, "VALUES", p.values); !status.ok()) return status;

  const int64_t n_lists = p.n_lists();
  if (n_lists < 1 || n_lists > kIvfMaxLists || p.first_group.size() != n_lists + 1 ||
      p.centroids.size() != n_lists * p.dim || p.mean.size() != p.dim || p.n_probe < 1 || p.n_probe > n_lists) {
    return file->wrong("the lists of the IVF file contradict its head");
  }
  int64_t total = 0;
  if (p.first_group[0] != 0) return file->wrong("the first list of the IVF file does not start at 0");
  for (int64_t l = 0; l < n_lists; ++l) {
    if (p.sizes[l] < 1 || p.first_group[l + 1] < 0 ||
        p.first_group[l + 1] - p.first_group[l] != ivf::groups_of(p.sizes[l])) {
      return file->wrong("a list of the IVF file has a size that contradicts its place");
    }
    total += p.sizes[l];
  }
  const int64_t n_groups = p.first_group[n_lists];
  const bool codes = p.groups.size() > 0;
  if (total != p.n_rows || p.rows.size() != n_groups * ivf::kGroup ||
      (codes && (p.groups.size() != n_groups * p.quads * 64 || p.scale.size() != p.rows.size() ||
                 p.bias.size() != p.rows.size())) ||
      (!codes && (p.scale.size() != 0 || p.bias.size() != 0)) ||
      (p.values.size() != 0 && p.values.size() != p.n_rows * p.dim) || (!codes && p.values.size() == 0)) {
    return file->wrong("the sections of the IVF file contradict each other in size");
  }
  std::vector<bool> seen(static_cast<size_t>(p.n_rows), false);
  for (int64_t l = 0; l < n_lists; ++l) {
    const int32_t* rows = p.rows.data() + p.first_group[l] * ivf::kGroup;
    for (int64_t i = 0; i < p.sizes[l]; ++i) {
      if (rows[i] < 0 || rows[i] >= p.n_rows || (i > 0 && rows[i] <= rows[i - 1]) ||
          seen[static_cast<size_t>(rows[i])]) {
        return file->wrong("a list of the IVF file holds a row out of range, out of order or twice");
      }
      seen[static_cast<size_t>(rows[i])] = true;
    }
  }
  if (!short_enough(p.centroids, p.dim) || !short_enough(p.mean, p.dim) || !finite(p.scale) || !finite(p.bias)) {
    return file->wrong("the IVF file holds a number that is not finite, or a centroid that is too long");
  }
  for (int64_t i = 0; i < n_points; ++i) {
    if (curve[i].n_probe < 1 || curve[i].n_probe > n_lists || !(curve[i].recall >= 0 && curve[i].recall <= 1) ||
        !(curve[i].standard_error >= 0 && curve[i].standard_error <= 1)) {
      return file->wrong("the recall curve of the IVF file is out of range");
    }
    p.curve.push_back({static_cast<int32_t>(curve[i].n_probe), curve[i].recall, curve[i].standard_error});
  }
  p.file = std::move(file);
  return {};
}

constexpr FileKind kFileKind{kKind, kVersion, kVersion};

}  // namespace

IvfIndex::IvfIndex(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
IvfIndex::~IvfIndex() = default;

Status IvfIndex::build(const IvfBuildArgs& args, const RunContext& context, std::shared_ptr<const IvfIndex>* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    if (Status status = check(args); !status.ok()) return status;
    auto parts = std::make_unique<Parts>();
    if (Status status = ivf::build(*r.table, args, context, *parts); !status.ok()) return status;
    out->reset(new IvfIndex(std::move(parts)));
    return {};
  });
}

Status IvfIndex::search(const IvfSearchArgs& args, const RunContext& context, IvfSearchReport* report) const {
  return guarded([&]() -> Status {
    const Parts& p = *parts_;
    if (args.k < 1 || args.k > kTopkMaxK) {
      return fail(Code::kInvalidArgument, "k is %d; it must be 1 to %d", args.k, kTopkMaxK);
    }
    if (args.n_probe < 0) return fail(Code::kInvalidArgument, "nProbe is %d; it must not be negative", args.n_probe);
    if (args.queries.rows < 0 || args.queries.cols != p.dim) {
      return fail(Code::kShape, "queries have %lld dimensions; the index has %lld",
                  static_cast<long long>(args.queries.cols), static_cast<long long>(p.dim));
    }
    int64_t answers = 0;
    if (!checked_product(args.queries.rows, args.k, &answers)) return fail(Code::kShape, "sizes overflow");
    if (Status status = check_filter(args.filter, args.queries.rows, p.n_rows); !status.ok()) return status;
    IvfSearchReport done;
    if (args.queries.rows > 0) {
      if (args.queries.data == nullptr || args.scores == nullptr || args.rows == nullptr) {
        return fail(Code::kShape, "queries or an output is missing");
      }
      for (int64_t q = 0; q < args.queries.rows; ++q) {
        if (!(squared_length(args.queries.row(q), p.dim) <= kLargestSquare)) {
          return fail(Code::kNotFinite, "query %lld holds NaN or infinity, or its squared length exceeds 1e36",
                      static_cast<long long>(q));
        }
      }
      IvfSearchArgs filled = args;
      filled.n_probe =
          static_cast<int32_t>(std::min<int64_t>(args.n_probe == 0 ? p.n_probe : args.n_probe, p.n_lists()));
      if (Status status = ivf::search(*registry().table, p, filled, context, &done); !status.ok()) return status;
    }
    if (report != nullptr) *report = done;
    return {};
  });
}

Status IvfIndex::save(const std::string& path, const RunContext& context) const {
  return guarded([&]() -> Status {
    const Head head = head_of(*parts_);
    const std::vector<CurvePoint> curve = curve_of(*parts_);
    return writer_of(*parts_, head, curve).save(path, context);
  });
}

Status IvfIndex::to_memory(std::vector<uint8_t>* out) const {
  return guarded([&]() -> Status {
    const Head head = head_of(*parts_);
    const std::vector<CurvePoint> curve = curve_of(*parts_);
    return writer_of(*parts_, head, curve).to_memory(out);
  });
}

Status IvfIndex::load(const std::string& path, const RunContext& context, std::shared_ptr<const IvfIndex>* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::open(path, kFileKind, Verify::kFull, context, &file); !status.ok()) return status;
    auto parts = std::make_unique<Parts>();
    if (Status status = read_parts(std::move(file), *parts); !status.ok()) return status;
    parts->prepare(*r.table);
    parts->coarse.values = {};
    out->reset(new IvfIndex(std::move(parts)));
    return {};
  });
}

Status IvfIndex::from_memory(const void* bytes, int64_t size, const RunContext& context,
                             std::shared_ptr<const IvfIndex>* out) {
  return guarded([&]() -> Status {
    const Registry& r = registry();
    if (!r.status.ok()) return r.status;
    std::shared_ptr<const MappedFile> file;
    if (Status status = MappedFile::copy_of(bytes, size, kFileKind, Verify::kFull, context, &file); !status.ok()) {
      return status;
    }
    auto parts = std::make_unique<Parts>();
    if (Status status = read_parts(std::move(file), *parts); !status.ok()) return status;
    parts->prepare(*r.table);
    parts->coarse.values = {};
    out->reset(new IvfIndex(std::move(parts)));
    return {};
  });
}

IvfStats IvfIndex::stats() const {
  const Parts& p = *parts_;
  IvfStats s;
  s.n_rows = p.n_rows;
  s.dim = p.dim;
  s.metric = p.metric;
  s.n_lists = static_cast<int32_t>(p.n_lists());
  s.int8_lists = p.int8_lists();
  s.keeps_rows = p.values.size() > 0;
  s.n_probe = p.n_probe;
  s.recall_target = p.recall_target;
  s.recall_k = p.recall_k;
  s.n_measured = p.n_measured;
  s.held_out = p.held_out;
  s.curve = p.curve;
  for (int64_t l = 0; l < p.n_lists(); ++l) s.largest_list = std::max<int64_t>(s.largest_list, p.sizes[l]);
  s.bytes = p.centroids.bytes() + p.mean.bytes() + p.first_group.bytes() + p.sizes.bytes() + p.rows.bytes() +
            p.groups.bytes() + p.scale.bytes() + p.bias.bytes() + p.values.bytes() +
            static_cast<int64_t>(p.coarse.groups.size() + 4 * (p.coarse.scale.size() + p.coarse.bias.size()) +
                                 4 * (p.list_of.size() + p.centroid_square.size()));
  return s;
}

}  // namespace waggle
