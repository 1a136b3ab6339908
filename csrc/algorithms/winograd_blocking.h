// SPDX-License-Identifier: Apache-2.0
// How Winograd convolution is cut into blocks of tiles, pieces and chunks, which schedule it takes (winograd.cc) and
// the memory for that.
#pragma once

#include <algorithm>

#include "winograd.h"

namespace fastconv {

enum class WinogradSchedule { kFused, kStaged, kFusedWeight };

// How a problem is cut; no bit of a result depends on it.
struct WinogradBlocking {
  static constexpr int64_t kBlockTiles = 42;        // of a fused block
  static constexpr int64_t kJointTiles = 64;        // of a block of the staged schedules
  static constexpr int64_t kLeastTiles = 21;        // of any block, where threads share few
  static constexpr int64_t kWholeBytes = 17 << 20;  // of transformed weights that a plan keeps
  static constexpr int64_t kMostOwn = 64;           // blocks of groups: bits of a word
  static constexpr int64_t kPad = 48;               // elements between points, so that they do not share cache sets

  const WinogradKernels& kernels;
  const WinogradGeometry g;
  WinogradSchedule schedule;
  bool keeps_whole;  // a plan keeps transformed weights, otherwise turned ones
  // Threads share what they read where it is large; else each transforms all it needs itself, which is sooner done than
  // it moves from another core's cache.
  bool own_whole, own_v;
  bool far_whole;  // transformed weights come from beyond L2
  int64_t widest;  // vectors of a piece, at most
  int64_t pieces;  // of a group
  int64_t block;   // tiles of a block
  int64_t blocks;  // of all tiles
  int64_t slab;    // blocks whose V is made together
  int64_t depth;   // read channels times depth taps: steps of a sum
  int64_t depth_blocks;

  // `packed`: the weights come from a plan. What is packed does not depend on the threads.
  WinogradBlocking(const WinogradForm& form, const ConvProblem& p, const Machine& m, bool packed, int slots = 1)
      : kernels(*m.kernels->winograd), g(form, p, m) {
    cut_pieces(kernels.vectors);
    depth = g.depth_taps * g.read;
    depth_blocks = g.depth_taps * g.read_blocks();
    keeps_whole = whole_elements() * 4 <= kWholeBytes;
    far_whole = whole_elements() * 4 > m.l2_bytes / 2;
    const int64_t tiles = std::max<int64_t>(1, g.tiles);
    const int64_t fused_blocks = ceil_div(tiles, kBlockTiles);
    const bool v_is_small = g.points * depth_blocks * g.lanes * kBlockTiles * 4 <= 2 * m.l2_bytes;
    if (fused_blocks >= 4 && v_is_small) {
      schedule = WinogradSchedule::kFused;
      const int64_t equal = std::max(2, slots);  // no thread is to wait for others
      blocks = std::min(ceil_div(fused_blocks, equal) * equal, std::max(fused_blocks, tiles / kLeastTiles));
      slab = 1;
    } else {
      schedule =
          tiles <= kJointTiles && !(packed && keeps_whole) ? WinogradSchedule::kFusedWeight : WinogradSchedule::kStaged;
      blocks = ceil_div(tiles, kJointTiles);
      if (schedule == WinogradSchedule::kStaged && slots > 1)  // something to share
        blocks = std::max(blocks, std::min(ceil_div(int64_t{slots}, pieces * g.groups), tiles / kLeastTiles));
      slab = std::min<int64_t>(blocks, 4);
    }
    block = ceil_div(tiles, blocks);
    // The ends of a row of tiles of several phases would be stored a few pixels at a time.
    const int64_t row = g.row_tiles;
    if (blocks > 1 && g.phases[1] > 1 && g.phase_groups * g.column_groups == 1)
      block = ceil_div(ceil_div(tiles, row), blocks) * row;
    blocks = ceil_div(tiles, block);
    own_whole = schedule == WinogradSchedule::kFused && slots > 1 && whole_elements() * 4 <= 2 * m.l2_bytes;
    own_v = schedule != WinogradSchedule::kFused && slots > 1 && blocks * g.groups <= kMostOwn &&
            blocks * g.groups * v_elements() * 4 <= 2 * m.l2_bytes;
    // A chunk of U of two vectors of 36 points (295 KiB) stays in L2 beside V and the products; of four it did not.
    if (schedule == WinogradSchedule::kFusedWeight) cut_pieces(std::min(g.points > 16 ? 2 : 4, kernels.vectors));
  }

  void cut_pieces(int vectors) {
    widest = vectors;
    pieces = ceil_div(g.written_vectors(), widest);
  }

  // Vectors of a piece begin here; they are as many as can be equal.
  int64_t piece_vector(int64_t piece) const { return piece * g.written_vectors() / pieces; }
  int64_t u_pitch(int64_t vectors, int64_t steps) const { return steps * vectors * g.lanes + kPad; }
  // V[block of lanes channels][point][tile][lane]: what an input transform writes lies in few pages, an odd number of
  // cache lines apart.
  int64_t v_pitch() const { return (ceil_div(block * g.lanes, int64_t{16}) | 1) * 16; }
  int64_t v_block_pitch() const { return g.points * v_pitch(); }
  int64_t v_elements() const { return depth_blocks * v_block_pitch(); }
  // A chunk of U of the fused-weight schedule: [block of lanes channels][value][channel][vector][lane], likewise.
  int64_t chunk_pitch(int64_t vectors) const { return vectors * g.lanes * g.lanes + 16; }
  int64_t chunk_block_pitch(int64_t vectors) const { return g.filters * chunk_pitch(vectors); }
  // Products [vector][point][tile][lane], like V.
  int64_t products_elements() const { return widest * v_block_pitch(); }
  // Transformed weights: [group][piece][value of a filter][channel][vector][lane].
  int64_t piece_offset(int64_t group, int64_t piece) const {
    return group * group_elements() + g.filters * (piece_vector(piece) * g.lanes * depth + piece * kPad);
  }
  int64_t group_elements() const { return g.filters * (g.written_vectors() * g.lanes * depth + pieces * kPad); }
  int64_t whole_elements() const { return g.groups * group_elements(); }
  int64_t packed_elements() const { return keeps_whole ? whole_elements() : winograd_turned_elements(g); }
};

// Parts of the workspace, in bytes.
struct WinogradRoom {
  int64_t whole = 0, joint = 0;                              // of all threads
  int64_t own = 0, v = 0, products = 0, u = 0, scratch = 0;  // of one
  WinogradRoom(const WinogradBlocking& b, bool packed) {
    const WinogradGeometry& g = b.g;
    const auto bytes = [](int64_t elements) { return aligned(elements * static_cast<int64_t>(sizeof(float))); };
    if (b.schedule != WinogradSchedule::kFusedWeight && !(packed && b.keeps_whole))
      (b.own_whole ? own : whole) = bytes(b.whole_elements());
    if (b.schedule == WinogradSchedule::kFused)
      v = bytes(b.v_elements());
    else
      (b.own_v ? v : joint) = b.slab * bytes(g.groups * b.v_elements());
    products = bytes(b.products_elements());
    if (b.schedule == WinogradSchedule::kFusedWeight)
      u = bytes(ceil_div(std::min(kWinogradChunk, g.read), g.lanes) * b.chunk_block_pitch(b.widest));
    scratch = bytes(std::max(WinogradInput::scratch(g, b.block), WinogradOutput::scratch(g)));
  }
  int64_t shared() const { return whole + joint; }
  int64_t each() const { return own + v + products + u + scratch; }
};

}  // namespace fastconv
