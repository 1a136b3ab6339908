// SPDX-License-Identifier: Apache-2.0
// The array is cut into blocks that hold whole windows: a strip of pixels with all channels, or a plane. A block's
// squares are gathered densely, summed axis by axis (a box of windows is a product of axes), and used at once, while
// they are in cache. In backward the windows are mirrored.
#include "response_norm.h"

#include <atomic>
#include <utility>

#include "kernels/window_kernels.h"
#include "machine.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kBlockBytes = 64 << 10;  // of squares: two such buffers stay in L2

// An axis of a dense block: `outer` times `length` cells of `inner` elements. 0 stands for what a block's piece gives.
struct Axis {
  int64_t outer, length, inner;
};

// Blocks of `rows` rows, `pitch` apart, each a piece of up to `length` elements of a row of `row`; `parts` blocks cover
// one image (or plane).
struct Blocks {
  int64_t images, image, parts, rows, length, row, pitch;
  Axis axes[3];
  int count;

  int64_t length_of(int64_t part) const { return std::min(length, row - part * length); }
};

Blocks blocks_of(const ResponseNorm& norm, int64_t element) {
  int64_t pixels = 1;
  for (int i = 0; i < norm.rank; ++i) pixels *= norm.size[i];
  const int64_t all = norm.c * pixels;
  Blocks b = {norm.n, all, 1, 1, all, all, 0, {}, 1};
  if (norm.spatial) {
    if (!norm.channels_last) {  // every plane by itself
      b.images = norm.n * norm.c;
      b.image = b.length = b.row = pixels;
    }
    b.count = norm.rank;
    int64_t outer = 1, rest = norm.channels_last ? all : pixels;
    for (int i = 0; i < norm.rank; ++i) {
      rest /= norm.size[i];
      b.axes[i] = {outer, norm.size[i], rest};
      outer *= norm.size[i];
    }
  } else if (norm.channels_last) {  // all pixels in one row, some in a piece
    const int64_t some = std::clamp<int64_t>(kBlockBytes / (norm.c * element), 1, norm.n * pixels);
    b.images = 1;
    b.image = b.row = norm.n * all;
    b.length = some * norm.c;
    b.parts = ceil_div(norm.n * pixels, some);
    b.axes[0] = {0, norm.c, 1};
  } else {  // strips of pixels, a row per channel
    constexpr int64_t lanes = 64;
    b.rows = norm.c;
    b.row = b.pitch = pixels;
    b.length = std::min(std::max(lanes, kBlockBytes / (norm.c * element) / lanes * lanes), pixels);
    b.parts = ceil_div(pixels, b.length);
    b.axes[0] = {1, norm.c, 0};
  }
  return b;
}

template <class T>
void window_sums(const ResponseNormKernelsOf<T>& kernels, const Axis& axis, int64_t before, int64_t after, const T* x,
                 T* sums) {
  const int64_t inner = axis.inner, length = axis.length;
  // Windows that lie within the axis: their cells follow each other, and so do their sums.
  const int64_t first = std::min(before, length), last = std::max(first, length - after);
  const auto edge = [&](const T* from, T* to, int64_t i) {
    const int64_t low = std::max<int64_t>(0, i - before), high = std::min(length, i + after + 1);
    kernels.window_sum(inner, high - low, inner, from + low * inner, to + i * inner);
  };
  for (int64_t o = 0; o < axis.outer; ++o) {
    const T* from = x + o * length * inner;
    T* to = sums + o * length * inner;
    for (int64_t i = 0; i < first; ++i) edge(from, to, i);
    if (last > first)
      kernels.window_sum((last - first) * inner, before + after + 1, inner, from + (first - before) * inner,
                         to + first * inner);
    for (int64_t i = last; i < length; ++i) edge(from, to, i);
  }
}

// Sums over the windows of all axes; *in and *out change places after each.
template <class T>
void box_sums(const ResponseNormKernelsOf<T>& kernels, const Blocks& b, int64_t piece, int64_t before, int64_t after,
              T** in, T** out) {
  for (int i = 0; i < b.count; ++i) {
    Axis axis = b.axes[i];
    if (axis.outer == 0) axis.outer = piece / axis.length;
    if (axis.inner == 0) axis.inner = piece;
    window_sums(kernels, axis, before, after, *in, *out);
    std::swap(*in, *out);
  }
}

// Calls work(offset of the block in the array, length of its rows, two buffers) with the sums of squares in the first.
template <class T, class Work>
bool for_blocks(const Machine& machine, const ResponseNorm& norm, const Blocks& b, const T* x, int64_t arrays,
                const Work& work) {
  const auto& kernels = kernels_of<T>(*machine.kernels->response_norm);
  const int64_t elements = b.rows * b.length, bytes = b.images * b.image * static_cast<int64_t>(sizeof(T));
  std::atomic<bool> failed{false};
  parallel_for(worth_sharing(machine, arrays * bytes), b.images * b.parts, [&](int64_t item, int) {
    const Workspace memory(2 * elements * static_cast<int64_t>(sizeof(T)));
    if (memory.failed()) {
      failed = true;
      return;
    }
    const int64_t part = item % b.parts, piece = b.length_of(part), at = item / b.parts * b.image + part * b.length;
    T *sums = static_cast<T*>(memory.data()), *other = sums + elements;
    for (int64_t r = 0; r < b.rows; ++r) kernels.square(piece, x + at + r * b.pitch, sums + r * piece);
    box_sums(kernels, b, piece, norm.before, norm.after, &sums, &other);
    work(at, piece, sums, other);
  });
  return !failed;
}

bool is_empty(const ResponseNorm& norm) {
  int64_t cells = norm.n * norm.c;
  for (int i = 0; i < norm.rank; ++i) cells *= norm.size[i];
  return cells == 0;
}

}  // namespace

template <class T>
bool response_norm_forward(const Machine& machine, const ResponseNorm& norm, const T* x, T* y) {
  if (is_empty(norm)) return true;
  const auto& kernels = kernels_of<T>(*machine.kernels->response_norm);
  const Blocks b = blocks_of(norm, sizeof(T));
  const T k = static_cast<T>(norm.k), alpha = static_cast<T>(norm.alpha), beta = static_cast<T>(norm.beta);
  return for_blocks<T>(machine, norm, b, x, 4, [&](int64_t at, int64_t piece, const T* sums, const T*) {
    for (int64_t r = 0; r < b.rows; ++r) {
      const int64_t i = at + r * b.pitch;
      kernels.scale(piece, k, alpha, beta, x + i, sums + r * piece, y + i);
    }
  });
}

template <class T>
bool response_norm_backward(const Machine& machine, const ResponseNorm& norm, const T* dy, const T* x, T* dx) {
  if (is_empty(norm)) return true;
  const auto& kernels = kernels_of<T>(*machine.kernels->response_norm);
  const Blocks b = blocks_of(norm, sizeof(T));
  const T k = static_cast<T>(norm.k), alpha = static_cast<T>(norm.alpha), beta = static_cast<T>(norm.beta);
  const T factor = static_cast<T>(2 * norm.alpha * norm.beta);
  return for_blocks<T>(machine, norm, b, x, 6, [&](int64_t at, int64_t piece, T* sums, T* ratio) {
    for (int64_t r = 0; r < b.rows; ++r) {
      const int64_t i = at + r * b.pitch;
      kernels.backward(piece, k, alpha, beta, dy + i, x + i, sums + r * piece, dx + i, ratio + r * piece);
    }
    box_sums(kernels, b, piece, norm.after, norm.before, &ratio, &sums);
    for (int64_t r = 0; r < b.rows; ++r) {
      const int64_t i = at + r * b.pitch;
      kernels.backward_rest(piece, factor, x + i, ratio + r * piece, dx + i);
    }
  });
}

#define FC_INSTANTIATE(T)                                                                    \
  template bool response_norm_forward<T>(const Machine&, const ResponseNorm&, const T*, T*); \
  template bool response_norm_backward<T>(const Machine&, const ResponseNorm&, const T*, const T*, T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv
