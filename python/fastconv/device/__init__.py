# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU: what `_core` does for NumPy arrays, by the same names and arguments, for CuPy arrays.

The kernels are a library of their own, opened when the first such array comes. They read CuPy's memory where it lies
and run on CuPy's current stream; results and workspace come from CuPy's allocator, and nothing waits for the device. So
a call can be captured into a CUDA graph. `arrays.native` chooses between this package and `_core`.
"""

from .conv import (
    Plan,
    conv_backward_data,
    conv_backward_filter,
    conv_forward,
)
from .dense import (
    dense_backward_data,
    dense_backward_filter,
    dense_forward,
)
from .norm import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    channel_sum,
    group_norm_backward,
    group_norm_forward,
    softmax_backward,
    softmax_forward,
)
from .opening import (
    describe,
    has_library,
    imported,
    infos,
    is_name,
    is_on_device,
    moved,
    numbered,
    open_library,
)
from .pointwise import (
    activation_backward,
    activation_forward,
    add,
    prelu_backward,
    prelu_forward,
    scale_mask,
)
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
    "activation_backward",
    "activation_forward",
    "add",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "channel_sum",
    "conv_backward_data",
    "conv_backward_filter",
    "conv_forward",
    "dense_backward_data",
    "dense_backward_filter",
    "dense_forward",
    "describe",
    "gather_positions",
    "group_norm_backward",
    "group_norm_forward",
    "has_library",
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
    "prelu_backward",
    "prelu_forward",
    "scale_mask",
    "scatter_positions",
    "softmax_backward",
    "softmax_forward",
]
