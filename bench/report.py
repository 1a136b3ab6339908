# SPDX-License-Identifier: Apache-2.0
"""All measurements as one page of markdown: `python -m bench.report bench/results/*.json > speed.md`.

It reads results of bench.layers, bench.train, bench.calibrate, bench.pools and bench.halves; of equal rows in several
files the last one counts. Each goal is written beside what was measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastconv.bench import problems, report, summary, timing
from fastconv.bench.summary import Row

# What is aimed at: at least, but for the mean regret.
OVER_BEST = {"fwd": 1.3, "bwd_data": 1.8, "bwd_filter": 2.0}
ONE_SHOT_OVER_TORCH, OVER_NCNN_3X3, PEAK_SHARE = 1.8, 1.1, 0.8
TWO_THREADS, TWO_THREADS_LEAST, AVX2 = 1.8, 1.4, 0.75
TRAINING, REGRET = 1.3, 0.05
OVER_POOLS = {("max", "fwd"): 8.0, ("average", "fwd"): 8.0, ("average", "bwd"): 6.0, ("max", "bwd"): 1.2}
OVER_POOLS_LAST, COPY_SHARE = 1.1, 0.75
MERGED = ("layers", "train", "pools")  # kinds whose rows come together from all files
BEYOND_L2 = 4 << 20  # bytes of x and y together
RIVALS = ("torch", "torch_channels_last", "onnxruntime", "openvino", "ncnn")  # with a column of their own
TRAINERS = ("torch_train", "torch_train_channels_last")


def table(header: list[str], body: Iterable[list[str]]) -> list[str]:
    rows = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(row) + " |" for row in rows] + [""]


def goal(value: float | None, wanted: float, text: str = "", at_most: bool = False) -> str:
    """The value, in bold where it is reached."""
    if value is None:
        return "-"
    shown = text or f"{value:.2f}"
    return f"**{shown}**" if (value <= wanted if at_most else value >= wanted) else shown


def interval(found: dict[str, Any] | None, wanted: float) -> str:
    if not found:
        return "-"
    text = str(timing.Estimate(found["value"], found["low"], found["high"]))
    return goal(found["value"], wanted, text)


def merged(results: list[dict[str, Any]], kind: str) -> list[Row]:
    rows = {
        (row["problem"], row.get("pass"), row["threads"]): row
        for result in results
        if result["kind"] == kind
        for row in result["rows"]
    }
    return list(rows.values())


def by_list(rows: list[Row]) -> dict[str, list[Row]]:
    """List of layers -> its rows; those of no list come last, and other dtypes than float32 after them."""
    found: dict[str, list[Row]] = {}
    for dtype in dict.fromkeys(["f32", *(row["dtype"] for row in rows)]):
        for name, of_list in of_one_dtype([row for row in rows if row["dtype"] == dtype]).items():
            found[name if dtype == "f32" else f"{name}, {dtype}"] = of_list
    return found


def of_one_dtype(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    names = {name: {x.name for x in problems.load(problems.find(name), ("fwd",), None)} for name in problems.lists()}
    for name in names:
        if chosen := [row for row in rows if row["layer"] in names[name]]:
            found[name] = chosen
    if rest := [row for row in rows if not any(row["layer"] in known for known in names.values())]:
        found["others"] = rest
    return found


def parts(rows: list[Row]) -> list[tuple[str, int, list[Row]]]:
    keys = sorted({(problems.PASSES.index(row["pass"]), row["threads"]) for row in rows})
    return [
        (problems.PASSES[i], t, [row for row in rows if (row["pass"], row["threads"]) == (problems.PASSES[i], t)])
        for i, t in keys
    ]


def largest_error(rows: list[Row]) -> float:
    ours = [row["peers"].get(name, {}).get("error") for row in rows for name in summary.OURS]
    return max((error for error in ours if error is not None), default=float("nan"))


def overview(rows: list[Row]) -> list[str]:
    """One line for each list, pass and number of threads."""
    body = []
    for name, of_list in by_list(rows).items():
        for pass_, t, part in parts(of_list):
            about = summary.summarise(part)
            share, ncnn = about["peak_share"], [e["value"] for e in about["ncnn_3x3"].values()]
            low = share and sum(s < PEAK_SHARE for s in large_shares(part))
            avx2 = about["isa_over"].get("avx2")
            cells = [
                f"{name} ({len(part)})",
                pass_,
                str(t),
                interval(about["speed_over"].get("best"), OVER_BEST[pass_]),
            ]
            cells += [interval(about["one_shot_over"].get("torch"), ONE_SHOT_OVER_TORCH) if pass_ == "fwd" else "-"]
            cells += [goal(-len(about["lost"]), 0, str(len(about["lost"])))]
            cells += [goal(min(ncnn), OVER_NCNN_3X3) + f" ({len(ncnn)})" if ncnn else "-"]
            cells += [f"{share['mean']:.2f}, {goal(share['least'], PEAK_SHARE)}, {low}" if share else "-"]
            cells += [goal(avx2 and avx2["mean"], AVX2), f"{largest_error(part):.0e}"]
            body.append(cells)
    header = [
        "list (layers)", "pass", "threads", f"over the best rival ({goals(OVER_BEST)})",
        f"one-shot over PyTorch ({ONE_SHOT_OVER_TORCH})", "layers lost (0)",
        f"least over ncnn on 3x3 ({OVER_NCNN_3X3})",
        f"share of the peak: mean, least, layers under {PEAK_SHARE}", f"avx2 over best ({AVX2})", "largest error",
    ]  # fmt: skip
    return table(header, body)


def goals(values: dict[str, float]) -> str:
    return ", ".join(map(str, values.values()))


def large_shares(rows: list[Row]) -> list[float]:
    large = [row for row in rows if row["gflop"] >= summary.LARGE and row["groups"] == 1]
    return [share for row in large if (share := summary.peak_share(row, summary.ours(row)))]


def scaling(rows: list[Row]) -> list[str]:
    body = []
    for name, of_list in by_list(rows).items():
        for pass_ in dict.fromkeys(row["pass"] for row in of_list):
            of_pass = [row for row in of_list if row["pass"] == pass_]
            if gain := summary.scaling(of_pass, 1, 2):
                least = f"{goal(gain['least'], TWO_THREADS_LEAST)} ({gain['least_layer']})"
                body.append([name, pass_, str(gain["layers"]), goal(gain["mean"], TWO_THREADS), least])
    header = [
        "list",
        "pass",
        f"layers of {summary.LARGE} GFLOP",
        f"mean ({TWO_THREADS})",
        f"least ({TWO_THREADS_LEAST})",
    ]
    return ["Two threads over one:", "", *table(header, body)] if body else []


def speeds(row: Row, name: str | None) -> str:
    entry = row["peers"].get(name, {})
    if "median_s" not in entry:
        return "wrong" if "wrong" in entry else "-"
    return f"{row['gflop'] / entry['median_s']:.1f} ({entry['error']:.0e})"


def layer_table(rows: list[Row]) -> list[str]:
    body = []
    for row in rows:
        mine, best = summary.ours(row), summary.best_rival(row)
        over, share = summary.ratio(row, best, mine), summary.peak_share(row, mine)
        ratios = [summary.ratio(row, name, mine) for name in RIVALS]
        cells = [row["layer"], f"{row['gflop']:.3f}", speeds(row, "fastconv_plan"), speeds(row, "fastconv")]
        cells += [f"{best} {speeds(row, best)}" if best else "-"]
        cells += [f"{'(lost) ' if over.high < summary.SLOW else ''}{over}" if over else "-"]
        cells += [f"{r.value:.2f}" if r else "-" for r in ratios]
        cells += [f"{100 * share:.0f} %" if share else "-", row["peers"].get(mine, {}).get("algorithm", "-")]
        body.append(cells)
    header = ["layer", "GFLOP", "plan", "one-shot", "best rival", "over it [95 %]"]
    header += [f"over {name}" for name in RIVALS] + ["of the peak", "algorithm"]
    return table(header, body)


def training(rows: list[Row]) -> list[str]:
    body = []
    for row in rows:
        over = summary.ratio(row, summary.best_rival(row), "fastconv_train")
        times = [1e3 * row["peers"].get(n, {}).get("median_s", float("nan")) for n in ("fastconv_train", *TRAINERS)]
        ratio = goal(over.value, TRAINING, str(over)) if over else "-"
        body.append([row["problem"], str(row["threads"]), *(f"{ms:.1f} ms" for ms in times), ratio])
    header = ["step", "threads", "fastconv", "PyTorch", "PyTorch channels_last", f"over the better [95 %] ({TRAINING})"]
    return table(header, body)


def pool_ratios(rows: list[Row], suffix: str) -> timing.Estimate | None:
    """Ours over PyTorch's in one layout."""
    pairs = [
        (summary.seconds_of(row, f"torch_pool{suffix}"), summary.seconds_of(row, f"fastconv_pool{suffix}"))
        for row in rows
    ]
    known = [(theirs, ours) for theirs, ours in pairs if theirs and ours]
    return timing.geometric_mean_ratio(known) if known else None


def copy_shares(rows: list[Row], suffix: str) -> list[float]:
    """Bytes of x and y per second over those of a copy in the same round, of maps beyond the L2 cache."""
    found = []
    for row in rows:
        seconds = summary.seconds_of(row, f"fastconv_pool{suffix}")
        if seconds and row["bytes"] > BEYOND_L2:
            pairs = zip(seconds, row["copy_gbs"], strict=True)
            found.append(timing.median([1e-9 * row["bytes"] / s / gbs for s, gbs in pairs]))
    return found


def pools(rows: list[Row]) -> list[str]:
    keys = dict.fromkeys((row["op"], row["pass"], row["threads"]) for row in rows)
    body = []
    for op, pass_, t in keys:
        part = [row for row in rows if (row["op"], row["pass"], row["threads"]) == (op, pass_, t)]
        cells = [f"{op} {pass_} ({len(part)})", str(t)]
        for suffix, wanted in (("", OVER_POOLS[op, pass_]), ("_channels_last", OVER_POOLS_LAST)):
            over, shares = pool_ratios(part, suffix), copy_shares(part, suffix)
            cells.append(goal(over.value, wanted, f"{over} ({wanted})") if over else "-")
            mean = timing.geometric_mean(shares) if shares else None
            cells.append(f"{goal(mean, COPY_SHARE)}, {min(shares):.2f} ({len(shares)})" if shares else "-")
        body.append(cells)
    share = f"of the copy beyond L2: mean ({COPY_SHARE}), least"
    header = ["pooling (shapes)", "threads", "over PyTorch NCHW", share, "over PyTorch channels_last", share]
    return table(header, body)


def calibration(result: dict[str, Any]) -> list[str]:
    body = [
        [
            pass_,
            str(r["problems"]),
            goal(r["mean"], REGRET, f"{100 * r['mean']:.1f} %", True),
            f"{100 * r['worst']:.0f} %",
        ]
        for pass_, r in result["regret"].items()
    ]
    return table(["pass", "problems", f"mean regret ({100 * REGRET:.0f} % at most)", "worst"], body)


def halves(result: dict[str, Any]) -> list[str]:
    """float32 / half by the same algorithm, of each dtype and pass."""
    kinds = list(dict.fromkeys((row["dtype"], row["pass"]) for row in result["rows"]))
    body = []
    for kind in kinds:
        rows = [row for row in result["rows"] if (row["dtype"], row["pass"]) == kind]
        pairs = {row["name"]: (row["samples"]["f32"], row["samples"][kind[0]]) for row in rows}
        least = min(pairs, key=lambda name: timing.paired_ratio(*pairs[name]).value)
        over = timing.geometric_mean_ratio(list(pairs.values()))
        body.append(
            [*kind, str(len(rows)), goal(over.value, 1.0, str(over)), f"{timing.paired_ratio(*pairs[least])}, {least}"]
        )
    about = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}, {result['layout']}"
    how = "each by its own choice" if result.get("own_choice") else "both by float32's algorithm"
    return [
        f"{about}, {how}; above 1: faster than float32.",
        "",
        *table(["dtype", "pass", "layers", "mean (1.0)", "least"], body),
    ]


def anything(result: dict[str, Any]) -> list[str]:
    """Rows of a kind without a table of its own: who was timed, and our ratio to each."""
    body = []
    for row in result["rows"]:
        ours = next(
            (name for name in row["peers"] if not summary.is_rival(name) and summary.seconds_of(row, name)), None
        )
        cells = [str(row.get("layer", row["problem"])), str(row.get("pass", "")), str(row["threads"])]
        cells += [f"{1e3 * row['peers'][ours]['median_s']:.3f} ms" if ours else "-"]
        for name in filter(summary.is_rival, row["peers"]):
            over = summary.ratio(row, name, ours)
            cells.append(f"{name} {over}" if over else f"{name} -")
        body.append(cells)
    width = max(map(len, body))
    header = ["what", "pass", "threads", "fastconv", *["over"] * (width - 4)]
    return table(header, [cells + [""] * (width - len(cells)) for cells in body])


def page(results: list[dict[str, Any]]) -> list[str]:
    lines = ["# Speed", ""]
    for result in results:
        versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
        machine = result["machine"]
        lines.append(f"- `{result['command']}`, {result['date']}, commit {result.get('commit', '-')}")
        lines.append(f"  Load {machine['load']:.1f}; {machine['cpu']}, {machine['cores']} cores. {versions}")
    lines += [
        "",
        "Bold: the goal in brackets is reached. Ratios above 1: fastconv is faster. Errors are in brackets.",
        "",
    ]
    rows = merged(results, "layers")
    if rows:
        lines += ["## Layers", "", *overview(rows), *scaling(rows)]
    if trained := merged(results, "train"):
        lines += ["## Training steps", "", *training(trained)]
    if pooled := merged(results, "pools"):
        lines += ["## Pooling", "", *pools(pooled)]
    sections: dict[str, Callable[[dict[str, Any]], list[str]]] = {"calibration": calibration, "halves": halves}
    for result in results:
        if result["kind"] in sections:
            lines += [f"## {result['kind'].capitalize()}", "", *sections[result["kind"]](result)]
        elif result["kind"] not in MERGED and any("peers" in row for row in result.get("rows", [])):
            lines += [f"## {result['kind'].capitalize()}", "", *anything(result)]
    for name, of_list in by_list(rows).items():
        for pass_, t, part in parts(of_list):
            lines += [
                f"## {name}: {pass_}, {t} thread{'s' if t > 1 else ''}",
                "",
                "GFLOP/s of a direct convolution.",
                "",
            ]
            lines += layer_table(part)
    return lines


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.report", description="write results as markdown")
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results; of equal rows the last file's count")
    p.add_argument("--figure", type=Path, metavar="FILE", help="draw speed against error of all layers there")
    arguments = p.parse_args()
    results = [report.load(path) for path in arguments.files]
    print("\n".join(page(results)))
    if arguments.figure:
        from fastconv.bench import figure

        layers = [result for result in results if result["kind"] == "layers"]
        figure.draw({**layers[-1], "rows": merged(results, "layers")}, arguments.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
