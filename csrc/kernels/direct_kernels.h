// SPDX-License-Identifier: Apache-2.0
// The kernels of the direct convolution (csrc/kernels/direct.cc): arguments are plain structs that say where each tap
// reads, so that forward and backward-data, every stride and every padding mode are the same loops.
#pragma once

#include <cstdint>

namespace fastconv {

inline constexpr int kDirectTaps = 8;               // of one line in a call, along the last axis
inline constexpr int kDirectLines = 16;             // of a call, over the other axes
inline constexpr int kDirectBlock = 16;             // most channels that are staged together
inline constexpr int64_t kOutsideLine = INT64_MIN;  // a line of padding (staged only)

// How a tap's lanes are read. Lane i of vector v is element e = v * lanes + i of the tile.
enum class DirectLoad : int32_t {
  kWhole,   // x[tap.x + e]
  kMasked,  // the same where bit i of tap.bits[v] is set, 0 elsewhere
  kPairs,   // x[tap.x + 2 e] where bit 2 i of tap.bits[v] is set, 0 elsewhere
  kStaged,  // x[line + table[tap][e]], `pad` where the table is negative; gathered first, `block` channels at a time
};

struct DirectTap {
  int64_t x, w;  // offsets
  uint32_t bits[2];
};

// A tile: `rows` rows of weights times up to two vectors of pixels. Every sum runs over channels and taps in order;
// staged, over blocks of channels, lines, the channels of the block, the taps of the line.
template <class T>
struct DirectTile {
  const T* w;
  int64_t w_row, w_channel;  // distances
  const T* x;
  int64_t x_channel;
  int64_t channels;
  int lines, line_taps;
  const DirectTap* taps;  // [lines][line_taps]
  DirectLoad load;
  // Staged only; tap i of a line has x = i * vectors * lanes there.
  int64_t block;
  const int64_t* line_x;  // offsets
  const int64_t* table;   // [line_taps][2 * lanes]
  T pad;
};

// Backward-filter over the pixels of one plane; tap t of grid point o reads x[row][o * step + at[t]], nothing outside
// [0, size).
template <class T>
struct DirectPlane {
  int64_t rows, columns;
  const T* y;
  int64_t y_channel, y_row;
  const T* x;
  int64_t x_row, step, size;
  int taps;  // at most 3
  int64_t at[3];
};

template <class T>
struct DirectKernelsOf {
  int lanes;
  int rows;         // of a tile, at most
  int filter_rows;  // of filter_plane and filter_pixels, at most
  // c[row][e] (+)= the tile, e < cols. Returns whether all sums are finite, those of lanes that are not stored
  // included.
  bool (*tile)(const DirectTile<T>* tile, int rows, int vectors, T* c, int64_t ldc, int64_t cols, bool accumulate);
  // sums[row][tap][lane] += y[row * y_channel + pixel] * x[pixel's tap], pixels spread over the lanes.
  void (*filter_plane)(const DirectPlane<T>* plane, int rows, T* sums);
  // total[i] = the sum of sums[i][lanes], in a fixed tree.
  void (*filter_total)(int count, const T* sums, T* total);
  // sums[row][2 * lanes] += over i < count: a[i * a_step + row * a_row] * b[i * b_step + column], column < columns.
  void (*filter_pixels)(int64_t count, int rows, int64_t columns, const T* a, int64_t a_step, int64_t a_row, const T* b,
                        int64_t b_step, T* sums);
};
struct DirectKernels {
  DirectKernelsOf<float> f32;
  DirectKernelsOf<double> f64;
};

// The lanes [first, last) of `lanes` as bits; `step` 2: of every other element.
static inline uint32_t direct_bits(int64_t first, int64_t last, int lanes, int64_t step) {
  first = first < 0 ? 0 : first;
  last = last > lanes ? lanes : last;
  if (last <= first) return 0;
  uint32_t bits = ((1u << (last - first)) - 1u) << first;
  if (step != 2) return bits;
  bits = (bits | bits << 8) & 0x00FF00FFu;
  bits = (bits | bits << 4) & 0x0F0F0F0Fu;
  bits = (bits | bits << 2) & 0x33333333u;
  return (bits | bits << 1) & 0x55555555u;
}

}  // namespace fastconv
