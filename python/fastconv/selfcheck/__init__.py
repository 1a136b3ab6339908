# SPDX-License-Identifier: Apache-2.0
"""Sampled self-check: with FASTCONV_CHECK=1/N in the environment one call in N is computed again by NumPy.

Off by default, and then not even imported. When on, the native convolutions, plans and poolings of `fastconv._core` and
`fastconv.device` are replaced by others (convolutions.py, pools.py, positions.py), which compare every Nth result with
`fastconv.reference` in float64, within the bound of docs/numerics.md; those of a device are copied to the host for it.
A result that is not within the bound raises a CheckWarning and is saved, with all that made it, to a file in
FASTCONV_CHECK_DIR (else the current folder); `python -m fastconv check FILE` computes it again.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from .. import _core
from . import convolutions, pools, positions
from .calls import Check, Verdict
from .files import MOST_FILES, check_file, load
from .sampling import CheckWarning, Sampler, every_of

__all__ = ["MOST_FILES", "Check", "CheckWarning", "Sampler", "Verdict", "check_file", "every_of", "install", "load",
           "replacements"]  # fmt: skip


def replacements(sampler: Sampler) -> list[tuple[ModuleType, str, Any]]:
    """The sampled functions, with the module and the name of the native one that each takes the place of."""
    from .. import device

    return [
        (native, name, function)
        for native in (_core, device)
        for part in (convolutions, pools, positions)
        for name, function in part.sampled(native, sampler).items()
    ]


def install(every: int, folder: Path) -> Sampler:
    """Put the sampled functions in place, for the rest of the process."""
    sampler = Sampler(every, folder)
    for native, name, function in replacements(sampler):
        setattr(native, name, function)
    return sampler
