# SPDX-License-Identifier: Apache-2.0
"""`fastconv demo`: one convolution explained, LeNet-5 trained on the embedded digits, and a report folder.

The recipe: the 8 x 8 digits enlarged to 32 x 32, turned, zoomed and shifted a little, Adam with a rate that falls
linearly to zero. A run that keeps to it and stays under 98 % on the held-out digits has failed, and says so.
"""

import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastconv as fc

EPOCHS = 30
BATCH_SIZE = 32
LEARNING_RATE = 3e-3
AUGMENTATION = fc.data.RandomAffine(degrees=15, zoom=0.15, shift=2)
PROMISED_ACCURACY = 0.98
PROBLEM = "fwd n32 c6 h14 w14 k16 r5 s5"  # the second convolution of LeNet-5 for one batch


def run(out: Path, *, epochs: int | None = None, seed: int = 0) -> int:
    """Run the demo, write the report to `out`, and return the exit code of the command.

    Args:
        epochs: None is the recipe's number; with another one no accuracy is promised.
        seed: of weights, orders and augmentation.
    """
    facts = fc.info()
    print(_machine(facts))
    print(f"\nThe second convolution of LeNet-5, explained ({PROBLEM}):\n")
    explanation = fc.explain(PROBLEM, measure=True)
    print(explanation)

    train, test = fc.data.digits(size=32)
    count = EPOCHS if epochs is None else epochs
    print(f"\nLeNet-5 learns {len(train)} digits; {len(test)} others are held out. {count} epochs, seed {seed}:\n")
    start = time.perf_counter()
    fc.manual_seed(seed)
    model = fc.models.lenet5()
    history = fc.train.fit(
        model,
        fc.data.DataLoader(train, BATCH_SIZE, shuffle=True, seed=seed, transform=AUGMENTATION),
        optimizer=fc.optim.Adam(model.parameters(), lr=LEARNING_RATE),
        learning_rate=lambda epoch: LEARNING_RATE * (1 - (epoch - 1) / count),
        epochs=count,
        validation=fc.data.DataLoader(test, 256),
    )
    seconds = time.perf_counter() - start
    result = fc.train.evaluate(model, fc.data.DataLoader(test, 256))
    print(f"\nheld-out accuracy {result.accuracy:.2%} on {result.support} digits, trained in {seconds:.1f} s\n")

    out.mkdir(parents=True, exist_ok=True)
    _write_figures(out, model, history, result, test)
    report = {
        "machine": facts,
        "versions": _versions(),
        "seeds": {"training": seed, "split": 0},
        "recipe": {
            "model": "lenet5",
            "data": "digits, 32x32",
            "epochs": count,
            "batch_size": BATCH_SIZE,
            "optimizer": "Adam",
            "learning_rate": LEARNING_RATE,
            "augmentation": asdict(AUGMENTATION),
        },
        "explained": explanation.to_dict(),
        "history": history.to_dict(),
        "training_seconds": seconds,
        **_scores(result, test.classes),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2, default=str) + "\n")
    print(f"report in {out.resolve()}:")
    for name, meaning in _CONTENTS.items():
        print(f"  {name:21}  {meaning}")
    if epochs is None and result.accuracy < PROMISED_ACCURACY:
        raise RuntimeError(
            f"demo: held-out accuracy is {result.accuracy:.2%}; expected at least {PROMISED_ACCURACY:.0%}"
        )
    return 0


_CONTENTS = {
    "training_curve.png": "loss and accuracy by epoch",
    "confusion_matrix.png": "which digit is taken for which",
    "filters.png": "what the first convolution looks for",
    "activations.png": "one digit on its way through the network",
    "report.json": "machine, versions, seeds, history and scores",
}


def _write_figures(
    out: Path,
    model: fc.nn.Sequential,
    history: fc.train.History,
    result: fc.train.Evaluation,
    test: fc.data.ArrayDataset,
) -> None:
    counts = fc.train.metrics.confusion_matrix(result.labels, result.predictions, len(test.classes))
    first_convolution = next(layer for layer in model if isinstance(layer, fc.nn.Conv2d))
    figures = {
        "training_curve.png": fc.plot.training_curve(history),
        "confusion_matrix.png": fc.plot.confusion_matrix(counts, test.classes),
        "filters.png": fc.plot.filters(first_convolution, title="LeNet-5, first convolution: 6 filters of 5 x 5"),
        "activations.png": fc.plot.activations(model, test.images[0], classes=test.classes),
    }
    for name, figure in figures.items():
        figure.savefig(out / name)


def _scores(result: fc.train.Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    metrics = fc.train.metrics
    scores = metrics.class_scores(result.labels, result.predictions, len(classes))
    per_class = {
        name: {
            "precision": float(scores.precision[label]),
            "recall": float(scores.recall[label]),
            "f1": float(scores.f1[label]),
            "support": int(scores.support[label]),
        }
        for label, name in enumerate(classes)
    }
    return {
        "accuracy": result.accuracy,
        "support": result.support,
        "per_class": per_class,
        "confusion_matrix": metrics.confusion_matrix(result.labels, result.predictions, len(classes)).tolist(),
    }


def _machine(facts: dict[str, Any]) -> str:
    known = [f"{name} {facts[name]}" for name in ("cpu", "isa", "threads") if name in facts]
    return f"fastconv {fc.__version__} on {platform.machine()}: {', '.join(known)}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "fastconv": fc.__version__}
    for name in ("numpy", "matplotlib", "rich"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
