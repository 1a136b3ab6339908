# SPDX-License-Identifier: Apache-2.0
"""What the self-check knows of a call: its arrays on the host, how it is judged, and how it is made once more."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np

from .. import _core
from .._core import Options
from ..arrays import kind_of
from ..verify import Array

Results = tuple[Array, ...]
_OPTIONS = ("algorithm", "precision", "max_workspace", "threads", "batch_invariant", "isa")


@dataclass(frozen=True)
class Verdict:
    """How far a result is off. worst: the largest error as a share of what is allowed, infinite for a NaN."""

    worst: float
    where: tuple[int, ...]
    got: float
    expected: float
    what: str = "error"

    @property
    def right(self) -> bool:
        return self.worst <= 1

    def __str__(self) -> str:
        return (
            f"the {self.what} is {self.worst:.3g} times what is allowed, the largest at {self.where}: "
            f"{self.got!r}, float64 has {self.expected!r}"
        )


def verdict_of(shares: Array, got: Array, exact: Array, what: str = "error") -> Verdict:
    """The worst of the elements, whose errors are these shares of what is allowed."""
    if shares.size == 0:
        return Verdict(0.0, (), 0.0, 0.0, what)
    where = np.unravel_index(int(np.argmax(shares)), shares.shape)
    at = tuple(map(int, where))
    return Verdict(float(shares[where]), at, float(got[where]), float(exact[where]), what)


class Check(Protocol):
    """One call."""

    kind: ClassVar[str]  # names it in files

    @property
    def where(self) -> str:
        """Where it was made: "cpu" or a device, as "cuda:0"."""

    @property
    def arrays(self) -> Mapping[str, Array]:
        """What it was given, on the host."""

    @property
    def title(self) -> str:
        """The problem in words."""

    def judge(self, results: Results) -> Verdict:
        """Compare results with those of `fastconv.reference`."""

    def again(self) -> Results:
        """Make the call once more, where it was made, with the options that it had."""

    def about(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""

    def lines(self) -> list[str]:
        """What else a reader of the file is told."""


def judged(check: Check, results: Results) -> Verdict:
    """The verdict, whatever is infinite or NaN on the way."""
    with np.errstate(all="ignore"):
        return check.judge(results)


def place_of(array: Any) -> str:
    """Where an array is."""
    return f"cuda:{int(array.device.id)}" if kind_of(array) == "cupy" else "cpu"


def host(array: Any) -> Array:
    """It, or a copy of an array of a device, once that has what was asked of it."""
    moved: Array = importlib.import_module("cupy").asnumpy(array) if kind_of(array) == "cupy" else array
    return moved


def native_at(where: str) -> ModuleType:
    return _core if where == "cpu" else importlib.import_module("fastconv.device")


def there(arrays: Mapping[str, Array], where: str) -> dict[str, Any]:
    """The arrays in the memory of the place that a call is made at."""
    if where == "cpu":
        return dict(arrays)
    device = native_at(where)
    return {name: device.moved(a, where) for name, a in arrays.items()}


def present(**arrays: Any) -> dict[str, Array]:
    """Those that are not None, on the host."""
    return {name: host(a) for name, a in arrays.items() if a is not None}


def words_of(options: Options) -> dict[str, Any]:
    """Options as plain data, without their tuning."""
    return {name: getattr(options, name) for name in _OPTIONS}
