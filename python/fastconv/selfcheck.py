# SPDX-License-Identifier: Apache-2.0
"""Sampled self-check: with FASTCONV_CHECK=1/N in the environment one convolution in N is computed again by NumPy.

Off by default, and then not even imported. When on, the native functions and plans of `fastconv._core` are replaced by
the ones below, which compare every Nth result on NumPy arrays with `fastconv.reference` in float64, within the bound of
docs/numerics.md. A result that is not within it raises a CheckWarning and is saved, with all that made it, to a file in
FASTCONV_CHECK_DIR (else the current folder); `python -m fastconv check FILE` computes it again.
"""

import itertools
import json
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _core
from ._core import ConvProblem, Options, ProblemError
from .arrays import as_dtype
from .verify import Array, Call

MOST_FILES = 10  # of one process: a library that is always wrong must not fill the disk
_repeating = False  # while `check_file` computes a call again, it is not checked on the way
_OPTIONS = ("algorithm", "precision", "max_workspace", "threads", "batch_invariant", "isa")
_WORDS = {"channels_first": "nchw", "channels_last": "nhwc"}


class CheckWarning(RuntimeWarning):
    """A result was not what NumPy computes; the text names the file that repeats it."""


def every_of(text: str) -> int:
    """N of "1/N". Raises ProblemError for anything else."""
    one, _, number = text.partition("/")
    if one.strip() != "1" or not number.strip().isdecimal() or int(number) < 1:
        raise ProblemError(f"FASTCONV_CHECK is {text!r}; expected 1/N, as 1/100 for one call in a hundred")
    return int(number)


@dataclass(frozen=True)
class Verdict:
    """How far a result is off. worst: the largest error as a share of what is allowed, infinite for a NaN."""

    worst: float
    where: tuple[int, ...]
    got: float
    expected: float

    @property
    def right(self) -> bool:
        return self.worst <= 1

    def __str__(self) -> str:
        return (
            f"the error is {self.worst:.3g} times what is allowed, the largest at {self.where}: "
            f"{self.got!r}, float64 has {self.expected!r}"
        )


def judge(call: Call, result: Array, error_factor: float) -> Verdict:
    """Compare a result with the call's answer in float64. Where that is not finite, nothing is judged."""
    exact = call.exact()
    share = call.shares(result, exact, call.magnitude(), error_factor)
    if share.size == 0:
        return Verdict(0.0, (), 0.0, 0.0)
    where = np.unravel_index(int(np.argmax(share)), share.shape)
    return Verdict(float(share[where]), tuple(map(int, where)), float(result[where]), float(exact[where]))


def error_factor_of(problem: ConvProblem, options: Options, contiguous: bool) -> float:
    """Of the algorithm that ran; of the worst that may have run where an array's own strides decide the layout."""
    rows = [row for row in _core.algorithms(problem, options) if row["supported"]]
    name = options.algorithm or (_core.choose(problem, options) if contiguous else None)
    return max((row["error_factor"] for row in rows if name in (None, row["name"])), default=1.0)


class Sampler:
    """Judges one call in `every`, saves what is wrong into `folder`."""

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self.folder = every, folder
        self._calls, self._files = itertools.count(), itertools.count()
        self.checked = 0

    def wants_this_one(self) -> bool:
        return not _repeating and next(self._calls) % self.every == 0

    def check(self, call: Call, result: Array, options: Options, planned: bool = False) -> None:
        p = call.problem
        if not all(a.dtype == as_dtype(p.dtype) for a in call.arrays.values()):
            return
        contiguous = all(a.flags.c_contiguous for a in call.arrays.values())
        verdict = judge(call, result, error_factor_of(p, options, contiguous))
        self.checked += 1
        if verdict.right:
            return
        number = next(self._files)
        path = self.folder / f"fastconv-check-{os.getpid()}-{number}.npz"
        try:
            if number >= MOST_FILES:
                raise OSError(f"{MOST_FILES} files are enough of one process")
            save(path, call, result, options, planned)
            saved = f"python -m fastconv check {path}"
        except OSError as error:
            saved = f"not saved: {error}"
        warnings.warn(f"{p}: {verdict} ({saved})", CheckWarning, stacklevel=_outside())


def _outside() -> int:
    """The stacklevel that makes a warning of `check` one of the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastconv":
        level, frame = level + 1, frame.f_back
    return level


def _stored(a: Array) -> Array:
    return a.view(np.uint16) if a.dtype.kind == "V" else a  # bfloat16 is no dtype of a .npz file


def _words_of(options: Options, problem: ConvProblem, planned: bool) -> dict[str, Any]:
    """The options as plain data; of a tuning, the algorithm that it chose."""
    words = {name: getattr(options, name) for name in _OPTIONS}
    if options.tuning is not None and options.algorithm is None:
        usable = {row["name"] for row in _core.algorithms(problem, options) if row["supported"]}
        ranking = options.tuning.ranking(problem, str(options.isa), planned)
        words["algorithm"] = next((name for name in ranking if name in usable), None)
    return words


def save(path: Path, call: Call, result: Array, options: Options, planned: bool) -> None:
    """Everything that repeats a call, in one .npz file."""
    about = {
        "problem": str(call.problem),
        "alpha": call.alpha,
        "pad_value": call.pad_value,
        "planned": planned,
        "options": _words_of(options, call.problem, planned),
        "made_by": {key: _core.info()[key] for key in ("version", "compiler", "cpu", "isa")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: _stored(np.ascontiguousarray(a)) for name, a in call.arrays.items()}
    np.savez(path, about=json.dumps(about), result=_stored(np.ascontiguousarray(result)), **arrays)  # type: ignore[arg-type]


def load(path: str | Path) -> tuple[dict[str, Any], Call, Array]:
    """What `save` wrote: the facts, the call and the result. Raises ValueError for another file."""
    with np.load(path, allow_pickle=False) as file:
        if "about" not in file.files or "result" not in file.files:
            raise ValueError(f"{path}: holds no call; expected a file that FASTCONV_CHECK wrote")
        about = json.loads(str(file["about"]))
        problem = ConvProblem.parse(about["problem"])
        dtype = as_dtype(problem.dtype)
        arrays = {name: file[name].view(dtype) for name in file.files if name != "about"}
    result = arrays.pop("result")
    return about, Call(problem, arrays, about["alpha"], about["pad_value"]), result


def check_file(path: str | Path) -> tuple[bool, str]:
    """Compute a saved call again with the options it had. Returns whether it is right now, and what there is to say."""
    about, call, before = load(path)
    words, notes = dict(about["options"]), []
    if words["isa"] and words["isa"] not in _core.info()["isas"]:
        notes.append(f"this processor has no {words['isa']}: computed with {_core.info()['isa']}")
        words["isa"] = None
    options = Options(**words)
    factor = error_factor_of(call.problem, options, contiguous=True)
    name = options.algorithm or _core.choose(call.problem, options)
    run = call.run_planned if about["planned"] else call.run
    global _repeating
    _repeating = True
    try:
        now = judge(call, run(options), factor)
    finally:
        _repeating = False
    made = about["made_by"]
    lines = [
        f"problem    {call.problem}",
        f"made by    fastconv {made['version']}, {made['compiler']}, {words['isa'] or made['isa']}, {made['cpu']}",
        f"algorithm  {name}{', by a plan' if about['planned'] else ''}, error factor {factor:g}",
        f"then       {judge(call, before, factor)}",
        f"now        {now}",
        *notes,
        "right now" if now.right else "wrong",
    ]
    return now.right, "\n".join(lines)


def install(every: int, folder: Path) -> Sampler:
    """Replace the native convolutions by sampled ones, for the rest of the process."""
    sampler = Sampler(every, folder)
    forward, backward_data, backward_filter = (
        getattr(_core, name) for name in ("conv_forward", "conv_backward_data", "conv_backward_filter")
    )

    def problem_of(pass_: str, x_shape: Any, w_shape: Any, geometry: Any, layout: str, dtype: Any, activation: str,
                   has_bias: bool, has_residual: bool) -> ConvProblem:  # fmt: skip
        stride, pad_begin, pad_end, dilation, groups, mode = geometry
        first = layout == "channels_first"
        size, channels = (x_shape[2:], x_shape[1]) if first else (x_shape[1:-1], x_shape[-1])
        word = {"float32": "f32", "float64": "f64", "float16": "f16"}.get(dtype.name, "bf16")
        return ConvProblem(pass_, x_shape[0], channels, w_shape[0], size, w_shape[2:], stride, pad_begin, pad_end,
                           dilation, groups, _WORDS[layout], word, mode, activation, has_bias,
                           has_residual)  # fmt: skip

    def conv_forward(
        x: Any,
        w: Any,
        bias: Any,
        residual: Any,
        stride: Any,
        pad_begin: Any,
        pad_end: Any,
        dilation: Any,
        groups: Any,
        padding_mode: Any,
        pad_value: Any,
        activation: Any,
        alpha: Any,
        layout: Any,
        options: Any,
        out: Any,
    ) -> Array:
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        y = forward(x, w, bias, residual, *geometry, pad_value, activation, alpha, layout, options, out)
        if sampler.wants_this_one():
            p = problem_of("fwd", x.shape, w.shape, geometry, layout, x.dtype, activation, bias is not None,
                           residual is not None)  # fmt: skip
            sampler.check(Call(p, _present(x=x, w=w, bias=bias, residual=residual), alpha, pad_value), y, options)
        return y

    def conv_backward_data(
        dy: Any,
        w: Any,
        x_shape: Any,
        stride: Any,
        pad_begin: Any,
        pad_end: Any,
        dilation: Any,
        groups: Any,
        padding_mode: Any,
        layout: Any,
        options: Any,
        out: Any,
        bias: Any = None,
        activation: Any = "none",
        alpha: Any = 0.0,
    ) -> Array:
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        dx = backward_data(dy, w, x_shape, *geometry, layout, options, out, bias, activation, alpha)
        if sampler.wants_this_one():
            p = problem_of("bwd_data", x_shape, w.shape, geometry, layout, dy.dtype, activation, bias is not None,
                           False)  # fmt: skip
            sampler.check(Call(p, _present(dy=dy, w=w, bias=bias), alpha), dx, options)
        return dx

    def conv_backward_filter(
        dy: Any,
        x: Any,
        w_shape: Any,
        stride: Any,
        pad_begin: Any,
        pad_end: Any,
        dilation: Any,
        groups: Any,
        padding_mode: Any,
        pad_value: Any,
        layout: Any,
        options: Any,
        out: Any,
    ) -> Array:
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        dw = backward_filter(dy, x, w_shape, *geometry, pad_value, layout, options, out)
        if sampler.wants_this_one():
            p = problem_of("bwd_filter", x.shape, w_shape, geometry, layout, dy.dtype, "none", False, False)
            sampler.check(Call(p, _present(dy=dy, x=x), pad_value=pad_value), dw, options)
        return dw

    replaced = (conv_forward, conv_backward_data, conv_backward_filter)
    for function in replaced:
        setattr(_core, function.__name__, function)
    native_plan = _core.Plan

    def plan(problem: ConvProblem, w: Array, bias: Array | None, alpha: float, pad_value: float,
             options: Options) -> CheckedPlan:  # fmt: skip
        return CheckedPlan(native_plan, sampler, problem, w, bias, alpha, pad_value, options)

    _core.Plan = plan  # type: ignore[assignment, misc]
    return sampler


def _present(**arrays: Array | None) -> dict[str, Array]:
    return {name: a for name, a in arrays.items() if a is not None}


class CheckedPlan:
    """A plan, one call in so many of which is checked against the weights it was made with."""

    def __init__(self, native: Any, sampler: Sampler, problem: ConvProblem, w: Array, bias: Array | None, alpha: float,
                 pad_value: float, options: Options) -> None:  # fmt: skip
        self._native = native(problem, w, bias, alpha, pad_value, options)
        self._sampler, self._scalars, self._options = sampler, (alpha, pad_value), options
        self._lock = threading.Lock()
        self._weights = _present(w=w.copy(), bias=None if bias is None else bias.copy())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def __call__(self, x: Array, residual: Array | None = None, out: Array | None = None) -> Array:
        weights = self._weights
        y: Array = self._native(x, residual, out)
        # Weights that another thread has just replaced may be either.
        if self._sampler.wants_this_one() and weights is self._weights:
            p = self._native.problem.with_n(x.shape[0])
            if p.has_residual == (residual is not None):
                call = Call(p, {"x": x, **weights, **_present(residual=residual)}, *self._scalars)
                words = {name: getattr(self._options, name) for name in _OPTIONS}
                self._sampler.check(call, y, Options(**{**words, "algorithm": self._native.algorithm}), True)
        return y

    def update(self, w: Array, bias: Array | None = None) -> None:
        with self._lock:
            self._weights = {}
            self._native.update(w, bias)
            self._weights = _present(w=w.copy(), bias=None if bias is None else bias.copy())
