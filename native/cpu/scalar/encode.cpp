#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

#include "cpu/simd/encode_row.inc"

}  // namespace

const EncodeKernels kEncodeScalar = {encode_f16, encode_bf16, encode_int8, encode_halves};

}  // namespace waggle::cpu
