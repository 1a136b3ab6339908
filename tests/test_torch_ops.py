# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch's functions and `torch.ops.fastconv` beside PyTorch's own: values, gradients of two orders, memory
formats, opcheck, dtypes, threads, words and errors."""

import contextlib

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from tolerance import assert_close, assert_exact, assert_relative

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")
theirs = torch.nn.functional
ours = ft.functional
tensors = pytest.importorskip("fastconv.torch.tensors")

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
SIZES = (9, 8, 7)
# name, rank, words; the weights of a convolution are (6, 4 / groups, 3, ...), of a transposed one (4, 6 / groups, ...)
CASES = [
    ("conv", 1, {"stride": 2, "padding": 1}),
    ("conv", 2, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    ("conv", 2, {"padding": "same", "dilation": 2}),
    ("conv", 3, {"padding": 1}),
    ("conv_transpose", 1, {"stride": 2, "padding": 1, "output_padding": 1}),
    ("conv_transpose", 2, {"stride": 2, "output_padding": (1, 0), "groups": 2}),
    ("conv_transpose", 2, {"stride": 1, "dilation": 3, "output_padding": 2}),
    ("conv_transpose", 3, {"stride": (2, 1, 1), "padding": 1}),
    ("max_pool", 1, {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool", 2, {"kernel_size": (3, 2), "stride": 2, "ceil_mode": True}),
    ("max_pool", 2, {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}),
    ("max_pool", 3, {"kernel_size": 2}),
    ("avg_pool", 1, {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("avg_pool", 2, {"kernel_size": 3, "padding": 1, "count_include_pad": False, "ceil_mode": True}),
    ("avg_pool", 2, {"kernel_size": 2, "divisor_override": 3}),
    ("avg_pool", 3, {"kernel_size": 2}),
]
CALLS = ["eager", "op"]


def case_id(case):
    return f"{case[0]}{case[1]}d-" + "-".join(f"{k}{v}" for k, v in case[2].items()).replace(" ", "")


def arguments(case, dtype=torch.float64, last=False, seed=0):
    """The tensors of a case, leaves of a graph."""
    name, rank, words = case
    g = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        t = torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        return (t.to(memory_format=LAST[rank]) if last and len(shape) == rank + 2 else t).requires_grad_()

    x = leaf(2, 4, *SIZES[:rank])
    if "pool" in name:
        return (x,)
    k, c = (6, 4) if name == "conv" else (4, 6)
    return x, leaf(k, c // words.get("groups", 1), *(3, 3, 3)[:rank]), leaf(6)


def function(case, module=ours):
    """The case as a function of its tensors."""
    name, rank, words = case
    return lambda *args: getattr(module, f"{name}{rank}d")(*args, **words)


class Observer(torch.utils._python_dispatch.TorchDispatchMode):
    """Sees what goes through torch's dispatcher, and thereby makes calls go there: our ops, each with its arguments."""

    def __init__(self):
        super().__init__()
        self.ops = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fastconv":
            self.ops.setdefault(func, args)
        return func(*args, **(kwargs or {}))

    def names(self):
        return {op._schema.name.partition("::")[2] for op in self.ops}


# The ops of a case, of its gradients and of theirs.
OPS = {
    "conv": {"conv", "conv_transpose", "conv_backward_filter"},
    "conv_transpose": {"conv", "conv_transpose", "conv_backward_filter"},
    "max_pool": {"max_pool", "max_pool_backward", "max_pool_gather"},
    "avg_pool": {"avg_pool", "avg_pool_backward"},
}


FORMATS = [(case, last) for case in CASES for last in (False, True) if case[1] > 1 or not last]  # torch has none of 1-D


@pytest.mark.parametrize(("case", "last"), FORMATS, ids=lambda v: case_id(v) if isinstance(v, tuple) else f"last={v}")
def test_values_gradients_and_memory_formats(case, last):
    args, expected_args = arguments(case, last=last), arguments(case, last=last)
    y, expected = function(case)(*args), function(case, theirs)(*expected_args)
    assert_close(y.detach().numpy(), expected.detach().numpy(), "parity", what="y")
    layout = LAST[case[1]] if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=layout)
    dy = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    y.backward(dy)
    expected.backward(dy)
    for ours_, theirs_ in zip(args, expected_args, strict=True):
        assert_close(ours_.grad.numpy(), theirs_.grad.numpy(), "parity", what="gradient")
    assert args[0].grad.is_contiguous(memory_format=layout)
    with torch.no_grad():  # the path without a graph
        assert_exact(function(case)(*args).numpy(), y.detach().numpy())


def two_orders(case, module):
    args = arguments(case)
    y = function(case, module)(*args)
    first = torch.autograd.grad((y**3).sum(), args, create_graph=True)
    return *first, *torch.autograd.grad(sum((g**2).sum() for g in first), args)


@pytest.mark.parametrize("call", ["eager", "op"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_second_derivatives(case, call):
    """Along one direction each; the whole Jacobian is looked at below."""
    observer = Observer() if call == "op" else contextlib.nullcontext()
    with observer:
        found = two_orders(case, ours)
    if call == "op":
        assert observer.names() == OPS[case[0]]
    for mine, other in zip(found, two_orders(case, theirs), strict=True):
        assert_close(mine.detach().numpy(), other.detach().numpy(), "parity")


@pytest.mark.parametrize("name", OPS)
def test_whole_jacobians(name):
    case = (name, 1, {"kernel_size": 2} if "pool" in name else {"stride": 2})
    x, *weights = arguments(case)
    args = [x[:1, :2, :5], *(weights and [weights[0][:2, :2, :2], weights[1][:2]])]
    args = [a.detach().clone().requires_grad_() for a in args]
    assert torch.autograd.gradcheck(function(case), args) and torch.autograd.gradgradcheck(function(case), args)


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name):
    case = next(c for c in CASES if c[0] == name and c[1] == 2)
    args = arguments(case, last=True)
    with Observer() as observer:
        y = function((name, 2, {**case[2], **({"return_indices": True} if name == "max_pool" else {})}))(*args)
        first = torch.autograd.grad(((y[0] if isinstance(y, tuple) else y) ** 2).sum(), args, create_graph=True)
        torch.autograd.grad(sum((g**2).sum() for g in first), args)
    assert observer.names() == OPS[name] | ({"max_pool_indices"} if name == "max_pool" else set())
    for op, seen in observer.ops.items():
        fresh = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in seen]
        for a in fresh:
            if isinstance(a, torch.Tensor) and a.is_floating_point():
                a.requires_grad_()
        torch.library.opcheck(op, fresh)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_rounded_once(name, dtype):
    case = next(c for c in CASES if c[0] == name and c[1] == 2)
    args = arguments(case, dtype)
    y = function(case)(*args)
    wide = [a.detach().double().requires_grad_() for a in args]
    exact = function(case, theirs)(*wide)
    assert y.dtype is dtype
    half = np.float16 if dtype is torch.float16 else ml_dtypes.bfloat16
    assert_relative(y.detach().float().numpy().astype(half), exact.detach().numpy(), "y")
    y.backward(torch.ones_like(y))
    exact.backward(torch.ones_like(exact))
    for mine, other in zip(args, wide, strict=True):
        assert mine.grad.dtype is dtype
        assert_relative(mine.grad.float().numpy().astype(half), other.grad.numpy(), "gradient")


def test_strides_that_cannot_be_read_in_place():
    x = torch.randn(3, 9, 8, 2, dtype=torch.float64).permute(3, 0, 2, 1)[:, :, ::2]
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64).transpose(2, 3)
    assert_close(ours.conv2d(x, w).numpy(), theirs.conv2d(x, w).numpy(), "parity")
    y = ours.conv2d(x.requires_grad_(), w.requires_grad_())
    mine = torch.autograd.grad(y.sum(), (x, w))  # dy is one number, expanded
    other = torch.autograd.grad(theirs.conv2d(x, w).sum(), (x, w))
    for a, b in zip(mine, other, strict=True):
        assert_close(a.numpy(), b.numpy(), "parity")


def test_no_copy_of_channels_last():
    """What comes as channels_last is handed to the kernels where it lies, and so is what they answer."""
    x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last)
    array = tensors.image_array(x, True)
    assert array.shape == (2, 5, 6, 8) and array.flags.c_contiguous
    assert array.ctypes.data == x.data_ptr()
    back = tensors.image_tensor(array, True)
    assert back.data_ptr() == x.data_ptr() and back.stride() == x.stride()
    gray = torch.randn(1, 1, 4, 4).to(memory_format=torch.channels_last)
    y = ours.conv2d(gray, torch.randn(8, 1, 3, 3))  # one channel lies both ways: the strides tell
    assert y.stride() == theirs.conv2d(gray, torch.randn(8, 1, 3, 3)).stride()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_torch(threads):
    before = torch.get_num_threads()
    x, w = torch.randn(4, 64, 28, 28), torch.randn(64, 64, 3, 3)
    try:
        torch.set_num_threads(threads)
        assert tensors.options().threads == threads
        with fc.options(threads=3):
            assert tensors.options().threads == 3  # who asks for a number gets it
        y = ours.conv2d(x, w)
    finally:
        torch.set_num_threads(before)
    assert_exact(ours.conv2d(x, w).numpy(), y.numpy())  # the same bits for any number


def test_images_without_a_batch_axis_and_empty_batches():
    x, w = torch.randn(3, 9, 8), torch.randn(4, 3, 3, 3)
    assert_exact(ours.conv2d(x, w).numpy(), ours.conv2d(x[None], w)[0].numpy())
    assert (
        ours.conv_transpose2d(x, w[:3].transpose(0, 1)).shape == theirs.conv_transpose2d(x, w[:3].transpose(0, 1)).shape
    )
    y, indices = ours.max_pool2d(x, 2, return_indices=True)
    expected, places = theirs.max_pool2d(x, 2, return_indices=True)
    assert_exact(y.numpy(), expected.numpy())
    assert_exact(indices.numpy(), places.numpy())
    assert ours.avg_pool2d(x, 2).shape == (3, 4, 4)
    none = torch.randn(0, 3, 9, 8, requires_grad=True)
    y = ours.conv2d(none, w.requires_grad_())
    assert y.shape == (0, 4, 7, 6)
    y.sum().backward()
    assert none.grad.shape == none.shape and not w.grad.any()


@pytest.mark.parametrize("call", ["eager", "graph", "op"])
def test_indices_of_maxima(call):
    x = torch.randn(2, 3, 40, 40, requires_grad=call == "graph")
    for window in (3, 17):  # 289 taps do not fit into a byte
        with Observer() if call == "op" else contextlib.nullcontext():
            y, indices = ours.max_pool2d(x, window, 2, 1, return_indices=True)
        expected, places = theirs.max_pool2d(x, window, 2, 1, return_indices=True)
        assert_exact(y.detach().numpy(), expected.detach().numpy())
        assert_exact(indices.numpy(), places.numpy())
        if call == "graph":
            mine, other = (torch.autograd.grad((v**2).sum(), x)[0] for v in (y, expected))
            assert_close(mine.numpy(), other.numpy(), "parity")


def test_frozen_tensors_are_not_kept():
    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 3, 3)
    saved = ours.conv2d(x, w).grad_fn.saved_tensors
    assert saved[0] is None and saved[1].data_ptr() == w.data_ptr()  # x is of no use without a dw


def test_errors_name_the_argument():
    x, w = torch.randn(1, 3, 5, 5), torch.randn(4, 3, 3, 3)
    with pytest.raises(TypeError, match=r"w has dtype torch.float64.*use w.to\(torch.float32\)"):
        ours.conv2d(x, w.double())
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode, pytest.raises(TypeError, match=r"bias has dtype torch\.float64"):
            ft.nn.Conv2d(3, 4, 3).eval()._conv_forward(x, torch.nn.Parameter(w), torch.zeros(4).double())
    with pytest.raises(TypeError, match=r"x has dtype torch\.int32"):
        ours.max_pool2d(x.int(), 2)
    with pytest.raises(fc.ProblemError, match="w has 3 channels per group, x has 2"):
        ours.conv2d(x[:, :2], w)
    with pytest.raises(fc.ProblemError, match="padding='same' came with stride=2"):
        ours.conv2d(x, w, stride=2, padding="same")
    with pytest.raises(fc.ProblemError, match="expected 4 axes, or 3"):
        ours.conv2d(x[0, 0], w)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, of what it loads
def test_no_tangent_is_dropped():
    x, w = torch.randn(1, 3, 5, 5), torch.randn(4, 3, 3, 3)
    for call in (lambda x: ours.conv2d(x, w), lambda x: ours.max_pool2d(x, 2), lambda x: ours.avg_pool2d(x, 2)):
        with pytest.raises(fc.UnsupportedError, match="reverse-mode derivatives alone"):
            torch.func.jvp(call, (x,), (x,))
