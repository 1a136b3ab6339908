# SPDX-License-Identifier: Apache-2.0
"""What a measurement in this repository adds: its commit, and the folder of its results."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from fastconv.bench import measure, report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def surroundings(module: str) -> dict[str, Any]:
    """When, on what, by which command of `module` and from which commit: the head of every result."""
    return {**measure.surroundings(f"python -m {module}"), "commit": commit()}


def commit() -> str:
    """The commit of this tree, with "+" if tracked files differ from it; "unknown" outside of git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def save(result: dict[str, Any], path: Path | None) -> Path:
    """Write a result; without a path into bench/results, named by date, kind and commit."""
    if path is None:
        stamp = result["date"][:16].replace(":", "").replace("T", "-")
        path = RESULTS / f"{stamp}-{result['kind']}-{result['commit'].rstrip('+')}.json"
    report.save(result, path)
    return path
