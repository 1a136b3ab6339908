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

template <class T, int PHASES, int ROWS>
void row_of(const Col2imPhase* phases, int64_t channel, const Col2imRow<T>& row, int64_t count) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t vector = 0, o = 0; o < count; ++vector, o += PHASES * lanes) {
    V<T> sum[2] = {over_taps<T, ROWS>(phases[0], vector, channel, row)};
    if constexpr (PHASES == 2) zip<T>(sum[0], over_taps<T, ROWS>(phases[1], vector, channel, row), &sum[0], &sum[1]);
#pragma GCC unroll 2
    for (int i = 0; i < PHASES; ++i) store_first(row.dst + o + i * lanes, sum[i], count - o - i * lanes);
  }
}

template <class T, int PHASES>
void add_up(const Col2imPhase* phases, int64_t channel, int64_t rows, const Col2imRow<T>* row, int64_t count) {
#define FC_CASE(n)                                      \
  case n:                                               \
    row_of<T, PHASES, n>(phases, channel, *row, count); \
    break;
  for (; rows > 0; --rows, ++row) switch (row->count) {
      case 0:
        for (int64_t o = 0; o < count; o += Vec<T>::lanes) store_first(row->dst + o, V<T>{}, count - o);
        break;
        FC_CASE(1)
        FC_CASE(2)
        FC_CASE(3)
        FC_CASE(4)
        FC_CASE(5)
      default:
        row_of<T, PHASES, 0>(phases, channel, *row, count);
    }
#undef FC_CASE
}

}  // namespace

const Col2imKernels kCol2imKernels = {{add_up<float, 1>, add_up<float, 2>}, {add_up<double, 1>, add_up<double, 2>}};

}  // namespace fastconv::FC_ISA
