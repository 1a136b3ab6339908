# SPDX-License-Identifier: Apache-2.0
"""The one command for a machine with an NVIDIA GPU: `python -m bench.gpu_report`.

Builds what is missing, checks every algorithm against float64 on fresh random data, looks for errors with
compute-sanitizer, and times the layers of bench/gpu_classes.py against PyTorch with cuDNN. The result goes into
bench/results/<gpu>-<date>.json, written after every stage and class; `--resume FILE` goes on where it ended. Then
`python docs/make_gpu.py` writes docs/gpu.md and cuda/verified.h from it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import gpu_classes, gpu_machine, gpu_parity, gpu_sources, gpu_summary, repository
from bench.gpu_machine import MissingError
from fastconv.bench import report

KIND = "gpu"
STAGES = ("parity", "sanitizer", "timing")
BUDGET = 480.0
LEAST_SECONDS = 20.0  # no stage begins with less than this
# Of the time that is left, at most; what did not end is not verified, and is taken up again with --resume.
PARITY_SHARE = 0.6
SANITIZER_SHARE = 0.2


class Progress:
    """Bars with rich on a terminal, else lines."""

    def __init__(self) -> None:
        self._console: Any = None
        if sys.stdout.isatty():
            with contextlib.suppress(ImportError):
                self._console = importlib.import_module("rich.console").Console()

    def stage(self, text: str) -> None:
        if self._console:
            self._console.rule(text, align="left")
        else:
            print(text, flush=True)

    def step(self, text: str) -> None:
        report.progress(text)

    def done(self) -> None:
        report.progress("")


class Report:
    """A result that is written whenever something was added to it."""

    def __init__(self, result: dict[str, Any], path: Path, budget: float) -> None:
        self.result, self.path = result, path
        self._end = time.monotonic() + budget
        self.progress = Progress()

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def save(self) -> None:
        classes = self.result.get("classes", {})
        self.result["summary"] = gpu_summary.summary(classes)
        self.result["bandwidth"] = gpu_summary.bandwidth(classes)
        report.save(self.result, self.path)

    def out_of_time(self, what: str) -> bool:
        if self.seconds_left > LEAST_SECONDS:
            return False
        self.progress.done()
        print(f"the budget ended before {what}; go on with --resume {self.path}")
        return True


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m bench.gpu_report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(c.name for c in gpu_classes.CLASSES)
    p.add_argument("--only", metavar="CLASS,...", help=f"classes to time, of {names} (default: all)")
    p.add_argument("--stages", default=",".join(STAGES), help="what to do after the build (default %(default)s)")
    p.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="of all (default %(default)g)")
    p.add_argument("--resume", type=Path, metavar="FILE", help="go on with this result")
    p.add_argument("--seed", type=int, help="of the parity stage (default: a fresh one)")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<gpu>-<date>.json)")
    return p


def started(arguments: argparse.Namespace, gpu: gpu_machine.Gpu) -> tuple[dict[str, Any], Path]:
    """The result to go on with, or a new one, and its path.

    Raises:
        ValueError: the result to go on with is of another kind, GPU or kernels.
    """
    sources = gpu_sources.digests()
    if arguments.resume:
        result = report.load(arguments.resume)
        if result.get("kind") != KIND:
            raise ValueError(f"{arguments.resume.name} is of the kind {result.get('kind')}; expected {KIND}")
        if result["gpu"]["name"] != gpu.name:
            raise ValueError(f"{arguments.resume.name} is of {result['gpu']['name']}; this is {gpu.name}")
        if changed := [name for name in sources if result["sources"].get(name) != sources[name]]:
            raise ValueError(f"{', '.join(changed)} changed since {arguments.resume.name}; start anew")
        return result, arguments.resume
    result = {"format": report.FORMAT, "kind": KIND, **repository.surroundings("bench.gpu_report")}
    result |= {"gpu": dataclasses.asdict(gpu), "versions": gpu_machine.versions(), "sources": sources}
    result["seed"] = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 31)
    path = arguments.out or repository.RESULTS / f"{gpu.slug}-{result['date'][:10]}.json"
    return result, path


def check_values(work: Report, library: Path) -> None:
    """The parity stage."""
    seed, parity = work.result["seed"], work.result.setdefault("parity", {})
    names = [*work.result["build"]["device"]["algorithms"], gpu_sources.POOL, gpu_sources.OPS]
    names = [name for name in names if parity.get(name, {"late": True}).get("late")]
    if not names or work.out_of_time("the parity stage"):
        return
    work.progress.stage(f"parity, seed {seed}: {', '.join(names)}")
    found = gpu_parity.parity(library, names, seed, PARITY_SHARE * work.seconds_left)
    parity |= found
    for name, entry in found.items():
        said = "passed" if entry["passed"] else entry.get("ended", "FAILED" if entry["failures"] else "not passed")
        print(f"  {name}: {entry['runs']} runs, {entry['failures']} failures: {said}")
        for failure in entry.get("failed", [])[:3]:
            print(f"    {failure}")
    work.save()


def check_memory(work: Report, library: Path) -> None:
    """The sanitizer's stage."""
    if "sanitizer" in work.result or work.out_of_time("compute-sanitizer"):
        return
    work.progress.stage("compute-sanitizer on a sample")
    seconds = max(LEAST_SECONDS, SANITIZER_SHARE * work.seconds_left)
    work.result["sanitizer"] = found = gpu_parity.sanitize(library, work.result["seed"], seconds)
    for name, entry in found.items():
        text = entry if isinstance(entry, str) else entry.get("did not run") or f"status {entry['status']}"
        print(f"  {name}: {text}")
    work.save()


def time_classes(work: Report, classes: list[gpu_classes.Class]) -> bool:
    """The timing stage.

    Returns:
        whether the device still lives; if not, another process has to go on.
    """
    try:
        torch: Any = importlib.import_module("torch")
        usable = bool(torch.cuda.is_available())
    except ImportError:
        torch, usable = None, False
    if not usable:
        why = "PyTorch is not installed" if torch is None else "this PyTorch has no CUDA, or finds no GPU"
        work.result["timing"] = f"did not run: {why}"
        print(f"timing {work.result['timing']}")
        work.save()
        return True
    work.result.pop("timing", None)
    timing: Any = importlib.import_module("bench.gpu_timing")
    wrong = gpu_summary.wrong(work.result.get("parity", {}))
    rows = timing.Rows(torch, work.result["gpu"]["l2_bytes"], set(wrong))
    found = work.result.setdefault("classes", {})
    for c in classes:
        entry = found.setdefault(c.name, {"finished": False, "rows": {}})
        left = [p for p in c.problems() if p.key not in entry["rows"]]
        if left:
            work.progress.stage(f"{c.name}: {c.title}, {len(left)} rows")
        for i, problem in enumerate(left):
            if work.seconds_left < 1:
                work.save()
                work.out_of_time(f"the end of {c.name}")
                return True
            work.progress.step(f"{i + 1} of {len(left)}: {problem.key}")
            try:
                entry["rows"][problem.key] = rows.measure(c, problem)
            except timing.BrokenDeviceError as broken:
                entry["rows"][problem.key] = broken.row
                print(f"{problem.key}: {broken.row.get('running', 'a call')} broke the device: {broken}")
                work.save()
                return False
        entry["finished"] = True
        work.progress.done()
        work.save()
    return True


def print_result(result: dict[str, Any], path: Path) -> None:
    head, body = gpu_summary.lines(result)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"\n{result['gpu']['name']}; commit {result['commit']}; {result['date']}\n{versions}")
    report.print_table("", head, body)
    parity = result.get("parity", {})
    right = gpu_summary.passed(parity)
    print(f"right in every run: {', '.join(right) or 'none'}")
    if rest := sorted(set(parity) - set(right)):
        print(f"not: {', '.join(rest)}")
    for c in gpu_classes.CLASSES:
        for key in result["summary"][c.name].get("bad", []):
            print(f"wrong or failed: {key}")
    print(f"saved: {path}; python docs/make_gpu.py makes docs/gpu.md and cuda/verified.h of it")


def is_well(result: dict[str, Any]) -> bool:
    """Whether nothing that ran was wrong."""
    parity = result.get("parity", {})
    clean = all(e.get("clean", True) for e in result.get("sanitizer", {}).values() if isinstance(e, dict))
    right = not any(entry.get("bad") for entry in result["summary"].values())
    return not gpu_summary.wrong(parity) and clean and right


def go_on(arguments: argparse.Namespace, work: Report) -> int:
    """The rest in a new process: the device of this one is gone."""
    words = [sys.executable, "-m", "bench.gpu_report", "--resume", str(work.path), "--stages", arguments.stages]
    words += ["--budget", f"{max(work.seconds_left, 0):.0f}"]
    if arguments.only:
        words += ["--only", arguments.only]
    return subprocess.run(words, cwd=repository.ROOT, check=False).returncode


def main(words: list[str] | None = None) -> int:
    p = parser()
    arguments = p.parse_args(words)
    stages = arguments.stages.split(",")
    try:
        classes = gpu_classes.chosen(arguments.only)
    except ValueError as error:
        p.error(str(error))
    if unknown := set(stages) - set(STAGES):
        p.error(f"there is no stage {', '.join(sorted(unknown))}; the stages are {', '.join(STAGES)}")
    try:
        gpu = gpu_machine.gpu()
        result, path = started(arguments, gpu)
        work = Report(result, path, arguments.budget)
        work.progress.stage(f"{gpu.name}, compute capability {gpu.architecture / 10}: building")
        library, about = gpu_machine.prepare(gpu.architecture)
    except (MissingError, ValueError, OSError, json.JSONDecodeError) as error:
        print(f"bench.gpu_report: {error}", file=sys.stderr)
        return 1
    result.setdefault("build", about)
    work.save()
    try:
        if "parity" in stages:
            check_values(work, library)
        if "sanitizer" in stages:
            check_memory(work, library)
        lives = "timing" not in stages or time_classes(work, classes)
    except KeyboardInterrupt:
        work.progress.done()
        work.save()
        print(f"stopped; go on with --resume {path}")
        return 130
    if not lives:
        return go_on(arguments, work)
    print_result(result, path)
    return 0 if is_well(result) else 1


if __name__ == "__main__":
    sys.exit(main())
