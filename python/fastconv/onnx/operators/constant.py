# SPDX-License-Identifier: Apache-2.0
"""Values from nothing or from shapes; other dtypes. Shapes are NumPy integers: what follows from them is numbers."""

import math
from typing import Any

import numpy as np

from ...arrays import is_float
from ...half import convert
from ...tensor import Tensor, plain
from ..node import Node, Value, as_value, ints, number
from ..package import dtype_name, dtype_of


def constant(node: Node, *, value: Any = None, value_float: float | None = None, value_floats: Any = None,
             value_int: int | None = None, value_ints: Any = None) -> Value:  # fmt: skip
    if value is not None:
        return as_value(_tensor(node, value))
    if value_float is not None or value_floats is not None:
        return Tensor(np.array(value_float if value_floats is None else value_floats, np.float32))
    if value_int is None and value_ints is None:
        raise node.problem("there is no value; expected one attribute")
    return np.array(value_int if value_ints is None else value_ints, np.int64)


def _tensor(node: Node, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise node.problem(f"the attribute 'value' is a {type(value).__name__}; expected a tensor")
    return value


def constant_of_shape(node: Node, shape: Value, *, value: Any = None) -> Value:
    lengths = ints(node, shape, "shape")
    fill = np.zeros(1, np.float32) if value is None else _tensor(node, value)
    if fill.size != 1:
        raise node.problem(f"value has shape {fill.shape}; expected one number")
    node.allow(lengths, fill.dtype.itemsize)
    return as_value(np.full(lengths, fill.reshape(()), fill.dtype))


def shape_of(node: Node, x: Value, *, start: int = 0, end: int | None = None) -> Value:
    return np.array(x.shape[start:end], np.int64)


def size_of(node: Node, x: Value) -> Value:
    return np.array(math.prod(x.shape), np.int64)


def identity(node: Node, x: Value) -> Value:
    return x


def cast(node: Node, x: Value, *, to: Any, saturate: int = 1, round_mode: str = "up") -> Value:
    """saturate and round_mode speak of floats of eight bits, which do not come here."""
    if isinstance(to, str):  # opset 1 to 5
        names = {"FLOAT": "float32", "DOUBLE": "float64"}
        return _cast(x, np.dtype(names.get(to, to.lower())))
    dtype = dtype_of(to)
    if dtype is None:
        raise node.unsupported(f"fastconv does not hold {dtype_name(to)}")
    return _cast(x, dtype)


def cast_like(node: Node, x: Value, target: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return _cast(x, target.dtype)


def _cast(x: Value, dtype: Any) -> Value:
    if is_float(dtype):
        return x.astype(dtype) if isinstance(x, Tensor) else Tensor(convert(x, dtype))
    return np.asarray(convert(plain(x), dtype))


def arange(node: Node, start: Value, limit: Value, delta: Value, *, stash_type: int = 1) -> Value:
    first, last, step = (number(node, v, n) for v, n in ((start, "start"), (limit, "limit"), (delta, "delta")))
    if not step or not math.isfinite((last - first) / step):
        raise node.problem(f"start is {first}, limit {last}, delta {step}; expected finite numbers and a step")
    count = max(math.ceil((last - first) / step), 0)
    node.allow((count,))
    return as_value((first + np.arange(count) * step).astype(start.dtype))


def eye_like(node: Node, x: Value, *, dtype: int | None = None, k: int = 0) -> Value:
    kind = x.dtype if dtype is None else dtype_of(dtype)
    if x.ndim != 2 or kind is None:
        raise node.problem(f"x has shape {x.shape}, dtype is {dtype}; expected a matrix of numbers")
    return as_value(np.eye(x.shape[0], x.shape[1], k).astype(kind))


def one_hot(node: Node, indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    """values[1] at the index along the new axis, values[0] elsewhere."""
    indices, off_on = plain(indices), plain(values)
    count = int(number(node, depth, "depth"))
    axis = axis % (indices.ndim + 1)
    shape = (*indices.shape[:axis], count, *indices.shape[axis:])
    node.allow(shape, off_on.dtype.itemsize)
    wanted = np.expand_dims(np.where(indices < 0, indices + count, indices), axis)
    places = np.arange(count).reshape(-1, *(1,) * (indices.ndim - axis))
    return as_value(np.where(wanted == places, off_on[1], off_on[0]).astype(off_on.dtype))
