// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's F(m x m, 3 x 3) in registers, from the matrices of csrc/winograd_math.h: their numbers are
// known when a kernel is compiled, zeros and ones cost nothing, and rows of a pair of points +-a share their sums.
#pragma once

#include <utility>

#include "../csrc/winograd_math.h"
#include "device.cuh"

namespace fastconv::cuda {

// work(i) for i = 0 .. count - 1, each i a constant.
template <class Work, int... i>
__device__ __forceinline__ void each_of(std::integer_sequence<int, i...>, const Work& work) {
  (work(std::integral_constant<int, i>()), ...);
}
template <int count, class Work>
__device__ __forceinline__ void each(const Work& work) {
  each_of(std::make_integer_sequence<int, count>(), work);
}

// The matrices of a form; at(i, j) of the row of point i. Points 1 and 2, 3 and 4, ... are pairs +-a.
struct Winograd2 {
  static constexpr int m = 2, n = 4;
  static constexpr const WinogradMatrices<2, 3>& matrices() { return kWinograd23; }
};
struct Winograd4 {
  static constexpr int m = 4, n = 6;
  static constexpr const WinogradMatrices<4, 3>& matrices() { return kWinograd43; }
};
constexpr int kWinogradFilter = 3;

template <class Form>
struct InputMatrix : Form {  // B^T
  static constexpr int columns = Form::n;
  static constexpr double at(int i, int j) { return Form::matrices().bt[i][j]; }
};
template <class Form>
struct OutputMatrix : Form {  // A
  static constexpr int columns = Form::m;
  static constexpr double at(int i, int j) { return Form::matrices().at[j][i]; }
};
template <class Form>
struct FilterMatrix : Form {  // G
  static constexpr int columns = kWinogradFilter;
  static constexpr double at(int i, int j) { return Form::matrices().g[i][j]; }
};

// The second row of a pair is the first one with its odd columns negated.
template <class Matrix>
constexpr bool is_paired() {
  for (int i = 1; i + 2 < Matrix::n; i += 2)
    for (int j = 0; j < Matrix::columns; ++j) {
      const double other = j % 2 == 0 ? Matrix::at(i + 1, j) : -Matrix::at(i + 1, j);
      if (Matrix::at(i, j) - other > 1e-14 || other - Matrix::at(i, j) > 1e-14) return false;
    }
  return Matrix::n % 2 == 0;
}

// sum + coefficient * value; what rounding left of a zero is none. `first`: there is no sum yet.
template <class Matrix, int i, int j>
__device__ __forceinline__ void add_product(float value, bool& first, float& sum) {
  constexpr double exact = Matrix::at(i, j);
  constexpr float coefficient = static_cast<float>(exact);
  if constexpr (exact > 1e-14 || exact < -1e-14) {
    sum = first ? coefficient * value : sum + coefficient * value;
    first = false;
  }
}

// to[i] = sum over j of at(i, j) from[j]. to(i, value) puts one there.
template <class Matrix, class To>
__device__ __forceinline__ void spread(const float (&from)[Matrix::columns], const To& to) {
  static_assert(is_paired<Matrix>());
  constexpr int last = Matrix::n - 1;
  each<Matrix::n / 2 + 1>([&](auto half) {
    constexpr int i = half == 0 ? 0 : 2 * half - 1;
    bool first = true, first_odd = true;
    float sum = 0, odd = 0;
    each<Matrix::columns>([&](auto j) {
      if constexpr (i == 0 || i == last || j % 2 == 0)
        add_product<Matrix, i, j>(from[j], first, sum);
      else
        add_product<Matrix, i, j>(from[j], first_odd, odd);
    });
    if constexpr (i == 0 || i == last) {
      to(std::integral_constant<int, i>(), sum);
    } else {
      to(std::integral_constant<int, i>(), sum + odd);
      to(std::integral_constant<int, i + 1>(), sum - odd);
    }
  });
}

// to[j] = sum over i of at(i, j) from[i], the transposed matrix.
template <class Matrix, class To>
__device__ __forceinline__ void gather(const float (&from)[Matrix::n], const To& to) {
  static_assert(is_paired<Matrix>());
  constexpr int last = Matrix::n - 1;
  float even[Matrix::n / 2], odd[Matrix::n / 2];  // of the pairs
  each<Matrix::n / 2 - 1>([&](auto pair) {
    constexpr int i = 2 * pair + 1;
    even[pair] = from[i] + from[i + 1];
    odd[pair] = from[i] - from[i + 1];
  });
  each<Matrix::columns>([&](auto j) {
    bool first = true;
    float sum = 0;
    add_product<Matrix, 0, j>(from[0], first, sum);
    each<Matrix::n / 2 - 1>(
        [&](auto pair) { add_product<Matrix, 2 * pair + 1, j>(j % 2 == 0 ? even[pair] : odd[pair], first, sum); });
    add_product<Matrix, last, j>(from[last], first, sum);
    to(j, sum);
  });
}

// In two dimensions: load_row(i, row) fills row i of the square, put(i, j, value) takes its transform.
template <class Matrix, class LoadRow, class Put>
__device__ __forceinline__ void spread_square(const LoadRow& load_row, const Put& put) {
  float half[Matrix::n][Matrix::columns];  // transformed along rows; transposed
  each<Matrix::columns>([&](auto i) {
    float row[Matrix::columns];
    load_row(i, row);
    spread<Matrix>(row, [&](auto j, float value) { half[j][i] = value; });
  });
  each<Matrix::n>([&](auto j) { spread<Matrix>(half[j], [&](auto i, float value) { put(i, j, value); }); });
}
// load(i, j) is point (i, j) of the square.
template <class Matrix, class Load, class Put>
__device__ __forceinline__ void gather_square(const Load& load, const Put& put) {
  float half[Matrix::columns][Matrix::n];
  each<Matrix::n>([&](auto j) {
    float column[Matrix::n];
    each<Matrix::n>([&](auto i) { column[i] = load(i, j); });
    gather<Matrix>(column, [&](auto i, float value) { half[i][j] = value; });
  });
  each<Matrix::columns>([&](auto i) { gather<Matrix>(half[i], [&](auto j, float value) { put(i, j, value); }); });
}

}  // namespace fastconv::cuda
