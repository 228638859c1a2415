// Items on a device as JavaScript holds them.
#pragma once

#include <napi.h>

#include <memory>

#include "waggle/device_items.hpp"

namespace waggle::addon {

/// Device memory is not the collector's business, so handles report none.
struct DeviceItemsObject {
  static constexpr napi_type_tag kTypeTag = {0x3d0c7a51e8b24f96u, 0x9be41f70a26d58c3u};
  static constexpr const char* kTypeName = "items on a device";
  std::shared_ptr<const DeviceItems> items;
};

}  // namespace waggle::addon
