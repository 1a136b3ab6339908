// SPDX-License-Identifier: Apache-2.0
// Two tables, of vectors of 64 bytes and of shorter ones, written by bench.fit from measurements. They are committed,
// never measured at run time, so that choices are the same everywhere.
#include "prices.h"

#include <cstring>

#include "kernels/kernel_table.h"
#include "prices_avx2.h"
#include "prices_avx512.h"

namespace fastconv {
namespace {

// Rows lie by algorithm. Kinds that are not there cost what the code says.
template <int COUNT>
double find(const Price (&prices)[COUNT], const char* algorithm, const char* work) {
  bool found = false;
  for (const Price& price : prices) {
    const bool same = std::strcmp(price.algorithm, algorithm) == 0;
    if (same && std::strcmp(price.work, work) == 0) return price.factor;
    if (found && !same) break;
    found = same;
  }
  return 1;
}

}  // namespace

double price_of(const Machine& machine, const char* algorithm, const char* work) {
  return machine.kernels->vector_bytes == 64 ? find(kAvx512Prices, algorithm, work)
                                             : find(kAvx2Prices, algorithm, work);
}

}  // namespace fastconv
