# SPDX-License-Identifier: Apache-2.0
"""`fc.summary`: the layers of a network as the tables that Keras and MATLAB print, with parameters, MACs and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import nn
from .._core import ProblemError
from . import keras, matlab, matlab_layer
from .rows import Row, idle_parts, measured

__all__ = ["Row", "Summary", "summary"]

STYLES = ("keras", "matlab")


@dataclass(frozen=True, repr=False)
class Summary:
    """A network measured for one input shape; `print` shows it in its style.

    rows: one per call of a layer, or per node of an ONNX model, in their order. input_shape: without the batch axis.
    parameters, trainable: of the whole network, shared ones once. idle: {name: parameters} of the parts that did not
    run, as classifiers that only training has. loss: what follows the last layer, or None. style: "keras" or "matlab".
    """

    rows: list[Row]
    input_shape: tuple[int, ...]
    parameters: int
    trainable: int
    idle: dict[str, int]
    loss: nn.Module | None
    style: str

    @property
    def macs(self) -> int:
        """Multiply-adds of all convolutions and dense layers for one input."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """What the outputs of all layers take for one input, as training keeps them."""
        return sum(row.activation_bytes for row in self.rows)

    def layer(self, number: int) -> str:
        """One layer as MATLAB's `net.Layers(number)` shows it, counted from 1, which is the input.

        Raises:
            ProblemError: there is no such layer.
        """
        return matlab_layer.layer(self, number)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, which `json.dumps` takes."""
        return {
            "input_shape": list(self.input_shape),
            "parameters": self.parameters,
            "trainable": self.trainable,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "idle": self.idle,
            "layers": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        return {"keras": keras.table, "matlab": matlab.table}[self.style](self)

    __repr__ = __str__


def summary(
    model: nn.Module,
    input_shape: Sequence[int] | None = None,
    style: str = "keras",
    *,
    loss: nn.Module | None = None,
) -> Summary:
    """What a network consists of: layers, output shapes, parameters, multiply-adds and memory of activations.

    The network runs once, in evaluation, on a batch of no images, which computes nothing and tells all shapes; the
    random state and the running statistics stay what they are. Sums and concatenations outside of layers are not seen.
    Of an ONNX model (`fastconv.onnx.load`) every node is a row, by its name and operator and with its shape as the file
    has it; it runs on one input of zeros, which its reshapes can take.

    Args:
        input_shape: of one input, without the batch axis, as (3, 224, 224). Of an ONNX model, of its first input, and
            None takes what the file says.
        style: "keras": Keras's table, where an activation belongs to the convolution or dense layer before it.
            "matlab": the table of MATLAB's `net.Layers`, one line per layer. Both print shapes with the channels last.
        loss: for "matlab", the loss that the network is trained with, as `nn.MSELoss()`: its last line.

    Returns:
        a Summary, whose text is the table.

    Raises:
        TypeError: the model is no Module. ProblemError: an unknown style, or an input that the model does not take; no
            input_shape for a Module, or for a file that leaves it open.

    Example:
        >>> print(fc.summary(fc.models.keras_cifar_b(), (3, 32, 32)))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"summary: model is a {type(model).__name__}; expected a Module")
    if style not in STYLES:
        raise ProblemError(f"summary: style is {style!r}; expected one of {', '.join(STYLES)}")
    shape = None if input_shape is None else tuple(int(n) for n in input_shape)
    from ..onnx.model import OnnxModel  # whose package is read when it is used

    if isinstance(model, OnnxModel):
        from . import onnx_rows

        rows, shape = onnx_rows.measured(model, shape)
        idle = {}
    elif shape is None:
        raise ProblemError("summary: input_shape is None; expected the shape of one input, as (3, 224, 224)")
    else:
        rows = measured(model, shape)
        idle = idle_parts(model, {id(row.layer) for row in rows})
    sizes = [(p.data.size, p.requires_grad) for p in model.parameters()]
    trainable = sum(size for size, learns in sizes if learns)
    return Summary(rows, shape, sum(size for size, _ in sizes), trainable, idle, loss, style)
