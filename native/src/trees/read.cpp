#include <cstring>

#include "src/trees/readers.hpp"

namespace waggle::trees {

namespace {

bool starts_with(const uint8_t* data, size_t size, const char* text) {
  const size_t n = std::strlen(text);
  return size >= n && std::memcmp(data, text, n) == 0;
}

}  // namespace

Format detect(const uint8_t* data, size_t size) {
  if (is_waggle_file(data, size)) return Format::kWaggle;
  if (starts_with(data, size, "tree\n") || starts_with(data, size, "tree\r\n")) return Format::kLightgbm;
  if (size > 1 && data[0] == '{') {
    // In text a quotation mark or the end follows, white space apart; in UBJSON a type marker.
    size_t i = 1;
    while (i < size && (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n')) ++i;
    if (i < size && (data[i] == '"' || data[i] == '}')) return Format::kXgboostJson;
    return Format::kXgboostUbj;
  }
  // A protobuf of ModelProto: ir_version (field 1) comes first in every writer.
  if (size > 1 && data[0] == 0x08) return Format::kOnnx;
  return Format::kAuto;
}

Status read(const uint8_t* data, size_t size, Format format, Ensemble* out) {
  return guarded([&]() -> Status {
    if (data == nullptr || size == 0) return fail(Code::kModel, "the model is empty");
    const Format found = format == Format::kAuto ? detect(data, size) : format;
    Ensemble made;
    Status status;
    switch (found) {
      case Format::kWaggle:
        status = read_waggle(data, size, &made);
        break;
      case Format::kOnnx:
        status = read_onnx(data, size, &made);
        break;
      case Format::kXgboostJson:
        status = read_xgboost(data, size, false, &made);
        break;
      case Format::kXgboostUbj:
        status = read_xgboost(data, size, true, &made);
        break;
      case Format::kLightgbm:
        status = read_lightgbm(data, size, &made);
        break;
      case Format::kAuto:
        return fail(Code::kModel,
                    "the bytes are no model that is known: Waggle, ONNX, XGBoost JSON or UBJSON, LightGBM text");
    }
    if (status.ok()) status = validate(made);
    if (status.ok()) *out = std::move(made);
    return status;
  });
}

}  // namespace waggle::trees
