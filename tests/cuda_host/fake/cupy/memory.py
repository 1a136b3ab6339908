# SPDX-License-Identifier: Apache-2.0
"""Memory of the emulated device, through the table that its library exports (cuda/backend.h)."""

import ctypes
import math
from typing import Any

import numpy as np

_Int, _Pointer, _Size = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64


class _Backend(ctypes.Structure):
    """The first members of fastconv::Backend."""

    _fields_ = [
        ("abi", ctypes.c_int32),
        ("algorithm_count", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("algorithms", _Pointer),
        ("verified", _Pointer),
        ("verified_count", ctypes.c_int32),
        ("pool", _Pointer),
        ("scatter_positions", _Pointer),
        ("pointwise", _Pointer),
        ("norm_workspace", _Pointer),
        ("norm", _Pointer),
        ("device_count", _Pointer),
        ("attributes", _Pointer),
        ("current_device", _Pointer),
        ("set_device", _Pointer),
        ("allocate", ctypes.CFUNCTYPE(_Int, _Int, _Size, _Pointer, ctypes.POINTER(_Pointer))),
        ("release", ctypes.CFUNCTYPE(_Int, _Int, _Pointer, _Pointer)),
        ("copy", _Pointer),
        ("fill", _Pointer),
        ("synchronize", ctypes.CFUNCTYPE(_Int, _Int, _Pointer)),
        ("wait", _Pointer),
        ("record", _Pointer),
        ("seconds_between", _Pointer),
        ("forget", _Pointer),
        ("is_device_pointer", _Pointer),
        ("last_error", ctypes.CFUNCTYPE(ctypes.c_char_p)),
    ]


ABI = 6
_backend: Any = None


def use_library(path: str) -> None:
    """The emulated device's library; before the first array."""
    global _backend
    entry = ctypes.CDLL(path).fastconv_backend
    entry.restype = ctypes.POINTER(_Backend)
    found = entry(ctypes.c_int32(ABI))
    if not found:
        raise RuntimeError(f"{path} has another ABI number than {ABI}")
    _backend = found.contents


def synchronize() -> None:
    """Raises what the checks of the emulation found since the last call."""
    if _backend.synchronize(0, None) != 0:
        raise RuntimeError(_backend.last_error().decode())


class Memory:
    """A block of the device's memory, as cupy.cuda.MemoryPointer."""

    def __init__(self, size: int) -> None:
        pointer = _Pointer()
        if _backend.allocate(0, size, None, ctypes.byref(pointer)) != 0:
            raise MemoryError(_backend.last_error().decode())
        self.ptr, self._release = pointer.value, _backend.release

    def __del__(self) -> None:
        if getattr(self, "ptr", None):
            self._release(0, self.ptr, None)


def _view(owner: Any, address: int, shape: Any, dtype: np.dtype, strides: Any = None) -> np.ndarray:
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    reach = dtype.itemsize * count if strides is None else dtype.itemsize + sum(
        (n - 1) * s for n, s in zip(shape, strides, strict=True)
    )  # fmt: skip
    flat = np.frombuffer((ctypes.c_char * reach).from_address(address), dtype=np.uint8)
    return np.ndarray(shape, dtype, buffer=flat.data, strides=strides)


def new_array(shape: Any, dtype: np.dtype) -> tuple[np.ndarray, Memory]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    owner = Memory(math.prod(shape) * dtype.itemsize)
    return _view(owner, owner.ptr, shape, dtype), owner


def array_like(values: np.ndarray) -> tuple[np.ndarray, Memory]:
    """Room for a copy, with the order of axes in memory that `values` has."""
    array, owner = new_array(values.shape, values.dtype)
    order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    dense = array.reshape([values.shape[axis] for axis in order])
    return dense.transpose(np.argsort(order)) if values.ndim else array, owner


def imported(other: Any) -> tuple[np.ndarray, Any]:
    """Another library's array of the device, as it lies."""
    interface = other.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    view = _view(other, interface["data"][0], interface["shape"], dtype, interface.get("strides"))
    return view, other
