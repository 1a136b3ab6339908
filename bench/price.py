# SPDX-License-Identifier: Apache-2.0
"""What the promises of docs/reproducibility.md cost in time, written into that page: `python -m bench.price`.

Layers of fastconv's own list, in three passes: the automatic choice with a promise asked for and without, measured in
turns, the fastest of some rounds. What differs is the algorithm that is chosen; a kernel has one order of sums and no
faster way without it.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from bench import draws
from bench.isa_bits import PAGE, replace_between
from fastconv import ConvProblem, _core
from fastconv.bench import problems as lists
from fastconv.verify import PASSES

MARK = "bench.price"
ASKED = {
    "`batch_invariant=True`": ({}, {"batch_invariant": True}),
    '`precision="strict"`': ({}, {"precision": 1.0}),
}


def layers(count: int, batch: int) -> list[ConvProblem]:
    """Every so many-th line of layers.txt, with `batch` images, in the three passes in turn."""
    lines = (line.split("#")[0].strip() for line in lists.LAYERS.read_text(encoding="utf-8").splitlines())
    texts = [line for line in lines if line]
    chosen = texts[:: max(1, len(texts) // count)][:count]
    return [ConvProblem.parse(t).with_n(batch).with_pass(PASSES[i % 3]) for i, t in enumerate(chosen)]


def ratio(p: ConvProblem, without: dict, asked: dict, rounds: int, seconds: float) -> tuple[float, bool]:
    """Time with what is asked over time without, and whether another algorithm is chosen."""
    call = draws.numbers(p, 0, 0)
    both = [_core.Options(threads=1, **words) for words in (without, asked)]
    if _core.choose(p, both[0]) == _core.choose(p, both[1]):
        return 1.0, False
    best = [float("inf")] * 2
    for _ in range(rounds):
        for i, o in enumerate(both):
            end = time.perf_counter() + seconds
            while True:
                started = time.perf_counter()
                call.run(o)
                now = time.perf_counter()
                best[i] = min(best[i], now - started)
                if now > end:
                    break
    return best[1] / best[0], True


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.price", description=__doc__.splitlines()[0])
    p.add_argument("--layers", type=int, default=30, help="how many (default %(default)s)")
    p.add_argument("--batch", type=int, default=8, help="images of each (default %(default)s)")
    p.add_argument("--rounds", type=int, default=3, help="turns of both sides (default %(default)s)")
    p.add_argument("--seconds", type=float, default=0.05, help="of each turn at least (default %(default)s)")
    p.add_argument("--print", action="store_true", help="print instead of writing the page")
    a = p.parse_args(arguments)
    chosen = layers(a.layers, a.batch)
    lines = [f"By `python -m bench.price`: {len(chosen)} layers of {a.batch} images, the passes in turn, float32, one"]
    lines += [f"thread, instruction set `{_core.info()['isa']}`. Times with what is asked over times without.", ""]
    lines += ["| asked for | another algorithm | geometric mean | largest |", "|---|---|---|---|"]
    for name, (without, asked) in ASKED.items():
        found = [ratio(problem, without, asked, a.rounds, a.seconds) for problem in chosen]
        values = np.array([value for value, _ in found])
        changed = sum(other for _, other in found)
        mean, most = np.exp(np.log(values).mean()), values.max()
        lines.append(f"| {name} | {changed} of {len(found)} | {mean:.2f} | {most:.2f} |")
        print(lines[-1], flush=True)
    if not a.print:
        replace_between(PAGE, MARK, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
