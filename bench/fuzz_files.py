# SPDX-License-Identifier: Apache-2.0
"""Damaged files against their readers: `python -m bench.fuzz_files --count 10000 --seed 1 [--formats onnx,npz]`.

File number I of a seed is a good file of some format with bits flipped, pieces cut out, repeated or exchanged, lengths
made huge; an ONNX model also with its fields changed: cycles, wrong dtypes, huge shapes, paths to elsewhere. Each is
read, and a model that can be read is run, in a child process with little memory and little time. It must work or raise
one error in one line: no crash, no hang, no memory beyond the limit. What fails is printed with the command that
repeats it. To add a format: how to make good files of it, and how to read one, in FORMATS.
"""

from __future__ import annotations

import argparse
import collections
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import fuzz_onnx, fuzz_session
from fastconv import weights

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10  # of computing for one file, in which PyTorch may have to be imported; ten times as many by the clock
MEMORY = 4 * 2**30  # address space of the child, most of which are libraries
AT_ONCE = 500  # files read by one child
REFUSALS = (ValueError, NotImplementedError)


class Format(NamedTuple):
    """suffix: of its files. write: makes good files in a folder. read: reads a file, and uses what it holds.
    change: a mutation of its own, or None."""

    suffix: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    change: Callable[[random.Random, bytes], bytes] | None = None


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features.0.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "features.0.bias": rng.standard_normal(4),
        "half": rng.standard_normal(5).astype(np.float16),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
    }


def _write_weights(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        arrays = _arrays()
        weights.save(folder / f"all{suffix}", arrays)
        weights.save(folder / f"one{suffix}", {"count": arrays["count"]})
        if suffix == ".npz":
            np.savez_compressed(folder / "compressed.npz", **arrays)

    return write


def _read_weights(path: Path) -> float:
    return sum(float(np.sum(np.asarray(a, np.float64))) for a in weights.load(path, max_bytes=2**26).values())


FORMATS = {
    "onnx": Format(".onnx", fuzz_onnx.write, fuzz_onnx.read, fuzz_onnx.change),
    "safetensors": Format(".safetensors", _write_weights(".safetensors"), _read_weights),
    "npz": Format(".npz", _write_weights(".npz"), _read_weights),
    "session": Format(".session", fuzz_session.write, fuzz_session.read, fuzz_session.change),
}

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
HUGE = (b"\xff" * 9 + b"\x01", (2**63 - 1).to_bytes(8, "little"), b"\xff\x7f")


def damage(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A few random changes of bytes; `other` is another good file."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 64)), len(found) - at)
        kind = rng.randrange(8)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = rng.choice(EXTREMES)
        elif kind == 2:
            found[at : at + length] = bytes(rng.choice(EXTREMES) for _ in range(length))
        elif kind == 3:  # a length field of 64 bits, or a varint, that is huge
            found[at : at + length] = rng.choice(HUGE)
        elif kind == 4:
            del found[at : len(found) if rng.random() < 0.5 else at + rng.randrange(1, 200)]
        elif kind == 5:
            found[at:at] = found[at : at + rng.randrange(1, 200)]
        elif kind == 6 and other:
            start = rng.randrange(len(other))
            found[at : at + length] = other[start : start + rng.randrange(1, 200)]
        else:
            found[at:at] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(found)


def case(seed: int, name: str, index: int, files: list[Path]) -> bytes:
    """Damaged file number `index`."""
    rng = random.Random(f"{seed} {name} {index}")
    data, other = (rng.choice(files).read_bytes() for _ in range(2))
    change = FORMATS[name].change
    if change is not None and rng.random() < 0.6:
        data = change(rng, data)
        return data if rng.random() < 0.8 else damage(rng, data, other)
    return damage(rng, data, other)


def child(seed: int, name: str, first: int, last: int, folder: Path) -> None:
    """Read some files; a line for each: "INDEX worked|refused", or "INDEX wrong: what"."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    form = FORMATS[name]
    files = sorted(folder.glob(f"*{form.suffix}"))
    path = folder / f"case{form.suffix}.damaged"
    for index in range(first, last):
        path.write_bytes(case(seed, name, index, files))
        print(index, end=" ", flush=True)
        _limit(SECONDS)
        try:
            form.read(path)
            found = "worked"
        except REFUSALS as error:
            text = str(error)
            clear = text.strip() and "\n" not in text and len(text) < 2000
            starved = "MemoryError" in text or "no memory" in text
            found = "refused" if clear and not starved else f"wrong: {type(error).__name__}: {text[:500]!r}"
        except BaseException as error:
            found = f"wrong: {type(error).__name__}: {str(error)[:500]!r}"
        _limit(0)
        print(found, flush=True)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _limit(seconds: int) -> None:
    """End this process after so much computing, or after ten times as long without."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)


def run_format(seed: int, name: str, first: int, count: int, folder: Path) -> tuple[collections.Counter[str], int, int]:
    """(how many worked, were refused, failed; the largest memory of a child in MiB; seconds)."""
    FORMATS[name].write(folder)
    tally: collections.Counter[str] = collections.Counter()
    peak, begun, index, end = 0, time.monotonic(), first, first + count
    while index < end:
        last = min(index + AT_ONCE, end)
        words = [name, str(index), str(last), str(folder), "--seed", str(seed)]
        done = subprocess.run([sys.executable, "-m", "bench.fuzz_files", "--child", *words], capture_output=True,
                              text=True, errors="replace", cwd=ROOT)  # fmt: skip
        for line in done.stdout.splitlines():
            number, _, found = line.partition(" ")
            if number == "peak":
                peak = max(peak, int(found))
                continue
            index = int(number) + 1
            kind = found if found in ("worked", "refused") else "failed"
            tally[kind] += 1
            if kind == "failed":
                _report(seed, name, int(number), found or _died(done))
        if done.returncode and not done.stdout.strip():
            raise RuntimeError(f"the child for {name} did not begin: {done.stderr[-2000:]}")
        if not done.returncode:
            index = last
    return tally, peak, round(time.monotonic() - begun)


def _died(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode in (-signal.SIGALRM, -signal.SIGPROF):
        return f"took longer than {SECONDS} s of computing, or {10 * SECONDS} s in all"
    return f"the child ended with {done.returncode}: {done.stderr[-500:]}"


def _report(seed: int, name: str, index: int, what: str) -> None:
    print(f"FAILED {name} {index}: {what}")
    print(f"    python -m bench.fuzz_files --formats {name} --seed {seed} --first {index} --count 1", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_files", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="files of each format")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        name, first, last, folder = given.child
        child(given.seed, name, int(first), int(last), Path(folder))
        return 0
    failures = 0
    for name in given.formats.split(","):
        if name not in FORMATS:
            parser.error(f"no format is called {name!r}; known: {', '.join(FORMATS)}")
        with tempfile.TemporaryDirectory() as folder:
            tally, peak, seconds = run_format(given.seed, name, given.first, given.count, Path(folder))
        failures += tally["failed"]
        print(
            f"{name}: {given.count:,} files of seed {given.seed}: {tally['worked']:,} worked, {tally['refused']:,} "
            f"refused, {tally['failed']} failed; at most {peak} MiB, {seconds} s",
            flush=True,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
