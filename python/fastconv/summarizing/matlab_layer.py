# SPDX-License-Identifier: Apache-2.0
"""One layer as MATLAB's `net.Layers(2)` shows it, in the form of the lecture: its properties and learnt arrays."""

from typing import TYPE_CHECKING, Any

from .. import nn
from .._core import ProblemError
from .matlab import lines_of, padding_of, vector
from .rows import channels_last

if TYPE_CHECKING:
    from . import Summary

_CLASSES = {"float32": "single", "float64": "double"}
_NARROWEST = 18  # columns before the colon
# (MATLAB's class, its hyperparameters, its learnable parameters)
_Properties = tuple[str, dict[str, str], dict[str, str]]


def layer(s: "Summary", number: int) -> str:
    """See `Summary.layer`."""
    lines = list(lines_of(s))
    if not 1 <= number <= len(lines):
        raise ProblemError(f"layer: number is {number}; expected 1 to {len(lines)}")
    name, kind, _ = lines[number - 1]
    if number == 1:
        title, settings, learnt = _of_input(s)
    elif number <= len(s.rows) + 1:
        title, settings, learnt = _properties(s.rows[number - 2].layer, kind)
    else:  # the loss
        title, settings, learnt = _plain(kind)
    width = max(_NARROWEST, *(len(word) + 4 for word in (*settings, *learnt, "Name")))
    text = [f"{title} with properties:", "", f"{'Name':>{width}}: {name}"]
    for heading, group in (("Hyperparameters", settings), ("Learnable Parameters", learnt)):
        if group:
            text += ["", f"   {heading}", *(f"{word:>{width}}: {value}" for word, value in group.items())]
    return "\n".join(text)


def _of_input(s: "Summary") -> _Properties:
    return "ImageInputLayer", {"InputSize": vector(channels_last(None, s.input_shape))}, {}


def _properties(x: Any, kind: str) -> _Properties:
    if isinstance(x, nn.Conv2d):
        return _of_convolution(x)
    if isinstance(x, nn.Linear):
        learnt = {"Weights": _array(x.weight, x.out_features, x.in_features)}
        learnt |= {} if x.bias is None else {"Bias": _array(x.bias, x.out_features, 1)}
        return "FullyConnectedLayer", {"InputSize": str(x.in_features), "OutputSize": str(x.out_features)}, learnt
    if isinstance(x, nn.BatchNorm2d):
        return "BatchNormalizationLayer", {"NumChannels": str(x.num_features), "Epsilon": f"{x.eps:g}"}, {}
    return _plain(kind)


def _of_convolution(x: Any) -> _Properties:
    groups, channels, filters = x.groups, x.in_channels // x.groups, x.out_channels // x.groups
    settings = {"FilterSize": vector(x.kernel_size)}
    if groups == 1:
        settings |= {"NumChannels": str(channels), "NumFilters": str(filters)}
    else:
        settings |= {"NumGroups": str(groups)}
        settings |= {"NumChannelsPerGroup": str(channels), "NumFiltersPerGroup": str(filters)}
    settings["Stride"] = vector(x.stride)
    if set(x.dilation) != {1}:
        settings["DilationFactor"] = vector(x.dilation)
    if isinstance(x.padding, str):
        settings["PaddingMode"] = padding_of(x.padding, 2)
    else:
        settings |= {"PaddingMode": "'manual'", "PaddingSize": padding_of(x.padding, 2)}
    last = (filters,) if groups == 1 else (filters, groups)
    learnt = {"Weights": _array(x.weight, *x.kernel_size, channels, *last)}
    learnt |= {} if x.bias is None else {"Bias": _array(x.bias, 1, 1, *last)}
    return "Convolution2DLayer" if groups == 1 else "GroupedConvolution2DLayer", settings, learnt


def _plain(kind: str) -> _Properties:
    return f"{kind.replace(' ', '')}Layer", {}, {}


def _array(values: Any, *shape: int) -> str:
    """[3×3×64 single]"""
    dtype = str(values.dtype)
    return f"[{'×'.join(map(str, shape))} {_CLASSES.get(dtype, dtype)}]"
