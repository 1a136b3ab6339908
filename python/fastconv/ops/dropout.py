# SPDX-License-Identifier: Apache-2.0
"""Dropout: elements set to zero at random, the others scaled so that the mean stays.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014 (the inverted form).
"""

from typing import Any

from .. import random
from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor


class ScaleMask(Function):
    """x * scale where mask, else 0."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, mask: Any, scale: float) -> Any:
        ctx.mask, ctx.scale = mask, scale
        native = kernels(x)
        return x * mask * x.dtype.type(scale) if native is None else native.scale_mask(x, mask, scale)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ScaleMask.apply(dy, mask=ctx.mask, scale=ctx.scale)


def _drop(x: Any, p: float, training: bool, caller: str, axes: int) -> Tensor:
    """Dropout whose mask has the first `axes` axes of x (-1: all) and is broadcast along the others."""
    x = as_tensor(x)
    if not 0 <= p <= 1:
        raise ProblemError(f"{caller}: p is {p}; expected 0 to 1")
    if not training or p == 0:
        return x
    shape = x.shape if axes < 0 else (*x.shape[:axes], *(1,) * (x.ndim - axes))
    xp = namespace(x.data)
    mask = xp.asarray(random.generator().random(shape, dtype="float32") >= p)
    # At p = 1 nothing is kept: there is nothing to scale.
    return ScaleMask.apply(x, mask=xp.broadcast_to(mask, x.shape), scale=1.0 / (1.0 - p) if p < 1 else 1.0)


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the others by 1 - p; x itself when not training.

    The mask comes from `fastconv.random`, so that `fc.manual_seed` repeats it.

    Raises:
        ProblemError: p outside of 0 to 1.
    """
    return _drop(x, p, training, "dropout", -1)


def _drop_channels(rank: int, x: Any, p: float, training: bool, unbatched: tuple[int, ...]) -> Tensor:
    x = as_tensor(x)
    caller, batched = f"dropout{rank}d", tuple(n for n in (rank + 1, rank + 2) if n not in unbatched)
    if x.ndim not in (*unbatched, *batched):
        raise ProblemError(f"{caller}: x has shape {x.shape}; expected {rank + 1} or {rank + 2} dimensions")
    return _drop(x, p, training, caller, 1 if x.ndim in unbatched else 2)


def dropout1d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels: x (N, C, W) or (C, W) (Tompson et al., 2015, "spatial dropout")."""
    return _drop_channels(1, x, p, training, (2,))


def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels: x (N, C, H, W), or (N, C, W): as in PyTorch, three dimensions include a batch."""
    return _drop_channels(2, x, p, training, ())


def dropout3d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels: x (N, C, D, H, W) or (C, D, H, W)."""
    return _drop_channels(3, x, p, training, (4,))
