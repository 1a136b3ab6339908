// SPDX-License-Identifier: Apache-2.0
// Products of pixels and taps, added up where the taps meet: lanes are columns of a row of dx. Loads are not aligned
// and nothing but the sum is stored, so that a product costs one load; where a row ends lanes are left out.
#include "col2im_kernels.h"
#include "kernel_table.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const Col2imKernels kCol2imKernels;
namespace {

// The sum of a vector over `ROWS` rows of the filter, 0 for any number.
template <class T, int ROWS, bool WHOLE>
FC_INLINE V<T> over_rows(const T* const* lines, int64_t count, int64_t place, uint32_t bits) {
  const auto product = [&](int64_t i) __attribute__((always_inline)) {
    return WHOLE ? load(lines[i] + place) : load_bits(lines[i] + place, bits);
  };
  V<T> sum = product(0);
  if constexpr (ROWS > 0) {
#pragma GCC unroll 8
    for (int i = 1; i < ROWS; ++i) sum += product(i);
  } else {
    for (int64_t i = 1; i < count; ++i) sum += product(i);
  }
  return sum;
}

template <class T, int ROWS>
FC_INLINE V<T> over_taps(const Col2imPhase& phase, int64_t vector, int64_t place, const Col2imRow<T>& row) {
  constexpr uint32_t all = (1u << Vec<T>::lanes) - 1;
  const uint32_t* bits = phase.bits + vector * phase.taps;
  V<T> total{};
  place += phase.place + vector * Vec<T>::lanes;
  for (int64_t tap = 0; tap < phase.taps; ++tap, place += phase.step) {
    if (bits[tap] == all)
      total += over_rows<T, ROWS, true>(row.lines, row.count, place, all);
    else if (bits[tap] != 0)
      total += over_rows<T, ROWS, false>(row.lines, row.count, place, bits[tap]);
  }
  return total;
}

template <class T, int ROWS>
void one_phase(const Col2imPhase& phase, int64_t channel, const Col2imRow<T>& row, int64_t count) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t o = 0; o < count; o += lanes)
    store_first(row.dst + o, over_taps<T, ROWS>(phase, o / lanes, channel, row), count - o);
}

template <class T, int ROWS>
void two_phases(const Col2imPhase* phases, int64_t channel, const Col2imRow<T>& row, int64_t count) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t o = 0; o < count; o += 2 * lanes) {
    V<T> low, high;
    zip<T>(over_taps<T, ROWS>(phases[0], o / 2 / lanes, channel, row),
           over_taps<T, ROWS>(phases[1], o / 2 / lanes, channel, row), &low, &high);
    store_first(row.dst + o, low, count - o);
    store_first(row.dst + o + lanes, high, count - o - lanes);
  }
}

// visit with the number of filter rows as a constant, or 0.
#define FC_CASE(n, CALL) \
  case n:                \
    CALL(n);             \
    break;
#define FC_BY_ROWS(CALL) \
  switch (row->count) {  \
    FC_CASE(1, CALL)     \
    FC_CASE(2, CALL)     \
    FC_CASE(3, CALL)     \
    FC_CASE(4, CALL)     \
    FC_CASE(5, CALL)     \
    default:             \
      CALL(0);           \
  }

template <class T>
void zeros(T* dst, int64_t count) {
  for (int64_t o = 0; o < count; o += Vec<T>::lanes) store_first(dst + o, V<T>{}, count - o);
}

template <class T>
void add_up(const Col2imPhase& phase, int64_t channel, int64_t rows, const Col2imRow<T>* row, int64_t count) {
  for (; rows > 0; --rows, ++row) {
    if (row->count == 0) {
      zeros(row->dst, count);
      continue;
    }
#define FC_CALL(n) one_phase<T, n>(phase, channel, *row, count)
    FC_BY_ROWS(FC_CALL)
#undef FC_CALL
  }
}

template <class T>
void add_up_two(const Col2imPhase* phases, int64_t channel, int64_t rows, const Col2imRow<T>* row, int64_t count) {
  for (; rows > 0; --rows, ++row) {
    if (row->count == 0) {
      zeros(row->dst, count);
      continue;
    }
#define FC_CALL(n) two_phases<T, n>(phases, channel, *row, count)
    FC_BY_ROWS(FC_CALL)
#undef FC_CALL
  }
}
#undef FC_BY_ROWS
#undef FC_CASE

}  // namespace

const Col2imKernels kCol2imKernels = {{add_up<float>, add_up_two<float>}, {add_up<double>, add_up_two<double>}};

}  // namespace fastconv::FC_ISA
