// SPDX-License-Identifier: Apache-2.0
// The gradient of pooling of planes (channels first).
//
// Averages: column w of dx is tap t of output o where o * stride + t * dilation = w + pad. Columns a stride apart take
// the same taps, so that each such phase is a sum of shifted rows: the output rows over a row of dx are divided and
// folded into one row in L1, and the phase's column i gets output start + i - shift[t] for each of its taps t. With a
// stride of 1 or 2 the phases stay in registers, and two of them are interleaved there. Rows of dx under the same
// output rows (windows that do not overlap) are stored together. Short rows: see pool_short_rows.h.
//
// Extremes: the outputs over the part add, ascending, to where their winners were. Five instructions for an output; a
// gather by comparisons of offsets took 1.1 to 2.8 times as long in all of nine shapes.
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolBackwardKernels kPoolPlaneBackwardKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"
#include "pool_over.h"
#include "pool_short_rows.h"

// folded[o] for the outputs [begin, end): the sum of what they give to each cell of a row of dx.
template <class T>
FC_INLINE void fold_rows(const PoolGeometry& g, const OverTable::Entry& entry, const Range& outputs,
                         Divisors<T>* divisors, const T* dy, T* folded) {
  constexpr int lanes = Vec<T>::lanes;
  if (!entry.count) fill(folded + outputs.begin, outputs.end - outputs.begin, T(0));
  for (int64_t r = 0; r < entry.count; ++r) {
    const T* from = dy + entry.over[r].row * g.out[2];
    divisors->set(entry.over[r].counted);
    for (int64_t o = outputs.begin; o < outputs.end; o += lanes) {
      const V<T> share =
          quotient<T>(load_bits(from + o, bits_of_lanes<T>(0, outputs.end - o)),
                      load(divisors->value + o - divisors->first), load(divisors->reciprocal + o - divisors->first));
      store(folded + o, r ? load(folded + o) + share : share);
    }
  }
}

// Column i of a phase.
template <class T>
FC_INLINE V<T> sum_of_taps(const Phase& phase, const T* folded, int64_t i) {
  V<T> s{};
  for (int64_t t = 0; t < phase.taps; ++t) s += load(folded + phase.start + i - phase.shift[t]);
  return s;
}

// Rows of dx from a folded row, with a stride of 1 or 2; then one with any. Returns zeros, or NaNs where a sum is not
// finite.
template <class T, int STRIDE>
FC_INLINE V<T> give_phases(const Phase& even, const Phase& odd, int64_t columns, const T* folded, int64_t rows,
                           int64_t pitch, T* out) {
  V<T> zero{};
  for (int64_t i = 0; i * STRIDE < columns; i += Vec<T>::lanes) {
    const V<T> a = sum_of_taps(even, folded, i), b = STRIDE == 2 ? sum_of_taps(odd, folded, i) : V<T>{};
    zero += (a - a) + (b - b);
    store_columns<T>(a, b, STRIDE, columns, i, rows, pitch, out);
  }
  return zero;
}
template <class T>
V<T> give_every_phase(const PoolGeometry& g, const PoolPart& part, const T* folded, int64_t* numbers, T* sum, T* out) {
  const int64_t stride = g.stride[2], columns = part.column_end - part.column_begin;
  V<T> zero{};
  for (int64_t j = 0; j < stride && j < columns; ++j) {
    const Phase phase(g, part, j, numbers);
    for (int64_t i = 0; i < phase.columns; i += Vec<T>::lanes) {
      const V<T> s = sum_of_taps(phase, folded, i);
      zero += s - s;
      store(sum + i, s);
    }
    for (int64_t i = 0; i < phase.columns; ++i) out[j + i * stride] = sum[i];
  }
  return zero;
}

template <class T>
void average_of_equal_windows(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void* memory) {
  const Scratch<T> scratch(g, memory);
  const int64_t column = part.column_begin, columns = part.column_end - column, stride = g.stride[2];
  int64_t* const taps = scratch.numbers + g.numbers - 4 * g.window[2];
  const Phase even(g, part, 0, taps), odd(g, part, 1, taps + 2 * g.window[2]);
  const Range outputs = outputs_over(g, 2, column, part.column_end);
  const TapLanes<T> lanes_of_taps(even, odd, stride, columns, outputs);
  Divisors<T> divisors(g, outputs.begin, outputs.end, lanes_of_taps.lowest, scratch);
  // Zeros on both sides of the folded row stand for outputs that do not exist or do not reach this part.
  fill(scratch.rows[0], g.row_elements, T(0));
  T* const folded = scratch.rows[0] + (g.window[2] - 1) * g.dilation[2] / stride - (column + g.pad_begin[2]) / stride;
  const auto give_row = [&](const OverTable::Entry& entry, const T* from, T* out) {
    fold_rows(g, entry, outputs, &divisors, from, folded);
    if (stride == 1) return give_phases<T, 1>(even, odd, columns, folded, entry.rows, g.size[2], out);
    if (stride == 2) return give_phases<T, 2>(even, odd, columns, folded, entry.rows, g.size[2], out);
    const V<T> zero = give_every_phase<T>(g, part, folded, taps, scratch.rows[4], out);
    for (int64_t i = 1; i < entry.rows; ++i) memcpy(out + i * g.size[2], out, columns * sizeof(T));
    return zero;
  };
  V<T> zero{};  // until a sum is infinite or NaN
  for (int64_t first = part.row_begin; first < part.row_end;) {
    const OverTable table(g, first, part.row_end, scratch.numbers);
    first = table.end;
    for (int64_t plane = 0, planes; plane < part.planes; plane += planes) {
      planes = lanes_of_taps.usable && part.planes - plane >= kPlanesAtOnce ? kPlanesAtOnce : 1;
      for (int64_t row = table.begin; row < table.end; row += table[row].rows) {
        const OverTable::Entry& entry = table[row];
        if (lanes_of_taps.usable && divided_alike(entry)) {
          divisors.set(entry.over[0].counted);
          zero += give_short_rows<T>(g, part, entry, divisors, lanes_of_taps, planes, dy + plane * part.y_plane,
                                     dx + plane * part.x_plane + row * g.size[2] + column);
        } else {
          for (int64_t i = plane; i < plane + planes; ++i)
            zero += give_row(entry, dy + i * part.y_plane, dx + i * part.x_plane + row * g.size[2] + column);
        }
        if (!any_not_finite<T>(zero)) continue;
        for (int64_t i = plane; i < plane + planes; ++i)
          for (int64_t j = 0; j < entry.rows; ++j)
            mend_mean_gradient(g, part, row + j, dy + i * part.y_plane, dx + i * part.x_plane);
        zero = V<T>{};
      }
    }
  }
}

// One window over the whole plane.
template <class T>
void average_of_planes(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  const T divisor = (T)(taps_of(g, 0, 0).counted * taps_of(g, 1, 0).counted * taps_of(g, 2, 0).counted);
  const bool dense = part.column_end - part.column_begin == g.size[2];
  const int64_t runs = dense ? 1 : part.row_end - part.row_begin;
  const int64_t length = dense ? (part.row_end - part.row_begin) * g.size[2] : part.column_end - part.column_begin;
  for (int64_t plane = 0; plane < part.planes; ++plane, dy += part.y_plane, dx += part.x_plane)
    for (int64_t run = 0; run < runs; ++run) {
      T* const out = dx + (part.row_begin + run) * g.size[2] + part.column_begin;
      const V<T> share = splat(*dy / divisor);
      int64_t i = 0;
      for (; i + lanes <= length; i += lanes) store(out + i, share);
      store_first(out + i, share, length - i);
    }
}

template <class T>
void average_of_windows(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  const Range outputs = outputs_over(g, 2, part.column_begin, part.column_end);
  for (int64_t plane = 0; plane < part.planes; ++plane, dy += part.y_plane, dx += part.x_plane)
    for (int64_t row = part.row_begin; row < part.row_end; ++row) {
      T* line = dx + row * g.size[2];
      memset(line + part.column_begin, 0, (part.column_end - part.column_begin) * sizeof(T));
      for_rows_over(g, row, [&](int64_t over, int64_t counted, int64_t) {
        for_windows(g, outputs.begin, outputs.end, [&](int64_t o, const Taps& taps) {
          const V<T> share = splat(dy[over * g.out[2] + o] / (T)(counted * taps.counted));
          const int64_t end = taps.position + taps.count, last = end < part.column_end ? end : part.column_end;
          for (int64_t i = taps.position > part.column_begin ? taps.position : part.column_begin; i < last; i += lanes)
            store_first(line + i, load_lanes(line + i, 0, last - i) + share, last - i);
        });
      });
      mend_mean_gradient(g, part, row, dy, dx);
    }
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void* memory) {
  bool whole = g.out[0] * g.out[1] * g.out[2] == 1;
  for (int i = 0; i < 3; ++i) whole = whole && (g.adaptive || taps_of(g, i, 0).count == g.size[i]);
  if (whole)
    average_of_planes(g, part, dy, dx);
  else if (!g.adaptive)
    average_of_equal_windows(g, part, dy, dx, memory);
  else
    average_of_windows(g, part, dy, dx);
}

constexpr int64_t kClearedBytes = 2 << 10;

// How far the taps of a window lie behind its first one, which may be in the padding.
struct TapPlaces {
  int64_t in_plane[256], in_row[256], rows;

  explicit TapPlaces(const PoolGeometry& g) {
    int64_t tap = 0;
    for (int64_t d = 0; d < g.window[0]; ++d)
      for (int64_t h = 0; h < g.window[1]; ++h)
        for (int64_t w = 0; w < g.window[2]; ++w, ++tap) {
          rows = d * g.dilation[0] * g.size[1] + h * g.dilation[1];  // at last, to the last row of taps
          in_row[tap] = w * g.dilation[2];
          in_plane[tap] = rows * g.size[2] + in_row[tap];
        }
  }
};

template <class T>
void extreme(const PoolGeometry& g, const PoolPart& part, const T* dy, const uint8_t* offsets, T* dx, void*) {
  const TapPlaces places(g);
  const int64_t columns = part.column_end - part.column_begin, width = g.size[2];
  const int64_t begin = part.row_begin * width, end = part.row_end * width, last = part.row_end - 1;
  const bool one_depth = part.row_begin / g.size[1] == last / g.size[1];
  const Range ds = outputs_over(g, 0, part.row_begin / g.size[1], last / g.size[1] + 1);
  const Range hs =
      outputs_over(g, 1, one_depth ? part.row_begin % g.size[1] : 0, one_depth ? last % g.size[1] + 1 : g.size[1]);
  const Range ws = outputs_over(g, 2, part.column_begin, part.column_end);
  const bool whole = columns == width && begin == 0 && end == g.size[0] * g.size[1] * width;
  const int64_t stride = g.stride[2];
  // Outputs whose windows lie in the part's columns.
  const int64_t reach = (g.window[2] - 1) * g.dilation[2], room = part.column_end - 1 - reach + g.pad_begin[2];
  Range inner = {(part.column_begin + g.pad_begin[2] + stride - 1) / stride, room < 0 ? 0 : room / stride + 1};
  inner.end = inner.end > ws.end ? ws.end : inner.end > ws.begin ? inner.end : ws.begin;
  inner.begin = inner.begin < inner.end ? inner.begin : inner.end;
  // Small planes that lie side by side are cleared together, as many as stay in L1.
  const int64_t joint = whole && part.x_plane == end ? 1 + kClearedBytes / (end * (int64_t)sizeof(T)) : 1;
  for (int64_t plane = 0; plane < part.planes; ++plane) {
    if (joint > 1) {
      const int64_t rest = part.planes - plane;
      if (plane % joint == 0) memset(dx, 0, (rest < joint ? rest : joint) * end * sizeof(T));
    } else {
      for (int64_t row = part.row_begin; row < (columns == width ? part.row_begin + 1 : part.row_end); ++row)
        memset(dx + row * width + part.column_begin, 0, (columns == width ? end - begin : columns) * sizeof(T));
    }
    for (int64_t d = ds.begin; d < ds.end; ++d)
      for (int64_t h = hs.begin; h < hs.end; ++h) {
        const int64_t line = (d * g.out[1] + h) * g.out[2];
        const int64_t first_row = (d * g.stride[0] - g.pad_begin[0]) * g.size[1] + h * g.stride[1] - g.pad_begin[1];
        const int64_t start = first_row * width - g.pad_begin[2];
        const bool inside = whole || (first_row >= part.row_begin && first_row + places.rows < part.row_end);
        const auto give_checked = [&](int64_t from, int64_t to) {
          for (int64_t o = from; o < to; ++o) {
            const int64_t tap = offsets[line + o], at = start + o * stride + places.in_plane[tap];
            const int64_t column = o * stride - g.pad_begin[2] + places.in_row[tap];
            if (at >= begin && at < end && column >= part.column_begin && column < part.column_end)
              dx[at] += dy[line + o];
          }
        };
        const Range safe = inside ? columns == width ? ws : inner : Range{ws.begin, ws.begin};
        give_checked(ws.begin, safe.begin);
        for (int64_t o = safe.begin; o < safe.end; ++o)
          dx[start + o * stride + places.in_plane[offsets[line + o]]] += dy[line + o];
        give_checked(safe.end, ws.end);
      }
    dy += part.y_plane, offsets += part.y_plane, dx += part.x_plane;
  }
}

}  // namespace

const PoolBackwardKernels kPoolPlaneBackwardKernels = {
    {average<float>, extreme<float>},
    {average<double>, extreme<double>},
};

}  // namespace fastconv::FC_ISA
