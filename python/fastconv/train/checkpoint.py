# SPDX-License-Identifier: Apache-2.0
"""A training run in one `.npz` file, without pickle, written so that it is whole or not there at all.

Every array is an entry of its own, named by its path, e.g. `model/0.weight`; all the rest is JSON in the entry
`checkpoint.json`, where `{"$array": name}` stands for an array (with "dtype" for one that NumPy's format does not
know: bfloat16, kept as uint16). `$tuple` and `$items` mark what JSON cannot tell apart: tuples from lists, and
dictionaries whose keys are not text.
"""

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import as_dtype

Array = npt.NDArray[Any]

FORMAT = 1
_JSON_ENTRY = "checkpoint.json"


@dataclass
class Checkpoint:
    """The state of a run between two epochs: what `state_dict` of its parts, and `random.get_state`, returned.

    `epoch` counts those that are complete; `metadata` is the caller's, anything that JSON and arrays can hold.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any] | None = None
    optimizer_class: str | None = None
    loader: dict[str, Any] | None = None
    random: Any = None
    epoch: int = 0
    history: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] | None = None


def save_checkpoint(path: str | PathLike[str], checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`: beside it first, then moved there in one step, so that an interruption at any
    moment leaves the file that was there before.

    Raises:
        TypeError: a part holds something that is neither an array nor known to JSON; the message says where.
        OSError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    arrays: dict[str, Any] = {}
    tree = {"format": FORMAT}
    for name in vars(checkpoint):
        tree[name] = _encode(getattr(checkpoint, name), name, arrays)
    arrays[_JSON_ENTRY] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, or one of another format.
    """
    try:
        # Opened here: np.load leaves a file that is no whole zip archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            tree = json.loads(archive[_JSON_ENTRY].tobytes())
            parts = {name: _decode(tree[name], archive) for name in _field_names() if name in tree}
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a fastconv checkpoint ({error})") from error
    if tree["format"] != FORMAT:
        raise ValueError(f"{path}: checkpoint of format {tree['format']}; expected {FORMAT}")
    return Checkpoint(**parts)


def _field_names() -> list[str]:
    return list(asdict(Checkpoint(model={})))


def _encode(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"save_checkpoint: {where} is an array of objects; expected numbers")
        if value.dtype.name == "bfloat16":  # of which the file format knows no more than its two bytes
            arrays[where] = value.view(np.uint16)
            return {"$array": where, "dtype": value.dtype.name}
        arrays[where] = value
        return {"$array": where}
    if isinstance(value, Mapping):
        encoded = [(key, _encode(item, f"{where}/{key}", arrays)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(encoded)
        return {"$items": [[_encode(key, where, arrays), item] for key, item in encoded]}
    if isinstance(value, tuple | list):
        items = [_encode(item, f"{where}/{number}", arrays) for number, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"save_checkpoint: {where} is a {type(value).__name__}; expected arrays, numbers, text, containers")


def _decode(value: Any, archive: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_decode(item, archive) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        array = archive[value["$array"]]
        return array.view(as_dtype(value["dtype"])) if "dtype" in value else array
    if "$tuple" in value:
        return tuple(_decode(item, archive) for item in value["$tuple"])
    if "$items" in value:
        return {_decode(key, archive): _decode(item, archive) for key, item in value["$items"]}
    return {key: _decode(item, archive) for key, item in value.items()}
