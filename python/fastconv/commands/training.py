# SPDX-License-Identifier: Apache-2.0
"""`fastconv train` and `fastconv evaluate`: their arguments, and what they do with them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arguments import need, positive, seed, whole

TRAIN_TEXT = """\
Train a classifier, test it after every epoch on held-out images; write a checkpoint, the history and the
training curve to a folder. Ctrl-C stops it; --resume continues to the same bits as a run never stopped.
"""
TRAIN_EXAMPLE = "fastconv train --model lenet5 --data digits --epochs 20 --out runs/digits"
EVALUATE_TEXT = (
    "Test a trained network on the held-out part of a data set: accuracy, per-class scores, confusion matrix."
)
EVALUATE_EXAMPLE = "fastconv evaluate --checkpoint runs/digits/checkpoint.npz --data digits"


def add_train_arguments(command: Any) -> None:
    """Add the arguments of `fastconv train` to a parser."""
    command.add_argument("--model", default="lenet5", choices=_model_names(), help="the network (default: %(default)s)")
    _add_data(command)
    command.add_argument(
        "--epochs", type=whole, metavar="N", default=20, help="passes over the data (default: %(default)s)"
    )
    command.add_argument(
        "--batch-size", type=whole, metavar="N", default=32, help="images per step (default: %(default)s)"
    )
    command.add_argument("--lr", type=positive, metavar="X", default=1e-3, help="learning rate (default: %(default)s)")
    command.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="(default: %(default)s)")
    command.add_argument("--momentum", type=float, metavar="X", default=0.9, help="of sgd (default: %(default)s)")
    command.add_argument("--augment", action="store_true", help="turn, zoom and shift the training images a little")
    command.add_argument(
        "--seed", type=seed, metavar="N", default=0, help="of weights and orders (default: %(default)s)"
    )
    command.add_argument("--out", default="runs/latest", metavar="DIR", help="result folder (default: %(default)s)")
    command.add_argument("--resume", metavar="FILE", help="continue from this checkpoint, with the same arguments")
    command.add_argument("--overwrite", action="store_true", help="replace the checkpoint of an earlier run in DIR")


def add_evaluate_arguments(command: Any) -> None:
    """Add the arguments of `fastconv evaluate` to a parser."""
    command.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint.npz of fastconv train")
    _add_data(command)
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_data(command: Any) -> None:
    what = "digits (comes with fastconv), a folder with MNIST's files, or a .npz file or folder with images and labels"
    command.add_argument("--data", default="digits", metavar="digits|DIR", help=f"{what} (default: %(default)s)")


def _model_names() -> list[str]:
    from fastconv import models

    return models.list("num_classes", "in_channels")


def train(options: argparse.Namespace) -> int:
    """Train, and return the exit code."""
    need("train", "rich", "matplotlib")
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
    _check_classifier(options.model, model, train.images.shape[1:], len(train.classes))
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
        loss=fc.models.auxiliary_loss,
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


def _check_classifier(name: str, model: Any, shape: tuple[int, ...], classes: int) -> None:
    import numpy as np

    import fastconv as fc

    with fc.no_grad():  # no images: the shape alone
        answer = model.eval()(fc.Tensor(np.zeros((0, *shape), np.float32))).shape[1:]
    if answer != (classes,):
        raise ValueError(
            f"train: {name} answers an image with shape {answer}; expected a score for each of {classes} classes"
        )


def _check_resumable(path: str, about: dict[str, Any]) -> None:
    import fastconv as fc

    before = fc.train.load_checkpoint(path).metadata
    for name in ("model", "options", "classes"):
        if before.get(name) != about[name]:
            raise ValueError(
                f"{path}: its {name} is {before.get(name)}, this run's is {about[name]}; they must be equal"
            )


def evaluate(options: argparse.Namespace) -> int:
    """Test a checkpoint, and return the exit code."""
    need("evaluate", "rich")
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


def _load(source: str, model: str) -> Any:
    """Both parts of a data set, at the size that the model takes."""
    import fastconv as fc

    size = fc.models.input_size(model)
    parts = fc.data.load(source)
    return tuple(
        fc.data.ArrayDataset(fc.data.fit_square(part.images, size), part.labels, part.classes) for part in parts
    )
