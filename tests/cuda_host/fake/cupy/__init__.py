# SPDX-License-Identifier: Apache-2.0
"""As much of CuPy as fastconv uses, on the memory of the emulated device: for tests on machines without a GPU.

Values are computed by NumPy and lie in the emulated device's memory, where its kernels check every access. As in CuPy a
NumPy array is no operand, and nothing becomes one unless asked by `get` or `asnumpy`.
"""

import numbers
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import memory


class ndarray:  # noqa: N801  (CuPy's name)
    __array_priority__ = 100

    def __init__(self, values: np.ndarray, owner: memory.Memory) -> None:
        self._values, self._owner = values, owner

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    strides = property(lambda self: self._values.strides)
    T = property(lambda self: _wrapped(self._values.T, self))
    device = property(lambda self: SimpleNamespace(id=0))

    @property
    def flags(self) -> Any:  # CuPy's has no `writeable`
        flags = self._values.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._values.__array_interface__["data"][0])

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = self._values.__array_interface__
        return {**{key: interface[key] for key in ("shape", "typestr", "strides", "data")}, "version": 3, "stream": 1}

    def __array__(self, *args: Any, **keywords: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` explicitly.")

    def get(self) -> np.ndarray:
        return self._values.copy()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self._values, name)
        return (lambda *args, **keywords: _call(method, self, *args, **keywords)) if callable(method) else method

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        return _call(getattr(ufunc, method), *inputs, **keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        return _call(function, *args, **keywords)

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return self.copy()

    def __getitem__(self, index: Any) -> Any:
        return _wrapped(self._values[_plain(index)], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[_plain(index)] = _plain(value)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    __bool__ = lambda self: bool(self._values)  # noqa: E731
    __int__ = lambda self: int(self._values)  # noqa: E731
    __float__ = lambda self: float(self._values)  # noqa: E731
    __hash__ = None  # type: ignore[assignment]


def _operator(name: str) -> Any:
    def apply(self: ndarray, *others: Any) -> Any:
        for other in others:
            if not isinstance(other, ndarray | numbers.Number | np.generic):
                return NotImplemented
        result = _call(getattr(self._values, name), self, *others)
        if name.startswith("__i") and name != "__invert__":
            return self
        return result

    return apply


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    for _prefix in ("", "r", "i"):
        setattr(ndarray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ("lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _plain(value: Any) -> Any:
    """NumPy's view of an argument; a NumPy array is refused."""
    if isinstance(value, ndarray):
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(_plain(v) for v in value)
    return value


def _wrapped(result: Any, *operands: Any) -> Any:
    """`result` in the device's memory: a view of an operand stays one."""
    if isinstance(result, tuple | list):
        return type(result)(_wrapped(r, *operands) for r in result)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    for operand in operands:
        if isinstance(operand, ndarray) and np.may_share_memory(result, operand._values):
            return ndarray(result, operand._owner)
    return _placed(result)


def _placed(values: np.ndarray) -> ndarray:
    array, owner = memory.array_like(values)
    array[...] = values
    return ndarray(array, owner)


def _call(function: Any, *args: Any, **keywords: Any) -> Any:
    plain = {key: _plain(value) for key, value in keywords.items()}
    operands = [a for a in args if isinstance(a, ndarray)]
    bound = [getattr(function, "__self__", None)]
    if isinstance(bound[0], np.ndarray) and operands and operands[0]._values is bound[0]:
        args = args[1:]  # a method
    result = function(*(_plain(a) for a in args), **plain)
    if result is NotImplemented:
        return result
    out = keywords.get("out")
    if out is not None:
        return out[0] if isinstance(out, tuple) else out
    return _wrapped(result, *operands)


def asarray(values: Any, dtype: Any = None) -> ndarray:
    if isinstance(values, ndarray):
        return values if dtype is None or values.dtype == dtype else values.astype(dtype)
    if hasattr(values, "__cuda_array_interface__"):
        return ndarray(*memory.imported(values))
    return _placed(np.asarray(values, dtype=dtype))


def array(values: Any, dtype: Any = None, order: str = "K") -> ndarray:
    plain = values._values if isinstance(values, ndarray) else values
    return _placed(np.array(plain, dtype=dtype, order=order))  # type: ignore[call-overload]


def asnumpy(values: Any) -> np.ndarray:
    return values.get() if isinstance(values, ndarray) else np.asarray(values)


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Not zeros: the emulated device fills new memory with NaN."""
    return ndarray(*memory.new_array(shape, np.dtype(dtype)))


def ascontiguousarray(values: ndarray) -> ndarray:
    return values if values.flags.c_contiguous else _placed(np.ascontiguousarray(values._values))


def get_array_module(*arrays: Any) -> Any:
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in arrays) else np


class _Device:
    def __init__(self, ordinal: int = 0) -> None:
        self.id = ordinal

    def __enter__(self) -> "_Device":
        return self

    def __exit__(self, *error: Any) -> None:
        pass


cuda = SimpleNamespace(
    Device=_Device,
    get_current_stream=lambda: SimpleNamespace(ptr=0),
    alloc=lambda size: memory.Memory(size),
)


def __getattr__(name: str) -> Any:
    """Functions of NumPy on arrays of the device; its dtypes and constants as they are."""
    if name.startswith("__"):
        raise AttributeError(name)
    value = getattr(np, name)
    if isinstance(value, type) or not callable(value):
        return value
    return lambda *args, **keywords: _call(value, *args, **keywords)
