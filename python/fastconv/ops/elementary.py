# SPDX-License-Identifier: Apache-2.0
"""exp, log, sqrt and their like, element by element."""

from typing import Any

from ..arrays import namespace
from ..autograd import Context, Function
from ..tensor import Tensor


class Exp(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(output=True)
        return namespace(a).exp(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy * ctx.saved[0]


class Log(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return namespace(a).log(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy / ctx.saved[0]


class Sqrt(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(output=True)
        return namespace(a).sqrt(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy / (ctx.saved[0] * 2.0)


def exp(a: Tensor) -> Tensor:
    """e to the a."""
    return Exp.apply(a)


def log(a: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log.apply(a)


def sqrt(a: Tensor) -> Tensor:
    """The square root."""
    return Sqrt.apply(a)
