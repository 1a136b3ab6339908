// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algorithm.h"

namespace fastconv {

// What the seconds that an algorithm's estimate counts for one kind of work (estimate.h) are to be multiplied by.
struct Price {
  const char* algorithm;
  const char* work;
  double factor;
};
double price_of(const Machine& machine, const char* algorithm, const char* work);

}  // namespace fastconv
