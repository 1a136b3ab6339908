# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one: write its file, and one line in `_BUILDERS`."""

import builtins
from collections.abc import Callable
from typing import Any

from fastconv import nn

from .lenet import lenet5

__all__ = ["build", "lenet5", "list"]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet5,
}


def list() -> builtins.list[str]:
    """The names that `build` knows, in alphabetical order."""
    return sorted(_BUILDERS)


def build(name: str, **options: Any) -> nn.Module:
    """Make the network `name` with fresh weights; `options` go to its function, e.g. `num_classes=10`.

    Raises:
        ValueError: no network has that name; the message lists those that exist.

    >>> model = fc.models.build("lenet5", num_classes=26)
    """
    if name not in _BUILDERS:
        raise ValueError(f"models.build: no network is called {name!r}; expected one of {', '.join(list())}")
    return _BUILDERS[name](**options)
