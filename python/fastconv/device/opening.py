# SPDX-License-Identifier: Apache-2.0
"""The library of the device: opened once, when the first array of a device comes, or somebody asks."""

import importlib
import os
from typing import Any

from .. import _core
from .._core import DeviceError, ProblemError
from ..arrays import kind_of

LIBRARY = "libfastconv_cuda.so"
PLUGINS = "fastconv.cuda"  # the group of entry points of packages that hold the library alone
_opened: str | None = None  # the backend's name, once it is open
_missing = False  # it was looked for in vain


def open_library(path: str | None = None) -> str:
    """Open the library of the device, once.

    Args:
        path: None: the one that was installed beside the native module, else that of a plug-in (fastconv-cuda13).

    Returns:
        the backend's name, "cuda".

    Raises:
        DeviceError: what is missing, in a sentence: the library, one of this version, a driver, a newer driver, a GPU.
    """
    global _opened
    if _opened is None:
        _opened = _core.device_open_library(path or _found())
    return _opened


def _found() -> str:
    """The path of the library: beside the native module, where it was built from the source, or a plug-in's."""
    path = os.path.join(os.path.dirname(_core.__file__), LIBRARY)
    return path if os.path.exists(path) else _of_plugin()


def _of_plugin() -> str:
    metadata = importlib.import_module("importlib.metadata")  # slow to load, and rarely wanted
    ours = str(_core.info()["version"])
    refused = []
    for point in metadata.entry_points(group=PLUGINS):
        if point.dist.version == ours:
            return str(point.load().LIBRARY)
        name = point.dist.name
        refused.append(f"{name} is {point.dist.version}, fastconv {ours}; expected {name}=={ours}")
    raise DeviceError(
        "; ".join(refused)
        or "fastconv has no CUDA library; install the wheel fastconv-cuda13 of the same version, or build it from the "
        "source with FASTCONV_CUDA=on pip install . (docs/install.md)"
    )


def infos() -> list[dict[str, Any]]:
    """What is known of each device, in the order of their numbers.

    Raises:
        DeviceError: what is missing, in a sentence.
    """
    open_library()
    return [_core.device_info(i) for i in range(_core.device_count())]


def has_library() -> bool:
    """Whether the library is open, or opens now. It is looked for once."""
    global _missing
    if _opened is None and not _missing:
        try:
            open_library()
        except DeviceError:
            _missing = True
    return _opened is not None


def describe() -> str:
    """The devices in a sentence, or what is missing."""
    try:
        found = infos()
    except DeviceError as error:
        return str(error)
    return "; ".join(
        f"{d['name']}, compute capability {d['architecture'] / 10}, {d['multiprocessors']} multiprocessors, "
        f"{d['memory_bytes'] / 2**30:.0f} GiB"
        for d in found
    )


def imported(x: Any, what: str) -> Any:
    """`x` as a CuPy array without a copy, ordered after its producer's work on CuPy's current stream.

    Args:
        x: a CuPy array, or an object in a device's memory with `__dlpack__` or `__cuda_array_interface__`.
        what: which argument it is, for messages.

    Raises:
        DeviceError: the library, the driver or CuPy is missing.
    """
    try:
        open_library()
    except DeviceError as error:
        raise DeviceError(
            f"{what} is in a device's memory, and {error}; use cupy.asnumpy to compute on the CPU"
        ) from None
    if kind_of(x) == "cupy":
        return x
    try:
        xp = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(f"{what} is in a device's memory; CuPy, which allocates the results, is missing") from error
    return xp.from_dlpack(x) if hasattr(x, "__dlpack__") else xp.asarray(x)


def is_name(where: Any) -> bool:
    """Whether it names a device, as "cpu", "cuda" or "cuda:1"; other words are dtypes."""
    return isinstance(where, str) and (where in ("cpu", "cuda") or where.startswith("cuda:"))


def moved(x: Any, where: str) -> Any:
    """The array `x` on the device `where`; itself if it is there.

    Args:
        where: "cpu" (NumPy), or "cuda" or "cuda:1" (CuPy).

    Raises:
        ProblemError: not the number of a device. DeviceError: what is missing, in a sentence.
    """
    if where == "cpu":
        return importlib.import_module("cupy").asnumpy(x) if kind_of(x) == "cupy" else x
    number = numbered(where, "to")
    try:
        xp = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError("to: CuPy, whose arrays those on a device are, is missing; use pip install cupy") from error
    if kind_of(x) == "cupy" and x.device.id == number:
        return x
    with xp.cuda.Device(number):
        return xp.asarray(x)


def numbered(where: str, caller: str) -> int:
    """The number of the CUDA device that is named "cuda" or "cuda:1", whose library is open afterwards.

    Raises:
        ProblemError: there is no such device. DeviceError: what is missing, in a sentence.
    """
    number = where.removeprefix("cuda").removeprefix(":") or "0"
    open_library()
    if not number.isdecimal() or int(number) >= _core.device_count():
        raise ProblemError(f"{caller}: device is {where!r}; expected cpu, cuda or cuda:0 to {_core.device_count() - 1}")
    return int(number)


def is_on_device(x: Any) -> bool:
    """Whether it is a CuPy array or another library's array in the memory of a CUDA device (torch's excepted)."""
    kind = kind_of(x)
    if kind in ("cupy", "torch", "numpy", "builtins"):
        return kind == "cupy"
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[0]) == 2  # kDLCUDA
    return hasattr(x, "__cuda_array_interface__")
