# SPDX-License-Identifier: Apache-2.0
"""Prices for the kinds of work that the estimates count: `python -m bench.fit FILE... --write`.

An estimate is a sum over kinds of work (csrc/estimate.h): counted from the problem, in seconds as the code guesses
them, times a factor of csrc/prices_*.h. From times that `bench.calibrate --out FILE` saved this finds the factors that
minimise

    fit      the distance of log(predicted) from log(measured), which tells what work costs, and
    regret   the expected cost of the choice: that of each algorithm over the best one, weighted by
             softmax(-log(predicted) / temperature), which tells what matters,

the second more and more, at falling temperatures; factors are drawn towards what they are now. With `--hold-out` every
fifth problem is left out and judged separately. `--write` renews the table of
the instruction set in use (FASTCONV_ISA); build again after it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastconv as fc
from bench import repository
from bench.calibrate import PACKED
from fastconv.bench import report

CALL = {"fwd": 4e-6, "one_shot": 9e-6, "bwd_data": 9e-6, "bwd_filter": 9e-6}  # seconds of a call besides its kernel
NEAR = 3.0  # algorithms this many times slower than the best need not be predicted as well
WORST = 3.0  # regrets beyond it count no more
STAGES = ((0.3, 20.0), (0.15, 5.0), (0.08, 2.0), (0.05, 1.0))  # (temperature, weight of the fit)
PULL = 0.02  # towards the present factors
LEAST, MOST = 0.006, 60.0  # of what a factor may change by

Key = tuple[str, str]  # algorithm, work


class Timed(NamedTuple):
    """One problem in one pass; the lists are by algorithm."""

    problem: str
    pass_: str
    names: list[str]
    seconds: np.ndarray
    work: list[dict[str, float]]


def load(paths: Sequence[Path]) -> list[Timed]:
    found = []
    for path in paths:
        result = report.load(path)
        if result.get("isa", fc.info()["isa"]) != fc.info()["isa"]:
            sys.exit(f"{path} is of {result['isa']}, this process of {fc.info()['isa']}: set FASTCONV_ISA")
        for row in result["rows"]:
            usable = {
                a["name"]: a for a in fc.algorithms(row["problem"]) if a["supported"] and a["name"] != "reference"
            }
            names = [name for name in row["timings"] if name in usable]
            if names:
                seconds = np.array([row["timings"][name][1] for name in names])
                work = [dict(usable[name]["estimated_work"]) for name in names]
                for kinds in work if row["pass"] == "fwd" else ():
                    kinds.pop(PACKED, None)
                found.append(Timed(row["problem"], row["pass"], names, seconds, work))
    return found


class Data:
    """All (problem, algorithm) pairs as one matrix of work."""

    def __init__(self, timed: list[Timed], keys: dict[Key, int]) -> None:
        sparse = needs_scipy()
        rows, columns, values, starts = [], [], [], []
        pair = 0
        for t in timed:
            starts.append(pair)
            for name, work in zip(t.names, t.work, strict=True):
                for kind, seconds in work.items():
                    rows.append(pair), columns.append(keys[name, kind]), values.append(seconds)
                pair += 1
        self.work = sparse.csr_matrix((values, (rows, columns)), shape=(pair, len(keys)))
        self.starts = np.array(starts)
        self.of = np.searchsorted(self.starts, np.arange(pair), side="right") - 1
        seconds = np.concatenate([t.seconds for t in timed])
        best = np.minimum.reduceat(seconds, self.starts)[self.of]
        call = np.concatenate([np.full(len(t.names), CALL[t.pass_]) for t in timed])
        self.log_seconds = np.log(np.maximum(seconds - call, 0.3 * seconds))
        self.weight = np.where(seconds < NEAR * best, 1.0, 0.35)
        self.regret = seconds / best - 1

    def loss(self, logs: np.ndarray, temperature: float, fit: float) -> tuple[float, np.ndarray]:
        factors = np.exp(logs)
        predicted = self.work @ factors
        error = np.log(predicted) - self.log_seconds
        delta = 0.15  # of a Huber loss: what is far off is another matter than work
        slope = np.sqrt(1 + (error / delta) ** 2)
        total = fit * float(np.mean(self.weight * delta**2 * (slope - 1)))
        gradient = fit * self.weight * error / slope / len(error)
        score = -np.log(predicted) / temperature
        share = np.exp(score - np.maximum.reduceat(score, self.starts)[self.of])
        share /= np.add.reduceat(share, self.starts)[self.of]
        regret = np.minimum(self.regret, WORST)
        expected = np.add.reduceat(share * regret, self.starts)
        total += float(expected.mean())
        gradient -= share * (regret - expected[self.of]) / temperature / len(self.starts)
        total += PULL * float(np.mean(logs**2))
        return total, self.work.T @ (gradient / predicted) * factors + 2 * PULL * logs / len(logs)

    def regrets(self, logs: np.ndarray) -> np.ndarray:
        predicted = self.work @ np.exp(logs)
        pairs = np.split(np.arange(len(predicted)), self.starts[1:])
        return np.array([self.regret[p[np.argmin(predicted[p])]] for p in pairs])


def needs_scipy() -> object:
    try:
        from scipy import sparse
    except ImportError:
        sys.exit('bench.fit needs SciPy: pip install "fastconv[parity]"')
    return sparse


def fit(data: Data, free: Sequence[bool]) -> np.ndarray:
    from scipy.optimize import minimize

    logs = np.zeros(len(free))
    bounds = [(np.log(LEAST), np.log(MOST)) if this else (0.0, 0.0) for this in free]
    for temperature, weight in STAGES:
        found = minimize(
            data.loss, logs, (temperature, weight), "L-BFGS-B", True, bounds=bounds, options={"maxiter": 400}
        )
        logs = found.x
    return logs


def show(title: str, timed: list[Timed], data: Data, logs: np.ndarray) -> None:
    regrets = data.regrets(logs)
    for pass_ in sorted({t.pass_ for t in timed}):
        these = regrets[[t.pass_ == pass_ for t in timed]]
        print(f"{title:10} {pass_:10} {100 * these.mean():6.2f} % of {len(these)}, worst {100 * these.max():.0f} %")


def table() -> Path:
    return repository.ROOT / "csrc" / f"prices_{fc.info()['isa']}.h"


def present() -> dict[Key, float]:
    found = re.findall(r'\{"(\w+)", "([^"]+)", ([0-9.e+-]+)\}', table().read_text(encoding="utf-8"))
    return {(name, work): float(factor) for name, work, factor in found}


def write(factors: dict[Key, float]) -> None:
    text = table().read_text(encoding="utf-8")
    lines = [f'    {{"{name}", "{work}", {factor:.3g}}},\n' for (name, work), factor in sorted(factors.items())]
    begin = text.index("Prices[] = {\n") + len("Prices[] = {\n")
    table().write_text(text[:begin] + "".join(lines) + text[text.index("};\n", begin) :], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.fit", description=__doc__.splitlines()[0])
    p.add_argument("files", nargs="+", type=Path, help="results of bench.calibrate")
    p.add_argument("--hold-out", action="store_true", help="leave out every fifth problem and judge by those")
    p.add_argument("--only", default="", metavar="TEXT", help="of the kinds of work that begin so")
    p.add_argument("--write", action="store_true", help="renew csrc/prices_ISA.h")
    options = p.parse_args(arguments)
    timed = load(options.files)
    keys: dict[Key, int] = {}
    for t in timed:
        for name, work in zip(t.names, t.work, strict=True):
            for kind in work:
                keys.setdefault((name, kind), len(keys))
    held = {t.problem.split(" ", 1)[1] for t in timed[::5]} if options.hold_out else set()
    parts = {"fitted": [t for t in timed if t.problem.split(" ", 1)[1] not in held]}
    if held:
        parts["held out"] = [t for t in timed if t.problem.split(" ", 1)[1] in held]
    data = {title: Data(part, keys) for title, part in parts.items()}
    free = {key: i for key, i in keys.items() if key[1].startswith(options.only)}
    logs = fit(data["fitted"], [key in free for key in keys])
    for title, part in parts.items():
        show("before", part, data[title], np.zeros(len(keys)))
        show(title, part, data[title], logs)
    if options.write:
        now = present()
        write(now | {key: now.get(key, 1.0) * float(np.exp(logs[i])) for key, i in free.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
