// SPDX-License-Identifier: Apache-2.0
// The direct convolution: lanes are pixels read where they lie, each weight is broadcast from where it lies.
//
//            x[line + tap][2 vectors]       AVX-512: 12 rows x 2 vectors = 24 accumulators, per tap 2 loads, 12
//               +-----+-----+               broadcasts, 24 multiply-adds. AVX2 and the baseline: 6 x 2.
//   w[rows]     |     |     |
//   [line][tap] +-----+-----+
//
// The loop over taps was read in the compiled code (gcc 12, AVX-512 and AVX2): the accumulators stay in registers,
// every multiply-add is fused, nothing is spilled in the paths of whole and of masked loads.
//
// Masked loads stand in for padding: a tap outside adds 0 * w, which is nothing unless w is not finite. Tiles say
// whether all sums are finite, so that the caller can compute the few others again without the padding.
#include "direct_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DirectKernels kDirectKernels;
namespace {

constexpr int kRows = kVectorRegisters == 32 ? 12 : 6;
constexpr int kVectors = 2;
constexpr int kFilterRows = kVectorRegisters == 32 ? 8 : 4;
constexpr int kFilterTaps = 3;

// ---- Forward and backward-data -----------------------------------------------------------------------------------

// One vector of a tap for each of `block` channels, next to each other in memory: loaded whole and transposed.
template <class T>
void stage_channels(const T* x, int64_t block, const int64_t* table, T pad, T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t c = 0; c < block; c += lanes, x += lanes, dst += lanes * dst_pitch) {
    V<T> v[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = table[i] < 0 ? splat(pad) : load_lanes(x + table[i], 0, block - c);
    transpose_square<T>(v);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i)
      if (i < block - c) store(dst + i * dst_pitch, v[i]);
  }
}

// staged[channel][tap][vector] of one line.
template <class T, int VECTORS>
__attribute__((noinline)) void stage(const DirectTile<T>& t, const T* x, bool outside, int64_t block, T* staged) {
  constexpr int lanes = Vec<T>::lanes, width = VECTORS * lanes;
  if (outside) {
    for (int64_t i = 0; i < block * t.line_taps * width; i += lanes) store(staged + i, splat(t.pad));
    return;
  }
  for (int tap = 0; tap < t.line_taps; ++tap) {
    const int64_t* table = t.table + tap * kVectors * lanes;
    T* dst = staged + tap * width;
    if (t.x_channel == 1 && block > 1) {
      for (int v = 0; v < VECTORS; ++v)
        stage_channels(x, block, table + v * lanes, t.pad, dst + v * lanes, t.line_taps * width);
      continue;
    }
    for (int64_t c = 0; c < block; ++c, dst += t.line_taps * width)
      for (int i = 0; i < width; ++i) dst[i] = table[i] < 0 ? t.pad : x[c * t.x_channel + table[i]];
  }
}

template <class T, int VECTORS>
FC_INLINE void load_tap(const T* x, DirectLoad how, const uint32_t* bits, V<T>* v) {
  constexpr int lanes = Vec<T>::lanes;
  switch (how) {
    case DirectLoad::kMasked:
#pragma GCC unroll 2
      for (int i = 0; i < VECTORS; ++i) v[i] = load_bits(x + i * lanes, bits[i]);
      return;
    case DirectLoad::kPairs:
#pragma GCC unroll 2
      for (int i = 0; i < VECTORS; ++i) v[i] = load_pairs(x + 2 * i * lanes, bits[i]);
      return;
    default:
#pragma GCC unroll 2
      for (int i = 0; i < VECTORS; ++i) v[i] = load(x + i * lanes);
  }
}

template <class T, int ROWS, int VECTORS>
bool tile_of(const DirectTile<T>& t, T* c, int64_t ldc, int64_t cols, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes, width = VECTORS * lanes;
  alignas(64) T staged[kDirectBlock * kDirectTaps * width];
  static_assert(kDirectBlock >= lanes);
  const bool stages = t.load == DirectLoad::kStaged;
  const DirectLoad how = stages ? DirectLoad::kWhole : t.load;
  const int groups = stages ? t.lines : 1;
  const int64_t count = stages ? t.line_taps : t.lines * t.line_taps;
  const int64_t block = stages ? t.block : t.channels, x_step = stages ? t.line_taps * width : t.x_channel;
  const int64_t row = t.w_row, three = 3 * row, w_step = t.w_channel;

  V<T> sum[ROWS][VECTORS] = {};
  for (int64_t first = 0; first < t.channels; first += block)
    for (int group = 0; group < groups; ++group) {
      const T* x = t.x + first * t.x_channel;
      const T* w = t.w + first * w_step;
      const DirectTap* taps = t.taps + group * count;
      int64_t channels = t.channels - first < block ? t.channels - first : block;
      if (stages) {
        stage<T, VECTORS>(t, x + t.line_x[group], t.line_x[group] == kOutsideLine, channels, staged);
        x = staged;
      }
      for (; channels > 0; --channels, x += x_step, w += w_step)
        for (const DirectTap* tap = taps; tap < taps + count; ++tap) {
          V<T> v[VECTORS];
          load_tap<T, VECTORS>(x + tap->x, how, tap->bits, v);
          const T* factors = w + tap->w;  // three rows by one pointer: addresses are base + index
#pragma GCC unroll 12
          for (int r = 0; r < ROWS; ++r) {
            if (r > 0 && r % 3 == 0) factors += three;
            const V<T> factor = splat(factors[r % 3 * row]);
#pragma GCC unroll 2
            for (int i = 0; i < VECTORS; ++i) sum[r][i] += factor * v[i];
          }
        }
    }
  V<T> probe{};  // NaN where a sum is not finite
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int i = 0; i < VECTORS; ++i) {
      T* at = c + r * ldc + i * lanes;
      if (accumulate) sum[r][i] += load_lanes(at, 0, cols - i * lanes);
      probe += sum[r][i] - sum[r][i];
      store_first(at, sum[r][i], cols - i * lanes);
    }
  const T total = horizontal_sum<T>(probe);
  return total == total;
}

template <class T, int ROWS>
bool tile_rows(const DirectTile<T>& t, int rows, int vectors, T* c, int64_t ldc, int64_t cols, bool accumulate) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return tile_rows<T, ROWS - 1>(t, rows, vectors, c, ldc, cols, accumulate);
  if (vectors == 1) return tile_of<T, ROWS, 1>(t, c, ldc, cols, accumulate);
  return tile_of<T, ROWS, 2>(t, c, ldc, cols, accumulate);
}
template <class T>
bool tile(const DirectTile<T>* t, int rows, int vectors, T* c, int64_t ldc, int64_t cols, bool accumulate) {
  return tile_rows<T, kRows>(*t, rows, vectors, c, ldc, cols, accumulate);
}

// ---- Backward-filter ---------------------------------------------------------------------------------------------

template <class T>
FC_INLINE V<T> load_step(const T* x, int64_t step, uint32_t bits) {
  if (step == 1) return load_bits(x, bits);
  if (step == 2) return load_pairs(x, bits);
  V<T> v{};
  for (int i = 0; i < Vec<T>::lanes; ++i)
    if (bits >> i & 1) v[i] = x[i * step];
  return v;
}

template <class T, int ROWS, int TAPS>
void plane_of(const DirectPlane<T>& p, T* sums) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][TAPS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
    for (int t = 0; t < TAPS; ++t) sum[r][t] = load(sums + (r * TAPS + t) * lanes);
  for (int64_t o = 0; o < p.columns; o += lanes) {
    const uint32_t y_bits = direct_bits(0, p.columns - o, lanes, 1);
    uint32_t bits[TAPS];
    bool whole = p.step == 1 && o + lanes <= p.columns;
    const T* x[TAPS];
#pragma GCC unroll 3
    for (int t = 0; t < TAPS; ++t) {
      const int64_t at = o * p.step + p.at[t];
      const int64_t first = at < 0 ? (-at + p.step - 1) / p.step : 0;
      const int64_t last = at < p.size ? (p.size - 1 - at) / p.step + 1 : 0;
      whole = whole && first == 0 && last >= lanes;
      bits[t] = direct_bits(first, last < p.columns - o ? last : p.columns - o, lanes, p.step);
      x[t] = p.x + at;
    }
    const T* y = p.y + o;
    const int64_t pitch = p.y_channel, three = 3 * pitch;
    for (int64_t row = 0; row < p.rows; ++row, y += p.y_row) {
      V<T> v[TAPS];
#pragma GCC unroll 3
      for (int t = 0; t < TAPS; ++t) v[t] = whole ? load(x[t]) : load_step(x[t], p.step, bits[t]);
      const T* from = y;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        if (r > 0 && r % 3 == 0) from += three;
        const V<T> factor = whole ? load(from + r % 3 * pitch) : load_bits(from + r % 3 * pitch, y_bits);
#pragma GCC unroll 3
        for (int t = 0; t < TAPS; ++t) sum[r][t] += factor * v[t];
      }
#pragma GCC unroll 3
      for (int t = 0; t < TAPS; ++t) x[t] += p.x_row;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
    for (int t = 0; t < TAPS; ++t) store(sums + (r * TAPS + t) * lanes, sum[r][t]);
}

template <class T, int ROWS>
void plane_rows(const DirectPlane<T>& p, int rows, T* sums) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return plane_rows<T, ROWS - 1>(p, rows, sums);
  if (p.taps == 1) return plane_of<T, ROWS, 1>(p, sums);
  if (p.taps == 2) return plane_of<T, ROWS, 2>(p, sums);
  return plane_of<T, ROWS, kFilterTaps>(p, sums);
}
template <class T>
void filter_plane(const DirectPlane<T>* p, int rows, T* sums) {
  plane_rows<T, kFilterRows>(*p, rows, sums);
}

// A vector of sums for each of `lanes` totals: transposed, they are added in a tree.
template <class T>
void filter_total(int count, const T* sums, T* total) {
  constexpr int lanes = Vec<T>::lanes;
  for (int first = 0; first < count; first += lanes) {
    V<T> v[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = first + i < count ? load(sums + (first + i) * lanes) : V<T>{};
    store_first(total + first, sum_lanes<T, lanes>(v), count - first);
  }
}

template <class T, int ROWS>
void pixels_of(int64_t count, int rows, int64_t columns, const T* a, int64_t a_step, int64_t a_row, const T* b,
               int64_t b_step, T* sums) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return pixels_of<T, ROWS - 1>(count, rows, columns, a, a_step, a_row, b, b_step, sums);
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) sum[r][i] = load(sums + (r * kVectors + i) * lanes);
  const uint32_t low = direct_bits(0, columns, lanes, 1), high = direct_bits(0, columns - lanes, lanes, 1);
  const bool whole = columns == kVectors * lanes;
  const int64_t three = 3 * a_row;
  for (; count > 0; --count, a += a_step, b += b_step) {
    const V<T> b0 = whole ? load(b) : load_bits(b, low), b1 = whole ? load(b + lanes) : load_bits(b + lanes, high);
    const T* factors = a;
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      if (r > 0 && r % 3 == 0) factors += three;
      const V<T> factor = splat(factors[r % 3 * a_row]);
      sum[r][0] += factor * b0;
      sum[r][1] += factor * b1;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) store(sums + (r * kVectors + i) * lanes, sum[r][i]);
}

}  // namespace

const DirectKernels kDirectKernels = {
    {Vec<float>::lanes, kRows, kFilterRows, tile<float>, filter_plane<float>, filter_total<float>,
     pixels_of<float, kFilterRows>},
    {Vec<double>::lanes, kRows, kFilterRows, tile<double>, filter_plane<double>, filter_total<double>,
     pixels_of<double, kFilterRows>},
};

}  // namespace fastconv::FC_ISA
