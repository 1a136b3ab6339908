# SPDX-License-Identifier: Apache-2.0
"""Max and average pooling, forward and backward, in fastconv and in PyTorch, both layouts of both.

A task: kind "pool"; op "max" or "average"; pass "fwd" or "bwd"; shape of x (channels first), window, stride and padding
(ints, the same along each axis); seed. The gradient of a maximum is timed as the tape runs it, with what its own
forward pass kept: fastconv bytes, PyTorch int64 positions.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Array, Prepared, RefusedError, Task


def values(role: str, shape: tuple[int, ...], seed: int) -> Array:
    """x or dy of N(0, 1): the same numbers in every process."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{role} {shape}".encode())])
    return rng.standard_normal(shape, dtype=np.float32)


def plane_of(task: Task) -> tuple[int, ...]:
    """The shape of y."""
    n, c, *size = task["shape"]
    return n, c, *((i + 2 * task["padding"] - task["window"]) // task["stride"] + 1 for i in size)


def expect(task: Task) -> None:
    if task["kind"] != "pool":
        raise RefusedError(f"the peers of pooling do not compute {task['kind']}")


class FastconvPool:
    layout = "channels_first"

    def __init__(self, threads: int) -> None:
        from .fastconv_ import OneShot

        self.versions = OneShot(threads).versions

    def prepare(self, task: Task) -> Prepared:
        expect(task)
        first = self.layout == "channels_first"
        x = values("x", tuple(task["shape"]), task["seed"])
        dy = values("dy", plane_of(task), task["seed"])
        if not first:
            x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
        call = self.make(task, x, dy)
        return Prepared(call, lambda y: y if first else np.moveaxis(y, -1, 1), {"layout": self.layout})

    def make(self, task: Task, x: Array, dy: Array) -> Callable[[], Array]:
        import fastconv as fc
        from fastconv import _core
        from fastconv.options import current
        from fastconv.pool_geometry import pool_geometry

        rank, geometry = x.ndim - 2, (task["window"], task["stride"], task["padding"])
        op = {"max": "max", "average": "avg"}[task["op"]]
        if task["pass"] == "fwd":
            pool = getattr(fc, f"{op}_pool{rank}d")
            return lambda: pool(x, *geometry, layout=self.layout)
        if op == "avg":
            backward = getattr(fc, f"avg_pool{rank}d_backward")
            return lambda: backward(dy, x.shape, *geometry, layout=self.layout)
        g = pool_geometry("pool", "max", rank, x.shape, *geometry, 1, False, True, None, self.layout)
        offsets = _core.pool_forward_offsets(g.problem, x, current())[1]
        return lambda: _core.pool_backward_offsets(g.problem, dy, offsets, current())


class FastconvPoolChannelsLast(FastconvPool):
    layout = "channels_last"


class TorchPool:
    channels_last = False
    double = False

    def __init__(self, threads: int) -> None:
        from .torch_ import ChannelsFirst

        self.versions = ChannelsFirst(threads).versions

    def convert(self, array: Array) -> Any:
        torch: Any = importlib.import_module("torch")
        tensor = torch.from_numpy(array)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        if not self.channels_last:
            return tensor.double() if self.double else tensor
        if array.ndim not in formats:
            raise RefusedError(f"PyTorch has no channels_last format for {array.ndim - 2}-D pooling")
        return tensor.contiguous(memory_format=formats[array.ndim])

    def prepare(self, task: Task) -> Prepared:
        expect(task)
        x = self.convert(values("x", tuple(task["shape"]), task["seed"]))
        dy = self.convert(values("dy", plane_of(task), task["seed"]))
        return Prepared(self.make(task, x, dy), lambda y: y.contiguous().numpy(), {"mkldnn": False})

    def make(self, task: Task, x: Any, dy: Any) -> Callable[[], Any]:
        torch: Any = importlib.import_module("torch")
        rank, geometry = x.dim() - 2, (task["window"], task["stride"], task["padding"])
        op = {"max": "max", "average": "avg"}[task["op"]]
        if task["pass"] == "fwd":
            pool = getattr(torch.nn.functional, f"{op}_pool{rank}d")
            return lambda: pool(x, *geometry)
        if rank == 1:  # as PyTorch itself: a plane of one row
            x, dy = x[:, :, None], dy[:, :, None]
        axes = [[1, v] if rank == 1 else [v] * rank for v in geometry]
        if rank == 1:
            axes[2][0] = 0
        rank = max(rank, 2)
        if op == "avg":
            backward = getattr(torch.ops.aten, f"avg_pool{rank}d_backward")
            rest: list[Any] = [False, True, None]
        else:
            forward = getattr(torch.nn.functional, f"max_pool{rank}d")
            indices = forward(x, *axes, return_indices=True)[1]
            backward = getattr(torch.ops.aten, f"max_pool{rank}d_with_indices_backward")
            rest = [[1] * rank, False, indices]
        if len(task["shape"]) > 3:
            return lambda: backward(dy, x, *axes, *rest)
        return lambda: backward(dy, x, *axes, *rest)[:, :, 0]


class TorchPoolChannelsLast(TorchPool):
    channels_last = True


class TorchPool64(TorchPool):
    double = True
