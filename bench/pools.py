# SPDX-License-Identifier: Apache-2.0
"""Pooling against PyTorch, with the bandwidth of a copy beside: `python -m bench.pools --threads 1,2`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import repository
from fastconv.bench import measure, peers, report, summary, timing
from fastconv.bench.peers.pooling import plane_of

# name: shape of x, window, stride, padding
SHAPES = {
    "1x64x112x112 3s2p1": ((1, 64, 112, 112), 3, 2, 1),
    "8x64x112x112 3s2p1": ((8, 64, 112, 112), 3, 2, 1),
    "1x64x224x224 2s2": ((1, 64, 224, 224), 2, 2, 0),
    "32x64x32x32 2s2": ((32, 64, 32, 32), 2, 2, 0),
    "1x512x14x14 2s2": ((1, 512, 14, 14), 2, 2, 0),
    "1x256x28x28 3s1p1": ((1, 256, 28, 28), 3, 1, 1),
    "1x64x56x56 5s1p2": ((1, 64, 56, 56), 5, 1, 2),
    "1x2048x7x7 global": ((1, 2048, 7, 7), 7, 7, 0),
    "1x64x16x16x16 2s2": ((1, 64, 16, 16, 16), 2, 2, 0),
    "8x64x4096 3s2": ((8, 64, 4096), 3, 2, 0),
}
ROWS = (("max", "fwd"), ("average", "fwd"), ("average", "bwd"), ("max", "bwd"))
COPY_BYTES = 64 << 20


class Copy:
    """The bandwidth of memcpy, bytes read and written, by `threads` threads; it stands where others have their peak."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.source, self.target = (np.ones(COPY_BYTES, np.uint8) for _ in range(2))

    def ask(self, command: str, seconds: float) -> float:
        """GB/s."""
        start, copies = time.perf_counter(), 0
        while not copies or time.perf_counter() - start < seconds:
            self.copy()
            copies += 1
        return 2e-9 * COPY_BYTES * copies / (time.perf_counter() - start)

    def copy(self) -> None:
        share = COPY_BYTES // self.threads
        others = [threading.Thread(target=self.copy_part, args=(i * share, share)) for i in range(1, self.threads)]
        for thread in others:
            thread.start()
        self.copy_part(0, share)
        for thread in others:
            thread.join()

    def copy_part(self, first: int, count: int) -> None:
        ctypes.memmove(self.target.ctypes.data + first, self.source.ctypes.data + first, count)


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.pools", description="time pooling")
    defaults = measure.Settings()
    p.add_argument("--threads", default="1,2", help="thread counts, by commas (default %(default)s)")
    p.add_argument("--rounds", type=int, default=defaults.rounds, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=0.02, help="seconds (default %(default)s)")
    p.add_argument("--settle", type=float, default=0.005, help="untimed seconds before each sample")
    p.add_argument("--only", default="", help="shapes whose name contains this, in any case")
    p.add_argument("--rows", default="", help="only this, such as 'max fwd'")
    p.add_argument("--isa", help="force fastconv's instruction set")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-pools-<commit>.json)")
    arguments = p.parse_args()
    settings = measure.Settings(arguments.rounds, arguments.min_sample, arguments.settle)
    threads = [int(t) for t in arguments.threads.split(",")]
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "pools", **repository.surroundings("bench.pools")}
    result |= {"settings": dataclasses.asdict(settings), "options": {"isa": arguments.isa}, "rows": []}
    with contextlib.ExitStack() as stack:
        references = stack.enter_context(measure.start(["reference_torch_pool"], max(threads), None))
        teams = {t: stack.enter_context(measure.start(list(peers.POOLS), t, arguments.isa)) for t in threads}
        copies = {t: Copy(t) for t in threads}
        result["versions"] = measure.versions(teams[threads[0]])
        print(report.head(result))
        for op, pass_ in ROWS:
            if arguments.rows not in f"{op} {pass_}":
                continue
            for name, (shape, window, stride, padding) in SHAPES.items():
                if arguments.only.lower() not in name.lower():
                    continue
                task = {"kind": "pool", "op": op, "pass": pass_, "shape": shape, "window": window, "stride": stride}
                task |= {"padding": padding, "seed": settings.seed}
                told, reference = measure.reference_result(task, references, ("reference_torch_pool",))
                for t in threads:
                    report.progress(f"{t} thread(s): {op} {pass_} {name}")
                    row = measure.measure(task, teams[t], reference, settings, copies[t])  # type: ignore[arg-type]
                    row["copy_gbs"] = row.pop("peak_gflops")
                    about = {"problem": f"{op} {pass_} {name}", "layer": name, "op": op, "pass": pass_}
                    size = 4 * (math.prod(shape) + math.prod(plane_of(task)))
                    result["rows"].append({**about, "bytes": size, "reference": told, **row})
    report.progress("")
    for op, pass_ in ROWS:
        for t in threads:
            rows = [r for r in result["rows"] if (r["op"], r["pass"], r["threads"]) == (op, pass_, t)]
            if rows:
                table(f"{op} {pass_}, {t} thread{'s' if t > 1 else ''}", rows)
    print("saved:", repository.save(result, arguments.out))
    ours = [entry for row in result["rows"] for name, entry in row["peers"].items() if name.startswith("fastconv")]
    return 1 if any("wrong" in entry for entry in ours) else 0


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """GB/s (x and y once each), ratios to PyTorch in the same layout, shares of the copy's bandwidth."""
    body = []
    for row in rows:
        cells = [row["layer"], f"{row['bytes'] / 1e6:.1f}", f"{timing.median(row['copy_gbs']):.1f}"]
        for name in peers.POOLS:
            seconds = summary.seconds_of(row, name)
            cells.append(f"{1e-9 * row['bytes'] / timing.median(seconds):.1f}" if seconds else "-")
        for suffix in ("", "_channels_last"):
            ratio = summary.ratio(row, f"torch_pool{suffix}", f"fastconv_pool{suffix}")
            cells.append(str(ratio) if ratio else "-")
            seconds = summary.seconds_of(row, f"fastconv_pool{suffix}")
            pairs = zip(seconds or [], row["copy_gbs"], strict=False)
            shares = [1e-7 * row["bytes"] / s / gbs for s, gbs in pairs]
            cells.append(f"{timing.median(shares):.0f}" if shares else "-")
        body.append(cells)
    header = ["shape", "MB", "copy", "fastconv", "channels last", "torch", "channels last"]
    header += ["x torch [95 %]", "% of copy", "x torch, channels last [95 %]", "% of copy"]
    report.print_table(f"{title}: GB/s", header, body)


if __name__ == "__main__":
    sys.exit(main())
