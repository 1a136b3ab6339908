# SPDX-License-Identifier: Apache-2.0
"""Another dtype, on the tape: the gradient is cast back."""

from typing import Any

from ..arrays import as_dtype, is_float
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


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype; x itself if it has that one. Integers and bool have no gradient: the result is detached."""
    dtype = as_dtype(dtype)
    if dtype == x.dtype:
        return x
    return Cast.apply(x, dtype=dtype) if is_float(dtype) else Tensor(convert(x.data, dtype))
