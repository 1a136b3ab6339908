// SPDX-License-Identifier: Apache-2.0
// The contract of one way of computing a convolution. Plain C structs and function pointers, no exceptions across
// them: a device backend (cuda/backend.h) hands out the same table.
#pragma once

#include "estimate.h"
#include "problem.h"

namespace fastconv {

struct KernelTable;
struct Algorithm;
struct PhaseTimes;
struct DeviceWatch;

// Work is handed out as numbered items; `slot` < slots is the worker's index for per-worker scratch.
// Which worker runs which item is unspecified: results must not depend on it.
inline constexpr int kMostSlots = 256;
struct Parallel {
  void* pool;
  int slots;  // at most kMostSlots
  void (*run)(void* pool, int slots, int64_t items, void (*work)(void* argument, int64_t item, int slot),
              void* argument);
};

// What an algorithm may know of the machine. The speeds come from a committed table (machine.cc, cuda/machines.cc),
// never from a timing. They are those of one core, on a device of the whole.
struct Machine {
  const KernelTable* kernels;   // of a CPU; null: a device
  double flops_f32, flops_f64;  // attainable multiply-adds count as two
  double bytes_per_second;      // beyond the caches
  int64_t l1_bytes, l2_bytes;   // l1 of a device: the shared memory that a block may have
  // Of tensor cores, or of a CPU's tiles (bfloat16), else 0.
  double flops_f16 = 0, flops_tf32 = 0;
  // Of a device, else 0.
  int32_t architecture = 0;  // compute capability times 10: 75, 80, 90, ...
  int32_t multiprocessors = 0;
  // What there is to choose from, best first.
  int32_t algorithm_count = 0;
  const Algorithm* const* algorithms = nullptr;
  // Names of those that passed on a GPU as they are now; on a device they are taken before others.
  const char* const* verified = nullptr;
  int32_t verified_count = 0;
};
inline bool is_device(const Machine& machine) { return !machine.kernels; }

struct RunContext {
  const Machine* machine;
  Parallel parallel;
  void* stream;          // device backends
  void* workspace;       // workspace_bytes(problem, machine, slots), 64-byte aligned
  DType w_dtype;         // a half where w is stored in one
  const void* packed_w;  // what `pack` wrote, or null: then `run` packs for itself, in the workspace
  char* error;           // kTextCapacity characters, written when the status is not 0

  // Buffers keep their names in every pass: backward-data writes x, backward-filter writes w.
  void* x;
  void* w;
  void* y;
  const void* bias;      // of the channels written: k elements, backward-data c
  const void* residual;  // shape and pitches of y
  // In elements. `batch` is the distance of two images; `channel` of two channels (channels first) or of two
  // pixels (channels last). Rows and planes are dense, so that a slice of channels costs no copy.
  int64_t x_batch_pitch, x_channel_pitch;
  int64_t y_batch_pitch, y_channel_pitch;
  double alpha;      // the activation's parameter
  double pad_value;  // PaddingMode::kConstant

  PhaseTimes* phases;  // phases.h; null: nobody measures
  DeviceWatch* watch;  // of a device: cuda/watch.h; null: nobody looks
};

// Images: x, y and the residual. kAll leaves the bias to be widened, kEverything nothing.
enum class TakenHalves : int32_t { kNone, kImages, kWeights, kAll, kEverything };

// Which instruction sets give the same bits of the same problem, in every pass.
enum class SameBits : int32_t { kOne, kAvx, kAll };  // kAvx: avx2 and avx512

struct Algorithm {
  const char* name;
  double error_factor;        // error against float64 over that of plain float32 summation
  int32_t exact_on_integers;  // bit-equal to `reference` while all sums stay below 2^24
  SameBits same_bits;         // across instruction sets
  // Returns true and writes one sentence when it cannot compute the problem. What it does not refuse must be right.
  bool (*why_not)(const ConvProblem* problem, const Machine* machine, char* text);
  // Adds the kinds of work that take the seconds on one core; from the problem and the machine table alone.
  void (*estimate)(const ConvProblem* problem, const Machine* machine, Estimate* estimate);
  // `packed` says that weights are handed over packed, so that no room is needed to pack them.
  int64_t (*workspace_bytes)(const ConvProblem* problem, const Machine* machine, int slots, bool packed);
  // 0: weights are used as they are. Must not depend on n: a plan serves any batch.
  int64_t (*packed_bytes)(const ConvProblem* problem, const Machine* machine);
  // Reads of the context w, machine, parallel or stream, and error; null where packed_bytes is 0.
  int (*pack)(const ConvProblem* problem, const RunContext* context, void* packed);
  int (*run)(const ConvProblem* problem, const RunContext* context);
  // Which tensors of a float16 or bfloat16 problem `run` takes as they are; null: none. The others come
  // and go as float32 copies (half_problem.h): the problem is one of the dtype of x and y. `pack` takes w in the
  // problem's dtype wherever `run` takes it as it is.
  TakenHalves (*takes_halves)(const ConvProblem* problem) = nullptr;
  // How many multiplications it makes, in the sense of counts.h, on a device of cuda/watch.h; null:
  // multiply_adds(problem).
  int64_t (*multiplications)(const ConvProblem* problem, const Machine* machine) = nullptr;
  // What `run` allocates besides the workspace, at most: tables of rows and columns. Null: nothing, as it should be.
  int64_t (*table_bytes)(const ConvProblem* problem, const Machine* machine, int slots) = nullptr;
  // Whether `estimate` and `packed_bytes` are asked about float16 and bfloat16 as such, not about float32.
  bool knows_halves = false;
};

}  // namespace fastconv
