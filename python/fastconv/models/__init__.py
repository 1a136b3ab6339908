# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one: write its file, and one line in `_ENTRIES`."""

import builtins
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import nn
from .lenet import lenet5

__all__ = ["build", "input_size", "lenet5", "list"]


class _Entry(NamedTuple):
    build: Callable[..., nn.Module]
    input_size: int


_ENTRIES: dict[str, _Entry] = {
    "lenet5": _Entry(lenet5, input_size=32),
}


def list() -> builtins.list[str]:
    """The names that `build` knows, in alphabetical order."""
    return sorted(_ENTRIES)


def build(name: str, **options: Any) -> nn.Module:
    """Make the network `name` with fresh weights; `options` go to its function, e.g. `num_classes=10`.

    Raises:
        ValueError: no network has that name; the message lists those that exist.

    >>> model = fc.models.build("lenet5", num_classes=26)
    """
    return _entry("build", name).build(**options)


def input_size(name: str) -> int:
    """The side, in pixels, of the square images that the network `name` takes.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("input_size", name).input_size


def _entry(function: str, name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"models.{function}: no network is called {name!r}; expected one of {', '.join(list())}")
    return _ENTRIES[name]
