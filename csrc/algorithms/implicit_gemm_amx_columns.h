// SPDX-License-Identifier: Apache-2.0
// What implicit_gemm_amx.cc and implicit_gemm_amx_filter.cc read: where the tiles of a strip lie and which of their
// columns are its pixels; the walk over the lines of the tensor that are copied for it.
#pragma once

#include "../halo.h"
#include "../kernels/amx_kernels.h"
#include "implicit_gemm_amx_blocking.h"

namespace fastconv {

struct AmxColumns {
  const int64_t width, place_bytes;       // columns of a tile; of a place
  int64_t* tiles = nullptr;               // where each is read, in bytes
  int64_t *from = nullptr, *to, *counts;  // [run]: columns from[i] on are pixels to[i] on
  int64_t tile_count = 0, run_count = 0;
  bool straight = true;  // column i is pixel i

  AmxColumns(int64_t columns, int64_t bytes) : width(columns), place_bytes(bytes) {}

  void set_straight(int64_t pixels) {
    add_tiles(0, pixels);
    add_run(0, 0, pixels);
  }
  // Tiles for each run of pixels, or, if those are fewer, for all that lies between the first and the last of a slab.
  void find(const ColumnGrid& grid, const HaloGather<float>& gather, int64_t pixel, int64_t pixels) {
    int64_t slab = 0, apart = 0, together = 0, begin = 0, end = -1, last = -1;
    const auto close = [&] {
      if (end >= 0) together += ceil_div(end - begin, width);
    };
    each_run(grid, pixel, pixels, [&](const Run& run) {
      const int64_t place = gather.offset_of(run, &slab);
      apart += ceil_div(run.count, width);
      if (slab != last) close(), begin = place, last = slab;
      end = place + run.count;
    });
    close();
    slab = 0, last = -1, begin = 0, end = 0;
    int64_t column = 0;  // where the tiles of `begin` begin
    each_run(grid, pixel, pixels, [&](const Run& run) {
      const int64_t place = gather.offset_of(run, &slab);
      if (apart <= together || slab != last) {
        if (end > begin) add_tiles(begin, end - begin);
        column = tile_count * width, begin = place, last = slab;
      }
      add_run(column + place - begin, run.lane, run.count);
      end = place + run.count;
    });
    add_tiles(begin, end - begin);
  }

 private:
  void add_run(int64_t column, int64_t lane, int64_t count) {
    straight = straight && column == lane;
    from[run_count] = column, to[run_count] = lane, counts[run_count++] = count;
  }
  void add_tiles(int64_t place, int64_t columns) {
    for (int64_t i = 0; i < columns; i += width) tiles[tile_count++] = (place + i) * place_bytes;
  }
};

// Cells of a channel and of those that are copied with it: `count` places, of which [first, last) lie in the tensor
// from element `cell` on, `step` pixels apart; the others are 0.
struct AmxLine {
  int64_t channel, place, count, first, last, cell, step;
};

// A strip of a tensor's pixels as a grid reads them.
struct AmxSource {
  const GemmKernelsOf<float>& kernels;
  const ColumnGrid& grid;
  const ImageLayout& layout;
  const Stored<float>& tensor;
  AmxStored stored;
  int64_t first_channel, channels, pixel, pixels;

  bool planes() const { return layout.layout == Layout::kChannelsFirst; }
  // Channels last, bfloat16 only has to be turned.
  bool turns() const { return !planes() && stored == AmxStored::kBFloat16; }
  // How many channels a line stands for.
  int64_t together() const { return turns() ? kTileDepth : kChannelsAtOnce; }

  // copy(line) for all lines, or, where cells are not read as they lie, add(channel, count, places, from) for
  // kHaloChannels at a time: rows of float32. Returns the places of a channel; taps' offsets go to the front of `halo`.
  template <class Copy, class Add>
  int64_t read(float* halo, AmxColumns* columns, const Copy& copy, const Add& add) const {
    int64_t* offsets = reinterpret_cast<int64_t*>(halo);
    const bool as_they_lie = planes() || turns();
    if (as_they_lie && grid.reads_as_written()) {
      for (int64_t channel = 0; channel < channels; channel += together())
        each_pixel_run(grid, pixel, pixels, [&](int64_t lane, int64_t count, int64_t n, int64_t at) {
          const int64_t row = n * layout.batch_pitch + at * layout.pixel_step();
          copy(AmxLine{channel, lane, count, 0, count, element(channel, row), 1});
        });
      offsets[0] = 0;
      columns->set_straight(pixels);
      return pixels;
    }
    const HaloGather<float> gather(kernels, grid, pixel, pixels);
    const int64_t places = gather.channel_pitch();
    if (as_they_lie && grid.padding_mode == PaddingMode::kZeros) {
      const int64_t length = gather.line_length(), step = gather.cell_step();
      for (int64_t channel = 0; channel < channels; channel += together())
        gather.each_line(layout, 0, [&](int64_t place, int64_t row, int64_t at) {
          if (row == kOutside) return copy(AmxLine{channel, place, length, 0, 0, 0, 1});
          const Inside inside(at, step, length, grid.axis[2].size);
          const int64_t cell = inside.first < inside.last ? element(channel, row + at * layout.pixel_step()) : 0;
          copy(AmxLine{channel, place, length, inside.first, inside.last, cell, step});
        });
    } else {
      for (int64_t channel = 0; channel < channels; channel += kHaloChannels) {
        const int64_t count = std::min(kHaloChannels, channels - channel);
        gather.fill(layout, tensor, first_channel + channel, count, halo);
        add(channel, count, places, gather.halo(halo));
      }
    }
    gather.tap_offsets(halo);
    columns->find(grid, gather, pixel, pixels);
    return places;
  }

 private:
  int64_t element(int64_t channel, int64_t row) const {
    return row + (first_channel + channel) * layout.channel_step();
  }
};

}  // namespace fastconv
