# SPDX-License-Identifier: Apache-2.0
"""Another dtype or another device, on the tape: the gradient goes the way back."""

from typing import Any

from .. import device
from ..arrays import as_dtype, is_float, kind_of
from ..autograd import Context, Function
from ..half import convert
from ..tensor import Tensor


class Cast(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, dtype: Any) -> Any:
        ctx.dtype = x.dtype
        return convert(x, dtype)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return cast(dy, ctx.dtype)


class Move(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, where: str) -> Any:
        ctx.origin = f"cuda:{x.device.id}" if kind_of(x) == "cupy" else "cpu"
        return device.moved(x, where)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return to(dy, ctx.origin)


def to(x: Tensor, where: Any) -> Tensor:
    """x on a device ("cpu", "cuda", "cuda:1"), or in a dtype; x itself if it is there."""
    if not device.is_name(where):
        return cast(x, where)
    return x if device.moved(x.data, where) is x.data else Move.apply(x, where=where)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype; x itself if it has that one. Integers and bool have no gradient: the result is detached."""
    dtype = as_dtype(dtype)
    if dtype == x.dtype:
        return x
    return Cast.apply(x, dtype=dtype) if is_float(dtype) else Tensor(convert(x.data, dtype))
