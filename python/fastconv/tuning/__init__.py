# SPDX-License-Identifier: Apache-2.0
"""Tuning files: measured once, in effect only where they are loaded, small, text, mergeable.

tuning = fc.tune(problems, budget_s=30, file="machine.tuning")
fc.set_options(tuning=tuning)
"""

from .difference import Change, Difference, diff
from .table import Entry, Section, Tuning, load, merge


def save(tuning: Tuning, path: str) -> None:
    """Write a tuning file, whole or not at all: `tuning.save(path)`."""
    tuning.save(path)


__all__ = ["Change", "Difference", "Entry", "Section", "Tuning", "diff", "load", "merge", "save"]
