// SPDX-License-Identifier: Apache-2.0
#include "im2col.h"

#include <algorithm>
#include <numeric>

namespace fastconv {

ColumnGrid forward_grid(const ConvProblem& p) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t out = output_size(p, a);
    grid.axis[a] = {out, p.size[a], p.stride[a], -p.pad_begin[a], p.dilation[a], p.filter[a], 0, 1, out, 0, 1};
  }
  return grid;
}

int64_t phase_count(const ConvProblem& p, int axis) { return std::min(p.stride[axis], p.size[axis]); }

ColumnGrid backward_data_grid(const ConvProblem& p, const int64_t* phase) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t stride = p.stride[a], dilation = p.dilation[a], divisor = std::gcd(stride, dilation);
    const int64_t reach = phase[a] + p.pad_begin[a], period = stride / divisor;
    ColumnAxis& axis = grid.axis[a];
    axis = {(p.size[a] - phase[a] + stride - 1) / stride, output_size(p, a), 1, 0, -(dilation / divisor), 0, 0, period,
            p.size[a], phase[a], stride};
    // The first tap that reaches this phase; the others follow every `period` taps.
    int64_t first = 0;
    while (first < period && first < p.filter[a] && (reach - first * dilation) % stride != 0) ++first;
    if (first < period && first < p.filter[a]) {
      axis.first_tap = first;
      axis.taps = (p.filter[a] - 1 - first) / period + 1;
      axis.offset = (reach - first * dilation) / stride;
    }
  }
  return grid;
}

ColumnGrid identity_grid(const ConvProblem& p) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t out = output_size(p, a);
    grid.axis[a] = {out, out, 1, 0, 1, 1, 0, 1, out, 0, 1};
  }
  return grid;
}

namespace {

// Grid points that follow each other along the last axis.
struct Run {
  int64_t lane, count, n, o[kMaxSpatial];
};

// visit(run) over [column, column + columns), images laid end to end.
template <class Visit>
void each_run(const ColumnGrid& grid, int64_t column, int64_t columns, const Visit& visit) {
  const int64_t width = grid.axis[2].columns, height = grid.axis[1].columns, per_image = grid.columns();
  Run run;
  int64_t at = column;
  run.n = at / per_image;
  at -= run.n * per_image;
  run.o[2] = at % width;
  run.o[1] = at / width % height;
  run.o[0] = at / width / height;
  for (run.lane = 0; run.lane < columns;) {
    run.count = std::min(width - run.o[2], columns - run.lane);
    visit(run);
    run.lane += run.count;
    run.o[2] = 0;
    if (++run.o[1] == height) {
      run.o[1] = 0;
      if (++run.o[0] == grid.axis[0].columns) run.o[0] = 0, ++run.n;
    }
  }
}

// The same with the pixels of a dense grid joined over rows: runs end at the end of an image only.
template <class Visit>
void each_pixel_run(const ColumnGrid& grid, int64_t column, int64_t columns, const Visit& visit) {
  const ColumnAxis* a = grid.axis;
  if (!grid.is_dense()) {
    return each_run(grid, column, columns, [&](const Run& run) {
      int64_t at[kMaxSpatial];
      for (int i = 0; i < kMaxSpatial; ++i) at[i] = a[i].out_first + run.o[i] * a[i].out_step;
      visit(run.lane, run.count, run.n, (at[0] * a[1].out_size + at[1]) * a[2].out_size + at[2]);
    });
  }
  const int64_t per_image = grid.columns();
  for (int64_t lane = 0; lane < columns;) {
    const int64_t n = (column + lane) / per_image, pixel = (column + lane) % per_image;
    const int64_t count = std::min(per_image - pixel, columns - lane);
    visit(lane, count, n, pixel);
    lane += count;
  }
}

template <class T>
struct Packer {
  const GemmKernelsOf<T>& kernels;
  const ColumnGrid& grid;
  const ImageLayout& layout;
  const T* image;
  int64_t channel, channels;

  // The lanes of one run in every row of a panel.
  void pack(const Run& run, T* panel) const {
    const ColumnAxis* a = grid.axis;
    T* dst = panel + run.lane;
    int64_t at[kMaxSpatial];
    for (int64_t t0 = 0; t0 < a[0].taps; ++t0) {
      at[0] = run.o[0] * a[0].step + a[0].offset + t0 * a[0].offset_step;
      for (int64_t t1 = 0; t1 < a[1].taps; ++t1) {
        at[1] = run.o[1] * a[1].step + a[1].offset + t1 * a[1].offset_step;
        const bool inside = at[0] >= 0 && at[0] < a[0].size && at[1] >= 0 && at[1] < a[1].size;
        for (int64_t t2 = 0; t2 < a[2].taps; ++t2, dst += kernels.nr) {
          at[2] = run.o[2] * a[2].step + a[2].offset + t2 * a[2].offset_step;
          int64_t first = 0, last = 0;
          if (inside && at[2] < a[2].size) {
            first = at[2] < 0 ? (-at[2] + a[2].step - 1) / a[2].step : 0;
            last = std::min(run.count, (a[2].size - 1 - at[2]) / a[2].step + 1);
          }
          if (first >= last) {
            kernels.gather_row(run.count, 0, 0, nullptr, 1, 0, dst, pitch(), channels);
          } else {
            const int64_t pixel = (at[0] * a[1].size + at[1]) * a[2].size + at[2];
            gather(run, first, last, pixel, dst);
          }
        }
      }
    }
  }

 private:
  int64_t pitch() const { return grid.taps() * kernels.nr; }

  void gather(const Run& run, int64_t first, int64_t last, int64_t pixel, T* dst) const {
    const int64_t step = grid.axis[2].step;
    const T* src = image + run.n * layout.batch_pitch + pixel * layout.pixel_step() + channel * layout.channel_step();
    if (layout.layout == Layout::kChannelsFirst) {
      kernels.gather_row(run.count, first, last, src, step, layout.channel_pitch, dst, pitch(), channels);
      return;
    }
    // Channels lie side by side: lanes become rows of a transposition.
    const int64_t lane_step = step * layout.channel_pitch;
    if (first > 0) kernels.gather_row(first, 0, 0, nullptr, 1, 0, dst, pitch(), channels);
    kernels.transpose(last - first, channels, run.count - first, src + first * lane_step, lane_step, dst + first,
                      pitch());
  }
};

}  // namespace

template <class T>
void pack_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, const T* image,
                  int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst) {
  const Packer<T> packer = {kernels, grid, layout, image, channel, channels};
  const int64_t nr = kernels.nr, panel = channels * grid.taps() * nr;
  for (int64_t at = 0; at < columns; at += nr, dst += panel)
    each_run(grid, column + at, std::min(nr, columns - at), [&](const Run& run) { packer.pack(run, dst); });
}

template <class T>
void move_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, bool gather,
                  T* image, int64_t column, int64_t columns, int64_t channel, int64_t rows, T* c, int64_t ldc) {
  const int64_t step = grid.axis[2].out_step;
  each_pixel_run(grid, column, columns, [&](int64_t lane, int64_t count, int64_t n, int64_t pixel) {
    T* at = image + n * layout.batch_pitch + pixel * layout.pixel_step() + channel * layout.channel_step();
    T* strip = c + lane;
    if (layout.layout == Layout::kChannelsLast) {
      const int64_t pitch = step * layout.channel_pitch;
      if (gather)
        kernels.transpose(count, rows, count, at, pitch, strip, ldc);
      else
        kernels.transpose(rows, count, rows, strip, ldc, at, pitch);
    } else if (gather) {
      kernels.gather_row(count, 0, count, at, step, layout.channel_pitch, strip, ldc, rows);
    } else if (step == 1) {
      kernels.gather_row(count, 0, count, strip, 1, ldc, at, layout.channel_pitch, rows);
    } else {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) at[r * layout.channel_pitch + i * step] = strip[r * ldc + i];
    }
  });
}

template void pack_columns<float>(const GemmKernelsOf<float>&, const ColumnGrid&, const ImageLayout&, const float*,
                                  int64_t, int64_t, int64_t, int64_t, float*);
template void pack_columns<double>(const GemmKernelsOf<double>&, const ColumnGrid&, const ImageLayout&, const double*,
                                   int64_t, int64_t, int64_t, int64_t, double*);
template void move_columns<float>(const GemmKernelsOf<float>&, const ColumnGrid&, const ImageLayout&, bool, float*,
                                  int64_t, int64_t, int64_t, int64_t, float*, int64_t);
template void move_columns<double>(const GemmKernelsOf<double>&, const ColumnGrid&, const ImageLayout&, bool, double*,
                                   int64_t, int64_t, int64_t, int64_t, double*, int64_t);

}  // namespace fastconv
