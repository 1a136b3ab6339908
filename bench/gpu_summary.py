# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench.gpu_report come to: a geometric mean per class beside its target, the copies' share, and what
the automatic choice lost. Plain functions of a result, which the page (docs/make_gpu.py) uses too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bench.gpu_classes import CLASSES, COPY_SHARE, SMALL_FILTER, filter_size

Row = dict[str, Any]


def geometric_mean(values: Iterable[float]) -> float | None:
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def ratio(row: Row) -> float | None:
    """PyTorch's time over ours; None where one of them was not timed."""
    theirs, ours = row.get("torch", {}).get("median_s"), row.get("ours", {}).get("median_s")
    return theirs / ours if theirs and ours else None


def copy_share(row: Row) -> float | None:
    """The time of a copy of the same bytes over ours: the part of the copy's bandwidth that ours reaches."""
    copy, ours = row.get("copy", {}).get("median_s"), row.get("ours", {}).get("median_s")
    return copy / ours if copy and ours else None


def regret(row: Row) -> float | None:
    """The time of the chosen algorithm over that of the best one, less 1; from the short timings of both."""
    times, chosen = row.get("algorithms", {}), row.get("chosen")
    return times[chosen] / min(times.values()) - 1 if chosen in times else None


def summary(classes: dict[str, Any]) -> dict[str, Any]:
    """Class -> target, mean, rows that count, rows in all, worst row, and whether the target is met.

    Args:
        classes: name -> {"rows": {key: row}, "finished": bool}, as in a result. A class that was not run has no mean;
            one that is not finished, or in which our result was wrong or failed, meets nothing.
    """
    found: dict[str, Any] = {}
    for c in CLASSES:
        measured = classes.get(c.name, {})
        rows: dict[str, Row] = measured.get("rows", {})
        ratios = {key: r for key, row in rows.items() if (r := ratio(row)) is not None}
        bad = [
            key
            for key, row in rows.items()
            if {"wrong", "failed"} & row.get("ours", {}).keys() or "failed" in row.get("case", {})
        ]
        mean = geometric_mean(ratios.values())
        entry: dict[str, Any] = {"target": c.target, "mean": mean, "counted": len(ratios), "rows": len(c.problems())}
        if ratios:
            worst = min(ratios, key=lambda key: ratios[key])
            entry |= {"worst": worst, "worst_ratio": ratios[worst]}
        if bad:
            entry["bad"] = bad
        if mean is not None and c.target is not None:
            entry["met"] = mean >= c.target and measured.get("finished", False) and not bad
        if regrets := [r for row in rows.values() if (r := regret(row)) is not None]:
            entry["regret"] = sum(regrets) / len(regrets)
        found[c.name] = entry
    return found


def bandwidth(classes: dict[str, Any]) -> dict[str, Any]:
    """Class -> mean and least share of the copy's bandwidth, of filters up to 7 and the passes that write images."""
    found: dict[str, Any] = {}
    for c in CLASSES:
        shares = {
            key: share
            for key, row in classes.get(c.name, {}).get("rows", {}).items()
            if row["pass"] != "bwd_filter" and (c.pooling or filter_size(row["problem"]) <= SMALL_FILTER)
            if (share := copy_share(row)) is not None
        }
        if shares:
            least = min(shares, key=lambda key: shares[key])
            mean = geometric_mean(shares.values())
            found[c.name] = {"mean": mean, "least": shares[least], "least_row": least, "rows": len(shares)}
            if c.name.startswith("depthwise"):
                found[c.name]["target"] = COPY_SHARE
    return found


def passed(parity: dict[str, Any]) -> list[str]:
    """The algorithms whose every run was right, of those that ran at all."""
    return sorted(name for name, entry in parity.items() if entry.get("passed") and entry.get("runs", 0) > 0)


def wrong(parity: dict[str, Any]) -> list[str]:
    """The algorithms that gave a wrong result, or whose check did not come to its end; not those that never ran."""
    return sorted(
        name for name, entry in parity.items() if not entry["passed"] and (entry["failures"] or "ended" in entry)
    )


def lines(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the class table, for a terminal and for the page."""
    titles = {c.name: c.title for c in CLASSES}
    body = []
    shares = result.get("bandwidth", {})
    for name, entry in result["summary"].items():
        mean, target = entry["mean"], entry["target"]
        cells = [titles[name], f"{target:.1f}" if target else "-", f"{mean:.2f}" if mean else ""]
        cells += [{True: "yes", False: "no"}.get(entry.get("met"), "")]
        cells += [f"{entry['counted']} of {entry['rows']}" if mean else ""]
        cells += [f"{entry['worst_ratio']:.2f}: {entry['worst']}" if "worst" in entry else ""]
        cells += [f"{100 * shares[name]['mean']:.0f} %" if name in shares else ""]
        body.append([*cells, f"{100 * entry['regret']:.0f} %" if "regret" in entry else ""])
    head = ["class", "target", "PyTorch / ours", "met", "rows", "worst", "of a copy", "choice lost"]
    return head, body
