# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16 beside float32, by its algorithm or their own choice: `python -m bench.halves --threads 1`.

For each layer of a list, pass and dtype the seconds of both, in interleaved samples of one process, and float32 / half:
above 1, the half is faster. Forward is planned, so that weights are packed before; the gradients take them as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import fastconv as fc
from bench import repository
from fastconv import _core
from fastconv.bench import problems, report, timing
from fastconv.bench.peers.fastconv_ import OneShot, Planned, to_layout
from fastconv.bench.problems import Layer

DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
SETTLE_S = 0.002


def layers_of(name: str, layout: str) -> list[tuple[str, str]]:
    """(text, name) of the lines of a list, in that layout."""
    found = []
    for line in (problems.LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        text, _, comment = line.partition("#")
        if text.strip():
            found.append((text.strip().replace("nchw", layout), comment.strip()))
    return found


def algorithm_of(call: Any) -> str:
    with fc.trace() as trace:
        call()
    return trace.calls[-1]["algorithm"]


def compare(layer: Layer, dtype: str, rounds: int, min_sample: float, own_choice: bool) -> dict[str, Any]:
    """One layer in float32 and in `dtype`, by the algorithm that float32 would get or the one that is chosen for it."""
    arrays = {role: layer.array(role, 1) for role in layer.needs()}
    arrays = {role: a if role == "w" else to_layout(a, layer.layout) for role, a in arrays.items()}
    halves = {role: a.astype(DTYPES[dtype]) for role, a in arrays.items()}
    kind: Any = Planned if layer.pass_ == "fwd" else OneShot
    single = kind.make(None, layer, arrays)
    algorithm = algorithm_of(single)
    with fc.options(algorithm="auto" if own_choice else algorithm):
        half = kind.make(None, layer, halves)
        algorithm = algorithm_of(half)
        repeats = timing.repeats_for(timing.time_calls(single, 1, SETTLE_S), min_sample)
        samplers = {
            "f32": lambda: timing.time_calls(single, repeats, SETTLE_S),
            dtype: lambda: timing.time_calls(half, repeats, SETTLE_S),
        }
        samples = timing.interleave(samplers, rounds, np.random.default_rng(0))
    about = {"layer": layer.text, "name": layer.name, "pass": layer.pass_, "dtype": dtype, "algorithm": algorithm}
    return {**about, "samples": samples}


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.halves", description="halves beside float32, same algorithm")
    p.add_argument("--list", default="layers", choices=("layers", "more"), help="(default %(default)s)")
    p.add_argument("--layout", default="nchw", choices=("nchw", "nhwc"), help="(default %(default)s)")
    p.add_argument("--dtypes", default="bf16,f16", help="(default %(default)s)")
    p.add_argument("--passes", default=",".join(problems.PASSES), help="(default %(default)s)")
    p.add_argument("--own-choice", action="store_true", help="the half by the algorithm that is chosen for it")
    p.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    p.add_argument("--rounds", type=int, default=7, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=0.01, help="seconds of a sample (default %(default)s)")
    p.add_argument("--out", type=Path, help="JSON; without it, into bench/results")
    a = p.parse_args()
    _core.set_threads(a.threads)
    head = {"format": report.FORMAT, "kind": "halves", **repository.surroundings("bench.halves")}
    result = {**head, "threads": a.threads, "layout": a.layout, "own_choice": a.own_choice}
    rows: list[dict[str, Any]] = []
    body = []
    for dtype in a.dtypes.split(","):
        for pass_ in a.passes.split(","):
            pairs: list[tuple[list[float], list[float]]] = []
            for text, name in layers_of(a.list, a.layout):
                row = compare(Layer.parse(text, name, pass_), dtype, a.rounds, a.min_sample, a.own_choice)
                rows.append(row)
                pairs.append((row["samples"]["f32"], row["samples"][dtype]))
                body.append([dtype, pass_, name, row["algorithm"], str(timing.paired_ratio(*pairs[-1]))])
            body.append([dtype, pass_, "geometric mean", "", str(timing.geometric_mean_ratio(pairs))])
    report.print_table("float32 / half", ["dtype", "pass", "layer", "algorithm", "ratio"], body)
    print(f"saved to {repository.save({**result, 'rows': rows}, a.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
