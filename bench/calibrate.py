# SPDX-License-Identifier: Apache-2.0
"""What the automatic choice costs: `python -m bench.calibrate --budget 60`.

`estimate` predicts the seconds of every algorithm and the cheapest is taken. Here each one that does not refuse is
timed, in one process with one thread, by interleaved rounds, on both lists of layers and on seeded random problems:

    regret      the time of the automatic choice over that of the best algorithm, less 1: mean and worst of each pass,
                of the lists and of the random problems
    predicted / measured    of each algorithm: its geometric mean says whether the model is fast or slow as a whole,
                its spread whether it ranks

fwd is timed planned, one_shot with the weights packed in every call. `--read FILE` judges the estimates as they now are
by times that were saved (`--out`): after a change of an estimate alone nothing need be timed. Nothing here changes the
library: the choice stays a pure function of the problem and committed tables, which bench.fit renews from such times.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from bench import repository
from fastconv.bench import problems, report, timing
from fastconv.bench.peers.fastconv_ import OneShot, Planned, to_layout
from fastconv.bench.problems import Layer

PASSES = ("fwd", "one_shot", "bwd_data", "bwd_filter")
PACKED = "weights packed"  # the work of a call that a plan does before (csrc/estimate.h)
HOPELESS = 8.0  # an algorithm this many times slower than the best at its first call is not timed further
UNLIKELY = 40.0  # nor is it tried at all when it is predicted to be this many times slower


class Timing(NamedTuple):
    """One algorithm on one problem: seconds."""

    predicted: float
    measured: float


class Measured(NamedTuple):
    """One problem in one pass."""

    layer: Layer
    pass_: str
    chosen: str
    timings: dict[str, Timing]

    @property
    def best(self) -> str:
        return min(self.timings, key=lambda name: self.timings[name].measured)

    @property
    def regret(self) -> float:
        return self.timings[self.chosen].measured / self.timings[self.best].measured - 1


def random_problems(count: int, seed: int) -> list[str]:
    """Forward problems as people might have them: mostly 2-D, odd and even, up to 5e8 multiply-adds."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []

    def pick(*values: int) -> int:
        return int(rng.choice(values))

    def channels() -> int:
        number = int(np.exp(rng.uniform(0, np.log(512))))
        return max(1, number // 16) * 16 if rng.random() < 0.6 else number

    def pick_mode() -> str:
        return "" if rng.random() < 0.85 else " " + str(rng.choice(("reflect", "replicate", "circular")))

    while len(texts) < count:
        rank = pick(1, 2, 2, 2, 2, 2, 2, 2, 2, 3)
        kind = rng.random()
        groups, c, k = 1, channels(), channels()
        if kind < 0.2:
            groups, c, k = c, c, c * pick(1, 1, 1, 2)
        elif kind < 0.35:
            groups, inner, outer = pick(2, 4, 8, 32), pick(2, 4, 8, 12, 16), pick(2, 4, 8, 12, 16)
            c, k = groups * inner, groups * outer
        f, stride, dilation = pick(1, 1, 3, 3, 3, 3, 5, 7), pick(1, 1, 1, 2), pick(1, 1, 1, 1, 1, 2)
        most = {1: 8192, 2: 160, 3: 24}[rank]
        size = [max(int(np.exp(rng.uniform(np.log(4), np.log(most)))), (f - 1) * dilation + 1)] * rank
        size[-1] += pick(0, 0, 0, 1, 5)
        axes = " ".join(f"{name}{s}" for name, s in zip("dhw"[3 - rank :], size, strict=True))
        taps = " ".join(f"{name}{f}" for name in "trs"[3 - rank :])
        pad = pick(0, (f - 1) * dilation // 2, (f - 1) * dilation // 2)
        layout = "nchw" if rng.random() < 0.75 else "nhwc"
        mode = pick_mode() if 0 < pad < min(size) else ""
        text = f"fwd n{pick(1, 1, 1, 2, 4, 16, 32)} c{c} {axes} k{k} {taps} stride{stride} pad{pad} dil{dilation}"
        problem = fc.ConvProblem.parse(f"{text} g{groups} {layout} f32{mode}")
        if 10**4 <= problem.macs <= 5 * 10**8 and problem.bytes <= 64 << 20:
            texts.append(str(problem))
    return texts


def workload(arguments: argparse.Namespace) -> list[tuple[str, Layer]]:
    """(pass, layer) pairs, in an order drawn by the seed, so that a run that ends early has seen some of everything."""
    texts: list[tuple[str, str]] = []
    for source in arguments.problems.split(","):
        if source == "random":
            texts += [(text, "random") for text in random_problems(arguments.random, arguments.seed)]
        else:
            texts += [(layer.text, layer.name) for layer in problems.load(problems.find(source), ("fwd",), None)]
    if arguments.only:
        texts = [(t, name) for t, name in texts if arguments.only.lower() in f"{t} {name}".lower()]
    pairs = [
        (pass_, Layer.parse(text, name, "fwd" if pass_ == "one_shot" else pass_, any_padding=True))
        for text, name in texts
        for pass_ in arguments.passes.split(",")
    ]
    order = np.random.default_rng(arguments.seed).permutation(len(pairs))
    return [pairs[i] for i in order[: arguments.sample or None]]


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    with fc.options(algorithm=name, threads=1):
        yield


def measure(pass_: str, layer: Layer, arguments: argparse.Namespace) -> Measured | None:
    """Time every algorithm that does not refuse, but for those without hope; None where there is no choice."""
    wanted = arguments.algorithms.split(",") if arguments.algorithms else None
    rows = estimates(layer, pass_ == "fwd")
    if not rows:
        return None
    chosen = min(rows, key=rows.__getitem__)
    if wanted:
        rows = {name: seconds for name, seconds in rows.items() if name in wanted or name == chosen}
    rows = {name: seconds for name, seconds in rows.items() if seconds < UNLIKELY * rows[chosen]}
    rows = {name: seconds for name, seconds in rows.items() if name != "reference" or name == chosen}
    arrays = {role: layer.array(role, 0) for role in layer.needs()}
    arrays = {role: a if role == "w" else to_layout(a, layer.layout) for role, a in arrays.items()}
    calls: dict[str, Callable[[], Any]] = {}
    first: dict[str, float] = {}
    for name in rows:
        with named(name):
            peer = Planned if pass_ == "fwd" else OneShot
            calls[name] = call = peer.make(None, layer, arrays)  # type: ignore[arg-type]
            call()
            first[name] = timing.time_calls(call, 1, 0)
    fastest = min(first.values())

    def sampler(name: str) -> Callable[[], float]:
        repeats = timing.repeats_for(first[name], arguments.min_sample)

        def sample() -> float:
            with named(name):
                return timing.time_calls(calls[name], repeats, 0)

        return sample

    hopeful = [name for name in rows if first[name] < HOPELESS * fastest or name == chosen]
    samples = timing.interleave(
        {name: sampler(name) for name in hopeful}, arguments.rounds, np.random.default_rng(arguments.seed)
    )
    medians = {name: timing.median(samples[name]) if name in samples else first[name] for name in rows}
    return Measured(layer, pass_, chosen, {name: Timing(rows[name], medians[name]) for name in rows})


def read(path: Path, arguments: argparse.Namespace) -> list[Measured]:
    """Times that were saved, with the estimates and the choice of the library as it now is."""
    found = []
    for row in report.load(path)["rows"]:
        layer = Layer.parse(row["problem"], row.get("name", ""), fc.ConvProblem.parse(row["problem"]).pass_, True)
        if row["pass"] in arguments.passes.split(",") and (not arguments.only or arguments.only in row["problem"]):
            rows = estimates(layer, row["pass"] == "fwd")
            timings = {n: Timing(rows[n], t[1]) for n, t in row["timings"].items() if n in rows}
            if timings:
                chosen = min(timings, key=lambda name: timings[name].predicted)
                found.append(Measured(layer, row["pass"], chosen, timings))
    return found


def estimates(layer: Layer, planned: bool) -> dict[str, float]:
    """Algorithm -> predicted seconds, of those that do not refuse; `planned`: with weights that come packed."""
    with fc.options(threads=1):
        rows = [row for row in fc.algorithms(layer.text) if row["supported"]]
    return {row["name"]: row["estimate_s"] - planned * row["estimated_work"].get(PACKED, 0.0) for row in rows}


def regrets_of(found: list[Measured]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    kinds = {pass_: [m for m in found if m.pass_ == pass_] for pass_ in PASSES}
    kinds["lists"] = [m for m in found if m.layer.name != "random"]
    kinds["random"] = [m for m in found if m.layer.name == "random"]
    for kind, those in {**kinds, "all": found}.items():
        regrets = [m.regret for m in those]
        if regrets:
            over = sum(r > 0.05 for r in regrets)
            mean = float(np.mean(regrets))
            summary[kind] = {"mean": mean, "worst": max(regrets), "over_5_percent": over, "problems": len(regrets)}
    return summary


def print_regrets(found: list[Measured], summary: dict[str, Any], worst: int) -> None:
    body = [
        [pass_, f"{100 * s['mean']:.1f} %", f"{100 * s['worst']:.0f} %", str(s["over_5_percent"]), str(s["problems"])]
        for pass_, s in summary.items()
    ]
    report.print_table("regret of the automatic choice", ["problems of", "mean", "worst", "over 5 %", "problems"], body)
    body = []
    for m in sorted(found, key=lambda m: -m.regret)[:worst]:
        if m.regret > 0.05:
            names = [
                f"{name} {1e3 * t.measured:.3f} ms (predicted {1e3 * t.predicted:.3f})"
                for name, t in ((name, m.timings[name]) for name in (m.chosen, m.best))
            ]
            body.append([f"{m.pass_} {m.layer.text}", f"{100 * m.regret:.0f} %", *names])
    if body:
        report.print_table("\nthe worst choices", ["problem", "regret", "chosen", "best"], body)


def print_models(found: list[Measured]) -> None:
    """predicted / measured of each algorithm; above 1 the model is pessimistic."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for m in found:
        for name, t in m.timings.items():
            ratios.setdefault((name, m.pass_), []).append(t.predicted / t.measured)
    body = []
    for (name, pass_), values in sorted(ratios.items()):
        low, high = np.percentile(values, [10, 90])
        chosen = sum(m.chosen == name and m.pass_ == pass_ for m in found)
        best = sum(m.best == name and m.pass_ == pass_ for m in found)
        mean = timing.geometric_mean(values)
        body.append([name, pass_, f"{mean:.2f}", f"{low:.2f} .. {high:.2f}", *map(str, (len(values), chosen, best))])
    header = ["algorithm", "pass", "mean", "10 % .. 90 %", "problems", "chosen", "best"]
    report.print_table("\npredicted / measured", header, body)


def parser() -> argparse.ArgumentParser:
    text = "time every algorithm, compare with the automatic choice and with the estimates"
    p = argparse.ArgumentParser(prog="python -m bench.calibrate", description=text)
    known = "lists, files and the word random, by commas (default %(default)s)"
    p.add_argument("--problems", default="layers,more,random", help=known)
    p.add_argument("--random", type=int, default=200, help="how many random problems (default %(default)s)")
    p.add_argument("--passes", default=",".join(PASSES), help="by commas (default %(default)s)")
    p.add_argument("--only", metavar="PATTERN", help="problems whose text or name contains this, in any case")
    p.add_argument("--algorithms", help="time these and the chosen one, by commas (default: all)")
    p.add_argument("--sample", type=int, metavar="N", help="so many of the problems, drawn by the seed (default: all)")
    p.add_argument("--budget", type=float, default=math.inf, metavar="S", help="stop after so many seconds")
    p.add_argument("--rounds", type=int, default=5, help="samples of each algorithm (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=3e-3, help="seconds of a sample (default %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of problems and orders (default %(default)s)")
    p.add_argument("--worst", type=int, default=20, help="how many bad choices to print (default %(default)s)")
    p.add_argument("--fail-above", type=float, metavar="R", help="exit code 1 if the mean regret exceeds R")
    p.add_argument("--read", type=Path, metavar="FILE", help="take the times from here, time nothing")
    p.add_argument("--out", type=Path, help="JSON file (default: none)")
    return p


def main() -> int:
    arguments = parser().parse_args()
    found = read(arguments.read, arguments) if arguments.read else []
    work = [] if arguments.read else workload(arguments)
    end = time.perf_counter() + arguments.budget
    for i, (pass_, layer) in enumerate(work):
        if time.perf_counter() > end:
            print(f"the budget ended after {i} of {len(work)}")
            break
        report.progress(f"{i + 1} of {len(work)}: {pass_} {layer.text}")
        if measured := measure(pass_, layer, arguments):
            found.append(measured)
    report.progress("")
    if not found:
        print("no problem has an algorithm to time", file=sys.stderr)
        return 1
    summary = regrets_of(found)
    if arguments.out:
        rows = [
            {"problem": m.layer.text, "name": m.layer.name, "pass": m.pass_, "chosen": m.chosen, "timings": m.timings}
            for m in found
        ]
        head = {"format": report.FORMAT, "kind": "calibration", **repository.surroundings("bench.calibrate")}
        head["isa"] = fc.info()["isa"]
        repository.save({**head, "regret": summary, "rows": rows}, arguments.out)
    print_regrets(found, summary, arguments.worst)
    print_models(found)
    return 1 if arguments.fail_above is not None and summary["all"]["mean"] > arguments.fail_above else 0


if __name__ == "__main__":
    sys.exit(main())
