# SPDX-License-Identifier: Apache-2.0
"""`fastconv bench`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = """\
Time convolutions by fastconv and by the other libraries that are installed, in turn, and check every result.

WHAT is a problem as text (see fastconv explain --help), a file with one problem a line, a MODEL.onnx, whose
convolutions are timed without what is fused to them, or a list by its name:
  quick   six layers of well-known networks, half a minute or two (the default)
  layers  28 layers of well-known networks
  more    40 others: odd sizes, batches, 1-D and 3-D, large filters

Every library computes in a process of its own, with the same data and the same number of threads, its weights packed
beforehand. A result further from float64 than the limit does not count and is not timed. Speeds are medians, in
effective GFLOP/s (of a direct convolution); ratios above 1 say that fastconv is faster. Let nothing else run.
"""
EXAMPLE = 'fastconv bench "n1 c64 h56 w56 k64 r3 s3 pad1" --threads 1,2 --rivals torch,onnxruntime'
QUICK = "quick"


def _counts(text: str) -> list[int]:
    """Whole numbers of at least 1, by commas, as argparse calls it."""
    counts = [int(word) for word in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected numbers of at least 1")
    return counts


_counts.__name__ = "list of integers"  # the words in argparse's errors


def add_arguments(
    command: Any, *, what: str = QUICK, threads: str = "1", rounds: int = 7, sample: float = 0.02
) -> None:
    """Add the arguments, with these defaults, to a parser."""
    command.add_argument("what", nargs="*", metavar="WHAT", default=[what], help=f"what to time (default: {what})")
    command.add_argument("--only", metavar="PATTERN", help="of a list or file, the lines that contain this")
    command.add_argument(
        "--threads",
        type=_counts,
        default=threads,
        metavar="N",
        help="numbers of threads, by commas (default: %(default)s)",
    )
    command.add_argument(
        "--passes", metavar="PASS", help="of fwd, bwd_data, bwd_filter, by commas (default: fwd, or the problem's)"
    )
    command.add_argument(
        "--rivals", "--peers", default="all", metavar="NAME",
        help="all that are installed, none, or names by commas (default: %(default)s); --list shows them",
    )  # fmt: skip
    command.add_argument("--list", action="store_true", help="show the rivals and the lists of layers, time nothing")
    command.add_argument(
        "--rounds", type=int, metavar="N", default=rounds, help="samples of each (default: %(default)s)"
    )
    command.add_argument(
        "--min-sample", type=float, metavar="S", default=sample, help="seconds of a sample (default: %(default)s)"
    )
    command.add_argument(
        "--settle", type=float, metavar="S", default=0.06, help="untimed seconds before each (default: %(default)s)"
    )
    command.add_argument("--cold", action="store_true", help="empty the caches before each call")
    command.add_argument(
        "--dtype", choices=("f32", "f64", "f16", "bf16"), help="of all layers (default: as they are, f32 in the lists)"
    )
    command.add_argument(
        "--error-limit", type=float, metavar="E", help="largest error that counts (default: 1e-4; f16 1e-3, bf16 8e-3)"
    )
    command.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the data and the order (default: %(default)s)"
    )
    command.add_argument("--isa", help="fastconv's instruction set (default: the machine's best)")
    command.add_argument("--also-isa", metavar="ISA", help="time fastconv with these besides, by commas")
    command.add_argument("--algorithm", help="fastconv's algorithm (default: its own choice)")
    command.add_argument("--precision", default="default", help="fastconv's: strict, default, fast, tf32 or a number")
    command.add_argument("--json", "--out", type=Path, metavar="FILE", help="write all samples there")
    command.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw speed against error there (.png, .svg, .pdf)"
    )


def layers_of(options: argparse.Namespace) -> list[Any]:
    """The layers that the arguments name.

    Raises:
        ValueError: a file, list or pattern without layers, or text that is no problem.
    """
    from . import problems

    text = " ".join(options.what)
    passes = tuple(options.passes.split(",")) if options.passes else None
    for pass_ in passes or ():
        if pass_ not in problems.PASSES:
            raise ValueError(f"--passes: {pass_!r} is none of {', '.join(problems.PASSES)}")
    if text == QUICK:
        each = [problems.load(problems.LAYERS, (pass_,), options.only) for pass_ in passes or ("fwd",)]
        return [layer for layers in each for layer in layers[1::5]]
    if text.endswith(".onnx"):
        return problems.of_model(Path(text), passes or ("fwd",), options.only)
    if len(options.what) == 1 and " " not in text.strip():
        return problems.load(problems.find(text), passes or ("fwd",), options.only)
    first = text.split()[0]
    own = first if first in problems.PASSES else "fwd"
    text = text if first in problems.PASSES else f"fwd {text}"
    return [problems.Layer.parse(text, "", pass_) for pass_ in passes or (own,)]


def measure(options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Run what the arguments ask for, print its tables, draw its figure; the result is saved by the caller."""
    from . import figure, problems, report, run
    from .measure import Settings

    if options.figure and importlib.util.find_spec("matplotlib") is None:
        raise ImportError('bench --figure needs matplotlib: pip install "fastconv[demo]"')
    layers = layers_of(options)
    if options.dtype:
        layers = [layer.with_dtype(options.dtype) for layer in layers]
    settings = Settings(
        rounds=options.rounds,
        min_sample_s=options.min_sample,
        settle_s=options.settle,
        cold=options.cold,
        error_limit=options.error_limit or max(problems.ERROR_LIMITS[layer.dtype] for layer in layers),
        seed=options.seed,
    )
    precision: str | float = options.precision
    with contextlib.suppress(ValueError):
        precision = float(precision)
    isas = options.also_isa.split(",") if options.also_isa else []
    names = run.choose_rivals(options.rivals, isas)
    if all(layer.pass_ != "fwd" for layer in layers):
        names = [name for name in names if not name.startswith("fastconv_plan")]
    choice = run.Choice(names, options.threads, options.isa, options.algorithm, precision)
    minutes = run.seconds_needed(layers, choice, settings) / 60
    threads = " and ".join(map(str, options.threads))
    print(f"problems: {len(layers)}, threads: {threads}; about {minutes:.1f} minutes", flush=True)
    result = run.run(layers, choice, settings, about)
    report.print_result(result)
    if options.figure:
        figure.draw(result, options.figure)
        print(f"drawn: {options.figure}")
    return result


def show_list() -> int:
    from . import peers, problems

    print("rivals:")
    for name, entry in peers.PEERS.items():
        state = "installed" if peers.installed(name) else f"not installed: needs the module {entry.package}"
        print(f"  {name:20} {state}")
    print("lists:")
    print(f"  {QUICK:20} every fifth of layers")
    for name in problems.lists():
        print(f"  {name:20} {len(problems.load(problems.find(name), ('fwd',), None))} problems")
    return 0


def main(options: argparse.Namespace, about: Callable[[], dict[str, Any]], save: Callable[..., Any]) -> int:
    """Exit code: 1 if a result of fastconv was wrong.

    Args:
        about: makes the head of the result.
        save: is called with the result and the file of --json, which may be None.
    """
    from . import run

    if options.list:
        return show_list()
    result = measure(options, about())
    save(result, options.json)
    return 1 if run.wrong(result) else 0


def run_command(options: argparse.Namespace) -> int:
    """What the command line of the package does."""
    from . import measure as measuring
    from . import report

    def save(result: dict[str, Any], path: Path | None) -> None:
        if path:
            report.save(result, path)
            print(f"written: {path}")

    return main(options, lambda: measuring.surroundings("fastconv"), save)
