# SPDX-License-Identifier: Apache-2.0
"""Other libraries' arrays in the memory of the CPU: read where they lie, answered in their own kind.

Whatever has `__dlpack__` comes in without a copy. Where its library follows the array API standard, the array names the
namespace that makes its kind (`x.__array_namespace__().from_dlpack`), and the results go back through that, again
without a copy; an object that only gives its memory is answered with NumPy arrays. Arrays of NumPy, CuPy and torch and
`fc.Tensor` do not come this way.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .arrays import kind_of
from .tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
_OWN_WAYS = ("builtins", "numpy", "cupy", "torch", "fastconv")
_CPU = 1  # kDLCPU


def takes_dlpack(function: Function) -> Function:
    """The function, which computes on NumPy arrays, also for arrays that come by DLPack."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if args and (type(args[0]) is np.ndarray or type(args[0]) is Tensor):
            return function(*args, **kwargs)
        foreign = [a for a in (*args, *kwargs.values()) if _is_foreign(a)]
        if not foreign:
            return function(*args, **kwargs)
        views = {id(a): _view(a, function.__name__) for a in foreign}
        results = function(*(views.get(id(a), a) for a in args), **{k: views.get(id(a), a) for k, a in kwargs.items()})
        given = {id(views[id(a)]): a for a in foreign}
        back = functools.partial(_in_kind_of, foreign[0], given)
        return tuple(map(back, results)) if isinstance(results, tuple) else back(results)

    return call  # type: ignore[return-value]


def _is_foreign(a: Any) -> bool:
    if kind_of(a) in _OWN_WAYS or isinstance(a, np.ndarray) or not hasattr(a, "__dlpack__"):
        return False
    return not hasattr(a, "__dlpack_device__") or int(a.__dlpack_device__()[0]) == _CPU


def _view(a: Any, caller: str) -> Any:
    try:
        return np.from_dlpack(_WithDevice(a) if not hasattr(a, "__dlpack_device__") else a)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(
            f"{caller}: NumPy cannot read a {type(a).__name__} by DLPack: {error}; expected float32, float64 or float16"
        ) from error


class _WithDevice:
    """An array on the CPU that does not say so; NumPy asks."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **asked: Any) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def _in_kind_of(a: Any, given: dict[int, Any], result: Any) -> Any:
    """A result as an array of the kind of `a`; what was passed as `out` is itself."""
    if id(result) in given:
        return given[id(result)]
    if not isinstance(result, np.ndarray) or not hasattr(a, "__array_namespace__"):
        return result
    return a.__array_namespace__().from_dlpack(result)
