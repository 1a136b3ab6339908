# SPDX-License-Identifier: Apache-2.0
"""What a call and an import cost beyond the work: `python -m bench.overhead`.

Call, at one thread, on a convolution of a few thousand multiply-adds:
    call      median seconds of `plan(x)`, over blocks of untraced calls
    kernel    median seconds between the clock readings around the algorithm's `run`, as `fc.trace` reports them;
              blocks of traced calls alternate with the untraced ones
    beyond    call - kernel: argument checks, choice, workspace, output array, releasing and taking the GIL
    one_shot  `fc.conv2d(x, w)` - kernel of its own trace; packing the weights counts as kernel there
    empty     `plan(x)` for a batch of no images: the same path without any arithmetic, as a check of `beyond`

Import: fresh interpreters in turn, `import numpy` and `import numpy, fastconv`; the median over pairs of the difference
in wall time of the two processes, and as `inside` what the second one measures around its second import.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import repository
from fastconv.bench import measure, report, timing
from fastconv.bench.worker import environment

X_SHAPE, W_SHAPE = (1, 16, 4, 4), (16, 16, 3, 3)
BLOCK = 500  # calls in a sample
SETTLE_S = 0.01


def measure_calls(rounds: int) -> dict[str, float]:
    """The five figures above, in seconds. Runs in a process of its own with one thread."""
    import fastconv as fc

    rng = np.random.default_rng(0)
    x = rng.standard_normal(X_SHAPE, dtype=np.float32)
    w = rng.standard_normal(W_SHAPE, dtype=np.float32)
    nothing = np.empty((0, *X_SHAPE[1:]), np.float32)
    plan = fc.plan(w, x_shape=X_SHAPE, padding=1)
    empty = fc.plan(w, x_shape=nothing.shape, padding=1)

    def kernel_of(call: Callable[[], Any]) -> float:
        with fc.trace() as trace:
            for _ in range(BLOCK):
                call()
        return timing.median([entry["seconds"] for entry in trace.calls])

    def planned() -> Any:
        return plan(x)

    def one_shot() -> Any:
        return fc.conv2d(x, w, None, 1, 1)

    samplers: dict[str, Callable[[], float]] = {
        "call": lambda: timing.time_calls(planned, BLOCK, SETTLE_S),
        "kernel": lambda: kernel_of(planned),
        "one_shot_call": lambda: timing.time_calls(one_shot, BLOCK, SETTLE_S),
        "one_shot_kernel": lambda: kernel_of(one_shot),
        "empty": lambda: timing.time_calls(lambda: empty(nothing), BLOCK, SETTLE_S),
    }
    samples = timing.interleave(samplers, rounds, np.random.default_rng(0))
    found = {name: timing.median(values) for name, values in samples.items()}
    for name, call, kernel in (("beyond", "call", "kernel"), ("one_shot", "one_shot_call", "one_shot_kernel")):
        pairs = zip(samples[call], samples[kernel], strict=True)
        found[name] = timing.median([a - b for a, b in pairs])
    return found


def measure_import(rounds: int) -> dict[str, float]:
    """Seconds of `import fastconv` after numpy: by the wall time of processes, and measured inside of them."""
    inside = "import time, numpy; t = time.perf_counter(); import fastconv; print(time.perf_counter() - t)"
    differences, insides = [], []
    for i in range(rounds + 1):
        alone, _ = run_python("import time, numpy")
        both, output = run_python(inside)
        if i:  # the first pair reads the files from the disk
            differences.append(both - alone)
            insides.append(float(output))
    return {"import": timing.median(differences), "import_inside": timing.median(insides)}


def run_python(code: str) -> tuple[float, str]:
    """Wall seconds and output of a fresh interpreter; isolated, so that the source tree is not what it imports."""
    command = [sys.executable, "-I", "-c", code]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.overhead", description="the cost of a call and of the import")
    p.add_argument("--rounds", type=int, default=21, help="samples of each (default %(default)s)")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-overhead-<commit>.json)")
    p.add_argument("--calls-only", action="store_true", help="measure the calls in this process, print JSON")
    arguments = p.parse_args()
    if arguments.calls_only:
        print(json.dumps(measure_calls(arguments.rounds)))
        return 0
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "overhead", **repository.surroundings("bench.overhead")}
    with measure.start(["fastconv"], 1, None) as workers:
        result["versions"] = measure.versions(workers)
    result["settings"] = {"rounds": arguments.rounds, "block": BLOCK, "settle_s": SETTLE_S}
    print(report.head(result))
    command = [sys.executable, "-m", "bench.overhead", "--calls-only", "--rounds", str(arguments.rounds)]
    calls = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True)
    found = result["seconds"] = {**json.loads(calls.stdout), **measure_import(arguments.rounds)}
    body = [[name.replace("_", " "), f"{1e6 * found[name]:.2f} us"] for name in found if "import" not in name]
    body += [[name.replace("_", " "), f"{1e3 * found[name]:.1f} ms"] for name in found if "import" in name]
    shape = f"x {X_SHAPE}, w {W_SHAPE}"
    report.print_table(f"one thread, {shape}: medians", ["what", "time"], body)
    print("saved:", repository.save(result, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
