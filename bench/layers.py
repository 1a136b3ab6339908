# SPDX-License-Identifier: Apache-2.0
"""fastconv and its rivals layer by layer: `python -m bench.layers --threads 1,2 --passes fwd`.

README.md beside this file explains the method and the columns.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

from bench import repository
from fastconv.bench import measure, peers, problems, report
from fastconv.bench.worker import Worker


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench.layers", description="time fastconv and its rivals by layer")
    defaults = measure.Settings()
    p.add_argument("--threads", default="1,2", help="thread counts, by commas (default %(default)s)")
    p.add_argument("--passes", default="fwd", help="of fwd, bwd_data, bwd_filter, by commas (default %(default)s)")
    p.add_argument("--only", metavar="PATTERN", help="lines of the problem file that contain this, in any case")
    p.add_argument("--problems", type=Path, default=problems.LAYERS, help="problem file (default: the known layers)")
    p.add_argument("--peers", default=",".join(peers.PEERS), help="by commas (default: all that are installed)")
    p.add_argument("--rounds", type=int, default=defaults.rounds, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=defaults.min_sample_s, help="seconds (default %(default)s)")
    p.add_argument("--settle", type=float, default=defaults.settle_s, help="untimed seconds before each sample")
    p.add_argument(
        "--error-limit", type=float, default=defaults.error_limit, help="largest that counts (default %(default)s)"
    )
    p.add_argument("--cold", action="store_true", help="empty the caches before each call")
    p.add_argument("--seed", type=int, default=defaults.seed, help="of the data and the order (default %(default)s)")
    p.add_argument("--isa", help="force fastconv's instruction set")
    p.add_argument("--algorithm", help="force fastconv's algorithm")
    p.add_argument("--precision", default="default", help="fastconv's: strict, default, fast or a number")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-layers-<commit>.json)")
    return p


def main() -> int:
    arguments = parser().parse_args()
    settings = measure.Settings(
        rounds=arguments.rounds,
        min_sample_s=arguments.min_sample,
        settle_s=arguments.settle,
        cold=arguments.cold,
        error_limit=arguments.error_limit,
        seed=arguments.seed,
    )
    passes = tuple(arguments.passes.split(","))
    layers = problems.load(arguments.problems, passes, arguments.only)
    threads = [int(t) for t in arguments.threads.split(",")]
    names = arguments.peers.split(",")
    precision = arguments.precision
    with contextlib.suppress(ValueError):
        precision = float(precision)
    options = {"algorithm": arguments.algorithm, "precision": precision}

    result: dict[str, Any] = {"format": report.FORMAT, "kind": "layers", **repository.surroundings("bench.layers")}
    result |= {"settings": dataclasses.asdict(settings), "options": {**options, "isa": arguments.isa}, "rows": []}
    with contextlib.ExitStack() as stack:
        references = stack.enter_context(measure.start(["reference_torch", "reference_fastconv"], max(threads), None))
        teams = {t: stack.enter_context(measure.start(names, t, arguments.isa)) for t in threads}
        peaks = {t: stack.enter_context(peak_worker(t, arguments.isa)) for t in threads}
        result["versions"] = measure.versions(teams[threads[0]])
        print(report.head(result))
        for layer in layers:
            task = {"kind": "conv", "layer": layer.to_dict(), "seed": settings.seed, "options": options}
            # float64 problems are judged by sums in long double.
            order = ("reference_torch", "reference_fastconv") if layer.dtype == "f32" else ("reference_fastconv",)
            name, reference = measure.reference_result(task, references, order)
            for t in threads:
                report.progress(f"{t} thread(s): {layer.pass_} {layer.name}")
                row = measure.measure(task, teams[t], reference, settings, peaks[t])
                about = {"problem": layer.text, "layer": layer.name, "pass": layer.pass_, "gflop": layer.gflop}
                about |= {"groups": layer.groups, "dtype": layer.dtype, "reference": name}
                result["rows"].append({**about, **row})
    report.progress("")
    tables(result, threads, passes)
    print("saved:", repository.save(result, arguments.out))
    return 1 if wrong(result) else 0


def peak_worker(threads: int, isa: str | None) -> Worker:
    return Worker("fastconv", threads, {"FASTCONV_ISA": isa} if isa else None)


def tables(result: dict[str, Any], threads: list[int], passes: tuple[str, ...]) -> None:
    """Print a table for each pass and thread count."""
    result["summary"] = []
    for pass_ in passes:
        for t in threads:
            rows = [row for row in result["rows"] if row["pass"] == pass_ and row["threads"] == t]
            summary = report.summarise(rows)
            result["summary"].append({"pass": pass_, "threads": t, **summary})
            report.print_layers(f"{pass_}, {t} thread{'s' if t > 1 else ''}", rows, summary)
        if len(threads) > 1:
            few, many = min(threads), max(threads)
            gain = report.scaling([row for row in result["rows"] if row["pass"] == pass_], few, many)
            result["summary"][-1]["scaling"] = gain
            if gain:
                print(
                    f"{pass_}, {many} threads over {few} on {gain['layers']} layers of at least {report.LARGE} GFLOP: "
                    f"{gain['mean']:.2f} (geometric mean), {gain['least']:.2f} (least)\n"
                )


def wrong(result: dict[str, Any]) -> bool:
    """Whether a result of fastconv was further from float64 than the limit; says so on stderr."""
    found = False
    for row in result["rows"]:
        for name, entry in row["peers"].items():
            if name.startswith("fastconv") and "wrong" in entry:
                print(f"{name} is wrong on {row['problem']}: {entry['wrong']}", file=sys.stderr)
                found = True
    return found


if __name__ == "__main__":
    sys.exit(main())
