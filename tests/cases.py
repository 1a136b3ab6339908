# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the problem files, arrays for a problem, and the native and the reference pass on them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np

from fastconv import _core, reference

FOLDER = Path(__file__).parent
PASSES = ("fwd", "bwd_data", "bwd_filter")
DTYPES = ("f32", "f64")
THREADS = (1, 2, 16)
HALVES = ("f16", "bf16")
NUMPY_DTYPE = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
LAYOUTS = {"nchw": "channels_first", "nhwc": "channels_last"}
MODES = ("zeros", "constant", "reflect", "replicate", "circular")
EPILOGUE = ("bias", "residual", "relu", "leaky_relu", "relu6", "elu", "sigmoid", "tanh", "silu", "gelu", "hard_swish")
# Exact in binary, so that a leaky ReLU of an integer and a constant border stay exact.
ALPHA, PAD_VALUE = 0.5, 2.0


def load(name: str) -> list[str]:
    """The problems of tests/problems/<name>.txt, comments and blank lines dropped."""
    lines = (FOLDER / "problems" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in (line.split("#")[0].strip() for line in lines) if line]


def scaled() -> list[str]:
    """The layers that are measured, small enough to test: tests/problems/scaled.txt, each line once.

    Filters, strides, dilations and padding are theirs. Of groups, channels, images and cells there are few, in numbers
    that no block of an algorithm divides.
    """
    texts = []
    for case in map(parse, load("layers") + load("more")):
        groups = min(case.groups, 3)
        inner, outer = min(case.c // case.groups, 7), min(case.k // case.groups, 17)
        reach = [(f - 1) * d + 1 + 5 * s for f, d, s in zip(case.filter, case.dilation, case.stride, strict=True)]
        size = tuple(min(have, most) for have, most in zip(case.size, reach, strict=True))
        small = case.with_(n=min(case.n, 2), groups=groups, c=groups * inner, k=groups * outer, size=size)
        texts.append(str(small))
    return list(dict.fromkeys(texts))


@dataclass(frozen=True)
class Case:
    """One problem as the tests see it: parsed here once more, independently of the library's parser."""

    pass_: str
    n: int
    c: int
    k: int
    groups: int
    size: tuple[int, ...]
    filter: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    layout: str = "nchw"
    dtype: str = "f32"
    mode: str = "zeros"
    epilogue: tuple[str, ...] = ()

    @property
    def activation(self) -> str:
        return next((word for word in self.epilogue if word not in ("bias", "residual")), "none")

    @property
    def output(self) -> tuple[int, ...]:
        axes = zip(self.size, self.filter, self.stride, self.dilation, self.pads, strict=True)
        return tuple(reference.output_size(s, f, st, d, b, e) for s, f, st, d, (b, e) in axes)

    def shape(self, channels: int, plane: tuple[int, ...]) -> tuple[int, ...]:
        return (self.n, *plane, channels) if self.layout == "nhwc" else (self.n, channels, *plane)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.shape(self.c, self.size)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.shape(self.k, self.output)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.k, self.c // self.groups, *self.filter)

    @property
    def result_shape(self) -> tuple[int, ...]:
        return {"fwd": self.y_shape, "bwd_data": self.x_shape, "bwd_filter": self.w_shape}[self.pass_]

    @property
    def terms(self) -> int:
        """How many products are summed for one element of the result, at most."""
        taps = int(np.prod(self.filter))
        if self.pass_ == "fwd":
            return self.c // self.groups * taps + len(self.epilogue)
        if self.pass_ == "bwd_data":
            # A cell that padding shows several times is met by a tap several times.
            copies = 1 if self.mode in ("zeros", "constant") else 2 ** len(self.size)
            return self.k // self.groups * taps * copies + len(self.epilogue)
        return max(self.n, 1) * int(np.prod(self.output))

    @property
    def macs(self) -> int:
        return self.n * int(np.prod(self.output)) * self.k * self.c // self.groups * int(np.prod(self.filter))

    def with_(self, **changes) -> Case:
        """A copy; another pass than forward keeps of the epilogue what it can have: bwd_data a bias and an
        activation, as the transposed convolution that it then is."""
        case = replace(self, **changes)
        if case.pass_ == "fwd":
            return case
        transposed = case.pass_ == "bwd_data" and case.mode == "zeros"
        return replace(case, epilogue=tuple(word for word in case.epilogue if transposed and word != "residual"))

    def __str__(self) -> str:
        def joined(texts):
            return texts[0] if len(set(texts)) == 1 else "x".join(texts)

        rank = len(self.size)
        sizes = " ".join(f"{key}{v}" for key, v in zip("dhw"[3 - rank :], self.size, strict=True))
        filters = " ".join(f"{key}{v}" for key, v in zip("trs"[3 - rank :], self.filter, strict=True))
        pad = joined([f"{b}" if b == e else f"{b}_{e}" for b, e in self.pads])
        stride, dilation = joined([str(v) for v in self.stride]), joined([str(v) for v in self.dilation])
        words = [] if self.mode == "zeros" else [self.mode]
        words += sorted(self.epilogue, key=EPILOGUE.index)
        text = f"{self.pass_} n{self.n} c{self.c} {sizes} k{self.k} {filters} stride{stride} pad{pad} dil{dilation}"
        return " ".join([text, f"g{self.groups} {self.layout} {self.dtype}", *words])


def parse(text: str) -> Case:
    """A line of a problem file. Strict: a word that is not understood is a KeyError or ValueError."""
    pass_, *words = text.split()
    numbers, lists, layout, dtype, mode, epilogue = {}, {}, "nchw", "f32", "zeros", []
    for word in words:
        key = word.rstrip("0123456789x_")
        if key in ("stride", "pad", "dil"):
            lists[key] = word[len(key) :].split("x")
        elif word in LAYOUTS:
            layout = word
        elif word in NUMPY_DTYPE:
            dtype = word
        elif word in MODES:
            mode = word
        elif word in EPILOGUE:
            epilogue.append(word)
        else:
            numbers[key] = int(word[len(key) :])
    size = tuple(numbers[key] for key in "dhw" if key in numbers)
    filter = tuple(numbers[key] for key in "trs" if key in numbers)

    def spread(key, default):
        values = lists.get(key, [default])
        return values * len(size) if len(values) == 1 else values

    ends = [pair.split("_") for pair in spread("pad", "0")]
    return Case(
        pass_=pass_,
        n=numbers["n"],
        c=numbers["c"],
        k=numbers["k"],
        groups=numbers.get("g", 1),
        size=size,
        filter=filter,
        stride=tuple(int(v) for v in spread("stride", "1")),
        pads=tuple((int(pair[0]), int(pair[-1])) for pair in ends),
        dilation=tuple(int(v) for v in spread("dil", "1")),
        layout=layout,
        dtype=dtype,
        mode=mode,
        epilogue=tuple(epilogue),
    )


def rng_for(text: str) -> np.random.Generator:
    """A generator whose seed is the problem's own text: the failing test's name is all that a repetition needs."""
    return np.random.default_rng(zlib.crc32(str(text).encode()))


@dataclass(frozen=True)
class Arrays:
    x: np.ndarray
    w: np.ndarray
    dy: np.ndarray
    bias: np.ndarray | None
    residual: np.ndarray | None

    def all(self) -> list[np.ndarray]:
        return [a for a in (self.x, self.w, self.dy, self.bias, self.residual) if a is not None]


def arrays(case: Case, integers: bool, seed: str | None = None) -> Arrays:
    """Inputs of all three passes: integers from -3 to 3, or standard normal floats."""
    rng = rng_for(seed or str(case))
    dtype = NUMPY_DTYPE[case.dtype]

    def draw(shape):
        return (rng.integers(-3, 4, shape) if integers else rng.standard_normal(shape)).astype(dtype)

    return Arrays(
        x=draw(case.x_shape),
        w=draw(case.w_shape),
        dy=draw(case.y_shape),
        bias=draw((case.c if case.pass_ == "bwd_data" else case.k,)) if "bias" in case.epilogue else None,
        residual=draw(case.y_shape) if "residual" in case.epilogue else None,
    )


def run_core(case: Case, a: Arrays, options=None, out=None) -> np.ndarray:
    """The native pass. options defaults to the automatic choice."""
    options = options or _core.Options()
    begin, end = tuple(b for b, _ in case.pads), tuple(e for _, e in case.pads)
    geometry = (case.stride, begin, end, case.dilation, case.groups, case.mode)
    layout = LAYOUTS[case.layout]
    if case.pass_ == "fwd":
        epilogue = (PAD_VALUE, case.activation, ALPHA, layout, options, out)
        return _core.conv_forward(a.x, a.w, a.bias, a.residual, *geometry, *epilogue)
    if case.pass_ == "bwd_data":
        epilogue = (a.bias, case.activation, ALPHA)
        return _core.conv_backward_data(a.dy, a.w, case.x_shape, *geometry, layout, options, out, *epilogue)
    return _core.conv_backward_filter(a.dy, a.x, case.w_shape, *geometry, PAD_VALUE, layout, options, out)


def run_reference(case: Case, a: Arrays, dtype=np.float64, magnitude: bool = False) -> np.ndarray:
    """The same pass in NumPy; with `magnitude` on absolute values and without activation, for error bounds."""
    geometry = {
        "stride": case.stride,
        "padding": case.pads,
        "dilation": case.dilation,
        "groups": case.groups,
        "padding_mode": case.mode,
        "layout": LAYOUTS[case.layout],
        "dtype": dtype,
    }

    def side(array):
        return np.abs(array) if magnitude and array is not None else array

    activation = None if magnitude or case.activation == "none" else case.activation
    if case.pass_ == "fwd":
        epilogue = {"pad_value": PAD_VALUE, "activation": activation, "alpha": ALPHA, "residual": side(a.residual)}
        return reference.conv(side(a.x), side(a.w), side(a.bias), **geometry, **epilogue)
    if case.pass_ == "bwd_data":
        dx = reference.conv_backward_data(side(a.dy), side(a.w), case.x_shape, **geometry)
        if a.bias is not None:
            dx = dx + side(a.bias).astype(dtype).reshape(-1, *(1,) * (len(case.size) * (case.layout == "nchw")))
        return dx if activation is None else reference.activation(activation, dx, ALPHA)
    return reference.conv_backward_filter(side(a.dy), side(a.x), case.w_shape, **geometry, pad_value=PAD_VALUE)


def algorithm_rows(case: Case, options=None) -> list[dict]:
    """What the registry says of each algorithm for this problem."""
    return _core.algorithms(_core.ConvProblem.parse(str(case)), options or _core.Options())


def supported(case: Case, **options) -> list[dict]:
    """The rows of the algorithms that can compute it, whatever their precision."""
    return [row for row in algorithm_rows(case, _core.Options(precision=1e9, **options)) if row["supported"]]


def isas() -> list[str]:
    return list(_core.info()["isas"])


def nan_filled(case: Case) -> np.ndarray:
    """An output in which a forgotten element shows."""
    return np.full(case.result_shape, np.nan, NUMPY_DTYPE[case.dtype])


def pool_problem(kind, x_shape, window, stride, pads, dilation, ceil_mode=False, layout="channels_first", **words):
    """A native pooling problem; pads holds (begin, end) per axis. words: count_include_pad, divisor."""
    begin, end = tuple(b for b, _ in pads), tuple(e for _, e in pads)
    return _core.PoolProblem(kind, x_shape, window, stride, begin, end, dilation, ceil_mode, layout=layout, **words)


def adaptive_problem(kind, x_shape, output, layout="channels_first", **words):
    """A native adaptive pooling problem."""
    return _core.PoolProblem(kind, x_shape, (), (), (), (), (), output=output, layout=layout, **words)


def laid_out(shape, layout):
    """A channels-first shape in the order of axes of `layout`."""
    return (shape[0], *shape[2:], shape[1]) if layout == "channels_last" else tuple(shape)
