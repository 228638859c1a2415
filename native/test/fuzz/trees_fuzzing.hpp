// Loads any bytes as one format; a model that is accepted must predict without harm, the same walked or in planes.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "test/fuzz/fuzz.hpp"
#include "waggle/ops/trees_predict.hpp"

namespace waggle::fuzz {

// Small enough that laying out and predicting takes microseconds.
inline bool is_small(const trees::Ensemble& e) {
  return e.n_features <= 4096 && e.n_targets <= 256 && e.nodes.size() <= 50000 && e.values.size() <= 100000;
}

inline void load(const uint8_t* data, size_t size, trees::Format format) {
  trees::Ensemble ensemble;
  const Status status = trees::read(data, size, format, &ensemble);
  if (!status.ok()) {
    if ((status.code() != Code::kModel && status.code() != Code::kOutOfMemory) || status.text().empty()) std::abort();
    return;
  }
  if (ensemble.bytes() > 4096 * size + (size_t{64} << 20)) std::abort();
  if (!is_small(ensemble)) return;
  std::vector<uint8_t> written;
  if (!trees::write(ensemble, &written).ok()) std::abort();
  std::shared_ptr<const trees::Model> model;
  if (!trees::Model::create(ensemble, &model).ok()) std::abort();
  const int64_t rows = 70;
  std::vector<float> x(static_cast<size_t>(rows * ensemble.n_features));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = i % 7 == 3 ? NAN : static_cast<float>(static_cast<int>(i * 2654435761u % 200) - 100) / 8;
    if (i % 5 == 2 && !ensemble.nodes.empty()) x[i] = ensemble.nodes[i % ensemble.nodes.size()].threshold;
  }
  std::vector<float> all(static_cast<size_t>(rows * ensemble.n_targets));
  TreesPredictArgs args;
  args.model = model.get();
  args.x = x.data();
  args.n_rows = rows;
  args.raw = true;
  args.out = all.data();
  RunContext context;
  context.parallel = false;
  if (!trees_predict(args, context).ok()) std::abort();
  std::vector<float> one(static_cast<size_t>(ensemble.n_targets));
  for (int64_t r = 0; r < rows; r += 23) {
    args.x = x.data() + r * ensemble.n_features;
    args.n_rows = 1;
    args.out = one.data();
    if (!trees_predict(args, context).ok()) std::abort();
    if (std::memcmp(one.data(), all.data() + r * ensemble.n_targets, one.size() * sizeof(float)) != 0) std::abort();
  }
  args.raw = false;
  std::vector<float> outputs(static_cast<size_t>(ensemble.n_outputs()));
  args.out = outputs.data();
  if (!trees_predict(args, context).ok()) std::abort();
}

inline std::vector<std::vector<uint8_t>> models(const char* suffix) {
  std::vector<std::vector<uint8_t>> found;
  for (const auto& entry : std::filesystem::directory_iterator(WAGGLE_TREES_MODELS)) {
    const std::string name = entry.path().filename().string();
    const std::string end = suffix;
    if (name.size() < end.size() || name.compare(name.size() - end.size(), end.size(), end) != 0) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    found.push_back({std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
  }
  return found;
}

}  // namespace waggle::fuzz
