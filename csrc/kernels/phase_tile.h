// SPDX-License-Identifier: Apache-2.0
// Backward-data of few channels: lanes are pixels of dx, and its phases are put together again. Included by
// implicit_gradient_tile.cc.
//
//                 x[place of chunk + offset]     AVX-512 and NEON: 6 units x 4 chunks = 24 accumulators, 6 broadcasts
//                 of w
//                 +-----+-----+-----+-----+      and 1 vector of x = 31 of 32 registers; a step has 6 broadcasts, 4
//                 loads
//   w[step]       |     |     |     |     |      and 24 multiply-adds. A unit is a channel of one phase of the columns:
//   [6 units]     +-----+-----+-----+-----+      all phases read the same x. AVX2 and the baseline: 4 x 2.
//
// A chunk is a vector of pixels of one row, wherever it lies: rows narrower than a vector leave lanes empty, few
// channels do not. Loads of chunks are not aligned, and each touches two lines: with 3 units x 8 chunks, 8 such loads
// for 24 multiply-adds, half the peak was the limit (Ice Lake server).
constexpr bool kMany = kVectorRegisters == 32;

template <class T, int UNITS, int CHUNKS>
void phase_tile_of(int64_t steps, const int64_t* offsets, const T* x, const int64_t* places, const T* __restrict w,
                   T* __restrict sums, int64_t pitch, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[UNITS][CHUNKS] = {};
  const T* place[CHUNKS];
#pragma GCC unroll 8
  for (int i = 0; i < CHUNKS; ++i) place[i] = x + places[i];
  for (int64_t step = 0; step < steps; ++step, w += UNITS) {
    const int64_t offset = offsets[step];
    V<T> factor[UNITS];
#pragma GCC unroll 8
    for (int c = 0; c < UNITS; ++c) factor[c] = splat(w[c]);
#pragma GCC unroll 8
    for (int i = 0; i < CHUNKS; ++i) {
      const V<T> pixels = load_once(place[i] + offset);
#pragma GCC unroll 8
      for (int c = 0; c < UNITS; ++c) sum[c][i] += factor[c] * pixels;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < UNITS; ++c)
#pragma GCC unroll 8
    for (int i = 0; i < CHUNKS; ++i) {
      T* at = sums + c * pitch + i * lanes;
      if (accumulate) sum[c][i] += load(at);
      store(at, sum[c][i]);
    }
}

constexpr int kMostUnits = kMany ? 6 : 4;
constexpr int kChunks[6] = {8, kMany ? 8 : 4, kMany ? 8 : 4, kMany ? 6 : 2, 4, 4};

template <class T>
void phase_tile(int units, int64_t steps, const int64_t* offsets, const T* x, const int64_t* places, const T* w,
                T* sums, int64_t pitch, bool accumulate) {
#define FC_CASE(n) \
  case n:          \
    return phase_tile_of<T, n, kChunks[n - 1]>(steps, offsets, x, places, w, sums, pitch, accumulate);
  switch (units) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    default:
      break;
  }
  if constexpr (kMostUnits > 4) {
    switch (units) {
      FC_CASE(5)
      FC_CASE(6)
      default:
        break;
    }
  }
#undef FC_CASE
}

template <class T>
void interleave(int64_t count, int64_t phases, const T* src, int64_t pitch, T* dst) {
  constexpr int lanes = Vec<T>::lanes;
  if (phases == 1) {
    for (int64_t i = 0; i < count; i += lanes) store_first(dst + i, load_lanes(src + i, 0, count - i), count - i);
    return;
  }
  int64_t done = 0;  // of each phase
  if (phases == 2) {
    for (; 2 * done < count; done += lanes) {
      const int64_t left = count - 2 * done;
      V<T> low, high;
      zip<T>(load_lanes(src + done, 0, (left + 1) / 2), load_lanes(src + pitch + done, 0, left / 2), &low, &high);
      store_first(dst + 2 * done, low, left);
      store_first(dst + 2 * done + lanes, high, left - lanes);
    }
  } else if (phases == 4) {
    for (; 4 * (done + lanes) <= count; done += lanes) {
      V<T> even[2], odd[2], v[4];
      zip<T>(load(src + done), load(src + 2 * pitch + done), &even[0], &even[1]);
      zip<T>(load(src + pitch + done), load(src + 3 * pitch + done), &odd[0], &odd[1]);
      zip<T>(even[0], odd[0], &v[0], &v[1]);
      zip<T>(even[1], odd[1], &v[2], &v[3]);
#pragma GCC unroll 8
      for (int i = 0; i < 4; ++i) store(dst + 4 * done + i * lanes, v[i]);
    }
  }
  for (int64_t i = done; i * phases < count; ++i)
    for (int64_t phase = 0; phase < phases && i * phases + phase < count; ++phase)
      dst[i * phases + phase] = src[phase * pitch + i];
}

template <class T>
constexpr PhaseKernelsOf<T> kPhase = {
    kMostUnits, {kChunks[0], kChunks[1], kChunks[2], kChunks[3], kChunks[4], kChunks[5]}, phase_tile<T>, interleave<T>};
