# SPDX-License-Identifier: Apache-2.0
"""Where the time of a session goes."""

from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..trace import align
from .program import Row


class Step(NamedTuple):
    """One step of a session.

    Attributes:
        node: the layer that it came from, or "".
        op: the operation; "python" for a Function that was called.
        algorithm: of a convolution; the Function's name of "python"; else "".
        seconds: the median.
        peak: for convolutions, the share of the machine's attainable arithmetic (`_core.machine_speeds` times the
            threads) that the multiply-adds of the direct method took: an algorithm that saves multiplications can
            exceed 1. None for other steps.
        problem: the ConvProblem, or None.
    """

    node: str
    op: str
    algorithm: str
    seconds: float
    peak: float | None
    problem: Any


class Profile:
    """The steps of a session with their times, in the order in which they run.

    Attributes:
        steps: a `Step` each.
        seconds: of all steps together.
    """

    def __init__(self, runs: list[list[tuple[Row, float]]], options: _core.Options, threads: int) -> None:
        speeds = _core.machine_speeds(options)
        threads = threads or int(_core.info()["threads"])
        self.steps = []
        for i, (row, _) in enumerate(runs[0]):
            seconds = float(np.median([run[i][1] for run in runs]))
            peak = None
            if row.problem is not None:
                speed = speeds[f"flops_{row.problem.dtype}"] * threads
                peak = 2 * row.problem.macs / max(seconds, 1e-9) / speed
            self.steps.append(Step(row.node.name, row.op, row.algorithm, seconds, peak, row.problem))
        self.seconds = sum(step.seconds for step in self.steps)

    def table(self) -> str:
        """One line per step."""
        lines = [["node", "op", "algorithm", "ms", "time", "peak"]]
        for s in self.steps:
            share = f"{100 * s.seconds / self.seconds:.1f} %" if self.seconds else ""
            peak = "" if s.peak is None else f"{100 * s.peak:.0f} %"
            lines.append([s.node, s.op, s.algorithm, f"{1e3 * s.seconds:.3f}", share, peak])
        lines.append(["", "all", "", f"{1e3 * self.seconds:.3f}", "", ""])
        return align(lines, right=(3, 4, 5))

    __str__ = table
