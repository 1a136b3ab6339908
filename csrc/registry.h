// SPDX-License-Identifier: Apache-2.0
// The one list of algorithms, written by hand: fast ones first, `reference` last.
#pragma once

#include "algorithm.h"

namespace fastconv {

int algorithm_count();
const Algorithm& algorithm_at(int index);
const Algorithm* const* algorithm_list();
// Null when unknown. Also finds what only a device has; here it refuses everything, and says so.
const Algorithm* find_algorithm(const char* name);
const Algorithm* find_algorithm(const Machine& machine, const char* name);

}  // namespace fastconv
