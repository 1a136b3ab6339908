# SPDX-License-Identifier: Apache-2.0
"""Whether every algorithm is right on the GPU: check_cuda, check_cuda_pool and check_cuda_ops, by values and under
compute-sanitizer.

An algorithm has a process of its own: a kernel that goes beside its memory ends the device's context, and with it all
that would have come after.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.gpu_machine import check_program
from bench.gpu_sources import OPS, POOL
from bench.repository import ROOT

FILES = ("small.txt", "regressions.txt", "halves.txt")
# What is no convolution -> its program, and how many cases that draws; of them the sanitizer sees fewer.
DRAWN = {POOL: ("check_cuda_pool", 2000), OPS: ("check_cuda_ops", 2000)}
AT_ONCE = 4  # processes on the one GPU
KEPT = 20  # failures that are recorded of an algorithm
SANITIZER_EVERY = 40
SANITIZER_CASES = 50
TAIL = 12  # lines of the sanitizer's output
_SUMMARY = re.compile(r"(\d+) problems, (\d+) runs, (\d+) failures")
_REFUSAL = re.compile(r"not supported|unsupported|unable to|failed to (init|launch)", re.IGNORECASE)
_DRAWN_SUMMARY = re.compile(
    r"(\d+) (?:pooling problems|pointwise operations), (\d+) (?:of positions|normalisations), (\d+) failures"
)


def command(library: Path, algorithm: str, seed: int, every: int = 1) -> list[str]:
    """The check of an algorithm, or of what is no convolution; `every`: only one of so many problems."""
    if algorithm in DRAWN:
        program, cases = DRAWN[algorithm]
        return [str(check_program(program)), str(library), str(cases // every), str(seed)]
    files = [str(ROOT / "tests" / "problems" / name) for name in FILES]
    words = [str(check_program("check_cuda")), str(library), *files, "--algorithm", algorithm, "--seed", str(seed)]
    return [*words, "--every", str(every)] if every > 1 else words


def read(status: int, output: str) -> dict[str, Any]:
    """What a check says: problems, runs, failures and whether all is well.

    Args:
        status: its exit status; negative: the signal that ended it.
    """
    failures = [line for line in output.splitlines() if line.startswith("FAILED")]
    entry: dict[str, Any] = {"runs": 0, "failures": len(failures), "passed": False}
    if found := _SUMMARY.search(output):
        entry |= {"problems": int(found[1]), "runs": int(found[2]), "failures": int(found[3])}
    elif found := _DRAWN_SUMMARY.search(output):
        entry |= {"problems": int(found[1]), "runs": int(found[1]) + int(found[2]), "failures": int(found[3])}
    else:
        tail = output.strip().splitlines()[-1:] or ["it said nothing"]
        entry["ended"] = f"status {status}: {tail[0]}"
    if failures:
        entry["failed"] = failures[:KEPT]
    entry["passed"] = status == 0 and entry["failures"] == 0 and entry["runs"] > 0
    return entry


def check(words: list[str], seconds: float) -> dict[str, Any]:
    """Run a check for so long at most."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        entry = read(-1, (late.stdout or b"").decode(errors="replace"))
        return {**entry, "ended": f"it did not end within {seconds:.0f} s", "late": True, "passed": False}
    except OSError as error:
        return {"runs": 0, "failures": 0, "passed": False, "late": True, "ended": f"it did not start: {error}"}
    return read(done.returncode, done.stdout.decode(errors="replace"))


def parity(library: Path, names: list[str], seed: int, seconds: float) -> dict[str, Any]:
    """Algorithm, "pool" or "ops" -> what `read` makes of its check."""
    most = max(1, min(AT_ONCE, (os.cpu_count() or 2) - 1))
    with ThreadPoolExecutor(most) as workers:
        entries = workers.map(lambda name: check(command(library, name, seed), seconds), names)
        return dict(zip(names, entries, strict=True))


def find_sanitizer() -> str | None:
    """compute-sanitizer on PATH or beside the usual toolkit."""
    usual = Path("/usr/local/cuda/bin/compute-sanitizer")
    return shutil.which("compute-sanitizer") or (str(usual) if usual.is_file() else None)


def sanitize(library: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Tool and check -> status and tail of its output, on a sample of the problems; or why it did not run.

    Args:
        seconds: of each of the six runs, which go side by side.
    """
    program = find_sanitizer()
    if program is None:
        return {"did not run": "compute-sanitizer was not found"}
    files = [str(ROOT / "tests" / "problems" / name) for name in FILES]
    convolutions = [str(check_program("check_cuda")), str(library), *files]
    convolutions += ["--every", str(SANITIZER_EVERY), "--seed", str(seed)]
    checks = {"check_cuda": convolutions}
    for program, _ in DRAWN.values():
        checks[program] = [str(check_program(program)), str(library), str(SANITIZER_CASES), str(seed)]
    found: dict[str, Any] = {}
    for tool in ("memcheck", "racecheck"):
        for name, words in checks.items():
            found[f"{tool} {name}"] = [program, "--tool", tool, "--error-exitcode", "99", *words]
    with ThreadPoolExecutor(len(found)) as workers:
        entries = workers.map(lambda words: _sanitized(words, seconds), found.values())
        return dict(zip(found, entries, strict=True))


def _sanitized(words: list[str], seconds: float) -> dict[str, Any]:
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"did not run": f"it did not end within {seconds:.0f} s"}
    except OSError as error:
        return {"did not run": str(error)}
    return told(done.returncode, done.stdout.decode(errors="replace"))


def told(status: int, output: str) -> dict[str, Any]:
    """What the sanitizer said. One that refuses the device has checked nothing, whatever its status."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    refused = [line for line in lines if _REFUSAL.search(line)]
    if refused and not _SUMMARY.search(output) and not _DRAWN_SUMMARY.search(output):
        return {"did not run": refused[0].lstrip("= "), "status": status}
    return {"status": status, "clean": status == 0, "tail": lines[-TAIL:]}
