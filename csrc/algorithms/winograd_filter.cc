// SPDX-License-Identifier: Apache-2.0
// Weights for Winograd's matrix products. Both passes read the same w: forward, lanes are k and the channels summed
// over c; backward-data the other way round, with the taps of a plane reversed.
#include "../parallel.h"
#include "winograd.h"

namespace fastconv {
namespace {

constexpr int64_t kAhead = 4;  // channels

// dst[channel][tap][lane] of `count` channels read, for the rows of one vector of written channels.
void turn(const WinogradGeometry& g, const GemmKernelsOf<float>& kernels, const Stored<float>& w, int64_t group,
          int64_t vector, int64_t channel, int64_t count, float* dst) {
  const int64_t taps = g.all_taps(), row = vector * g.lanes, rows = std::min(g.lanes, g.written - row);
  const int64_t first = group * g.written * g.read * taps;
  if (g.forward)
    return w.transpose(kernels, rows, count * taps, g.lanes, first + (row * g.read + channel) * taps, g.read * taps,
                       dst, g.lanes);
  for (int64_t c = channel; c < channel + count; ++c, dst += taps * g.lanes) {
    const int64_t from = first + (c * g.written + row) * taps;
    // A channel's weights lie pages from the next one's: none of them comes by itself.
    if (!w.is_half())
      for (int64_t i = 0; i < rows * taps; i += 16) __builtin_prefetch(w.at(from + kAhead * g.written * taps + i));
    w.transpose(kernels, rows, taps, g.lanes, from, taps, dst, g.lanes);
  }
}

}  // namespace

int64_t winograd_turned_elements(const WinogradGeometry& g) {
  return g.groups * g.written_vectors() * g.lanes * g.read * g.all_taps();
}

void winograd_turn(const ConvProblem&, const Machine& m, const WinogradGeometry& g, const Parallel& parallel,
                   const Stored<float>& w, float* turned) {
  const int64_t vectors = g.written_vectors();
  parallel_for(parallel, g.groups * vectors, [&](int64_t item, int) {
    turn(g, gemm_kernels<float>(m), w, item / vectors, item % vectors, 0, g.read,
         turned + item * g.read * g.all_taps() * g.lanes);
  });
}

void WinogradFilter::transform(int64_t group, int64_t vector, int64_t vectors, int64_t tap, int64_t channel,
                               int64_t channels, float* u, int64_t point_pitch) const {
  const int64_t plane = g.r[0] * g.r[1] * g.lanes, filter = g.depth_taps * plane, u_pitch = vectors * g.lanes;
  constexpr int64_t kRoom = 16 << 10;  // bytes; a few channels at a time stay in L1, see kWinogradTaps
  alignas(64) float few[kRoom / sizeof(float)];
  for (int64_t v = 0; v < vectors; ++v) {
    if (turned) {
      const float* taps = turned + ((group * g.written_vectors() + vector + v) * g.read + channel) * filter;
      g.transforms->filter(channels, taps + tap * plane, filter, !g.forward, u + v * g.lanes, point_pitch, u_pitch);
      continue;
    }
    const int64_t room = kRoom / static_cast<int64_t>(sizeof(float)) / filter;
    for (int64_t c = 0; c < channels; c += room) {
      const int64_t count = std::min(room, channels - c);
      turn(g, kernels, w, group, vector + v, channel + c, count, few);
      g.transforms->filter(count, few + tap * plane, filter, !g.forward, u + c * u_pitch + v * g.lanes, point_pitch,
                           u_pitch);
    }
  }
}

void WinogradFilter::prefetch(int64_t group, int64_t vector, int64_t vectors, int64_t channel, int64_t channels,
                              int64_t share) const {
  if (!turned || channels <= 0) return;
  const int64_t filter = g.all_taps() * g.lanes, all = channels * filter;
  for (int64_t v = 0; v < vectors; ++v) {
    const float* taps = turned + ((group * g.written_vectors() + vector + v) * g.read + channel) * filter;
    for (int64_t i = share * all / g.points; i < (share + 1) * all / g.points; i += 16)
      __builtin_prefetch(taps + i, 0, 2);
  }
}

}  // namespace fastconv
