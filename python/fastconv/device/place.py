# SPDX-License-Identifier: Apache-2.0
"""Where a call runs, and the addresses of its arrays."""

import sys
from typing import Any

from .._core import DeviceError, ProblemError, device_pitches
from ..arrays import same_kind

Array = Any


def array_module() -> Any:
    """The cupy module, which is imported by now: an array of its kind came in."""
    return sys.modules["cupy"]


class Place:
    """Where a call runs: the device of its arrays, CuPy's current stream there, and memory for a workspace."""

    def __init__(self, caller: str, **arrays: Any) -> None:
        same_kind(caller, **arrays)
        self.xp = array_module()
        first = next(iter(arrays))
        self.device = int(arrays[first].device.id)
        for name, array in arrays.items():
            if array is None:
                continue
            if array.device.id != self.device:
                raise DeviceError(
                    f"{caller}: {name} is on device {array.device.id}, {first} on device {self.device}; "
                    "expected one device"
                )
        self.stream = int(self.xp.cuda.get_current_stream().ptr)
        self._held: list[Any] = []

    def workspace(self, size: int) -> int:
        with self.xp.cuda.Device(self.device):
            memory = self.xp.cuda.alloc(size)
        self._held.append(memory)  # until the call returns: then it is the stream's turn
        return int(memory.ptr)

    def empty(self, shape: Any, dtype: Any) -> Array:
        with self.xp.cuda.Device(self.device):
            return self.xp.empty(shape, dtype=dtype)

    def dense(self, array: Array) -> Array:
        """In C order; kept alive."""
        if not array.flags.c_contiguous:
            array = self.xp.ascontiguousarray(array)
            self._held.append(array)
        return array

    def address(self, array: Array | None) -> int:
        return 0 if array is None else int(self.dense(array).data.ptr)

    def image(self, x: Array, layout: str) -> tuple[int, str, int, int]:
        """Address, layout and pitches of an image tensor; copied where the kernels cannot read its strides."""
        found = device_pitches(x.shape, x.strides, x.itemsize, layout)
        if found is None:
            x = self.dense(x)
            found = device_pitches(x.shape, x.strides, x.itemsize, layout)
        assert found is not None  # dense memory can be read
        return (int(x.data.ptr), *found)


def spatial(shape: Any, layout: str) -> Any:
    return shape[2:] if layout == "channels_first" else shape[1:-1]


def image_shape(n: int, channels: int, size: Any, layout: str) -> tuple[int, ...]:
    return (n, channels, *size) if layout == "channels_first" else (n, *size, channels)


def written(out: Array) -> Array:
    """`out`, which must be dense."""
    if not out.flags.c_contiguous:
        raise ProblemError("out is not C-contiguous; expected an array as cupy.empty makes it")
    return out
