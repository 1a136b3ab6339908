// SPDX-License-Identifier: Apache-2.0
// The gradient of pooling of pixels (channels last): each pixel of dx gathers from the outputs over it, in registers
// along the channels, and is written once. Which outputs are over a column is found once for a part, over a row once
// for a row; their product is the list of the sources of a pixel: 1 for windows that do not overlap, 2.25 on average
// for 3x3 with a stride of 2.
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolBackwardKernels kPoolPixelBackwardKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

struct Source {
  int64_t at, tap;  // the first channel of an output pixel in dy; the number of the tap
  double divisor;
};
struct Entry {
  int64_t output, counted, tap;
};
static_assert(sizeof(Source) == kPoolSourceNumbers * sizeof(int64_t) && sizeof(Entry) == sizeof(Source), "");

// Calls pixel(index of its first channel in dx, sources, their number) for the pixels of the part, and row(row) behind
// each row.
template <class Pixel, class Row>
FC_INLINE void for_pixels(const PoolGeometry& g, const PoolPart& part, void* scratch, const Pixel& pixel,
                          const Row& row_done) {
  const int64_t columns = part.column_end - part.column_begin;
  int64_t* const first = static_cast<int64_t*>(scratch);  // of a column's entries; one more for the end
  Entry* const entries = reinterpret_cast<Entry*>(first + columns + 1);
  int64_t count = 0;
  for (int64_t i = 0; i < columns; ++i) {
    first[i] = count;
    for_outputs_over(g, 2, part.column_begin + i,
                     [&](int64_t o, int64_t counted, int64_t tap) { entries[count++] = {o, counted, tap}; });
  }
  first[columns] = count;
  Entry* const rows = entries + count;
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count = 0;
    for_rows_over(g, row, [&](int64_t over, int64_t counted, int64_t tap) {
      rows[row_count++] = {over * g.out[2], counted, tap * g.window[2]};
    });
    Source* const sources = reinterpret_cast<Source*>(rows + row_count);
    for (int64_t i = 0; i < columns; ++i) {
      int64_t n = 0;
      for (int64_t r = 0; r < row_count; ++r)
        for (int64_t e = first[i]; e < first[i + 1]; ++e)
          sources[n++] = {(rows[r].output + entries[e].output) * g.y_pixel, rows[r].tap + entries[e].tap,
                          (double)(rows[r].counted * entries[e].counted)};
      pixel((row * g.size[2] + part.column_begin + i) * g.x_pixel, sources, n);
    }
    row_done(row);
  }
}

// dx[c] = the sum over sources of add(sum, source, first channel, bits of lanes), four vectors at a time or one.
template <class T, int VECTORS, class Add>
FC_INLINE void gather(const Source* sources, int64_t count, int64_t c, int64_t channels, T* dx, const Add& add) {
  constexpr int lanes = Vec<T>::lanes;
  const uint32_t bits = bits_of_lanes<T>(0, channels - c);
  V<T> sum[VECTORS] = {};
  for (int64_t s = 0; s < count; ++s) add(sources[s], c, bits, sum);
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u)
    VECTORS > 1 ? store(dx + c + u * lanes, sum[u]) : store_first(dx + c, sum[u], channels - c);
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  for_pixels(
      g, part, scratch,
      [&](int64_t at, const Source* sources, int64_t count) __attribute__((always_inline)) {
        int64_t c = 0;
        for (; c + 4 * lanes <= part.channels; c += 4 * lanes)
          gather<T, 4>(sources, count, c, part.channels, dx + at,
                       [&](const Source& source, int64_t channel, uint32_t, V<T>* sum) __attribute__((always_inline)) {
                         const V<T> divisor = splat((T)source.divisor), reciprocal = splat((T)1 / (T)source.divisor);
#pragma GCC unroll 4
                         for (int u = 0; u < 4; ++u)
                           sum[u] += quotient<T>(load(dy + source.at + channel + u * lanes), divisor, reciprocal);
                       });
        for (; c < part.channels; c += lanes)
          gather<T, 1>(sources, count, c, part.channels, dx + at,
                       [&](const Source& source, int64_t channel, uint32_t bits, V<T>* sum)
                           __attribute__((always_inline)) {
                             sum[0] += quotient<T>(load_bits(dy + source.at + channel, bits), splat((T)source.divisor),
                                                   splat((T)1 / (T)source.divisor));
                           });
      },
      [&](int64_t row) { mend_mean_gradient(g, part, row, dy, dx); });
}

template <class T>
void extreme(const PoolGeometry& g, const PoolPart& part, const T* dy, const uint8_t* offsets, T* dx, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr uint32_t all = (1u << lanes) - 1;
  for_pixels(
      g, part, scratch,
      [&](int64_t at, const Source* sources, int64_t count) __attribute__((always_inline)) {
        int64_t c = 0;
        for (; c + 4 * lanes <= part.channels; c += 4 * lanes)
          gather<T, 4>(sources, count, c, part.channels, dx + at,
                       [&](const Source& source, int64_t channel, uint32_t, V<T>* sum) __attribute__((always_inline)) {
#pragma GCC unroll 4
                         for (int u = 0; u < 4; ++u) {
                           const int64_t from = source.at + channel + u * lanes;
                           sum[u] = add_where<T>(bytes_equal<T>(offsets + from, all, (int)source.tap), sum[u],
                                                 load(dy + from));
                         }
                       });
        for (; c < part.channels; c += lanes)
          gather<T, 1>(sources, count, c, part.channels, dx + at,
                       [&](const Source& source, int64_t channel, uint32_t bits, V<T>* sum)
                           __attribute__((always_inline)) {
                             const int64_t from = source.at + channel;
                             sum[0] = add_where<T>(bytes_equal<T>(offsets + from, bits, (int)source.tap), sum[0],
                                                   load_bits(dy + from, bits));
                           });
      },
      [](int64_t) {});
}

}  // namespace

const PoolBackwardKernels kPoolPixelBackwardKernels = {
    {average<float>, extreme<float>},
    {average<double>, extreme<double>},
};

}  // namespace fastconv::FC_ISA
