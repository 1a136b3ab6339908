// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which implicit_gemm_data.cc reads them.
#pragma once

#include "implicit_gemm_data_blocking.h"

namespace fastconv {

// dst[phase][k][tap][width] of one block of channels, whose weights begin at element `first`: for each k, vectors of
// channels become [tap][lane], a few taps at a time.
template <class T>
void turn_weights(const ConvProblem& p, const DataBlocking<T>& b, const GemmKernelsOf<T>& kernels, const Stored<T>& w,
                  int64_t first, int64_t width, int64_t count, T* dst) {
  if (b.all_taps == 1)  // channels lie side by side already
    return w.gather_row(kernels, width, 0, count, first, 1, b.channels, dst, width, b.k);
  constexpr int64_t kTaps = 64, kMostLanes = 16;
  T rows[kTaps * kMostLanes];
  T* at[kTaps];         // of k = 0; null where no phase has the tap
  int64_t step[kTaps];  // to the next k
  for (int64_t tap = 0; tap < b.all_taps; tap += kTaps) {
    const int64_t tap_count = std::min(kTaps, b.all_taps - tap);
    std::fill_n(at, tap_count, nullptr);
    each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
      each_tap(p, grid, b.joined, [&](int64_t number, int64_t filter_tap, int64_t) {
        if (filter_tap < tap || filter_tap >= tap + tap_count) return;
        at[filter_tap - tap] = dst + (before * b.k + number) * width;
        step[filter_tap - tap] = grid.taps() * width;
      });
    });
    for (int64_t k = 0; k < b.k; ++k)
      for (int64_t channel = 0; channel < width; channel += b.lanes) {
        const int64_t valid = std::clamp(count - channel, int64_t{0}, b.lanes);
        w.transpose(kernels, valid, tap_count, b.lanes, first + (k * b.channels + channel) * b.all_taps + tap,
                    b.all_taps, rows, b.lanes);
        for (int64_t i = 0; i < tap_count; ++i)
          if (at[i]) std::copy_n(rows + i * b.lanes, b.lanes, at[i] + k * step[i] + channel);
      }
  }
}

// dst[phase of the rows][tile of units][k][tap][unit of the tile] of one block of channels; units are (phase of the
// columns, channel), with zeros where a phase does not have a tap.
template <class T>
void pack_units(const ConvProblem& p, const DataBlocking<T>& b, const Stored<T>& w, int64_t first, int64_t channels,
                T* dst) {
  const int64_t units = channels * b.phase_total[2], tiles = ceil_div(units, int64_t{b.phases.units});
  each_row_phase(p, [&](const ColumnGrid& grid, int64_t) {
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t k = 0; k < b.k; ++k)
        each_row_tap(p, grid, b.joined, [&](int64_t filter_row, int64_t) {
          for (int64_t j = 0; j < b.used_count; ++j)
            for (int64_t unit = tile * units / tiles; unit < (tile + 1) * units / tiles; ++unit) {
              const int64_t tap = b.used_tap[j][unit / channels];
              const int64_t at = (k * b.channels + unit % channels) * b.all_taps + filter_row * p.filter[2] + tap;
              *dst++ = tap < 0 ? T(0) : w.value(first + at);
            }
        });
  });
}

}  // namespace fastconv
