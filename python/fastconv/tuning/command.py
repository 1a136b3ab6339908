# SPDX-License-Identifier: Apache-2.0
"""`fastconv tune`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands.arguments import seconds, size

TEXT = """\
Time the algorithms for some convolutions within a budget and keep the fastest, class of shapes by class of shapes.

  fastconv tune WHAT...              WHAT is a problem as text (see fastconv explain --help), a file with one problem a
                                     line, or a MODEL.onnx
  fastconv tune show FILE            what a tuning file says
  fastconv tune diff OLD NEW         which classes changed algorithm or speed
  fastconv tune merge FILE FILE ...  all entries of several files, to --out

Problems whose extents round up to the same class share one measurement; classes that the file knows cost nothing.
Ctrl-C ends it early and loses nothing. The file takes effect where it is loaded: by FASTCONV_TUNING=FILE, or
tuning= in Python.
"""
EXAMPLE = "fastconv tune --budget 30s --out machine.tuning resnet50.onnx"


def add_arguments(command: Any) -> None:
    """Add the arguments to a parser."""
    command.add_argument("what", nargs="+", metavar="WHAT", help="problems, or show, diff or merge and their files")
    command.add_argument(
        "--budget",
        type=seconds,
        default=30.0,
        metavar="TIME",
        help="of measuring in all: 30s, 500ms, 2m (default: 30s)",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="tuning file to read, if it exists, and to write")
    command.add_argument("--threads", type=int, metavar="N", help="threads that the timed calls use (default: all)")
    command.add_argument(
        "--passes", metavar="PASS", help="of fwd, bwd_data, bwd_filter, by commas (default: as they are)"
    )
    command.add_argument("--batch", type=int, default=1, metavar="N", help="images, where a model leaves that open")
    command.add_argument("--shapes", type=int, metavar="N", help="classes that are timed at most")
    command.add_argument("--bytes", type=size, metavar="SIZE", help="leave out what needs more memory: 512MiB, 2GB")
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:1 (default: %(default)s)")
    command.add_argument("--again", action="store_true", help="time classes that the file knows too")


def problems_of(what: list[str], passes: tuple[str, ...] | None, batch: int) -> list[Any]:
    """The problems that the arguments name.

    Raises:
        ValueError: text that is no problem; a file without any.
        OSError: a file that cannot be read.
    """
    from .._core import ConvProblem

    words, problems = [], []
    for word in what:
        if word.endswith(".onnx"):
            from ..onnx import convolutions

            problems += [problem for problem, _ in convolutions(word, batch)]
        elif Path(word).is_file():
            lines = Path(word).read_text(encoding="utf-8").splitlines()
            problems += [ConvProblem.parse(line) for line in lines if line.partition("#")[0].strip()]
        else:
            words.append(word)
    if words:
        problems.append(ConvProblem.parse(" ".join(words)))
    if not problems:
        raise ValueError(f"{', '.join(what)}: no convolution in there")
    if passes:
        problems = [problem.with_pass(pass_) for pass_ in passes for problem in problems]
    return problems


def run_command(options: argparse.Namespace) -> int:
    """Do what the arguments say and return the exit code."""
    import fastconv as fc

    verb, *files = options.what
    if verb == "show":
        for file in _counted(verb, files, 1, None):
            print(fc.tuning.load(file))
        return 0
    if verb == "diff":
        print(fc.tuning.diff(*_counted(verb, files, 2, 2)))
        return 0
    if verb == "merge":
        if options.out is None:
            raise ValueError("tune merge: --out is missing; expected the file to write")
        merged = fc.tuning.merge(*_counted(verb, files, 1, None))
        merged.save(options.out)
        print(f"{options.out}: {len(merged)} entries, hash {merged.hash}")
        return 0
    if options.threads is not None:
        fc._core.set_threads(options.threads)
    passes = tuple(options.passes.split(",")) if options.passes else None
    tuning = fc.tune(
        problems_of(options.what, passes, options.batch), options.budget, file=options.out, max_shapes=options.shapes,
        max_bytes=options.bytes, again=options.again, device=options.device, progress=_progress,
    )  # fmt: skip
    print(tuning)
    for what, why in tuning.skipped.items():
        print(f"not timed: {what}: {why}")
    return 0


def _counted(verb: str, files: list[str], least: int, most: int | None) -> list[str]:
    if len(files) < least or (most is not None and len(files) > most):
        expected = f"{least}" if least == most else f"{least} or more"
        raise ValueError(f"tune {verb}: {len(files)} files; expected {expected}")
    return files


def _progress(done: int, total: int, what: str) -> None:
    import sys

    if sys.stderr.isatty():
        line = f"{done} of {total}  {what}"[:110]
        sys.stderr.write(f"\r\033[K{line}" if what else "\r\033[K")
        sys.stderr.flush()
