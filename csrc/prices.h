// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fastconv {

// What the seconds that an algorithm's estimate counts for one kind of work (estimate.h) are to be multiplied by.
double price_of(const char* algorithm, const char* work);

}  // namespace fastconv
