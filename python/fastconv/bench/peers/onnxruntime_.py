# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: a model of one Conv whose weights it holds (and packs) as constants. Forward only.

The model is written here in the wire format of protocol buffers, which for one node takes less than a dependency on
the onnx package: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (field numbers below).
"""

from __future__ import annotations

import importlib
from typing import Any

from ..problems import Layer
from . import Array, Prepared, RefusedError, Task

onnxruntime: Any = importlib.import_module("onnxruntime")

OPSET, IR_VERSION = 13, 8
ELEMENT_TYPE = {"f32": 1, "f64": 11}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _attribute(name: str, values: tuple[int, ...]) -> bytes:
    # AttributeProto: name 1, ints 8, type 20 (INTS is 7)
    return _bytes(1, name) + b"".join(_int(8, v) for v in values) + _int(20, 7)


def _value(name: str, element: int, shape: tuple[int, ...]) -> bytes:
    # ValueInfoProto: name 1, type 2; TypeProto: tensor_type 1; its elem_type 1, shape 2; dim 1, dim_value 1
    dims = b"".join(_bytes(1, _int(1, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _int(1, element) + _bytes(2, dims)))


def conv_model(layer: Layer, w: Array) -> bytes:
    """A ModelProto: y = Conv(x, w)."""
    element = ELEMENT_TYPE[layer.dtype]
    attributes = {
        "dilations": layer.dilation,
        "kernel_shape": layer.w_shape[2:],
        "pads": (*layer.pad_begin, *layer.pad_end),
        "strides": layer.stride,
    }
    # NodeProto: input 1, output 2, op_type 4, attribute 5. AttributeProto of one int: i 3, type INT is 2.
    node = _bytes(1, "x") + _bytes(1, "w") + _bytes(2, "y") + _bytes(4, "Conv")
    node += b"".join(_bytes(5, _attribute(name, values)) for name, values in attributes.items())
    node += _bytes(5, _bytes(1, "group") + _int(3, layer.groups) + _int(20, 2))
    # TensorProto: dims 1, data_type 2, name 8, raw_data 9
    weights = b"".join(_int(1, d) for d in w.shape) + _int(2, element) + _bytes(8, "w") + _bytes(9, w.tobytes())
    # GraphProto: node 1, name 2, initializer 5, input 11, output 12
    graph = _bytes(1, node) + _bytes(2, "conv") + _bytes(5, weights)
    graph += _bytes(11, _value("x", element, layer.x_shape)) + _bytes(12, _value("y", element, layer.y_shape))
    # ModelProto: ir_version 1, graph 7, opset_import 8 (version 2)
    return _int(1, IR_VERSION) + _bytes(7, graph) + _bytes(8, _int(2, OPSET))


class OnnxRuntime:
    """A session per layer; input and output stay bound to the same memory, so that only the run is timed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__}

    def prepare(self, task: Task) -> Prepared:
        if task["kind"] != "conv":
            raise RefusedError(f"ONNX Runtime computes convolutions here, not {task['kind']}")
        layer = Layer.from_dict(task["layer"])
        if layer.pass_ != "fwd":
            raise RefusedError("ONNX Runtime is for inference: no backward pass")
        if layer.layout != "nchw":
            raise RefusedError("ONNX's Conv is channels-first")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        model = conv_model(layer, layer.array("w", task["seed"]))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        x = onnxruntime.OrtValue.ortvalue_from_numpy(layer.array("x", task["seed"]))
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(layer.y_shape, layer.array("x", 0).dtype)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        about = {"algorithm": "onnxruntime"}
        return Prepared(lambda: session.run_with_iobinding(binding), lambda _: y.numpy(), about)
