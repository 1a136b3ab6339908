// SPDX-License-Identifier: Apache-2.0
#include "border.h"

#include <algorithm>

namespace fastconv {

template <class T>
void fold_border(const ConvProblem& p, const ImageLayout& layout, const T* y, int64_t column, int64_t columns,
                 int64_t channel, int64_t channels, int nr, T* panels) {
  const int64_t plane = x_plane(p), pitch = taps(p) * nr;
  const int64_t first = column / plane, last = (column + columns - 1) / plane;
  const bool one = first == last;
  const int64_t first_row = one ? column % plane / p.size[2] : 0;
  const int64_t last_row = one ? (column + columns - 1) % plane / p.size[2] : plane;
  const int64_t pixel_step = layout.pixel_step(), channel_step = layout.channel_step();
  each_border_run(p, first_row, last_row, [&](const BorderRun& run) {
    const int64_t source_step = run.source_step * pixel_step;
    for (int64_t n = first; n <= last; ++n) {
      const int64_t lane0 = n * plane + run.target - column;
      const T* src = y + n * layout.batch_pitch + run.source * pixel_step + channel * channel_step;
      for (int64_t i = 0, part; i < run.count; i += part) {
        const int64_t lane = lane0 + i * run.target_step;
        part = 1;
        if (lane < 0 || lane >= columns) continue;
        if (run.target_step == 1) part = std::min({run.count - i, nr - lane % nr, columns - lane});
        T* at = panels + lane / nr * channels * pitch + run.tap * nr + lane % nr;
        const T* from = src + i * source_step;
        for (int64_t c = 0; c < channels; ++c, at += pitch, from += channel_step)
          for (int64_t j = 0; j < part; ++j) at[j] += from[j * source_step];
      }
    }
  });
}

template <class T>
void add_columns(const ColumnGrid& grid, const ImageLayout& layout, T* image, int64_t column, int64_t columns,
                 int64_t channel, int64_t rows, const T* c, int64_t ldc) {
  const int64_t pixel_step = grid.axis[2].out_step * layout.pixel_step(), channel_step = layout.channel_step();
  each_pixel_run(grid, column, columns, [&](int64_t lane, int64_t count, int64_t n, int64_t pixel) {
    T* at = image + n * layout.batch_pitch + pixel * layout.pixel_step() + channel * channel_step;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; ++i) at[r * channel_step + i * pixel_step] += c[r * ldc + lane + i];
  });
}

template void fold_border<float>(const ConvProblem&, const ImageLayout&, const float*, int64_t, int64_t, int64_t,
                                 int64_t, int, float*);
template void fold_border<double>(const ConvProblem&, const ImageLayout&, const double*, int64_t, int64_t, int64_t,
                                  int64_t, int, double*);
template void add_columns<float>(const ColumnGrid&, const ImageLayout&, float*, int64_t, int64_t, int64_t, int64_t,
                                 const float*, int64_t);
template void add_columns<double>(const ColumnGrid&, const ImageLayout&, double*, int64_t, int64_t, int64_t, int64_t,
                                  const double*, int64_t);

}  // namespace fastconv
