#include <utility>

#include "cpu/kernel_tables.hpp"
#include "cpu/trees_layout.hpp"
#include "src/device_forest.hpp"
#include "src/registry.hpp"
#include "waggle/trees.hpp"

namespace waggle::trees {

Model::Model() = default;
Model::~Model() = default;

Status Model::create(Ensemble ensemble, std::shared_ptr<const Model>* out) {
  return guarded([&]() -> Status {
    if (Status status = validate(ensemble); !status.ok()) return status;
    std::shared_ptr<Model> made(new Model());
    made->ensemble_ = std::move(ensemble);
    made->layout_ = std::make_unique<Layout>();
    made->device_ = std::make_unique<DeviceForest>();
    const cpu::Table* const table = registry().table;
    build_layout(made->ensemble_, (table != nullptr ? table->trees : cpu::kTreesScalar).planes_at_once,
                 made->layout_.get());
    *out = std::move(made);
    return {};
  });
}

size_t Model::bytes() const { return sizeof(*this) + ensemble_.bytes() + layout_->bytes(); }

}  // namespace waggle::trees
