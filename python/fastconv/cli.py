# SPDX-License-Identifier: Apache-2.0
"""The command `fastconv`: its arguments, and its commands in a few lines each.

Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line on standard error; with FASTCONV_LOG=debug its
traceback comes before it. `info`, `explain`, `summary`, `convert` and `bench` need numpy alone, the others the extra
`fastconv[demo]`.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .commands.arguments import need, positive, seed, whole

_EXPLAINED = "fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1"


class UsageError(Exception):
    """The command line asks for something that cannot be: exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` where None) and return its exit code; the parser itself exits for --help."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        command: Callable[[argparse.Namespace], int] = options.run
        code = command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail("interrupted; what was saved before is whole", 1)
    except BrokenPipeError:
        # The reader (head, less) has left: nobody is there to be told, and flushing at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        return _fail(str(error), 2)
    except (OSError, ValueError, ImportError, ArithmeticError, RuntimeError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__, 1)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (FASTCONV_LOG=debug shows where)", 1)


def _fail(message: str, code: int) -> int:
    if os.environ.get("FASTCONV_LOG") == "debug":
        traceback.print_exc()
    print("fastconv:", " ".join(message.split()), file=sys.stderr)
    return code


def _info(options: argparse.Namespace) -> int:
    import fastconv as fc

    facts = fc.info()
    print(json.dumps(facts, indent=2, default=str) if options.json else facts)
    return 0


def _explain(options: argparse.Namespace) -> int:
    import fastconv as fc

    try:
        explanation = fc.explain(
            " ".join(options.problem),
            device=options.device,
            measure=options.measure,
            errors=options.errors,
            budget=options.budget,
        )
    except fc.ProblemError as error:
        raise UsageError(str(error)) from error
    if options.html:
        Path(options.html).write_text(explanation.to_html(), encoding="utf-8")
    print(json.dumps(explanation.to_dict(), indent=2, default=str) if options.json else explanation)
    return 0


def _check_file(options: argparse.Namespace) -> int:
    from .selfcheck import check_file

    right, text = check_file(options.file)
    print(text)
    return 0 if right else 1


def _bench(options: argparse.Namespace) -> int:
    from .bench import command as bench

    try:
        return bench.run_command(options)
    except ValueError as error:  # nothing that is measured raises one
        raise UsageError(str(error)) from error


def _tune(options: argparse.Namespace) -> int:
    from .tuning import command as tune

    try:
        return tune.run_command(options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _demo(options: argparse.Namespace) -> int:
    need("demo", "rich", "matplotlib")
    from .demo import run

    return run(Path(options.out), epochs=options.epochs, seed=options.seed)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import fastconv as fc

        print(f"fastconv {fc.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastconv",
        description="Convolutions at native speed: see what runs and why, train a small network, look at it.",
        epilog="Begin with: fastconv demo. Each command explains itself: fastconv train --help.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_info(commands)
    _add_explain(commands)
    _add_summary(commands)
    _add_bench(commands)
    _add_tune(commands)
    _add_check_file(commands)
    _add_training(commands)
    _add_weights(commands)
    _add_demo(commands)
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, text: str, example: str
) -> Any:
    command = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_info(commands: Any) -> None:
    text = "Print the version, the processor, the instruction set in use and the settings."
    command = _add(commands, "info", _info, "what machine and build this is", text, "fastconv info --json")
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_explain(commands: Any) -> None:
    text = (
        "Show every algorithm for one convolution: usable or why not, time, workspace, and which is chosen.\n\n"
        "PROBLEM is text: PASS n c d h w k t r s strideX padX dilX gN layout dtype, where PASS is fwd (the default),\n"
        "bwd_data or bwd_filter; n images, c channels of d x h x w cells, k filters of t x r x s; layout nchw or\n"
        "nhwc; dtype f32, f64, f16 or bf16. A padding mode, bias, residual and an activation may follow. What has a\n"
        "default may be left out."
    )
    example = f'fastconv explain "{_EXPLAINED}" --measure'
    command = _add(commands, "explain", _explain, "which algorithm computes a convolution, and why", text, example)
    command.add_argument("problem", nargs="+", metavar="PROBLEM", help=f'e.g. "{_EXPLAINED}"')
    command.add_argument("--measure", action="store_true", help="also time each algorithm on this machine")
    command.add_argument("--errors", action="store_true", help="compare each algorithm with float64")
    command.add_argument(
        "--budget", type=positive, metavar="S", default=1.0, help="seconds for measuring in all (default: %(default)s)"
    )
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:1 (default: %(default)s)")
    command.add_argument("--html", metavar="FILE", help="also write a page with a picture of the roofline")
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_summary(commands: Any) -> None:
    from .commands import summary

    command = _add(
        commands, "summary", summary.run, "the layers of a network, as a table", summary.TEXT, summary.EXAMPLE
    )
    summary.add_arguments(command)


def _add_bench(commands: Any) -> None:
    from .bench import command as bench

    summary = "how fast it is, beside other libraries"
    bench.add_arguments(_add(commands, "bench", _bench, summary, bench.TEXT, bench.EXAMPLE))


def _add_tune(commands: Any) -> None:
    from .tuning import command as tune

    summary = "time algorithms within a budget and keep the fastest"
    tune.add_arguments(_add(commands, "tune", _tune, summary, tune.TEXT, tune.EXAMPLE))


def _add_check_file(commands: Any) -> None:
    text = (
        "Compute a call that FASTCONV_CHECK=1/N found wrong and saved once more, beside float64. Exit code 0 if it is\n"
        "right now, 1 if it is still wrong."
    )
    example = "fastconv check fastconv-check-4711-0.npz"
    command = _add(commands, "check", _check_file, "repeat a call that was found wrong", text, example)
    command.add_argument("file", metavar="FILE", help="what the warning named")


def _add_training(commands: Any) -> None:
    from .commands import training

    train = _add(
        commands, "train", training.train, "train a network on images", training.TRAIN_TEXT, training.TRAIN_EXAMPLE
    )
    training.add_train_arguments(train)
    evaluate = _add(
        commands,
        "evaluate",
        training.evaluate,
        "test a trained network",
        training.EVALUATE_TEXT,
        training.EVALUATE_EXAMPLE,
    )
    training.add_evaluate_arguments(evaluate)


def _add_weights(commands: Any) -> None:
    from .commands import convert, predict

    summary = "what a network sees in a picture"
    predict.add_arguments(_add(commands, "predict", predict.run, summary, predict.TEXT, predict.EXAMPLE))
    summary = "weights from one kind of file to another"
    convert.add_arguments(_add(commands, "convert", convert.run, summary, convert.TEXT, convert.EXAMPLE))


def _add_demo(commands: Any) -> None:
    text = (
        "Say what machine this is, explain one convolution, train LeNet-5 on handwritten digits within a minute, and\n"
        "write a report: training curve, confusion matrix, learned filters, activation maps, and all figures as JSON."
    )
    command = _add(commands, "demo", _demo, "the whole tour in a minute", text, "fastconv demo --out my-report")
    command.add_argument("--out", default="fastconv-report", metavar="DIR", help="where (default: %(default)s)")
    command.add_argument(
        "--epochs", type=whole, metavar="N", help="not the recipe's number: no accuracy is promised then"
    )
    command.add_argument(
        "--seed", type=seed, metavar="N", default=0, help="of weights and orders (default: %(default)s)"
    )
