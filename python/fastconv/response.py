# SPDX-License-Identifier: Apache-2.0
"""Local response normalisation on plain arrays and on tensors."""

from typing import Any

from . import ops
from .arrays import as_native
from .autograd import enable_grad, grad
from .dlpack import takes_dlpack
from .geometry import expect_shape
from .tensor import Tensor

Array = Any


@takes_dlpack
def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *,
                        region: str = "across_channels", extra: str = "before",
                        layout: str = "channels_first") -> Any:  # fmt: skip
    """Divide each value of x (N, C, *) by a power of the squares around it, as AlexNet does.

        y = x / (k + alpha / size^axes * sum of squares in the window)^beta

    PyTorch's and ONNX's definition, which differ in one point: where an even window has its cell more. Beyond the
    border there are zeros; the divisor stays `size`. The paper's alpha, and TensorFlow's, is alpha / size here.

    Args:
        size: cells of the window, along each of its axes.
        region: "across_channels" (at one pixel), or "within_channel" (along all 1 to 3 spatial axes, Caffe's
            WITHIN_CHANNEL; size^axes cells).
        extra: of an even window: one cell more "before" its centre (PyTorch) or "after" it (ONNX).
        layout: "channels_first", or "channels_last" for x (N, *, C).

    Returns:
        The same kind as x: an array, or a tensor that records.

    Raises:
        ProblemError: a size below 1, an unknown word, x with too few axes.
        TypeError: an array of integers.
    """
    tensor = x if isinstance(x, Tensor) else Tensor(as_native(x, "x", "local_response_norm"))
    y = ops.local_response_norm(tensor, size, alpha, beta, k, region=region, extra=extra, layout=layout)
    return y if isinstance(x, Tensor) else y.data


@takes_dlpack
def local_response_norm_backward(dy: Array, x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75,
                                 k: float = 1.0, *, region: str = "across_channels", extra: str = "before",
                                 layout: str = "channels_first") -> Array:  # fmt: skip
    """dx of `local_response_norm` on plain arrays; dy has the shape and dtype of x."""
    caller = "local_response_norm_backward"
    x = as_native(x, "x", caller)
    dy = as_native(dy, "dy", caller, x.dtype)
    expect_shape("dy", caller, dy.shape, x.shape)
    tensor = Tensor(x, requires_grad=True)
    with enable_grad():
        y = ops.local_response_norm(tensor, size, alpha, beta, k, region=region, extra=extra, layout=layout)
    (dx,) = grad(y, tensor, Tensor(dy))
    return None if dx is None else dx.data
