# SPDX-License-Identifier: Apache-2.0
"""A whole training step against PyTorch: `python -m bench.train --threads 1,2`.

Forward, cross-entropy, backward and SGD with momentum. The losses of the first steps are checked before it is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

from bench import repository
from fastconv.bench import measure, peers, report, summary
from fastconv.bench.models import MODELS

BASELINE = "torch_train"
OURS = "fastconv_train"
# A float32 loss after a few steps: rounding grows from step to step, a wrong gradient shows in the first digits.
ERROR_LIMIT = 1e-3


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.train", description="time a training step")
    defaults = measure.Settings()
    p.add_argument("--models", default="resnet20,vgg11", help=f"of {', '.join(MODELS)} (default %(default)s)")
    p.add_argument("--batch", type=int, help="images in a step (default: the model's own)")
    p.add_argument("--threads", default="1,2", help="thread counts, by commas (default %(default)s)")
    p.add_argument("--rounds", type=int, default=defaults.rounds, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=0.1, help="seconds (default %(default)s)")
    p.add_argument("--isa", help="force fastconv's instruction set")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-train-<commit>.json)")
    arguments = p.parse_args()
    settings = measure.Settings(rounds=arguments.rounds, min_sample_s=arguments.min_sample, error_limit=ERROR_LIMIT)
    threads = [int(t) for t in arguments.threads.split(",")]
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "train", **repository.surroundings("bench.train")}
    result |= {"settings": dataclasses.asdict(settings), "options": {"isa": arguments.isa}, "rows": []}
    names = ("reference_torch_train", "reference_fastconv_train")
    with contextlib.ExitStack() as stack:
        references = stack.enter_context(measure.start(list(names), max(threads), None))
        teams = {t: stack.enter_context(measure.start(list(peers.TRAINERS), t, arguments.isa)) for t in threads}
        result["versions"] = measure.versions(teams[threads[0]])
        print(report.head(result))
        for model in arguments.models.split(","):
            batch = arguments.batch or MODELS[model].batch
            task = {"kind": "train", "model": model, "batch": batch, "seed": settings.seed}
            name, reference = measure.reference_result(task, references, names)
            for t in threads:
                row = measure.measure(task, teams[t], reference, settings)
                about = {"problem": f"train {model} n{batch}", "layer": model, "reference": name}
                result["rows"].append({**about, **row})
    table(result["rows"])
    print("saved:", repository.save(result, arguments.out))
    return 1 if any("wrong" in row["peers"].get(OURS, {}) for row in result["rows"]) else 0


def table(rows: list[dict[str, Any]]) -> None:
    names, body = summary.cells(rows, OURS, lambda row: [BASELINE, summary.best_rival(row)])
    header = ["step", "threads", *names, f"x {BASELINE} [95 %]", "x best [95 %]"]
    report.print_table("milliseconds of a step (largest relative error of the first losses)", header, body)


if __name__ == "__main__":
    sys.exit(main())
