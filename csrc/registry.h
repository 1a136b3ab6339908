// SPDX-License-Identifier: Apache-2.0
// The one list of algorithms, written by hand: fast ones first, `reference` last.
#pragma once

#include "algorithm.h"

namespace fastconv {

int algorithm_count();
const Algorithm& algorithm_at(int index);
const Algorithm* find_algorithm(const char* name);  // null when unknown

}  // namespace fastconv
