# SPDX-License-Identifier: Apache-2.0
"""Times and errors of the algorithms of a problem, on random data, within a budget of seconds."""

import importlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _core
from .._core import ConvProblem, Options
from ..arrays import FLOAT64, as_dtype
from ..geometry import activation_words
from ..options import native, settings

LAYOUTS = {"nchw": "channels_first", "nhwc": "channels_last"}
MIN_RUNS, MAX_RUNS = 3, 50
# Bits of the mantissa and the exponent of the smallest normal number.
_FORMATS = {"f64": (52, -1022), "f32": (23, -126), "f16": (10, -14), "bf16": (7, -126)}
SPENT = "not measured: budget spent"


class Budget:
    """Seconds that are left of those that the caller grants; what has begun is finished."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, time.perf_counter()
        self._pace = [1.0]  # the most that a call took beyond its estimate

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._start

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def part(self, share: float) -> "Budget":
        """One that ends when so much of this one's seconds has gone; both learn the same pace."""
        part = Budget(share * self.seconds)
        part._start, part._pace = self._start, self._pace
        return part

    def allows(self, estimate: float) -> bool:
        """Whether a call may begin that should take `estimate` seconds."""
        return self.left > 0 and estimate * self._pace[0] <= self.left

    def learn(self, estimate: float, seconds: float) -> None:
        if estimate > 0:
            self._pace[0] = max(self._pace[0], seconds / estimate)


class Data:
    """Random arrays of a problem, and the call that computes it with a named algorithm."""

    def __init__(self, p: ConvProblem, seed: int, device: str = "cpu") -> None:
        rng = np.random.default_rng(seed)
        dtype = as_dtype(p.dtype)
        self.p, self.dtype = p, dtype
        self.native: Any = _core
        # float64 for one image is the exact side of a comparison; anything else is made once, in the problem's dtype.
        self.x, self.w, self.y = (
            rng.standard_normal(shape, np.float32 if p.dtype != "f64" else np.float64).astype(dtype)
            for shape in (p.x_shape, p.w_shape, p.y_shape)
        )
        channels = p.k if p.pass_ == "fwd" else p.c
        self.bias = rng.standard_normal(channels).astype(dtype) if p.has_bias else None
        if device != "cpu":
            self._move(device)

    def _move(self, device: str) -> None:
        self.native = importlib.import_module("..device", __package__)
        self.x, self.w, self.y = (self.native.moved(a, device) for a in (self.x, self.w, self.y))
        self.bias = None if self.bias is None else self.native.moved(self.bias, device)

    def run(self, options: Options, dtype: Any = None) -> Any:
        p = self.p
        arrays: list[Any] = [self.x, self.w, self.y, self.bias]
        x, w, y, bias = [a if a is None or dtype is None else a.astype(dtype) for a in arrays]
        layout = LAYOUTS[p.layout]
        geometry = p.stride, p.pad_begin, p.pad_end, p.dilation, p.groups, p.padding_mode
        alpha = activation_words(p.activation, "explain")[1]
        if p.pass_ == "fwd":
            residual = y if p.has_residual else None
            return self.native.conv_forward(
                x, w, bias, residual, *geometry, 0.0, p.activation, alpha, layout, options, None
            )
        if p.pass_ == "bwd_data":
            return self.native.conv_backward_data(
                y, w, p.x_shape, *geometry, layout, options, None, bias, p.activation, alpha
            )
        return self.native.conv_backward_filter(y, x, p.w_shape, *geometry, 0.0, layout, options, None)


def seconds_to_make(p: ConvProblem) -> float:
    """About how long its random arrays take: 12 ns an element."""
    return 12e-9 * sum(math.prod(shape) for shape in (p.x_shape, p.w_shape, p.y_shape))


def named(name: str) -> Options:
    """The current options with this algorithm."""
    return native(settings()._replace(algorithm=name))


def add_times(p: ConvProblem, rows: list[dict[str, Any]], seed: int, budget: Budget, device: str) -> None:
    """measured_s, runs and phases of the usable rows: the median of as many calls as an equal share of what is left of
    the budget allows, the fastest first. Rows that it does not reach say so in `not_measured`."""
    usable = sorted((row for row in rows if row["supported"]), key=lambda row: row["predicted_s"])
    if not usable:
        return
    data: Data | None = None
    for i, row in enumerate(usable):
        making = 0.0 if data else seconds_to_make(p)
        if budget.left < making or not budget.allows(row["predicted_s"]):
            row["not_measured"] = SPENT
            continue
        data = data or Data(p, seed, device)
        times = _times(data, row["name"], device, row["predicted_s"], budget, budget.left / (len(usable) - i))
        row["measured_s"], row["runs"] = float(np.median(times)), len(times)
        if budget.left > MIN_RUNS * row["measured_s"]:
            row["phases"] = _phases(data, row)


def _times(data: Data, name: str, device: str, estimate: float, budget: Budget, share: float) -> list[float]:
    """Seconds of single calls; the first is not among them unless there is time for no other."""
    options = named(name)
    once = _timed if device == "cpu" else _timed_on_device
    started = time.perf_counter()
    first = once(data, options)  # packs, fills caches, touches memory
    budget.learn(estimate, first)
    times: list[float] = []
    while len(times) < MAX_RUNS and budget.left > first:
        passed = time.perf_counter() - started
        if passed > (share if len(times) >= MIN_RUNS else 2 * share):
            break
        times.append(once(data, options))
    return times or [first]


def _timed(data: Data, options: Options) -> float:
    before = time.perf_counter()
    data.run(options)
    return time.perf_counter() - before


def _timed_on_device(data: Data, options: Options) -> float:
    """Between the ends of the stream's work before and after it, as a trace has it."""
    return float(_traced(lambda: data.run(options), phases=False)["seconds"])


def _traced(call: Callable[[], Any], phases: bool) -> dict[str, Any]:
    handle = _core.trace_start(phases)
    try:
        call()
    finally:
        entries = _core.trace_stop(handle)
    return entries[-1]


def _phases(data: Data, row: dict[str, Any]) -> dict[str, float] | None:
    """Seconds of one call by phase, of all threads together or of the device, "others" being what no phase has (the
    start of kernels, waiting); None for `reference`, which is of one piece."""
    runs = [_traced(lambda: data.run(named(row["name"])), phases=True) for _ in range(MIN_RUNS)]
    entry = min(runs, key=lambda run: run["seconds"])  # the least disturbed one
    phases: dict[str, float] = dict(entry["phases"])
    if not phases:
        return None
    phases["others"] = max(0.0, entry["seconds"] * entry["threads"] - sum(phases.values()))
    return phases


def add_errors(p: ConvProblem, rows: list[dict[str, Any]], seed: int, budget: Budget, device: str) -> None:
    """max_error, rms_error (of the largest |result|), max_ulp and mean_ulp of the usable rows, against float64."""
    usable = sorted((row for row in rows if row["supported"]), key=lambda row: row["predicted_s"])
    if not usable or p.n == 0 or not all(p.y_shape) or not all(p.x_shape):
        return
    if budget.left < 3 * seconds_to_make(p.with_n(1)):  # float64 besides
        return
    data = Data(p.with_n(1), seed)
    # Others are judged by any plain float64 computation; float64 only by the reference, which sums in more.
    on_cpu = Options(isa=settings().isa, threads=settings().threads, precision=1.0)
    exact = data.run(Options("reference")) if p.dtype == "f64" else data.run(on_cpu, FLOAT64)
    there = data if device == "cpu" else Data(p.with_n(1), seed, device)
    for row in usable:
        if not budget.allows(row["predicted_s"] / p.n):
            continue
        got = there.run(named(row["name"]))
        row.update(errors(got if device == "cpu" else there.native.moved(got, "cpu"), exact, p.dtype))


def errors(got: Any, exact: Any, dtype: str) -> dict[str, float]:
    """The four errors of a result.

    A unit in the last place is that of the exact value in the result's dtype: where terms cancel, and the value is
    small beside them, the largest is large for every algorithm; the mean says more.
    """
    difference = np.abs(got.astype(np.float64) - exact)
    largest = float(np.abs(exact).max(initial=0.0)) or 1.0
    bits, smallest = _FORMATS[dtype]
    exponent = np.where(exact == 0, smallest, np.frexp(exact)[1] - 1)  # |value| is in [2^e, 2^(e + 1))
    ulps = difference / np.ldexp(1.0, np.maximum(exponent, smallest) - bits)
    return {
        "max_error": float(difference.max(initial=0.0)) / largest,
        "rms_error": float(np.sqrt(np.mean(difference * difference))) / largest if difference.size else 0.0,
        "max_ulp": float(ulps.max(initial=0.0)),
        "mean_ulp": float(ulps.mean()) if ulps.size else 0.0,
    }
