# SPDX-License-Identifier: Apache-2.0
"""A convolution as an ONNX model, for the rivals that read those: ONNX Runtime, OpenVINO, MNN and OpenCV.

It is written here in the wire format of protocol buffers, which for one node takes less than a dependency on the onnx
package: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (field numbers below).
"""

from __future__ import annotations

from ..problems import Layer
from . import Array, RefusedError, Task

OPSET, IR_VERSION = 13, 8
ELEMENT_TYPE = {"f32": 1, "f64": 11}


def forward_layer(task: Task, who: str) -> Layer:
    """The layer of a task that inference libraries can do: one forward pass, channels first.

    Raises:
        RefusedError: anything else.
    """
    if task["kind"] != "conv":
        raise RefusedError(f"{who} computes convolutions here, not {task['kind']}")
    layer = Layer.from_dict(task["layer"])
    if layer.pass_ != "fwd":
        raise RefusedError(f"{who} is for inference: no backward pass")
    if layer.layout != "nchw":
        raise RefusedError(f"{who} is given channels-first arrays here")
    return layer


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
