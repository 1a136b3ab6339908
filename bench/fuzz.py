# SPDX-License-Identifier: Apache-2.0
"""Random problems against float64, and against what is promised of their bits: `python -m bench.fuzz --seconds 600`.

Problem number I of a seed (bench/draws.py) is run by every algorithm that does not refuse it, on every instruction set,
into an output full of NaN between guards: the error of each element must stay within the algorithm's bound, guards and
inputs must stay as they were. One of the promises of bench/promises.py, another for each run in turn, is asked besides;
and the automatic choice under random options must be the algorithm that it says. What fails is printed with the command
that repeats it. The next number to go on with is the last line; --first takes it.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from dataclasses import dataclass

import numpy as np

from bench import draws
from bench.promises import PROMISES, THREADS, options, same_bits, usable
from fastconv import ConvProblem, WorkspaceError, _core
from fastconv.bench import report
from fastconv.verify import Call

HALVES = ("f16", "bf16")
GUARD, GUARD_BYTE = 4096, 0xA5  # bytes before and after each output
CHOICES = 2  # automatic choices asked of each problem and instruction set


@dataclass
class Tally:
    """Of one algorithm. In float32 and float64, worst: the largest error, as a share of what is allowed; of_sums: of
    eps * error_factor * the sum of absolute values."""

    runs: int = 0
    worst: float = 0.0
    of_sums: float = 0.0
    where: str = ""


class Fuzz:
    def __init__(self, seed: int, isas: list[str]) -> None:
        self.seed, self.isas = seed, isas
        self.tallies: dict[str, Tally] = collections.defaultdict(Tally)
        self.asked: collections.Counter[str] = collections.Counter()
        self.problems = self.failures = 0

    @property
    def runs(self) -> int:
        return sum(tally.runs for tally in self.tallies.values())

    def problem(self, index: int) -> None:
        p = draws.draw(self.seed, index)
        self.problems += 1
        call = draws.numbers(p, self.seed, index, scaled=True)
        exact, magnitude = call.exact(), call.magnitude()
        before = {name: a.copy() for name, a in call.arrays.items()}
        rng = random.Random(f"options {self.seed} {index}")
        promises = list(PROMISES)
        rng.shuffle(promises)
        for isa in self.isas:
            results = {}
            for number, row in enumerate(usable(p, isa)):
                got = self._accurate(call, exact, magnitude, row, isa, index, rng.choice(THREADS))
                results[row["name"]] = got
                promise = promises[number % len(promises)]
                broken = PROMISES[promise](call, row["name"], isa, got)
                self.asked[promise] += 1
                if broken:
                    self._fail(index, p, f"{row['name']} on {isa}: {broken}")
            for _ in range(CHOICES):
                self._choice(call, results, isa, index, rng)
        for name, a in before.items():
            if not same_bits(a, call.arrays[name]):
                self._fail(index, p, f"{name} was changed")

    def _accurate(self, call: Call, exact: np.ndarray, magnitude: np.ndarray, row: dict, isa: str, index: int,
                  threads: int) -> np.ndarray:  # fmt: skip
        name, p = row["name"], call.problem
        room, out = _guarded(call.result_shape, call.arrays["w"].dtype)
        call.run(options(name, isa, threads), out)
        if not (room[:GUARD] == GUARD_BYTE).all() or not (room[-GUARD:] == GUARD_BYTE).all():
            self._fail(index, p, f"{name} on {isa}, {threads} threads: wrote outside of its result")
        shares = call.shares(out, exact, magnitude, row["error_factor"])
        worst = float(np.max(shares, initial=0.0))
        tally = self.tallies[name]
        tally.runs += 1
        if worst > 1:
            self._fail(index, p, f"{name} on {isa}, {threads} threads: error is {worst:.3g} times what is allowed")
        elif p.dtype in HALVES:
            pass  # its rounding alone is near the bound
        elif worst > tally.worst:
            tally.worst, tally.where = worst, f"{isa}: {p}"
        if p.dtype not in HALVES and p.activation == "none" and worst <= 1:
            eps, factor = np.finfo(out.dtype).eps, max(row["error_factor"], 1.0)
            scale = magnitude if factor <= 1 else np.full_like(magnitude, call.largest_sum)
            ratio = np.abs(out.astype(exact.dtype) - exact) / (
                eps * factor * np.maximum(scale, np.finfo(out.dtype).tiny / eps)
            )
            tally.of_sums = max(tally.of_sums, float(np.max(ratio, initial=0.0)))
        return out

    def _choice(self, call: Call, results: dict[str, np.ndarray], isa: str, index: int, rng: random.Random) -> None:
        """The automatic choice under random options is what `choose` says, and within them."""
        p = call.problem
        precision, workspace = rng.choice((1.0, 2.5, 8.0, 32.0)), rng.choice((-1, -1, 0, rng.randint(0, 20_000)))
        o = _core.Options(None, precision, workspace, rng.choice(THREADS), rng.random() < 0.5, isa)
        self.asked["choice"] += 1
        try:
            name, got = _core.choose(p, o), call.run(o)
        except WorkspaceError as error:
            if p.dtype in HALVES:
                return  # their float32 copies are workspace, which every algorithm needs
            self._fail(index, p, f"no algorithm within max_workspace={workspace} on {isa}: {error}")
            return
        row = next(row for row in _core.algorithms(p, o) if row["name"] == name)
        within = row["error_factor"] <= precision and (workspace < 0 or row["workspace_bytes"] <= workspace)
        if not within:
            self._fail(index, p, f"{name} on {isa} is beyond precision={precision}, max_workspace={workspace}")
        if name not in results or not same_bits(got, results[name]):
            self._fail(index, p, f"the choice on {isa} is not what {name} gives")

    def _fail(self, index: int, p: ConvProblem, what: str) -> None:
        self.failures += 1
        print(
            f"FAILED {what}\n    {p}\n    python -m bench.fuzz --seed {self.seed} --first {index} --count 1", flush=True
        )

    def print(self) -> None:
        header = ["algorithm", "runs", "largest error / bound", "/ (eps * error_factor * sum)", "where"]
        names = [row["name"] for row in _core.algorithms(ConvProblem.parse("fwd n1 c1 w1 k1 s1"), _core.Options())]
        body = []
        for name in names:
            t = self.tallies[name]
            body.append([name, f"{t.runs:,}", f"{t.worst:.3f}", f"{t.of_sums:.3f}", t.where])
        report.print_table("", header, body)
        promises = ", ".join(f"{name} {count:,}" for name, count in sorted(self.asked.items()))
        print(f"asked besides: {promises}")
        print(f"seed {self.seed}: {self.problems:,} problems, {self.runs:,} runs, {self.failures} failures")


def _guarded(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """An output full of NaN inside of bytes that nobody may write, and all of these bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.full(size + 2 * GUARD, GUARD_BYTE, np.uint8)
    out = room[GUARD : GUARD + size].view(dtype).reshape(shape)
    out[...] = np.nan
    return room, out


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=0, help="of problems, numbers and options (default %(default)s)")
    p.add_argument("--first", type=int, default=0, metavar="I", help="problem to begin with (default %(default)s)")
    p.add_argument("--count", type=int, default=0, metavar="N", help="problems (default: as many as time allows)")
    p.add_argument("--seconds", type=float, default=60, metavar="S", help="stop after so long (default %(default)s)")
    p.add_argument("--isa", default="", help="one instruction set (default: all that this processor has)")
    p.add_argument("--failures", type=int, default=20, metavar="N", help="stop after so many (default %(default)s)")
    a = p.parse_args(arguments)
    fuzz = Fuzz(a.seed, [a.isa] if a.isa else list(_core.info()["isas"]))
    index, end = a.first, time.monotonic() + a.seconds
    while (not a.count or index < a.first + a.count) and time.monotonic() < end and fuzz.failures < a.failures:
        fuzz.problem(index)
        index += 1
    fuzz.print()
    print(f"next: --seed {a.seed} --first {index}")
    return 1 if fuzz.failures else 0


if __name__ == "__main__":
    sys.exit(main())
