# SPDX-License-Identifier: Apache-2.0
"""The layers that are measured, and the arrays that every rival makes for them by itself.

Layers come from the problem files that the tests read too. A worker gets a layer as plain data: a rival's process
never loads fastconv.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LISTS = Path(__file__).resolve().parent / "lists"
LAYERS = LISTS / "layers.txt"
PASSES = ("fwd", "bwd_data", "bwd_filter")
DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64, "f16": np.float16}
# The largest error that counts where nobody says another: of a half, some roundings of the largest result.
ERROR_LIMITS = {"f32": 1e-4, "f64": 1e-4, "f16": 1e-3, "bf16": 8e-3}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One convolution in one pass. Shapes are channels-first, whatever the layout."""

    text: str  # canonical text form
    name: str  # of the network and the layer
    pass_: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    stride: tuple[int, ...]
    pad_begin: tuple[int, ...]
    pad_end: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    layout: str
    dtype: str
    macs: int
    padding_mode: str = "zeros"

    @staticmethod
    def parse(text: str, name: str, pass_: str, any_padding: bool = False) -> Layer:
        """A line of a problem file, its pass replaced. any_padding: fastconv alone is to compute it.

        Raises:
            ProblemError: not a problem.
            ValueError: one that the rivals cannot all be asked for: a fused epilogue or a padding mode.
        """
        from fastconv import ConvProblem  # only this process reads the text form

        p = ConvProblem.parse(text).with_pass(pass_)
        padded = p.padding_mode != "zeros" and not any_padding
        if padded or p.activation != "none" or p.has_bias or p.has_residual:
            raise ValueError(f"{p}: bench measures plain convolutions; expected zero padding and no epilogue")
        return Layer(
            text=str(p),
            name=name or str(p),
            pass_=p.pass_,
            x_shape=(p.n, p.c, *p.size),
            w_shape=(p.k, p.c // p.groups, *p.filter),
            y_shape=(p.n, p.k, *p.output_size),
            stride=p.stride,
            pad_begin=p.pad_begin,
            pad_end=p.pad_end,
            dilation=p.dilation,
            groups=p.groups,
            layout=p.layout,
            dtype=p.dtype,
            macs=p.macs,
            padding_mode=p.padding_mode,
        )

    def with_dtype(self, dtype: str) -> Layer:
        """The same layer in f32, f64, f16 or bf16."""
        words = [dtype if word in ERROR_LIMITS else word for word in self.text.split()]
        return dataclasses.replace(self, text=" ".join(words), dtype=dtype)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Layer:
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return Layer(**fields)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def rank(self) -> int:
        return len(self.stride)

    @property
    def gflop(self) -> float:
        """Of a direct convolution, whatever an algorithm really computes."""
        return 2e-9 * self.macs

    def array(self, role: str, seed: int) -> Array:
        """x, w or dy: the same numbers in every process. x and dy are N(0, 1), w is N(0, 2/fan-in) as in He's rule."""
        shape = {"x": self.x_shape, "w": self.w_shape, "dy": self.y_shape}[role]
        rng = np.random.default_rng([seed, zlib.crc32(f"{role} {shape}".encode())])
        scale = math.sqrt(2 / math.prod(self.w_shape[1:])) if role == "w" else 1.0
        values = rng.standard_normal(shape, dtype=np.float32)
        return (values * np.float32(scale)).astype(numpy_dtype(self.dtype), copy=False)

    def needs(self) -> tuple[str, str]:
        """The roles of the two arrays that this pass reads."""
        roles = {"fwd": ("x", "w"), "bwd_data": ("dy", "w"), "bwd_filter": ("dy", "x")}
        return roles[self.pass_]


def numpy_dtype(name: str) -> Any:
    """Of a problem's dtype.

    Raises:
        ImportError: bfloat16 without the package ml_dtypes.
    """
    if name != "bf16":
        return np.dtype(DTYPES[name])
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16)


def lists() -> list[str]:
    """The names of the lists of layers that come with the package."""
    return sorted(path.stem for path in LISTS.glob("*.txt"))


def of_model(path: Path, passes: tuple[str, ...], pattern: str | None) -> list[Layer]:
    """The distinct convolutions of an ONNX model, without bias; of equal ones the first name stays.

    Raises:
        ValueError: it has none, or none whose name contains `pattern`.
    """
    from ..onnx import convolutions

    named: dict[str, str] = {}
    for problem, name in convolutions(path):
        if pattern is None or pattern.lower() in name.lower():
            named.setdefault(str(problem).removesuffix(" bias"), name)
    if not named:
        raise ValueError(f"{path.name} has no convolution" + (f" with {pattern!r} in its name" if pattern else ""))
    return [Layer.parse(text, name, pass_) for pass_ in passes for text, name in named.items()]


def find(name: str) -> Path:
    """The file of a list, by its name or path.

    Raises:
        ValueError: neither.
    """
    for path in (LISTS / f"{name}.txt", Path(name)):
        if path.is_file():
            return path
    raise ValueError(f"{name!r} is neither a file nor a list of layers; the lists are {', '.join(lists())}")


def load(path: Path, passes: tuple[str, ...], pattern: str | None) -> list[Layer]:
    """The layers of a problem file whose line contains `pattern` (any case), in each of the passes.

    Raises:
        ValueError: nothing matches.
    """
    layers = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text, _, name = (part.strip() for part in line.partition("#"))
        if text and (pattern is None or pattern.lower() in line.lower()):
            layers.append((text, name))
    if not layers:
        raise ValueError(f"{path.name} has no layer with {pattern!r}" if pattern else f"{path.name} has no layers")
    return [Layer.parse(text, name, pass_) for pass_ in passes for text, name in layers]
