// SPDX-License-Identifier: Apache-2.0
// What an algorithm expects to take: kinds of work, each counted from the problem and its blocking and priced by a
// constant. bench/calibrate.py fits the prices to measurements.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastconv {

// Work of forward calls whose weights come as they are.
inline constexpr const char* kWeightsPacked = "weights packed";

struct Estimate {
  static constexpr int kMostTerms = 16;
  int32_t terms = 0;
  const char* work[kMostTerms];
  double seconds[kMostTerms];  // on one core

  // Of a kind that is there already, more.
  void add(const char* kind, double more) {
    int i = 0;
    while (i < terms && std::strcmp(work[i], kind) != 0) ++i;
    if (i == terms && terms < kMostTerms) work[terms] = kind, seconds[terms++] = 0;
    seconds[i < kMostTerms ? i : kMostTerms - 1] += more;
  }
  double total() const {
    double sum = 0;
    for (int i = 0; i < terms; ++i) sum += seconds[i];
    return sum;
  }
};

template <class... Counts>
double times(Counts... counts) {
  return (1.0 * ... * static_cast<double>(counts));
}

}  // namespace fastconv
