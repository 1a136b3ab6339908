// SPDX-License-Identifier: Apache-2.0
// Winograd's results, A^T m A of every tile, and what follows each of them: bias, residual, activation. Threads transform a
// tile of a channel each and hand its points through shared memory, so that neighbours write neighbouring pixels of a row
// and the activations, long as they are, stand in the code once.
#include "winograd.cuh"

namespace fastconv::cuda {
namespace {

template <class Form>
struct Points {
  float value[Form::m][kWinogradThreads * Form::m];  // of the block's tiles side by side; channels last: [m m][thread]
  int64_t at[kWinogradThreads];                      // of point (0, 0) in the tensor
  int64_t channel[kWinogradThreads];
  int rows[kWinogradThreads], columns[kWinogradThreads];  // points inside the image
};

template <class Form, class T>
__global__ void __launch_bounds__(kWinogradThreads)
    winograd_results(Conv<T> c, bool forward, WinogradTiles tiles, WinogradSlab products) {
  constexpr int m = Form::m, n = Form::n;
  auto& s = shared<Points<Form>>();
  const Image steps = forward ? c.ys : c.xs;
  T* const to = forward ? c.y : c.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t item = int64_t{blockIdx.x} * kWinogradThreads + thread;
  s.rows[thread] = 0;
  const WinogradSlab::Place from = products.place(item);
  if (item < products.items && from.tile < products.end) {
    const WinogradTile t = tiles.tile(from.tile);
    s.rows[thread] = tiles.points(t, 0), s.columns[thread] = tiles.points(t, 1);
    s.channel[thread] = from.channel;
    s.at[thread] = t.image * steps.batch + from.channel * steps.channel +
                   ((t.depth * tiles.written_size[0] + t.first[0]) * tiles.written_size[1] + t.first[1]) * steps.pixel;
    gather_square<OutputMatrix<Form>>([&](auto i, auto j) { return from.at[(i * n + j) * products.point]; },
                                      [&](auto i, auto j, float value) {
                                        if (products.channels_last)
                                          s.value[i][j * kWinogradThreads + thread] = value;
                                        else
                                          s.value[i][thread * m + j] = value;
                                      });
  }
  sync();
  const int64_t row_step = tiles.dilation[0] * tiles.written_size[1] * steps.pixel;
  const int64_t column_step = tiles.dilation[1] * steps.pixel;
  for (int k = 0; k < m * m; ++k) {
    const int i = k / m, at = k % m * kWinogradThreads + thread;
    const int owner = products.channels_last ? thread : at / m, j = products.channels_last ? k % m : at % m;
    if (i < s.rows[owner] && j < s.columns[owner])
      finish(c, to, s.at[owner] + i * row_step + j * column_step, s.channel[owner], s.value[i][at]);
  }
}

}  // namespace

int winograd_output(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles,
                    const WinogradSlab& products) {
  return winograd_by_form(m, p.dtype, [&](auto form, auto type) {
    typedef decltype(type) T;
    typedef decltype(form) Form;
    return launch(r, winograd_results<Form, T>, winograd_grid(products.items), kWinogradThreads, sizeof(Points<Form>),
                  conv_of<T>(p, r), p.pass != Pass::kBackwardData, tiles, products);
  });
}

}  // namespace fastconv::cuda
