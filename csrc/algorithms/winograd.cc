// SPDX-License-Identifier: Apache-2.0
// The three schedules of Winograd convolution. For a block of tiles and a group of pieces (a piece is at most four
// vectors of written channels, the width of a register tile):
//
//   V[block of channels][point][tile][lane]   <- input transform
//   for each piece:
//     for each point, for each chunk of at most kWinogradChunk channels, for some tiles at a time:  one register tile
//       products[vector][point][tile][lane] (+)= V * U[point][channel][vector][lane]
//     output transform of the piece
//
//   fused          V of one block of tiles, small enough for L2, by the thread that uses it; threads share blocks
//   staged         few tiles or many channels: V of many tiles is made together, then threads share (block, piece)
//   fused-weight   staged, and U of one piece and one chunk is made just before its use: few tiles, and weights that come
//                  as they are or, of a plan, are large
//
// Threads share what they read where it is large: U of the first two, V of the last two. Else each makes all that it
// needs of it for itself.
//
// Sums of a chunk start from zero and are added in ascending order of the chunks in all of them, whatever n is, so that
// they give the same bits.
#include <cstdio>

#include "../parallel.h"
#include "../phases.h"
#include "winograd_blocking.h"
#include "winograd_phases.h"

namespace fastconv {
namespace {

// u for whole pieces.
void transform_whole(const WinogradBlocking& b, const WinogradFilter& filter, const Parallel& parallel, float* u) {
  const WinogradGeometry& g = b.g;
  constexpr int64_t kShare = 32;  // channels
  const int64_t shares = ceil_div(g.read, kShare);
  parallel_for(parallel, g.groups * b.pieces * shares, [&](int64_t item, int) {
    const int64_t piece = item / shares % b.pieces, group = item / shares / b.pieces;
    const int64_t channel = item % shares * kShare, count = std::min(kShare, g.read - channel);
    const int64_t vector = b.piece_vector(piece), vectors = b.piece_vector(piece + 1) - vector;
    for (int64_t tap = 0; tap < g.depth_taps; ++tap)
      filter.transform(group, vector, vectors, tap, channel, count,
                       u + b.piece_offset(group, piece) + (tap * g.read + channel) * vectors * g.lanes,
                       b.u_pitch(vectors, b.depth));
  });
}

class Run {
 public:
  Run(const WinogradBlocking& blocking, const ConvProblem& problem, const RunContext& context)
      : b(blocking),
        g(b.g),
        p(problem),
        r(context),
        room(b, r.packed_w != nullptr),
        workspace(static_cast<char*>(r.workspace)),
        input(p, r, g),
        output(p, r, g),
        filter{p, gemm_kernels<float>(*r.machine), g, Stored<float>(*r.machine, r.w_dtype, r.w), nullptr} {}

  void run() {
    if (g.tiles == 0) return;
    if (r.packed_w && !b.keeps_whole) filter.turned = static_cast<const float*>(r.packed_w);
    if (room.whole > 0) make_whole(reinterpret_cast<float*>(workspace));
    whole = static_cast<const float*>(room.whole > 0 ? r.workspace : r.packed_w);
    bool made[kMostSlots] = {};
    if (b.schedule == WinogradSchedule::kFused)
      parallel_for(r.parallel, b.blocks * g.groups, [&](int64_t item, int slot) {
        const Scratch s = scratch(slot);
        if (room.own > 0 && !made[slot]) make_whole(s.own);
        made[slot] = true;
        fused(item / g.groups, item % g.groups, room.own > 0 ? s.own : whole, s);
      });
    else
      for (int64_t first = 0; first < b.blocks; first += b.slab) staged(first, std::min(b.slab, b.blocks - first));
  }

 private:
  struct Scratch {
    float *own, *v, *products, *u, *rest;
  };
  Scratch scratch(int slot) const {
    char* at = workspace + room.shared() + slot * room.each();
    Scratch s;
    s.own = reinterpret_cast<float*>(at);
    s.v = reinterpret_cast<float*>(at += room.own);
    s.products = reinterpret_cast<float*>(at += room.v);
    s.u = reinterpret_cast<float*>(at += room.products);
    s.rest = reinterpret_cast<float*>(at += room.u);
    return s;
  }
  int64_t block_tiles(int64_t block) const { return std::min(b.block, g.tiles - block * b.block); }

  void make_whole(float* u) const {
    const PhaseScope transforming(r.phases, Phase::kWeights);
    transform_whole(b, filter, r.parallel, u);
  }

  void fused(int64_t block, int64_t group, const float* u, const Scratch& s) const {
    const int64_t tiles = block_tiles(block);
    for (int64_t i = 0; i < b.depth_blocks; ++i) transform_input(block, group, i, s.v, s.rest);
    for (int64_t piece = 0; piece < b.pieces; ++piece) {
      multiply(group, piece, tiles, s.v, u, s.products);
      finish(block, tiles, group, piece, s);
    }
  }

  void staged(int64_t first, int64_t blocks) const {
    const int64_t of_group = b.v_elements(), of_block = (room.v + room.joint) / b.slab / 4;
    const auto place = [&](float* v, int64_t block, int64_t group) { return v + block * of_block + group * of_group; };
    float* joint = reinterpret_cast<float*>(workspace + room.whole);
    if (room.joint > 0)
      parallel_for(r.parallel, blocks * g.groups * b.depth_blocks, [&](int64_t item, int slot) {
        const int64_t i = item % b.depth_blocks, group = item / b.depth_blocks % g.groups;
        const int64_t block = item / b.depth_blocks / g.groups;
        transform_input(first + block, group, i, place(joint, block, group), scratch(slot).rest);
      });
    uint64_t made[kMostSlots] = {};  // of each thread's V: which blocks of which groups
    // Blocks of one piece follow each other: they share its weights.
    parallel_for(r.parallel, g.groups * b.pieces * blocks, [&](int64_t item, int slot) {
      const int64_t block = item % blocks, piece = item / blocks % b.pieces, group = item / blocks / b.pieces;
      const Scratch s = scratch(slot);
      float* v = place(room.joint > 0 ? joint : s.v, block, group);
      const uint64_t bit = room.v > 0 ? uint64_t{1} << (block * g.groups + group) : 0;
      for (int64_t i = 0; i < b.depth_blocks && (made[slot] & bit) != bit; ++i)
        transform_input(first + block, group, i, v, s.rest);
      made[slot] |= bit;
      const int64_t tiles = block_tiles(first + block);
      if (b.schedule == WinogradSchedule::kFusedWeight)
        multiply_fused(group, piece, tiles, v, s);
      else
        multiply(group, piece, tiles, v, whole, s.products);
      finish(first + block, tiles, group, piece, s);
    });
  }

  void transform_input(int64_t block, int64_t group, int64_t i, float* v, float* rest) const {
    const PhaseScope transforming(r.phases, Phase::kInput);
    const int64_t tap = i / g.read_blocks();
    input.transform(block * b.block, block_tiles(block), group, tap, i % g.read_blocks(), v + i * b.v_block_pitch(),
                    b.v_pitch(), rest);
  }

  // One chunk of one point: channels [channel, channel + channels) of a depth tap. u begins with the chunk, the next
  // one follows it where `next` says so.
  void multiply_chunk(int64_t vectors, int64_t tiles, int64_t tap, int64_t channel, int64_t channels, const float* v,
                      const float* u, int64_t u_block_pitch, bool next, float* products) const {
    const int64_t pitch = b.v_block_pitch();
    const float* from = v + (tap * g.read_blocks() + channel / g.lanes) * pitch;
    const int64_t parts = ceil_div(tiles, int64_t{b.kernels.tile_rows[vectors]});
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t tile = part * tiles / parts, rows = (part + 1) * tiles / parts - tile;
      b.kernels.multiply(static_cast<int>(rows), static_cast<int>(vectors), channels, from + tile * g.lanes, pitch, u,
                         u_block_pitch, next, products + tile * g.lanes, b.v_block_pitch(), tap > 0 || channel > 0);
    }
  }

  void multiply(int64_t group, int64_t piece, int64_t tiles, const float* v, const float* u, float* products) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t vectors = b.piece_vector(piece + 1) - b.piece_vector(piece);
    u += b.piece_offset(group, piece);
    for (int64_t point = 0; point < g.points; ++point)
      for (int64_t tap = 0; tap < g.depth_taps; ++tap)
        for (int64_t c = 0; c < g.read; c += kWinogradChunk)
          multiply_chunk(vectors, tiles, tap, c, std::min(kWinogradChunk, g.read - c), v + point * b.v_pitch(),
                         u + g.filter_of(point) * b.u_pitch(vectors, b.depth) + (tap * g.read + c) * vectors * g.lanes,
                         vectors * g.lanes * g.lanes, b.far_whole, products + point * b.v_pitch());
  }

  void multiply_fused(int64_t group, int64_t piece, int64_t tiles, const float* v, const Scratch& s) const {
    const int64_t vector = b.piece_vector(piece), vectors = b.piece_vector(piece + 1) - vector;
    const int64_t pitch = b.chunk_pitch(vectors), block_pitch = b.chunk_block_pitch(vectors);
    for (int64_t tap = 0; tap < g.depth_taps; ++tap)
      for (int64_t c = 0; c < g.read; c += kWinogradChunk) {
        const int64_t channels = std::min(kWinogradChunk, g.read - c);
        {
          const PhaseScope transforming(r.phases, Phase::kWeights);
          for (int64_t i = 0; i < channels; i += g.lanes)
            filter.transform(group, vector, vectors, tap, c + i, std::min(g.lanes, channels - i),
                             s.u + i / g.lanes * block_pitch, pitch);
        }
        const PhaseScope multiplying(r.phases, Phase::kProducts);
        // Turned weights come from memory: ask early.
        const int64_t next = std::min(kWinogradChunk, g.read - c - channels);
        for (int64_t point = 0; point < g.points; ++point) {
          filter.prefetch(group, vector, vectors, c + channels, next, point);
          multiply_chunk(vectors, tiles, tap, c, channels, v + point * b.v_pitch(), s.u + g.filter_of(point) * pitch,
                         block_pitch, false, s.products + point * b.v_pitch());
        }
      }
  }

  void finish(int64_t block, int64_t tiles, int64_t group, int64_t piece, const Scratch& s) const {
    const PhaseScope transforming(r.phases, Phase::kOutput);
    const int64_t vector = b.piece_vector(piece), vectors = b.piece_vector(piece + 1) - vector;
    output.transform(block * b.block, tiles, group, vector * g.lanes, vectors, s.products, b.v_pitch(),
                     b.v_block_pitch(), s.rest);
  }

  const WinogradBlocking& b;
  const WinogradGeometry& g;
  const ConvProblem& p;
  const RunContext& r;
  const WinogradRoom room;
  char* workspace;
  const WinogradInput input;
  const WinogradOutput output;
  WinogradFilter filter;
  const float* whole = nullptr;
};

}  // namespace

bool winograd_why_not(const char* name, const WinogradForm& form, const ConvProblem& p, const Machine& m, char* text) {
  const int (&r)[2] = (m.kernels->winograd_transforms->*form.transforms).r;
  const bool odd = p.pad_begin[1] % 2 == 1 && p.pad_begin[2] % 2 == 1, phases = winograd_has_phases(form, p);
  const int64_t most_depth = kWinogradTaps / (r[0] * r[1]);
  const int64_t taps[] = {phases ? phase_taps(p, 1) : p.filter[1], phases ? phase_taps(p, 2) : p.filter[2]};
  text[0] = 0;
  if (p.dtype != DType::kFloat32)
    snprintf(text, kTextCapacity, "%s transforms f32, got %s", name, name_of(p.dtype));
  else if (taps[0] != r[0] || taps[1] != r[1])
    snprintf(text, kTextCapacity, "%s needs a filter of %s (or any depth of it)%s, got %lld x %lld", name, form.filter,
             phases ? " at a phase of its stride" : "", static_cast<long long>(taps[0]),
             static_cast<long long>(taps[1]));
  else if (p.filter[0] > most_depth)
    snprintf(text, kTextCapacity, "%s sums at most %lld taps along the depth, got %lld", name,
             static_cast<long long>(most_depth), static_cast<long long>(p.filter[0]));
  else if (p.stride[0] != 1)
    snprintf(text, kTextCapacity, "%s needs a depth of stride 1, got %lld", name, static_cast<long long>(p.stride[0]));
  else if (form.stride == 2 && (p.stride[1] != 2 || p.stride[2] != 2))
    snprintf(text, kTextCapacity, "%s needs stride 2, got %lld x %lld", name, static_cast<long long>(p.stride[1]),
             static_cast<long long>(p.stride[2]));
  else if ((form.stride == 2 || phases) && (p.dilation[1] != 1 || p.dilation[2] != 1))
    snprintf(text, kTextCapacity, "%s needs dilation 1%s, got %lld x %lld", name,
             phases ? " where it has a stride" : "", static_cast<long long>(p.dilation[1]),
             static_cast<long long>(p.dilation[2]));
  else if (form.stride == 2 && p.pass == Pass::kBackwardData && !odd)
    snprintf(text, kTextCapacity, "%s computes bwd_data of odd padding, got %lld x %lld", name,
             static_cast<long long>(p.pad_begin[1]), static_cast<long long>(p.pad_begin[2]));
  else if (phases && p.pass == Pass::kBackwardData && !phases_cover(p))
    snprintf(text, kTextCapacity, "%s computes bwd_data of strides whose windows reach all of x, got x of %lld x %lld",
             name, static_cast<long long>(p.size[1]), static_cast<long long>(p.size[2]));
  else if (p.pass == Pass::kBackwardData && shows_cells(p.padding_mode))
    snprintf(text, kTextCapacity, "%s computes bwd_data of zero and constant padding, got padding mode %s", name,
             name_of(p.padding_mode));
  return text[0] != 0;
}

void winograd_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e) {
  if (p.pass == Pass::kBackwardFilter) return winograd_filter_estimate(form, p, m, e);
  const WinogradBlocking b(form, p, m, p.pass == Pass::kForward);
  const WinogradGeometry& g = b.g;
  const int64_t vectors = g.written_vectors();
  e->add("start", 4e-6);
  e->add("products", 2.4 * times(g.points, g.tiles, g.groups, b.depth, vectors, g.lanes) / m.flops_f32);
  e->add("calls",
         20e-9 * times(g.points, g.groups, b.pieces, b.blocks, g.depth_taps, ceil_div(g.read, kWinogradChunk)));
  e->add(g.forward ? "weights" : "weights turned", 20e-9 * times(b.depth, vectors, g.groups));
  e->add("filters", 1e-9 * times(g.filters, b.depth, vectors, g.groups));
  if (b.schedule == WinogradSchedule::kFusedWeight)
    e->add("filters made", 1e-9 * times(g.filters, b.depth, vectors, g.groups));
  g.add_transforms(p, times(b.depth_blocks, g.groups), times(vectors, g.groups), e);
}

int64_t winograd_workspace_of(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                              bool packed) {
  if (p.pass == Pass::kBackwardFilter) return winograd_filter_workspace(form, p, m, slots);
  const WinogradRoom room(WinogradBlocking(form, p, m, packed, slots), packed);
  return room.shared() + slots * room.each();
}

int64_t winograd_workspace_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                                 bool packed) {
  int64_t most = 0;
  for (int s = 1; s <= slots; ++s)  // a call may get fewer threads than it was planned for, and larger blocks
    most = std::max(most, winograd_workspace_of(form, p, m, s, packed));
  return most;
}

int64_t winograd_multiplications(const WinogradForm& form, const ConvProblem& p, const Machine& m) {
  const WinogradGeometry g(form, p, m);
  return g.points * g.tiles * g.groups * g.written * g.read * g.depth_taps;
}

int64_t winograd_packed_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m) {
  if (p.pass == Pass::kBackwardFilter) return 0;
  return WinogradBlocking(form, p, m, true).packed_elements() * static_cast<int64_t>(sizeof(float));
}

int winograd_pack(const WinogradForm& form, const ConvProblem& p, const Machine& m, const Parallel& parallel,
                  const void* w, void* packed) {
  const WinogradBlocking b(form, p, m, true);
  const Stored<float> weights(m, p.dtype, w);
  if (b.keeps_whole)
    transform_whole(b, {p, gemm_kernels<float>(m), b.g, weights, nullptr}, parallel, static_cast<float*>(packed));
  else
    winograd_turn(p, m, b.g, parallel, weights, static_cast<float*>(packed));
  return 0;
}

int winograd_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r) {
  if (p.pass == Pass::kBackwardFilter) return winograd_filter_run(form, p, r), 0;
  const WinogradBlocking b(form, p, *r.machine, r.packed_w != nullptr, r.parallel.slots);
  Run(b, p, r).run();
  return 0;
}

}  // namespace fastconv
