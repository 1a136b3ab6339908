// SPDX-License-Identifier: Apache-2.0
// cpuid and xgetbv on x86-64 (through the compiler's __builtin_cpu_supports, which asks both), the target on AArch64.
#include "machine.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(FASTCONV_HAS_amx)
#include <sys/syscall.h>
#endif

#include "kernels/amx_kernels.h"
#include "registry.h"

namespace fastconv {

// What CMakeLists.txt compiled: FASTCONV_HAS_ and the name.
#if defined(FASTCONV_HAS_avx512)
namespace avx512 {
extern const KernelTable kTable;
}
#endif
#if defined(FASTCONV_HAS_avx2)
namespace avx2 {
extern const KernelTable kTable;
}
#endif
#if defined(FASTCONV_HAS_neon)
namespace neon {
extern const KernelTable kTable;
}
#endif
#if defined(FASTCONV_HAS_scalar)
namespace scalar {
extern const KernelTable kTable;
}
#endif
#if defined(FASTCONV_HAS_wide)
namespace wide {
extern const KernelTable kTable;
}
#endif

namespace {

// Assumed speeds of one core, set by hand near what a Zen 3 reaches with AVX2; the other rows are guesses that no run
// has confirmed. They are committed, so that the automatic choice is a pure function: an estimate ranks, it does not
// promise.
struct Row {
  const KernelTable* kernels;
  double flops_f32, flops_f64, bytes_per_second;
  double flops_bf16 = 0;
};
#if defined(FASTCONV_HAS_amx)
// The kernels of AVX-512, and those of the tile registers beside them.
const KernelTable& amx_table() {
  static const KernelTable table = [] {
    KernelTable t = avx512::kTable;
    t.isa = "amx", t.amx = &amx::kAmxKernels;
    return t;
  }();
  return table;
}
#endif
const Row kRows[] = {
#if defined(FASTCONV_HAS_amx)
    {&amx_table(), 105e9, 52e9, 12e9, 1200e9},
#endif
#if defined(FASTCONV_HAS_avx512)
    {&avx512::kTable, 105e9, 52e9, 12e9},
#endif
#if defined(FASTCONV_HAS_avx2)
    {&avx2::kTable, 95e9, 47e9, 12e9},
#endif
#if defined(FASTCONV_HAS_neon)
    {&neon::kTable, 60e9, 30e9, 12e9},
#endif
#if defined(FASTCONV_HAS_scalar)
    {&scalar::kTable, 25e9, 12e9, 10e9},
#endif
#if defined(FASTCONV_HAS_wide)
    {&wide::kTable, 20e9, 10e9, 10e9},
#endif
};
constexpr int kRowCount = sizeof kRows / sizeof kRows[0];

#if defined(FASTCONV_HAS_amx)
// Linux hands out the tile registers to a process that asks. It refuses where a thread's alternate stack for signals is
// too small for them.
bool may_use_tiles() {
  unsigned a, b, c, d;
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;  // of edx
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kBFloat16 | kTile)) != (kBFloat16 | kTile)) return false;
  constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
}
#endif

bool can_run(const char* isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(FASTCONV_HAS_amx)
  if (strcmp(isa, "amx") == 0) return can_run("avx512") && may_use_tiles();
#endif
  if (strcmp(isa, "avx512") == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (strcmp(isa, "avx2") == 0 || strcmp(isa, "wide") == 0) {
    unsigned a, b, c, d;
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#endif
  return strcmp(isa, "scalar") == 0 || strcmp(isa, "neon") == 0;
}

int64_t cache_bytes(int name, int64_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

struct Machines {
  Machine list[kRowCount];
  int count = 0;

  Machines() {
    for (const Row& row : kRows) {
      if (!can_run(row.kernels->isa)) continue;
      Machine& m = list[count++];
      m.kernels = row.kernels;
      m.flops_f32 = row.flops_f32, m.flops_f64 = row.flops_f64, m.bytes_per_second = row.bytes_per_second;
      m.flops_f16 = row.flops_bf16;
      m.l1_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
      m.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
      m.algorithm_count = algorithm_count(), m.algorithms = algorithm_list();
    }
  }
};

const Machines& machines() {
  static const Machines instance;
  return instance;
}

}  // namespace

int usable_isa_count() { return machines().count; }
const Machine& usable_machine(int index) { return machines().list[index]; }

const Machine* find_machine(const char* isa, char* error) {
  const char* variable = "";
  if (!isa || !*isa) {
    isa = getenv("FASTCONV_ISA");
    variable = "FASTCONV_ISA: ";
  }
  const Machines& all = machines();
  if (!isa || !*isa) return &all.list[0];
  for (int i = 0; i < all.count; ++i)
    if (strcmp(all.list[i].kernels->isa, isa) == 0) return &all.list[i];
  int used = snprintf(error, kTextCapacity, "%s'%.40s' is not an instruction set that runs here; expected one of",
                      variable, isa);
  for (int i = 0; i < all.count; ++i)
    used += snprintf(error + used, kTextCapacity - used, "%s %s", i ? "," : "", all.list[i].kernels->isa);
  return nullptr;
}

const char* cpu_name() {
  static char name[64] = "";
  if (name[0]) return name;
#if defined(__x86_64__)
  unsigned words[12];
  for (unsigned i = 0; i < 3; ++i)
    if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]))
      return "unknown x86-64";
  char text[49];
  memcpy(text, words, 48);
  text[48] = 0;
  snprintf(name, sizeof name, "%s", text + strspn(text, " "));
  return name;
#elif defined(__aarch64__)
  return "AArch64";
#else
  return "unknown";
#endif
}

}  // namespace fastconv
