# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16: conversion, and the one rule for everything but convolution: widen, compute, round once.

Convolution takes halves as they are and does the same inside (csrc/half_problem.h). For all other operations there are
two places: `Function.apply` widens a Function's inputs and rounds its result, and likewise on the way back, so that no
Function needs to know of halves; and `in_float32` does it for a function of plain arrays, or one that is made of
several operations and is to round once. Optimisers change parameters within `widened`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy as np

from . import _core
from .arrays import FLOAT32, as_dtype, is_float, is_half
from .options import current
from .tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def widen(x: Any) -> Any:
    """A float16 or bfloat16 array as float32, exactly; anything else as it is."""
    if not is_half(getattr(x, "dtype", FLOAT32)):
        return x
    return _core.widen(x, current()) if isinstance(x, np.ndarray) else x.astype(FLOAT32)


def narrow(x: Any, dtype: Any) -> Any:
    """A floating array rounded to float16 or bfloat16: to nearest, ties to even, too large becomes an infinity."""
    if isinstance(x, np.ndarray) and x.dtype == FLOAT32:
        return _core.narrow(x, dtype, current())
    if isinstance(x, np.generic):
        return narrow(np.asarray(x), dtype)
    with np.errstate(over="ignore"):  # as quiet as the native kernel
        return x.astype(dtype)


def convert(x: Any, dtype: Any) -> Any:
    """`x.astype(dtype)` in which a half is converted by the native kernels."""
    dtype = as_dtype(dtype)
    if x.dtype == dtype:
        return x
    wide = widen(x) if is_float(dtype) else x
    return narrow(wide, dtype) if is_half(dtype) and is_float(x.dtype) else wide.astype(dtype, copy=False)


def half_of(values: Iterable[Any]) -> Any:
    """The one half dtype of all floating arrays (or tensors) among the values; None if there is none, or another."""
    found = None
    for value in values:
        dtype = getattr(value, "dtype", None)
        if dtype is None or not is_float(dtype):
            continue
        if not is_half(dtype) or (found is not None and found != dtype):
            return None
        found = dtype
    return found


def in_float32(function: F) -> F:
    """`function`, computed in float32 where its arrays or tensors are float16 or bfloat16, its results rounded once.

    Halves are widened when all floating arguments share one half dtype; otherwise the function sees what came, and
    complains. Results that are not float32, as indices, stay as they are. Not for functions that write to an argument.
    """

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        dtype = half_of((*args, *keywords.values()))
        if dtype is None:
            return function(*args, **keywords)
        wide = {key: _wide(value) for key, value in keywords.items()}
        return _rounded(function(*map(_wide, args), **wide), dtype)

    return cast(F, call)


@contextlib.contextmanager
def widened(tensor: Tensor) -> Iterator[None]:
    """Inside, the data of a half tensor is a float32 copy; what that holds at the end is rounded into the tensor."""
    data = tensor.data
    tensor.data = widen(data)
    try:
        yield
        if tensor.data is not data:
            data[...] = narrow(tensor.data, data.dtype)
    finally:
        tensor.data = data


def _wide(value: Any) -> Any:
    return value.astype(FLOAT32) if isinstance(value, Tensor) and is_half(value.dtype) else widen(value)


def _rounded(result: Any, dtype: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_rounded(r, dtype) for r in result)
    if getattr(result, "dtype", None) != FLOAT32:
        return result
    return result.astype(dtype) if isinstance(result, Tensor) else narrow(result, dtype)
