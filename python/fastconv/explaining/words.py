# SPDX-License-Identifier: Apache-2.0
"""Numbers as a person reads them, and the sentences that table and page share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..explain import Explanation


def count(n: float) -> str:
    for size, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if n >= 0.9995 * size:  # from there on three digits round to 1
            return f"{n / size:.3g} {word}"
    return f"{n:,}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.3g} s"
    return f"{1e3 * value:.3f} ms" if value >= 1e-3 or value == 0 else f"{1e6 * value:.1f} us"


def size(n: int | None) -> str:
    if n is None:
        return "-"
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= step:
            return f"{n / step:.1f} {unit}"
    return f"{n} B"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def ulps(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.1e}"


def speed(row: dict[str, Any], macs: int, time: float | None) -> str:
    """GFLOP/s of the problem, as if all of its multiply-adds were done."""
    return f"{2e-9 * macs / time:.1f}" if time else "-"


def bits(row: dict[str, Any]) -> str:
    """Over what an algorithm gives the same bits, in a few words."""
    same = row["same_bits"]
    over = ["threads"] if same.get("threads") else ["runs"]
    over += ["batch"] if same["batch"] else []
    over += {"every instruction set": ["all ISAs"], "avx2 and avx512": ["avx2=avx512"]}.get(same["isas"], [])
    return ", ".join(over)


def refusal(row: dict[str, Any]) -> str:
    """Why a row cannot run, with its name once."""
    reason: str = row["reason"]
    return reason if reason.startswith(row["name"]) else f"{row['name']}: {reason}"


def head(e: "Explanation") -> list[str]:
    """What is computed, where, and who wins by how much."""
    p = e.problem
    where = e.device
    usable = e.usable
    if usable and e.device == "cpu":
        threads = max(row["threads"] for row in usable)
        where = f"{threads} thread{'s' if threads > 1 else ''}"
    lines = [f"{count(p.macs)} multiply-adds, {size(p.bytes)} in x, w and y; {where}"]
    if not e.chosen:
        return [*lines, "the algorithm that was asked for cannot run" if usable else "no algorithm is usable"]
    line = f"{e.chosen} is chosen" + (f" by tuning {e.tuning}" if e.tuning else "")
    margin = e.margin
    if margin["predicted"] is not None:
        line += f": predicted {margin['predicted']:.2f} times as fast as {e.runner_up}"
    if margin["measured"] is not None:
        faster = next(row for row in usable if row["name"] != e.chosen and row["measured_s"])
        line += f", measured {margin['measured']:.2f} times as fast as {faster['name']}"
    lines.append(line)
    if e.budget:
        lines.append(f"spent {e.budget['spent_s']:.2f} s of a budget of {e.budget['granted_s']:g} s")
    if any(row["max_error"] is not None for row in usable):
        lines.append("errors against float64: max and rms relative to the largest |result|, ulp of each result")
    return lines


def phases(row: dict[str, Any]) -> str:
    """Shares of the measured phases, where there are none of the predicted ones."""
    parts = row["phases"] or row["predicted_phases"]
    total = sum(parts.values()) or 1.0
    shown = [f"{name} {100 * part / total:.0f} %" for name, part in parts.items() if part >= 0.005 * total]
    return ", ".join(shown)
