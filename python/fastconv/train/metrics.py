# SPDX-License-Identifier: Apache-2.0
"""How good a classifier is: accuracy, top-k, precision, recall, F1 and the confusion matrix, on arrays of labels.

How near one image is to another, as `psnr` and `ssim`, is computed in image_quality.py.

Throughout, `labels` are the true classes and `predictions` the answers, both integers 0..num_classes - 1 of shape
(N,). Support is the number of examples that a figure rests on. Where a figure would divide by zero (a class that never
occurs, one that is never answered, no examples at all) it is 0.0; its support tells the cases apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .image_quality import mae as mae
from .image_quality import mse as mse
from .image_quality import psnr as psnr
from .image_quality import ssim as ssim

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Accuracy(NamedTuple):
    """The share of right answers, and the number of answers."""

    value: float
    support: int


@dataclass(frozen=True)
class ClassScores:
    """Per class, arrays of shape (num_classes,): of its answers how many are right (precision), of its examples how
    many are found (recall), the harmonic mean of both (f1), and the number of its examples (support)."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Integers


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> Accuracy:
    """The share of predictions that equal their label; 0.0 with support 0 for empty arrays.

    Raises:
        ValueError: shapes differ or are not (N,).
        TypeError: one of both is not integers.
    """
    truth, answer = _checked("accuracy", labels, predictions)
    return Accuracy(_ratio(np.sum(truth == answer), truth.size).item(), truth.size)


def top_k_accuracy(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int = 5) -> Accuracy:
    """The share of examples whose label is among the k classes with the highest scores; 1 - top-5 error for k = 5.

    Args:
        labels: (N,) integers.
        scores: (N, num_classes): logits or probabilities. Of equal scores the first class counts as the higher one, as
            in argmax, so that k = 1 is the accuracy; NaN counts as the lowest.
        k: 1 up to num_classes, and beyond, where every answer is right.

    Raises:
        ValueError: shapes that do not fit, a label that is no class, k below 1.
        TypeError: labels that are not integers.
    """
    table = np.asarray(scores, dtype=np.float64)
    truth, _ = _checked("top_k_accuracy", labels, labels)
    if table.ndim != 2 or len(table) != len(truth) or k < 1:
        raise ValueError(
            f"top_k_accuracy: scores have shape {table.shape} for {len(truth)} labels, k is {k}; expected "
            f"({len(truth)}, num_classes) and k of at least 1"
        )
    if truth.size and not (truth.min() >= 0 and truth.max() < table.shape[1]):
        raise ValueError(
            f"top_k_accuracy: labels run from {truth.min()} to {truth.max()}; expected 0..{table.shape[1] - 1}"
        )
    table = np.where(np.isnan(table), -np.inf, table)
    own = np.take_along_axis(table, truth[:, None], axis=1) if truth.size else table[:, :1]
    earlier = np.arange(table.shape[1]) < truth[:, None]
    rank = np.sum((table > own) | ((table == own) & earlier), axis=1)
    return Accuracy(_ratio(np.sum(rank < k), truth.size).item(), truth.size)


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> Integers:
    """Counts (num_classes, num_classes); entry [i, j] is how often class i was answered as class j.

    Args:
        num_classes: left out, one more than the largest number in both arrays.

    Raises:
        ValueError: shapes differ or are not (N,), or a number is not in 0..num_classes - 1.
        TypeError: one of both is not integers.
    """
    truth, answer = _checked("confusion_matrix", labels, predictions)
    highest = max(truth.max(initial=-1), answer.max(initial=-1))
    lowest = min(truth.min(initial=0), answer.min(initial=0))
    if num_classes is None:
        num_classes = int(highest) + 1
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"confusion_matrix: classes run from {lowest} to {highest}; expected 0..{num_classes - 1}")
    counts = np.bincount(truth * num_classes + answer, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def class_scores(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> ClassScores:
    """Precision, recall and F1 of every class; arguments and errors as in `confusion_matrix`."""
    counts = confusion_matrix(labels, predictions, num_classes)
    right = np.diagonal(counts)
    answered, support = counts.sum(axis=0), counts.sum(axis=1)
    return ClassScores(
        precision=_ratio(right, answered),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, answered + support),
        support=support,
    )


def precision(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> Floats:
    """Of the answers "class c", the share that is right; shape (num_classes,), 0.0 where there is no such answer."""
    return class_scores(labels, predictions, num_classes).precision


def recall(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> Floats:
    """Of the examples of class c, the share that is found; shape (num_classes,), 0.0 where there is no such example."""
    return class_scores(labels, predictions, num_classes).recall


def f1(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> Floats:
    """The harmonic mean of precision and recall; shape (num_classes,), 0.0 where both are."""
    return class_scores(labels, predictions, num_classes).f1


def classification_report(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: Sequence[str] | None = None
) -> str:
    """A table as text: one line per class, then the mean over classes and the accuracy with its support.

    Args:
        classes: names by label; left out, the numbers themselves.

    The mean leaves out classes without examples: a class that the data lack says nothing about the classifier.
    """
    scores = class_scores(labels, predictions, None if classes is None else len(classes))
    names = [str(number) for number in range(len(scores.support))] if classes is None else list(classes)
    width = max(len(name) for name in [*names, "accuracy"])
    lines = [f"{'class':>{width}}  precision  recall      f1  support"]
    rows = np.stack([scores.precision, scores.recall, scores.f1], axis=1)
    for name, row, support in zip(names, rows, scores.support, strict=True):
        lines.append(_line(name, width, row, support))
    present = scores.support > 0
    mean = rows[present].mean(axis=0) if present.any() else np.zeros(3)
    total = accuracy(labels, predictions)
    lines.append("")
    lines.append(_line("mean", width, mean, total.support))
    lines.append(f"{'accuracy':>{width}}  {'':9}  {'':6}  {total.value:6.4f}  {total.support:7d}")
    return "\n".join(lines)


def _line(name: str, width: int, scores: Floats, support: int) -> str:
    return f"{name:>{width}}  {scores[0]:9.4f}  {scores[1]:6.4f}  {scores[2]:6.4f}  {support:7d}"


def _ratio(part: Any, whole: Any) -> Floats:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0))


def _checked(name: str, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[Integers, Integers]:
    arrays = []
    for argument, given in {"labels": labels, "predictions": predictions}.items():
        array = np.asarray(given)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"{name}: {argument} are {array.dtype}; expected integers (of logits, take argmax first)")
        arrays.append(array.astype(np.int64))
    truth, answer = arrays
    if truth.ndim != 1 or truth.shape != answer.shape:
        raise ValueError(f"{name}: labels have shape {truth.shape}, predictions {answer.shape}; expected (N,) for both")
    return truth, answer
