// SPDX-License-Identifier: Apache-2.0
// Partial sums and statistics joined in a pairwise tree, whose shape depends on their number alone.
#pragma once

#include <cstdint>

namespace fastconv {

// Of `count` values: their mean, and the sum of squared distances from it.
struct Moments {
  double count, mean, squares;
};

// Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
inline Moments join(const Moments& a, const Moments& b) {
  const double count = a.count + b.count, distance = b.mean - a.mean;
  return {count, a.mean + distance * (b.count / count),
          a.squares + b.squares + distance * distance * (a.count * b.count / count)};
}

// leaf(i) for i in [begin, end), at least one, joined.
template <class Leaf>
Moments join_moments(int64_t begin, int64_t end, const Leaf& leaf) {
  if (end - begin == 1) return leaf(begin);
  const int64_t middle = begin + (end - begin) / 2;
  return join(join_moments(begin, middle, leaf), join_moments(middle, end, leaf));
}

template <class Leaf>
double join_sums(int64_t begin, int64_t end, const Leaf& leaf) {
  if (end - begin == 1) return leaf(begin);
  const int64_t middle = begin + (end - begin) / 2;
  return join_sums(begin, middle, leaf) + join_sums(middle, end, leaf);
}

}  // namespace fastconv
