# SPDX-License-Identifier: Apache-2.0
"""Weights in files: safetensors and `.npz` read and written here, PyTorch's files through PyTorch.

>>> model.load_state_dict(fc.weights.load("squeezenet1_1.safetensors"))
>>> fc.weights.save("mine.safetensors", model.state_dict())

Nothing that is read can run code: there is no pickle in safetensors, none is accepted in `.npz`, and PyTorch is asked
for `weights_only=True`. A damaged file raises one ValueError that begins with its name.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .. import device
from ..arrays import kind_of
from . import npz, safetensors, torch_files

__all__ = ["format_of", "load", "metadata", "save"]

Array = npt.NDArray[Any]

_WRITERS = {".safetensors": safetensors.write, ".npz": npz.write}


def load(path: str | PathLike[str], *, max_bytes: int | None = None) -> dict[str, Array]:
    """The arrays of a file by name; its format is told from its first bytes, not from its name.

    safetensors are mapped into memory, so that opening a large file is quick and reads only what is used; these arrays
    are read-only views, valid as long as one of them lives, and the file must not be shortened meanwhile (`save`
    replaces a file instead). bfloat16 comes as `ml_dtypes.bfloat16`.

    Args:
        path: safetensors; `.npz` of plain numbers, also a checkpoint of `fastconv train` (its model is taken); or
            `.pth`/`.pt` of PyTorch, zip or older, with a dictionary of tensors, also one under "state_dict".
        max_bytes: the most that the arrays of a compressed `.npz` may take; None: 256 MiB and 100 times the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds something else, or its arrays would take more than `max_bytes`.
        ImportError: a file of PyTorch without PyTorch, or bfloat16 without ml_dtypes.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "safetensors":
        return safetensors.read(path)
    if kind == "npz":
        return npz.read(path, max_bytes)
    return torch_files.read(path)


def format_of(path: str | PathLike[str]) -> str:
    """ "safetensors", "npz" or "torch", by the first bytes of a file and, in a zip archive, the names of its members.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04" or start[:4] == b"PK\x05\x06":
        return "torch" if npz.is_torch(path) else "npz"
    if start[:1] == b"\x80":  # a pickle, as PyTorch wrote before 1.6
        return "torch"
    if start[8:] == b"{":
        return "safetensors"
    known = {b"\x89HDF": "HDF5, which examples/convert/hed.py shows how to convert", b"\x93NUM": "a bare .npy array"}
    found = known.get(start[:4], "empty" if not start else f"neither; it begins with {start[:8].hex(' ')}")
    raise ValueError(f"{path}: expected safetensors, an .npz archive or a file of PyTorch; it is {found}")


def metadata(path: str | PathLike[str]) -> dict[str, str]:
    """What a file says about itself, text by name: the metadata of safetensors; of a checkpoint of `fastconv train` the
    name of its "model" and, as JSON, its "options" and "classes"; of other files nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds something else.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "npz":
        return npz.metadata(path)
    return safetensors.metadata(path) if kind == "safetensors" else {}


def save(path: str | PathLike[str], state: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name, as `state_dict` gives them, to a `.safetensors` or `.npz` file.

    The file is written beside its place and moved there in one step: an interruption leaves what was there before.

    Args:
        path: its ending decides the format.
        state: name -> array, Tensor or number.
        metadata: text by name, kept in safetensors alone.

    Raises:
        ValueError: another ending, or metadata for `.npz`.
        TypeError: a value that is no array of numbers; the message names it.
        OSError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"weights.save: {path} ends in {path.suffix!r}; expected one of {', '.join(_WRITERS)}")
    arrays = {name: _plain(name, value) for name, value in state.items()}
    with _replacing(path) as file:
        _WRITERS[path.suffix](file, arrays, dict(metadata or {}))


def _plain(name: str, value: Any) -> Array:
    if not isinstance(name, str):
        raise TypeError(f"weights.save: a name is {name!r}; expected text")
    if hasattr(value, "detach"):  # a Tensor, or PyTorch's
        value = value.detach().to("cpu").numpy()
    elif kind_of(value) == "cupy":
        value = device.moved(value, "cpu")
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.fields or array.dtype.kind in "USMm":
        raise TypeError(f"weights.save: {name!r} has dtype {array.dtype}; expected numbers")
    return array


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is whole."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
