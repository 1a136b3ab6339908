# SPDX-License-Identifier: Apache-2.0
"""One node of a graph, as its operator sees it.

An operator is a function `f(node, *inputs, **attributes)`: its positional arguments are ONNX's inputs, None where one
is left out, its keywords ONNX's attributes with their defaults. So its signature says which attributes it knows; others
are refused. It returns a value, or a tuple of as many as the node has results. A value is a Tensor where its dtype is
floating, else a NumPy array: shapes are computed with integers, and those with NumPy.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._core import ProblemError, UnsupportedError
from ..arrays import is_float
from ..tensor import Tensor, plain

Value = Any
Operator = Callable[..., Any]
Shape = tuple[int, ...]


class Node:
    """Name, opset and results of a node, with its operator and attributes.

    Attributes:
        training: whether batch norm takes its statistics from the batch, and dropout drops.
        max_bytes: the largest value that a node may make.
    """

    __slots__ = ("attributes", "inputs", "max_bytes", "name", "op_type", "operator", "opset", "outputs", "training")

    def __init__(self, op_type: str, name: str, opset: int, inputs: Iterable[str], outputs: Iterable[str],
                 attributes: dict[str, Any], operator: Operator, max_bytes: int) -> None:  # fmt: skip
        self.op_type, self.name, self.opset = op_type, name, opset
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.attributes, self.operator = attributes, operator
        self.max_bytes, self.training = max_bytes, False

    def __str__(self) -> str:
        return f"{self.op_type} node {self.name!r}" if self.name else f"{self.op_type} node of {self.outputs[:1]}"

    def wants(self, index: int) -> bool:
        """Whether anybody is interested in result number `index`."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def problem(self, text: str) -> ProblemError:
        return ProblemError(f"{self}: {text}")

    def unsupported(self, text: str) -> UnsupportedError:
        return UnsupportedError(f"{self}: {text}")

    def allow(self, shape: Iterable[int], itemsize: int = 8) -> None:
        """Refuse a result of this shape if it has more bytes than a value may have."""
        lengths = tuple(int(n) for n in shape)
        if any(n < 0 for n in lengths):
            raise self.problem(f"the result would have the shape {lengths}; expected lengths of 0 or more")
        size = math.prod(lengths) * itemsize
        if size > self.max_bytes:
            raise self.problem(
                f"the result would have the shape {lengths}, {size} bytes; expected at most max_bytes={self.max_bytes}"
            )

    def run(self, values: Iterable[Value]) -> tuple[Value, ...]:
        """The results for these inputs.

        Raises:
            ProblemError, UnsupportedError: naming the node.
        """
        try:
            result = self.operator(self, *values, **self.attributes)
        except (ProblemError, UnsupportedError) as error:
            text = str(error)
            raise (error if text.startswith(str(self)) else type(error)(f"{self}: {text}")) from None
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            first_line = str(error).partition("\n")[0]  # the native module's go on with all arguments
            raise self.problem(f"{type(error).__name__}: {first_line}") from error
        return result if isinstance(result, tuple) else (result,)


def as_value(array: Any) -> Value:
    """An array as a value: a Tensor if its dtype is floating."""
    array = array if hasattr(array, "dtype") else np.asarray(array)
    return Tensor(array) if is_float(array.dtype) else np.asarray(array)


def like(result: Tensor, *sources: Value) -> Value:
    """A result of tensor operations as a value of the kind of the sources: an array where they are arrays."""
    return result if any(isinstance(s, Tensor) for s in sources) else result.data


def ints(node: Node, value: Any, name: str) -> tuple[int, ...]:
    """A list of integers, from an attribute or an input (also a single number)."""
    array = np.asarray(plain(value))
    if array.dtype.kind not in "iu" and array.size:
        raise node.problem(f"{name} has dtype {array.dtype}; expected integers")
    if array.ndim > 1 or array.size > 1024:
        raise node.problem(f"{name} has shape {array.shape}; expected one dimension, and at most 1024 numbers")
    return tuple(int(n) for n in array.reshape(-1))


def number(node: Node, value: Any, name: str) -> Any:
    """One number, from an attribute or an input of one element."""
    array = np.asarray(plain(value))
    if array.size != 1:
        raise node.problem(f"{name} has shape {array.shape}; expected one number")
    return array.reshape(()).item()


def axis_of(node: Node, axis: int, ndim: int) -> int:
    """An axis counted from the front."""
    if not -ndim <= axis < ndim:
        raise node.problem(f"axis is {axis}; expected {-ndim} to {ndim - 1}")
    return axis % ndim


def axes_of(node: Node, axes: Iterable[int], ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, none twice."""
    found = tuple(axis_of(node, axis, ndim) for axis in axes)
    if len(set(found)) != len(found):
        raise node.problem(f"axes are {found}; expected none twice")
    return found


def spatial_rank(node: Node, x: Value) -> int:
    """How many spatial axes x (N, C, *) has."""
    if not 3 <= x.ndim <= 5:
        raise node.unsupported(f"x has shape {x.shape}; fastconv has 1 to 3 spatial axes")
    return int(x.ndim) - 2
