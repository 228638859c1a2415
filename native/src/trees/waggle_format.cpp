// Our own format: a container (waggle/file.hpp) of kind TREES with the ensemble's vectors as sections. Enough to give
// back exactly what was written; layouts for prediction are made anew.
#include <cstring>
#include <memory>
#include <type_traits>

#include "src/trees/readers.hpp"
#include "waggle/file.hpp"

namespace waggle::trees {

namespace {

// Version 2 adds the optional section COVERS; what has none is written as version 1.
constexpr FileKind kKind{"TREES", 1, 2};

struct StoredHead {
  int32_t n_features;
  int32_t n_targets;
  int32_t kind;
  int32_t transform;
  double transform_parameter;
  double scale;
};
static_assert(sizeof(StoredHead) == 32);

struct StoredTree {
  uint32_t n_nodes;
  int32_t first_target;
  int32_t n_values;
};
static_assert(sizeof(StoredTree) == 12);

struct StoredNode {
  int32_t feature;
  int32_t left;
  int32_t right;
  float threshold;
  uint8_t decision;
  uint8_t missing;
  uint8_t default_left;
  uint8_t zero;
  uint32_t first;
  uint32_t count;
};
static_assert(sizeof(StoredNode) == 28);

template <typename T>
Status copy_section(const MappedFile& file, const char* name, std::vector<T>* out) {
  static_assert(std::is_trivially_copyable_v<T>);
  const T* data = nullptr;
  int64_t count = 0;
  if (Status status = file.section(name, &data, &count); !status.ok()) return status;
  out->assign(data, data + count);
  return {};
}

// Whoever loads a model sees one code for a bad one, whatever is bad about it.
Status as_model(const Status& status) {
  return status.code() == Code::kFile ? Status(Code::kModel, "Waggle tree model: " + status.text()) : status;
}

}  // namespace

bool is_waggle_file(const uint8_t* data, size_t size) {
  return size > 24 && data[0] == 0x89 && std::memcmp(data + 1, "WGL\r\n", 5) == 0;
}

Status write(const Ensemble& e, std::vector<uint8_t>* out) {
  return guarded([&]() -> Status {
    if (Status status = validate(e); !status.ok()) return status;
    const StoredHead head{
        e.n_features,          e.n_targets, static_cast<int32_t>(e.kind), static_cast<int32_t>(e.transform),
        e.transform_parameter, e.scale};
    std::vector<StoredTree> trees;
    trees.reserve(e.trees.size());
    for (const Tree& t : e.trees) trees.push_back({t.n_nodes, t.first_target, t.n_values});
    std::vector<StoredNode> nodes;
    nodes.reserve(e.nodes.size());
    for (const Node& n : e.nodes) {
      nodes.push_back({n.feature, n.left, n.right, n.threshold, static_cast<uint8_t>(n.decision),
                       static_cast<uint8_t>(n.missing), static_cast<uint8_t>(n.default_left ? 1 : 0), 0, n.first,
                       n.count});
    }
    const auto bytes_of = [](const auto& v) { return static_cast<int64_t>(v.size() * sizeof(v[0])); };
    FileWriter writer(kKind.name, e.covers.empty() ? 1 : 2);
    writer.add("HEAD", &head, sizeof head);
    writer.add("BASE", e.base.data(), bytes_of(e.base));
    writer.add("TREES", trees.data(), bytes_of(trees));
    writer.add("NODES", nodes.data(), bytes_of(nodes));
    writer.add("VALUES", e.values.data(), bytes_of(e.values));
    writer.add("MEMBERS", e.members.data(), bytes_of(e.members));
    writer.add("CATEGS", e.categories.data(), bytes_of(e.categories));
    if (!e.covers.empty()) writer.add("COVERS", e.covers.data(), bytes_of(e.covers));
    return writer.to_memory(out);
  });
}

Status read_waggle(const uint8_t* data, size_t size, Ensemble* e) {
  RunContext context;
  context.parallel = false;
  std::shared_ptr<const MappedFile> file;
  if (Status status = MappedFile::copy_of(data, static_cast<int64_t>(size), kKind, Verify::kFull, context, &file);
      !status.ok()) {
    return as_model(status);
  }
  std::vector<StoredHead> head;
  std::vector<StoredTree> trees;
  std::vector<StoredNode> nodes;
  for (const Status& status :
       {copy_section(*file, "HEAD", &head), copy_section(*file, "BASE", &e->base), copy_section(*file, "TREES", &trees),
        copy_section(*file, "NODES", &nodes), copy_section(*file, "VALUES", &e->values),
        copy_section(*file, "MEMBERS", &e->members), copy_section(*file, "CATEGS", &e->categories)}) {
    if (!status.ok()) return as_model(status);
  }
  if (file->has("COVERS")) {
    if (Status status = copy_section(*file, "COVERS", &e->covers); !status.ok()) return as_model(status);
  }
  if (head.size() != 1) return fail(Code::kModel, "Waggle tree model: it needs one head");
  e->n_features = head[0].n_features;
  e->n_targets = head[0].n_targets;
  e->kind = static_cast<Kind>(head[0].kind);
  e->transform = static_cast<Transform>(head[0].transform);
  e->transform_parameter = head[0].transform_parameter;
  e->scale = head[0].scale;
  uint64_t first_node = 0;
  for (const StoredTree& t : trees) {
    e->trees.push_back({static_cast<uint32_t>(first_node), t.n_nodes, t.first_target, t.n_values});
    first_node += t.n_nodes;
    if (first_node > nodes.size()) return fail(Code::kModel, "Waggle tree model: trees of more nodes than there are");
  }
  e->nodes.reserve(nodes.size());
  for (const StoredNode& n : nodes) {
    if (n.default_left > 1 || n.zero != 0) return fail(Code::kModel, "Waggle tree model: a node's flags");
    e->nodes.push_back({n.feature, n.left, n.right, n.threshold, static_cast<Decision>(n.decision),
                        static_cast<Missing>(n.missing), n.default_left == 1, n.first, n.count});
  }
  return {};
}

}  // namespace waggle::trees
