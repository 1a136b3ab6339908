# SPDX-License-Identifier: Apache-2.0
"""Random small problems, for bench.fuzz, bench.precision, bench.isa_bits and tests/test_promises.py.

The problem with number `index` of a `seed` depends on these two alone, so that a run goes on where another ended and a
failing line is found again. Small means a few thousand to some ten thousand multiply-adds: enough for every border of a
block, cheap enough for a hundred thousand runs. Sizes of layers are those of bench.calibrate.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from fastconv import ConvProblem, ProblemError
from fastconv.arrays import as_dtype
from fastconv.verify import PASSES, Call

MOST_MACS, MOST_CELLS = 60_000, 20_000
MODES = ("constant", "reflect", "replicate", "circular")
ACTIVATIONS = ("relu", "leaky_relu", "relu6", "elu", "sigmoid", "tanh", "silu", "gelu", "hard_swish")
ALPHA, PAD_VALUE = 0.5, 2.0


def draw(seed: int, index: int, dtypes: tuple[str, ...] = ("f32", "f32", "f32", "f64", "f16", "bf16")) -> ConvProblem:
    """Problem number `index`. dtypes: taken with equal chances, so a word that is there twice has two."""
    rng = random.Random(f"fastconv {seed} {index}")
    while True:
        text = _text(rng, rng.choice(dtypes))
        try:
            p = ConvProblem.parse(text)
        except ProblemError:  # padding that its mode cannot fill, a filter that does not fit
            continue
        cells = max(int(np.prod(shape)) for shape in (p.x_shape, p.w_shape, p.y_shape))
        if p.macs <= MOST_MACS and cells <= MOST_CELLS:
            return p


def draws(seed: int, first: int, count: int, **words: tuple[str, ...]) -> Iterator[ConvProblem]:
    for index in range(first, first + count):
        yield draw(seed, index, **words)


def numbers(p: ConvProblem, seed: int, index: int, scaled: bool = False) -> Call:
    """The problem with normal floats. scaled: also large and small ones, and some zeros."""
    rng = np.random.default_rng([seed, index])
    dtype = as_dtype(p.dtype)

    def normal(shape: tuple[int, ...]) -> np.ndarray:
        a = rng.standard_normal(shape)
        if scaled and rng.random() < 0.3:
            a *= 10.0 ** rng.uniform(-2, 2)
        if scaled and rng.random() < 0.2:
            a *= rng.random(shape) < 0.5
        return a.astype(dtype)

    written = p.c if p.pass_ == "bwd_data" else p.k
    arrays = {"x": normal(p.x_shape), "w": normal(p.w_shape), "dy": normal(p.y_shape)}
    if p.has_bias:
        arrays["bias"] = normal((written,))
    if p.has_residual:
        arrays["residual"] = normal(p.y_shape)
    return Call(p, arrays, ALPHA, PAD_VALUE)


def _text(rng: random.Random, dtype: str) -> str:
    rank = rng.choice((1, 2, 2, 2, 2, 2, 3))
    groups, c, k = _channels(rng)
    if rank == 2 and rng.random() < 0.4:  # the filters of layers, for which there are transforms
        filter = list(rng.choice(((3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (1, 1))))
        stride, dilation = [rng.choice((1, 1, 2))] * 2, [rng.choice((1, 1, 1, 2))] * 2
    else:
        same = rng.random() < 0.6  # one number for all axes
        filter = _per_axis(rng, rank, same, (1, 1, 2, 3, 3, 3, 4, 5, 5, 7))
        stride = _per_axis(rng, rank, same or rng.random() < 0.5, (1, 1, 1, 1, 2, 2, 3))
        dilation = _per_axis(rng, rank, True, (1, 1, 1, 1, 2, 3))
    most = {1: 300, 2: 40, 3: 9}[rank]
    size = [max(1, int(most ** rng.uniform(0.2, 1))) for _ in range(rank)]
    pads = [_pads(rng, (f - 1) * d) for f, d in zip(filter, dilation, strict=True)]
    pass_ = rng.choice(PASSES)
    words = [rng.choice(MODES)] if rng.random() < 0.3 else []
    if pass_ == "fwd" or (pass_ == "bwd_data" and not words):
        words += [word for word in ("bias", "residual") if rng.random() < 0.25 and (word == "bias" or pass_ == "fwd")]
        words += [rng.choice(ACTIVATIONS)] if rng.random() < 0.25 else []
    n = rng.choice((0, 1, 1, 1, 2, 2, 3, 5)) if rng.random() < 0.95 else 17
    axes = " ".join(f"{name}{v}" for name, v in zip("dhw"[3 - rank :], size, strict=True))
    taps = " ".join(f"{name}{v}" for name, v in zip("trs"[3 - rank :], filter, strict=True))
    lists = (("stride", stride), ("pad", pads), ("dil", dilation))
    geometry = " ".join(key + "x".join(map(str, values)) for key, values in lists)
    layout = rng.choice(("nchw", "nchw", "nhwc"))
    return " ".join([f"{pass_} n{n} c{c} {axes} k{k} {taps} {geometry} g{groups} {layout} {dtype}", *words])


def _channels(rng: random.Random) -> tuple[int, int, int]:
    """groups, c, k."""
    kind = rng.random()
    if kind < 0.2:
        c = rng.randint(1, 40)
        return c, c, c * rng.choice((1, 1, 1, 2, 3))
    if kind < 0.4:
        groups = rng.choice((2, 3, 4, 8))
        return groups, groups * rng.randint(1, 10), groups * rng.randint(1, 18)
    return 1, int(80 ** rng.random()), int(100 ** rng.random())


def _per_axis(rng: random.Random, rank: int, same: bool, values: tuple[int, ...]) -> list[int]:
    return [rng.choice(values)] * rank if same else [rng.choice(values) for _ in range(rank)]


def _pads(rng: random.Random, reach: int) -> str:
    kind = rng.random()
    if kind < 0.3:
        return "0"
    if kind < 0.75:
        return str(reach // 2)
    return f"{rng.randint(0, reach + 1)}_{rng.randint(0, reach + 1)}"
