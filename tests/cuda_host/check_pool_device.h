// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "check_device.h"

namespace fastconv::check {

// One drawn problem; whether it is right.
bool check_positions(const Device& device, Draw& draw);

}  // namespace fastconv::check
