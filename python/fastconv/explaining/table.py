# SPDX-License-Identifier: Apache-2.0
"""An Explanation as text: as many columns as the terminal has room for, the most wanted ones first."""

import shutil
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..trace import align
from . import words

if TYPE_CHECKING:
    from ..explain import Explanation

WIDTH = 120  # where there is no terminal


class Column(NamedTuple):
    """A column of the table; those of a higher `rank` give way first."""

    title: str
    rank: int
    cell: Callable[[dict[str, Any], int], str]  # of a row and the problem's multiply-adds


COLUMNS = (
    Column("algorithm", 0, lambda row, macs: row["name"]),
    Column("predicted", 0, lambda row, macs: words.seconds(row["predicted_s"])),
    Column("measured", 0, lambda row, macs: words.seconds(row["measured_s"])),
    Column("workspace", 1, lambda row, macs: words.size(row["workspace_bytes"])),
    Column("moved", 6, lambda row, macs: words.size(row["bytes_moved"])),
    Column("multiplied", 5, lambda row, macs: words.count(row["multiplications"])),
    Column("GFLOP/s", 4, lambda row, macs: words.speed(row, macs, row["measured_s"])),
    Column("roofline", 2, lambda row, macs: words.share(row["roofline_share"])),
    Column("max error", 2, lambda row, macs: words.small(row["max_error"])),
    Column("rms", 7, lambda row, macs: words.small(row["rms_error"])),
    Column("max ulp", 9, lambda row, macs: words.ulps(row["max_ulp"])),
    Column("mean ulp", 8, lambda row, macs: words.ulps(row["mean_ulp"])),
    Column("same bits over", 8, lambda row, macs: words.bits(row)),
)


def table(e: "Explanation", width: int | None = None) -> str:
    """See `Explanation.table`."""
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    width = max(60, width)  # names and times need as much
    wrap = _wrapper(width)
    parts = [*wrap(str(e.problem)), *(line for text in words.head(e) for line in wrap(text)), ""]
    if e.usable:
        parts += [_rows(e, width), "", *_details(e, wrap)]
    parts += [line for text in e.copies for line in wrap(text)]
    parts += [line for row in e.refused for line in wrap("not usable: " + words.refusal(row))]
    return "\n".join(parts)


def _wrapper(width: int) -> Callable[[str], list[str]]:
    return lambda text: textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False)


def _rows(e: "Explanation", width: int) -> str:
    """The fastest first; without the columns that hold nothing or have no room."""
    macs = e.problem.macs
    columns = [c for c in COLUMNS if any(c.cell(row, macs) != "-" for row in e.usable)]
    while True:
        cells = [["", *(c.title for c in columns)]]
        cells += [["*" if row["chosen"] else "", *(c.cell(row, macs) for c in columns)] for row in e.usable]
        numbers = tuple(i + 1 for i, c in enumerate(columns) if c.title not in ("algorithm", "same bits over"))
        text = align(cells, right=numbers)
        last = max(columns, key=lambda c: c.rank)
        if last.rank == 0 or max(map(len, text.splitlines())) <= width:
            return text
        columns.remove(last)


def _details(e: "Explanation", wrap: Callable[[str], list[str]]) -> list[str]:
    """Of the chosen one and its runner-up: where the time goes, what is converted. Of all: what was not measured."""
    lines = []
    for name in (e.chosen, e.runner_up):
        if name is None:
            continue
        row = e.row(name)
        kind = "measured" if row["phases"] else "predicted"
        lines += wrap(f"{name}, {kind}: {words.phases(row)}")
        if row["conversions"]:
            lines += wrap(f"{name} converts: " + "; ".join(part["what"] for part in row["conversions"]))
    missing: dict[str, list[str]] = {}
    for row in e.usable:
        if row["not_measured"]:
            missing.setdefault(row["not_measured"], []).append(row["name"])
    for sentence, names in missing.items():
        lines += wrap(f"{sentence}: {', '.join(names)}")
    return lines
