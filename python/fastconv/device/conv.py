# SPDX-License-Identifier: Apache-2.0
"""Convolutions and plans of device arrays, by the names and arguments of `_core`."""

from typing import Any

from .. import _core
from .._core import ProblemError, device_conv, device_pack, device_plan_choice
from ..arrays import dtype_word
from .place import Array, Place, image_shape, spatial, written


def conv_forward(x: Array, w: Array, bias: Array | None, residual: Array | None, stride: Any, pad_begin: Any,
                 pad_end: Any, dilation: Any, groups: int, padding_mode: str, pad_value: float, activation: str,
                 alpha: float, layout: str, options: _core.Options, out: Array | None) -> Array:  # fmt: skip
    place = Place("conv_forward", x=x, w=w, bias=bias, residual=residual, out=out)
    size = tuple(map(_core.output_size, spatial(x.shape, layout), w.shape[2:], stride, dilation, pad_begin, pad_end))
    y = place.empty(image_shape(x.shape[0], w.shape[0], size, layout), x.dtype) if out is None else written(out)
    device_conv("fwd", place.image(x, layout), x.shape, place.address(w), w.shape, place.image(y, layout),
                place.address(bias), place.address(residual), stride, pad_begin, pad_end, dilation, groups,
                padding_mode, pad_value, activation, alpha, layout, dtype_word(x.dtype), options, place.device,
                place.stream, place.workspace)  # fmt: skip
    return y


def conv_backward_data(dy: Array, w: Array, x_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                       groups: int, padding_mode: str, layout: str, options: _core.Options, out: Array | None,
                       bias: Array | None = None, activation: str = "none", alpha: float = 0.0) -> Array:  # fmt: skip
    place = Place("conv_backward_data", dy=dy, w=w, bias=bias, out=out)
    dx = place.empty(x_shape, dy.dtype) if out is None else written(out)
    device_conv("bwd_data", place.image(dx, layout), x_shape, place.address(w), w.shape, place.image(dy, layout),
                place.address(bias), 0, stride, pad_begin, pad_end, dilation, groups, padding_mode, 0.0, activation,
                alpha, layout, dtype_word(dy.dtype), options, place.device, place.stream, place.workspace)  # fmt: skip
    return dx


def conv_backward_filter(dy: Array, x: Array, w_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                         groups: int, padding_mode: str, pad_value: float, layout: str, options: _core.Options,
                         out: Array | None) -> Array:  # fmt: skip
    place = Place("conv_backward_filter", dy=dy, x=x, out=out)
    dw = place.empty(w_shape, dy.dtype) if out is None else written(out)
    device_conv("bwd_filter", place.image(x, layout), x.shape, place.address(dw), w_shape, place.image(dy, layout), 0,
                0, stride, pad_begin, pad_end, dilation, groups, padding_mode, pad_value, "none", 0.0, layout,
                dtype_word(dy.dtype), options, place.device, place.stream, place.workspace)  # fmt: skip
    return dw


class Plan:
    """As `_core.Plan`: a forward convolution with its weights copied and packed once, for any batch.

    Raises:
        ProblemError, UnsupportedError, DeviceError: as `fc.plan`.
    """

    def __init__(self, problem: _core.ConvProblem, w: Array, bias: Array | None, alpha: float, pad_value: float,
                 options: _core.Options, layout: str) -> None:  # fmt: skip
        place = Place("plan", w=w, bias=bias)
        self.problem, self._alpha, self._pad_value, self._layout = problem, alpha, pad_value, layout
        self.algorithm, self.packed_bytes, self.workspace_bytes = device_plan_choice(problem, options, place.device)
        self._options = _core.Options(self.algorithm, options.precision, options.max_workspace)
        self.update(w, bias)

    def update(self, w: Array, bias: Array | None = None) -> None:
        place = Place("plan", w=w, bias=bias)
        if w.shape != self.problem.w_shape:
            raise ProblemError(f"plan: w has shape {w.shape}; expected {self.problem.w_shape}")
        if (bias is not None) != self.problem.has_bias:
            raise ProblemError("plan: bias must be given if and only if the plan was made with one")
        self._bias = None if bias is None else bias.copy()
        if self.packed_bytes:
            with place.xp.cuda.Device(place.device):
                self._packed = place.xp.cuda.alloc(self.packed_bytes)
            device_pack(
                self.problem, self.algorithm, place.device, place.stream, place.address(w), int(self._packed.ptr)
            )
            self._w = None
        else:
            self._packed, self._w = None, place.xp.array(w, order="C")

    def __call__(self, x: Array, residual: Array | None = None, out: Array | None = None) -> Array:
        p, layout = self.problem, self._layout
        place = Place("plan", x=x, residual=residual, out=out)
        if x.dtype.name != {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}[p.dtype]:
            raise TypeError(f"plan: x has dtype {x.dtype}, the plan {p.dtype}; expected the same")
        expected = image_shape(x.shape[0] if x.ndim else 0, p.c, p.size, layout)
        if x.shape != expected:
            raise ProblemError(f"plan: x has shape {x.shape}; expected {('N', *expected[1:])}")
        y_shape = image_shape(x.shape[0], p.k, p.output_size, layout)
        for name, array in (("residual", residual), ("out", out)):
            if array is not None and array.shape != y_shape:
                raise ProblemError(f"plan: {name} has shape {array.shape}; expected {y_shape}")
        y = place.empty(y_shape, x.dtype) if out is None else written(out)
        image = place.image(x, layout)
        if image[1] != layout:  # the weights were packed for the other one
            image = place.image(place.dense(x), layout)
        device_conv("fwd", image, x.shape, place.address(self._w), p.w_shape, place.image(y, layout),
                    place.address(self._bias), place.address(residual), p.stride, p.pad_begin, p.pad_end, p.dilation,
                    p.groups, p.padding_mode, self._pad_value, p.activation, self._alpha, layout, p.dtype,
                    self._options, place.device, place.stream, place.workspace,
                    int(self._packed.ptr) if self._packed is not None else 0)  # fmt: skip
        return y
