# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparison and logic, element by element with broadcasting."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ... import ops
from ...ops import rounding
from ...tensor import Tensor, plain
from ..node import Node, Operator, Value, as_value


def _aligned(node: Node, a: Value, b: Value, axis: int | None, broadcast: int) -> tuple[Value, Value]:
    """Until opset 6, `broadcast` lays b along the axes of a from `axis` on; later, lengths are aligned at the end."""
    if node.opset < 7 and broadcast and axis is not None and b.ndim:
        first = axis % a.ndim
        b = b.reshape((*b.shape, *(1,) * (a.ndim - first - b.ndim)))
    elif node.opset < 7 and not broadcast and a.shape != b.shape:
        raise node.problem(f"shapes {a.shape} and {b.shape}; expected equal ones without the attribute broadcast")
    node.allow(np.broadcast_shapes(a.shape, b.shape), max(a.dtype.itemsize, b.dtype.itemsize))
    return a, b


def _binary(on_tensors: Callable[..., Any], on_arrays: Callable[..., Any]) -> Operator:
    """An operator of two values of one dtype."""

    def operator(node: Node, a: Value, b: Value, *, axis: int | None = None, broadcast: int = 0) -> Value:
        a, b = _aligned(node, a, b, axis, broadcast)
        return on_tensors(a, b) if isinstance(a, Tensor) else on_arrays(a, b)

    return operator


def _comparison(compare: Callable[..., Any]) -> Operator:
    """An operator whose result, bool or integers, has no gradient."""

    def operator(node: Node, a: Value, b: Value, *, axis: int | None = None, broadcast: int = 0) -> Value:
        a, b = _aligned(node, a, b, axis, broadcast)
        return np.asarray(compare(plain(a), plain(b)))

    return operator


def _variadic(on_tensors: Callable[..., Any], on_arrays: Callable[..., Any]) -> Operator:
    """An operator of any number of values of one dtype."""

    def operator(node: Node, first: Value, *others: Value) -> Value:
        node.allow(np.broadcast_shapes(first.shape, *(o.shape for o in others)), first.dtype.itemsize)
        return reduce(on_tensors if isinstance(first, Tensor) else on_arrays, others, first)

    return operator


def _unary(on_tensors: Callable[..., Any], on_arrays: Callable[..., Any] | None = None) -> Operator:
    """An operator of one value, of integers too where there is a function for them."""

    def operator(node: Node, x: Value) -> Value:
        if isinstance(x, Tensor):
            return on_tensors(x)
        if on_arrays is None:
            raise node.problem(f"x has dtype {x.dtype}; expected a float")
        return on_arrays(x)

    return operator


def _quotient(a: Any, b: Any) -> Any:
    """Of integers, towards zero."""
    down = a // b
    return down + ((a % b != 0) & ((a < 0) != (b < 0))).astype(down.dtype)


add = _binary(ops.add, np.add)
sub = _binary(ops.sub, np.subtract)
mul = _binary(ops.mul, np.multiply)
div = _binary(ops.div, _quotient)
equal = _comparison(np.equal)
greater = _comparison(np.greater)
greater_or_equal = _comparison(np.greater_equal)
less = _comparison(np.less)
less_or_equal = _comparison(np.less_equal)
logical_and = _comparison(np.logical_and)
logical_or = _comparison(np.logical_or)
logical_xor = _comparison(np.logical_xor)
bitwise_and = _comparison(np.bitwise_and)
bitwise_or = _comparison(np.bitwise_or)
bitwise_xor = _comparison(np.bitwise_xor)
maximum = _variadic(ops.maximum, np.maximum)
minimum = _variadic(ops.minimum, np.minimum)
total = _variadic(ops.add, np.add)
absolute = _unary(ops.abs, np.abs)
negative = _unary(ops.neg, np.negative)
exp = _unary(ops.exp)
log = _unary(ops.log)
sqrt = _unary(ops.sqrt)
sin = _unary(ops.sin)
cos = _unary(ops.cos)
erf = _unary(ops.erf)
floor = _unary(rounding.floor)
ceil = _unary(rounding.ceil)
round_to_even = _unary(rounding.round_to_even)
sign = _unary(rounding.sign, np.sign)


def reciprocal(node: Node, x: Value) -> Value:
    return 1.0 / x


def logical_not(node: Node, x: Value) -> Value:
    return np.logical_not(plain(x))


def bitwise_not(node: Node, x: Value) -> Value:
    return np.bitwise_not(x)


def bit_shift(node: Node, x: Value, y: Value, *, direction: str) -> Value:
    """By a whole width or more it is 0, as in NumPy."""
    if direction not in ("LEFT", "RIGHT"):
        raise node.problem(f"direction is {direction!r}; expected LEFT or RIGHT")
    x, y = _aligned(node, x, y, None, 0)
    return np.asarray((np.left_shift if direction == "LEFT" else np.right_shift)(x, y))


def mean(node: Node, first: Value, *others: Value) -> Value:
    return total(node, first, *others) / float(1 + len(others))


def power(node: Node, a: Value, b: Value, *, axis: int | None = None, broadcast: int = 0) -> Value:
    """The dtype is that of the base."""
    a, b = _aligned(node, a, b, axis, broadcast)
    if not isinstance(a, Tensor):
        return np.asarray(np.power(a, plain(b))).astype(a.dtype)
    if plain(b).size == 1 and plain(b).ndim <= a.ndim and not getattr(b, "requires_grad", False):
        return ops.power(a, float(plain(b).reshape(())))
    return ops.power(a, b.astype(a.dtype) if isinstance(b, Tensor) else Tensor(b.astype(a.dtype)))


def modulo(node: Node, a: Value, b: Value, *, fmod: int = 0) -> Value:
    """The remainder with the sign of the divisor, or with fmod=1 with that of the dividend; as a constant."""
    a, b = _aligned(node, a, b, None, 0)
    if isinstance(a, Tensor) and a.requires_grad:
        raise node.unsupported("the remainder of floats has no gradient here")
    return as_value(np.asarray((np.fmod if fmod else np.mod)(plain(a), plain(b))))


def where(node: Node, condition: Value, x: Value, y: Value) -> Value:
    node.allow(np.broadcast_shapes(condition.shape, x.shape, y.shape), x.dtype.itemsize)
    return ops.where(condition, x, y) if isinstance(x, Tensor) else np.where(condition, x, y)


def is_nan(node: Node, x: Value) -> Value:
    return np.isnan(plain(x))


def is_inf(node: Node, x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    x = plain(x)
    return np.isinf(x) & (((x > 0) & bool(detect_positive)) | ((x < 0) & bool(detect_negative)))
