# SPDX-License-Identifier: Apache-2.0
"""Figures of training and of what a net has learned. Each function returns a matplotlib Figure and shows nothing.

>>> fc.plot.training_curve(history).savefig("training_curve.png")

The Figure objects stand alone: no pyplot, no global state, no display. Colours are Okabe and Ito's and matplotlib's
perceptually uniform maps, which colour-blind readers can tell apart. matplotlib comes with `fastconv[demo]`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import nn
from .autograd import no_grad
from .tensor import Tensor
from .train.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"
_MAPS_PER_ROW = 8
_DPI = 120


def training_curve(history: History) -> "Figure":
    """Loss (left) and accuracy (right) by epoch: training, validation where there is one, and the loss of each step.

    Raises:
        ValueError: the history has no complete epoch.
        ImportError: matplotlib is not installed.
    """
    epochs = history.epochs
    if not epochs:
        raise ValueError("training_curve: the history is empty; expected at least one complete epoch")
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in epochs]
    steps = (np.arange(len(history.iteration_loss)) + 1) * (len(epochs) / max(1, len(history.iteration_loss)))
    left.plot(steps, history.iteration_loss, color=_GREY, alpha=0.5, linewidth=0.8, label="training, each step")
    marker = "o" if len(epochs) <= 30 else ""
    validated = [epoch for epoch in epochs if epoch.val_loss is not None]
    held_out = [epoch.number for epoch in validated]
    for axes, training, validation in (
        (left, [epoch.loss for epoch in epochs], [epoch.val_loss for epoch in validated]),
        (right, [epoch.accuracy for epoch in epochs], [epoch.val_accuracy for epoch in validated]),
    ):
        axes.plot(numbers, training, color=_BLUE, marker=marker, markersize=4, label="training, mean of epoch")
        if validated:
            axes.plot(held_out, validation, color=_ORANGE, marker=marker or None, markersize=4, label="validation")
        axes.set_xlabel("epoch")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("loss (logarithmic)")
    left.set_yscale("log")
    left.legend(frameon=False)
    right.set_ylabel("accuracy")
    right.legend(frameon=False, loc="lower right")
    last = epochs[-1]
    for axes, learned, tested, form in (
        (left, last.loss, last.val_loss, ".4f"),
        (right, last.accuracy, last.val_accuracy, ".2%"),
    ):
        axes.set_xlim(left=0)
        tested_text = "" if tested is None else f", validation {tested:{form}}"
        axes.set_title(f"last epoch: training {learned:{form}}{tested_text}", fontsize=10)
    return figure


def confusion_matrix(counts: npt.ArrayLike, classes: Sequence[str] | None = None) -> "Figure":
    """The counts of `train.metrics.confusion_matrix`: a row per true class, coloured by the share of its row.

    Args:
        counts: (num_classes, num_classes) of integers.
        classes: names by label; left out, the numbers.

    Raises:
        ValueError: the matrix is not square or the number of names does not match.
        ImportError: matplotlib is not installed.
    """
    matrix = np.asarray(counts)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"confusion_matrix: counts have shape {matrix.shape}; expected a square matrix")
    size = len(matrix)
    names = [str(number) for number in range(size)] if classes is None else list(classes)
    if len(names) != size:
        raise ValueError(f"confusion_matrix: {len(names)} class names for {size} classes")
    support = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(support, 1)
    side = min(14.0, max(4.5, 0.55 * size + 1.6))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(size), names, rotation=0 if max(map(len, names)) < 4 else 90)
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.2%})", fontsize=11)
    if size <= 25:
        for row, column in np.argwhere(matrix > 0):
            colour = "black" if share[row, column] > 0.5 else "white"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.04)
    return figure


def filters(w: Any, *, title: str = "filters", max_rows: int = 16) -> "Figure":
    """The filters (K, C, R, S) of a 2-D convolution as pictures, one scale for all: orange below 0, purple above.

    One input channel gives a compact grid of K pictures; more give a row per filter (the first `max_rows`) and a
    column per channel.

    Args:
        w: an array or Tensor, or a layer with a `weight`.

    Raises:
        ValueError: w is not (K, C, R, S).
        ImportError: matplotlib is not installed.
    """
    weights = _array(getattr(w, "weight", w))
    if weights.ndim != 4 or not weights.size:
        raise ValueError(f"filters: w has shape {weights.shape}; expected (K, C, R, S)")
    count, channels = weights.shape[:2]
    if channels == 1:
        columns = min(_MAPS_PER_ROW, count)
        rows = math.ceil(count / columns)
        pictures = [(f"{number}", weights[number, 0]) for number in range(count)]
    else:
        rows, columns = min(count, max_rows), channels
        pictures = [(f"channel {c}" if k == 0 else "", weights[k, c]) for k in range(rows) for c in range(columns)]
    figure = _figure(max(4.0, 0.95 * columns + 1.2), 0.95 * rows + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False)
    limit = float(np.abs(weights).max()) or 1.0
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, picture) in zip(grid.flat, pictures, strict=False):
        axes.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=8, pad=2)
    if channels > 1:
        for number, axes in enumerate(grid[:, 0]):
            axes.text(-0.25, 0.5, str(number), transform=axes.transAxes, ha="right", va="center", fontsize=8)
        if rows < count:
            title += f" (the first {rows} of {count})"
    figure.suptitle(title, fontsize=11)
    figure.colorbar(grid.flat[0].images[0], ax=grid, shrink=min(1.0, 3.0 / rows + 0.3), label="weight")
    return figure


def activations(model: nn.Sequential, image: Any, *, classes: Sequence[str] | None = None) -> "Figure":
    """How one image (C, H, W) travels through the net: the maps after each layer that changes them, up to 16 a layer.

    A convolution and its activation make one row; vectors (after flattening) are left out. The title gives the answer.

    Args:
        model: a Sequential that ends in logits.
        classes: names by label; left out, the numbers.

    Raises:
        TypeError: the model is no Sequential, whose layers are known to follow each other.
        ValueError: the image is not (C, H, W).
        ImportError: matplotlib is not installed.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"activations: model is a {type(model).__name__}; expected an nn.Sequential")
    pixels = _array(image)
    if pixels.ndim != 3:
        raise ValueError(f"activations: image has shape {pixels.shape}; expected (C, H, W)")
    rows, logits = _trace_maps(model, pixels)
    columns = min(16, max(len(maps) for _, maps in rows))
    figure = _figure(max(6.0, 0.75 * columns + 1.8), 0.85 * len(rows) + 0.7, pad=0.02)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (name, maps) in zip(grid, rows, strict=True):
        low, high = float(maps.min()), float(maps.max())
        for axes, picture in zip(line, maps[:columns], strict=False):
            axes.imshow(picture, cmap="gray" if name == "input" else "viridis", vmin=low, vmax=high)
        height, width = maps.shape[1:]
        shown = f"{len(maps)} @ {height}x{width}"
        if len(maps) > columns:
            shown += f"\n(first {columns})"
        line[0].text(-0.15, 0.5, f"{name}\n{shown}", transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    best = int(logits.argmax())
    share = _softmax(logits)[best]
    answer = classes[best] if classes is not None else str(best)
    figure.suptitle(f"answer: {answer} ({share:.1%}); each row has its own colour scale", fontsize=11)
    return figure


def top_predictions(probabilities: npt.ArrayLike, classes: Sequence[str] | None = None, *, count: int = 5) -> "Figure":
    """The `count` most probable classes as horizontal bars, the most probable on top.

    Args:
        probabilities: (num_classes,), each between 0 and 1.
        classes: names by label; left out, the numbers.

    Raises:
        ValueError: probabilities are not a vector within 0..1, or the number of names does not match.
        ImportError: matplotlib is not installed.
    """
    values = _array(probabilities)
    if values.ndim != 1 or not values.size or values.min() < 0 or values.max() > 1 + 1e-6:
        raise ValueError(
            f"top_predictions: probabilities have shape {values.shape}; expected (num_classes,) with values in 0..1"
        )
    names = [str(number) for number in range(len(values))] if classes is None else list(classes)
    if len(names) != len(values):
        raise ValueError(f"top_predictions: {len(names)} class names for {len(values)} probabilities")
    best = np.argsort(-values, kind="stable")[:count]
    figure = _figure(6.4, 0.45 * len(best) + 1.3)
    axes = figure.subplots()
    places = range(len(best))  # not the names, which two classes may share
    bars = axes.barh(places, values[best], color=_BLUE, height=0.65)
    axes.set_yticks(places, [names[label] for label in best])
    axes.bar_label(bars, labels=[f"{values[label]:.1%}" for label in best], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("Probability")
    axes.set_title(f"Top {len(best)} Predictions", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _trace_maps(model: nn.Sequential, pixels: npt.NDArray[Any]) -> tuple[list[tuple[str, Any]], npt.NDArray[Any]]:
    """Rows (name, maps (C, H, W)), and the logits. A layer without weights that keeps the shape joins the row above."""
    rows: list[tuple[str, Any]] = [("input", pixels)]
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            x = Tensor(pixels[np.newaxis].astype(np.float32))
            for layer in model:
                shape, x = x.shape, layer(x)
                if len(x.shape) != 4:
                    continue
                name, maps = type(layer).__name__, _array(x)[0]
                if x.shape == shape and not list(layer.parameters()) and len(rows) > 1:
                    rows[-1] = (f"{rows[-1][0]} + {name}", maps)
                else:
                    rows.append((name, maps))
    finally:
        model.train(was_training)
    return rows, _array(x).reshape(-1)


def _figure(width: float, height: float, *, pad: float = 0.08) -> "Figure":
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError('fastconv.plot needs matplotlib: pip install "fastconv[demo]"') from error
    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width, height), dpi=_DPI, layout=layout)


def _array(values: Any) -> npt.NDArray[Any]:
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())
