# SPDX-License-Identifier: Apache-2.0
"""What bench.gpu_report times: layers by class, and what each class is to reach.

A target is the geometric mean of PyTorch's time (cuDNN, its own search on, same layout and dtype) over ours; above 1
ours is faster. The layers are those of ResNet-50, VGG-16, MobileNet, EfficientNet, ConvNeXt, RepLKNet, ResNeXt and
RegNet at batch 32, of one class at batch 1. These are 46 problems, in all passes and dtypes some 260 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

PASSES = ("fwd", "bwd_data", "bwd_filter")
FIRST, LAST = "channels_first", "channels_last"
# What is computed in which dtype: "f32" is strict (no TF32 in PyTorch, error factor 8 here), "tf32" is float32 that may
# be rounded to it.
MODES = ("f32", "tf32", "bf16", "f16")
COPY_SHARE = 0.85  # of the speed of a device-to-device copy of the same bytes, depthwise filters up to 7
SMALL_FILTER = 7


@dataclass(frozen=True)
class Problem:
    """One layer in one pass; `text` is a forward problem's text form without layout and dtype, a pooling's or an
    operation's."""

    text: str
    mode: str
    layout: str
    pass_: str

    @property
    def key(self) -> str:
        return f"{self.pass_} {self.text} {'nhwc' if self.layout == LAST else 'nchw'} {self.mode}"


@dataclass(frozen=True)
class Class:
    """Layers that share a target; None: no target, for information."""

    name: str
    title: str
    target: float | None
    texts: tuple[str, ...]
    modes: tuple[str, ...]
    layout: str = FIRST
    passes: tuple[str, ...] = PASSES
    copies: bool = False  # a copy of the same bytes is timed too
    pooling: bool = False
    operation: bool = False  # neither convolution nor pooling: bench/gpu_ops.py

    def problems(self) -> list[Problem]:
        return [Problem(t, mode, self.layout, p) for t in self.texts for mode in self.modes for p in self.passes]


def _conv(n: int, c: int, size: int, k: int, f: int, stride: int = 1, groups: int = 1) -> str:
    """A square layer with the padding that keeps its size."""
    return f"n{n} c{c} h{size} w{size} k{k} r{f} s{f} stride{stride} pad{f // 2} dil1 g{groups}"


def _depthwise(n: int, c: int, size: int, f: int, stride: int = 1) -> str:
    return _conv(n, c, size, c, f, stride, c)


DENSE = (
    _conv(32, 64, 56, 64, 3),  # ResNet-50
    _conv(32, 128, 28, 128, 3),
    _conv(32, 256, 14, 256, 3),
    _conv(32, 512, 7, 512, 3),
    _conv(32, 256, 56, 64, 1),
    _conv(32, 1024, 14, 256, 1),
    _conv(32, 128, 56, 128, 3, 2),
    _conv(32, 512, 28, 1024, 1, 2),
    _conv(32, 3, 224, 64, 7, 2),  # the stem
    _conv(32, 256, 56, 256, 3),  # VGG-16
)
DEPTHWISE = (
    _depthwise(32, 32, 112, 3),  # MobileNet
    _depthwise(32, 128, 56, 3, 2),
    _depthwise(32, 512, 14, 3),
    _depthwise(32, 144, 56, 5, 2),  # EfficientNet
    _depthwise(32, 96, 56, 7),  # ConvNeXt
    _depthwise(32, 384, 14, 7),
)
LARGE = (
    _depthwise(32, 128, 56, 11),
    _depthwise(32, 256, 28, 29),  # RepLKNet
    _depthwise(32, 512, 14, 27),
    _depthwise(32, 128, 56, 31),
)
OTHER_AXES = (
    "n32 c512 w2048 k512 s4 stride1 pad3 dil1 g512",  # as a causal one
    "n32 c256 w4096 k256 s31 stride1 pad15 dil1 g256",
    "n8 c64 d16 h56 w56 k64 t3 r3 s3 stride1 pad1 dil1 g64",
    "n8 c192 d8 h14 w14 k192 t5 r5 s5 stride1 pad2 dil1 g192",
)
GROUPED = (
    _conv(32, 128, 56, 128, 3, 1, 32),  # ResNeXt-50 32x4d
    _conv(32, 512, 14, 512, 3, 1, 32),
    _conv(32, 256, 28, 256, 3, 2, 16),  # RegNet
    _conv(32, 448, 14, 448, 3, 1, 8),
)
POOLINGS = (
    "n32 c64 h112 w112 r3 s3 stride2 pad1",  # ResNet-50
    "n32 c64 h224 w224 r2 s2 stride2 pad0",  # VGG-16
    "n32 c256 h56 w56 r2 s2 stride2 pad0",
    "n32 c480 h28 w28 r3 s3 stride1 pad1",  # inside of GoogLeNet's blocks
)
OPERATIONS = (
    "batch_norm n32 c64 h112 w112",  # ResNet-50
    "batch_norm n32 c512 h7 w7",
    "group_norm groups32 n32 c256 h56 w56",
    "layer_norm n100352 c96",  # ConvNeXt, every pixel a row
    "layer_norm n6272 c384",
    "gelu n32 c384 h56 w56",
    "softmax n4096 c1000",
)
SINGLE = (
    _conv(1, 64, 56, 64, 3),
    _conv(1, 256, 14, 256, 3),
    _conv(1, 512, 7, 512, 3),
    _conv(1, 1024, 14, 256, 1),
    _conv(1, 3, 224, 64, 7, 2),
    _depthwise(1, 512, 14, 3),
    _depthwise(1, 96, 56, 7),
)

CLASSES = (
    Class("dense_f32", "dense, strict float32, NCHW", 1.2, DENSE, ("f32",)),
    Class("dense_halves", "dense, bfloat16 and float16, NCHW", 0.9, DENSE, ("bf16", "f16")),
    Class("dense_tf32", "dense, TF32, NCHW", 0.9, DENSE, ("tf32",)),
    Class("depthwise_f32", "depthwise, float32, NCHW", 1.8, DEPTHWISE, ("f32",), copies=True),
    Class("depthwise_last", "depthwise, bfloat16, channels last", 1.5, DEPTHWISE, ("bf16",), LAST, copies=True),
    Class("depthwise_large", "depthwise, filters of 11 to 31", 3.0, LARGE, ("f32",), copies=True),
    Class("depthwise_axes", "depthwise, 1-D and 3-D", 2.0, OTHER_AXES, ("f32",), copies=True),
    Class("grouped", "grouped", 2.0, GROUPED, ("f32", "bf16")),
    Class("pool_forward", "max pooling with indices, forward", 1.4, POOLINGS, ("f32", "bf16"), passes=("fwd",),
          copies=True, pooling=True),
    Class("pool_backward", "max pooling with indices, backward", 1.4, POOLINGS, ("f32", "bf16"), passes=("bwd_data",),
          copies=True, pooling=True),
    Class("single", "batch 1, forward", 1.1, SINGLE, ("f32", "bf16"), passes=("fwd",)),
    Class("operations", "normalisation, GELU, softmax, float32", None, OPERATIONS, ("f32",), passes=("fwd", "bwd_data"),
          copies=True, operation=True),
    Class("dense_last", "dense, bfloat16, channels last", None, DENSE, ("bf16",), LAST, passes=("fwd",)),
)  # fmt: skip


def chosen(only: str | None) -> list[Class]:
    """The classes whose names, by commas, are in `only`; all without it.

    Raises:
        ValueError: a name that no class has.
    """
    names = [word.strip() for word in only.split(",")] if only else [c.name for c in CLASSES]
    known = {c.name: c for c in CLASSES}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no class {', '.join(unknown)}; the classes are {', '.join(known)}")
    return [known[name] for name in names]


def numbers(text: str, prefix: str) -> tuple[int, ...]:
    """The numbers of one word of a problem's text: numbers("... stride2x1 ...", "stride") is (2, 1); () without it."""
    for word in text.split():
        digits = word.removeprefix(prefix)
        if digits != word and digits.replace("x", "").isdecimal():
            return tuple(map(int, digits.split("x")))
    return ()


def filter_size(text: str) -> int:
    """The largest extent of the filter or the window."""
    return max(n for axis in "trs" for n in numbers(text, axis) or (1,))
