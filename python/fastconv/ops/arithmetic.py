# SPDX-License-Identifier: Apache-2.0
"""+, -, *, / and ** with NumPy's broadcasting."""

from typing import Any

from .. import _core
from ..arrays import is_native
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor
from .shape import sum_to


class Add(Function):
    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.shapes = a.shape, b.shape
        return _core.add(a, b) if a.shape == b.shape and is_native(a, b) else a + b

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(sum_to(dy, s) if n else None for s, n in zip(ctx.shapes, ctx.needs_input_grad, strict=True))


class Mul(Function):
    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(0, 1)
        return a * b

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved
        needs_a, needs_b = ctx.needs_input_grad
        return sum_to(dy * b, a.shape) if needs_a else None, sum_to(dy * a, b.shape) if needs_b else None


class Div(Function):
    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(0, 1)
        return a / b

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved
        needs_a, needs_b = ctx.needs_input_grad
        da = dy / b
        return sum_to(da, a.shape) if needs_a else None, sum_to(-(da * a / b), b.shape) if needs_b else None


class Neg(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        return -a

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return -dy


class Power(Function):
    """a ** exponent, for a number."""

    @staticmethod
    def forward(ctx: Context, a: Any, *, exponent: float) -> Any:
        ctx.exponent = exponent
        ctx.save(0)
        return a**exponent

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (a,), e = ctx.saved, ctx.exponent
        return dy * e if e == 1 else dy * (a ** (e - 1) * e)


def _operands(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors of one dtype; a Python number takes the other's."""
    like = a if isinstance(a, Tensor) else b if isinstance(b, Tensor) else None
    a, b = as_tensor(a, like), as_tensor(b, like)
    if a.dtype != b.dtype:
        raise TypeError(f"{name}: the operands have dtypes {a.dtype} and {b.dtype}; use .astype on one of them")
    return a, b


def add(a: Any, b: Any) -> Tensor:
    """a + b with broadcasting."""
    return Add.apply(*_operands("add", a, b))


def sub(a: Any, b: Any) -> Tensor:
    """a - b with broadcasting."""
    a, b = _operands("sub", a, b)
    return Add.apply(a, Neg.apply(b))


def mul(a: Any, b: Any) -> Tensor:
    """a * b with broadcasting."""
    return Mul.apply(*_operands("mul", a, b))


def div(a: Any, b: Any) -> Tensor:
    """a / b with broadcasting."""
    return Div.apply(*_operands("div", a, b))


def neg(a: Tensor) -> Tensor:
    """-a."""
    return Neg.apply(a)


def power(a: Tensor, exponent: float) -> Tensor:
    """a ** exponent for a number."""
    if not isinstance(exponent, int | float):
        raise TypeError(f"power: exponent is a {type(exponent).__name__}; expected a number (write exp(b * log(a)))")
    return Power.apply(a, exponent=exponent)
