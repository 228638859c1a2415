// What a fuzz target defines: LLVMFuzzerTestOneInput, which must survive any bytes, and seeds(), good inputs made by
// the library's own writers for the fuzzer to start from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace waggle::fuzz {

std::vector<std::vector<uint8_t>> seeds();

/// Makes the checksums of a container right wherever its tables are sane, so that what lies behind them is reached.
void repair_checksums(std::vector<uint8_t>& bytes);

}  // namespace waggle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
