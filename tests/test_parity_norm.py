# SPDX-License-Identifier: Apache-2.0
"""Normalisation layers against PyTorch's: every option, training and evaluation, state, forward and gradients."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')

pytestmark = pytest.mark.parametrize("dtype", ["f32", "f64"])

SHAPES = {1: [(4, 6, 5)], 2: [(3, 6, 4, 5)], 3: [(2, 6, 3, 4, 2)]}
UNBATCHED = {1: (6, 5), 2: (6, 4, 5), 3: (6, 3, 4, 2)}


def pair(theirs, mine, text, dtype):
    """The same random parameters in both; theirs in the dtype."""
    rng, theirs = rng_for(text), theirs.to(torch.float64 if dtype == "f64" else torch.float32)
    for (name, a), (mine_name, b) in zip(theirs.named_parameters(), mine.named_parameters(), strict=True):
        assert name == mine_name and tuple(a.shape) == b.shape
        value = rng.standard_normal(b.shape).astype(NUMPY_DTYPE[dtype])
        a.data, b.data = torch.tensor(value), value.copy()
    return theirs, mine.to(NUMPY_DTYPE[dtype])


def compare(theirs, mine, shape, text, dtype, steps=2):
    """Two training steps, then evaluation: outputs, gradients and state."""
    rng = rng_for(f"{text} {shape}")
    for training in (*(True,) * steps, False):
        theirs.train(training), mine.train(training)
        x, dy = ((rng.standard_normal(shape) * 2 + 1).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
        tensor, inputs = torch.tensor(x, requires_grad=True), fc.Tensor(x, requires_grad=True)
        theirs.zero_grad(), mine.zero_grad()
        want, got = theirs(tensor), mine(inputs)
        want.backward(torch.tensor(dy)), got.backward(fc.Tensor(dy))
        assert_close(got.data, want.detach().numpy(), "parity", what=f"{text} y")
        assert_close(inputs.grad.data, tensor.grad.numpy(), "parity", scale=8.0, what=f"{text} dx")
        for (name, a), (_, b) in zip(theirs.named_parameters(), mine.named_parameters(), strict=True):
            assert_close(b.grad.data, a.grad.numpy(), "parity", scale=8.0, what=f"{text} {name}")
        state = mine.state_dict()
        assert list(state) == list(theirs.state_dict())
        for name, value in theirs.state_dict().items():
            assert_close(np.asarray(state[name]), value.numpy(), "parity", dtype=x.dtype, what=f"{text} {name}")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_batch_norm(rank, dtype):
    for affine, tracks, momentum, eps in itertools.product(
        (True, False), (True, False), (0.1, 0.4, None), (1e-5, 1e-2)
    ):
        words = {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": tracks}
        for shape in [*SHAPES[rank], *([(7, 6)] if rank == 1 else [])]:
            theirs, mine = (getattr(m, f"BatchNorm{rank}d")(6, **words) for m in (torch.nn, fc.nn))
            text = f"BatchNorm{rank}d {words}"
            compare(*pair(theirs, mine, text, dtype), shape, text, dtype)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_norm(rank, dtype):
    for affine, tracks, momentum in itertools.product((True, False), (True, False), (0.1, 0.4)):
        words = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": tracks}
        for shape in (*SHAPES[rank], UNBATCHED[rank]):
            theirs, mine = (getattr(m, f"InstanceNorm{rank}d")(6, **words) for m in (torch.nn, fc.nn))
            text = f"InstanceNorm{rank}d {words}"
            compare(*pair(theirs, mine, text, dtype), shape, text, dtype)


def test_group_norm(dtype):
    for groups, affine, shape in itertools.product(
        (1, 2, 3, 6), (True, False), [(5, 6, 4), *(s for rank in SHAPES.values() for s in rank)]
    ):
        theirs, mine = (m.GroupNorm(groups, 6, 1e-4, affine) for m in (torch.nn, fc.nn))
        text = f"GroupNorm {groups} {affine}"
        compare(*pair(theirs, mine, text, dtype), shape, text, dtype, steps=1)


def test_layer_norm(dtype):
    shape = (2, 3, 4, 6)
    for last, affine, bias in itertools.product(range(1, 5), (True, False), (True, False)):
        theirs, mine = (m.LayerNorm(shape[-last:], 1e-4, affine, bias) for m in (torch.nn, fc.nn))
        text = f"LayerNorm {shape[-last:]} {affine} {bias}"
        compare(*pair(theirs, mine, text, dtype), shape, text, dtype, steps=1)
    theirs, mine = torch.nn.LayerNorm(9), fc.nn.LayerNorm(9)
    compare(*pair(theirs, mine, "LayerNorm 9", dtype), (9,), "LayerNorm 9", dtype, steps=1)


def test_second_gradients(dtype):
    """d/dx of a scalar made of the first gradient, through group norm."""
    x, gamma, g = (rng_for(f"second {i}").standard_normal(s).astype(NUMPY_DTYPE[dtype]) for i, s in
                   enumerate([(2, 6, 4), (6,), (2, 6, 4)]))  # fmt: skip
    tx, tg = torch.tensor(x, requires_grad=True), torch.tensor(gamma, requires_grad=True)
    y = torch.nn.functional.group_norm(tx, 2, tg) ** 2
    (dx,) = torch.autograd.grad((y * torch.tensor(g)).sum(), tx, create_graph=True)
    want = torch.autograd.grad((dx**2).sum(), [tx, tg])
    mx, mg = fc.Tensor(x, requires_grad=True), fc.Tensor(gamma, requires_grad=True)
    y = fc.ops.group_norm(mx, 2, mg) ** 2
    (dx,) = fc.grad((y * fc.Tensor(g)).sum(), mx, create_graph=True)
    for got, value in zip(fc.grad((dx**2).sum(), [mx, mg]), want, strict=True):
        assert_close(got.data, value.numpy(), "parity")
