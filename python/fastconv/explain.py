# SPDX-License-Identifier: Apache-2.0
"""`fc.explain`: every algorithm for one convolution, with its reason or estimate, its memory, time and error."""

import textwrap
import time
from typing import Any

import numpy as np

from . import _core
from ._core import ConvProblem, Options, ProblemError
from .arrays import FLOAT64, as_dtype
from .geometry import activation_words, check_padding_mode, conv_geometry
from .options import current, settings
from .primitives import problem as make_problem
from .tensor import plain
from .trace import align

LAYOUTS = {"nchw": "channels_first", "nhwc": "channels_last"}
# Timing needs a few calls; an error needs one in float64, on one image of the problem.
MIN_RUNS, MAX_RUNS = 3, 50


class Explanation:
    """What `fc.explain` found. Print it for the table.

    Attributes:
        problem: the ConvProblem.
        chosen: the name of the algorithm that `auto` (or the current options) takes; None if none can run.
        rows: one dictionary per algorithm: name, chosen, supported, reason, estimate_s, measured_s, workspace_bytes,
            packed_bytes, error_factor, max_error, rms_error (both relative to the largest |y|), exact_on_integers,
            estimated_work (kind of work -> seconds).
    """

    def __init__(self, problem: ConvProblem, chosen: str | None, rows: list[dict[str, Any]]) -> None:
        self.problem, self.chosen, self.rows = problem, chosen, rows

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        p = self.problem
        return {"problem": str(p), "macs": p.macs, "bytes": p.bytes, "chosen": self.chosen, "algorithms": self.rows}

    def __str__(self) -> str:
        rows = [["", "algorithm", "estimate", "workspace", "measured", "GFLOP/s", "max error", "rms error"]]
        refused = []
        for row in self.rows:
            if not row["supported"]:
                refused.append(row)
                continue
            seconds = row["measured_s"]
            speed = f"{2e-9 * self.problem.macs / seconds:.1f}" if seconds else "-"
            cells = [_milliseconds(row["estimate_s"]), _bytes(row["workspace_bytes"]), _milliseconds(seconds), speed]
            errors = ["-" if row[key] is None else f"{row[key]:.1e}" for key in ("max_error", "rms_error")]
            rows.append(["*" if row["chosen"] else "", row["name"], *cells, *errors])
        filled = [i for i in range(8) if i < 4 or any(row[i] != "-" for row in rows[1:])]
        table = align([[row[i] for i in filled] for row in rows], right=tuple(range(2, len(filled))))
        p = self.problem
        head = f"{_count(p.macs)} multiply-adds, {_bytes(p.bytes)} in x, w and y; "
        head += "* is chosen" if self.chosen else "no algorithm is usable"
        if 6 in filled:
            head += "; errors against float64, relative to the largest |result|"
        parts = [*textwrap.wrap(str(p), 120), head, "", *([table] if rows[1:] else [])]
        for row in refused:
            named = row["reason"].startswith(row["name"])
            reason = row["reason"] if named else f"{row['name']}: {row['reason']}"
            parts += textwrap.wrap(f"not usable: {reason}", 120, subsequent_indent="    ")
        return "\n".join(parts)

    __repr__ = __str__


def algorithms(problem: ConvProblem | str) -> list[dict[str, Any]]:
    """Every algorithm for a problem under the current options.

    Returns:
        dictionaries with name, supported, reason (why not), workspace_bytes, packed_bytes, estimate_s, estimated_work
        (kind of work -> seconds, whose sum estimate_s is), error_factor, exact_on_integers.
    """
    return _core.algorithms(_parsed(problem), current())


def explain(x: Any, w: Any = None, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
            groups: int = 1, *, padding_mode: str = "zeros", activation: Any = None, layout: str = "channels_first",
            measure: bool = False, errors: bool = False, budget_s: float = 1.0,
            seed: int = 0) -> Explanation:  # fmt: skip
    """Explain how a convolution is, or would be, computed.

    Args:
        x: the arguments of a call, as for `fc.conv2d` (one to three spatial axes); or a ConvProblem, or its text form
            ("fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1 dil1 g1 nchw f32"), alone.
        measure: time every usable algorithm on random data; implies `errors`.
        errors: compare every usable algorithm with float64 on one random image of the problem.
        budget_s: about how long measuring may take in all, in seconds. The slowest algorithms are left out first.
        seed: of the random data.

    Returns:
        an Explanation: `print` it, or take `.to_dict()`.

    Example:
        >>> print(fc.explain(x, w, padding=1, measure=True))
    """
    if isinstance(x, ConvProblem | str):
        if w is not None:
            raise ProblemError("explain: w is given besides a problem; expected the problem alone, or x and w")
        p = _parsed(x)
    else:
        p = _from_call(x, w, bias, stride, padding, dilation, groups, padding_mode, activation, layout)
    rows = _core.algorithms(p, current())
    chosen = _core.choose(p, current()) if any(row["supported"] for row in rows) else None
    blank = {"measured_s": None, "max_error": None, "rms_error": None}
    rows = [{**row, **blank, "chosen": row["name"] == chosen} for row in rows]
    if measure or errors:
        _add_errors(p, rows, seed, budget_s)
    if measure:
        _add_times(p, rows, seed, budget_s)
    return Explanation(p, chosen, rows)


def _parsed(problem: ConvProblem | str) -> ConvProblem:
    return ConvProblem.parse(problem) if isinstance(problem, str) else problem


def _from_call(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int, padding_mode: str,
               activation: Any, layout: str) -> ConvProblem:  # fmt: skip
    if w is None:
        raise ProblemError("explain: w is missing; expected explain(x, w, ...), explain(problem) or explain(text)")
    x, w = plain(x), plain(w)
    rank = len(w.shape) - 2
    if rank not in (1, 2, 3):
        raise ProblemError(f"explain: w has shape {w.shape}; expected (K, C/groups, *filter)")
    check_padding_mode(padding_mode, "explain")
    g = conv_geometry("explain", rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    kind, _ = activation_words(activation, "explain")
    return make_problem("fwd", g, layout, x.dtype, padding_mode, kind, bias is not None)


class _Data:
    """Random arrays of a problem, and the call that computes it with a named algorithm."""

    def __init__(self, p: ConvProblem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        dtype = as_dtype(p.dtype)
        self.p = p
        self.x, self.w, self.y = (
            rng.standard_normal(shape).astype(dtype) for shape in (p.x_shape, p.w_shape, p.y_shape)
        )
        channels = p.k if p.pass_ == "fwd" else p.c
        self.bias = rng.standard_normal(channels).astype(dtype) if p.has_bias else None

    def run(self, options: Options, dtype: Any = None) -> Any:
        p = self.p
        arrays: list[Any] = [self.x, self.w, self.y, self.bias]
        x, w, y, bias = [a if a is None or dtype is None else a.astype(dtype) for a in arrays]
        layout = LAYOUTS[p.layout]
        geometry = p.stride, p.pad_begin, p.pad_end, p.dilation, p.groups, p.padding_mode
        alpha = activation_words(p.activation, "explain")[1]
        if p.pass_ == "fwd":
            residual = y if p.has_residual else None
            return _core.conv_forward(x, w, bias, residual, *geometry, 0.0, p.activation, alpha, layout, options, None)
        if p.pass_ == "bwd_data":
            return _core.conv_backward_data(
                y, w, p.x_shape, *geometry, layout, options, None, bias, p.activation, alpha
            )
        return _core.conv_backward_filter(y, x, p.w_shape, *geometry, 0.0, layout, options, None)


def _named(name: str) -> Options:
    """The current options with this algorithm, whatever its precision: naming one overrides the limit here."""
    return Options(*settings()._replace(algorithm=name))


def _add_errors(p: ConvProblem, rows: list[dict[str, Any]], seed: int, budget_s: float) -> None:
    usable = [row for row in rows if row["supported"]]
    if not usable or p.n == 0:
        return
    data = _Data(p.with_n(1), seed)
    # Others are judged by any plain float64 computation; float64 only by the reference, which sums in more.
    plain_sums = Options(precision=1.0)
    exact = data.run(_named("reference")) if p.dtype == "f64" else data.run(plain_sums, FLOAT64)
    largest = float(np.abs(exact).max(initial=0.0)) or 1.0
    for row in usable:
        if row["estimate_s"] / p.n > budget_s and not row["chosen"]:
            continue
        difference = (data.run(_named(row["name"])).astype(np.float64) - exact) / largest
        row["max_error"] = float(np.abs(difference).max(initial=0.0))
        row["rms_error"] = float(np.sqrt(np.mean(difference * difference))) if difference.size else 0.0


def _add_times(p: ConvProblem, rows: list[dict[str, Any]], seed: int, budget_s: float) -> None:
    """The median of as many calls as an equal share of what is left of the budget allows, the fastest first."""
    usable = sorted((row for row in rows if row["supported"]), key=lambda row: row["estimate_s"])
    data, end = _Data(p, seed), time.perf_counter() + budget_s
    for i, row in enumerate(usable):
        share = (end - time.perf_counter()) / (len(usable) - i)
        if row["estimate_s"] > max(share, 0.0) and i:
            continue
        options = _named(row["name"])
        times: list[float] = []
        started = time.perf_counter()
        data.run(options)  # packs, fills caches, touches memory
        while len(times) < MAX_RUNS and (len(times) < MIN_RUNS or time.perf_counter() - started < share):
            before = time.perf_counter()
            data.run(options)
            times.append(time.perf_counter() - before)
            if time.perf_counter() - started > 2 * max(share, 0.0):
                break
        row["measured_s"] = float(np.median(times))


def _count(n: int) -> str:
    for size, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if n >= 0.9995 * size:  # from there on three digits round to 1
            return f"{n / size:.3g} {word}"
    return f"{n:,}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 10 else f"{1e3 * seconds:.3f} ms"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
