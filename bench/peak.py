# SPDX-License-Identifier: Apache-2.0
"""The most multiply-adds that the cores do: `python -m bench.peak --threads 1,2`.

A native loop of independent float32 multiply-adds on registers of the active instruction set, without any memory
access. What share of it a convolution reaches says how much is left; the figure moves with the clock frequency, so
the benchmarks take it anew in every round.
"""

from __future__ import annotations

import argparse

from fastconv.bench import timing
from fastconv.bench.worker import Worker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peak", description="measure the multiply-add peak")
    parser.add_argument("--threads", default="1,2", help="thread counts, by commas (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of one sample (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="samples (default %(default)s)")
    parser.add_argument("--isa", help="instruction set, as in fc.info()['isas']; default: the best of this machine")
    arguments = parser.parse_args()
    variables = {"FASTCONV_ISA": arguments.isa} if arguments.isa else {}
    for threads in map(int, arguments.threads.split(",")):
        with Worker("fastconv", threads, variables) as worker:
            isa = worker.ask("versions")["isa"]
            worker.ask("peak", seconds=arguments.seconds)
            samples = [float(worker.ask("peak", seconds=arguments.seconds)) for _ in range(arguments.rounds)]
        middle, spread = timing.median(samples), 100 * timing.spread(samples)
        print(f"{threads} threads, {isa}: {middle:.1f} GFLOP/s (median of {len(samples)}, spread {spread:.1f} %)")


if __name__ == "__main__":
    main()
