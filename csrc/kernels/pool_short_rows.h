// SPDX-License-Identifier: Apache-2.0
// The gradient of average pooling in rows of a few vectors: the folded outputs of a row stay in registers, and taps are
// taken from two neighbouring vectors of them. (What was just stored cannot be loaded shifted without waiting for it.)
// What is known of a row is found once for several planes. Included inside the anonymous namespace of a kernel file,
// after pool_over.h.

#pragma once

constexpr int64_t kPlanesAtOnce = 4;

// Of columns of a phase, at most: of each stride. Lanes of two vectors, by numbers that the compiler does not know, are
// one instruction of AVX-512, several of AVX2, and too many elsewhere.
constexpr int kShortVectors = 4;
#if defined(FC_ISA_AVX512)
constexpr int kShort[] = {0, 4, 4};
#elif defined(FC_ISA_AVX2)
constexpr int kShort[] = {0, 4, 1};
#else
constexpr int kShort[] = {0, 0, 0};
#endif

// Which lanes of neighbouring vectors of folded outputs the taps of a vector of columns are, of each phase. The first
// vector of a row begins with output `first`.
template <class T>
struct TapLanes {
  static constexpr int kMostTaps = Vec<T>::lanes + 1;
  bool usable;
  int64_t first, lowest;  // lowest: the first of the outputs over the part and of these vectors
  int64_t stride, columns;
  int64_t folds, vectors;            // of outputs; of columns of a phase
  uint32_t bits[kShortVectors + 1];  // of each fold: which lanes exist
  int64_t taps[2];
  I<T> numbers[2][kMostTaps];

  TapLanes(const Phase& even, const Phase& odd, int64_t step, int64_t column_count, const Range& outputs)
      : first(INT64_MAX), lowest(outputs.begin), stride(step), columns(column_count) {
    constexpr int lanes = Vec<T>::lanes;
    const Phase* const phases[] = {&even, &odd};
    int64_t last = INT64_MIN;
    for (int64_t j = 0; j < stride && j < 2; ++j)
      for (int64_t t = 0; t < phases[j]->taps; ++t) {
        const int64_t output = phases[j]->start - phases[j]->shift[t];
        if (output < first) first = output;
        if (output > last) last = output;
      }
    vectors = (columns + stride * lanes - 1) / (stride * lanes);
    usable = stride <= 2 && last - first <= lanes && vectors <= kShort[stride] && first < outputs.end;
    if (!usable) return;
    if (first < lowest) lowest = first;
    folds = (outputs.end - first + lanes - 1) / lanes;
    if (folds > vectors + 1) folds = vectors + 1;
    for (int64_t i = 0; i < folds; ++i)
      bits[i] = bits_of_lanes<T>(outputs.begin - first - i * lanes, outputs.end - first - i * lanes);
    for (int64_t j = 0; j < stride; ++j) {
      taps[j] = phases[j]->taps;
      for (int64_t t = 0; t < taps[j]; ++t)
        numbers[j][t] = lane_numbers<T>(phases[j]->start - phases[j]->shift[t] - first);
    }
  }
  __attribute__((always_inline)) V<T> sum(int phase, V<T> low, V<T> high) const {
    V<T> s{};
    for (int64_t t = 0; t < taps[phase]; ++t) s += (V<T>)__builtin_shuffle(low, high, numbers[phase][t]);
    return s;
  }
};

// Whether the outputs of all of entry's rows are divided by the same.
FC_INLINE bool divided_alike(const OverTable::Entry& entry) {
  for (int64_t r = 1; r < entry.count; ++r)
    if (entry.over[r].counted != entry.over[0].counted) return false;
  return entry.count > 0;
}

// dx's rows under entry's in so many planes. FOLDS 1: one vector of outputs, one of columns of each phase. Returns
// zeros, or NaNs where a sum is not finite.
template <class T, int FOLDS>
FC_INLINE V<T> give_rows(const PoolGeometry& g, const PoolPart& part, const OverTable::Entry& entry,
                         const Divisors<T>& divisors, const TapLanes<T>& taps, int64_t planes, const T* dy, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t folds = FOLDS ? FOLDS : taps.folds, vectors = FOLDS ? FOLDS : taps.vectors, stride = taps.stride;
  const T *const value = divisors.value + taps.first - divisors.first, *const reciprocal = divisors.reciprocal +
                                                                                           taps.first - divisors.first;
  V<T> zero{}, folded[kShortVectors + 1];
  for (int64_t i = folds; i <= vectors; ++i) folded[i] = V<T>{};
  for (int64_t plane = 0; plane < planes; ++plane, dy += part.y_plane, dx += part.x_plane) {
    for (int64_t i = 0; i < folds; ++i) {
      const V<T> d = load(value + i * lanes), r = load(reciprocal + i * lanes);
      const T* const from = dy + taps.first + i * lanes;
      V<T> sum = quotient<T>(load_bits(from + entry.over[0].row * g.out[2], taps.bits[i]), d, r);
      for (int64_t over = 1; over < entry.count; ++over)
        sum += quotient<T>(load_bits(from + entry.over[over].row * g.out[2], taps.bits[i]), d, r);
      folded[i] = sum;
    }
    for (int64_t i = 0; i < vectors; ++i) {
      const V<T> even = taps.sum(0, folded[i], folded[i + 1]);
      const V<T> odd = stride == 2 ? taps.sum(1, folded[i], folded[i + 1]) : V<T>{};
      zero += (even - even) + (odd - odd);
      store_columns<T>(even, odd, stride, taps.columns, i * lanes, entry.rows, g.size[2], dx);
    }
  }
  return zero;
}

template <class T>
FC_INLINE V<T> give_short_rows(const PoolGeometry& g, const PoolPart& part, const OverTable::Entry& entry,
                               const Divisors<T>& divisors, const TapLanes<T>& taps, int64_t planes, const T* dy,
                               T* dx) {
  if (taps.folds == 1 && taps.vectors == 1) return give_rows<T, 1>(g, part, entry, divisors, taps, planes, dy, dx);
  return give_rows<T, 0>(g, part, entry, divisors, taps, planes, dy, dx);
}
