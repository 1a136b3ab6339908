# SPDX-License-Identifier: Apache-2.0
"""PyTorch's eager convolution in both memory formats, and in float64 as the reference."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..problems import Layer
from . import Prepared, RefusedError, Task

torch: Any = importlib.import_module("torch")


def _tensor(a: Any, dtype: str) -> Any:
    """PyTorch does not know NumPy's bfloat16."""
    return torch.from_numpy(a.astype("float32")).bfloat16() if dtype == "bf16" else torch.from_numpy(a)


class ChannelsFirst:
    """Contiguous tensors: x, y and dy are (N, C, *), w is (K, C/groups, *)."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)  # once, instead of a context per call
        if torch.get_num_threads() != threads:
            raise RuntimeError(f"PyTorch computes with {torch.get_num_threads()} threads, {threads} were asked for")

    def versions(self) -> dict[str, str]:
        config = torch.__config__.show()
        onednn = next((line.split()[3] for line in config.splitlines() if "MKL-DNN v" in line), "unknown")
        capability = torch.backends.cpu.get_cpu_capability()
        return {"torch": torch.__version__, "oneDNN in torch": onednn, "torch capability": capability}

    def convert(self, tensor: Any, layer: Layer) -> Any:
        return tensor

    def prepare(self, task: Task) -> Prepared:
        if task["kind"] != "conv":
            raise RefusedError(f"{type(self).__name__} computes convolutions, not {task['kind']}")
        layer = Layer.from_dict(task["layer"])
        if layer.pad_begin != layer.pad_end:
            raise RefusedError("PyTorch pads both ends of an axis alike")
        if layer.layout != "nchw":
            raise RefusedError("the peers of PyTorch choose their memory format themselves; expected a problem in nchw")
        tensors = {
            role: self.convert(_tensor(layer.array(role, task["seed"]), layer.dtype), layer) for role in layer.needs()
        }
        call = self.make(layer, tensors)
        about = {"algorithm": "torch", "mkldnn": bool(torch.backends.mkldnn.is_available())}
        return Prepared(call, lambda y: (y.float() if layer.dtype == "bf16" else y).contiguous().numpy(), about)

    def make(self, layer: Layer, tensors: dict[str, Any]) -> Callable[[], Any]:
        if layer.pass_ == "fwd":
            convolve = getattr(torch.nn.functional, f"conv{layer.rank}d")
            x, w = tensors["x"], tensors["w"]
            return lambda: convolve(x, w, None, layer.stride, layer.pad_begin, layer.dilation, layer.groups)
        dy = tensors["dy"]
        data = layer.pass_ == "bwd_data"
        # The operation wants the tensor whose gradient it computes, for its shape and memory format alone.
        x = self.convert(torch.empty(layer.x_shape, dtype=dy.dtype), layer) if data else tensors["x"]
        w = tensors["w"] if data else self.convert(torch.empty(layer.w_shape, dtype=dy.dtype), layer)
        geometry = (layer.stride, layer.pad_begin, layer.dilation, False, [0] * layer.rank, layer.groups)
        backward, mask, index = torch.ops.aten.convolution_backward, [data, not data, False], 0 if data else 1
        return lambda: backward(dy, x, w, None, *geometry, mask)[index]


class ChannelsLast(ChannelsFirst):
    """The same with x, w, dy (and so y) in torch.channels_last, converted before they are timed."""

    def convert(self, tensor: Any, layer: Layer) -> Any:
        formats = {2: torch.channels_last, 3: torch.channels_last_3d}
        if layer.rank not in formats:
            raise RefusedError(f"PyTorch has no channels_last format for {layer.rank}-D convolution")
        return tensor.contiguous(memory_format=formats[layer.rank])


class Float64(ChannelsFirst):
    """The answer that others are compared with; from numbers that are rounded to the problem's dtype."""

    def convert(self, tensor: Any, layer: Layer) -> Any:
        return tensor.double()

    def prepare(self, task: Task) -> Prepared:
        layer = {**task["layer"], "layout": "nchw"}  # the arrays are the same, whatever layout stores them
        prepared = super().prepare({**task, "layer": layer})
        return prepared._replace(result=lambda y: y.contiguous().numpy(), about={"algorithm": "torch in float64"})
