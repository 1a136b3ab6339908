# SPDX-License-Identifier: Apache-2.0
"""`fc.tune`: time the algorithms of classes of shapes within a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from .._core import ConvProblem, Options, ProblemError
from ..explain import algorithms
from ..explaining.measure import LAYOUTS, Budget, Data
from ..geometry import activation_words
from ..options import native, settings
from ..trace import Trace
from .table import KINDS, Entry, Section, Tuning, here, load, merge, name_in_files, ranked

SLACK = 4.0  # an algorithm that should take that much longer than the best one is not timed
ROUNDS = 9
HOPELESS = 1.5  # times the fastest, after two rounds: not timed again
SAMPLE_S = 5e-4  # a sample is as many calls as last so long
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass
class Job:
    """One class of shapes that is to be timed, in one of the two kinds."""

    kind: str
    shape_class: str
    problem: ConvProblem  # its member with the most work
    weight: float = 0.0  # predicted seconds of all its members

    def __str__(self) -> str:
        return f"{self.kind} {self.problem}"


def tune(problems: Any, budget_s: float = 30.0, *, file: str | os.PathLike[str] | None = None,
         kinds: Iterable[str] = KINDS, max_shapes: int | None = None, max_bytes: int | None = None,
         again: bool = False, device: str = "cpu", seed: int = 0,
         progress: Progress | None = None) -> Tuning:  # fmt: skip
    """Time the algorithms for some problems and remember which were fastest, for all problems of their classes.

    Problems whose extents round up to the same class (1, 2, 3, 4, 6, 8, 12, 16, 24, ...) share one measurement, and a
    class that `file` knows costs nothing. The classes with the most predicted work come first; when the budget is
    spent, or on Ctrl-C, what has been measured is returned, and `file` holds it. Algorithms whose estimate is more than
    four times the best one are not timed. `precision`, `max_workspace` and the like are those of the options in force.

    The result changes no choice until it is handed over: `fc.options(tuning=...)`, `fc.set_options(tuning=...)`, or
    FASTCONV_TUNING=FILE. Then choices, and so the bits of results, are those of the file, whatever the timings of the
    day.

    Args:
        problems: a ConvProblem or its text form, several of them, or a Trace (`with fc.trace() as problems`).
        budget_s: seconds of measuring in all. A call that has begun is finished; none begins that should not end
            in time.
        file: a tuning file that is read if it exists, and written after every class.
        kinds: "call" for weights as they are, "planned" for weights that are packed once (forward only).
        max_shapes: the most classes that are timed.
        max_bytes: problems that need more for tensors and workspace are left out.
        again: time classes that `file` knows too; the entry that was timed more often stays.
        device: "cpu", or "cuda" and "cuda:1" for a GPU.
        seed: of the random data.
        progress: called as progress(done, total, what) before each class and at the end.

    Returns:
        a Tuning: `file`'s entries and the new ones. Its `skipped` says of every class that was not timed why.

    Raises:
        ProblemError: not a problem; a budget or a kind that is none.

    Example:
        >>> with fc.trace() as t:
        ...     model(x)
        >>> tuning = fc.tune(t, budget_s=10, file="machine.tuning")
        >>> with fc.options(tuning=tuning):
        ...     model(x)
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not budget_s > 0:
        raise ProblemError(f"tune: budget_s is {budget_s}; expected more than 0")
    if not kinds or not set(kinds) <= set(KINDS):
        raise ProblemError(f"tune: kinds is {kinds}; expected some of {KINDS}")
    budget = Budget(budget_s)
    section = _section(device)
    known = load(file) if file is not None and Path(file).exists() else Tuning({})
    held = {} if again else known.sections.get(section, {})
    jobs = [job for job in _jobs(problems, kinds) if (job.kind, job.shape_class) not in held]
    skipped = (
        {str(job): f"more than max_shapes={max_shapes}" for job in jobs[max_shapes:]} if max_shapes is not None else {}
    )
    jobs = jobs[:max_shapes]
    result = known
    with contextlib.suppress(KeyboardInterrupt):  # as if the budget were spent
        for i, job in enumerate(jobs):
            if progress:
                progress(i, len(jobs), str(job))
            entry = _measured(job, budget, budget.left / (len(jobs) - i), max_bytes, device, seed)
            if isinstance(entry, str):
                skipped[str(job)] = entry
                continue
            result = merge(result, Tuning({section: {(entry.kind, entry.shape_class): entry}}))
            if file is not None:
                result.save(file)
    timed = {(entry.kind, entry.shape_class) for _, entry in result}
    for job in jobs:
        if (job.kind, job.shape_class) not in timed:
            skipped.setdefault(str(job), "interrupted")
    if progress:
        progress(len(jobs), len(jobs), "")
    return Tuning(result.sections, str(file) if file is not None else None, skipped)


def _section(device: str) -> Section:
    if device == "cpu":
        return here(settings().isa, settings().threads)
    from .. import device as devices

    facts = devices.infos()[devices.numbered(device, "tune")]
    return dataclasses.replace(
        here(), machine=name_in_files(facts["name"]), isa=f"sm_{facts['architecture']}", threads=1
    )


def _jobs(problems: Any, kinds: tuple[str, ...]) -> list[Job]:
    """One per class and kind, those with the most predicted work first."""
    jobs: dict[tuple[str, str], Job] = {}
    heaviest: dict[tuple[str, str], float] = {}
    for problem in _listed(problems):
        rows = [row["estimate_s"] for row in _core.algorithms(problem, Options()) if row["supported"]]
        seconds = min(rows, default=0.0)
        for kind in kinds:
            if kind == "planned" and problem.pass_ != "fwd":
                continue
            key = kind, str(_core.shape_class(problem))
            job = jobs.setdefault(key, Job(*key, problem))
            job.weight += seconds
            if seconds > heaviest.get(key, 0.0):
                heaviest[key], job.problem = seconds, problem
    return sorted(jobs.values(), key=lambda job: -job.weight)


def _listed(problems: Any) -> list[ConvProblem]:
    if isinstance(problems, Trace):
        return [call["problem"] for call in problems.calls]
    if isinstance(problems, ConvProblem | str):
        problems = [problems]
    listed = []
    for problem in problems:
        if not isinstance(problem, ConvProblem | str):
            raise TypeError(f"tune: a problem is {type(problem).__name__}; expected a ConvProblem or its text form")
        listed.append(ConvProblem.parse(problem) if isinstance(problem, str) else problem)
    return listed


def _measured(job: Job, budget: Budget, share: float, max_bytes: int | None, device: str, seed: int) -> Entry | str:
    """An entry, or why there is none."""
    p, end = job.problem, budget.spent + share
    if not budget.allows(0):
        return "the budget is spent"
    rows = [row for row in algorithms(p, device) if row["supported"]]
    rows.sort(key=lambda row: row["estimate_s"])
    if max_bytes is not None:
        rows = [row for row in rows if p.bytes + row["workspace_bytes"] <= max_bytes]
    if not rows:
        return "no algorithm is usable" if max_bytes is None else f"no algorithm fits into max_bytes={max_bytes}"
    estimates = {row["name"]: row["estimate_s"] for row in rows if row["estimate_s"] <= SLACK * rows[0]["estimate_s"]}
    if not budget.allows(2 * sum(estimates.values())):
        return "the budget does not suffice for one round"
    data = Data(p, seed, device)
    calls: dict[str, Callable[[], object]] = {}
    repeats: dict[str, int] = {}
    for name, estimate in estimates.items():
        calls[name] = _call(data, job.kind, native(settings()._replace(algorithm=name, tuning=None)))
        seconds = _timed(calls[name], 1, device)  # fills caches, touches memory
        budget.learn(estimate, seconds)
        repeats[name] = max(1, min(1000, int(SAMPLE_S / seconds)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    alive = list(calls)
    for done in range(ROUNDS):
        if done and (budget.spent > end or not budget.allows(sum(estimates[name] * repeats[name] for name in alive))):
            break
        for name in alive if done % 2 else alive[::-1]:
            samples[name].append(_timed(calls[name], repeats[name], device))
        if done == 1:
            fastest = min(min(samples[name]) for name in alive)
            alive = [name for name in alive if min(samples[name]) <= HOPELESS * fastest]
    medians = {name: float(np.median(times)) for name, times in samples.items()}
    count = max(map(len, samples.values()))
    return Entry(job.kind, job.shape_class, count, str(p), ranked(medians, list(estimates)))


def _call(data: Data, kind: str, options: Options) -> Callable[[], object]:
    if kind == "call":
        return lambda: data.run(options)
    p = data.p
    alpha = activation_words(p.activation, "tune")[1]
    layout = () if data.native is _core else (LAYOUTS[p.layout],)
    plan = data.native.Plan(p, data.w, data.bias, alpha, 0.0, options, *layout)
    residual = data.y if p.has_residual else None
    return lambda: plan(data.x, residual)


def _timed(call: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of one call, the mean of some in a row."""
    if device != "cpu":
        return _timed_on_device(call, repeats)
    before = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - before) / repeats


def _timed_on_device(call: Callable[[], object], repeats: int) -> float:
    """As a trace has it: between the ends of the stream's work before and after each call."""
    handle = _core.trace_start()
    try:
        for _ in range(repeats):
            call()
    finally:
        entries = _core.trace_stop(handle)
    return float(np.mean([entry["seconds"] for entry in entries]))
