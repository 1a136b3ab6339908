# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU: what `_core` does for NumPy arrays, by the same names and arguments, for CuPy arrays.

The kernels are a library of their own, opened when the first such array comes. They read CuPy's memory where it lies
and run on CuPy's current stream; results and workspace come from CuPy's allocator, and nothing waits for the device. So
a call can be captured into a CUDA graph. `arrays.native` chooses between this package and `_core`.
"""

from .conv import Plan, channel_sum, conv_backward_data, conv_backward_filter, conv_forward
from .opening import describe, imported, infos, is_name, is_on_device, moved, numbered, open_library
from .pool import (
    gather_positions,
    last_positions,
    offset_positions,
    pool_backward,
    pool_backward_offsets,
    pool_forward,
    pool_forward_offsets,
    scatter_positions,
)

__all__ = [
    "Plan",
    "channel_sum",
    "conv_backward_data",
    "conv_backward_filter",
    "conv_forward",
    "describe",
    "gather_positions",
    "imported",
    "infos",
    "is_name",
    "is_on_device",
    "last_positions",
    "moved",
    "numbered",
    "offset_positions",
    "open_library",
    "pool_backward",
    "pool_backward_offsets",
    "pool_forward",
    "pool_forward_offsets",
    "scatter_positions",
]
