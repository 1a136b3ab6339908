# SPDX-License-Identifier: Apache-2.0
"""Which algorithms give the same bits on all instruction sets, and in both layouts: `python -m bench.isa_bits`.

Counts the random problems of bench/draws.py whose results are equal to the last bit, and writes the table into
docs/reproducibility.md. Nothing is promised here: a share of 100 % is an observation.
"""

from __future__ import annotations

import argparse
import collections
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench import draws
from bench.promises import options, other_layout, same_bits, usable
from bench.repository import ROOT
from fastconv import _core
from fastconv.verify import PASSES

PAGE = ROOT / "docs" / "reproducibility.md"
MARK = "bench.isa_bits"
LAYOUT = "both layouts"
Counts = dict[tuple[str, str], dict[str, list[int]]]  # (algorithm, pass) -> column -> [equal, compared]


def columns(isas: list[str]) -> list[str]:
    return [f"{a} = {b}" for a, b in pairwise(isas)] + [LAYOUT]


def measure(isas: list[str], count: int, seed: int, dtypes: tuple[str, ...]) -> Counts:
    counts: Counts = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))
    for index in range(count):
        p = draws.draw(seed, index, dtypes=dtypes)
        if p.n == 0:
            continue
        call = draws.numbers(p, seed, index)
        other = other_layout(call)
        for name in [row["name"] for row in usable(p, isas[0])]:
            results = [call.run(options(name, isa)) for isa in isas]
            equal = [same_bits(a, b) for a, b in pairwise(results)]
            found = dict(zip(columns(isas), equal, strict=False))  # the last column may have to be left out
            if any(row["name"] == name for row in usable(other.problem, isas[0])):
                theirs = other.run(options(name, isas[0]))
                if p.pass_ != "bwd_filter":
                    theirs = np.moveaxis(theirs, *((-1, 1) if p.layout == "nchw" else (1, -1)))
                found[LAYOUT] = same_bits(results[0], theirs)
            for column, same in found.items():
                cell = counts[name, p.pass_][column]
                cell[0] += same
                cell[1] += 1
    return counts


def table(counts: Counts, isas: list[str]) -> list[str]:
    def share(cell: list[int]) -> str:
        if not cell[1]:
            return "-"
        # 100 % is all of them and not nearly all.
        return "100" if cell[0] == cell[1] else f"{min(99.9, 100 * cell[0] / cell[1]):.3g}"

    names = list(dict.fromkeys(name for name, _ in counts))
    names.sort(key=_core.info()["algorithms"].index)
    head = ["algorithm", *columns(isas)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in names:
        cells = [" / ".join(share(counts[name, pass_][column]) for pass_ in PASSES) for column in columns(isas)]
        lines.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
    return lines


def replace_between(path: Path, mark: str, lines: list[str]) -> None:
    """Put lines between the comments `<!-- MARK -->` and `<!-- end of MARK -->` of a page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    path.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1], encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.isa_bits", description=__doc__.splitlines()[0])
    p.add_argument("--count", type=int, default=5000, help="problems drawn of each dtype (default %(default)s)")
    p.add_argument("--seed", type=int, default=2, help="of problems and numbers (default %(default)s)")
    p.add_argument("--print", action="store_true", help="print instead of writing the page")
    a = p.parse_args(arguments)
    isas = list(reversed(_core.info()["isas"]))  # scalar first
    passes = ", ".join(PASSES)
    lines = [
        f"Per cent of the calls that have the same bits, of {passes}; by `python -m bench.isa_bits` over {a.count:,}"
    ]
    lines.append(f"problems of each dtype, seed {a.seed}.")
    for dtype, title in (("f32", "float32"), ("f64", "float64")):
        lines += ["", f"{title}:", "", *table(measure(isas, a.count, a.seed, (dtype,)), isas)]
    if a.print:
        print("\n".join(lines))
        return 0
    replace_between(PAGE, MARK, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
