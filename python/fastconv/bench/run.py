# SPDX-License-Identifier: Apache-2.0
"""A whole measurement: every layer with every thread count by every rival that is installed, as plain data."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import measure, peers, report, summary
from .measure import Settings
from .problems import Layer

OVERHEAD_S = 1.5  # of a row besides its samples: data, packing, the check against float64
START_S = 1.5  # of one process


class Choice(NamedTuple):
    """Who computes, and how fastconv does."""

    names: list[str]  # of peers.PEERS; name@isa for fastconv with another instruction set
    threads: list[int]
    isa: str | None = None
    algorithm: str | None = None
    precision: str | float = "default"


def choose_rivals(words: str, isas: Sequence[str] = ()) -> list[str]:
    """Names of rivals, by commas, with fastconv unless its names are given; "all" or "none" of the rivals.

    Raises:
        ValueError: no such rival.
    """
    ours = list(summary.OURS)
    known = [name for name in peers.PEERS if name not in ours]
    given = {"all": known, "none": []}.get(words) if words in ("all", "none") else words.split(",")
    assert given is not None
    for name in given:
        peers.entry(name)
    if any(name.startswith("fastconv") for name in given):
        return list(given)
    return [*ours, *(f"{name}@{isa}" for isa in isas for name in ours), *given]


def seconds_needed(layers: Sequence[Layer], choice: Choice, settings: Settings) -> float:
    """About how long `run` takes."""
    processes = sum(peers.installed(name) for name in choice.names)
    sample = settings.settle_s + 1.2 * settings.min_sample_s
    rows = len(layers) * len(choice.threads)
    return rows * (OVERHEAD_S + settings.rounds * sample * (processes + 1)) + START_S * processes * len(choice.threads)


def run(layers: Sequence[Layer], choice: Choice, settings: Settings, about: dict[str, Any]) -> dict[str, Any]:
    """Measure.

    Args:
        about: the head of the result (`measure.surroundings`).

    Returns:
        the result as it is saved: head, settings, options, versions, missing (rivals that are not installed or do not
        start), rows, and a summary for each pass and thread count.
    """
    options = {"algorithm": choice.algorithm, "precision": choice.precision}
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "layers", **about}
    result |= {"settings": dataclasses.asdict(settings), "options": {**options, "isa": choice.isa}, "rows": []}
    with contextlib.ExitStack() as stack:
        report.progress("starting the processes")
        references = stack.enter_context(
            measure.start(["reference_torch", "reference_fastconv"], max(choice.threads), None)
        )
        teams = {t: stack.enter_context(measure.start(choice.names, t, choice.isa)) for t in choice.threads}
        peaks = {t: stack.enter_context(measure.start(["fastconv"], t, choice.isa))["fastconv"] for t in choice.threads}
        result["versions"] = measure.versions(teams[choice.threads[0]])
        result["missing"] = [name for name in choice.names if name not in teams[choice.threads[0]]]
        report.progress("")
        print(report.head(result))
        for layer in layers:
            task = {"kind": "conv", "layer": layer.to_dict(), "seed": settings.seed, "options": options}
            # float64 problems are judged by sums in long double.
            order = ("reference_torch", "reference_fastconv") if layer.dtype != "f64" else ("reference_fastconv",)
            report.progress(f"{layer.pass_} {layer.name}: in float64")
            name, reference = measure.reference_result(task, references, order)
            for t in choice.threads:
                report.progress(f"{layer.pass_} {layer.name}: {t} thread(s)")
                row = measure.measure(task, teams[t], reference, settings, peaks[t])
                head = {"problem": layer.text, "layer": layer.name, "pass": layer.pass_, "gflop": layer.gflop}
                head |= {"output": list(layer.y_shape[2:]), "groups": layer.groups, "dtype": layer.dtype}
                result["rows"].append({**head, "reference": name, **row})
    report.progress("")
    summarise(result)
    return result


def summarise(result: dict[str, Any]) -> None:
    """Write the summaries of its rows into a result."""
    rows = result["rows"]
    result["summary"] = []
    for pass_ in dict.fromkeys(row["pass"] for row in rows):
        of_pass = [row for row in rows if row["pass"] == pass_]
        counts = list(dict.fromkeys(row["threads"] for row in of_pass))
        for t in counts:
            about = summary.summarise([row for row in of_pass if row["threads"] == t])
            result["summary"].append({"pass": pass_, "threads": t, **about})
        if len(counts) > 1:
            result["summary"][-1]["scaling"] = summary.scaling(of_pass, min(counts), max(counts))


def wrong(result: dict[str, Any]) -> bool:
    """Whether a result of fastconv was further from float64 than the limit; says so on stderr."""
    found = False
    for row in result["rows"]:
        for name, entry in row["peers"].items():
            if not summary.is_rival(name) and "wrong" in entry:
                print(f"{name} is wrong on {row['problem']}: {entry['wrong']}", file=sys.stderr)
                found = True
    return found
