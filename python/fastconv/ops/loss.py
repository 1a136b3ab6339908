# SPDX-License-Identifier: Apache-2.0
"""Losses against class numbers or class probabilities: cross-entropy and the negative log-likelihood.

A mean over predictions with class weights divides by the sum of the weights of their labels, as PyTorch's does.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._core import ProblemError
from ..arrays import is_native, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor, plain
from .arithmetic import where
from .index import TakeAlong
from .shape import reshape, sum, transpose
from .softmax import Softmax, log_softmax

REDUCTIONS = ("mean", "sum", "none")


class Targets(NamedTuple):
    """What a cross-entropy of rows is taken against."""

    labels: Any  # int64 (N,), from 0 to K - 1 or `ignore`
    weight: Any  # (K,) or None
    smoothing: float
    ignore: int

    def spread(self, classes: int, like: Any) -> Any:
        """The targets as an array t (N, K), so that the loss is -sum(t * log softmax)."""
        xp = namespace(like)
        kept = self.labels != self.ignore
        t = xp.full((len(self.labels), classes), self.smoothing / max(classes, 1), like.dtype)
        t[xp.arange(len(kept))[kept], self.labels[kept]] += like.dtype.type(1 - self.smoothing)
        t = t if self.weight is None else t * self.weight
        return t * kept[:, None]


class CrossEntropy(Function):
    """Per row of (N, K)."""

    @staticmethod
    def forward(ctx: Context, logits: Any, *, targets: Targets) -> Any:
        ctx.save(0)
        ctx.targets = targets
        if is_native(logits):
            if targets.weight is not None:  # logits may have been widened
                ctx.targets = targets = targets._replace(weight=targets.weight.astype(logits.dtype, copy=False))
            words = targets.weight, targets.smoothing, targets.ignore
            loss, ctx.probabilities = _core.cross_entropy_forward(logits, targets.labels, *words)
            return loss
        xp = namespace(logits)
        shifted = logits - logits.max(-1, keepdims=True)
        log_p = shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
        return -(log_p * targets.spread(logits.shape[1], logits)).sum(-1)

    @staticmethod
    def backward(ctx: Context, dloss: Tensor) -> Tensor:
        (logits,), targets = ctx.saved, ctx.targets
        if not is_grad_enabled() and is_native(dloss.data, logits.data):
            words = targets.weight, targets.smoothing, targets.ignore
            return Tensor(_core.cross_entropy_backward(dloss.data, ctx.probabilities, targets.labels, *words))
        kept = targets.labels != targets.ignore
        if not kept.all():  # an ignored row has no gradient, whatever its logits and factor are
            logits, dloss = where(kept[:, None], logits, 0.0), where(kept, dloss, 0.0)
        t = Tensor(targets.spread(logits.shape[1], logits.data))
        return (Softmax.apply(logits) * sum(t, 1, True) - t) * reshape(dloss, -1, 1)


def check_reduction(caller: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """Raise ProblemError unless the reduction is one of the allowed."""
    if reduction not in allowed:
        words = " or ".join(f'"{word}"' for word in allowed)
        raise ProblemError(f"{caller}: reduction is {reduction!r}; expected {words}")


def _as_labels(caller: str, logits: Tensor, labels: Any, ignore_index: int) -> Any:
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{caller}: labels have dtype {labels.dtype}; expected integers: use .astype(numpy.int64)")
    if logits.ndim == 0 or labels.shape != (*logits.shape[:1], *logits.shape[2:])[logits.ndim == 1 :]:
        raise ProblemError(
            f"{caller}: logits have shape {logits.shape}, labels {labels.shape}; expected (N, K, *) and (N, *)"
        )
    classes = logits.shape[1] if logits.ndim > 1 else logits.shape[0]
    used = labels[labels != ignore_index]
    if used.size and (used.min() < 0 or used.max() >= classes):
        raise ProblemError(
            f"{caller}: labels go from {used.min()} to {used.max()}; expected 0 to {classes - 1} for {classes} classes"
        )
    return labels.astype(np.int64)


def _class_weight(caller: str, weight: Any, logits: Tensor, classes: int) -> Any:
    if weight is None:
        return None
    weight = plain(weight)
    weight = weight if hasattr(weight, "dtype") else np.asarray(weight, logits.dtype)
    if weight.shape != (classes,):
        raise ProblemError(f"{caller}: weight has shape {weight.shape}; expected ({classes},), one for each class")
    if weight.dtype != logits.dtype:
        raise TypeError(
            f"{caller}: weight has dtype {weight.dtype}, logits {logits.dtype}; expected the same: use .astype"
        )
    return weight


def _rows(x: Tensor) -> Tensor:
    """(N, K, *) or (K,) as (predictions, K)."""
    if x.ndim > 2:
        x = transpose(x, 0, *range(2, x.ndim), 1)
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _reduced(loss: Tensor, reduction: str, shape: tuple[int, ...], labels: Any, weight: Any, ignore: int) -> Tensor:
    if reduction == "none":
        return reshape(loss, shape)
    total = sum(loss)
    if reduction == "sum":
        return total
    kept = labels[labels != ignore]
    left = float(kept.size if weight is None else weight[kept].sum(dtype=np.float64))
    return total / left if left else total * math.nan


def cross_entropy(
    logits: Any,
    labels: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(logits)[label], or the sum of that over classes times their probabilities.

    Args:
        logits: (K,), (N, K), or (N, K, *) with one prediction per position.
        labels: integers from 0 to K - 1, (), (N,) or (N, *); or probabilities, floats of the shape of logits.
        weight: (K,), a factor for each class.
        ignore_index: predictions with this label count nowhere; their gradient is 0, even of a mean over nothing.
        reduction: "mean" or "sum" over all predictions, or "none": one loss for each. The mean divides by the sum of
            the labels' weights (for probabilities: by the number of predictions); over nothing it is NaN.
        label_smoothing: that part of the label's 1 is spread over all classes (Szegedy et al., arXiv 1512.00567).

    Raises:
        ProblemError, TypeError: shapes or dtypes that do not fit; labels out of range.
    """
    logits, target = as_tensor(logits), labels
    check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise ProblemError(f"cross_entropy: label_smoothing is {label_smoothing}; expected 0 to 1")
    labels = plain(labels)
    if getattr(labels, "dtype", None) == logits.dtype and labels.shape == logits.shape and logits.ndim:
        return _of_probabilities(logits, as_tensor(target), weight, reduction, label_smoothing)
    labels = _as_labels("cross_entropy", logits, labels, ignore_index)
    rows = _rows(logits)
    weight, flat = _class_weight("cross_entropy", weight, logits, rows.shape[1]), labels.reshape(-1)
    loss = CrossEntropy.apply(rows, targets=Targets(flat, weight, float(label_smoothing), ignore_index))
    return _reduced(loss, reduction, labels.shape, flat, weight, ignore_index)


def _of_probabilities(logits: Tensor, p: Tensor, weight: Any, reduction: str, smoothing: float) -> Tensor:
    axis = 1 if logits.ndim > 1 else 0
    classes = logits.shape[axis]
    weight = _class_weight("cross_entropy", weight, logits, classes)
    if smoothing:
        p = p * (1.0 - smoothing) + smoothing / classes
    if weight is not None:
        p = p * Tensor(weight.reshape(-1, *(1,) * (logits.ndim - 2)) if logits.ndim > 1 else weight)
    loss = -sum(p * log_softmax(logits, axis), axis)
    if reduction == "none":
        return loss
    return sum(loss) if reduction == "sum" else sum(loss) / loss.size if loss.size else sum(loss) * math.nan


def nll_loss(
    log_probabilities: Any, labels: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-log_probabilities[label]: what `cross_entropy` is, behind `log_softmax`. Arguments and errors as there."""
    x = as_tensor(log_probabilities)
    check_reduction("nll_loss", reduction)
    labels = _as_labels("nll_loss", x, plain(labels), ignore_index)
    rows, flat = _rows(x), labels.reshape(-1)
    weight = _class_weight("nll_loss", weight, x, rows.shape[1])
    kept = flat != ignore_index
    indices = np.where(kept, flat, 0)
    factor = (-1.0 if weight is None else -weight[indices]) * kept.astype(x.dtype)
    picked = reshape(TakeAlong.apply(rows, indices=indices[:, None], axis=1, unique=True), (-1,) if flat.size else (0,))
    if not kept.all():  # what is ignored counts as 0, also where it is infinite
        picked = where(kept, picked, 0.0)
    return _reduced(picked * Tensor(factor.astype(x.dtype)), reduction, labels.shape, flat, weight, ignore_index)
