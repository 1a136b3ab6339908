# SPDX-License-Identifier: Apache-2.0
"""Dropout: elements set to zero at random, the others scaled so that the mean stays.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014 (the inverted form).
"""

from typing import Any

from .. import _core, random
from .._core import ProblemError
from ..arrays import is_native, namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor


class ScaleMask(Function):
    """x * scale where mask, else 0."""

    @staticmethod
    def forward(ctx: Context, x: Any, *, mask: Any, scale: float) -> Any:
        ctx.mask, ctx.scale = mask, scale
        return _core.scale_mask(x, mask, scale) if is_native(x) else x * mask * x.dtype.type(scale)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ScaleMask.apply(dy, mask=ctx.mask, scale=ctx.scale)


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the others by 1 - p; x itself when not training.

    The mask comes from `fastconv.random`, so that `fc.manual_seed` repeats it.
    """
    x = as_tensor(x)
    if not 0 <= p < 1:
        raise ProblemError(f"dropout: p is {p}; expected at least 0 and below 1")
    if not training or p == 0:
        return x
    mask = namespace(x.data).asarray(random.generator().random(x.shape, dtype="float32") >= p)
    return ScaleMask.apply(x, mask=mask, scale=1.0 / (1.0 - p))
