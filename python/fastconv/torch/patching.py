# SPDX-License-Identifier: Apache-2.0
"""Other people's programs with our convolutions: functions of torch swapped for the length of a `with`."""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import functional
from .tensors import DTYPES, autocast_dtype, is_transformed

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
POOLINGS = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
NORMS = ("batch_norm",)

_lock = threading.Lock()
_depth = 0  # blocks that are open, of all threads
_theirs: dict[str, Callable[..., Any]] = {}


@contextlib.contextmanager
def patch() -> Iterator[None]:
    """Inside, `torch.nn.functional`'s conv1d/2d/3d, conv_transpose*, max_pool*, avg_pool* and batch_norm are ours, and
    so are all layers that call them.

    What we do not compute stays torch's: other dtypes (integers, complex), quantised, sparse and nested tensors,
    subclasses with a `__torch_function__`, what runs inside torch.func's transforms or forward-mode differentiation,
    devices that are no CPU and no GPU with our CUDA library; batch norms in eval mode and what else
    `functional.batch_norm` leaves to torch. The swap holds for the whole process; blocks nest, also of
    several threads: the last one to end restores, after an exception too. Names that were imported before (`from
    torch.nn.functional import conv2d`) stay torch's.

    Example:
        >>> with fastconv.torch.patch():
        ...     loss = criterion(model(x), labels)
    """
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            for name in _OURS:
                _theirs[name] = getattr(torch.nn.functional, name)
                setattr(torch.nn.functional, name, _OURS[name])
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                for name, function in _theirs.items():
                    setattr(torch.nn.functional, name, function)


def takes(*tensors: Any) -> bool:
    """Whether our kernels compute on these (None aside)."""
    given = [t for t in tensors if t is not None]
    if not all(isinstance(t, torch.Tensor) for t in given):
        return False
    x = given[0]
    if not (x.is_cpu or x.device.type == "meta" or (x.is_cuda and _has_library())):
        return False
    if not torch.compiler.is_compiling() and (is_transformed() or torch.overrides.has_torch_function(given)):
        return False
    mixed = autocast_dtype(x) is not None
    return all(
        t.dtype in DTYPES and (mixed or t.dtype is x.dtype) and t.layout is torch.strided and not t.is_nested
        for t in given
    )


def _has_library() -> bool:
    return bool(importlib.import_module("..device", __package__).has_library())


def _swapped(name: str, has_weight: bool) -> Callable[..., Any]:
    ours = getattr(functional, name)
    theirs = getattr(torch.nn.functional, name)

    def convolution(input: Any, weight: Any, bias: Any = None, *args: Any, **words: Any) -> Any:
        return (ours if takes(input, weight, bias) else theirs)(input, weight, bias, *args, **words)

    def pooling(input: Any, *args: Any, **words: Any) -> Any:
        return (ours if takes(input) else theirs)(input, *args, **words)

    call = convolution if has_weight else pooling
    call.__name__ = call.__qualname__ = name
    call.__doc__ = ours.__doc__
    return call


# Made once: compiled code that has seen one finds the same one again.
_OURS = {name: _swapped(name, name in CONVOLUTIONS) for name in CONVOLUTIONS + POOLINGS} | {
    name: getattr(functional, name) for name in NORMS
}
