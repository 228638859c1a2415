// Tensor-core and copy instructions as functions. Each says which PTX instruction it is; on the CPU emulator the same
// function does what the PTX manual says the instruction does.
//
// Every operand type is used in steps of 32 bytes of depth: 16 × f16/bf16, 32 × s8, 8 × tf32. So one way of addressing
// shared memory serves all of them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if defined(WAGGLE_CUDA_EMULATED)
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>
#endif

namespace waggle::cuda {

enum class Operand { kF16, kBf16, kS8, kTf32 };

template <Operand>
struct OperandTraits;
template <>
struct OperandTraits<Operand::kF16> {
  using Accumulator = float;
  static constexpr int kBytes = 2;
};
template <>
struct OperandTraits<Operand::kBf16> {
  using Accumulator = float;
  static constexpr int kBytes = 2;
};
template <>
struct OperandTraits<Operand::kS8> {
  using Accumulator = int;
  static constexpr int kBytes = 1;
};
template <>
struct OperandTraits<Operand::kTf32> {
  using Accumulator = float;
  static constexpr int kBytes = 4;
};

#if defined(WAGGLE_CUDA_EMULATED)

namespace emulated {

inline float element(Operand type, const unsigned char* at) {
  uint32_t bits = 0;
  switch (type) {
    case Operand::kF16: {
      _Float16 value;
      std::memcpy(&value, at, 2);
      return static_cast<float>(value);
    }
    case Operand::kBf16: {
      uint16_t half = 0;
      std::memcpy(&half, at, 2);
      bits = static_cast<uint32_t>(half) << 16;
      break;
    }
    case Operand::kS8:
      return static_cast<float>(static_cast<int8_t>(*at));
    case Operand::kTf32:
      std::memcpy(&bits, at, 4);
      bits &= 0xffffe000u;  // the hardware ignores the low 13 bits
      break;
  }
  float value = 0;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <Operand kType>
typename OperandTraits<kType>::Accumulator dot32(const unsigned char* a, const unsigned char* b,
                                                 typename OperandTraits<kType>::Accumulator sum) {
  constexpr int kBytes = OperandTraits<kType>::kBytes;
  if constexpr (kType == Operand::kS8) {
    for (int i = 0; i < 32; ++i) {
      sum += static_cast<int>(static_cast<int8_t>(a[i])) * static_cast<int>(static_cast<int8_t>(b[i]));
    }
    return sum;
  } else {
    double exact = 0;
    for (int i = 0; i < 32; i += kBytes) {
      exact += static_cast<double>(element(kType, a + i)) * element(kType, b + i);
    }
    return static_cast<float>(sum + exact);
  }
}

}  // namespace emulated

#endif

/// max.NaN.f32: the larger one, NaN when either is.
__device__ inline float max_or_nan(float a, float b) {
#if defined(WAGGLE_CUDA_EMULATED)
  return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b);
#else
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#endif
}

/// ldmatrix.sync.aligned.m8n8.x4.shared.b16: lane l gives the address of row l % 8 (16 bytes) of matrix l / 8; out[j]
/// is this lane's 4 bytes of matrix j: row lane / 4, bytes 4·(lane % 4)….
__device__ inline void load_matrix_x4(uint32_t out[4], const void* shared_row) {
#if defined(WAGGLE_CUDA_EMULATED)
  emulator::warp_collective(&shared_row, sizeof shared_row, out, 16,
                            [](const unsigned char* const inputs[32], unsigned char* const outputs[32]) {
                              for (int l = 0; l < 32; ++l) {
                                for (int j = 0; j < 4; ++j) {
                                  const unsigned char* row = nullptr;
                                  std::memcpy(&row, inputs[8 * j + l / 4], sizeof row);
                                  std::memcpy(outputs[l] + 4 * j, row + 4 * (l % 4), 4);
                                }
                              }
                            });
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
#endif
}

/// mma.sync.aligned.m16n8k{16,32,8}: d (16 × 8) += a (16 × 32 bytes) · b (8 × 32 bytes)ᵀ. Lane l holds of d the rows
/// l / 4 (d[0], d[1]) and l / 4 + 8 (d[2], d[3]), columns 2·(l % 4) and the next.
template <Operand kType>
__device__ inline void multiply_accumulate(typename OperandTraits<kType>::Accumulator d[4], const uint32_t a[4],
                                           uint32_t b0, uint32_t b1) {
#if defined(WAGGLE_CUDA_EMULATED)
  using Accumulator = typename OperandTraits<kType>::Accumulator;
  struct Mine {
    Accumulator d[4];
    uint32_t a[4];
    uint32_t b[2];
  } mine = {{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::warp_collective(&mine, sizeof mine, d, sizeof(Accumulator) * 4,
                            [](const unsigned char* const inputs[32], unsigned char* const outputs[32]) {
                              unsigned char rows[16][32];
                              unsigned char columns[8][32];
                              std::vector<Mine> lanes(32);
                              for (int l = 0; l < 32; ++l) std::memcpy(&lanes[l], inputs[l], sizeof(Mine));
                              for (int l = 0; l < 32; ++l) {
                                const int g = l / 4;
                                const int t = l % 4;
                                std::memcpy(&rows[g][4 * t], &lanes[l].a[0], 4);
                                std::memcpy(&rows[g + 8][4 * t], &lanes[l].a[1], 4);
                                std::memcpy(&rows[g][16 + 4 * t], &lanes[l].a[2], 4);
                                std::memcpy(&rows[g + 8][16 + 4 * t], &lanes[l].a[3], 4);
                                std::memcpy(&columns[g][4 * t], &lanes[l].b[0], 4);
                                std::memcpy(&columns[g][16 + 4 * t], &lanes[l].b[1], 4);
                              }
                              for (int l = 0; l < 32; ++l) {
                                const int g = l / 4;
                                const int t = l % 4;
                                Accumulator result[4];
                                for (int i = 0; i < 4; ++i) {
                                  result[i] = emulated::dot32<kType>(rows[g + 8 * (i / 2)], columns[2 * t + i % 2],
                                                                     lanes[l].d[i]);
                                }
                                std::memcpy(outputs[l], result, sizeof result);
                              }
                            });
#else
  if constexpr (kType == Operand::kF16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else if constexpr (kType == Operand::kBf16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else if constexpr (kType == Operand::kS8) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// ---- asynchronous copies (sm_80) -------------------------------------------------------------------------------

#if defined(WAGGLE_CUDA_EMULATED)
namespace emulated {
// Copies land only when they are waited for: code that forgets to wait reads the poison.
struct PendingCopy {
  void* to;
  const void* from;
};
inline std::vector<std::vector<PendingCopy>>& copy_groups() {
  static std::vector<std::vector<PendingCopy>> groups[1024];
  const auto t = emulator::thread_index();
  const auto b = emulator::block_size();
  return groups[t.x + b.x * (t.y + b.y * t.z)];
}
inline std::vector<PendingCopy>& open_copies() {
  static std::vector<PendingCopy> open[1024];
  const auto t = emulator::thread_index();
  const auto b = emulator::block_size();
  return open[t.x + b.x * (t.y + b.y * t.z)];
}
}  // namespace emulated
#endif

/// cp.async.cg.shared.global 16 bytes, both aligned to 16.
__device__ inline void copy_async_16(void* shared_to, const void* d_from) {
#if defined(WAGGLE_CUDA_EMULATED)
  emulated::open_copies().push_back({shared_to, d_from});
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(d_from) : "memory");
#endif
}

/// cp.async.commit_group
__device__ inline void copy_async_commit() {
#if defined(WAGGLE_CUDA_EMULATED)
  emulated::copy_groups().push_back(std::move(emulated::open_copies()));
  emulated::open_copies().clear();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// cp.async.wait_group: at most kPending of this thread's groups are still under way.
template <int kPending>
__device__ inline void copy_async_wait() {
#if defined(WAGGLE_CUDA_EMULATED)
  auto& groups = emulated::copy_groups();
  while (static_cast<int>(groups.size()) > kPending) {
    for (const auto& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.erase(groups.begin());
  }
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---- Hopper: barriers, bulk copies, warpgroup products (sm_90a)
// ------------------------------------------------------

#if defined(WAGGLE_CUDA_EMULATED)
#define WAGGLE_HAS_WGMMA 1
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WAGGLE_HAS_WGMMA 1
#endif

#if defined(WAGGLE_HAS_WGMMA)

/// An mbarrier in shared memory.
struct alignas(8) PhaseBarrier {
#if defined(WAGGLE_CUDA_EMULATED)
  int16_t expected;
  int16_t pending;
  int32_t phase_and_bytes;  // bit 31: phase; the rest: bytes outstanding + 2^20
#else
  uint64_t state;
#endif
};

#if defined(WAGGLE_CUDA_EMULATED)
namespace emulated {
inline int32_t bytes_outstanding(const PhaseBarrier& b) { return (b.phase_and_bytes & 0x7fffffff) - (1 << 20); }
inline void set(PhaseBarrier& b, int phase, int32_t bytes) {
  b.phase_and_bytes =
      static_cast<int32_t>((static_cast<uint32_t>(phase) << 31) | static_cast<uint32_t>(bytes + (1 << 20)));
}
inline int phase_of(const PhaseBarrier& b) { return static_cast<int>(static_cast<uint32_t>(b.phase_and_bytes) >> 31); }
inline void complete_if_done(PhaseBarrier& b) {
  if (b.pending == 0 && bytes_outstanding(b) == 0) {
    b.pending = b.expected;
    set(b, phase_of(b) ^ 1, 0);
  }
  emulator::progressed();
}
// Bulk copies land when somebody waits for their barrier: whoever does not reads what was there before.
struct BulkCopy {
  void* to;
  const void* from;
  uint32_t bytes;
  PhaseBarrier* barrier;
};
inline std::vector<BulkCopy>& bulk_copies() {
  static std::vector<BulkCopy> copies;
  return copies;
}
inline void land_copies(PhaseBarrier* barrier) {
  auto& copies = bulk_copies();
  for (size_t i = 0; i < copies.size();) {
    if (copies[i].barrier != barrier) {
      ++i;
      continue;
    }
    std::memcpy(copies[i].to, copies[i].from, copies[i].bytes);
    set(*barrier, phase_of(*barrier), bytes_outstanding(*barrier) - static_cast<int32_t>(copies[i].bytes));
    copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(i));
    complete_if_done(*barrier);
  }
}
}  // namespace emulated
#endif

/// mbarrier.init; then a fence and a __syncthreads() before others use it.
__device__ inline void barrier_init(PhaseBarrier* barrier, int arrivals) {
#if defined(WAGGLE_CUDA_EMULATED)
  barrier->expected = static_cast<int16_t>(arrivals);
  barrier->pending = static_cast<int16_t>(arrivals);
  emulated::set(*barrier, 0, 0);
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
#endif
}

/// fence.mbarrier_init: makes initialised barriers visible to the copy engine.
__device__ inline void barrier_init_fence() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// mbarrier.arrive
__device__ inline void barrier_arrive(PhaseBarrier* barrier) {
#if defined(WAGGLE_CUDA_EMULATED)
  --barrier->pending;
  emulated::complete_if_done(*barrier);
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("{\n\t.reg .b64 state;\n\tmbarrier.arrive.shared::cta.b64 state, [%0];\n\t}" ::"r"(address) : "memory");
#endif
}

/// mbarrier.arrive.expect_tx: arrives and announces `bytes` of bulk copies.
__device__ inline void barrier_arrive_expect(PhaseBarrier* barrier, uint32_t bytes) {
#if defined(WAGGLE_CUDA_EMULATED)
  emulated::set(*barrier, emulated::phase_of(*barrier),
                emulated::bytes_outstanding(*barrier) + static_cast<int32_t>(bytes));
  --barrier->pending;
  emulated::complete_if_done(*barrier);
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile(
      "{\n\t.reg .b64 state;\n\tmbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n\t}" ::"r"(address),
      "r"(bytes)
      : "memory");
#endif
}

/// Waits until the phase with parity `parity` is complete.
__device__ inline void barrier_wait(PhaseBarrier* barrier, int parity) {
#if defined(WAGGLE_CUDA_EMULATED)
  emulated::land_copies(barrier);
  while (emulated::phase_of(*barrier) == parity) {
    emulator::pause();
    emulated::land_copies(barrier);
  }
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  }
#endif
}

/// cp.async.bulk global → shared: `bytes` (a multiple of 16), counted on `barrier`.
__device__ inline void copy_bulk(void* shared_to, const void* d_from, uint32_t bytes, PhaseBarrier* barrier) {
#if defined(WAGGLE_CUDA_EMULATED)
  emulated::bulk_copies().push_back({shared_to, d_from, bytes, barrier});
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared_to));
  const uint32_t on = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(d_from), "r"(bytes), "r"(on)
               : "memory");
#endif
}

/// Shared-memory matrix descriptor: K-major operand, rows of 128 bytes swizzled by 16-byte chunks (chunk ^ row % 8),
/// groups of 8 rows 1,024 bytes apart. `shared_at` is 1,024-byte aligned plus 32 bytes per step of depth.
__device__ inline uint64_t matrix_descriptor(const void* shared_at) {
#if defined(WAGGLE_CUDA_EMULATED)
  return reinterpret_cast<uint64_t>(shared_at);
#else
  const uint64_t address = static_cast<uint64_t>(__cvta_generic_to_shared(shared_at));
  return ((address & 0x3ffff) >> 4) | (uint64_t{1} << 16) | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 62);
#endif
}

/// wgmma.fence / commit_group / wait_group 0.
__device__ inline void warpgroup_fence() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ inline void warpgroup_commit() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
__device__ inline void warpgroup_wait() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

/// setmaxnreg: a warpgroup gives registers back, or takes them; all of its threads call it.
template <int kRegisters>
__device__ inline void registers_give() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ inline void registers_take() {
#if !defined(WAGGLE_CUDA_EMULATED)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

/// Keeps the compiler from moving uses of the accumulators across the asynchronous products that own them.
template <Operand kType>
__device__ inline void hold_registers(typename OperandTraits<kType>::Accumulator d[64]) {
#if defined(WAGGLE_CUDA_EMULATED)
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    if constexpr (kType == Operand::kS8) {
      asm volatile("" : "+r"(d[i])::"memory");
    } else {
      asm volatile("" : "+f"(d[i])::"memory");
    }
  }
#endif
}

#if defined(WAGGLE_CUDA_EMULATED)
namespace emulated {
// Byte `offset` of row `row` behind a descriptor whose start may lie inside a swizzled row.
inline const unsigned char* swizzled(uint64_t descriptor, int row, int offset) {
  const uint64_t start = descriptor;
  const uint64_t linear = start + static_cast<uint64_t>(row / 8) * 1024 + static_cast<uint64_t>(row % 8) * 128 +
                          static_cast<uint64_t>(offset);
  return reinterpret_cast<const unsigned char*>(linear ^ (((linear >> 7) & 7) << 4));
}
}  // namespace emulated
#endif

#define WAGGLE_REGISTERS_64                                                                                           \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%"  \
  "30,"                                                                                                               \
  "%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%" \
  "59,"                                                                                                               \
  "%60,%61,%62,%63}"
#define WAGGLE_OUT_8(c, d, i) \
  c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define WAGGLE_OUT_64(c, d)                                                                     \
  WAGGLE_OUT_8(c, d, 0), WAGGLE_OUT_8(c, d, 8), WAGGLE_OUT_8(c, d, 16), WAGGLE_OUT_8(c, d, 24), \
      WAGGLE_OUT_8(c, d, 32), WAGGLE_OUT_8(c, d, 40), WAGGLE_OUT_8(c, d, 48), WAGGLE_OUT_8(c, d, 56)

/// wgmma.mma_async m64n128: d (64 × 128 over the warpgroup) = a (64 × 32 bytes) · b (128 × 32 bytes)ᵀ + (accumulate ? d
/// : 0). Thread t of the warpgroup holds the rows 16·(t / 32) + t % 32 / 4 (+ 8), columns 8·j + 2·(t % 4) (+ 1) at
/// d[4·j…].
template <Operand kType>
__device__ inline void warpgroup_multiply(typename OperandTraits<kType>::Accumulator d[64], uint64_t a, uint64_t b,
                                          bool accumulate) {
#if defined(WAGGLE_CUDA_EMULATED)
  const int t = static_cast<int>(emulator::thread_index().x) % 128;
  for (int i = 0; i < 64; ++i) {
    const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i % 4 / 2);
    const int column = 8 * (i / 4) + 2 * (t % 4) + i % 2;
    unsigned char left[32];
    unsigned char right[32];
    for (int byte = 0; byte < 32; ++byte) {
      left[byte] = *emulated::swizzled(a, row, byte);
      right[byte] = *emulated::swizzled(b, column, byte);
    }
    d[i] = emulated::dot32<kType>(left, right, accumulate ? d[i] : 0);
  }
#else
  const int keep = accumulate ? 1 : 0;
#define WAGGLE_WGMMA(shape_and_types, tail, constraint)                                                        \
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\twgmma.mma_async.sync.aligned." shape_and_types \
               " " WAGGLE_REGISTERS_64 ", %64, %65, p" tail ";\n\t}"                                           \
               : WAGGLE_OUT_64(constraint, d)                                                                  \
               : "l"(a), "l"(b), "r"(keep))
  if constexpr (kType == Operand::kF16) {
    WAGGLE_WGMMA("m64n128k16.f32.f16.f16", ", 1, 1, 0, 0", "+f");
  } else if constexpr (kType == Operand::kBf16) {
    WAGGLE_WGMMA("m64n128k16.f32.bf16.bf16", ", 1, 1, 0, 0", "+f");
  } else if constexpr (kType == Operand::kS8) {
    WAGGLE_WGMMA("m64n128k32.s32.s8.s8", "", "+r");
  } else {
    WAGGLE_WGMMA("m64n128k8.f32.tf32.tf32", ", 1, 1", "+f");
  }
#undef WAGGLE_WGMMA
#endif
}

#endif  // WAGGLE_HAS_WGMMA

}  // namespace waggle::cuda
