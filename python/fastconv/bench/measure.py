# SPDX-License-Identifier: Apache-2.0
"""One row of a result: every rival prepares the same task, is checked against float64, then all are timed in turn."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import peers, timing
from .worker import Worker, WorkerError

BEFORE_TIMING = 3  # calls that warm up and say how many make a sample


@dataclass(frozen=True)
class Settings:
    """How it is measured; written into every result."""

    rounds: int = 15
    min_sample_s: float = 0.05  # a sample lasts at least this long
    settle_s: float = 0.06  # untimed calls before each sample: ONNX Runtime's threads spin for 28 ms after a run
    cold: bool = False  # empty the caches before each call
    error_limit: float = 1e-4  # a result further from float64 counts as wrong and is not timed
    seed: int = 0


def largest_error(result: peers.Array, reference: peers.Array) -> float:
    """The largest abs(result - reference), relative to the largest abs(reference); infinite if one is NaN."""
    if result.shape != reference.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    difference = float(np.max(np.abs(result.astype(np.float64) - reference)))
    scale = float(np.max(np.abs(reference)))
    return difference / scale if np.isfinite(difference) and scale > 0 else float("inf")


def reference_result(
    task: peers.Task, workers: Mapping[str, Worker], names: tuple[str, ...]
) -> tuple[str, peers.Array]:
    """The float64 answer, from the first of `names` that does not refuse."""
    refusals = []
    for name in names:
        if name not in workers:
            continue
        try:
            workers[name].prepare(task)
        except peers.RefusedError as refusal:
            refusals.append(f"{name}: {refusal}")
            continue
        return name, workers[name].result()
    raise RuntimeError(f"no reference for {task}: {'; '.join(refusals) or 'neither torch nor fastconv is installed'}")


def check(task: peers.Task, workers: Mapping[str, Worker], reference: peers.Array, limit: float) -> dict[str, Any]:
    """name -> what the rival says about itself and its error, or why it is not timed (`refused`, `wrong`)."""
    found: dict[str, Any] = {}
    for name, worker in workers.items():
        try:
            about = worker.prepare(task)
            error = largest_error(worker.result(), reference)
        except peers.RefusedError as refusal:
            found[name] = {"refused": str(refusal)}
            continue
        except WorkerError as failure:
            if name.startswith("fastconv"):
                raise
            found[name] = {"refused": f"failed: {str(failure).strip().splitlines()[-1]}"}
            worker.restart()
            continue
        found[name] = {**about, "error": error if np.isfinite(error) else None}
        if not error <= limit:
            found[name]["wrong"] = f"error {error:.1e} is over {limit:.0e}"
    return found


def measure(
    task: peers.Task,
    workers: Mapping[str, Worker],
    reference: peers.Array,
    settings: Settings,
    peak: Worker | None = None,
) -> dict[str, Any]:
    """Check, then time.

    Returns:
        peers: name -> algorithm, error, ..., and for those that were timed seconds (one per round), median_s, spread;
        peak_gflops: one multiply-add peak per round, with a `peak` worker.
    """
    found = check(task, workers, reference, settings.error_limit)
    timed = {name: workers[name] for name, entry in found.items() if "refused" not in entry and "wrong" not in entry}
    samplers: dict[str, Callable[[], float]] = {}
    for name, worker in timed.items():
        repeats = 1
        if not settings.cold:
            once = worker.run(BEFORE_TIMING, settings.settle_s)
            repeats = timing.repeats_for(once, settings.min_sample_s)
        else:
            repeats = BEFORE_TIMING
        samplers[name] = _sampler(worker, repeats, settings)
    if peak is not None:
        samplers["fma_peak"] = lambda: float(peak.ask("peak", seconds=settings.min_sample_s))
    samples = timing.interleave(samplers, settings.rounds, np.random.default_rng(settings.seed))
    row: dict[str, Any] = {"threads": next(iter(workers.values())).threads, "peers": found}
    if peak is not None:
        row["peak_gflops"] = samples.pop("fma_peak")
    for name, seconds in samples.items():
        found[name] |= {"median_s": timing.median(seconds), "spread": timing.spread(seconds), "seconds": seconds}
    return row


def _sampler(worker: Worker, repeats: int, settings: Settings) -> Callable[[], float]:
    return lambda: worker.run(repeats, settings.settle_s, settings.cold)


@contextlib.contextmanager
def start(names: list[str], threads: int, isa: str | None) -> Iterator[dict[str, Worker]]:
    """A process for each installed rival; those that are missing, or do not start, are left out.

    Args:
        names: of peers; name@isa is fastconv with an instruction set of its own.
        isa: fastconv's instruction set otherwise.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in filter(peers.installed, names):
            wanted = name.partition("@")[2] or isa
            variables = {"FASTCONV_ISA": wanted} if wanted and name.startswith("fastconv") else None
            workers[name] = stack.enter_context(Worker(name, threads, variables))
        for name in list(workers):
            try:
                workers[name].ask("versions")
            except WorkerError:
                if name.startswith("fastconv"):
                    raise
                del workers[name]
        yield workers


def versions(workers: Mapping[str, Worker]) -> dict[str, str]:
    found: dict[str, str] = {"python": platform.python_version()}
    for worker in workers.values():
        told = worker.ask("versions")
        found |= {key: value for key, value in told.items() if key not in found}  # of two instruction sets the first
    return found


def surroundings(program: str) -> dict[str, Any]:
    """When, on what and by which command (but for where it writes): the head of every result."""
    arguments = iter(sys.argv[1:])
    told = [word for word in arguments if word not in ("--json", "--out") or next(arguments, None) is None]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": f"{program} {shlex.join(told)}".rstrip(),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load": os.getloadavg()[0],
        },
    }


def cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
