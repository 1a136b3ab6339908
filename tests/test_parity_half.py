# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16 beside PyTorch's on the CPU: against float64, our error is at most twice theirs.

Needs the `parity` extra. Every result and every gradient of every case; what is exact in PyTorch must be exact here.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from cases import HALVES, NUMPY_DTYPE, rng_for
from tolerance import assert_exact, assert_relative

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
functional = torch.nn.functional

pytestmark = pytest.mark.parametrize("dtype", HALVES)

LABELS = np.array([1, 0, 6, 3, 2, 2])


def to_torch(array):
    """A half array as a torch tensor with the same bits."""
    tensor = torch.from_numpy(np.ascontiguousarray(array).view(np.int16).reshape(array.shape))
    return tensor.view(torch.bfloat16 if array.dtype == ml_dtypes.bfloat16 else torch.float16)


def to_numpy(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def compare(what, ours, theirs, shapes, dtype, scale=1.0):
    """Values and gradients of `ours` (on tensors) and `theirs` (on torch tensors), both against theirs in float64."""
    rng = rng_for(what)
    arrays = [(rng.standard_normal(shape) * scale).astype(NUMPY_DTYPE[dtype]) for shape in shapes]
    mine = [fc.Tensor(a, requires_grad=True) for a in arrays]
    halves = [to_torch(a).requires_grad_() for a in arrays]
    exact = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    y, y_half, y_exact = ours(*mine), theirs(*halves), theirs(*exact)
    dy = np.asarray(rng.standard_normal(y.shape)).astype(NUMPY_DTYPE[dtype])
    y.backward(fc.Tensor(dy))
    y_half.backward(to_torch(dy))
    y_exact.backward(torch.tensor(dy.astype(np.float64)))
    assert y.dtype == NUMPY_DTYPE[dtype]
    assert_relative(np.asarray(y.data), y_exact.detach().numpy(), f"{what}: y", to_numpy(y_half))
    for i, (m, h, e) in enumerate(zip(mine, halves, exact, strict=True)):
        assert m.grad.dtype == NUMPY_DTYPE[dtype]
        assert_relative(np.asarray(m.grad.data), e.grad.numpy(), f"{what}: gradient {i}", to_numpy(h.grad))


# (rank, x, w, stride, padding, dilation, groups)
CONVOLUTIONS = [
    (1, (2, 3, 17), (5, 3, 4), 2, 1, 1, 1),
    (1, (1, 6, 20), (6, 1, 3), 1, 2, 2, 6),
    (2, (2, 3, 9, 8), (4, 3, 3, 3), 1, 1, 1, 1),
    (2, (2, 16, 7, 7), (33, 16, 1, 1), 1, 0, 1, 1),
    (2, (1, 4, 11, 12), (6, 2, 5, 3), (2, 1), (2, 1), (1, 2), 2),
    (2, (3, 8, 6, 5), (8, 1, 3, 3), 1, 1, 1, 8),
    (2, (2, 64, 10, 10), (32, 64, 3, 3), 1, 1, 1, 1),
    (3, (1, 3, 5, 6, 7), (4, 3, 3, 3, 3), (1, 2, 2), 1, 1, 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_gradients(case, dtype):
    rank, x_shape, w_shape, *words = case
    ours, theirs = getattr(fc, f"conv{rank}d"), getattr(functional, f"conv{rank}d")
    compare(str(case), lambda *a: ours(*a, *words), lambda *a: theirs(*a, *words), (x_shape, w_shape, w_shape[:1]),
            dtype)  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution_and_gradients(rank, dtype):
    x_shape, w_shape = (2, 6, *(5, 6, 4)[:rank]), (6, 2, *(3, 2, 3)[:rank])
    ours, theirs = getattr(fc, f"conv_transpose{rank}d"), getattr(functional, f"conv_transpose{rank}d")
    words = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    compare(f"transposed {rank}", lambda *a: ours(*a, **words), lambda *a: theirs(*a, **words),
            (x_shape, w_shape, (4,)), dtype)  # fmt: skip


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode, dtype):
    def theirs(x, w):
        return functional.conv2d(functional.pad(x, (2, 1, 1, 2), mode=mode), w)

    def ours(x, w):
        return fc.conv2d(x, w, padding=((1, 2), (2, 1)), padding_mode=mode)

    compare(mode, ours, theirs, ((2, 3, 6, 7), (4, 3, 3, 3)), dtype)


def with_arguments(function, *arguments):
    return lambda x: function(x, *arguments)


def test_pooling(dtype):
    for window, stride, padding, ceil_mode in itertools.product((2, 3), (1, 2), (0, 1), (False, True)):
        arguments = (window, stride, padding)
        x = rng_for(str(arguments)).standard_normal((2, 3, 9, 8)).astype(NUMPY_DTYPE[dtype])
        y, at = fc.max_pool2d(x, *arguments, 1, ceil_mode, return_indices=True)
        expected, places = functional.max_pool2d(to_torch(x), *arguments, 1, ceil_mode, return_indices=True)
        assert_exact(y, to_numpy(expected).astype(np.float64))
        assert_exact(at, places.numpy())
        for ours, theirs, rest in (
            (fc.max_pool2d, functional.max_pool2d, (*arguments, 1, ceil_mode)),
            (fc.avg_pool2d, functional.avg_pool2d, (*arguments, ceil_mode)),
        ):
            compare(f"{arguments}", with_arguments(ours, *rest), with_arguments(theirs, *rest), (x.shape,), dtype)


ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "relu6": functional.relu6,
    "elu": functional.elu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "hard_swish": functional.hardswish,
}


def test_activations(dtype):
    for name, theirs in ACTIVATIONS.items():
        compare(name, getattr(fc.ops, name), theirs, ((40, 50),), dtype, scale=4)


OPERATIONS = {
    "linear": (fc.ops.linear, functional.linear, (12, 65), (9, 65), (9,)),
    "matmul": (fc.ops.matmul, torch.matmul, (2, 5, 64), (2, 64, 7)),
    "sum": (lambda x: x.sum(1), lambda x: x.sum(1), (20, 300)),
    "mean": (lambda x: x.mean((0, 2)), lambda x: x.mean((0, 2)), (8, 5, 60)),
    "mul": (fc.ops.mul, torch.mul, (20, 30), (30,)),
    "a number": (lambda x: x * 0.1 + 0.3, lambda x: x * 0.1 + 0.3, (20, 30)),
    "softmax": (fc.ops.softmax, lambda x: functional.softmax(x, -1), (20, 30)),
    "log_softmax": (fc.ops.log_softmax, lambda x: functional.log_softmax(x, -1), (20, 30)),
    "cross_entropy": (
        lambda x: fc.ops.cross_entropy(x, LABELS),
        lambda x: functional.cross_entropy(x, torch.tensor(LABELS)),
        (6, 7),
    ),
    "batch_norm": (
        lambda x, g, b: fc.ops.batch_norm(x, None, None, g, b, True),
        lambda x, g, b: functional.batch_norm(x, None, None, g, b, True),
        (4, 5, 6, 7),
        (5,),
        (5,),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, dtype):
    ours, theirs, *shapes = OPERATIONS[name]
    compare(name, ours, theirs, shapes, dtype)


def test_mixed_dtypes_are_refused_as_there(dtype):
    x, w, bias = np.ones((1, 2, 4, 4), NUMPY_DTYPE[dtype]), np.ones((3, 2, 3, 3), np.float32), np.ones(3, np.float32)
    half = w.astype(x.dtype)
    for ours, theirs in (((x, w), (to_torch(x), torch.tensor(w))),
                         ((x, half, bias), (to_torch(x), to_torch(half), torch.tensor(bias)))):  # fmt: skip
        with pytest.raises(RuntimeError):
            functional.conv2d(*theirs)
        with pytest.raises(TypeError, match="expected the same dtype"):
            fc.conv2d(*ours)
