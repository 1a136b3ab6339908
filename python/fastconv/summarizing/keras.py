# SPDX-License-Identifier: Apache-2.0
"""The table of Keras's `model.summary()`, as Keras 2 printed it: 65 columns, names cut off where they are too long."""

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from .. import nn
from ..nn import activations
from ..nn.conv import _ConvBase
from .rows import Row, channels_last, footer, is_global

if TYPE_CHECKING:
    from . import Summary

_ENDS = (29, 55, 65)  # of the columns
_NAMES = {
    "Linear": "Dense",
    "LayerNorm": "LayerNormalization",
    "GroupNorm": "GroupNormalization",
    "Upsample": "UpSampling2D",
}
# MaxPool2d -> MaxPooling2D
_PATTERNS = (
    (r"^ConvTranspose([123])d$", r"Conv\1DTranspose"),
    (r"^BatchNorm[123]d$", "BatchNormalization"),
    (r"^Dropout[123]d$", "SpatialDropout"),
    (r"^Global(Max|Min)Pool([123])d$", r"Global\1Pooling\2D"),
    (r"^GlobalAvgPool([123])d$", r"GlobalAveragePooling\1D"),
    (r"^AvgPool([123])d$", r"AveragePooling\1D"),
    (r"^(Max|Min)Pool([123])d$", r"\1Pooling\2D"),
    (r"^ZeroPad([123])d$", r"ZeroPadding\1D"),
    (r"([123])d$", r"\1D"),
)


def table(s: "Summary") -> str:
    """The whole table, without blanks at the ends of its lines."""
    line, double = "_" * _ENDS[-1], "=" * _ENDS[-1]
    lines = [line, _row("Layer (type)", "Output Shape", "Param #"), double]
    counts: Counter[str] = Counter()
    rows = [row for before, row in zip([None, *s.rows], s.rows, strict=False) if not _belongs_to(before, row)]
    for number, row in enumerate(rows):
        if row.operator:
            layer, shape = _node(row), row.output_shape
        else:
            kind = kind_of(row.layer)
            base = _snake(kind)
            counts[base] += 1
            layer, shape = f"{base}_{counts[base]} ({kind})", channels_last(row.layer, row.output_shape)
        lengths = [*(["None"] if row.batched else []), *map(str, shape)]
        cells = layer, f"({', '.join(lengths)}{',' * (len(lengths) == 1)})", str(row.parameters)
        lines += [_row(*cells), double if number == len(rows) - 1 else line]
    lines += [f"Total params: {s.parameters:,}", f"Trainable params: {s.trainable:,}"]
    lines += [f"Non-trainable params: {s.parameters - s.trainable:,}", line]
    return "\n".join([*lines, *footer(s.macs, s.activation_bytes, s.idle)])


def kind_of(layer: Any) -> str:
    """The name of Keras's class."""
    name = type(layer).__name__
    if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels:
        return "DepthwiseConv2D"
    if name.startswith("Adaptive") and is_global(layer):
        name = name.replace("Adaptive", "Global")
    for pattern, replacement in _PATTERNS:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return _NAMES.get(name, name)


def _belongs_to(before: Row | None, row: Row) -> bool:
    """Whether Keras would have the activation as an argument of the layer before."""
    if before is None or row.operator or type(row.layer).__module__ != activations.__name__ or row.parameters:
        return False
    takes_one = isinstance(before.layer, _ConvBase | nn.Linear)
    return takes_one and before.output_shape == row.input_shape == row.output_shape


def _node(row: Row) -> str:
    """A node by its name, of which the end is left where both do not fit: "...layer1.0/conv1 (Conv)"."""
    room = _ENDS[0] - 1 - len(f" ({row.operator})")
    name = row.name if len(row.name) <= room else f"...{row.name[3 - room :]}" if room > 3 else ""
    return f"{name} ({row.operator})"


def _snake(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _row(*cells: str) -> str:
    line = ""
    for cell, end in zip(cells, _ENDS, strict=True):
        line = (line[:-1] + " " if line else "") + cell
        line = line[:end].ljust(end)
    return line.rstrip()
