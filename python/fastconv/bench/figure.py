# SPDX-License-Identifier: Apache-2.0
"""The picture of a result: speed against error, one point per layer and rival. Needs matplotlib."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from . import timing
from .summary import Row, is_rival

COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#8C564B", "#7F7F7F", "#BCBD22", "#000000")
MARKERS = ("*", "P", "o", "s", "^", "v", "D", "X", "<", ">")
SMALLEST = 1e-8  # errors below, of which exact zeros, are drawn here


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the figure; its format is that of the file's name."""
    matplotlib: Any = importlib.import_module("matplotlib.figure")
    rows = result["rows"]
    parts = list(dict.fromkeys((row["pass"], row["threads"]) for row in rows))
    counts = list(dict.fromkeys(threads for _, threads in parts))
    passes = list(dict.fromkeys(pass_ for pass_, _ in parts))
    names = list(dict.fromkeys(name for row in rows for name in row["peers"] if "@" not in name))
    figure = matplotlib.Figure(figsize=(5.5 * len(counts) + 2.2, 4.6 * len(passes) + 0.5), layout="constrained")
    axes = figure.subplots(len(passes), len(counts), squeeze=False, sharex=True, sharey="row")
    for i, pass_ in enumerate(passes):
        for j, threads in enumerate(counts):
            of_part = [row for row in rows if (row["pass"], row["threads"]) == (pass_, threads)]
            _part(axes[i][j], f"{pass_}, {threads} thread{'s' if threads > 1 else ''}", of_part, names)
        axes[i][0].set_ylabel("effective GFLOP/s")
    for ax in axes[-1]:
        ax.set_xlabel("largest error, relative to the largest result")
    limit = result["settings"]["error_limit"]
    for ax in axes.flat:
        ax.axvline(limit, color="0.4", linestyle="--", linewidth=1)
        ax.text(limit, 0.02, "limit ", transform=ax.get_xaxis_transform(), ha="right", fontsize=8, color="0.4")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    cpu, layers = result["machine"]["cpu"], len({row["layer"] for row in rows})
    figure.suptitle(
        f"{layers} layers on {cpu}\na point: a layer; outlined: geometric means of those that count",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _part(ax: Any, title: str, rows: list[Row], names: list[str]) -> None:
    for number, name in enumerate(names):
        entries = [(row["gflop"], row["peers"].get(name, {})) for row in rows]
        points = [(max(e["error"], SMALLEST), gflop / e["median_s"]) for gflop, e in entries if "median_s" in e]
        if not points:
            continue
        errors, speeds = zip(*points, strict=True)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        size = 24 if is_rival(name) else 60
        ax.scatter(errors, speeds, s=size, c=colour, marker=marker, alpha=0.5, linewidths=0)
        means = timing.geometric_mean(errors), timing.geometric_mean(speeds)
        label = name.replace("_", " ")
        if len(points) < len(rows):
            note = f"{len(points)} of {len(rows)}"
            ax.annotate(note, means, xytext=(8, -9), textcoords="offset points", fontsize=7, zorder=4)
        ax.scatter(*means, s=170, c=colour, marker=marker, edgecolors="black", linewidths=1.1, label=label, zorder=3)
    peaks = [p for row in rows for p in row.get("peak_gflops", [])]
    if peaks:
        ax.axhline(timing.median(peaks), color="0.4", linestyle=":", linewidth=1)
        ax.text(0.02, timing.median(peaks), "multiply-add peak", transform=ax.get_yaxis_transform(), va="bottom",
                fontsize=8, color="0.4")  # fmt: skip
    ax.set(title=title, xscale="log", yscale="log")
    ax.grid(True, which="major", color="0.9")
    ax.set_axisbelow(True)
