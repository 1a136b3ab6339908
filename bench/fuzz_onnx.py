# SPDX-License-Identifier: Apache-2.0
"""ONNX models for bench.fuzz_files: good ones to begin with, and changes of fields, which a random byte seldom is."""

from __future__ import annotations

import importlib
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.onnx
from fastconv import nn
from fastconv.onnx.operators import OPERATORS

MAX_BYTES = 2**26
NUMBERS = (0, 1, 2, 3, -1, -2, 7, 64, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("nan"))
WORDS = (
    "",
    "SAME_UPPER",
    "VALID",
    "cubic",
    "linear",
    "reflect",
    "wrap",
    "align_corners",
    "\u00e9",
    "../w.bin",
    "/etc/passwd",
)
ONE_CASE_OF_EACH = 6  # at most so many of the onnx package's own cases of one operator


def write(folder: Path) -> None:
    """Exported nets, models that PyTorch wrote, and the onnx package's own cases of single nodes."""
    onnx: Any = importlib.import_module("onnx")
    write_nets(folder)
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.glob("pytorch-*/*/model.onnx")):
        shutil.copy(path, folder / f"{path.parent.name}.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = importlib.import_module("onnx.backend.test.case.node").collect_testcases(None)
    seen: dict[str, int] = {}
    for case in cases:
        kinds = {node.op_type for node in case.model.graph.node}
        first = case.model.graph.node[0].op_type
        if kinds <= OPERATORS.keys() and seen.get(first, 0) < ONE_CASE_OF_EACH:
            seen[first] = seen.get(first, 0) + 1
            (folder / f"{case.name}.onnx").write_bytes(_with_inputs(onnx, case).SerializeToString())


def write_nets(folder: Path) -> None:
    """Exported nets of a few layers."""
    for name, (model, shape) in _nets().items():
        fastconv.onnx.export(model, folder / f"net_{name}.onnx", np.ones(shape, np.float32))


def _with_inputs(onnx: Any, case: Any) -> Any:
    """The integer inputs of a case as initializers: shapes and axes are mutated with the file then."""
    model, (inputs, _) = case.model, case.data_sets[0]
    for value, array in zip(list(model.graph.input), inputs, strict=True):
        if isinstance(array, np.ndarray) and array.dtype.kind == "i" and array.size < 64:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return model


def _nets() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    fc.manual_seed(0)
    return {
        "small": (
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, activation="relu"), nn.BatchNorm2d(4), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Linear(64, 5), nn.Softmax()),
            (1, 2, 8, 8),
        ),
        "up": (
            nn.Sequential(nn.ConvTranspose2d(2, 3, 3, 2), nn.GroupNorm(3, 3), nn.AvgPool2d(3, 2, 1, True),
                          nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReflectionPad2d(1), nn.GELU()),
            (1, 2, 5, 5),
        ),
        "row": (nn.Sequential(nn.CausalConv1d(2, 4, 3), nn.LocalResponseNorm(3), nn.AdaptiveAvgPool1d(4)), (1, 2, 9)),
    }  # fmt: skip


def read(path: Path) -> None:
    """Load and run on what the model declares as its inputs, with short axes in place of long ones."""
    model = fastconv.onnx.load(path, max_bytes=MAX_BYTES)
    rng = np.random.default_rng(0)
    inputs = []
    for value in model.inputs:
        shape = [2 if n is None else min(abs(n), 16) for n in value.shape or ()]
        array = rng.standard_normal(shape[:6]) if np.prod(shape) < 2**20 else np.ones(1)
        inputs.append(array.astype(value.dtype))
    with fc.no_grad():
        model(*inputs)


def change(rng: random.Random, data: bytes) -> bytes:
    """One to three fields of a model changed."""
    model: Any = importlib.import_module("onnx").ModelProto()
    model.ParseFromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((_attribute, _attribute, _numbers, _numbers, _tensor, _wire, _operator, _kind, _opset))(rng, model)
    return model.SerializeToString()


def _some_node(rng: random.Random, model: Any) -> Any:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _some_tensor(rng: random.Random, model: Any) -> Any:
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.HasField("t"))]
    return rng.choice(tensors) if tensors else model.graph.initializer.add()


def _attribute(rng: random.Random, model: Any) -> None:
    """A number, a list or a word of an attribute; or none, or one of another kind."""
    node = _some_node(rng, model)
    if not node.attribute:
        return _numbers(rng, model)
    attribute = rng.choice(node.attribute)
    kind = rng.randrange(6)
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = rng.randrange(15)
    elif attribute.ints and kind < 5:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.ints:
        attribute.ints[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(10))]
    elif attribute.HasField("s"):
        attribute.s = rng.choice(WORDS).encode()
    elif attribute.HasField("f"):
        attribute.f = rng.choice(FLOATS)
    else:
        attribute.i = rng.choice(NUMBERS)
    return None


def _numbers(rng: random.Random, model: Any) -> None:
    """Integers in an initializer: shapes, axes, pads."""
    tensors = [t for t in model.graph.initializer if t.data_type == 7 and len(t.raw_data) >= 8]
    if not tensors:
        return _tensor(rng, model)
    tensor = rng.choice(tensors)
    at = 8 * rng.randrange(len(tensor.raw_data) // 8)
    number = rng.choice(NUMBERS).to_bytes(8, "little", signed=True)
    tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + 8 :]
    return None


def _tensor(rng: random.Random, model: Any) -> None:
    """Dims, dtype, bytes or place of a tensor."""
    tensor = _some_tensor(rng, model)
    kind = rng.randrange(6)
    if kind == 0:
        tensor.dims[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
    elif kind == 1:
        tensor.data_type = rng.randrange(30)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 3:
        tensor.data_location = 1
        tensor.external_data.add(key="location", value=rng.choice((*WORDS, "net_small.onnx", ".", "\0")))
        tensor.external_data.add(key="offset", value=str(rng.choice(NUMBERS)))
    elif kind == 4 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    else:
        tensor.dims.extend([1] * rng.choice((1, 3, 40, 1000)))


def _wire(rng: random.Random, model: Any) -> None:
    """Another value for an input, another name for a result: cycles, missing and double names."""
    names = [name for n in model.graph.node for name in (*n.input, *n.output)] or ["x"]
    node = _some_node(rng, model)
    kind = rng.randrange(5)
    if kind == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*names, ""))
    elif kind == 1 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice((*names, ""))
    elif kind == 2:
        node.input.append(rng.choice(names))
    elif kind == 3 and node.input:
        del node.input[rng.randrange(len(node.input))]
    else:
        order = list(model.graph.node)
        rng.shuffle(order)
        del model.graph.node[:]
        model.graph.node.extend(order)


def _operator(rng: random.Random, model: Any) -> None:
    _some_node(rng, model).op_type = rng.choice(("", "If", "Loop", *OPERATORS))


def _kind(rng: random.Random, model: Any) -> None:
    """Dtype or shape of an input."""
    if not model.graph.input:
        return
    tensor = rng.choice(model.graph.input).type.tensor_type
    if rng.random() < 0.5:
        tensor.elem_type = rng.choice((0, 1, 2, 7, 8, 9, 10, 11, 16, 99))
    elif tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_value = rng.choice(NUMBERS)


def _opset(rng: random.Random, model: Any) -> None:
    if model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((*range(30), *NUMBERS))
