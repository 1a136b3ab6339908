# SPDX-License-Identifier: Apache-2.0
"""The same numbers as PyTorch: convolution, batch norm and loss, forward and gradients, in both dtypes.

Needs the `parity` extra. Our own references need no framework; this file says that they mean the same as PyTorch's.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from fastconv import reference
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
functional = torch.nn.functional

pytestmark = pytest.mark.parametrize("dtype", ["f32", "f64"])

# (rank, x, w, stride, padding, dilation, groups)
CONVOLUTIONS = [
    (1, (2, 3, 17), (5, 3, 4), 2, 1, 1, 1),
    (1, (1, 6, 20), (6, 1, 3), 1, 2, 2, 6),
    (2, (2, 3, 9, 8), (4, 3, 3, 3), 1, 1, 1, 1),
    (2, (2, 16, 7, 7), (33, 16, 1, 1), 1, 0, 1, 1),
    (2, (1, 4, 11, 12), (6, 2, 5, 3), (2, 1), (2, 1), (1, 2), 2),
    (2, (3, 8, 6, 5), (8, 1, 3, 3), 1, 1, 1, 8),
    (2, (1, 2, 5, 5), (3, 2, 7, 7), 1, 3, 1, 1),
    (3, (1, 3, 5, 6, 7), (4, 3, 3, 3, 3), (1, 2, 2), 1, 1, 1),
]


def normal(text, *shapes, dtype):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]


def leaf(a):
    return torch.tensor(a, requires_grad=True)


def ours(name, rank):
    return getattr(fc, f"{name}{rank}d")


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_gradients(case, dtype):
    rank, x_shape, w_shape, stride, padding, dilation, groups = case
    x, w, bias = normal(str(case), x_shape, w_shape, w_shape[:1], dtype=dtype)
    tensors = [leaf(a) for a in (x, w, bias)]
    expected = getattr(functional, f"conv{rank}d")(*tensors, stride, padding, dilation, groups)
    y = ours("conv", rank)(x, w, bias, stride, padding, dilation, groups)
    assert_close(y, expected.detach().numpy(), "parity", what="y")
    (dy,) = normal("dy", y.shape, dtype=dtype)
    expected.backward(torch.tensor(dy))
    gradients = getattr(fc, f"conv{rank}d_backward")(dy, x, w, stride, padding, dilation, groups)
    for name, got, want in zip(("dx", "dw", "db"), gradients, tensors, strict=True):
        assert_close(got, want.grad.numpy(), "parity", what=name)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode, dtype):
    x, w = normal(mode, (2, 3, 6, 7), (4, 3, 3, 3), dtype=dtype)
    tensor, weights = leaf(x), leaf(w)
    expected = functional.conv2d(functional.pad(tensor, (2, 1, 1, 2), mode=mode), weights)
    words = {"padding": ((1, 2), (2, 1)), "padding_mode": mode}
    y = fc.conv2d(x, w, **words)
    assert_close(y, expected.detach().numpy(), "parity")
    expected.backward(torch.tensor(y))
    assert_close(fc.conv2d_backward_data(y, w, x.shape, **words), tensor.grad.numpy(), "parity")
    assert_close(fc.conv2d_backward_filter(y, x, w.shape, **words), weights.grad.numpy(), "parity")


def test_number_of_windows_in_ceil_mode(dtype):
    """Our counting reference against PyTorch, also where the window is larger than the plane."""
    for size, window, stride, padding in itertools.product(range(1, 8), range(1, 5), range(1, 5), range(3)):
        if padding > window // 2:
            continue
        counted = reference.pool_output_size(size, window, stride, 1, padding, padding, ceil_mode=True)
        x = torch.zeros(1, 1, size, dtype=getattr(torch, np.dtype(NUMPY_DTYPE[dtype]).name))
        if counted == 0:
            with pytest.raises(RuntimeError, match="output size"):
                functional.max_pool1d(x, window, stride, padding, ceil_mode=True)
        else:
            assert functional.max_pool1d(x, window, stride, padding, ceil_mode=True).shape[-1] == counted


def test_batch_norm_layer(dtype):
    """Training with running statistics, then evaluation."""
    x, gamma, beta, dy = normal("bn", (4, 5, 6, 7), 5, 5, (4, 5, 6, 7), dtype=dtype)
    theirs, mine = torch.nn.BatchNorm2d(5), fc.nn.BatchNorm2d(5, dtype=x.dtype)
    theirs = theirs.to(torch.tensor(x).dtype)
    state = {"weight": gamma, "bias": beta}
    for name, value in state.items():
        getattr(theirs, name).data = torch.tensor(value)
        getattr(mine, name).data = value.copy()
    tensor, inputs = leaf(x), fc.Tensor(x, requires_grad=True)
    expected, y = theirs(tensor), mine(inputs)
    assert_close(y.data, expected.detach().numpy(), "parity", what="y")
    expected.backward(torch.tensor(dy))
    y.backward(dy)
    assert_close(inputs.grad, tensor.grad.numpy(), "parity", what="dx")
    for name in state:
        assert_close(getattr(mine, name).grad, getattr(theirs, name).grad.numpy(), "parity", what=name)
    for name, value in theirs.state_dict().items():
        assert_close(np.asarray(mine.state_dict()[name]), value.numpy(), "parity", dtype=x.dtype, what=name)
    theirs.eval(), mine.eval()
    assert_close(mine(fc.Tensor(x)).data, theirs(tensor).detach().numpy(), "parity", what="evaluation")


def test_cross_entropy(dtype):
    (logits,) = normal("loss", (6, 10), dtype=dtype)
    labels = np.arange(6)
    tensor, inputs = leaf(logits), fc.Tensor(logits, requires_grad=True)
    expected = functional.cross_entropy(tensor, torch.tensor(labels))
    loss = fc.nn.CrossEntropyLoss()(inputs, labels)
    assert_close(loss.data, expected.detach().numpy(), "parity")
    expected.backward()
    loss.backward()
    assert_close(inputs.grad, tensor.grad.numpy(), "parity")


@pytest.mark.parametrize(
    "kind", ["relu", "leaky_relu", "relu6", "elu", "sigmoid", "tanh", "silu", "gelu", "hard_swish"]
)
def test_activation_references(kind, dtype):
    x, dy = normal(kind, 200, 200, dtype=dtype)
    x *= 4
    tensor = leaf(x)
    words = {"leaky_relu": {"negative_slope": 0.2}, "elu": {"alpha": 0.2}}.get(kind, {})
    expected = getattr(functional, kind.replace("hard_swish", "hardswish"))(tensor, **words)
    assert_close(reference.activation(kind, x, 0.2), expected.detach().numpy(), "parity", dtype=x.dtype)
    expected.backward(torch.tensor(dy))
    assert_close(reference.activation_backward(kind, dy, x, 0.2), tensor.grad.numpy(), "parity", dtype=x.dtype)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {"weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
        ("Adam", {"betas": (0.8, 0.9), "eps": 1e-3}),
        ("Adam", {"amsgrad": True, "betas": (0.5, 0.6)}),
        ("AdamW", {"weight_decay": 0.1, "maximize": True}),
        ("AdamW", {"amsgrad": True, "betas": (0.8, 0.5)}),
        ("RMSprop", {}),
        ("RMSprop", {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
        ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
        ("RMSprop", {"centered": True, "alpha": 0.8}),
        ("RMSprop", {"centered": True, "momentum": 0.5}),
    ],
)
def test_optimisers(optimizer, words, dtype):
    w, *gradients = normal("optimiser", *[(4, 5)] * 6, dtype=dtype)
    tensor, parameter = leaf(w), fc.nn.Parameter(w.copy())
    theirs = getattr(torch.optim, optimizer)([tensor], lr=0.1, **words)
    mine = getattr(fc.optim, optimizer)([parameter], lr=0.1, **words)
    for g in gradients:
        tensor.grad, parameter.grad = torch.tensor(g), fc.Tensor(g.copy())
        theirs.step()
        mine.step()
    assert_close(parameter.data, tensor.detach().numpy(), "parity")


def test_state_dict_keys_are_pytorchs(dtype):
    modules = torch.nn
    theirs = modules.Sequential(modules.Conv2d(1, 6, 5), modules.BatchNorm2d(6), modules.ReLU(), modules.Linear(3, 2))
    mine = fc.nn.Sequential(fc.nn.Conv2d(1, 6, 5), fc.nn.BatchNorm2d(6), fc.nn.ReLU(), fc.nn.Linear(3, 2))
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: np.shape(value) for name, value in mine.state_dict().items()} == expected
