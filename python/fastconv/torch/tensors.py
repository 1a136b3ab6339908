# SPDX-License-Identifier: Apache-2.0
"""Tensors as arrays and back without a copy, memory formats, and the options that a call runs under.

A tensor of the CPU is seen as a NumPy array, one of a GPU through DLPack as a CuPy array on torch's current stream;
results come back the same way. A tensor in `torch.channels_last` is the (N, H, W, C) array that its memory holds.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .. import _core
from ..arrays import as_dtype
from ..options import current, settings
from ..options import native as native_options

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = ("channels_first", "channels_last")
_bfloat16_of_torch = torch.bfloat16
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_TO_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_TO_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def is_channels_last(t: Any) -> bool:
    """Whether (N, C, *spatial) lies in memory as (N, *spatial, C); like torch, three axes never do, nor one pixel."""
    stride = t.stride()
    if len(stride) < 4 or stride[1] != 1:
        return False
    channels = t.shape[1]
    return bool(stride[-1] >= channels and (channels > 1 or t.numel() > t.shape[0]))


def empty_image(like: Any, shape: Any, channels_last: bool) -> Any:
    """What a fake answers: an image like `like` in dtype and device."""
    return torch.empty(shape, dtype=like.dtype, device=like.device,
                       memory_format=FORMATS[len(shape)] if channels_last else torch.contiguous_format)  # fmt: skip


def as_array(t: Any) -> Any:
    """A NumPy or CuPy array that shares the tensor's memory; gradients are the caller's business.

    Raises:
        RuntimeError: a tensor whose storage was freed, as FSDP does between layers: NumPy would take memory of its own.
    """
    if t.data_ptr() == 0 and t.numel() > 0:
        raise RuntimeError(f"the memory of a tensor of shape {tuple(t.shape)} was freed (its storage has 0 bytes)")
    if t.is_cpu and t.dtype is not _bfloat16_of_torch:
        return t.numpy(force=True)
    if t.dtype is _bfloat16_of_torch:
        return as_array(t.detach().view(torch.int16)).view(_bfloat16())
    return importlib.import_module("cupy").from_dlpack(t.detach())


def as_tensor(a: Any) -> Any:
    """The reverse: a tensor that shares the array's memory."""
    if a.dtype.kind == "V":  # ml_dtypes' bfloat16
        return as_tensor(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a) if type(a) is np.ndarray else torch.from_dlpack(a)


def image_array(t: Any, channels_last: bool) -> Any:
    """(N, C, *spatial) as an array in the layout that a native function is told: copied where memory is otherwise."""
    if not channels_last:
        return as_array(t)
    if not is_channels_last(t):
        t = t.contiguous(memory_format=FORMATS[t.ndim])
    return as_array(t).transpose(_TO_LAST[t.ndim])


def image_tensor(a: Any, channels_last: bool) -> Any:
    """The result of a native function as (N, C, *spatial)."""
    if channels_last:
        a = a.transpose(_TO_FIRST[a.ndim])
    return torch.from_numpy(a) if type(a) is np.ndarray and a.dtype.kind != "V" else as_tensor(a)


@functools.cache
def _bfloat16() -> Any:
    return as_dtype("bfloat16")


_memo: tuple[_core.Options, int, _core.Options] | None = None


def options() -> _core.Options:
    """The options in force, with torch's number of threads where they name none."""
    global _memo
    asked, threads = current(), torch.get_num_threads()
    memo = _memo
    if memo is not None and memo[0] is asked and memo[1] == threads:
        return memo[2]
    found = asked if asked.threads else native_options(settings()._replace(threads=threads))
    _memo = asked, threads, found
    return found


def kernels(t: Any) -> Any:
    """The module whose kernels take arrays of the tensor: `_core`, or of a GPU `device`.

    Raises:
        DeviceError: a tensor of a GPU, without the CUDA library or a driver.
        UnsupportedError: a tensor that is neither on the CPU nor on a CUDA device.
    """
    if t.is_cpu:
        return _core
    if not t.is_cuda:
        raise _core.UnsupportedError(f"fastconv.torch: a tensor is on {t.device}; expected the CPU or a CUDA device")
    device = importlib.import_module("..device", __package__)
    device.open_library()
    return device


class _Nothing:
    """As contextlib.nullcontext, with less to call."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NOTHING: Any = _Nothing()


def stream_of(t: Any) -> Any:
    """A `with` that makes torch's current stream CuPy's for the arrays of a GPU; nothing on the CPU."""
    return _NOTHING if t.is_cpu else _stream(t)


@contextlib.contextmanager
def _stream(t: Any) -> Iterator[None]:
    cupy = importlib.import_module("cupy")
    stream = torch.cuda.current_stream(t.device).cuda_stream
    with cupy.cuda.Device(t.device.index), cupy.cuda.ExternalStream(stream, t.device.index):
        yield


# These functions run in every call: bound once, and unrolled.
_is_compiling = torch.compiler.is_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_transform = torch._C._functorch.peek_interpreter_stack
_is_grad_enabled = torch.is_grad_enabled
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))


def is_direct(a: Any, b: Any = None, c: Any = None) -> bool:
    """Whether kernels may be called on these (None aside) here and now, past torch's dispatcher: plain tensors of the
    CPU, and nobody who records, transforms or fakes the call. Everything else goes through `torch.ops.fastconv`."""
    if _is_compiling() or _dispatch_modes() or _tracing_state() is not None or _transform() is not None:
        return False
    if forward_ad._current_level >= 0 or type(a) not in _PLAIN or not a.is_cpu:
        return False
    if b is not None and (type(b) not in _PLAIN or not b.is_cpu):
        return False
    return c is None or (type(c) in _PLAIN and c.is_cpu)


def is_transformed() -> bool:
    """Whether torch.func's transforms or forward-mode differentiation are at work, for which our operators have no
    rules."""
    return not _is_compiling() and (_transform() is not None or forward_ad._current_level >= 0)


def expect_no_tangent(*tensors: Any) -> None:
    """Raises UnsupportedError for what a forward-mode derivative comes with: the op of torch would drop it."""
    if is_transformed() and forward_ad._current_level >= 0:
        for t in tensors:
            if t is not None and forward_ad.unpack_dual(t).tangent is not None:
                raise _core.UnsupportedError(
                    "fastconv.torch has reverse-mode derivatives alone, a tensor came with a tangent; use "
                    "torch.nn.functional there"
                )


def numbers(size: Any) -> Any:
    """Sizes as an op takes them: to torch.jit.trace they are tensors, and become constants (of which it warns)."""
    if not _is_compiling() and _tracing_state() is not None:
        return [int(n) for n in size]
    return size


def frozen(words: Any) -> Any:
    """The arguments of an op with tuples for their lists: what may be a key of a cache."""
    return (tuple(word) if isinstance(word, list) else word for word in words)


def needs_graph(a: Any, b: Any = None, c: Any = None) -> bool:
    """Whether autograd has to know of a call with these (None aside)."""
    return _is_grad_enabled() and (
        a.requires_grad or (b is not None and b.requires_grad) or (c is not None and c.requires_grad)
    )


def autocast_dtype(x: Any) -> Any:
    """The dtype in which convolutions run in an autocast block, None outside of one."""
    device = "cpu" if x.is_cpu else "cuda" if x.is_cuda else None
    return torch.get_autocast_dtype(device) if device and torch.is_autocast_enabled(device) else None


def cast(t: Any, dtype: Any) -> Any:
    """What autocast makes of an argument: floats that are no float64 in the block's dtype."""
    return t if t is None or not t.is_floating_point() or t.dtype is torch.float64 else t.to(dtype)


def expect_kernel_tensor(t: Any, name: str, dtype: Any = None, caller: str = "") -> None:
    """Raises TypeError unless a kernel takes the tensor, whose dtype must be `dtype` where one is given."""
    if t.dtype not in DTYPES:
        raise TypeError(
            f"{caller}{name} has dtype {t.dtype}; expected float32, float64, float16 or bfloat16: use {name}.float()"
        )
    if dtype is not None and t.dtype is not dtype:
        raise TypeError(
            f"{caller}{name} has dtype {t.dtype}, the argument before it {dtype}; expected the same: "
            f"use {name}.to({dtype})"
        )
