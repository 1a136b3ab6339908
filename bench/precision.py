# SPDX-License-Identifier: Apache-2.0
"""The measured error of every algorithm against float64, written to docs/precision.md: `python -m bench.precision`.

Problems are those of bench/draws.py without activations: drawn until each algorithm has computed --count of them in
float32, and a tenth of that in the other dtypes. Results are compared element by element with NumPy's in float64 (of
float64: in long double).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from bench import draws
from bench.promises import options, usable
from bench.repository import ROOT
from fastconv import ConvProblem, _core

PAGE = ROOT / "docs" / "precision.md"
PLAIN = "im2col_gemm"  # the plain sum that the others are compared with
# Errors in units in the last place: bins of a 16th of a power of two, from 2^-12 to 2^52; smaller ones are the first.
BINS_PER_OCTAVE, FEWEST, MOST = 16, -12, 52
QUANTILES = (0.5, 0.9, 0.99, 0.999)
SHOWN = 500
DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}
DIGITS = {"f32": 23, "f64": 52, "f16": 10, "bf16": 7}  # of the mantissa
LEAST = {"f32": -149, "f64": -1074, "f16": -24, "bf16": -133}  # exponent of the smallest number


class Errors:
    """Of one algorithm in one dtype."""

    def __init__(self, row: dict) -> None:
        self.factor = row["error_factor"]
        self.problems = self.elements = self.counted = 0  # counted: results that are not 0
        self.share = 0.0  # largest error over the bound
        self.largest = 0.0  # largest error over eps * the largest result of its problem
        self.squares = self.results = 0.0
        self.ratios: list[float] = []  # of root mean square errors to those of PLAIN
        self.ulps = np.zeros((MOST - FEWEST) * BINS_PER_OCTAVE + 1, np.int64)
        self.most_ulps = 0.0

    def add(self, error: np.ndarray, exact: np.ndarray, allowed: np.ndarray, plain: float, dtype: str) -> None:
        eps = 2.0 ** -DIGITS[dtype]
        size = np.abs(exact)
        self.problems += 1
        self.elements += error.size
        self.share = max(self.share, float((error / allowed).max()))
        top = float(size.max())
        if top > 0:
            scaled = error / (eps * top)
            self.largest = max(self.largest, float(scaled.max()))
            # Each problem counts by what its results are: relative to its own root mean square.
            mean = float(np.mean(size * size))
            self.squares += float(np.mean(error * error)) / (eps * eps * mean) * error.size
            self.results += error.size
        own = float(np.sqrt(np.mean(error * error)))
        if plain > 0:
            self.ratios.append(own / plain)
        exponent = np.maximum(np.floor(np.log2(np.maximum(size, 1e-300))) - DIGITS[dtype], LEAST[dtype])
        # A result of no terms is 0 and has no last place; a transform may leave a rounding error there.
        ulps = (error / np.exp2(exponent)).astype(np.float64)[size > 0]
        if not ulps.size:
            return
        self.counted += ulps.size
        self.most_ulps = max(self.most_ulps, float(ulps.max()))
        places = (np.log2(np.maximum(ulps, 2.0**FEWEST)) - FEWEST) * BINS_PER_OCTAVE
        bins = np.minimum(places.astype(int), self.ulps.size - 1).ravel()
        self.ulps += np.bincount(bins, minlength=self.ulps.size)

    def quantile(self, q: float) -> float:
        """The upper end of the bin that holds it: 4 % too large at most."""
        place = int(np.searchsorted(np.cumsum(self.ulps), q * self.counted))
        return 2.0 ** (FEWEST + (place + 1) / BINS_PER_OCTAVE) if place else 0.0


def plain_text(p: ConvProblem) -> ConvProblem:
    """Without its activation, whose error is its own."""
    words = [word for word in str(p).split() if word not in draws.ACTIVATIONS]
    return ConvProblem.parse(" ".join(words))


def measure(dtype: str, count: int, seed: int, isa: str, end: float) -> tuple[dict[str, Errors], int]:
    """Errors by algorithm, and how many problems were drawn."""
    errors: dict[str, Errors] = {}
    index = 0
    # Every algorithm that has this dtype at all shows itself within so many problems.
    while time.monotonic() < end and (index < SHOWN or any(e.problems < count for e in errors.values())):
        p = plain_text(draws.draw(seed, index, dtypes=(dtype,)))
        index += 1
        if p.n == 0:
            continue
        rows = [row for row in usable(p, isa) if row["name"] not in errors or errors[row["name"]].problems < count]
        if not rows:
            continue
        call = draws.numbers(p, seed, index)
        exact, magnitude = call.exact(), call.magnitude()

        def error_of(name: str, call=call, exact=exact) -> np.ndarray:
            return np.abs(call.run(options(name, isa)).astype(exact.dtype) - exact)

        plain = float(np.sqrt(np.mean(error_of(PLAIN) ** 2)))
        for row in rows:
            allowed = call.allowed(exact, magnitude, row["error_factor"])
            errors.setdefault(row["name"], Errors(row)).add(error_of(row["name"]), exact, allowed, plain, dtype)
    return {name: errors[name] for name in sorted(errors, key=lambda name: (errors[name].factor, name))}, index


def number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 10**6 else f"{value:.3g}"


def table(errors: dict[str, Errors]) -> list[str]:
    head = [
        "algorithm",
        "`error_factor`",
        "problems",
        "results",
        "worst / bound",
        "max",
        "rms",
        "rms / plain: median, 99 %",
    ]
    head += [*(f"{100 * q:g} %" for q in QUANTILES), "most"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, e in errors.items():
        middle, high = np.quantile(e.ratios or [0.0], (0.5, 0.99))
        cells = [
            f"`{name}`",
            f"{e.factor:g}",
            f"{e.problems:,}",
            f"{e.elements:,}",
            f"{e.share:.2f}",
            number(e.largest),
        ]
        cells += [number(float(np.sqrt(e.squares / max(e.results, 1)))), f"{middle:.2f}, {high:.2f}"]
        cells += [*(number(e.quantile(q)) for q in QUANTILES), number(e.most_ulps)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


TEXT = """# Precision, measured

The error of every algorithm against float64 (of float64: against long double) over random problems, beside the
`error_factor` that it publishes and that `precision=` compares: "strict" 1, "default" 8, "fast" 32. What the factor
promises, and the errors of Winograd's transforms on the shapes of layers, are in [numerics.md](numerics.md).

Written by `python -m bench.precision`, fastconv {version}, instruction set `{isa}`, seed {seed}; with --isa it measures
another. The problems (`bench/draws.py`) have one to three axes, all passes, layouts and padding modes, strides,
dilations, groups, and some thousand to 60,000 multiply-adds; inputs are normal. An algorithm computes those that it
does not refuse, until it has {count:,} in float32 and {few:,} in the others{short}.

- **worst / bound**: the largest error of any result over what is allowed of it,
  `error_factor * eps * sqrt(terms) * sum(|x| * |w|)` (with a transform: the largest such sum of the call, and at
  least as many terms as the filter has taps; halves: rounded once more). 1 would be as bad as is promised.
- **max**: the largest error over eps times the largest result of its call; **rms**: root mean square errors over eps
  times root mean square results.
- **rms / plain**: over that of `{plain}` on the same call; median and 99th percentile of the calls. A median of 1 is
  another order of the same sum; above 1 is what a transform costs.
- **units in the last place**: of each result's own, quantiles over all results (rounded up, 4 % at most), and the most.
  A result in which large terms cancel has lost digits in any algorithm; the last columns are such results. Results of
  no terms, exact zeros, are left out here; a transform may leave a rounding error there.
"""


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__.splitlines()[0])
    p.add_argument("--count", type=int, default=10_000, help="problems per algorithm in float32 (default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of problems and numbers (default %(default)s)")
    p.add_argument("--isa", default="", help="instruction set (default: the best)")
    p.add_argument(
        "--seconds", type=float, default=1800, metavar="S", help="of each dtype at most (default %(default)s)"
    )
    p.add_argument("--out", type=Path, default=PAGE, help="where to write the page (default: docs/precision.md)")
    a = p.parse_args(arguments)
    isa = a.isa or _core.info()["isas"][0]
    few = max(1, a.count // 10)
    lines, short = [], ""
    for dtype, title in DTYPES.items():
        count = a.count if dtype == "f32" else few
        started = time.monotonic()
        errors, drawn = measure(dtype, count, a.seed, isa, started + a.seconds)
        print(f"{title}: {drawn:,} problems drawn, {time.monotonic() - started:.0f} s", flush=True)
        if any(e.problems < count for e in errors.values()):
            short = "; where the column says fewer, time ran out"
        lines += ["", f"## {title}", "", *table(errors)]
    text = TEXT.format(
        version=_core.info()["version"], isa=isa, seed=a.seed, count=a.count, few=few, short=short, plain=PLAIN
    )
    a.out.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
