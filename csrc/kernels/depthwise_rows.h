// SPDX-License-Identifier: Apache-2.0
// What the depthwise kernels that read images share; included inside the anonymous namespace of a kernel file.

#pragma once

constexpr bool kManyRegisters = kVectorRegisters >= 32;
// Filter rows that a kernel takes at once. 5 and 7 are much code: for float32 with wide vectors alone.
template <class T>
constexpr int kMostFilterRows = sizeof(T) == 4 && (kManyRegisters || kVectorBytes > 16) ? 7 : 4;
// A tile of the filter's gradient, and the rows of y that are summed into it at a time.
constexpr int kMostTileTaps = kManyRegisters ? 7 : 3, kMostTileRows = 3, kTileBlock = kManyRegisters ? 7 : 4;

// Bits first .. last - 1 of 32.
FC_INLINE uint32_t row_bits(int64_t first, int64_t last) {
  if (first < 0) first = 0;
  if (last > 32) last = 32;
  if (last <= first) return 0;
  return (last - first == 32 ? ~0u : (1u << (last - first)) - 1u) << first;
}

template <class T, bool WHOLE>
FC_INLINE V<T> load_some(const T* p, uint32_t bits) {
  if constexpr (WHOLE) return load_once(p);
  return load_bits(p, bits);
}

template <class T>
FC_INLINE V<T> clamp(V<T> v, T low, T high) {  // NaN passes
  return vmin<T>(splat(high), vmax<T>(splat(low), v));
}

// acc[o] += w[r] * v for the written rows o that read row `i` by filter row r.
template <class T, int STEP, int FILTER, int ROWS>
FC_INLINE void spread(int i, const V<T>* w, V<T> v, V<T>* acc) {
#pragma GCC unroll 8
  for (int r = 0; r < FILTER; ++r) {
    const int o = i - r;
    if (o >= 0 && o % STEP == 0 && o / STEP < ROWS) acc[o / STEP] += w[r] * v;
  }
}

// The instance of a filter-gradient kernel, Tile<T, STEP, FILTER, TAPS>::run, for so many filter rows (up to
// kMostTileRows) and taps (an odd number up to kMostTileTaps).
template <template <class, int, int, int> class Tile, class T, int STEP, int FILTER>
auto tile_by_taps(int taps) -> decltype(&Tile<T, STEP, FILTER, 1>::run) {
  if (taps == 1) return Tile<T, STEP, FILTER, 1>::run;
  if (taps == 3) return Tile<T, STEP, FILTER, 3>::run;
  if constexpr (kMostTileTaps > 3) {
    if (taps == 5) return Tile<T, STEP, FILTER, 5>::run;
    if (taps == 7) return Tile<T, STEP, FILTER, 7>::run;
  }
  return nullptr;
}
template <template <class, int, int, int> class Tile, class T, int STEP>
auto tile_by_rows(int filter_rows, int taps) {
  if (filter_rows == 1) return tile_by_taps<Tile, T, STEP, 1>(taps);
  if (filter_rows == 2) return tile_by_taps<Tile, T, STEP, 2>(taps);
  return tile_by_taps<Tile, T, STEP, kMostTileRows>(taps);
}
template <template <class, int, int, int> class Tile, class T>
auto tile_kernel(int step, int filter_rows, int taps) -> decltype(&Tile<T, 1, 1, 1>::run) {
  return step == 1 ? tile_by_rows<Tile, T, 1>(filter_rows, taps) : tile_by_rows<Tile, T, 2>(filter_rows, taps);
}
