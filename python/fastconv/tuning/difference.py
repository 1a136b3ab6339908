# SPDX-License-Identifier: Apache-2.0
"""What changed between two tunings of one machine, say before and after an upgrade."""

from __future__ import annotations

import dataclasses
import os

from ..trace import align
from .table import Entry, Section, Tuning, as_tuning

NOTABLE = 1.10  # a ratio of times below that is noise


@dataclasses.dataclass(frozen=True)
class Change:
    """One class of shapes.

    Attributes:
        section: of the new tuning, or of the old one where it alone has the class.
        old, new: the entries; None where there is none.
        speedup: old seconds over new seconds of what each chooses; None where one is missing.
    """

    section: Section
    old: Entry | None
    new: Entry | None
    speedup: float | None

    @property
    def what(self) -> str:
        """ "algorithm", "slower", "faster", "same", "only old" or "only new"; a changed algorithm goes first."""
        if self.old is None or self.new is None or self.speedup is None:
            return "only new" if self.old is None else "only old"
        if self.old.algorithm != self.new.algorithm:
            return "algorithm"
        return "slower" if self.speedup < 1 / NOTABLE else "faster" if self.speedup > NOTABLE else "same"


@dataclasses.dataclass(frozen=True)
class Difference:
    """All classes of two tunings. Print it for those that changed."""

    changes: tuple[Change, ...]

    def of(self, what: str) -> list[Change]:
        """The changes of one kind (`Change.what`)."""
        return [change for change in self.changes if change.what == what]

    def __str__(self) -> str:
        rows = [["", "class of shapes", "old", "new", "old ms", "new ms", "old/new"]]
        for change in self.changes:
            if change.what == "same":
                continue
            entry = change.new or change.old
            assert entry is not None
            cells = [
                (e.algorithm, f"{1e3 * e.seconds[e.algorithm]:.3f}") if e else ("-", "-")
                for e in (change.old, change.new)
            ]
            ratio = "-" if change.speedup is None else f"{change.speedup:.2f}"
            rows.append(
                [
                    change.what,
                    f"{entry.kind} {entry.shape_class}",
                    cells[0][0],
                    cells[1][0],
                    cells[0][1],
                    cells[1][1],
                    ratio,
                ]
            )
        counts = [f"{len(self.of(what))} {words}" for what, words in _WORDS.items() if self.of(what)]
        head = ", ".join(counts) or "nothing in common"
        return head if len(rows) == 1 else head + "\n\n" + align(rows, right=(4, 5, 6))


_WORDS = {
    "algorithm": "changed algorithm",
    "slower": "slower by a tenth or more",
    "faster": "faster by a tenth or more",
    "same": "the same",
    "only old": "in the old one only",
    "only new": "in the new one only",
}


def diff(old: Tuning | str | os.PathLike[str], new: Tuning | str | os.PathLike[str]) -> Difference:
    """Compare two tunings (or files) class by class; versions of fastconv may differ, machine, instruction set and
    threads are compared like with like."""
    before, after = (_by_place(as_tuning(tuning)) for tuning in (old, new))
    changes = []
    for key in {**before, **after}:
        a, b = before.get(key), after.get(key)
        speedup = a[1].seconds[a[1].algorithm] / b[1].seconds[b[1].algorithm] if a and b else None
        held = b or a
        assert held is not None
        changes.append(Change(held[0], a[1] if a else None, b[1] if b else None, speedup))
    order = list(_WORDS)
    changes.sort(key=lambda change: (order.index(change.what), change.speedup or 0.0))
    return Difference(tuple(changes))


def _by_place(tuning: Tuning) -> dict[tuple[str, str, int, str, str], tuple[Section, Entry]]:
    return {
        (section.machine, section.isa, section.threads, entry.kind, entry.shape_class): (section, entry)
        for section, entry in tuning  # sections are in order: of several versions the newest stays
    }
