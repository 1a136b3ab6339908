# SPDX-License-Identifier: Apache-2.0
"""exp, log, sqrt and their like, element by element."""

import importlib
import math
from typing import Any

from ..arrays import kernels, namespace
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


class Erf(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return erf_of(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (a,) = ctx.saved
        return dy * exp(-(a * a)) * (2 / math.sqrt(math.pi))


def erf_of(a: Any) -> Any:
    """erf of an array. Away from 0 it follows from the native gelu(z) = z (1 + erf(z / sqrt 2)) / 2; near 0, where
    that would cancel, from the series 2 / sqrt(pi) * sum of (-1)^n a^(2n + 1) / (n! (2n + 1)) (Abramowitz and Stegun,
    7.1.5)."""
    xp = namespace(a)
    if (native := kernels(a)) is None:
        if xp.__name__ == "cupy":
            return importlib.import_module("cupyx.scipy.special").erf(a)
        return xp.vectorize(math.erf, otypes=[a.dtype])(a)
    far = xp.clip(a, -40, 40)  # erf is +-1 there, and NaN passes
    z = xp.where(abs(far) < 0.5, xp.ones_like(far), far) * a.dtype.type(math.sqrt(2))
    outer = native.activation_forward("gelu", xp.asarray(z), 0.0) * 2 / z - 1
    near = xp.where(abs(far) < 0.5, far, xp.zeros_like(far))
    square, series = near * near, xp.zeros_like(near)
    for n in reversed(range(_ERF_TERMS)):
        series = series * square + a.dtype.type((-1) ** n / (math.factorial(n) * (2 * n + 1)))
    return xp.where(abs(far) < 0.5, series * near * a.dtype.type(2 / math.sqrt(math.pi)), outer)


_ERF_TERMS = 12  # 0.25^12 / (12! * 25) < 1e-17


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


def erf(a: Any) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to a."""
    return Erf.apply(as_tensor(a))
