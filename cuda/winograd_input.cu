// SPDX-License-Identifier: Apache-2.0
// Winograd's transforms of images, a thread for a tile of a channel: B^T d B of the cells that a tile reads, and, for the
// filter's gradient, A y A^T of its points. Tiles of a row overlap; what two of them read comes from L1.
#include "winograd.cuh"

namespace fastconv::cuda {
namespace {

template <class T>
struct Source {
  const T* from;
  Image steps;
  PaddingMode mode;
  float pad_value;
};

template <class Form>
__device__ __forceinline__ void fill_zeros(const WinogradSlab::Place& to, const WinogradSlab& slab) {
  for (int i = 0; i < Form::n * Form::n; ++i) to.at[i * slab.point] = 0;
}

// Stores a square of points column by column, as spread_square gives them, by steps: a product of 64 bits for every place
// would be most of what such a kernel does.
template <class Form>
struct Columns {
  float *from, *at;
  int64_t point;
  __device__ __forceinline__ Columns(const WinogradSlab::Place& to, const WinogradSlab& slab)
      : from(to.at), at(to.at), point(slab.point) {}
  template <class I, class J>
  __device__ __forceinline__ void put(I, J, float value) {
    *at = value;
    at += Form::n * point;
    if constexpr (I::value == Form::n - 1) from += point, at = from;
  }
};

// The cell of a coordinate, negative where there is none: padded_source answers for those that an output reads alone, and
// the last tile asks for others. `shown`: padding shows cells.
template <bool shown>
__device__ __forceinline__ int64_t cell_of(PaddingMode mode, int64_t at, int64_t size) {
  if constexpr (shown) at = padded_source(mode, at, size);
  return at < size ? at : -1;
}

template <class Form, bool shown, class T>
__global__ void __launch_bounds__(kWinogradThreads) winograd_cells(Source<T> s, WinogradTiles tiles, WinogradSlab v) {
  constexpr int n = Form::n;
  const int64_t item = int64_t{blockIdx.x} * kWinogradThreads + threadIdx.x;
  if (item >= v.items) return;
  const WinogradSlab::Place to = v.place(item);
  if (to.tile >= v.end) return fill_zeros<Form>(to, v);
  const WinogradTile t = tiles.tile(to.tile);
  const T* from = s.from + t.image * s.steps.batch + to.channel * s.steps.channel;
  const int64_t lines = t.depth * tiles.read_size[0], line_step = tiles.read_size[1] * s.steps.pixel;
  int64_t columns[n];   // offsets
  unsigned inside = 0;  // bit j: there is a column j
  each<n>([&](auto j) {
    const int64_t at = cell_of<shown>(s.mode, t.first[1] + tiles.shift[1] + j * tiles.dilation[1], tiles.read_size[1]);
    columns[j] = at * s.steps.pixel;
    if (at >= 0) inside |= 1u << j;
  });
  Columns<Form> places(to, v);
  spread_square<InputMatrix<Form>>(
      [&](auto i, auto& row) {
        const int64_t at =
            cell_of<shown>(s.mode, t.first[0] + tiles.shift[0] + i * tiles.dilation[0], tiles.read_size[0]);
        const unsigned present = at >= 0 ? inside : 0;
        const T* line = from + (lines + at) * line_step;
        each<n>([&](auto j) { row[j] = present >> j & 1 ? widen(line[columns[j]]) : s.pad_value; });
      },
      [&](auto i, auto j, float value) { places.put(i, j, value); });
}

template <class Form, class T>
__global__ void __launch_bounds__(kWinogradThreads) winograd_points(Source<T> s, WinogradTiles tiles, WinogradSlab d) {
  constexpr int m = Form::m;
  const int64_t item = int64_t{blockIdx.x} * kWinogradThreads + threadIdx.x;
  if (item >= d.items) return;
  const WinogradSlab::Place to = d.place(item);
  if (to.tile >= d.end) return fill_zeros<Form>(to, d);
  const WinogradTile t = tiles.tile(to.tile);
  const int rows = tiles.points(t, 0), columns = tiles.points(t, 1);
  const T* from = s.from + t.image * s.steps.batch + to.channel * s.steps.channel;
  const int64_t lines = t.depth * tiles.written_size[0] + t.first[0];
  Columns<Form> places(to, d);
  spread_square<OutputMatrix<Form>>(
      [&](auto i, auto& row) {
        const T* line = from + ((lines + i * tiles.dilation[0]) * tiles.written_size[1] + t.first[1]) * s.steps.pixel;
        each<m>([&](auto j) {
          row[j] = i < rows && j < columns ? widen(line[j * tiles.dilation[1] * s.steps.pixel]) : 0.0f;
        });
      },
      [&](auto i, auto j, float value) { places.put(i, j, value); });
}

}  // namespace

int winograd_input(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles,
                   const WinogradSlab& v) {
  return winograd_by_form(m, p.dtype, [&](auto form, auto type) {
    typedef decltype(type) T;
    const Conv<T> c = conv_of<T>(p, r);
    const bool forward = p.pass != Pass::kBackwardData;
    Source<T> s{forward ? c.x : c.y, forward ? c.xs : c.ys, forward ? p.padding_mode : PaddingMode::kZeros, 0};
    if (s.mode == PaddingMode::kConstant) s.pad_value = c.pad_value;
    const auto kernel =
        shows_cells(s.mode) ? winograd_cells<decltype(form), true, T> : winograd_cells<decltype(form), false, T>;
    return launch(r, kernel, winograd_grid(v.items), kWinogradThreads, 0, s, tiles, v);
  });
}

int winograd_gradient(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles,
                      const WinogradSlab& d) {
  return winograd_by_form(m, p.dtype, [&](auto form, auto type) {
    typedef decltype(type) T;
    const Conv<T> c = conv_of<T>(p, r);
    const Source<T> s{c.y, c.ys, PaddingMode::kZeros, 0};
    return launch(r, winograd_points<decltype(form), T>, winograd_grid(d.items), kWinogradThreads, 0, s, tiles, d);
  });
}

}  // namespace fastconv::cuda
