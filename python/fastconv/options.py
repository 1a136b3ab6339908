# SPDX-License-Identifier: Apache-2.0
"""What a caller may ask of the choice of algorithm: for a block of code, for the process, or from the environment.

A contextvar holds what `with options(...)` asks, so that threads and tasks do not see each other's; without it the
process-wide values of `set_options` hold. The native `_core.Options` is made once per change, never per call.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from . import _core
from ._core import ProblemError

# Names for the largest accepted error factor: an algorithm's error over that of plain summation in the same dtype.
PRECISIONS = {"strict": 1.0, "default": 8.0, "fast": 32.0, "tf32": 16384.0}
Precision = str | float | None  # as an argument; None: what the options in force say


class Settings(NamedTuple):
    """The values behind an `_core.Options`."""

    algorithm: str | None = None  # None or "auto": the cheapest estimate
    precision: float = PRECISIONS["default"]
    max_workspace: int = -1  # bytes; -1: no limit
    threads: int = 0  # 0: as many as the machine grants
    batch_invariant: bool = False
    isa: str | None = None
    tuning: Any = None  # a tuning.Tuning: which algorithms were fastest; it goes before the estimates


@functools.lru_cache(maxsize=256)
def native(settings: Settings) -> _core.Options:
    """What the native functions take; the same object for equal settings."""
    tuning = None if settings.tuning is None else settings.tuning.native()
    return _core.Options(*settings._replace(tuning=tuning))


def _updated(settings: Settings, changes: dict[str, Any]) -> Settings:
    unknown = sorted(set(changes) - set(Settings._fields))
    if unknown:
        raise TypeError(f"options: unknown {', '.join(unknown)}; known: {', '.join(Settings._fields)}")
    changes = dict(changes)
    if changes.get("algorithm") == "auto":
        changes["algorithm"] = None
    if "precision" in changes:
        changes["precision"] = _precision(changes["precision"])
    if "max_workspace" in changes:
        changes["max_workspace"] = _bytes(changes["max_workspace"])
    if "threads" in changes and (isinstance(changes["threads"], bool) or changes["threads"] < 0):
        raise ProblemError(f"options: threads is {changes['threads']}; expected 0 (all) or more")
    if changes.get("tuning") is not None:
        from .tuning.table import as_tuning  # rarely wanted

        changes["tuning"] = as_tuning(changes["tuning"])
    return settings._replace(**changes)


def _precision(value: str | float) -> float:
    if isinstance(value, str):
        if value not in PRECISIONS:
            raise ProblemError(f"options: precision is {value!r}; expected a number or one of {tuple(PRECISIONS)}")
        return PRECISIONS[value]
    if not value >= 1:
        raise ProblemError(f"options: precision is {value}; expected an error factor of at least 1")
    return float(value)


def _bytes(value: int | None) -> int:
    if value is None:
        return -1
    if value < -1:
        raise ProblemError(f"options: max_workspace is {value}; expected bytes, 0 for none, or None for no limit")
    return int(value)


def without_name() -> _core.Options:
    """The options that hold here, but for an algorithm's name: of operations that are convolutions only inside."""
    return native(settings()._replace(algorithm=None))


# Of the whole process; made at first use, so that a wrong name or file in the environment is no import error.
_process: Settings | None = None
_process_options: _core.Options | None = None
_active: ContextVar[tuple[Settings, _core.Options] | None] = ContextVar("fastconv_options", default=None)


def _process_settings() -> Settings:
    global _process
    if _process is None:
        named = {"algorithm": "FASTCONV_ALGORITHM", "tuning": "FASTCONV_TUNING"}
        _process = _updated(Settings(), {field: os.environ.get(name) or None for field, name in named.items()})
    return _process


def settings() -> Settings:
    """The values that hold here."""
    active = _active.get()
    return _process_settings() if active is None else active[0]


def current() -> _core.Options:
    """The native options that hold here; the same object until something changes."""
    global _process_options
    active = _active.get()
    if active is not None:
        return active[1]
    if _process_options is None:
        _process_options = native(_process_settings())
    return _process_options


def chosen(algorithm: str | None, precision: Precision = None) -> _core.Options:
    """The current options, with what a call asks for itself; None: as they are."""
    if algorithm is None and precision is None:
        return current()
    asked = {"algorithm": algorithm, "precision": precision}
    return native(_updated(settings(), {name: value for name, value in asked.items() if value is not None}))


@contextlib.contextmanager
def options(**changes: Any) -> Iterator[Settings]:
    """Ask for something of every convolution inside a `with` block; blocks nest.

    Args:
        algorithm: the name of an algorithm (see `fc.algorithms`); "auto" or None lets the estimates choose. One that
            cannot run raises; nothing falls back silently.
        precision: "strict", "default", "fast", or a number: the largest accepted error factor. "tf32" lets a GPU
            round float32 operands to 10 bits of mantissa, and a processor with AMX to 16.
        max_workspace: bytes of scratch memory one call may take; None is no limit.
        threads: how many threads one call may use; 0 means all.
        batch_invariant: choose without looking at the batch size: an image gives the same bits in any batch.
        isa: the instruction set of the kernels, as in `fc.info()["isas"]`.
        tuning: a `fc.tuning.Tuning` or the path of its file: for the classes of shapes that it knows, the
            algorithm that was fastest. None: the estimates choose. FASTCONV_TUNING=FILE does so for the whole process.

    Raises:
        TypeError: an unknown name.
        ProblemError: a value out of range.

    Example:
        >>> with fc.options(algorithm="im2col_gemm", threads=1):
        ...     y = fc.conv2d(x, w)
    """
    wanted = _updated(settings(), changes)
    token = _active.set((wanted, native(wanted)))
    try:
        yield wanted
    finally:
        _active.reset(token)


def set_options(**changes: Any) -> None:
    """The same for the whole process, wherever no `with options(...)` holds."""
    global _process, _process_options
    wanted = _updated(_process_settings(), changes)
    _process, _process_options = wanted, native(wanted)
