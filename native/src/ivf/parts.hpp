// What an IVF index consists of.
#pragma once

#include <memory>
#include <vector>

#include "src/ivf/codes.hpp"
#include "src/ivf/train.hpp"
#include "waggle/file.hpp"
#include "waggle/ivf.hpp"

namespace waggle {

struct IvfIndex::Parts {
  int64_t n_rows = 0;
  int64_t dim = 0;
  int64_t quads = 0;
  Metric metric = Metric::kInnerProduct;
  /// How lists are ordered for a query: by the distance of their centroids, or by inner product with them. Cosine and
  /// l2 use the distance. For ip the better is measured: distance when rows are of about equal length, product when
  /// they are not. Queries for ip are first brought to `typical_length`, which changes nothing in the order of rows.
  bool by_distance = true;
  float typical_length = 1.0f;
  int32_t n_probe = 1;
  double recall_target = 0;
  int32_t recall_k = 0;
  int64_t n_measured = 0;
  bool held_out = false;
  std::vector<IvfRecallPoint> curve;

  /// Centroids as they are (not less the mean), [n_lists × dim], and the mean.
  ivf::Store<float> centroids;
  ivf::Store<float> mean;
  /// First group of each list and, last, of none: [n_lists + 1]. Lists start at whole groups.
  ivf::Store<int64_t> first_group;
  /// Rows of each list, [n_lists].
  ivf::Store<int32_t> sizes;
  /// [n_groups × 16]: row numbers, ascending within a list, −1 where a list's last group is not full.
  ivf::Store<int32_t> rows;
  /// Without int8 lists these three are empty. Codes are of row − centroid.
  ivf::Store<uint8_t> groups;  // [n_groups × quads × 64]
  ivf::Store<float> scale;     // [n_groups × 16]
  ivf::Store<float> bias;      // [n_groups × 16]: centroid · residual, or −‖residual‖² for l2
  /// [n_rows × dim] in the order of the caller, or empty.
  ivf::Store<float> values;

  /// Derived on building and loading: the centroids as codes for the coarse search, and the list of each row.
  ivf::Centroids coarse;
  std::vector<int32_t> list_of;
  std::vector<float> centroid_square;

  std::shared_ptr<const MappedFile> file;  // what borrowed stores live in

  int64_t n_lists() const { return sizes.size(); }
  bool int8_lists() const { return groups.size() > 0; }
  Matrix<const float> matrix() const { return {values.data(), n_rows, dim}; }

  /// Makes what is derived.
  void prepare(const cpu::Table& table);
  void order_lists_by(const cpu::Table& table, bool distance);
};

namespace ivf {

/// The search behind IvfIndex::search; arguments are checked, n_probe is given and at most n_lists.
Status search(const cpu::Table& table, const IvfIndex::Parts& parts, const IvfSearchArgs& args,
              const RunContext& context, IvfSearchReport* report);

/// Chooses parts.n_probe and fills the curve.
Status measure(const cpu::Table& table, const IvfBuildArgs& args, const RunContext& context, IvfIndex::Parts& parts);

/// x / ‖x‖ as it is searched for cosines: 1 / ‖x‖, 0 for rows shorter than 1e-30.
float inverse_length(const float* x, int64_t dim);

}  // namespace ivf

}  // namespace waggle
