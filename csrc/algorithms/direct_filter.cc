// SPDX-License-Identifier: Apache-2.0
// The direct filter gradient, without workspace: each item owns some weights and reads all images.
//   both tensors channels first: lanes are pixels, sums[k rows][up to 3 taps][lanes] over the planes of one input
//   channel x or y channels last:        lanes are its channels, the other tensor is broadcast; sums[rows][2 vectors]
//   of one tap
// Images are summed in blocks that stay in cache; the blocks are added in order.
#include <cmath>

#include "../parallel.h"
#include "../phases.h"
#include "direct.h"

namespace fastconv {
namespace {

constexpr int64_t kBlockBytes = 64 << 10;  // of y (and x) that a tile of weights reads for one block of images
constexpr int kMostLanes = 16, kMostRows = 8, kPlaneTaps = 3;  // of any instruction set

template <class T>
class DirectFilter {
 public:
  DirectFilter(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(direct_kernels<T>(*r.machine)),
        axis{DirectAxis(p, 0, true, 0), DirectAxis(p, 1, true, 0), DirectAxis(p, 2, true, 0)},
        xs{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        ys{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        x(static_cast<const T*>(r.x)),
        y(static_cast<const T*>(r.y)),
        w(static_cast<T*>(r.w)),
        cg(p.c / p.groups),
        kg(p.k / p.groups),
        constant(p.padding_mode == PaddingMode::kConstant),
        pad(constant ? static_cast<T>(r.pad_value) : T(0)) {}

  void run() const {
    if (xs.layout == Layout::kChannelsFirst && ys.layout == Layout::kChannelsFirst) return run_planes();
    run_pixels();
  }

 private:
  // Some weights: rows of k (or of c) from `row` on, columns of the other; counted in their group.
  struct Place {
    int64_t group, row, column, columns;
    int rows;
  };

  int64_t images_of_block(int64_t channels) const {
    return std::clamp(kBlockBytes / (y_plane(p) * channels * int64_t{sizeof(T)}), int64_t{1},
                      std::max<int64_t>(1, p.n));
  }

  // ---- Lanes are pixels --------------------------------------------------------------------------------------------

  void run_planes() const {
    const int64_t pieces = ceil_div(kg, kernels.filter_rows);
    parallel_for(r.parallel, p.groups * pieces * cg, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      Place at{};
      const int64_t piece = item / cg % pieces;
      at.group = item / cg / pieces;
      at.column = item % cg;
      at.row = piece * kg / pieces;
      at.rows = static_cast<int>((piece + 1) * kg / pieces - at.row);
      planes(at);
    });
  }

  T* weight(const Place& at, int64_t row) const {
    return w + ((at.group * kg + at.row + row) * cg + at.column) * taps(p);
  }
  const T* x_of(const Place& at, int64_t n) const {
    return x + n * xs.batch_pitch + (at.group * cg + at.column) * xs.channel_step();
  }
  const T* y_of(const Place& at, int64_t n) const {
    return y + n * ys.batch_pitch + (at.group * kg + at.row) * ys.channel_step();
  }

  void planes(const Place& at) const {
    const int64_t block = images_of_block(at.rows);
    for (int i = 0; i < at.rows; ++i) std::fill(weight(at, i), weight(at, i) + taps(p), T(0));
    for (int64_t n = 0; n < p.n; n += block)
      for (int64_t t0 = 0; t0 < p.filter[0]; ++t0)
        for (int64_t t1 = 0; t1 < p.filter[1]; ++t1)
          for (int64_t t2 = 0; t2 < p.filter[2]; t2 += kPlaneTaps) {
            const int64_t tap[] = {t0, t1, t2};
            const int count = static_cast<int>(std::min<int64_t>(kPlaneTaps, p.filter[2] - t2));
            T total[kMostRows * kPlaneTaps];
            images(at, n, std::min(n + block, p.n), tap, count, total);
            for (int i = 0; i < at.rows; ++i)
              for (int t = 0; t < count; ++t)
                weight(at, i)[(t0 * p.filter[1] + t1) * p.filter[2] + t2 + t] += total[i * count + t];
          }
    if (p.padding_mode == PaddingMode::kZeros) repair(at);
  }

  // total[row][tap] over images [n, last) for `count` taps from tap[2] on.
  void images(const Place& at, int64_t n, int64_t last, const int64_t* tap, int count, T* total) const {
    alignas(64) T sums[kMostRows * kPlaneTaps * kMostLanes] = {};
    T edges[kMostRows * kPlaneTaps] = {};
    // Columns that the kernel takes: all when padding is zeros, else those whose taps are all inside.
    DirectPlane<T> plane{};
    int64_t left = 0,
            right = p.padding_mode == PaddingMode::kZeros ? axis[2].points : plain_columns(tap[2], count, &left);
    plane.columns = right - left;
    plane.y_channel = ys.channel_pitch;
    plane.y_row = axis[2].points;
    plane.x_row = axis[1].step * p.size[2];
    plane.step = axis[2].step;
    plane.size = p.size[2];
    plane.taps = count;
    for (int t = 0; t < count; ++t) {
      axis[2].start(tap[2] + t, &plane.at[t]);
      plane.at[t] += left * axis[2].step;
    }
    int64_t top, bottom;
    axis[1].inside(tap[1], &top, &bottom);
    for (; n < last; ++n)
      for (int64_t o0 = 0; o0 < axis[0].points; ++o0) {
        const int64_t depth = axis[0].read(o0, tap[0], 0);
        if (depth == kOutside && !constant) continue;
        const T* y_slice = y_of(at, n) + o0 * axis[1].points * axis[2].points;
        const T* x_slice = x_of(at, n) + depth * p.size[1] * p.size[2];
        for (int64_t o1 = 0; o1 < axis[1].points; ++o1) {
          const int64_t row = axis[1].read(o1, tap[1], 0);
          const bool inside = depth != kOutside && row != kOutside;
          if (!inside && !constant) continue;
          const T* y_row = y_slice + o1 * axis[2].points;
          const T* x_row = inside ? x_slice + row * p.size[2] : nullptr;
          plane.rows = depth != kOutside && o1 == top && bottom > top ? bottom - top : 1;
          if (inside && plane.columns > 0) {
            plane.y = y_row + left;
            plane.x = x_row;
            kernels.filter_plane(&plane, at.rows, sums);
          }
          for (int64_t i = 0; i < plane.rows; ++i) {
            const T* line = inside ? x_row + i * plane.x_row : nullptr;
            edge_columns(at, y_row + i * plane.y_row, line, 0, inside ? left : axis[2].points, tap, count, edges);
            if (inside) edge_columns(at, y_row + i * plane.y_row, line, right, axis[2].points, tap, count, edges);
          }
          o1 += plane.rows - 1;
        }
      }
    kernels.filter_total(at.rows * count, sums, total);
    for (int i = 0; i < at.rows * count; ++i) total[i] += edges[i];
  }

  int64_t plain_columns(int64_t tap, int count, int64_t* left) const {
    int64_t right = axis[2].points;
    for (int t = 0; t < count; ++t) {
      int64_t first, last;
      axis[2].inside(tap + t, &first, &last);
      *left = std::max(*left, first);
      right = std::min(right, last);
    }
    return std::max(*left, right);
  }

  // Columns [first, last) of one row, one by one; line null: a row of padding.
  void edge_columns(const Place& at, const T* y_row, const T* line, int64_t first, int64_t last, const int64_t* tap,
                    int count, T* edges) const {
    for (int64_t o = first; o < last; ++o)
      for (int t = 0; t < count; ++t) {
        const int64_t column = line ? axis[2].read(o, tap[2] + t, 0) : kOutside;
        const T value = column == kOutside ? pad : line[column];
        for (int i = 0; i < at.rows; ++i) edges[i * count + t] += y_row[i * ys.channel_pitch + o] * value;
      }
  }

  // A masked lane multiplied a zero by a gradient that is Inf or NaN: such sums are computed again, tap by tap.
  void repair(const Place& at) const {
    for (int i = 0; i < at.rows; ++i)
      for (int64_t tap = 0; tap < taps(p); ++tap) {
        int64_t first, last;
        axis[2].inside(tap % p.filter[2], &first, &last);
        T& value = weight(at, i)[tap];
        if (!std::isfinite(value) && last - first < axis[2].points) value = plain_sum(at, i, tap);
      }
  }
  T plain_sum(const Place& at, int64_t row, int64_t tap) const {
    T sum = 0;
    for (int64_t n = 0; n < p.n; ++n) {
      const T* value = y_of(at, n) + row * ys.channel_pitch;
      for (int64_t o0 = 0; o0 < axis[0].points; ++o0)
        for (int64_t o1 = 0; o1 < axis[1].points && !std::isnan(sum); ++o1)
          for (int64_t o2 = 0; o2 < axis[2].points; ++o2, ++value) {
            const int64_t i = axis[0].read(o0, tap / p.filter[2] / p.filter[1], 0);
            const int64_t j = axis[1].read(o1, tap / p.filter[2] % p.filter[1], 0);
            const int64_t k = axis[2].read(o2, tap % p.filter[2], 0);
            if (i == kOutside || j == kOutside || k == kOutside) continue;
            sum += *value * x_of(at, n)[(i * p.size[1] + j) * p.size[2] + k];
          }
    }
    return sum;
  }

  // ---- Lanes are channels ------------------------------------------------------------------------------------------

  bool lanes_of_x() const { return xs.layout == Layout::kChannelsLast; }

  void run_pixels() const {
    const int64_t width = 2 * kernels.lanes, all_rows = lanes_of_x() ? kg : cg, all_columns = lanes_of_x() ? cg : kg;
    const int64_t pieces = ceil_div(all_rows, kernels.filter_rows), strips = ceil_div(all_columns, width);
    parallel_for(r.parallel, p.groups * pieces * strips, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      Place at{};
      const int64_t piece = item / strips % pieces;
      at.group = item / strips / pieces;
      at.row = piece * all_rows / pieces;
      at.rows = static_cast<int>((piece + 1) * all_rows / pieces - at.row);
      at.column = item % strips * width;
      at.columns = std::min(width, all_columns - at.column);
      const int64_t block = images_of_block(at.rows + width);
      for (int64_t n = 0; n == 0 || n < p.n; n += block)
        for (int64_t tap = 0; tap < taps(p); ++tap) pixels(at, n, std::min(n + block, p.n), tap);
    });
  }

  void pixels(const Place& at, int64_t n, int64_t last, int64_t tap) const {
    alignas(64) T sums[kMostRows * 2 * kMostLanes] = {};
    const bool begin = n == 0;
    const int64_t t0 = tap / p.filter[2] / p.filter[1], t1 = tap / p.filter[2] % p.filter[1], t2 = tap % p.filter[2];
    int64_t left, right, start;
    axis[2].inside(t2, &left, &right);
    axis[2].start(t2, &start);
    for (; n < last; ++n)
      for (int64_t o0 = 0; o0 < axis[0].points; ++o0) {
        const int64_t depth = axis[0].read(o0, t0, 0);
        if (depth == kOutside && !constant) continue;
        for (int64_t o1 = 0; o1 < axis[1].points; ++o1) {
          const int64_t row = axis[1].read(o1, t1, 0), width = axis[2].points;
          const bool inside = depth != kOutside && row != kOutside;
          if (!inside && !constant) continue;
          const int64_t y_at = n * ys.batch_pitch + (o0 * axis[1].points + o1) * width * ys.pixel_step();
          const int64_t x_at = n * xs.batch_pitch + (depth * p.size[1] + row) * p.size[2] * xs.pixel_step();
          if (!inside) {
            run_of(at, width, y_at, kOutside, sums);
            continue;
          }
          for (int64_t o = 0; o < width; ++o) {
            const int64_t column = axis[2].read(o, t2, 0), pixel = y_at + o * ys.pixel_step();
            if (o == left && right > left) {
              run_of(at, right - left, pixel, x_at + column * xs.pixel_step(), sums);
              o = right - 1;
            } else if (column != kOutside || constant) {
              run_of(at, 1, pixel, column == kOutside ? kOutside : x_at + column * xs.pixel_step(), sums);
            }
          }
        }
      }
    for (int i = 0; i < at.rows; ++i)
      for (int64_t j = 0; j < at.columns; ++j) {
        const int64_t k = lanes_of_x() ? at.row + i : at.column + j, c = lanes_of_x() ? at.column + j : at.row + i;
        T& value = w[((at.group * kg + k) * cg + c) * taps(p) + tap];
        value = (begin ? T(0) : value) + sums[i * 2 * kernels.lanes + j];
      }
  }

  // `count` pixels in a row; y_at and x_at are those of the first, in channel 0. x_at kOutside: padding.
  void run_of(const Place& at, int64_t count, int64_t y_at, int64_t x_at, T* sums) const {
    const int64_t x_pixel = axis[2].step * xs.pixel_step(), y_pixel = ys.pixel_step();
    T border[2 * kMostLanes];
    if (lanes_of_x()) {
      const T* a = y + y_at + (at.group * kg + at.row) * ys.channel_step();
      if (x_at == kOutside) {
        std::fill(border, border + at.columns, pad);
        return kernels.filter_pixels(count, at.rows, at.columns, a, y_pixel, ys.channel_step(), border, 0, sums);
      }
      const T* b = x + x_at + at.group * cg + at.column;
      return kernels.filter_pixels(count, at.rows, at.columns, a, y_pixel, ys.channel_step(), b, x_pixel, sums);
    }
    const T* b = y + y_at + at.group * kg + at.column;
    if (x_at == kOutside) return kernels.filter_pixels(count, at.rows, at.columns, &pad, 0, 0, b, y_pixel, sums);
    const T* a = x + x_at + (at.group * cg + at.row) * xs.channel_step();
    kernels.filter_pixels(count, at.rows, at.columns, a, x_pixel, xs.channel_step(), b, y_pixel, sums);
  }

  const ConvProblem& p;
  const RunContext& r;
  const DirectKernelsOf<T>& kernels;
  const DirectAxis axis[kMaxSpatial];
  const ImageLayout xs, ys;
  const T *x, *y;
  T* w;
  const int64_t cg, kg;
  const bool constant;
  const T pad;
};

}  // namespace

void direct_filter_run(const ConvProblem& p, const RunContext& r) {
  if (p.dtype == DType::kFloat64)
    DirectFilter<double>(p, r).run();
  else
    DirectFilter<float>(p, r).run();
}

}  // namespace fastconv
