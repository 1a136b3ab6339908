# SPDX-License-Identifier: Apache-2.0
"""One problem on the GPU: its tensors, PyTorch's call, ours by every algorithm, and float64's answer to a slice of it.

The tensors are PyTorch's. Ours reads them where they lie, by the native calls that `fc.plan`, `fc.conv2d_backward_*`
and `fc.max_pool2d` make for CuPy arrays, so that the report needs no CuPy; tests/device tests that way through. Outputs
start as NaN.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

from bench.gpu_classes import FIRST, LAST, Class, Problem, numbers
from bench.gpu_ops import Operation
from fastconv import _core

Tensor = Any
Call = Callable[[], Tensor]
TF32_PRECISION, PRECISION = 16384.0, 8.0
SLICE = 8  # groups or filters of the gradient of w that are computed in float64; of the others the first image is


def word(mode: str) -> str:
    """The dtype's word in a problem."""
    return "f32" if mode == "tf32" else mode


def dtype_of(torch: Any, mode: str) -> Any:
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[word(mode)]


def in_layout(t: Tensor, layout: str) -> Tensor:
    """The same values with their channels first or last in memory; the axes stay (N, C, *)."""
    return t.contiguous() if layout == FIRST else t.movedim(1, -1).contiguous().movedim(-1, 1)


def image(t: Tensor, layout: str) -> tuple[int, str, int, int]:
    """Address, layout, and the pitches of a dense image tensor."""
    channels, plane = t.shape[1], math.prod(t.shape[2:])
    return t.data_ptr(), layout, channels * plane, plane if layout == FIRST else channels


def shape_of(t: Tensor, layout: str) -> tuple[int, ...]:
    return tuple(t.shape) if layout == FIRST else (t.shape[0], *t.shape[2:], t.shape[1])


class Place:
    """PyTorch, its device and current stream, and a workspace that grows."""

    def __init__(self, torch: Any, device: str = "cuda") -> None:
        self.torch, self.device = torch, device
        self._memory: Tensor = None
        self.stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0

    def allocate(self, size: int) -> int:
        if self._memory is None or self._memory.numel() < size:
            self._memory = self.bytes(size)
        return self._memory.data_ptr()

    def bytes(self, size: int) -> Tensor:
        return self.torch.empty(size, dtype=self.torch.uint8, device=self.device)

    def normal(self, shape: tuple[int, ...], problem: Problem, role: str, scale: float = 1.0) -> Tensor:
        """Seeded by the problem; rounded to its dtype."""
        generator = self.torch.Generator(self.device)
        generator.manual_seed(zlib.crc32(f"{role} {problem.text}".encode()))
        values = self.torch.randn(shape, generator=generator, device=self.device, dtype=self.torch.float32)
        return (values * scale).to(dtype_of(self.torch, problem.mode))


class Convolution:
    """A convolution in one pass."""

    def __init__(self, place: Place, problem: Problem) -> None:
        self.place, self.problem, self.torch = place, problem, place.torch
        last = problem.layout == LAST
        text = f"fwd {problem.text} {'nhwc' if last else 'nchw'} {word(problem.mode)}"
        self.p = p = _core.ConvProblem.parse(text).with_pass(problem.pass_)
        self.precision = TF32_PRECISION if problem.mode == "tf32" else PRECISION
        fan_in = p.c // p.groups * math.prod(p.filter)
        self.x = in_layout(place.normal((p.n, p.c, *p.size), problem, "x"), problem.layout)
        self.w = place.normal((p.k, p.c // p.groups, *p.filter), problem, "w", math.sqrt(2 / fan_in))
        self.dy = in_layout(place.normal((p.n, p.k, *p.output_size), problem, "dy"), problem.layout)
        # PyTorch would copy the filters in every call.
        self.w_theirs = in_layout(self.w, problem.layout) if len(p.size) > 1 else self.w
        written = {"fwd": self.dy, "bwd_data": self.x, "bwd_filter": self.w}[problem.pass_]
        self.out = self.torch.empty_like(written)
        self.bytes = self.x.numel() * self.x.element_size() + self.dy.numel() * self.dy.element_size()

    def _convolution(self, x: Tensor, w: Tensor, dy: Tensor, groups: int) -> Tensor:
        p, torch = self.p, self.torch
        geometry = (list(p.stride), list(p.pad_begin), list(p.dilation), False, [0] * len(p.size), groups)
        if self.problem.pass_ == "fwd":
            return torch.ops.aten.convolution(x, w, None, *geometry)
        data = self.problem.pass_ == "bwd_data"
        return torch.ops.aten.convolution_backward(dy, x, w, None, *geometry, [data, not data, False])[0 if data else 1]

    def theirs(self) -> Tensor:
        return self._convolution(self.x, self.w_theirs, self.dy, self.p.groups)

    def candidates(self) -> dict[str, float]:
        """Algorithm -> estimated seconds, of those that do not refuse."""
        rows = _core.device_algorithms(self.p, _core.Options(None, self.precision), 0)
        return {row["name"]: row["estimate_s"] for row in rows if row["supported"]}

    def choice(self) -> str:
        options = _core.Options(None, self.precision)
        if self.problem.pass_ == "fwd":
            return _core.device_plan_choice(self.p, options, 0)[0]
        return _core.device_choose(self.p, options, 0)

    def ours(self, algorithm: str) -> Call:
        """A call by this algorithm; in the forward pass with the weights packed before, as a plan has them."""
        p, place, layout = self.p, self.place, self.problem.layout
        options = _core.Options(algorithm, self.precision)
        packed: Tensor = None
        if self.problem.pass_ == "fwd" and (size := _core.device_plan_choice(p, options, 0)[1]):
            packed = place.bytes(size)
            _core.device_pack(p, algorithm, 0, place.stream, self.w.data_ptr(), packed.data_ptr())
        forward, data = (self.problem.pass_ == pass_ for pass_ in ("fwd", "bwd_data"))
        x, y = self.out if data else self.x, self.out if forward else self.dy
        w = self.w if forward or data else self.out
        words = (self.problem.pass_, image(x, layout), shape_of(x, layout), 0 if packed is not None else w.data_ptr(),
                 tuple(w.shape), image(y, layout), 0, 0, p.stride, p.pad_begin, p.pad_end, p.dilation, p.groups,
                 "zeros", 0.0, "none", 0.0, layout, word(self.problem.mode), options, 0, place.stream, place.allocate,
                 packed.data_ptr() if packed is not None else 0)  # fmt: skip

        def call(held: Tensor = packed) -> Tensor:
            _core.device_conv(*words)
            return self.out

        return call

    def reference(self) -> Tensor:
        """In float64, of the part that `part` takes from a result."""
        x, w, dy, groups = self.x, self.w, self.dy, self.p.groups
        if self.problem.pass_ != "bwd_filter":
            x, dy = x[:1], dy[:1]
        elif groups == 1:
            w, dy = w[:SLICE], dy[:, :SLICE]
        else:
            inner, outer, groups = self.p.c // groups, self.p.k // groups, min(SLICE, groups)
            x, w, dy = x[:, : groups * inner], w[: groups * outer], dy[:, : groups * outer]
        x, w, dy = (t.contiguous().double() for t in (x, w, dy))
        return self._convolution(x, w, dy, groups)

    def part(self, result: Tensor) -> Tensor:
        if self.problem.pass_ != "bwd_filter":
            return result[:1]
        return result[: SLICE if self.p.groups == 1 else min(SLICE, self.p.groups) * (self.p.k // self.p.groups)]


class Pooling:
    """Max pooling as a training step runs it: with what each library keeps for the gradient, PyTorch int64 positions
    and fastconv a byte. There is one algorithm."""

    ALGORITHM = "pool"

    def __init__(self, place: Place, problem: Problem) -> None:
        self.place, self.problem, self.torch = place, problem, place.torch
        (n,), (c,), (height,), (width,) = (numbers(problem.text, axis) for axis in "nchw")
        self.geometry = [[*numbers(problem.text, "r"), *numbers(problem.text, "s")]]
        self.geometry += [[*numbers(problem.text, name)] * 2 for name in ("stride", "pad")] + [[1, 1]]
        window, stride, pad, dilation = self.geometry
        self.x = in_layout(place.normal((n, c, height, width), problem, "x"), problem.layout)
        x_shape = shape_of(self.x, problem.layout)
        self.p = _core.PoolProblem("max", x_shape, window, stride, pad, pad, dilation, layout=problem.layout)
        y, self.indices = self._forward(self.x)
        self.dy = in_layout(place.normal(tuple(y.shape), problem, "dy"), problem.layout)
        self.offsets = self.torch.empty_like(y, dtype=self.torch.uint8)
        self.forward = problem.pass_ == "fwd"
        self.out = self.torch.empty_like(y)
        self._pool("fwd", self.x, self.out)  # its offsets are what the gradient reads
        if not self.forward:
            self.out = self.torch.empty_like(self.x)
        size = self.x.element_size()
        self.bytes = self.x.numel() * size + y.numel() * (size + 1)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.torch.ops.aten.max_pool2d_with_indices(x, *self.geometry, False)

    def _backward(self, dy: Tensor, x: Tensor, indices: Tensor) -> Tensor:
        backward = self.torch.ops.aten.max_pool2d_with_indices_backward
        return backward(dy, x, *self.geometry, False, indices)

    def theirs(self) -> Tensor:
        return self._forward(self.x)[0] if self.forward else self._backward(self.dy, self.x, self.indices)

    def _pool(self, pass_: str, x: Tensor, y: Tensor) -> None:
        """`x`: the planes, read or written; `y`: the outputs, likewise."""
        address, layout, batch, channel = image(x, self.problem.layout)
        kept = self.offsets.data_ptr()
        buffers = (address, y.data_ptr(), 0, kept, 0, 0) if pass_ == "fwd" else (0, 0, 0, kept, y.data_ptr(), address)
        _core.device_pool(self.p, pass_, word(self.problem.mode), layout, batch, channel, buffers, 1.0, 0,
                          self.place.stream)  # fmt: skip

    def candidates(self) -> dict[str, float]:
        return {self.ALGORITHM: 0.0}

    def choice(self) -> str:
        return self.ALGORITHM

    def ours(self, algorithm: str) -> Call:
        def call() -> Tensor:
            if self.forward:
                self._pool("fwd", self.x, self.out)
            else:
                self._pool("bwd_data", self.out, self.dy)
            return self.out

        return call

    def reference(self) -> Tensor:
        x, dy, indices = (t[:1].contiguous() for t in (self.x, self.dy, self.indices))
        return self._forward(x.double())[0] if self.forward else self._backward(dy.double(), x.double(), indices)

    def part(self, result: Tensor) -> Tensor:
        return result[:1]


Case = Convolution | Pooling | Operation


def case_of(place: Place, c: Class, problem: Problem) -> Case:
    if c.operation:
        return Operation(place, problem)
    return Pooling(place, problem) if c.pooling else Convolution(place, problem)
