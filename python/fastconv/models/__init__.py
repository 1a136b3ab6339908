# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one: write its function in the file of its family, and one line in `_ENTRIES`."""

import builtins
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import nn
from .cards import Card, card
from .efficientnet_lite import efficientnet_lite0
from .lenet import lenet5
from .squeezenet import squeezenet1_1

__all__ = [
    "Card",
    "build",
    "card",
    "efficientnet_lite0",
    "input_shape",
    "input_size",
    "lenet5",
    "list",
    "source",
    "squeezenet1_1",
]


class _Entry(NamedTuple):
    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]  # (channels, height, width) that it was made for
    source: str  # who described it, and when


_ENTRIES: dict[str, _Entry] = {
    "efficientnet_lite0": _Entry(efficientnet_lite0, (3, 224, 224), "Tan and Le 2019"),
    "lenet5": _Entry(lenet5, (1, 32, 32), "LeCun et al. 1998"),
    "squeezenet1_1": _Entry(squeezenet1_1, (3, 224, 224), "Iandola et al. 2016"),
}


def list(*options: str) -> builtins.list[str]:
    """The names that `build` knows, in alphabetical order; of those only whose functions take all of `options`.

    >>> classifiers = fc.models.list("num_classes")
    """
    names = sorted(_ENTRIES)
    return [name for name in names if {*options} <= inspect.signature(_ENTRIES[name].build).parameters.keys()]


def build(name: str, **options: Any) -> nn.Module:
    """Make the network `name` with fresh weights; `options` go to its function, e.g. `num_classes=10`.

    Raises:
        ValueError: no network has that name; the message lists those that exist.

    >>> model = fc.models.build("lenet5", num_classes=26)
    """
    return _entry("build", name).build(**options)


def input_shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the images that the network `name` was made for; many also take larger ones.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("input_shape", name).input_shape


def input_size(name: str) -> int:
    """The side, in pixels, of the square images that the network `name` was made for.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("input_size", name).input_shape[1]


def source(name: str) -> str:
    """Who described the network `name`, and when; its function's docstring has the title and the section.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("source", name).source


def _entry(function: str, name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"models.{function}: no network is called {name!r}; expected one of {', '.join(list())}")
    return _ENTRIES[name]
