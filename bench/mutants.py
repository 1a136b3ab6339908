# SPDX-License-Identifier: Apache-2.0
"""Whether the tests see wrong indices: `python -m bench.mutants --count 200 --seed 1`.

One place in the index arithmetic of the convolution and pooling kernels is changed at a time, in a copy of the sources
(a bound, an offset, a step, a smaller of two); `check_main` or `check_pool` is built and run over a part of the small
problems, by the algorithms that the kernel is for. A mutant that fails, crashes or does not end is caught; one that
does not compile is drawn again. Survivors are printed with their line: each is a missing test, or a change that changes
no result (a larger block, a copy longer than needed), which only a reader can tell. About half a minute of a core each;
--first goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.repository import ROOT

KERNELS = ("depthwise", "direct", "gemm_tile", "grouped", "implicit", "panel_moves", "phase_tile", "pool", "winograd")
# Whose algorithms, by their first letters, run which kernels; of the others, all.
ALGORITHMS = {
    "depthwise": ("depthwise",),
    "direct": ("direct", "depthwise"),
    "grouped": ("grouped",),
    "implicit": ("implicit",),
    "phase": ("implicit",),
    "winograd": ("winograd",),
}
# What is replaced by what. Comparisons and sums have spaces around them, templates and pointers have not.
CHANGES = [
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" \+ 1\b", ""),
    (r" - 1\b", ""),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" \* (?=[a-z(])", " + "),
    (r" / ", " * "),
    (r"std::min\b", "std::max"),
    (r"std::max\b", "std::min"),
    (r"\+= ", "-= "),
    (r"\+\+(?=[a-z])", "--"),
]
# Not indices: what is compiled away, is said to the compiler, or computes with values.
SKIPPED = re.compile(
    r"^\s*(//|#|static_assert|template|using|constexpr|typedef)|splat|V<T>|prefetch|expect|\bnext\b|ahead|sum\[|\bacc"
)
INDEX = re.compile(r"\[|int64_t|for \(|while \(|if \(|src|dst|pitch|offset|lane|count|\?")


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int  # from 1
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n    - {self.before.strip()}\n    + {self.after.strip()}"


def mutants(root: Path, kernels: tuple[str, ...] = KERNELS) -> list[Mutant]:
    """Every change of every line of the files that begin so, in the order of files, lines and changes."""
    found = []
    for path in sorted((root / "csrc" / "kernels").iterdir()):
        if path.suffix not in (".cc", ".h") or not path.name.startswith(kernels):
            continue
        name = str(path.relative_to(root))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if SKIPPED.search(line) or not INDEX.search(line):
                continue
            code = line.partition("//")[0]
            for pattern, replacement in CHANGES:
                for match in re.finditer(pattern, code):
                    changed = line[: match.start()] + replacement + line[match.end() :]
                    found.append(Mutant(name, number, line, changed))
    return found


class Copy:
    """A copy of the sources with its own build."""

    def __init__(self, folder: Path, isa: str, every: int) -> None:
        self.folder, self.build = folder, folder / "build"
        for name in ("csrc", "cmake", "cuda", "tests"):
            if (ROOT / name).is_dir():
                # As new files: a copy that an interrupted run left may have objects of a mutant.
                shutil.rmtree(folder / name, ignore_errors=True)
                shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copy)
        shutil.copy(ROOT / "CMakeLists.txt", folder)
        lines = (ROOT / "tests/problems/small.txt").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.strip() and not line.startswith("#")][::every]
        self.problems = folder / "problems.txt"
        self.problems.write_text("\n".join(kept) + "\n", encoding="utf-8")
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DFASTCONV_PYTHON=OFF", f"-DFASTCONV_ISAS={isa}"]
        command = ["cmake", "-S", str(folder), "-B", str(self.build), "-G", "Ninja", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if not self.compiles():
            raise RuntimeError("the sources as they are do not compile")

    def compiles(self) -> bool:
        command = ["cmake", "--build", str(self.build), "--target", "check_main", "check_pool"]
        return (
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
        )

    def passes(self, limit: float, path: str = "") -> bool:
        """Whether the programs that reach the kernels of `path`, else both, end well within `limit` seconds each."""
        main = ["check_main", str(self.problems), str(self.folder / "tests/problems/regressions.txt"), "--threads", "1"]
        name = Path(path).name
        for prefix in next((words for start, words in ALGORITHMS.items() if path and name.startswith(start)), ()):
            main += ["--algorithm", prefix]
        programs = [["check_pool"], main] if not path else [["check_pool"]] if name.startswith("pool") else [main]
        for command in programs:
            program = [str(self.build / command[0]), *command[1:]]
            with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                if not _ends_well(process, limit):
                    return False
        return True

    def tried(self, mutant: Mutant, limit: float) -> bool | None:
        """Whether it is caught; None: it does not compile."""
        path = self.folder / mutant.path
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        assert lines[mutant.line - 1] == mutant.before
        lines[mutant.line - 1] = mutant.after
        try:
            path.write_text("\n".join(lines), encoding="utf-8")
            return not self.passes(limit, mutant.path) if self.compiles() else None
        finally:
            path.write_text(text, encoding="utf-8")


def _ends_well(process: subprocess.Popen[str], limit: float) -> bool:
    """Reads until the first failure; a program that says nothing for too long is killed."""
    end = time.monotonic() + limit
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            line = process.stdout.readline()
            if not line:
                return process.wait() == 0
            if line.startswith("FAILED"):
                break
    process.kill()
    return False


def drawn(all_of_them: list[Mutant], seed: int) -> Iterator[Mutant]:
    order = list(range(len(all_of_them)))
    random.Random(seed).shuffle(order)
    return (all_of_them[i] for i in order)


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__.split("\n\n")[0])
    p.add_argument("--count", type=int, default=200, help="mutants that compile (default: %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the draw (default: %(default)s)")
    p.add_argument("--first", type=int, default=0, help="leave out so many of the draw (default: %(default)s)")
    p.add_argument("--numbers", help="these of the draw alone, as 3,17: what survived, after a new test")
    p.add_argument("--kernels", default=",".join(KERNELS), help="how their files begin (default: %(default)s)")
    p.add_argument("--isa", default="avx2", help="whose kernels (default: %(default)s)")
    p.add_argument("--every", type=int, default=4, help="of the small problems (default: every %(default)sth)")
    p.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="of the copy (default: %(default)s)")
    options = p.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    copy = Copy(options.folder, options.isa, options.every)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    if not copy.passes(3600):
        print("the sources as they are fail", file=sys.stderr)
        return 1
    limit = 30 + 5 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)  # whatever else runs
    everything = mutants(options.folder, tuple(options.kernels.split(",")))
    print(f"seed {options.seed}, {len(everything)} possible mutants of {options.isa}", flush=True)
    caught = survived = 0
    number = options.first
    wanted = {int(n) for n in options.numbers.split(",")} if options.numbers else None
    for number, mutant in enumerate(drawn(everything, options.seed)):
        if number < options.first or (wanted is not None and number not in wanted):
            continue
        result = copy.tried(mutant, limit)
        caught += result is True
        if result is False:
            survived += 1
            print(f"survived, number {number}: {mutant}", flush=True)
        elif result:
            print(f"caught, number {number}: {mutant.path}:{mutant.line}", flush=True)
        if caught + survived == (options.count if wanted is None else len(wanted)):
            print(f"next: --first {number + 1}")
            break
    print(f"{caught} of {caught + survived} caught")
    return 0


if __name__ == "__main__":
    sys.exit(main())
