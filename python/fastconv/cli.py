# SPDX-License-Identifier: Apache-2.0
"""The command `fastconv`: its arguments, and its commands in a few lines each.

Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line on standard error; with FASTCONV_LOG=debug its
traceback comes before it. `info`, `explain` and `bench` need numpy alone, the others the extra `fastconv[demo]`.
"""

import argparse
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_EXTRA = {"rich": "the progress bar", "matplotlib": "the figures"}
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
        explanation = fc.explain(" ".join(options.problem), measure=options.measure)
    except fc.ProblemError as error:
        raise UsageError(str(error)) from error
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


def _train(options: argparse.Namespace) -> int:
    _need("train", "rich", "matplotlib")
    import fastconv as fc

    out = Path(options.out)
    saved = out / "checkpoint.npz"
    if saved.exists() and not options.resume and not options.overwrite:
        raise ValueError(
            f"{saved} exists: continue it with --resume {saved}, replace it with --overwrite, or choose --out"
        )
    fc.manual_seed(options.seed)
    train, test = _load(options.data, options.model)
    build = {"num_classes": len(train.classes), "in_channels": train.images.shape[1]}
    about = {"model": options.model, "options": build, "classes": list(train.classes), "data": str(options.data)}
    if options.resume:
        _check_resumable(options.resume, about)
    model = fc.models.build(options.model, **build)
    optimizer = (
        fc.optim.Adam(model.parameters(), lr=options.lr)
        if options.optimizer == "adam"
        else fc.optim.SGD(model.parameters(), lr=options.lr, momentum=options.momentum)
    )
    transform = fc.data.RandomAffine(degrees=10, zoom=0.1, shift=2) if options.augment else None
    loader = fc.data.DataLoader(train, options.batch_size, shuffle=True, seed=options.seed, transform=transform)
    held_out = fc.data.DataLoader(test, 256)
    out.mkdir(parents=True, exist_ok=True)
    history = fc.train.fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=options.epochs,
        validation=held_out,
        checkpoint=saved,
        resume=options.resume,
        metadata=about,
    )
    result = fc.train.evaluate(model, held_out)
    (out / "history.json").write_text(json.dumps(history.to_dict(), indent=2) + "\n")
    if history.epochs:
        fc.plot.training_curve(history).savefig(out / "training_curve.png")
    print(f"held-out accuracy {result.accuracy:.4f} on {result.support} images")
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    return 0


def _check_resumable(path: str, about: dict[str, Any]) -> None:
    import fastconv as fc

    before = fc.train.load_checkpoint(path).metadata
    for name in ("model", "options", "classes"):
        if before.get(name) != about[name]:
            raise ValueError(
                f"{path}: its {name} is {before.get(name)}, this run's is {about[name]}; they must be equal"
            )


def _evaluate(options: argparse.Namespace) -> int:
    _need("evaluate", "rich")
    import fastconv as fc

    checkpoint = fc.train.load_checkpoint(options.checkpoint)
    about = checkpoint.metadata
    if "model" not in about:
        raise ValueError(
            f"{options.checkpoint}: does not say which model it holds; expected one that fastconv train wrote"
        )
    _, test = _load(options.data, about["model"])
    if list(test.classes) != about["classes"]:
        raise ValueError(f"{options.data}: has classes {list(test.classes)}; the checkpoint knows {about['classes']}")
    model = fc.models.build(about["model"], **about["options"])
    model.load_state_dict(checkpoint.model)
    result = fc.train.evaluate(model, fc.data.DataLoader(test, 256))
    counts = fc.train.metrics.confusion_matrix(result.labels, result.predictions, len(test.classes))
    if options.json:
        scores = fc.train.metrics.class_scores(result.labels, result.predictions, len(test.classes))
        record = {
            "accuracy": result.accuracy,
            "support": result.support,
            "loss": result.loss,
            "classes": list(test.classes),
            **{name: values.tolist() for name, values in vars(scores).items() if name != "support"},
            "class_support": scores.support.tolist(),
            "confusion_matrix": counts.tolist(),
        }
        print(json.dumps(record, indent=2))
    else:
        print(f"{about['model']} after {checkpoint.epoch} epochs on {options.data}, loss {result.loss:.4f}\n")
        print(fc.train.metrics.classification_report(result.labels, result.predictions, test.classes))
        _print_confusion(counts, test.classes)
    return 0


def _print_confusion(counts: Any, classes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ["", *classes]:
        table.add_column(heading, justify="right")
    for name, row in zip(classes, counts, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    print("\nrows: true class, columns: answer")
    Console().print(table)


def _demo(options: argparse.Namespace) -> int:
    _need("demo", "rich", "matplotlib")
    from .demo import run

    return run(Path(options.out), epochs=options.epochs, seed=options.seed)


def _need(command: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        uses = " and ".join(f"{name} ({_EXTRA[name]})" for name in missing)
        raise ImportError(f'{command} needs {uses}: pip install "fastconv[demo]"')


def _load(source: str, model: str) -> Any:
    """Both parts of a data set, at the size that the model takes."""
    import fastconv as fc

    size = fc.models.input_size(model)
    parts = fc.data.load(source)
    return tuple(
        fc.data.ArrayDataset(fc.data.fit_square(part.images, size), part.labels, part.classes) for part in parts
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import fastconv as fc

        print(f"fastconv {fc.__version__}")
        parser.exit()


def _whole(text: str) -> int:
    """An integer of at least 1, as argparse calls it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value


def _positive(text: str) -> float:
    """A number above 0, as argparse calls it."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value}; expected a number above 0")
    return value


def _seed(text: str) -> int:
    """An integer of at least 0, as argparse calls it."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 0")
    return value


_whole.__name__, _positive.__name__, _seed.__name__ = "integer", "number", "integer"  # the words in argparse's errors


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
    _add_bench(commands)
    _add_check_file(commands)
    _add_train(commands)
    _add_evaluate(commands)
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
        "PROBLEM is text: PASS n c d h w k t r s strideX padX dilX gN layout dtype, where PASS is fwd, bwd_data or\n"
        "bwd_filter; n images, c channels of d x h x w cells, k filters of t x r x s; layout nchw or nhwc; dtype f32,\n"
        "f64, f16 or bf16. A padding mode, bias, residual and an activation may follow. What has a default may be\n"
        "left out."
    )
    example = f'fastconv explain "{_EXPLAINED}" --measure'
    command = _add(commands, "explain", _explain, "which algorithm computes a convolution, and why", text, example)
    command.add_argument("problem", nargs="+", metavar="PROBLEM", help=f'e.g. "{_EXPLAINED}"')
    command.add_argument("--measure", action="store_true", help="also time each algorithm on this machine")
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_bench(commands: Any) -> None:
    from .bench import command as bench

    summary = "how fast it is, beside other libraries"
    bench.add_arguments(_add(commands, "bench", _bench, summary, bench.TEXT, bench.EXAMPLE))


def _add_check_file(commands: Any) -> None:
    text = (
        "Compute a call that FASTCONV_CHECK=1/N found wrong and saved once more, beside float64. Exit code 0 if it is\n"
        "right now, 1 if it is still wrong."
    )
    example = "fastconv check fastconv-check-4711-0.npz"
    command = _add(commands, "check", _check_file, "repeat a call that was found wrong", text, example)
    command.add_argument("file", metavar="FILE", help="what the warning named")


def _add_train(commands: Any) -> None:
    text = (
        "Train a classifier, test it after every epoch on held-out images; write a checkpoint, the history and the\n"
        "training curve to a folder. Ctrl-C stops it; --resume continues to the same bits as a run never stopped."
    )
    example = "fastconv train --model lenet5 --data digits --epochs 20 --out runs/digits"
    command = _add(commands, "train", _train, "train a network on images", text, example)
    command.add_argument("--model", default="lenet5", choices=_model_names(), help="the network (default: %(default)s)")
    _add_data(command)
    command.add_argument(
        "--epochs", type=_whole, metavar="N", default=20, help="passes over the data (default: %(default)s)"
    )
    command.add_argument(
        "--batch-size", type=_whole, metavar="N", default=32, help="images per step (default: %(default)s)"
    )
    command.add_argument("--lr", type=_positive, metavar="X", default=1e-3, help="learning rate (default: %(default)s)")
    command.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="(default: %(default)s)")
    command.add_argument("--momentum", type=float, metavar="X", default=0.9, help="of sgd (default: %(default)s)")
    command.add_argument("--augment", action="store_true", help="turn, zoom and shift the training images a little")
    command.add_argument(
        "--seed", type=_seed, metavar="N", default=0, help="of weights and orders (default: %(default)s)"
    )
    command.add_argument("--out", default="runs/latest", metavar="DIR", help="result folder (default: %(default)s)")
    command.add_argument("--resume", metavar="FILE", help="continue from this checkpoint, with the same arguments")
    command.add_argument("--overwrite", action="store_true", help="replace the checkpoint of an earlier run in DIR")


def _add_evaluate(commands: Any) -> None:
    text = "Test a trained network on the held-out part of a data set: accuracy, per-class scores, confusion matrix."
    example = "fastconv evaluate --checkpoint runs/digits/checkpoint.npz --data digits"
    command = _add(commands, "evaluate", _evaluate, "test a trained network", text, example)
    command.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint.npz of fastconv train")
    _add_data(command)
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_data(command: Any) -> None:
    what = "digits (comes with fastconv), a folder with MNIST's files, or a .npz file or folder with images and labels"
    command.add_argument("--data", default="digits", metavar="digits|DIR", help=f"{what} (default: %(default)s)")


def _add_demo(commands: Any) -> None:
    text = (
        "Say what machine this is, explain one convolution, train LeNet-5 on handwritten digits within a minute, and\n"
        "write a report: training curve, confusion matrix, learned filters, activation maps, and all figures as JSON."
    )
    command = _add(commands, "demo", _demo, "the whole tour in a minute", text, "fastconv demo --out my-report")
    command.add_argument("--out", default="fastconv-report", metavar="DIR", help="where (default: %(default)s)")
    command.add_argument(
        "--epochs", type=_whole, metavar="N", help="not the recipe's number: no accuracy is promised then"
    )
    command.add_argument(
        "--seed", type=_seed, metavar="N", default=0, help="of weights and orders (default: %(default)s)"
    )


def _model_names() -> list[str]:
    from fastconv import models

    return models.list()
