# SPDX-License-Identifier: Apache-2.0
"""The table of MATLAB's `net.Layers`, in the form of the lecture that shows DnCNN's 59 layers.

Layers are named by what they are and by the number of the convolution or dense layer before them: Conv2, BNorm2, ReLU2.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import nn
from ..geometry import per_axis
from ..nn.conv import _ConvBase
from .rows import Row, channels_last, footer, is_global

if TYPE_CHECKING:
    from . import Summary

# (end of the loss's class name) -> name, kind and words of the last line.
_LOSSES = {
    "MSELoss": ("FinalRegressionLayer", "Regression Output", "mean-squared-error"),
    "L1Loss": ("FinalRegressionLayer", "Regression Output", "mean-absolute-error"),
    "CrossEntropyLoss": ("ClassificationLayer", "Classification Output", "crossentropyex"),
}
# Kinds of layers whose words need nothing of the layer: class -> (name, kind, words).
_PLAIN = {
    "Flatten": ("Flatten", "Flatten", "Flatten"),
    "GlobalAvgPool2d": ("Pool", "Global Average Pooling", "Global average pooling"),
    "GlobalMaxPool2d": ("Pool", "Global Max Pooling", "Global max pooling"),
    "GELU": ("GELU", "GELU", "GELU"),
    "ReLU": ("ReLU", "ReLU", "ReLU"),
    "ReLU6": ("ReLU", "Clipped ReLU", "Clipped ReLU with ceiling 6"),
    "SiLU": ("Swish", "Swish", "Swish"),
    "Sigmoid": ("Sigmoid", "Sigmoid", "sigmoid"),
    "Softmax": ("Softmax", "Softmax", "softmax"),
    "Tanh": ("Tanh", "Tanh", "Hyperbolic tangent"),
}
_AXES = {1: "1-D ", 2: "", 3: "3-D "}


def table(s: "Summary") -> str:
    """The whole table: number, name, kind and description of each layer."""
    lines = list(lines_of(s))
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    numbers = len(str(len(lines)))
    text = [f"{len(lines)}x1 Layer array with layers:", ""]
    for number, (name, kind, words) in enumerate(lines, 1):
        text.append(f"{number:>{numbers + 3}}   {name:<{widths[0]}}   {kind:<{widths[1]}}   {words}")
    text += ["", f"Learnable parameters: {s.parameters:,}"]
    return "\n".join([*text, *footer(s.macs, s.activation_bytes, s.idle)])


def lines_of(s: "Summary") -> Iterator[tuple[str, str, str]]:
    """(quoted name, kind, description) of the input, all layers and the output."""
    yield "'InputLayer'", "Image Input", f"{sizes(channels_last(None, s.input_shape))} images"
    number, taken = 0, set()
    for row in s.rows:
        number += isinstance(row.layer, _ConvBase | nn.Linear)
        base, kind, words = _described(row)
        if row.operator:
            yield f"'{row.name}'", kind, words
            continue
        name = f"{base}{number}"
        repeats = 1
        while name in taken:
            name, repeats = f"{base}{number}_{repeats}", repeats + 1
        taken.add(name)
        yield f"'{name}'", kind, words
    if s.loss is not None:
        kind_of_loss = type(s.loss).__name__
        name, kind, words = _LOSSES.get(kind_of_loss, ("OutputLayer", "Output", kind_of_loss))
        yield f"'{name}'", kind, words


def _described(row: Row) -> tuple[str, str, str]:
    """(name without its number, kind, description)"""
    x: Any = row.layer
    kind = type(x).__name__
    if isinstance(x, _ConvBase):
        return ("Conv", *_convolution(x))
    if isinstance(x, nn.Linear):
        return "FC", "Fully Connected", f"{x.out_features} fully connected layer"
    if kind.startswith("BatchNorm"):
        return "BNorm", "Batch Normalization", f"Batch normalization with {x.num_features} channels"
    if kind in ("MaxPool2d", "AvgPool2d"):
        word = "max" if kind == "MaxPool2d" else "average"
        window, stride = (per_axis(value, "size", "summary", 2) for value in (x.kernel_size, x.stride))
        words = f"{sizes(window)} {word} pooling with stride {vector(stride)} and padding {padding_of(x.padding, 2)}"
        return "Pool", f"{word.title()} Pooling", words
    if kind == "LocalResponseNorm":
        words = f"cross channel normalization with {x.size} channels per element"
        return "Norm", "Cross Channel Normalization", words
    if kind == "LeakyReLU":
        return "LeakyReLU", "Leaky ReLU", f"Leaky ReLU with scale {x.negative_slope:g}"
    if kind == "ELU":
        return "ELU", "ELU", f"ELU with Alpha {x.alpha:g}"
    if kind == "Dropout":
        return "Drop", "Dropout", f"{100 * x.p:g}% dropout"
    if kind.startswith("Adaptive") and is_global(x):
        kind = kind.replace("Adaptive", "Global")
    return _PLAIN.get(kind, (kind, kind, repr(x)))


def _convolution(x: Any) -> tuple[str, str]:
    """(kind, description)"""
    transposed = type(x).__name__.startswith("ConvTranspose")
    filters = f"{x.out_channels // x.groups} {sizes((*x.kernel_size, x.in_channels // x.groups))}"
    padding = padding_of(x.padding, x.rank)
    stride = f"stride {vector(x.stride)}"
    if set(x.dilation) != {1}:
        stride += f", dilation factor {vector(x.dilation)},"
    words = "transposed convolutions" if transposed else "convolutions"
    border = "cropping" if transposed else "padding"
    fused = "" if x.activation is None else f", then {x.activation}"
    text = f"{filters} {words} with {stride} and {border} {padding}{fused}"
    kind = f"{_AXES[x.rank]}Transposed Convolution" if transposed else f"{_AXES[x.rank]}Convolution"
    if x.groups == 1:
        return kind, text
    return f"Grouped {kind}", f"{x.groups} groups of {text}"


def padding_of(padding: Any, rank: int) -> str:
    """[top bottom left right] of padding per axis, or per axis and side; words stay words."""
    if isinstance(padding, str):
        return f"'{padding}'"
    pairs = per_axis(padding, "padding", "summary", rank, 0) if hasattr(padding, "__index__") else padding
    sides = [side for pair in pairs for side in (pair if isinstance(pair, list | tuple) else (pair, pair))]
    return vector(sides)


def sizes(values: Any) -> str:
    """3x3x64"""
    return "x".join(map(str, values))


def vector(values: Any) -> str:
    """[1 1]"""
    return f"[{' '.join(map(str, values))}]"
