# SPDX-License-Identifier: Apache-2.0
"""Files that repeat a call whose result was wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from .._core import DeviceError
from ..arrays import as_dtype
from ..verify import Array
from .calls import Check, Results, judged, native_at
from .convolutions import ConvCheck
from .pools import PoolCheck
from .positions import PositionsCheck

MOST_FILES = 10  # of one process: a library that is always wrong must not fill the disk
repeating = False  # while `check_file` computes a call again, it is not checked on the way
_KINDS: dict[str, Any] = {kind.kind: kind for kind in (ConvCheck, PoolCheck, PositionsCheck)}
_RESULTS = ("result", "winners")


def _stored(a: Array) -> Array:
    return np.ascontiguousarray(a.view(np.uint16) if a.dtype.kind == "V" else a)  # bfloat16 is no dtype of a .npz file


def save(path: Path, check: Check, results: Results) -> None:
    """Everything that repeats a call, in one .npz file."""
    arrays = {**check.arrays, **dict(zip(_RESULTS, results, strict=False))}
    about = {
        "kind": check.kind,
        "where": check.where,
        **check.about(),
        "bfloat16": [name for name, a in arrays.items() if a.dtype.kind == "V"],
        "made_by": {key: _core.info()[key] for key in ("version", "compiler", "cpu", "isa")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = {name: _stored(a) for name, a in arrays.items()}
    np.savez(path, about=json.dumps(about), **stored)


def load(path: str | Path) -> tuple[dict[str, Any], Check, Results]:
    """What `save` wrote: the facts, the call and its results. Raises ValueError for another file."""
    with np.load(path, allow_pickle=False) as file:
        if "about" not in file.files or "result" not in file.files:
            raise ValueError(f"{path}: holds no call; expected a file that FASTCONV_CHECK wrote")
        about = json.loads(str(file["about"]))
        halves = about["bfloat16"]
        arrays = {name: file[name].view(as_dtype("bfloat16")) if name in halves else file[name]
                  for name in file.files if name != "about"}  # fmt: skip
    results = tuple(arrays.pop(name) for name in _RESULTS if name in arrays)
    return about, _KINDS[about["kind"]].of(about, arrays), results


def check_file(path: str | Path) -> tuple[bool, str]:
    """Compute a saved call again with the options it had. Returns whether it is right now, and what there is to say."""
    about, check, before = load(path)
    made, notes = about["made_by"], []
    if check.where != "cpu":
        try:
            native_at(check.where).numbered(check.where, "check")
        except (DeviceError, _core.ProblemError) as error:
            notes.append(f"computed on the CPU: {error}")
            about = {**about, "where": "cpu", "options": {**about["options"], "algorithm": None}}
    isa = about["options"]["isa"]
    if isa and isa not in _core.info()["isas"]:
        notes.append(f"this processor has no {isa}: computed with {_core.info()['isa']}")
        about = {**about, "options": {**about["options"], "isa": None}}
    again = _KINDS[about["kind"]].of(about, check.arrays)
    global repeating
    repeating = True
    try:
        now = judged(again, again.again())
    finally:
        repeating = False
    place = about["options"]["isa"] or made["isa"] if check.where == "cpu" else check.where
    lines = [
        f"problem    {check.title}",
        f"made by    fastconv {made['version']}, {made['compiler']}, {place}, {made['cpu']}",
        *again.lines(),
        f"then       {judged(again, before)}",
        f"now        {now}",
        *notes,
        "right now" if now.right else "wrong",
    ]
    return now.right, "\n".join(lines)
