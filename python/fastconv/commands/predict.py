# SPDX-License-Identifier: Apache-2.0
"""`fastconv predict`: the most probable classes of pictures, as bars in the terminal and as a chart."""

import argparse
import ast
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import need, whole
from .convert import fit

TEXT = """\
Classify pictures by a network and its weights, and print the most probable
classes. The weights are safetensors, .npz, a .pth file of PyTorch, or a
checkpoint of fastconv train, which knows its network and classes. How a picture
becomes the network's input is on the card of the weights (fc.models.card).
"""
EXAMPLE = "fastconv predict --weights squeezenet1_1.safetensors photo.jpg --plot top5.png"


def add_arguments(command: Any) -> None:
    """Add the arguments of `fastconv predict` to a parser."""
    command.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files that Pillow reads: .jpg, .png and others"
    )
    command.add_argument("--weights", required=True, metavar="FILE", help="what fc.weights.load reads")
    command.add_argument("--model", metavar="NAME", help="the network (default: what the file says)")
    command.add_argument(
        "--card", metavar="NAME", help="which preprocessing (default: what the file says, or the usual)"
    )
    command.add_argument("--classes", metavar="FILE", help="names of the classes, one a line")
    command.add_argument("--top", type=whole, metavar="N", default=5, help="how many classes (default: %(default)s)")
    command.add_argument("--plot", metavar="FILE", help="draw the chart of one picture to a .png, .svg or .pdf file")
    command.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    """Predict, and return the exit code."""
    need("predict", "PIL", *([] if options.json else ["rich"]), *(["matplotlib"] if options.plot else []))
    import fastconv as fc

    if options.plot and len(options.pictures) > 1:
        raise ValueError(f"--plot draws one picture; there are {len(options.pictures)}")
    model, card, names = _open(options)
    results = []
    for number, picture in enumerate(options.pictures):
        with fc.no_grad():
            logits = np.asarray(model(fc.Tensor(card.preprocess(picture))).numpy(), np.float64)
        if logits.ndim != 2:
            raise ValueError(
                f"the network's output has shape {logits.shape}; expected (1, classes): it classifies nothing"
            )
        probabilities = np.exp(logits[0] - logits[0].max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[: options.top]
        labels = names or [str(label) for label in range(len(probabilities))]
        if len(labels) != len(probabilities):
            raise ValueError(f"there are {len(labels)} names of classes; the network has {len(probabilities)} classes")
        if options.json:
            top = [{"label": int(k), "class": labels[k], "probability": float(probabilities[k])} for k in best]
            results.append({"picture": str(picture), "top": top})
        else:
            _print_bars(picture, best, probabilities, labels, number)
        if options.plot:
            fc.plot.top_predictions(probabilities, labels, count=options.top).savefig(options.plot)
    if options.json:
        print(json.dumps(results, indent=2))
    return 0


def _open(options: argparse.Namespace) -> tuple[Any, Any, list[str] | None]:
    """(the network with its weights, its card, names of its classes or None)."""
    import fastconv as fc

    state, about = fc.weights.load(options.weights), fc.weights.metadata(options.weights)
    name = options.model or about.get("model")
    if name is None:
        raise ValueError(f"{options.weights}: does not say which network it is for; name it with --model")
    card = fc.models.card(name, options.card or about.get("card"))
    build = json.loads(about.get("options", "{}")) if name == about.get("model") else {}
    model = fit(name, state, options.weights, **build).eval()
    if card.name == "plain" and card.size is not None and build.get("in_channels") in (1, 3):
        card = fc.models.cards.plain_card(card.size, build["in_channels"])
    if options.classes:
        return model, card, Path(options.classes).read_text(encoding="utf-8").splitlines()
    if "classes" in about:
        return model, card, json.loads(about["classes"])
    return model, card, _imagenet_names() if card.classes == "imagenet" else None


def _imagenet_names() -> list[str] | None:
    """ImageNet's class names as torchvision has them, read as text, without importing it; None where it is missing."""
    package = importlib.util.find_spec("torchvision")
    source = Path(package.origin).parent / "models" / "_meta.py" if package and package.origin else None
    if source is None or not source.is_file():
        return None
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        targets = [target.id for target in getattr(statement, "targets", []) if isinstance(target, ast.Name)]
        if isinstance(statement, ast.Assign) and targets == ["_IMAGENET_CATEGORIES"]:
            return [str(name) for name in ast.literal_eval(statement.value)]
    return None


def _print_bars(
    picture: str, best: npt.NDArray[Any], probabilities: npt.NDArray[Any], labels: Sequence[str], number: int
) -> None:
    """One line per class: its name, its probability, and a bar that is as long as that."""
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table

    named = any(labels[label] != str(label) for label in best.tolist())
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("label", justify="right")
    if named:
        table.add_column("class", no_wrap=True, overflow="ellipsis", max_width=30)
    table.add_column("probability", justify="right")
    table.add_column("", ratio=1)
    for label in best.tolist():
        share = float(probabilities[label])
        name = [labels[label]] if named else []
        text = f"{share:.1%}" if share >= 0.0005 else "<0.1%"
        table.add_row(str(label), *name, text, Bar(1.0, 0.0, share, color="blue"))
    console = Console()
    if number:
        console.print()
    console.print(picture, soft_wrap=True, style="bold", markup=False, highlight=False)
    console.print(table)
