# SPDX-License-Identifier: Apache-2.0
"""What the library promises of the bits of one call, as functions that look: docs/reproducibility.md.

Each takes a call, an algorithm's name, an instruction set and the result that is expected, and answers with None or
with a sentence about what differs. bench.fuzz and tests/test_promises.py ask them of random problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastconv import ConvProblem, _core
from fastconv.verify import Call

THREADS = (1, 2, 3, 16)
ANY_PRECISION = 1e9
Promise = Callable[[Call, str, str, np.ndarray], str | None]


def options(name: str, isa: str, threads: int = 1, **words: int | bool) -> _core.Options:
    return _core.Options(algorithm=name, precision=ANY_PRECISION, threads=threads, isa=isa, **words)


def usable(p: ConvProblem, isa: str) -> list[dict]:
    """The rows of the algorithms that compute it on this instruction set."""
    rows = _core.algorithms(p, _core.Options(precision=ANY_PRECISION, isa=isa))
    return [row for row in rows if row["supported"]]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal byte for byte, also the sign of a zero; dtype and shape besides."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def any_thread_count(call: Call, name: str, isa: str, expected: np.ndarray) -> str | None:
    """One run after the other, by 1, 2, 3 and 16 threads."""
    for threads in (*THREADS, THREADS[-1]):
        if not same_bits(call.run(options(name, isa, threads)), expected):
            return f"other bits by {threads} threads"
    return None


def any_batch(call: Call, name: str, isa: str, expected: np.ndarray) -> str | None:
    """Each image alone, forward and backward-data; nothing is promised of a sum over images."""
    p = call.problem
    if p.pass_ == "bwd_filter":
        return None
    for i in range(p.n):
        alone = {key: a if key in ("w", "bias") else a[i : i + 1].copy() for key, a in call.arrays.items()}
        if not same_bits(replace(call, problem=p.with_n(1), arrays=alone).run(options(name, isa)), expected[i : i + 1]):
            return f"image {i} alone has other bits than in its batch of {p.n}"
    return None


def any_place(call: Call, name: str, isa: str, expected: np.ndarray) -> str | None:
    """Where arrays lie in memory: a slice of images and channels, an odd address, an `out` that held something else."""
    for what, lay in (("a slice of channels", _sliced), ("an odd address", _shifted)):
        moved = {key: a if a.size == 0 else lay(a, call.problem, key) for key, a in call.arrays.items()}
        if not same_bits(replace(call, arrays=moved).run(options(name, isa)), expected):
            return f"other bits from {what}"
    out = np.full(call.result_shape, np.nan, expected.dtype)
    call.run(options(name, isa), out)
    return None if same_bits(out, expected) else "other bits in `out`"


def packed_before(call: Call, name: str, isa: str, expected: np.ndarray) -> str | None:
    """A plan, whose weights are packed once, also for another batch."""
    p, a = call.problem, call.arrays
    if p.pass_ != "fwd" or p.n == 0:
        return None
    plan = _core.Plan(p, a["w"], a.get("bias"), call.alpha, call.pad_value, options(name, isa))
    residual = a.get("residual")
    if not same_bits(plan(a["x"], residual), expected):
        return "other bits by a plan"
    last = None if residual is None else residual[-1:]
    return None if same_bits(plan(a["x"][-1:], last), expected[-1:]) else "other bits by a plan for one image"


def least_workspace(call: Call, name: str, isa: str, expected: np.ndarray) -> str | None:
    """A limit that leaves room for one thread alone, where 16 are asked for."""
    needed = next(row["workspace_bytes"] for row in _core.algorithms(call.problem, options(name, isa))
                  if row["name"] == name)  # fmt: skip
    limited = options(name, isa, 16, max_workspace=needed)
    return None if same_bits(call.run(limited), expected) else "other bits under a limit of workspace"


PROMISES: dict[str, Promise] = {
    "threads": any_thread_count,
    "batch": any_batch,
    "place": any_place,
    "plan": packed_before,
    "workspace": least_workspace,
}


def other_layout(call: Call) -> Call:
    """The same numbers channels last instead of first, or the other way round."""
    p = call.problem
    text = str(p)
    last = p.layout == "nhwc"
    swapped = ConvProblem.parse(text.replace("nhwc", "nchw") if last else text.replace("nchw", "nhwc"))
    axes = (-1, 1) if last else (1, -1)
    moved = {
        key: a if key in ("w", "bias") else np.ascontiguousarray(np.moveaxis(a, *axes))
        for key, a in call.arrays.items()
    }
    return replace(call, problem=swapped, arrays=moved)


def _sliced(a: np.ndarray, p: ConvProblem, key: str) -> np.ndarray:
    """A view of the same numbers inside a larger array; of a filter and a bias a plain copy."""
    if key in ("w", "bias"):
        return a.copy()
    axis = 1 if p.layout == "nchw" else a.ndim - 1
    room = list(a.shape)
    room[axis] += 3
    room[0] += 1
    where = [slice(None)] * a.ndim
    where[0], where[axis] = slice(1, None), slice(1, 1 + a.shape[axis])
    large = np.full(room, np.nan, a.dtype)
    large[tuple(where)] = a
    return large[tuple(where)]


def _shifted(a: np.ndarray, p: ConvProblem, key: str) -> np.ndarray:
    """At an address that is a multiple of the element alone."""
    line = np.empty(a.size + 65, a.dtype)
    start = 1 + (-line.ctypes.data // a.itemsize) % (64 // a.itemsize)
    shifted = line[start : start + a.size].reshape(a.shape)
    shifted[...] = a
    return shifted
