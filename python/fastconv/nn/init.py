# SPDX-License-Identifier: Apache-2.0
"""Initial values, written in place into a parameter from `fastconv.random`; each function returns it.

Xavier: Glorot and Bengio, 2010. Kaiming: He et al., 2015.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .. import random
from .._core import ProblemError
from ..tensor import Tensor

_skipping: ContextVar[bool] = ContextVar("skipping", default=False)


@contextmanager
def skip() -> Iterator[None]:
    """Inside, nothing here writes or draws: layers are made at once, and what their parameters hold is arbitrary.

    For a model whose values are loaded or drawn afterwards, or that is only measured.

    >>> with fc.nn.init.skip():
    ...     model = fc.models.build("vgg16")
    >>> model.load_state_dict(state)
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def fans(w: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs reach one output, and outputs one input, of a weight (O, I, *filter)."""
    if w.ndim < 2:
        raise ProblemError(f"init: the weight has shape {w.shape}; expected (O, I, *filter)")
    taps = math.prod(w.shape[2:])
    return w.shape[1] * taps, w.shape[0] * taps


def gain(nonlinearity: str = "leaky_relu", a: float = 0.0) -> float:
    """What keeps the variance of activations through a nonlinearity; `a` is the slope of leaky_relu."""
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + a * a)),
    }
    if nonlinearity not in gains:
        raise ProblemError(f"init: nonlinearity {nonlinearity!r} is not known; known: {', '.join(gains)}")
    return gains[nonlinearity]


def _write(w: Tensor, values: Any) -> Tensor:
    if not _skipping.get():
        w.data[...] = values
        w.bump_version()
    return w


def constant(w: Tensor, value: float) -> Tensor:
    """All elements `value`."""
    return _write(w, value)


def zeros(w: Tensor) -> Tensor:
    """All elements 0."""
    return _write(w, 0.0)


def ones(w: Tensor) -> Tensor:
    """All elements 1."""
    return _write(w, 1.0)


def uniform(w: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform in [low, high)."""
    return w if _skipping.get() else _write(w, random.generator().uniform(low, high, w.shape))


def normal(w: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normally distributed."""
    return w if _skipping.get() else _write(w, random.generator().normal(mean, std, w.shape))


def xavier_uniform(w: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6 / sum(fans(w)))
    return uniform(w, -bound, bound)


def xavier_normal(w: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    return normal(w, 0.0, gain * math.sqrt(2 / sum(fans(w))))


def kaiming_uniform(w: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform within gain * sqrt(3 / fan); mode is "fan_in" or "fan_out", `a` the slope of leaky_relu."""
    bound = math.sqrt(3) * _kaiming_std(w, a, mode, nonlinearity)
    return uniform(w, -bound, bound)


def kaiming_normal(w: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with std gain / sqrt(fan)."""
    return normal(w, 0.0, _kaiming_std(w, a, mode, nonlinearity))


def _kaiming_std(w: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ProblemError(f'init: mode is {mode!r}; expected "fan_in" or "fan_out"')
    return gain(nonlinearity, a) / math.sqrt(fans(w)[mode == "fan_out"])


def default(w: Tensor, bias: Tensor | None) -> None:
    """What convolution and dense layers start from: both uniform within 1 / sqrt(fan_in), as in PyTorch."""
    kaiming_uniform(w, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(fans(w)[0])
        uniform(bias, -bound, bound)
