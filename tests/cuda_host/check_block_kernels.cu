// SPDX-License-Identifier: Apache-2.0
// Barriers, shared and global memory, and asynchronous copies.
#include "check_kernels.h"

namespace fastconv::cuda {
namespace {

enum class Bug {
  kNone,
  kNoBarrier,
  kNoBarrierAtTheEnd,
  kSharedEnd,
  kSharedBegin,
  kGlobalWrite,
  kGlobalRead,
  kUninitialised,
  kRace,
  kBlocksRace,
  kTwoBarriers,
  kLeaves,
  kSmallShared,
  kMisaligned,
  kNoWait,
  kLaxWait,
  kNotCommitted,
  kOverwritten,
};

constexpr int kThreads = 128, kBlocks = kNumbers / kThreads;

// ---- Sums by a tree ------------------------------------------------------------------------------------------------
struct Sums {
  float of[kThreads];
};

template <Bug bug>
__global__ void __launch_bounds__(kThreads) tree(const float* from, float* to) {
  auto& s = shared<Sums>();
  const int me = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  if (bug != Bug::kUninitialised || me != 77) s.of[me] = from[block * kThreads + me];
  if (bug == Bug::kSharedEnd && me == 5) (&s.of[0])[me + kThreads - 5] = 1;
  if (bug == Bug::kSharedBegin && me == 6) (&s.of[0])[me - 7] = 1;
  if (bug == Bug::kRace && (me == 3 || me == 90)) s.of[4] = static_cast<float>(me);
  if (bug == Bug::kLeaves && me == 127) return;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (bug != Bug::kNoBarrier || half != 16) sync();
    if (me < half) s.of[me] += s.of[me + half];
  }
  if (me == 0) to[bug == Bug::kBlocksRace ? block / 2 : block] = s.of[0];
}

void expect_sums(const float* from, float* to) {
  for (int block = 0; block < kBlocks; ++block) {
    to[block] = 0;
    for (int i = 0; i < kThreads; ++i) to[block] += from[block * kThreads + i];
  }
}

template <Bug bug>
int run_tree(const RunContext& context, const float* from, float* to) {
  return launch(context, tree<bug>, Grid{kBlocks}, kThreads, bug == Bug::kSmallShared ? 256 : sizeof(Sums), from, to);
}

// ---- Tiles, mirrored in shared memory --------------------------------------------------------------------------------
template <Bug bug>
__global__ void __launch_bounds__(kThreads) mirror(const float* from, float* to) {
  auto& s = shared<Sums>();
  const int me = static_cast<int>(threadIdx.x);
  for (int tile = 0; tile < kBlocks; ++tile) {
    const int at = tile * kThreads + me;
    s.of[me] = from[bug == Bug::kGlobalRead && tile == kBlocks - 1 ? at + 1 : at];
    if constexpr (bug == Bug::kTwoBarriers) {
      if (me < 64)
        sync();
      else
        sync();
    } else if (bug != Bug::kNoBarrier) {
      sync();
    }
    to[bug == Bug::kGlobalWrite && tile == kBlocks - 1 ? at + 1 : at] = s.of[kThreads - 1 - me];
    if (bug != Bug::kNoBarrierAtTheEnd) sync();
  }
}

void expect_mirrored(const float* from, float* to) {
  for (int tile = 0; tile < kBlocks; ++tile)
    for (int i = 0; i < kThreads; ++i) to[tile * kThreads + i] = from[tile * kThreads + kThreads - 1 - i];
}

template <Bug bug>
int run_mirror(const RunContext& context, const float* from, float* to) {
  return launch(context, mirror<bug>, Grid{1}, kThreads, sizeof(Sums), from, to);
}

// ---- Tiles, copied ahead ---------------------------------------------------------------------------------------------
constexpr int kStages = 3, kPiece = 4;
struct alignas(16) Stages {
  float of[kStages][kThreads * kPiece];
};
constexpr int kTiles = kNumbers / (kThreads * kPiece);

// The last thread's piece of each tile is not valid: zeros.
template <Bug bug>
__global__ void __launch_bounds__(kThreads) ahead(const float* from, float* to) {
  auto& s = shared<Stages>();
  const int me = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < kTiles) {
      const int shift = bug == Bug::kMisaligned && tile == 5 ? 1 : 0;
      copy_async<16>(s.of[tile % kStages] + kPiece * me,
                     from + (tile * kThreads + me) * kPiece + (me == kThreads - 1 ? kNumbers : shift),
                     me != kThreads - 1);
    }
    if (bug != Bug::kNotCommitted || tile != kTiles - 1) copy_async_commit();
  };
  for (int tile = 0; tile < (bug == Bug::kOverwritten ? kStages : kStages - 1); ++tile) fetch(tile);
  for (int tile = 0; tile < kTiles; ++tile) {
    if (bug == Bug::kLaxWait)
      copy_async_wait<kStages - 1>();
    else if (bug != Bug::kNoWait)
      copy_async_wait<kStages - 2>();
    if (bug != Bug::kNoBarrier) sync();
    if (bug != Bug::kOverwritten) fetch(tile + kStages - 1);
    const float* stage = s.of[tile % kStages];
    float values[kPiece];
    for (int i = 0; i < kPiece; ++i) values[i] = stage[kThreads * kPiece - 1 - (i * kThreads + me)];
    if (bug == Bug::kOverwritten) fetch(tile + kStages);  // into the stage that others still read
    for (int i = 0; i < kPiece; ++i) to[tile * kThreads * kPiece + i * kThreads + me] = values[i];
  }
}

void expect_ahead(const float* from, float* to) {
  constexpr int kTile = kThreads * kPiece;
  for (int i = 0; i < kNumbers; ++i) {
    const int within = kTile - 1 - i % kTile;
    to[i] = within >= kTile - kPiece ? 0 : from[i / kTile * kTile + within];
  }
}

template <Bug bug>
int run_ahead(const RunContext& context, const float* from, float* to) {
  return launch(context, ahead<bug>, Grid{1}, kThreads, sizeof(Stages), from, to);
}

// ---- Halves beside each other, by threads of their own -----------------------------------------------------------------
struct HalfTile {
  uint16_t of[2 * kThreads];
};

__global__ void __launch_bounds__(kThreads) neighbours(const float* from, float* to) {
  auto& s = shared<HalfTile>();
  const int me = static_cast<int>(threadIdx.x);
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(from);
  for (int i = 0; i < 2; ++i) s.of[me + i * kThreads] = halves[me + i * kThreads];
  sync();
  uint16_t* written = reinterpret_cast<uint16_t*>(to);
  for (int i = 0; i < 2; ++i) written[2 * me + i] = s.of[2 * me + i];
}

void expect_neighbours(const float* from, float* to) {
  for (int i = 0; i < kThreads; ++i) to[i] = from[i];
}

// Bytes, each by the thread before the one that writes its neighbour.
__global__ void __launch_bounds__(kThreads) bytes(const float* from, float* to) {
  auto& s = shared<HalfTile>();
  const int me = static_cast<int>(threadIdx.x);
  const uint8_t* read = reinterpret_cast<const uint8_t*>(from);
  uint8_t* staged = reinterpret_cast<uint8_t*>(s.of);
  uint8_t* written = reinterpret_cast<uint8_t*>(to);
  for (int i = 0; i < 4; ++i) staged[me + i * kThreads] = read[me + i * kThreads];
  sync();
  for (int i = 0; i < 4; ++i) written[me + i * kThreads] = staged[me + i * kThreads];
}
int run_bytes(const RunContext& context, const float* from, float* to) {
  return launch(context, bytes, Grid{1}, kThreads, sizeof(HalfTile), from, to);
}

int run_neighbours(const RunContext& context, const float* from, float* to) {
  return launch(context, neighbours, Grid{1}, kThreads, sizeof(HalfTile), from, to);
}

}  // namespace

const Trial kBlockTrials[] = {
    {"tree", Caught::kNever, run_tree<Bug::kNone>, expect_sums},
    {"mirror", Caught::kNever, run_mirror<Bug::kNone>, expect_mirrored},
    {"ahead", Caught::kNever, run_ahead<Bug::kNone>, expect_ahead},
    {"neighbours", Caught::kNever, run_neighbours, expect_neighbours},
    {"bytes", Caught::kNever, run_bytes, expect_neighbours},
    {"tree without a barrier", Caught::kByValues, run_tree<Bug::kNoBarrier>, expect_sums},
    {"tree, one past the end of shared memory", Caught::kAlways, run_tree<Bug::kSharedEnd>, expect_sums},
    {"tree, one before the begin of shared memory", Caught::kAlways, run_tree<Bug::kSharedBegin>, expect_sums},
    {"tree of what was not written", Caught::kByValues, run_tree<Bug::kUninitialised>, expect_sums},
    {"tree, two threads write one number", Caught::kByValues, run_tree<Bug::kRace>, expect_sums},
    {"tree, two blocks write one number", Caught::kByValues, run_tree<Bug::kBlocksRace>, expect_sums},
    {"tree that a thread leaves", Caught::kAlways, run_tree<Bug::kLeaves>, expect_sums},
    {"tree with less shared memory than it uses", Caught::kAlways, run_tree<Bug::kSmallShared>, expect_sums},
    {"mirror without a barrier", Caught::kByValues, run_mirror<Bug::kNoBarrier>, expect_mirrored},
    {"mirror without its second barrier", Caught::kByValues, run_mirror<Bug::kNoBarrierAtTheEnd>, expect_mirrored},
    {"mirror, one read past the end", Caught::kByValues, run_mirror<Bug::kGlobalRead>, expect_mirrored},
    {"mirror, one written past the end", Caught::kAlways, run_mirror<Bug::kGlobalWrite>, expect_mirrored},
    {"mirror with a barrier in each branch", Caught::kAlways, run_mirror<Bug::kTwoBarriers>, expect_mirrored},
    {"ahead without waiting", Caught::kByValues, run_ahead<Bug::kNoWait>, expect_ahead},
    {"ahead, waiting for too few", Caught::kByValues, run_ahead<Bug::kLaxWait>, expect_ahead},
    {"ahead without the last commit", Caught::kByValues, run_ahead<Bug::kNotCommitted>, expect_ahead},
    {"ahead without a barrier", Caught::kByValues, run_ahead<Bug::kNoBarrier>, expect_ahead},
    {"ahead, over what is being read", Caught::kByValues, run_ahead<Bug::kOverwritten>, expect_ahead},
    {"ahead from an odd address", Caught::kAlways, run_ahead<Bug::kMisaligned>, expect_ahead},
    {nullptr, Caught::kNever, nullptr, nullptr},
};

}  // namespace fastconv::cuda
