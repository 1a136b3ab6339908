# SPDX-License-Identifier: Apache-2.0
"""Results as tables on the terminal and as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

from . import timing
from .summary import LARGE, SLOW, Row, best_rival, is_rival, ours, peak_share, ratio

FEW = 2  # layers up to which each has a table of its own
FORMAT = 1  # of the JSON; raised when a reader must change
BASELINE = "torch"
BUSY = 0.7  # load average from which others take a core; barriers between threads suffer most from that


def head(result: dict[str, Any]) -> str:
    """What ran where."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    machine = result["machine"]
    commit = f"; commit {result['commit']}" if "commit" in result else ""
    text = f"{machine['cpu']}, {machine['cores']} cores{commit}; {result['date']}\n{versions}"
    if result.get("missing"):
        text += f'\nnot installed, or not running: {", ".join(result["missing"])} (pip install "fastconv[bench]")'
    if machine["load"] > BUSY:
        text += f"\nload {machine['load']:.1f}: the machine is busy, these figures say little"
    return text


def print_result(result: dict[str, Any]) -> None:
    """A table with its summary for each pass and thread count."""
    for about in result["summary"]:
        pass_, t = about["pass"], about["threads"]
        rows = [row for row in result["rows"] if (row["pass"], row["threads"]) == (pass_, t)]
        print_layers(f"{pass_}, {t} thread{'s' if t > 1 else ''}", rows, about)


def print_layers(title: str, rows: list[Row], about: dict[str, Any]) -> None:
    """Speeds with errors, our ratio to PyTorch and to the best rival, our share of the peak."""
    if len(rows) <= FEW:
        for row in rows:
            print_row(f"{title}: {row['layer']}", row)
    else:
        print_table(f"{title}: effective GFLOP/s and largest error relative to the largest result", *_cells(rows))
    for row in rows:
        for name, entry in row["peers"].items():
            if "wrong" in entry:
                print(f"  {name} does not count on {row['layer']}: {entry['wrong']}")
    refusals = dict.fromkeys(
        f"  {name}: {entry['refused']}" for row in rows for name, entry in row["peers"].items() if "refused" in entry
    )
    print("\n".join(refusals), end="\n" if refusals else "")
    if peaks := [p for row in rows for p in row.get("peak_gflops", [])]:
        print(f"  multiply-add peak: {timing.median(peaks):.1f} GFLOP/s")
    if len(rows) > FEW:
        print_summary(about)
    print()


def print_row(title: str, row: Row) -> None:
    """One layer: a line for each rival, the fastest first."""
    mine, body = ours(row), []
    timed = {name: entry for name, entry in row["peers"].items() if "median_s" in entry}
    for name in sorted(timed, key=lambda name: timed[name]["median_s"]):
        entry, over, share = timed[name], ratio(row, name, mine), peak_share(row, name)
        cells = [name, f"{1e3 * entry['median_s']:.3f}", f"{row['gflop'] / entry['median_s']:.1f}"]
        cells += [f"{entry['error']:.0e}", f"{100 * share:.0f}" if share is not None else "-"]
        cells += [str(over) if over and name != mine else "-"]
        body.append([*cells, entry.get("algorithm", "-") if name.startswith("fastconv") else ""])
    header = ["who", "ms", "GFLOP/s", "error", "% of peak", f"time over {mine}'s [95 %]", "algorithm"]
    print_table(title, header, body)


def _cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Heading and lines of a table with a line for each layer. A narrow terminal gets fastconv and the best rivals."""
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < 80 + 13 * len(names)
    if narrow:
        names = [name for name in names if not is_rival(name)]
    titles = [name.replace("_", "\n").replace("@", "\n") for name in names]
    titles += ["best rival"] if narrow else []
    header = ["layer", "GFLOP", *titles, f"x {BASELINE}", "x best\n[95 %]", "% of\npeak", "algorithm"]
    body = []
    for row in rows:
        mine = ours(row)
        over, share, best = ratio(row, BASELINE, mine), peak_share(row, mine), ratio(row, best_rival(row), mine)
        cells = [row["layer"], f"{row['gflop']:.3f}", *(_speed(row, name) for name in names)]
        if narrow:
            rival = best_rival(row)
            cells.append(f"{rival} {_speed(row, rival)}" if rival else "-")
        cells += [f"{over.value:.2f}" if over else "-", str(best) if best else "-"]
        cells += [f"{100 * share:.0f}" if share is not None else "-", row["peers"].get(mine, {}).get("algorithm", "-")]
        body.append(cells)
    return header, body


def print_summary(about: dict[str, Any]) -> None:
    body = []
    for rival in about["speed_over"] | about["one_shot_over"]:
        means = [about[key].get(rival) for key in ("speed_over", "one_shot_over")]
        cells = [str(timing.Estimate(m["value"], m["low"], m["high"])) if m else "-" for m in means]
        body.append([rival, *cells, str(max(m["layers"] for m in means if m))])
    if body:
        title = "  how many times faster fastconv is, geometric mean of the layers that count"
        print_table(
            title, ["  than", "fastconv [95 %]", "one-shot [95 %]", "layers"], [["  " + b[0], *b[1:]] for b in body]
        )
    for key, title in (("lost", f"below {SLOW} of the best rival"), ("ncnn_3x3", "over ncnn on 3x3 layers")):
        if found := about[key]:
            texts = [f"{layer} {e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}]" for layer, e in found.items()]
            print(f"  {title} ({len(texts)}): {'; '.join(texts)}")
    lines = [(f"share of the peak on dense layers of at least {LARGE} GFLOP", about["peak_share"])]
    lines += [(f"{isa} over the instruction set in use", spread) for isa, spread in about["isa_over"].items()]
    lines += [(f"most threads over fewest on layers of at least {LARGE} GFLOP", about.get("scaling"))]
    for title, spread in lines:
        if spread:
            print(
                f"  {title}: {spread['mean']:.2f} (geometric mean of {spread['layers']}), "
                f"least {spread['least']:.2f} ({spread['least_layer']})"
            )


def _speed(row: Row, name: str) -> str:
    entry = row["peers"].get(name, {})
    if "median_s" not in entry:
        return "wrong" if "wrong" in entry else "-"
    speed = row["gflop"] / entry["median_s"]
    mark = "*" if name == best_rival(row) and is_rival(name) else ""
    return f"{mark}{speed:.{1 if speed < 100 else 0}f} {entry['error']:.0e}"


def print_table(title: str, header: list[str], body: list[list[str]]) -> None:
    """With rich where it is installed and writes to a terminal; else aligned text. A heading may have several lines."""
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
    heads = [list(line) for line in zip_longest(*(name.split("\n") for name in header), fillvalue="")]
    rows = [*heads, *body]
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
