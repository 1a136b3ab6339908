# SPDX-License-Identifier: Apache-2.0
"""Hashes of results, kept per version and instruction set: `python -m bench.golden` writes tests/golden/*-ISA.txt.

Every algorithm on every problem of tests/golden/problems.txt, on numbers that integers alone decide, so that no
library's generator can change them. A hash that changes means that results have: `--against 0.1.0` lists what differs
from the file of an older version. tests/test_golden.py compares with the version's own file.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from pathlib import Path

import numpy as np

from bench.promises import options, usable
from bench.repository import ROOT
from fastconv import ConvProblem, _core
from fastconv.arrays import as_dtype
from fastconv.verify import Call

FOLDER = ROOT / "tests" / "golden"
ALPHA, PAD_VALUE = 0.25, 1.5


def integers(count: int, seed: int) -> np.ndarray:
    """`count` of 64 bits: splitmix64, whose state grows by a constant (Steele, Lea and Flood 2014)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def array(shape: tuple[int, ...], seed: int, dtype: str) -> np.ndarray:
    """Multiples of 2^-22 from -2 to 2, exact in float32; of 2^-6 for halves, exact in both."""
    bits = 8 if dtype in ("f16", "bf16") else 24
    whole = (integers(int(np.prod(shape)), seed) >> np.uint64(64 - bits)).astype(np.int64) - (1 << (bits - 1))
    return (whole.astype(np.float64) / (1 << (bits - 2))).astype(as_dtype(dtype)).reshape(shape)


def call_of(p: ConvProblem) -> Call:
    written = p.c if p.pass_ == "bwd_data" else p.k
    shapes = {"x": p.x_shape, "w": p.w_shape, "dy": p.y_shape}
    if p.has_bias:
        shapes["bias"] = (written,)
    if p.has_residual:
        shapes["residual"] = p.y_shape
    arrays = {name: array(shape, seed, p.dtype) for seed, (name, shape) in enumerate(shapes.items(), start=1)}
    return Call(p, arrays, ALPHA, PAD_VALUE)


def problems() -> list[str]:
    lines = (FOLDER / "problems.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def hashes(isa: str) -> dict[tuple[str, str], str]:
    """(algorithm, problem) -> 64 bits of BLAKE2b over the bytes of the result."""
    found = {}
    for text in problems():
        p = ConvProblem.parse(text)
        call = call_of(p)
        for row in usable(p, isa):
            result = np.ascontiguousarray(call.run(options(row["name"], isa, threads=2)))
            found[row["name"], text] = hashlib.blake2b(result.tobytes(), digest_size=8).hexdigest()
    return found


def path_of(version: str, isa: str) -> Path:
    """`scalar` is another code on another family of processors: on ARM the compiler fuses its multiply-adds."""
    family = platform.machine().lower()
    name = isa if isa != "scalar" or family in ("x86_64", "amd64") else f"{isa}-{family}"
    return FOLDER / f"{version}-{name}.txt"


def load(path: Path) -> tuple[str, dict[tuple[str, str], str]]:
    """The compiler that built what was hashed, and the hashes."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        value, algorithm, text = line.split(" ", 2)
        found[algorithm, text] = value
    return first.split("built by ")[1].split(";")[0], found


def changes(now: dict[tuple[str, str], str], before: dict[tuple[str, str], str]) -> list[str]:
    """A line for each result that is another one, is new, or is not computed any more."""
    lines = []
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            what = "other bits" if key in now and key in before else "new" if key in now else "not computed any more"
            lines.append(f"{what}: {key[0]}: {key[1]}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.golden", description=__doc__.splitlines()[0])
    p.add_argument("--against", metavar="VERSION", help="write nothing, compare with this version's files")
    a = p.parse_args(arguments)
    info, differ = _core.info(), 0
    for isa in info["isas"]:
        now = hashes(isa)
        if a.against:
            compiler, before = load(path_of(a.against, isa))
            lines = changes(now, before)
            differ += len(lines)
            print(
                "\n".join([f"{isa}: {len(lines)} of {len(now)} differ from {a.against}, built by {compiler}", *lines])
            )
            continue
        head = (
            f"# fastconv {info['version']}, {isa}, built by {info['compiler']}; hash, algorithm, problem: bench.golden"
        )
        lines = [f"{value} {name} {text}" for (name, text), value in now.items()]
        path_of(info["version"], isa).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        print(f"{path_of(info['version'], isa).relative_to(ROOT)}: {len(now)} hashes")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
