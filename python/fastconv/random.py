# SPDX-License-Identifier: Apache-2.0
"""The one seeded NumPy generator behind initialisers, dropout, shuffling and augmentation."""

from typing import Any

import numpy as np

_generator = np.random.default_rng(0)


def manual_seed(seed: int) -> np.random.Generator:
    """Seed everything random in fastconv; returns the generator. The seed at import is 0."""
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator() -> np.random.Generator:
    """The generator. Ask each time: `manual_seed` replaces it."""
    return _generator


def get_state() -> dict[str, Any]:
    """The generator's state as plain numbers and strings, for a checkpoint."""
    return dict(_generator.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Continue from a state that `get_state` gave.

    Raises:
        ValueError: the state belongs to another kind of generator.
    """
    kind = state.get("bit_generator")
    if kind != type(_generator.bit_generator).__name__:
        raise ValueError(f"set_state: the state is of a {kind!r} generator; expected one from fastconv.random.get_state")
    _generator.bit_generator.state = state
