// SPDX-License-Identifier: Apache-2.0
// Pooling of pixels (channels last): a window's taps are folded in registers, along the channels.
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolPixelKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

// Calls visit(first channel, number of vectors as a type, channels from there on): MOST vectors at a time, then four,
// then one. Many keep neighbouring loads together where pixels are far apart.
template <int COUNT>
struct Vectors {
  static constexpr int count = COUNT;
};
template <class T, int MOST, class Visit>
FC_INLINE void for_channels(int64_t channels, const Visit& visit) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t c = 0;
  if constexpr (MOST > 4)
    for (; c + MOST * lanes <= channels; c += MOST * lanes) visit(c, Vectors<MOST>(), MOST * lanes);
  for (; c + 4 * lanes <= channels; c += 4 * lanes) visit(c, Vectors<4>(), 4 * lanes);
  for (; c < channels; c += lanes) visit(c, Vectors<1>(), channels - c);
}
constexpr int kMostVectors = kVectorRegisters / 2;

template <class T, int VECTORS>
FC_INLINE V<T> load_some(const T* p, uint32_t bits) {
  return VECTORS > 1 ? load(p) : load_bits(p, bits);
}

enum Track { kNothing, kPositions, kTaps };

template <class T, bool MIN, Track TRACK>
void best_rows(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, const PoolWinners& winners,
               void* scratch) {
  constexpr int lanes = Vec<T>::lanes, most = TRACK == kNothing ? kMostVectors : 4;
  int64_t* rows = static_cast<int64_t*>(scratch);
  const int64_t step = g.dilation[2];
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    const int64_t* numbers = rows + row_count;
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t base = rows[0] + taps.position, pixel = row * g.out[2] + o;
      for_channels<T, most>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
        constexpr int n = decltype(vectors)::count;
        const uint32_t bits = bits_of_lanes<T>(0, count);
        V<T> m[n];
        I<T> where[n] = {};
#pragma GCC unroll 16
        for (int u = 0; u < n; ++u) m[u] = load_some<T, n>(x + base * g.x_pixel + c + u * lanes, bits);
        if constexpr (TRACK == kTaps)
#pragma GCC unroll 16
          for (int u = 0; u < n; ++u) where[u] = splat_int<T>(numbers[0] + taps.first);
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = r == 0 ? 1 : 0; i < taps.count; ++i) {  // m starts as the first tap
            const int64_t below = rows[r] - rows[0] + i * step;
            const I<T> place = splat_int<T>(TRACK == kTaps ? numbers[r] + taps.first + i : below);
            const T* p = x + (base + below) * g.x_pixel + c;
#pragma GCC unroll 16
            for (int u = 0; u < n; ++u) {
              const V<T> v = load_some<T, n>(p + u * lanes, bits);
              const Mask<T> better = beyond<T, MIN>(v, m[u]);
              m[u] = pick<T>(better, v, m[u]);
              if constexpr (TRACK != kNothing) where[u] = pick_int<T>(better, place, where[u]);
            }
          }
#pragma GCC unroll 16
        for (int u = 0; u < n; ++u) {
          const int64_t at = pixel * g.y_pixel + c + u * lanes;
          store_first(y + at, m[u], count - u * lanes);
          if constexpr (TRACK == kPositions) store_indices<T>(winners.indices + at, where[u], base, count - u * lanes);
          if constexpr (TRACK == kTaps) store_bytes<T>(winners.offsets + at, where[u], count - u * lanes);
        }
      });
    });
  }
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, const PoolWinners& winners, void* scratch) {
  if (winners.indices)
    best_rows<T, MIN, kPositions>(g, part, x, y, winners, scratch);
  else if (winners.offsets)
    best_rows<T, MIN, kTaps>(g, part, x, y, winners, scratch);
  else
    best_rows<T, MIN, kNothing>(g, part, x, y, winners, scratch);
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    const int64_t counted = rows_under(g, row, rows, &row_count);
    V<T> zero{};  // until a mean is infinite or NaN
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const V<T> divisor = splat((T)(counted * taps.counted)), reciprocal = splat((T)1 / divisor[0]);
      const int64_t pixel = row * g.out[2] + o;
      for_channels<T, kMostVectors>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
        constexpr int n = decltype(vectors)::count;
        const uint32_t bits = bits_of_lanes<T>(0, count);
        V<T> sum[n] = {};
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = 0; i < taps.count; ++i) {
            const T* p = x + (rows[r] + taps.position + i * g.dilation[2]) * g.x_pixel + c;
#pragma GCC unroll 16
            for (int u = 0; u < n; ++u) sum[u] += load_some<T, n>(p + u * lanes, bits);
          }
#pragma GCC unroll 16
        for (int u = 0; u < n; ++u) {
          const V<T> mean = quotient<T>(sum[u], divisor, reciprocal);
          zero += mean - mean;
          store_first(y + pixel * g.y_pixel + c + u * lanes, mean, count - u * lanes);
        }
      });
    });
    if (any_not_finite<T>(zero)) mend_means(g, part, rows, row_count, counted, row, x, y);
  }
}

}  // namespace

const PoolKernels kPoolPixelKernels = {
    {best<float, false>, best<float, true>, average<float>},
    {best<double, false>, best<double, true>, average<double>},
};

}  // namespace fastconv::FC_ISA
