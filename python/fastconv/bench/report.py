# SPDX-License-Identifier: Apache-2.0
"""Results as tables on the terminal and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import timing

FORMAT = 1  # of the JSON; raised when a reader must change
BASELINE = "torch"
OURS = ("fastconv_plan", "fastconv")  # the first that was timed speaks for us
BUSY = 0.7  # load average from which others take a core; barriers between threads suffer most from that
LARGE = 0.2  # GFLOP from which a layer counts for shares of the peak and for scaling
Row = dict[str, Any]


def seconds_of(row: Row, name: str) -> list[float] | None:
    """The samples of a rival, or None if it was not timed."""
    seconds: list[float] | None = row["peers"].get(name, {}).get("seconds")
    return seconds


def ours(row: Row) -> str | None:
    return next((name for name in OURS if seconds_of(row, name)), None)


def best_rival(row: Row) -> str | None:
    """The fastest that is not fastconv; those whose result is wrong were not timed and do not count."""
    timed = {name: entry["median_s"] for name, entry in row["peers"].items() if "median_s" in entry}
    rivals = [name for name in timed if not name.startswith("fastconv")]
    return min(rivals, key=timed.__getitem__, default=None)


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
    """Geometric means over the layers where both sides were timed.

    Returns:
        speed_over: rival -> how many times faster we are, by plan where there is one; one_shot_over: the same without
        a plan. "best" is the fastest rival of each layer. Each has value, low, high and the number of layers.
        peak_share: of the large dense layers, as geometric mean and minimum; None without such layers.
    """
    names = dict.fromkeys(name for row in rows for name in row["peers"] if not name.startswith("fastconv"))
    rivals = [*names, "best"]
    shares = [peak_share(row, ours(row)) for row in rows if row["gflop"] >= LARGE and row["groups"] == 1]
    known = [share for share in shares if share]
    return {
        "speed_over": {rival: mean for rival in rivals if (mean := _mean_over(rows, rival, ours))},
        "one_shot_over": {rival: mean for rival in rivals if (mean := _mean_over(rows, rival, lambda _: OURS[-1]))},
        "peak_share": {"mean": timing.geometric_mean(known), "least": min(known), "layers": len(known)}
        if known
        else None,
    }


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
    ratios = []
    for found in by_problem.values():
        if few in found and many in found and found[few]["gflop"] >= LARGE:
            a, b = (found[t]["peers"].get(ours(found[t]), {}).get("median_s") for t in (few, many))
            if a and b:
                ratios.append(a / b)
    return {"mean": timing.geometric_mean(ratios), "least": min(ratios), "layers": len(ratios)} if ratios else None


def head(result: dict[str, Any]) -> str:
    """What ran where."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    machine = result["machine"]
    text = f"{machine['cpu']}, {machine['cores']} cores; commit {result['commit']}; {result['date']}\n{versions}"
    if machine["load"] > BUSY:
        text += f"\nload {machine['load']:.1f}: the machine is busy, these figures say little"
    return text


def print_layers(title: str, rows: list[Row], summary: dict[str, Any]) -> None:
    """Speeds with errors, our ratio to PyTorch and to the best rival, our share of the peak."""
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    header = ["layer", "GFLOP", *names, f"x {BASELINE} [95 %]", "x best", "% of peak", "algorithm"]
    body = []
    for row in rows:
        mine = ours(row)
        over, share, best = ratio(row, BASELINE, mine), peak_share(row, mine), ratio(row, best_rival(row), mine)
        cells = [row["layer"], f"{row['gflop']:.3f}", *(_speed(row, name) for name in names)]
        cells += [str(over) if over else "-", f"{best.value:.2f}" if best else "-"]
        cells += [f"{100 * share:.0f}" if share is not None else "-", row["peers"].get(mine, {}).get("algorithm", "-")]
        body.append(cells)
    print_table(f"{title}: effective GFLOP/s (largest error relative to the largest result)", header, body)
    for row in rows:
        for name, entry in row["peers"].items():
            if "wrong" in entry:
                print(f"  {name} does not count on {row['layer']}: {entry['wrong']}")
    refusals = dict.fromkeys(
        f"  {name}: {entry['refused']}" for row in rows for name, entry in row["peers"].items() if "refused" in entry
    )
    print("\n".join(refusals), end="\n" if refusals else "")
    for row in rows[:1]:
        if row.get("peak_gflops"):
            print(f"  multiply-add peak: {timing.median([p for r in rows for p in r['peak_gflops']]):.1f} GFLOP/s")
    print_summary(summary)
    print()


def print_summary(summary: dict[str, Any]) -> None:
    for key, who in (("speed_over", "fastconv"), ("one_shot_over", "fastconv one-shot")):
        for rival, mean in summary[key].items():
            estimate = timing.Estimate(mean["value"], mean["low"], mean["high"])
            print(f"  {who} over {rival}: {estimate}, geometric mean over {mean['layers']} layers")
    if share := summary["peak_share"]:
        print(
            f"  share of the peak on {share['layers']} dense layers of at least {LARGE} GFLOP: "
            f"{100 * share['mean']:.0f} % (geometric mean), {100 * share['least']:.0f} % (least)"
        )


def _speed(row: Row, name: str) -> str:
    entry = row["peers"].get(name, {})
    if "median_s" not in entry:
        return "wrong" if "wrong" in entry else "-"
    return f"{row['gflop'] / entry['median_s']:.1f} ({entry['error']:.0e})"


def print_table(title: str, header: list[str], body: list[list[str]]) -> None:
    """With rich where it is installed and writes to a terminal; else aligned text."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(title=title, title_justify="left")
            for i, name in enumerate(header):
                table.add_column(name, justify="left" if i in (0, len(header) - 1) else "right")
            for cells in body:
                table.add_row(*cells)
            Console().print(table)
            return
    rows = [header, *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    print(title)
    for row in rows:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


def progress(text: str) -> None:
    """A line that the next one replaces, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def save(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A saved result.

    Raises:
        ValueError: of another format.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result.get("format") != FORMAT:
        raise ValueError(f"{path.name} has the format {result.get('format')}; expected {FORMAT}")
    return result


def _rounded(value: Any) -> Any:
    """Five digits: samples are not better than that, and files stay small."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
