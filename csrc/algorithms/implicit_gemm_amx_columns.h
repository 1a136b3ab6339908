// SPDX-License-Identifier: Apache-2.0
// Tiles of a strip for implicit_gemm_amx.cc and implicit_gemm_amx_filter.cc, and which of their columns are its pixels.
#pragma once

#include "../halo.h"
#include "../kernels/amx_kernels.h"

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

}  // namespace fastconv
