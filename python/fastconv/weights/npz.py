# SPDX-License-Identifier: Apache-2.0
"""NumPy's `.npz`: a zip archive of `.npy` arrays, read without pickles and without trust in the sizes it declares.

Every array is checked before its memory is taken: plain numbers, a shape that fits the size of the archive's member,
and a sum over all members within a limit, so that some kilobytes of deflated zeros do not become a terabyte.
"""

import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..arrays import as_dtype

Array = npt.NDArray[Any]

_ALWAYS, _RATIO = 256 * 2**20, 100  # what the arrays may take: this much, and this many times the file
_CHUNK = 2**20
_CHECKPOINT = "checkpoint.json"  # the entry that train.save_checkpoint adds
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError, TypeError,
            RuntimeError, SyntaxError, AttributeError, OverflowError, MemoryError, RecursionError)  # fmt: skip


def is_torch(path: Path) -> bool:
    """Whether a zip archive is a file of PyTorch: one with a pickle, `data.pkl`, in its folder.

    Raises:
        ValueError: the archive cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rsplit("/", 1)[-1] == "data.pkl" for name in archive.namelist())
    except _DAMAGED as error:
        raise ValueError(f"{path}: the zip archive cannot be opened ({shortened(error)})") from error


def read(path: Path, max_bytes: int | None = None) -> dict[str, Array]:
    """The arrays of an archive by name; of a checkpoint of `fastconv train`, those of its model.

    Raises:
        ValueError: the archive is damaged, holds something else than arrays of numbers, or takes too much memory.
    """
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_size(path, members, max_bytes)
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"{name!r} occurs twice")
                arrays[name] = _member(archive, member)
        return _model(arrays) if _CHECKPOINT in arrays else arrays
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path}: not an .npz archive of plain arrays ({shortened(error)})") from error


def metadata(path: Path) -> dict[str, str]:
    """What a checkpoint of `fastconv train` says about its model, text by name; of other archives nothing.

    Raises:
        ValueError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{_CHECKPOINT}.npy" not in archive.namelist():
                return {}
            member = archive.getinfo(f"{_CHECKPOINT}.npy")
            _check_size(path, [member], None)
            tree = json.loads(_member(archive, member).tobytes())
        about = tree["metadata"]
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in about.items()
            if name in ("model", "options", "classes")
        }
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a checkpoint of fastconv train ({shortened(error)})") from error


def shortened(error: Exception) -> str:
    """The first line of what an error says, without the pages of bytes that some of them quote."""
    line = (str(error).strip() or type(error).__name__).split("\n")[0]
    return line if len(line) <= 200 else f"{line[:200]} ..."


def write(file: BinaryIO, arrays: dict[str, Array], about: dict[str, str]) -> None:
    """Write arrays by name, not compressed, as `numpy.savez` does.

    Raises:
        ValueError: there is metadata, which `.npz` has no place for.
    """
    if about:
        raise ValueError("weights.save: .npz has no place for metadata; expected a path that ends in .safetensors")
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _storable(array), allow_pickle=False)


def _storable(array: Array) -> Array:
    # NumPy's format knows no bfloat16: its two bytes go as raw ones, which is what numpy.savez makes of it too.
    return array.view("V2") if array.dtype.name == "bfloat16" else array


def _check_size(path: Path, members: list[zipfile.ZipInfo], max_bytes: int | None) -> None:
    limit = _ALWAYS + _RATIO * path.stat().st_size if max_bytes is None else max_bytes
    needed = sum(member.file_size for member in members)
    if needed > limit:
        raise ValueError(f"its arrays take {needed} bytes, more than the limit of {limit}; max_bytes raises it")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """One array, once everything about it fits."""
    name = member.filename
    if not name.endswith(".npy"):
        raise ValueError(f"{name!r} is no .npy array")
    if member.flag_bits & 1:
        raise ValueError(f"{name!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} is compressed by method {member.compress_type}; expected stored or deflated")
    with archive.open(member) as file:
        shape, column_major, dtype = _header(name, file)
        needed = math.prod(shape) * dtype.itemsize
        if needed != member.file_size - file.tell():
            raise ValueError(f"{name!r} has {member.file_size - file.tell()} bytes; {dtype} of shape {shape}: {needed}")
        data = bytearray(needed)
        _fill(name, file, memoryview(data))
    flat: Array = np.frombuffer(data, dtype)
    if dtype.kind == "V":
        flat = flat.view(as_dtype("bfloat16"))
    return flat.reshape(shape, order="F" if column_major else "C")


def _header(name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name!r} has .npy version {version}; expected (1, 0) or (2, 0)")
    shape, column_major, dtype = readers[version](file)
    if dtype.kind not in "biufc" and dtype != np.dtype("V2"):
        raise ValueError(f"{name!r} has dtype {dtype}; expected numbers, never pickled objects")
    if not all(0 <= size < 2**63 for size in shape) or len(shape) > 32:
        raise ValueError(f"{name!r} has shape {shape}; expected at most 32 integers of at least 0")
    return shape, column_major, dtype


def _fill(name: str, file: Any, data: memoryview) -> None:
    at = 0
    while at < len(data):
        count = file.readinto(data[at : at + _CHUNK])
        if not count:
            raise ValueError(f"{name!r} ends after {at} of {len(data)} bytes")
        at += count
    if file.read(1):  # to the very end, where the archive's checksum is compared
        raise ValueError(f"{name!r} is longer than its array")


def _model(arrays: dict[str, Array]) -> dict[str, Array]:
    """The model's arrays in a checkpoint: JSON says which they are, and which are bfloat16 kept as uint16."""
    tree = json.loads(arrays[_CHECKPOINT].tobytes())["model"]
    return {
        name: arrays[entry["$array"]].view(as_dtype(entry.get("dtype", arrays[entry["$array"]].dtype)))
        for name, entry in tree.items()
    }
