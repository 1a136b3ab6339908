# SPDX-License-Identifier: Apache-2.0
"""Losses with all their options, one prediction or one element at a time, to read and to check with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .activations import floating

Array = npt.NDArray[Any]


def _log_softmax(row: Array) -> Array:
    shifted = row - row.max()
    return np.asarray(shifted - math.log(np.exp(shifted).sum()))


def class_loss(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Cross-entropy of logits (N, K, *) against labels (N, *) or probabilities (N, K, *).

    Every prediction by itself: the target is a row of probabilities q, and the loss -sum(weight * q * log softmax).
    """
    x, target = floating(logits), np.asarray(target)
    classes = x.shape[1]
    w = np.ones(classes) if weight is None else floating(weight)
    of_labels = target.ndim == x.ndim - 1
    losses, share = [], []
    for place in np.ndindex(x.shape[0], *x.shape[2:]):
        row = (place[0], slice(None), *place[1:])
        if of_labels:
            label = target[place]
            q, counts = np.zeros(classes), 0.0
            if label != ignore_index:
                q[label], counts = 1.0, w[label]
        else:
            label, q, counts = None, floating(target[row]), 1.0
        q = (1 - label_smoothing) * q + label_smoothing / classes * (label != ignore_index)
        losses.append(-np.sum(w * q * _log_softmax(x[row])))
        share.append(counts)
    return _reduce(np.array(losses).reshape(x.shape[0], *x.shape[2:]), reduction, sum(share))


def pair_loss(
    kind: str,
    x: npt.ArrayLike,
    target: npt.ArrayLike,
    reduction: str = "mean",
    weight: npt.ArrayLike = 1.0,
    alpha: float = 1.0,
    pos_weight: npt.ArrayLike = 1.0,
) -> Array:
    """kind: mse, l1, huber (alpha: delta), smooth_l1 (alpha: beta), bce, bce_with_logits, kl, kl_log."""
    x, t = floating(x), floating(target)
    d = np.abs(x - t)
    if kind == "mse":
        loss = d**2
    elif kind == "l1":
        loss = d
    elif kind in ("huber", "smooth_l1"):
        loss = np.where(d < alpha, d**2 / 2, alpha * (d - alpha / 2)) / (1 if kind == "huber" else alpha)
    elif kind == "bce":
        with np.errstate(divide="ignore"):
            loss = -(t * np.maximum(np.log(x), -100) + (1 - t) * np.maximum(np.log1p(-x), -100))
    elif kind == "bce_with_logits":
        small = np.log1p(np.exp(-np.abs(x)))  # log(1 + exp(-|x|))
        loss = floating(pos_weight) * t * (small + np.maximum(-x, 0)) + (1 - t) * (small + np.maximum(x, 0))
    elif kind == "kl":
        loss = np.where(t > 0, t * np.log(np.where(t > 0, t, 1)), 0) - t * x
    elif kind == "kl_log":
        loss = np.exp(t) * (t - x)
    else:
        raise ValueError(f"loss {kind!r} is not known")
    loss = loss * floating(weight)
    return loss.sum() / len(x) if reduction == "batchmean" else _reduce(loss, reduction, loss.size)


def _reduce(loss: Array, reduction: str, count: float) -> Array:
    if reduction == "none":
        return loss
    total = np.asarray(loss.sum())
    return total if reduction == "sum" else total / count if count else np.asarray(math.nan)
