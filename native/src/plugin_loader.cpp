#include "src/plugin_loader.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <vector>

namespace waggle {

namespace {

#if defined(__APPLE__)
constexpr const char* kSuffix = ".dylib";
#else
constexpr const char* kSuffix = ".so";
#endif

// Where this code was loaded from, empty unless the path is absolute.
std::string own_directory() {
  Dl_info info;
  std::memset(&info, 0, sizeof info);
  if (dladdr(reinterpret_cast<const void*>(&load_plugin), &info) == 0 || info.dli_fname == nullptr) return {};
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || slash == std::string::npos) return {};
  return path.substr(0, slash);
}

std::string text_of(waggle_text& text) {
  text.text[WAGGLE_BACKEND_TEXT_BYTES - 1] = '\0';
  return text.text[0] != '\0' ? text.text : "no reason given";
}

// Null reason = loaded.
std::string try_plugin(const std::string& path, LoadedPlugin* loaded) {
  if (access(path.c_str(), R_OK) != 0) return "not there";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    return error != nullptr ? error : "dlopen failed";
  }
  const auto entry = reinterpret_cast<waggle_backend_entry_function>(dlsym(library, WAGGLE_BACKEND_ENTRY_NAME));
  if (entry == nullptr) return "not a Waggle plugin: no " WAGGLE_BACKEND_ENTRY_NAME;
  const waggle_backend* backend = entry(WAGGLE_BACKEND_ABI_VERSION);
  if (backend == nullptr) return "it refuses this engine's ABI version";
  if (backend->struct_size < sizeof(waggle_backend) || backend->abi_version != WAGGLE_BACKEND_ABI_VERSION) {
    return "ABI version " + std::to_string(backend->abi_version) + ", this engine needs " +
           std::to_string(WAGGLE_BACKEND_ABI_VERSION);
  }
  if (backend->probe == nullptr || backend->open == nullptr || backend->ops == nullptr ||
      backend->ops->struct_size < sizeof(waggle_op_table)) {
    return "incomplete plugin";
  }
  waggle_text text;
  std::memset(&text, 0, sizeof text);
  text.struct_size = sizeof text;
  waggle_device_info device;
  std::memset(&device, 0, sizeof device);
  device.struct_size = sizeof device;
  if (backend->probe(&device, &text) != WAGGLE_BACKEND_OK) return text_of(text);
  void* state = nullptr;
  if (backend->open(&state, &text) != WAGGLE_BACKEND_OK) return text_of(text);
  device.name[sizeof device.name - 1] = '\0';
  device.libraries[sizeof device.libraries - 1] = '\0';
  loaded->backend = backend;
  loaded->state = state;
  loaded->path = path;
  loaded->device = device.name;
  loaded->libraries = device.libraries;
  return {};
}

}  // namespace

LoadedPlugin load_plugin(const char* name) {
  LoadedPlugin loaded;
  const std::string file = std::string("libwaggle_backend_") + name + kSuffix;
  std::vector<std::string> directories;
  const char* configured = std::getenv("WAGGLE_BACKEND_DIR");
  if (configured != nullptr && configured[0] != '\0') {
    if (configured[0] == '/') {
      directories.emplace_back(configured);
    } else {
      loaded.reason = "WAGGLE_BACKEND_DIR is not an absolute path; ";
    }
  }
  const std::string own = own_directory();
  if (!own.empty()) directories.push_back(own);
  for (const std::string& directory : directories) {
    const std::string path = directory + "/" + file;
    const std::string reason = try_plugin(path, &loaded);
    if (reason.empty()) {
      loaded.reason.clear();
      return loaded;
    }
    loaded.reason += path + ": " + reason + "; ";
  }
  if (loaded.reason.size() >= 2) loaded.reason.resize(loaded.reason.size() - 2);
  if (loaded.reason.empty()) loaded.reason = "no directory to look in";
  return loaded;
}

}  // namespace waggle
