# SPDX-License-Identifier: Apache-2.0
"""The one seeded NumPy generator behind initialisers, dropout, shuffling and augmentation."""

from typing import Any

import numpy as np

_generator: "np.random.Generator | None" = None  # made at first use: numpy.random is slow to import


def manual_seed(seed: int) -> "np.random.Generator":
    """Seed everything random in fastconv; returns the generator. Without a call the seed is 0."""
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator() -> "np.random.Generator":
    """The generator. Ask each time: `manual_seed` replaces it."""
    return manual_seed(0) if _generator is None else _generator


def get_state() -> dict[str, Any]:
    """The generator's state as plain numbers and strings, for a checkpoint."""
    return dict(generator().bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Continue from a state that `get_state` gave.

    Raises:
        ValueError: the state belongs to another kind of generator.
    """
    bits = generator().bit_generator
    kind = state.get("bit_generator")
    if kind != type(bits).__name__:
        raise ValueError(
            f"set_state: the state is of a {kind!r} generator; expected one from fastconv.random.get_state"
        )
    bits.state = state
