// SPDX-License-Identifier: Apache-2.0
// Three ways through memory:
//   rows     one pixel per channel, or layer normalisation: a group is a row, gamma differs from element to element
//   planes   channels first: a group is a row too, cut into planes of one gamma each
//   pixels   channels last: sums per channel over blocks of pixels, joined per group
// With h = (x - mean) inverse, g = gamma dy and M values per group:
//   dx = inverse (g - sum(g) / M - h sum(g h) / M)      dgamma = sum(dy h)      dbeta = sum(dy)
#include "group_norm.h"

#include <cmath>

#include "kernels/norm_kernels.h"
#include "machine.h"
#include "moments.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kChunk = 4096;    // values of a row between two joins: read twice from L1
constexpr int64_t kBlockRows = 64;  // rows (or pixels) and
constexpr int64_t kColumns = 64;    // columns of a block

template <class T>
struct Kernels {
  const RowNormKernelsOf<T>& rows;
  const NormKernelsOf<T>&planes, &columns;

  explicit Kernels(const Machine& machine)
      : rows(kernels_of<T>(*machine.kernels->row_norm)),
        planes(of(machine.kernels->norm->planes_f32, machine.kernels->norm->planes_f64)),
        columns(of(machine.kernels->norm->columns_f32, machine.kernels->norm->columns_f64)) {}

 private:
  static const auto& of(const NormKernelsOf<float>& f32, const NormKernelsOf<double>& f64) {
    if constexpr (sizeof(T) == 8)
      return f64;
    else
      return f32;
  }
};

// `count` arrays of `length` doubles or T.
template <class N>
class Arrays {
 public:
  Arrays(int64_t count, int64_t length) : length_(length), memory_(count * length * static_cast<int64_t>(sizeof(N))) {}
  bool failed() const { return memory_.failed(); }
  N* operator[](int64_t i) const { return static_cast<N*>(memory_.data()) + i * length_; }

 private:
  int64_t length_;
  Workspace memory_;
};

double inverse_of(const Moments& all, double eps) { return 1 / std::sqrt(all.squares / all.count + eps); }

// ---- Forward --------------------------------------------------------------------------------------------------------

template <class T>
bool forward_rows(const Machine& machine, const GroupShape& s, const T* x, const T* gamma, const T* beta, double eps,
                  T* y, double* mean, double* inverse) {
  const Kernels<T> kernels(machine);
  const int64_t rows = s.n * s.groups, per = s.c / s.groups, length = per * s.pixels, bytes = length * sizeof(T);
  const int64_t chunks = ceil_div(length, kChunk);
  const auto moments = [&](int64_t row, int64_t chunk) {
    const int64_t count = std::min(kChunk, length - chunk * kChunk);
    Moments m = {static_cast<double>(count), 0, 0};
    kernels.planes.moments({1, count, 0}, x + row * length + chunk * kChunk, &m.mean, &m.squares);
    return m;
  };
  const auto finish = [&](int64_t row, const auto& leaf) {
    const Moments all = join_moments(0, chunks, leaf);
    mean[row] = all.mean;
    inverse[row] = inverse_of(all, eps);
  };
  const auto apply = [&](int64_t row, int64_t first, int64_t count) {
    const int64_t at = row * length, channel = row % s.groups * per;
    const double m = mean[row], r = inverse[row];
    if (s.pixels == 1)
      return kernels.rows.apply(count, x + at + first, m, r, gamma + channel + first, beta + channel + first,
                                y + at + first);
    for (int64_t i = first; i < first + count;) {
      const int64_t plane = i / s.pixels, end = std::min((plane + 1) * s.pixels, first + count);
      const double scale = static_cast<double>(gamma[channel + plane]) * r;
      const T centre = static_cast<T>(m), a = static_cast<T>(scale);
      const T b =
          static_cast<T>(static_cast<double>(beta[channel + plane]) - (m - static_cast<double>(centre)) * scale);
      kernels.planes.apply({1, end - i, 0}, x + at + i, &centre, &a, &b, y + at + i);
      i = end;
    }
  };
  if (bytes <= kItemBytes) {  // a row stays in L2 between its two passes
    for_chunks(machine, rows, 2 * bytes, [&](int64_t first, int64_t count) {
      for (int64_t row = first; row < first + count; ++row) {
        finish(row, [&](int64_t chunk) { return moments(row, chunk); });
        apply(row, 0, length);
      }
    });
    return true;
  }
  const Workspace memory(rows * chunks * static_cast<int64_t>(sizeof(Moments)));
  if (memory.failed()) return false;
  Moments* partial = static_cast<Moments*>(memory.data());
  for_chunks(machine, rows * chunks, kChunk * sizeof(T), [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) partial[i] = moments(i / chunks, i % chunks);
  });
  for (int64_t row = 0; row < rows; ++row) finish(row, [&](int64_t chunk) { return partial[row * chunks + chunk]; });
  const int64_t piece = kItemBytes / (2 * sizeof(T)), pieces = ceil_div(length, piece);
  parallel_for(worth_sharing(machine, 2 * rows * bytes), rows * pieces, [&](int64_t item, int) {
    const int64_t first = item % pieces * piece;
    apply(item / pieces, first, std::min(piece, length - first));
  });
  return true;
}

// Calls work(first pixel of the block, number of pixels, index of the block) over all images.
template <class Work>
void for_pixel_blocks(const Machine& machine, const GroupShape& s, int64_t bytes, const Work& work) {
  const int64_t blocks = ceil_div(s.pixels, kBlockRows);
  parallel_for(worth_sharing(machine, s.n * s.pixels * s.c * bytes), s.n * blocks, [&](int64_t item, int) {
    const int64_t first = item % blocks * kBlockRows;
    work(item / blocks * s.pixels + first, std::min(kBlockRows, s.pixels - first), item);
  });
}

template <class T>
bool forward_pixels(const Machine& machine, const GroupShape& s, const T* x, const T* gamma, const T* beta, double eps,
                    T* y, double* mean, double* inverse) {
  const Kernels<T> kernels(machine);
  const int64_t blocks = ceil_div(s.pixels, kBlockRows), per = s.c / s.groups;
  const Arrays<double> partial(2, s.n * blocks * s.c);
  const Arrays<T> factors(3, s.n * s.c);
  if (partial.failed() || factors.failed()) return false;
  for_pixel_blocks(machine, s, sizeof(T), [&](int64_t pixel, int64_t rows, int64_t block) {
    for (int64_t c = 0; c < s.c; c += kColumns)
      kernels.columns.moments({rows, std::min(kColumns, s.c - c), s.c}, x + pixel * s.c + c,
                              partial[0] + block * s.c + c, partial[1] + block * s.c + c);
  });
  T *centre = factors[0], *scale = factors[1], *shift = factors[2];
  for (int64_t row = 0; row < s.n * s.groups; ++row) {
    const int64_t image = row / s.groups, channel = row % s.groups * per;
    const Moments all = join_moments(channel, channel + per, [&](int64_t c) {
      return join_moments(0, blocks, [&](int64_t block) {
        const int64_t i = (image * blocks + block) * s.c + c;
        return Moments{static_cast<double>(std::min(kBlockRows, s.pixels - block * kBlockRows)), partial[0][i],
                       partial[1][i]};
      });
    });
    mean[row] = all.mean;
    inverse[row] = inverse_of(all, eps);
    for (int64_t c = channel; c < channel + per; ++c) {
      const int64_t i = image * s.c + c;
      const double factor = static_cast<double>(gamma[c]) * inverse[row];
      centre[i] = static_cast<T>(all.mean);
      scale[i] = static_cast<T>(factor);
      shift[i] = static_cast<T>(static_cast<double>(beta[c]) - (all.mean - static_cast<double>(centre[i])) * factor);
    }
  }
  for_pixel_blocks(machine, s, 2 * sizeof(T), [&](int64_t pixel, int64_t rows, int64_t block) {
    const int64_t i = block / blocks * s.c, at = pixel * s.c;
    kernels.columns.apply({rows, s.c, s.c}, x + at, centre + i, scale + i, shift + i, y + at);
  });
  return true;
}

// ---- Backward -------------------------------------------------------------------------------------------------------

// What dx needs of a group: dx = g inverse + (x - mean) slope + shift, from sum(g) and sum(g (x - mean)).
struct Row {
  double slope, shift;
  Row(double inverse, double sum, double product, double values)
      : slope(-inverse * inverse * inverse * product / values), shift(-inverse * sum / values) {}
};

template <class T>
bool backward_rows(const Machine& machine, const GroupShape& s, const T* dy, const T* x, const T* gamma,
                   const double* mean, const double* inverse, T* dx, T* dgamma, T* dbeta) {
  const Kernels<T> kernels(machine);
  const int64_t length = s.c / s.groups, blocks = ceil_div(s.n, kBlockRows), parts = ceil_div(length, kColumns);
  for_chunks(machine, s.n * s.groups, 3 * length * sizeof(T), [&](int64_t first, int64_t count) {
    for (int64_t row = first; row < first + count; ++row) {
      const T *weights = gamma + row % s.groups * length, *g = dy + row * length, *values = x + row * length;
      double sum, product;
      kernels.rows.backward_sums(length, g, values, weights, mean[row], &sum, &product);
      const Row to_dx(inverse[row], sum, product, static_cast<double>(length));
      kernels.rows.backward(length, g, values, weights, mean[row], inverse[row], to_dx.slope, to_dx.shift,
                            dx + row * length);
    }
  });
  const Arrays<double> partial(2, blocks * s.c);
  if (partial.failed()) return false;
  parallel_for(worth_sharing(machine, 2 * s.n * s.c * sizeof(T)), blocks * s.groups * parts, [&](int64_t item, int) {
    const int64_t block = item / (s.groups * parts), group = item / parts % s.groups, at = item % parts * kColumns;
    const int64_t c = group * length + at, first = block * kBlockRows;
    kernels.rows.parameters(std::min(kBlockRows, s.n - first), std::min(kColumns, length - at), s.c,
                            dy + first * s.c + c, x + first * s.c + c, s.groups, mean + first * s.groups + group,
                            inverse + first * s.groups + group, partial[0] + block * s.c + c,
                            partial[1] + block * s.c + c);
  });
  for (int64_t c = 0; c < s.c; ++c) {
    dgamma[c] = static_cast<T>(join_sums(0, blocks, [&](int64_t i) { return partial[0][i * s.c + c]; }));
    dbeta[c] = static_cast<T>(join_sums(0, blocks, [&](int64_t i) { return partial[1][i * s.c + c]; }));
  }
  return true;
}

// From sums[n][c] of dy and products[n][c] of dy (x - mean): the parameters' gradients, and to_dx(row, Row).
template <class T, class ToDx>
void finish_backward(const GroupShape& s, const T* gamma, const double* inverse, const double* sums,
                     const double* products, T* dgamma, T* dbeta, const ToDx& to_dx) {
  const int64_t per = s.c / s.groups;
  for (int64_t c = 0; c < s.c; ++c) {
    dbeta[c] = static_cast<T>(join_sums(0, s.n, [&](int64_t n) { return sums[n * s.c + c]; }));
    dgamma[c] = static_cast<T>(
        join_sums(0, s.n, [&](int64_t n) { return products[n * s.c + c] * inverse[n * s.groups + c / per]; }));
  }
  for (int64_t row = 0; row < s.n * s.groups; ++row) {
    const int64_t first = row * per, channel = row % s.groups * per;
    const auto weighted = [&](const double* of) {
      return join_sums(0, per, [&](int64_t i) { return static_cast<double>(gamma[channel + i]) * of[first + i]; });
    };
    to_dx(row, Row(inverse[row], weighted(sums), weighted(products), static_cast<double>(per * s.pixels)));
  }
}

template <class T>
bool backward_planes(const Machine& machine, const GroupShape& s, const T* dy, const T* x, const T* gamma,
                     const double* mean, const double* inverse, T* dx, T* dgamma, T* dbeta) {
  const Kernels<T> kernels(machine);
  const int64_t planes = s.n * s.c, per = s.c / s.groups;
  const Arrays<double> sums(2, planes), rows(2, s.n * s.groups);
  if (sums.failed() || rows.failed()) return false;
  for_chunks(machine, planes, 2 * s.pixels * sizeof(T), [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i)
      kernels.rows.backward_sums(s.pixels, dy + i * s.pixels, x + i * s.pixels, nullptr, mean[i / per], sums[0] + i,
                                 sums[1] + i);
  });
  finish_backward(s, gamma, inverse, sums[0], sums[1], dgamma, dbeta, [&](int64_t row, const Row& to_dx) {
    rows[0][row] = to_dx.slope;
    rows[1][row] = to_dx.shift;
  });
  for_chunks(machine, planes, 3 * s.pixels * sizeof(T), [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      const int64_t row = i / per, at = i * s.pixels;
      const double scale = static_cast<double>(gamma[i % s.c]) * inverse[row];
      kernels.rows.backward(s.pixels, dy + at, x + at, nullptr, mean[row], scale, rows[0][row], rows[1][row], dx + at);
    }
  });
  return true;
}

template <class T>
bool backward_pixels(const Machine& machine, const GroupShape& s, const T* dy, const T* x, const T* gamma,
                     const double* mean, const double* inverse, T* dx, T* dgamma, T* dbeta) {
  const Kernels<T> kernels(machine);
  const int64_t blocks = ceil_div(s.pixels, kBlockRows), per = s.c / s.groups, all = s.n * s.c;
  const Arrays<double> partial(3, s.n * blocks * s.c), sums(2, all);
  const Arrays<T> factors(4, all);
  if (partial.failed() || sums.failed() || factors.failed()) return false;
  T *centre = factors[0], *scale = factors[1], *slope = factors[2], *shift = factors[3];
  for (int64_t i = 0; i < all; ++i) centre[i] = static_cast<T>(mean[i / per]);
  for_pixel_blocks(machine, s, 2 * sizeof(T), [&](int64_t pixel, int64_t rows, int64_t block) {
    for (int64_t c = 0; c < s.c; c += kColumns) {
      const int64_t at = pixel * s.c + c, to = block * s.c + c;
      kernels.columns.backward_sums({rows, std::min(kColumns, s.c - c), s.c}, dy + at, x + at,
                                    centre + block / blocks * s.c + c, partial[0] + to, partial[1] + to,
                                    partial[2] + to);
    }
  });
  for (int64_t i = 0; i < all; ++i) {
    const auto joined = [&](const double* of) {
      return join_sums(0, blocks, [&](int64_t block) { return of[(i / s.c * blocks + block) * s.c + i % s.c]; });
    };
    sums[0][i] = joined(partial[0]);
    // The kernel subtracts the mean rounded to T.
    sums[1][i] = joined(partial[2]) - sums[0][i] * (mean[i / per] - static_cast<double>(centre[i]));
  }
  finish_backward(s, gamma, inverse, sums[0], sums[1], dgamma, dbeta, [&](int64_t row, const Row& to_dx) {
    for (int64_t i = row * per; i < (row + 1) * per; ++i) {
      scale[i] = static_cast<T>(static_cast<double>(gamma[i % s.c]) * inverse[row]);
      slope[i] = static_cast<T>(to_dx.slope);
      shift[i] = static_cast<T>(to_dx.shift - (mean[row] - static_cast<double>(centre[i])) * to_dx.slope);
    }
  });
  for_pixel_blocks(machine, s, 3 * sizeof(T), [&](int64_t pixel, int64_t rows, int64_t block) {
    const int64_t i = block / blocks * s.c, at = pixel * s.c;
    kernels.rows.backward_columns({rows, s.c, s.c}, dy + at, x + at, centre + i, scale + i, slope + i, shift + i,
                                  dx + at);
  });
  return true;
}

}  // namespace

template <class T>
bool group_norm_forward(const Machine& machine, const GroupShape& s, const T* x, const T* gamma, const T* beta,
                        double eps, T* y, double* mean, double* inverse) {
  const auto forward = s.channels_last && s.pixels > 1 ? forward_pixels<T> : forward_rows<T>;
  return forward(machine, s, x, gamma, beta, eps, y, mean, inverse);
}

template <class T>
bool group_norm_backward(const Machine& machine, const GroupShape& s, const T* dy, const T* x, const T* gamma,
                         const double* mean, const double* inverse, T* dx, T* dgamma, T* dbeta) {
  const auto backward = s.pixels == 1 ? backward_rows<T> : s.channels_last ? backward_pixels<T> : backward_planes<T>;
  return backward(machine, s, dy, x, gamma, mean, inverse, dx, dgamma, dbeta);
}

#define FC_INSTANTIATE(T)                                                                                              \
  template bool group_norm_forward<T>(const Machine&, const GroupShape&, const T*, const T*, const T*, double, T*,     \
                                      double*, double*);                                                               \
  template bool group_norm_backward<T>(const Machine&, const GroupShape&, const T*, const T*, const T*, const double*, \
                                       const double*, T*, T*, T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv
