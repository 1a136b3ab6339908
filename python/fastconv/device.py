# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU: what `_core` does for NumPy arrays, by the same names and arguments, for CuPy arrays.

The kernels are a library of their own, opened when the first such array comes. They read CuPy's memory where it lies
and run on CuPy's current stream; results and workspace come from CuPy's allocator, and nothing waits for the device. So
a call can be captured into a CUDA graph. `arrays.native` chooses between this module and `_core`.
"""

import importlib
import math
import os
import sys
from typing import Any

from . import _core
from ._core import DeviceError, ProblemError
from .arrays import dtype_word, kind_of

Array = Any
LIBRARY = "libfastconv_cuda.so"
_opened: str | None = None  # the backend's name, once it is open


def open_library(path: str | None = None) -> str:
    """Open the library of the device, once.

    Args:
        path: None: the one that was installed beside the native module.

    Returns:
        the backend's name, "cuda".

    Raises:
        DeviceError: what is missing, in a sentence: the library, a driver, a newer driver, a GPU.
    """
    global _opened
    if _opened is None:
        path = path or os.path.join(os.path.dirname(_core.__file__), LIBRARY)
        if not os.path.exists(path):
            raise DeviceError(
                "fastconv was built without its CUDA library; install it with FASTCONV_CUDA=on pip install fastconv "
                "--no-binary fastconv, where nvcc 12.4 or later is"
            )
        _opened = _core.device_open_library(path)
    return _opened


def describe() -> str:
    """The devices in a sentence, or what is missing."""
    try:
        open_library()
        infos = [_core.device_info(i) for i in range(_core.device_count())]
    except DeviceError as error:
        return str(error)
    return "; ".join(
        f"{d['name']}, compute capability {d['architecture'] / 10}, {d['multiprocessors']} multiprocessors, "
        f"{d['memory_bytes'] / 2**30:.0f} GiB"
        for d in infos
    )


def imported(x: Any, what: str) -> Array:
    """`x` as a CuPy array without a copy, ordered after its producer's work on CuPy's current stream.

    Args:
        x: a CuPy array, or an object in a device's memory with `__dlpack__` or `__cuda_array_interface__`.
        what: which argument it is, for messages.

    Raises:
        DeviceError: the library, the driver or CuPy is missing.
    """
    try:
        open_library()
    except DeviceError as error:
        raise DeviceError(
            f"{what} is in a device's memory, and {error}; use cupy.asnumpy to compute on the CPU"
        ) from None
    if kind_of(x) == "cupy":
        return x
    try:
        xp = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(f"{what} is in a device's memory; CuPy, which allocates the results, is missing") from error
    return xp.from_dlpack(x) if hasattr(x, "__dlpack__") else xp.asarray(x)


def is_on_device(x: Any) -> bool:
    """Whether it is a CuPy array or another library's array in the memory of a CUDA device (torch's excepted)."""
    kind = kind_of(x)
    if kind in ("cupy", "torch", "numpy", "builtins"):
        return kind == "cupy"
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[0]) == 2  # kDLCUDA
    return hasattr(x, "__cuda_array_interface__")


def array_module() -> Any:
    """The cupy module, which is imported by now: an array of its kind came in."""
    return sys.modules["cupy"]


class _Place:
    """Where a call runs: the device of its arrays, CuPy's current stream there, and memory for a workspace."""

    def __init__(self, caller: str, **arrays: Any) -> None:
        self.xp = array_module()
        first = next(iter(arrays))
        self.device = int(arrays[first].device.id)
        for name, array in arrays.items():
            if array is None:
                continue
            if kind_of(array) != "cupy":
                raise TypeError(
                    f"{caller}: {name} is a {kind_of(array)} array, {first} one of CuPy; expected one kind: "
                    f"use cupy.asarray({name})"
                )
            if array.device.id != self.device:
                raise DeviceError(
                    f"{caller}: {name} is on device {array.device.id}, {first} on device {self.device}; "
                    "expected one device"
                )
        self.stream = int(self.xp.cuda.get_current_stream().ptr)
        self._held: list[Any] = []

    def workspace(self, size: int) -> int:
        with self.xp.cuda.Device(self.device):
            memory = self.xp.cuda.alloc(size)
        self._held.append(memory)  # until the call returns: then it is the stream's turn
        return int(memory.ptr)

    def empty(self, shape: Any, dtype: Any) -> Array:
        with self.xp.cuda.Device(self.device):
            return self.xp.empty(shape, dtype=dtype)

    def dense(self, array: Array) -> Array:
        """In C order; kept alive."""
        if not array.flags.c_contiguous:
            array = self.xp.ascontiguousarray(array)
            self._held.append(array)
        return array

    def address(self, array: Array | None) -> int:
        return 0 if array is None else int(self.dense(array).data.ptr)

    def image(self, x: Array, layout: str) -> tuple[int, str, int, int]:
        """Address, layout and pitches of an image tensor; copied where the kernels cannot read its strides."""
        found = _core.device_pitches(x.shape, x.strides, x.itemsize, layout)
        if found is None:
            x = self.dense(x)
            found = _core.device_pitches(x.shape, x.strides, x.itemsize, layout)
        return (int(x.data.ptr), *found)


def _spatial(shape: Any, layout: str) -> Any:
    return shape[2:] if layout == "channels_first" else shape[1:-1]


def _image_shape(n: int, channels: int, size: Any, layout: str) -> tuple[int, ...]:
    return (n, channels, *size) if layout == "channels_first" else (n, *size, channels)


def conv_forward(x: Array, w: Array, bias: Array | None, residual: Array | None, stride: Any, pad_begin: Any,
                 pad_end: Any, dilation: Any, groups: int, padding_mode: str, pad_value: float, activation: str,
                 alpha: float, layout: str, options: _core.Options, out: Array | None) -> Array:  # fmt: skip
    place = _Place("conv", x=x, w=w, bias=bias, residual=residual, out=out)
    size = tuple(map(_core.output_size, _spatial(x.shape, layout), w.shape[2:], stride, dilation, pad_begin, pad_end))
    y = place.empty(_image_shape(x.shape[0], w.shape[0], size, layout), x.dtype) if out is None else _written(out)
    _core.device_conv("fwd", place.image(x, layout), x.shape, place.address(w), w.shape, place.image(y, layout),
              place.address(bias), place.address(residual), stride, pad_begin, pad_end, dilation, groups, padding_mode,
              pad_value, activation, alpha, layout, dtype_word(x.dtype), options, place.device, place.stream,
              place.workspace)  # fmt: skip
    return y


def conv_backward_data(dy: Array, w: Array, x_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                       groups: int, padding_mode: str, layout: str, options: _core.Options, out: Array | None,
                       bias: Array | None = None, activation: str = "none", alpha: float = 0.0) -> Array:  # fmt: skip
    place = _Place("conv_backward_data", dy=dy, w=w, bias=bias, out=out)
    dx = place.empty(x_shape, dy.dtype) if out is None else _written(out)
    _core.device_conv("bwd_data", place.image(dx, layout), x_shape, place.address(w), w.shape, place.image(dy, layout),
              place.address(bias), 0, stride, pad_begin, pad_end, dilation, groups, padding_mode, 0.0, activation,
              alpha, layout, dtype_word(dy.dtype), options, place.device, place.stream, place.workspace)  # fmt: skip
    return dx


def conv_backward_filter(dy: Array, x: Array, w_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                         groups: int, padding_mode: str, pad_value: float, layout: str, options: _core.Options,
                         out: Array | None) -> Array:  # fmt: skip
    place = _Place("conv_backward_filter", dy=dy, x=x, out=out)
    dw = place.empty(w_shape, dy.dtype) if out is None else _written(out)
    _core.device_conv("bwd_filter", place.image(x, layout), x.shape, place.address(dw), w_shape, place.image(dy, layout), 0, 0,
              stride, pad_begin, pad_end, dilation, groups, padding_mode, pad_value, "none", 0.0, layout,
              dtype_word(dy.dtype), options, place.device, place.stream, place.workspace)  # fmt: skip
    return dw


def _written(out: Array) -> Array:
    if not out.flags.c_contiguous:
        raise ProblemError("out is not C-contiguous; expected an array as cupy.empty makes it")
    return out


def channel_sum(dy: Array) -> Array:
    """(N, C, *) -> (C,)."""
    return dy.sum(axis=tuple(i for i in range(dy.ndim) if i != 1))


class Plan:
    """As `_core.Plan`: a forward convolution with its weights copied and packed once, for any batch.

    Raises:
        ProblemError, UnsupportedError, DeviceError: as `fc.plan`.
    """

    def __init__(self, problem: _core.ConvProblem, w: Array, bias: Array | None, alpha: float, pad_value: float,
                 options: _core.Options, layout: str) -> None:  # fmt: skip
        place = _Place("plan", w=w, bias=bias)
        self.problem, self._alpha, self._pad_value, self._layout = problem, alpha, pad_value, layout
        self.algorithm, self.packed_bytes, self.workspace_bytes = _core.device_plan_choice(
            problem, options, place.device
        )
        self._options = _core.Options(self.algorithm, options.precision, options.max_workspace)
        self.update(w, bias)

    def update(self, w: Array, bias: Array | None = None) -> None:
        place = _Place("plan", w=w, bias=bias)
        if w.shape != self.problem.w_shape:
            raise ProblemError(f"plan: w has shape {w.shape}; expected {self.problem.w_shape}")
        if (bias is not None) != self.problem.has_bias:
            raise ProblemError("plan: bias must be given if and only if the plan was made with one")
        self._bias = None if bias is None else bias.copy()
        if self.packed_bytes:
            with place.xp.cuda.Device(place.device):
                self._packed = place.xp.cuda.alloc(self.packed_bytes)
            _core.device_pack(
                self.problem, self.algorithm, place.device, place.stream, place.address(w), int(self._packed.ptr)
            )
            self._w = None
        else:
            self._packed, self._w = None, place.xp.array(w, order="C")

    def __call__(self, x: Array, residual: Array | None = None, out: Array | None = None) -> Array:
        p, layout = self.problem, self._layout
        place = _Place("plan", x=x, residual=residual, out=out)
        if x.dtype.name != {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}[p.dtype]:
            raise TypeError(f"plan: x has dtype {x.dtype}, the plan {p.dtype}; expected the same")
        expected = _image_shape(x.shape[0] if x.ndim else 0, p.c, p.size, layout)
        if x.shape != expected:
            raise ProblemError(f"plan: x has shape {x.shape}; expected {('N', *expected[1:])}")
        y_shape = _image_shape(x.shape[0], p.k, p.output_size, layout)
        for name, array in (("residual", residual), ("out", out)):
            if array is not None and array.shape != y_shape:
                raise ProblemError(f"plan: {name} has shape {array.shape}; expected {y_shape}")
        y = place.empty(y_shape, x.dtype) if out is None else _written(out)
        _core.device_conv("fwd", place.image(x, layout), x.shape, place.address(self._w), p.w_shape, place.image(y, layout),
                  place.address(self._bias), place.address(residual), p.stride, p.pad_begin, p.pad_end, p.dilation,
                  p.groups, p.padding_mode, self._pad_value, p.activation, self._alpha, layout, p.dtype, self._options,
                  place.device, place.stream, place.workspace,
                  int(self._packed.ptr) if self._packed is not None else 0)  # fmt: skip
        return y


def _pool(problem: _core.PoolProblem, pass_: str, place: _Place, image: tuple[int, str, int, int], dtype: Any,
          norm: float, **buffers: Array | None) -> None:  # fmt: skip
    names = ("x", "y", "indices", "offsets", "dy", "dx")
    addresses = [image[0] if name == "x" else place.address(buffers.get(name)) for name in names]
    _core.device_pool(problem, pass_, dtype_word(dtype), image[1], image[2], image[3], addresses, norm, place.device,
              place.stream)  # fmt: skip


def _pool_forward(problem: _core.PoolProblem, x: Array, norm: float, winners: str | None) -> tuple[Array, Array | None]:
    place = _Place("pool", x=x)
    image = place.image(x, problem.layout)
    shape = _image_shape(x.shape[0], problem.c, problem.output_size, image[1])
    y = place.empty(shape, x.dtype)
    kinds = {"indices": place.xp.int64, "offsets": place.xp.uint8}
    found = place.empty(shape, kinds[winners]) if winners else None
    _pool(problem, "fwd", place, image, x.dtype, norm, y=y, **({winners: found} if winners else {}))
    if image[1] != problem.layout:  # a view of channels-last memory gives such a view again
        axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        y, found = y.transpose(axes), None if found is None else found.transpose(axes)
    return y, found


def pool_forward(problem: _core.PoolProblem, x: Array, norm: float, return_indices: bool,
                 options: _core.Options) -> tuple[Array, Array | None]:  # fmt: skip
    extreme = problem.kind in ("max", "min")
    return _pool_forward(problem, x, norm, "indices" if return_indices and extreme else None)


def pool_forward_offsets(problem: _core.PoolProblem, x: Array, options: _core.Options) -> tuple[Array, Array | None]:
    return _pool_forward(problem, x, 1.0, "offsets")


def offset_positions(problem: _core.PoolProblem, offsets: Array, options: _core.Options) -> Array:
    """The int64 positions of winners that are known by the numbers of their taps."""
    xp, rank = array_module(), len(problem.size)
    first = problem.layout == "channels_first"
    base = xp.zeros((1,) * offsets.ndim, dtype=xp.int64)
    below = xp.zeros(1, dtype=xp.int64)
    for axis in range(rank):
        step = math.prod(problem.size[axis + 1 :])
        starts = xp.arange(problem.output_size[axis]) * problem.stride[axis] - problem.pad_begin[axis]
        shape = [1] * offsets.ndim
        shape[axis + (2 if first else 1)] = -1
        base = base + (starts * step).reshape(shape)
        taps = xp.arange(problem.window[axis]) * (problem.dilation[axis] * step)
        below = (below[:, None] + taps).reshape(-1)
    return base + below[offsets.astype(xp.int64)]


def pool_backward(problem: _core.PoolProblem, dy: Array, x: Array | None, y: Array | None, norm: float,
                  options: _core.Options) -> Array:  # fmt: skip
    place = _Place("pool_backward", dy=dy, x=x, y=y)
    shape = _image_shape(dy.shape[0], problem.c, problem.size, problem.layout)
    dx = place.empty(shape, dy.dtype)
    image = place.image(place.dense(x if x is not None else dx), problem.layout)
    if x is None:
        image = (0, *image[1:])
    _pool(problem, "bwd_data", place, image, dy.dtype, norm, y=y, dy=dy, dx=dx)
    return dx


def pool_backward_offsets(problem: _core.PoolProblem, dy: Array, offsets: Array, options: _core.Options) -> Array:
    place = _Place("pool_backward", dy=dy, offsets=offsets)
    dx = place.empty(_image_shape(dy.shape[0], problem.c, problem.size, problem.layout), dy.dtype)
    image = (0, *place.image(dx, problem.layout)[1:])
    _pool(problem, "bwd_data", place, image, dy.dtype, 1.0, offsets=offsets, dy=dy, dx=dx)
    return dx


def scatter_positions(values: Array, indices: Array, x_shape: Any, layout: str, least: int,
                      options: _core.Options) -> Array:  # fmt: skip
    """Values added at their positions in planes of zeros. Positions outside of the plane are left out: to look at them
    here would be to wait for the device."""
    place = _Place("scatter_positions", values=values, indices=indices)
    channels = x_shape[1] if layout == "channels_first" else x_shape[-1]
    pixels = math.prod(_spatial(x_shape, layout))
    outputs = math.prod(_spatial(values.shape, layout))
    plane = place.empty(x_shape, values.dtype)
    _core.device_scatter_positions(place.address(values), place.address(indices), place.address(plane),
                           dtype_word(values.dtype), layout, (x_shape[0], channels, pixels, outputs), place.device,
                           place.stream)  # fmt: skip
    return plane


def gather_positions(plane: Array, indices: Array, layout: str, least: int, options: _core.Options) -> Array:
    """The values at positions; 0 where -1 names none."""
    xp = array_module()
    n = plane.shape[0]
    if layout == "channels_first":
        flat, at, axis = plane.reshape(n, plane.shape[1], -1), indices.reshape(n, plane.shape[1], -1), 2
    else:
        flat, at, axis = plane.reshape(n, -1, plane.shape[-1]), indices.reshape(n, -1, plane.shape[-1]), 1
    taken = xp.take_along_axis(flat, xp.maximum(at, 0), axis=axis)
    return xp.where(at < 0, taken.dtype.type(0), taken).reshape(indices.shape)


def last_positions(indices: Array, x_shape: Any, layout: str, options: _core.Options) -> Array:
    """Of equal positions in a channel the last one stays; the others become -1."""
    xp = array_module()
    n, last = indices.shape[0], layout == "channels_last"
    flat = (
        indices.reshape(n, -1, indices.shape[-1]).swapaxes(1, 2) if last else indices.reshape(n, indices.shape[1], -1)
    )
    order = xp.argsort(flat * flat.shape[2] + xp.arange(flat.shape[2]), axis=2)  # by position, then as they came
    by_position = xp.take_along_axis(flat, order, axis=2)
    ends = xp.ones(by_position.shape, dtype=bool)
    ends[..., :-1] = by_position[..., 1:] != by_position[..., :-1]
    kept = xp.take_along_axis(xp.where(ends, by_position, -1), xp.argsort(order, axis=2), axis=2)
    return (kept.swapaxes(1, 2) if last else kept).reshape(indices.shape)
