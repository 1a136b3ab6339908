# SPDX-License-Identifier: Apache-2.0
"""The convolutions of an ONNX model as problems, for tuning and benchmarks."""

from __future__ import annotations

import os
from typing import Any

from .._core import ConvProblem, ProblemError
from . import package

_DTYPES = {"FLOAT": "f32", "DOUBLE": "f64", "FLOAT16": "f16", "BFLOAT16": "bf16"}


def convolutions(path: str | os.PathLike[str], batch: int = 1) -> list[tuple[ConvProblem, str]]:
    """Every Conv node as (problem, name), in the order of the graph.

    Shapes come from onnx's shape inference. Axes that the model leaves open are read as `batch` where they are the
    first of an input; a model whose images have an open size cannot be read so.

    Args:
        path: a .onnx file.
        batch: images, where the model leaves their number open.

    Raises:
        ImportError: the package onnx is missing.
        ProblemError: not an ONNX model; or the shapes of a convolution are not known.
    """
    onnx = package.onnx()
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
        for value in model.graph.input:
            axes = value.type.tensor_type.shape.dim
            if axes and not axes[0].dim_value:
                axes[0].dim_value = batch
        model = package.onnx("shape_inference").infer_shapes(model, data_prop=True)
    except OSError:
        raise
    except Exception as error:  # what a broken file raises is protobuf's business
        raise ProblemError(f"{path}: not an ONNX model ({type(error).__name__}: {error})") from error
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        shapes[value.name] = tuple(axis.dim_value for axis in tensor.shape.dim)
        dtypes[value.name] = onnx.TensorProto.DataType.Name(tensor.elem_type)
    for weight in graph.initializer:
        shapes[weight.name] = tuple(weight.dims)
    found = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        name = node.name or node.output[0]
        x, w = (shapes.get(node.input[i], ()) for i in range(2))
        if len(x) < 3 or not all(x) or len(w) != len(x) or not all(w):
            raise ProblemError(f"{path}: {name}: x has shape {x} and w {w}; expected all axes to be known")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found.append((_problem(x, w, _DTYPES.get(dtypes[node.input[0]], "f32"), attributes, len(node.input) > 2), name))
    return found


def _problem(x: tuple[int, ...], w: tuple[int, ...], dtype: str, attributes: dict[str, Any],
             has_bias: bool) -> ConvProblem:  # fmt: skip
    rank = len(x) - 2
    ones = (1,) * rank
    stride, dilation = (tuple(attributes.get(name, ones)) for name in ("strides", "dilations"))
    pads = tuple(attributes.get("pads", (0,) * (2 * rank)))
    begin, end = pads[:rank], pads[rank:]
    auto = attributes.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        needed = [
            max(0, (-(-size // s) - 1) * s + (f - 1) * d + 1 - size)
            for size, f, s, d in zip(x[2:], w[2:], stride, dilation, strict=True)
        ]
        less, more = tuple(n // 2 for n in needed), tuple(n - n // 2 for n in needed)
        begin, end = (less, more) if auto == "SAME_UPPER" else (more, less)
    return ConvProblem(
        "fwd", x[0], x[1], w[0], x[2:], w[2:], stride, begin, end, dilation, attributes.get("group", 1), "nchw", dtype,
        "zeros", "none", has_bias, False,
    )  # fmt: skip
