# SPDX-License-Identifier: Apache-2.0
"""Whether all algorithms agree on problems of real sizes: `python -m bench.agree --seed 1 --count 100`.

The problems are those of bench.calibrate: what its small cousins in tests/problems cannot reach, as blocks of many rows
or slices of large images. Every algorithm, in three passes, into an output full of NaN, against im2col_gemm in float32;
halves against the same numbers in float32. It prints what differs, and exits with 1 if anything does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from bench.calibrate import random_problems
from fastconv import ConvProblem, _core
from fastconv.bench import problems

DTYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
PLAIN_ERROR = 1e-5  # of the largest result, for an error factor of 1


def compute(p: ConvProblem, x: np.ndarray, w: np.ndarray, dy: np.ndarray, options: _core.Options) -> np.ndarray:
    geometry = (p.stride, p.pad_begin, p.pad_end, p.dilation, p.groups, p.padding_mode)
    layout = {"nchw": "channels_first", "nhwc": "channels_last"}[p.layout]
    shape = {"fwd": dy, "bwd_data": x, "bwd_filter": w}[p.pass_].shape
    out = np.full(shape, np.nan, x.dtype)
    if p.pass_ == "fwd":
        _core.conv_forward(x, w, None, None, *geometry, 0.0, "none", 0.0, layout, options, out)
    elif p.pass_ == "bwd_data":
        _core.conv_backward_data(dy, w, shape, *geometry, layout, options, out)
    else:
        _core.conv_backward_filter(dy, x, shape, *geometry, 0.0, layout, options, out)
    return out


def check(text: str, dtype: str, isa: str, rng: np.random.Generator) -> tuple[int, int]:
    """Runs and those that differ."""
    runs = wrong = 0
    for pass_ in problems.PASSES:
        p = ConvProblem.parse(text).with_pass(pass_)
        shapes = ((p.n, p.c, *p.size), (p.k, p.c // p.groups, *p.filter), (p.n, p.k, *p.output_size))
        arrays = [rng.standard_normal(shape, dtype=np.float32).astype(DTYPES[dtype]) for shape in shapes]
        if p.layout == "nhwc":
            arrays = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) if i != 1 else a for i, a in enumerate(arrays)]
        wide = [a.astype(np.float32) for a in arrays]
        expected = compute(p, *wide, _core.Options(algorithm="im2col_gemm"))
        largest = float(abs(expected).max(initial=0)) or 1.0
        typed = text.replace("f32", dtype)
        for row in _core.algorithms(ConvProblem.parse(typed).with_pass(pass_), _core.Options(precision=1e9, isa=isa)):
            if not row["supported"] or row["name"] == "reference":
                continue
            options = _core.Options(algorithm=row["name"], precision=1e9, isa=isa)
            error = float(abs(compute(p, *arrays, options).astype(np.float32) - expected).max(initial=0)) / largest
            bound = PLAIN_ERROR * max(1.0, row["error_factor"])
            if dtype != "f32":
                bound += float(ml_dtypes.finfo(DTYPES[dtype]).eps)
            runs += 1
            if not error <= bound:  # a NaN is none
                wrong += 1
                print(f"{row['name']}: {error:.1e} of the largest result, {bound:.1e} allowed: {p} in {dtype}")
    return runs, wrong


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.agree", description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=0, help="of problems and numbers (default %(default)s)")
    p.add_argument("--count", type=int, default=100, help="how many random problems (default %(default)s)")
    p.add_argument("--files", type=Path, nargs="*", default=[], help="problem files besides")
    p.add_argument("--dtype", default="f32", choices=sorted(DTYPES), help="(default %(default)s)")
    p.add_argument("--isa", default="", help="instruction set (default: the best)")
    p.add_argument("--budget", type=float, default=3600, metavar="S", help="stop after so many seconds")
    a = p.parse_args()
    texts = random_problems(a.count, a.seed)
    for path in a.files:
        lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
        texts += [str(ConvProblem.parse(line)) for line in lines if line]
    rng, end = np.random.default_rng(a.seed), time.monotonic() + a.budget
    runs = wrong = done = 0
    for text in texts:
        if time.monotonic() > end:
            break
        found = check(text, a.dtype, a.isa, rng)
        runs, wrong, done = runs + found[0], wrong + found[1], done + 1
    print(f"seed {a.seed}: {done} problems, {runs} runs, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
