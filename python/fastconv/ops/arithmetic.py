# SPDX-License-Identifier: Apache-2.0
"""+, -, *, /, **, absolute values, the larger and the smaller of two, clipping; with NumPy's broadcasting."""

from typing import Any

from .._core import ProblemError
from ..arrays import beside, kernels, namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor, plain
from .elementary import log
from .shape import sum_to


class Add(Function):
    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.shapes = a.shape, b.shape
        native = kernels(a, b) if a.shape == b.shape else None
        return a + b if native is None else native.add(a, b)

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
        return a ** a.dtype.type(exponent)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (a,), e = ctx.saved, ctx.exponent
        # 0 and 1 apart: a ** (e - 1) would be infinite at 0.
        return dy * e if e in (0, 1) else dy * (a ** (e - 1) * e)


class PowerOf(Function):
    """a ** b, both tensors."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(0, 1, output=True)
        return a**b

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b, y = ctx.saved
        needs_a, needs_b = ctx.needs_input_grad
        da = db = None
        if needs_a:  # b a^(b - 1), and 0 where b is 0
            steady = Tensor(b.data == 0)
            da = sum_to(dy * b * PowerOf.apply(a, Where.apply(b - 1.0, b, condition=~steady.data)), a.shape)
        if needs_b:  # a^b log(a), and 0 where a is 0: its limit for b > 0
            zero = a.data == 0
            db = sum_to(
                dy * y * log(Where.apply(Tensor(namespace(zero).ones_like(a.data)), a, condition=zero)), b.shape
            )
        return da, db


class Abs(Function):
    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(0)
        return namespace(a).absolute(a)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        a = ctx.saved[0].data
        return dy * Tensor(namespace(a).sign(a))


class Larger(Function):
    """The larger of a and b, or the smaller; equal ones share the gradient. A NaN in either wins."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any, *, smaller: bool) -> Any:
        ctx.smaller = smaller
        ctx.save(0, 1)
        xp = namespace(a)
        return xp.minimum(a, b) if smaller else xp.maximum(a, b)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved
        one = a.dtype.type(1)
        first = one * ((a.data < b.data) if ctx.smaller else (a.data > b.data)) + (a.data == b.data) * (one / 2)
        shares = Tensor(first), Tensor(one - first)
        return tuple(
            sum_to(dy * share, t.shape) if n else None
            for share, t, n in zip(shares, (a, b), ctx.needs_input_grad, strict=True)
        )


class Clip(Function):
    @staticmethod
    def forward(ctx: Context, a: Any, *, low: float | None, high: float | None) -> Any:
        ctx.low, ctx.high = low, high
        ctx.save(0)
        return namespace(a).clip(a, low, high)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        a = ctx.saved[0].data
        inside = a == a  # a NaN is outside
        inside = inside if ctx.low is None else inside & (a >= ctx.low)
        inside = inside if ctx.high is None else inside & (a <= ctx.high)
        return dy * Tensor(a.dtype.type(1) * inside)


class Where(Function):
    """a where the condition holds, else b."""

    takes_half = True

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any, *, condition: Any) -> Any:
        ctx.condition, ctx.shapes = condition, (a.shape, b.shape)
        return namespace(a).where(condition, a, b)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        zero = Tensor(namespace(dy.data).zeros((), dy.dtype))
        needs_a, needs_b = ctx.needs_input_grad
        return (
            sum_to(Where.apply(dy, zero, condition=ctx.condition), ctx.shapes[0]) if needs_a else None,
            sum_to(Where.apply(zero, dy, condition=ctx.condition), ctx.shapes[1]) if needs_b else None,
        )


def _operands(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors of one dtype; a Python number takes the other's, float32 beside a half."""
    number = isinstance(a, int | float) or isinstance(b, int | float)
    like = next((Tensor(v) for v in (a, b) if isinstance(v, Tensor) or hasattr(v, "dtype")), None)
    a, b = as_tensor(a, like), as_tensor(b, like)
    if a.dtype != b.dtype and not number:
        raise TypeError(f"{name}: the operands have dtypes {a.dtype} and {b.dtype}; use .astype on one of them")
    if a.shape != b.shape and a.shape and b.shape:
        for m, n in zip(reversed(a.shape), reversed(b.shape), strict=False):
            if m != n and m != 1 and n != 1:
                raise ProblemError(
                    f"{name}: shapes {a.shape} and {b.shape} do not broadcast; expected equal lengths or 1"
                )
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


def neg(a: Any) -> Tensor:
    """-a."""
    return Neg.apply(as_tensor(a))


def power(a: Any, exponent: Any) -> Tensor:
    """a ** exponent, with broadcasting; both may be tensors or numbers.

    Raises:
        TypeError: tensors of different dtypes.
    """
    if isinstance(a, Tensor) and isinstance(exponent, int | float):
        return Power.apply(a, exponent=exponent)
    return PowerOf.apply(*_operands("power", a, exponent))


def abs(a: Any) -> Tensor:
    """|a|; its gradient at 0 is 0."""
    return Abs.apply(as_tensor(a))


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b, element by element with broadcasting; equal ones share the gradient, NaN passes."""
    return Larger.apply(*_operands("maximum", a, b), smaller=False)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of a and b; as `maximum`."""
    return Larger.apply(*_operands("minimum", a, b), smaller=True)


def clip(a: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """a, but at least low and at most high (numbers, or None for no limit); the gradient passes from low to high.

    Raises:
        TypeError: neither low nor high, or one that is not a number (for tensors: `maximum` and `minimum`).
    """
    for name, limit in (("low", low), ("high", high)):
        if limit is not None and not isinstance(limit, int | float):
            raise TypeError(f"clip: {name} is a {type(limit).__name__}; expected a number or None")
    if low is None and high is None:
        raise TypeError("clip: low and high are None; expected a number for at least one")
    return Clip.apply(as_tensor(a), low=low, high=high)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where condition is true, else b; all three broadcast. The condition is an array of bool, without gradient."""
    condition = plain(condition)
    if getattr(getattr(condition, "dtype", None), "kind", "") != "b":
        raise TypeError(
            f"where: condition is {getattr(condition, 'dtype', type(condition).__name__)}; expected an array of bool"
        )
    first, second = _operands("where", a, b)
    return Where.apply(first, second, condition=beside(condition, first.data))
