# SPDX-License-Identifier: Apache-2.0
"""What a result says: ratios, shares of the peak, scaling. A row is one layer in one pass with one thread count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import timing

OURS = ("fastconv_plan", "fastconv")  # the first that was timed speaks for us
LARGE = 0.2  # GFLOP from which a layer counts for shares of the peak and for scaling
SLOW = 0.95  # a layer counts as lost when its whole interval lies below
MAPS = 14  # height and width from which 3x3 layers are compared with ncnn
Row = dict[str, Any]


def seconds_of(row: Row, name: str) -> list[float] | None:
    """The samples of a rival, or None if it was not timed."""
    seconds: list[float] | None = row["peers"].get(name, {}).get("seconds")
    return seconds


def ours(row: Row) -> str | None:
    return next((name for name in OURS if seconds_of(row, name)), None)


def is_rival(name: str) -> bool:
    return not name.startswith("fastconv")


def best_rival(row: Row) -> str | None:
    """The fastest that is not fastconv; those whose result is wrong were not timed and do not count."""
    timed = {name: entry["median_s"] for name, entry in row["peers"].items() if "median_s" in entry}
    return min(filter(is_rival, timed), key=timed.__getitem__, default=None)


def ratio(row: Row, theirs: str | None, mine: str | None) -> timing.Estimate | None:
    """How many times faster `mine` is than `theirs`."""
    a = seconds_of(row, theirs) if theirs else None
    b = seconds_of(row, mine) if mine else None
    return timing.paired_ratio(a, b) if a and b else None


def peak_share(row: Row, name: str | None) -> float | None:
    """Direct-convolution FLOPs per second over the multiply-add peak of the same round, for float32."""
    seconds = seconds_of(row, name) if name else None
    if not seconds or not row.get("peak_gflops") or row["dtype"] != "f32":
        return None
    return timing.median([row["gflop"] / s / p for s, p in zip(seconds, row["peak_gflops"], strict=True)])


def summarise(rows: list[Row]) -> dict[str, Any]:
    """What the rows of one pass and thread count say together.

    Returns:
        speed_over: rival -> how many times faster we are, by plan where there is one, as a geometric mean over the
        layers where both were timed; one_shot_over: the same without a plan. "best" is the fastest rival of each
        layer. Each has value, low, high and the number of layers.
        lost: layer -> our ratio to the best rival, where its whole interval lies below 0.95.
        ncnn_3x3: layer -> our ratio to ncnn, on 3x3 layers of stride 1 whose output is 14x14 or more.
        peak_share: of the large dense layers: mean (geometric), least, layers; None without such layers.
        isa_over: instruction set that was timed besides -> its speed over that of the one in use: mean, least, layers.
    """
    names = dict.fromkeys(name for row in rows for name in row["peers"])
    rivals = [*filter(is_rival, names), "best"]
    shares = {row["layer"]: peak_share(row, ours(row)) for row in rows if row["gflop"] >= LARGE and row["groups"] == 1}
    isas = dict.fromkeys(name.partition("@")[2] for name in names if "@" in name)
    return {
        "speed_over": {rival: mean for rival in rivals if (mean := _mean_over(rows, rival, ours))},
        "one_shot_over": {rival: mean for rival in rivals if (mean := _mean_over(rows, rival, lambda _: OURS[-1]))},
        "lost": {
            row["layer"]: over._asdict()
            for row in rows
            if (over := ratio(row, best_rival(row), ours(row))) and over.high < SLOW
        },
        "ncnn_3x3": {
            row["layer"]: over._asdict() for row in rows if is_3x3(row) and (over := ratio(row, "ncnn", ours(row)))
        },
        "peak_share": spread_of({layer: share for layer, share in shares.items() if share}),
        "isa_over": {isa: spread_of(_isa_speeds(rows, isa)) for isa in isas},
    }


def spread_of(values: dict[str, float]) -> dict[str, Any] | None:
    """Geometric mean and least of one value per layer, and which layer has the least."""
    if not values:
        return None
    least = min(values, key=values.__getitem__)
    mean = timing.geometric_mean(list(values.values()))
    return {"mean": mean, "least": values[least], "least_layer": least, "layers": len(values)}


def is_3x3(row: Row) -> bool:
    """A 3x3 layer of stride 1 whose output is 14x14 or larger."""
    words = row["problem"].split()
    size = row.get("output") or []
    return {"r3", "s3", "stride1"} <= set(words) and len(size) == 2 and min(size) >= MAPS


def _isa_speeds(rows: list[Row], isa: str) -> dict[str, float]:
    found = {}
    for row in rows:
        if (mine := ours(row)) and (over := ratio(row, mine, f"{mine}@{isa}")):
            found[row["layer"]] = over.value
    return found


def _mean_over(rows: list[Row], rival: str, mine: Callable[[Row], str | None]) -> dict[str, Any] | None:
    pairs = []
    for row in rows:
        them, us = best_rival(row) if rival == "best" else rival, mine(row)
        if them and us and (a := seconds_of(row, them)) and (b := seconds_of(row, us)):
            pairs.append((a, b))
    return {**timing.geometric_mean_ratio(pairs)._asdict(), "layers": len(pairs)} if pairs else None


def scaling(rows: list[Row], few: int, many: int) -> dict[str, Any] | None:
    """How many times faster fastconv is with `many` threads than with `few`, on the large layers: mean and least."""
    by_problem: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_problem.setdefault(row["problem"], {})[row["threads"]] = row
    gains = {}
    for found in by_problem.values():
        if few in found and many in found and found[few]["gflop"] >= LARGE:
            a, b = (found[t]["peers"].get(ours(found[t]), {}).get("median_s") for t in (few, many))
            if a and b:
                gains[found[few]["layer"]] = a / b
    return spread_of(gains)


def milliseconds(entry: Mapping[str, Any]) -> str | None:
    """The median time of a peer and its error, as a table shows them; None where it was not timed."""
    return f"{1e3 * entry['median_s']:.2f} ({entry['error']:.0e})" if "median_s" in entry else None


def cells(rows: list[Row], mine: str, over: Callable[[Row], Sequence[str | None]]) -> tuple[list[str], list[list[str]]]:
    """(the names of all peers, a table's lines): problem, threads, the milliseconds of each, our ratios."""
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    lines = []
    for row in rows:
        line = [row["problem"], str(row["threads"])]
        for name in names:
            entry = row["peers"].get(name, {})
            line.append(milliseconds(entry) or ("wrong" if "wrong" in entry else "-"))
        lines.append([*line, *(str(ratio(row, name, mine) or "-") for name in over(row))])
    return names, lines
