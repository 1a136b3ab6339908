# SPDX-License-Identifier: Apache-2.0
"""exp, log, sqrt and their like, element by element."""

from typing import Any

from ..arrays import namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor


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


class Log1p(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return namespace(a).log1p(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy / (ctx.saved[0] + 1.0)


class Expm1(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(output=True)
        return namespace(a).expm1(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy * (ctx.saved[0] + 1.0)


class Sqrt(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(output=True)
        return namespace(a).sqrt(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy / (ctx.saved[0] * 2.0)


class Sin(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return namespace(a).sin(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy * cos(ctx.saved[0])


class Cos(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return namespace(a).cos(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return -(dy * sin(ctx.saved[0]))


def exp(a: Any) -> Tensor:
    """e to the a."""
    return Exp.apply(as_tensor(a))


def expm1(a: Any) -> Tensor:
    """exp(a) - 1, exact also near 0."""
    return Expm1.apply(as_tensor(a))


def log(a: Any) -> Tensor:
    """The natural logarithm."""
    return Log.apply(as_tensor(a))


def log1p(a: Any) -> Tensor:
    """log(1 + a), exact also near 0."""
    return Log1p.apply(as_tensor(a))


def sqrt(a: Any) -> Tensor:
    """The square root."""
    return Sqrt.apply(as_tensor(a))


def rsqrt(a: Any) -> Tensor:
    """1 / sqrt(a)."""
    return 1.0 / sqrt(a)


def sin(a: Any) -> Tensor:
    """The sine, of radians."""
    return Sin.apply(as_tensor(a))


def cos(a: Any) -> Tensor:
    """The cosine, of radians."""
    return Cos.apply(as_tensor(a))
