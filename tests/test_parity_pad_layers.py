# SPDX-License-Identifier: Apache-2.0
"""Borders and dropout against PyTorch's: every mode, cropping, 1-D to 3-D, forward and gradients."""

import functools
import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from fastconv import nn
from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')

pytestmark = pytest.mark.parametrize("dtype", ["f32", "f64"])

SIZES = {1: (6,), 2: (5, 6), 3: (4, 5, 6)}
PADDINGS = {
    1: [(2, 1), (0, 3), (-1, 2)],
    2: [(1, 2, 3, 0), (2, -1, -2, 1)],
    3: [(1, 2, 0, 3, 2, 1), (2, -1, -1, 1, 0, 2)],
}


def compare(want, got, x, dtype, what):
    """y and dx of both, on the same x and dy."""
    tensor, inputs = torch.tensor(x, requires_grad=True), fc.Tensor(x, requires_grad=True)
    expected, y = want(tensor), got(inputs)
    assert_exact(y.data, expected.detach().numpy(), what)
    dy = rng_for("dy").standard_normal(y.shape).astype(x.dtype)
    expected.backward(torch.tensor(dy)), y.backward(fc.Tensor(dy))
    assert_close(inputs.grad.data, tensor.grad.numpy(), "parity", what=f"{what} dx")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_modes(rank, dtype):
    x = rng_for("modes").standard_normal((2, 3, *SIZES[rank])).astype(NUMPY_DTYPE[dtype])
    for mode, padding in itertools.product(("constant", "reflect", "replicate", "circular"), PADDINGS[rank]):
        if mode == "reflect" and rank == 3 and max(padding) > 3:
            continue
        words = {"value": 1.5} if mode == "constant" else {}
        theirs, mine = (
            functools.partial(library.functional.pad, pad=padding, mode=mode, **words) for library in (torch.nn, nn)
        )
        compare(theirs, mine, x, dtype, f"{mode} {padding}")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers(rank, dtype):
    for kind, padding, batched in itertools.product(
        ("Zero", "Constant", "Reflection", "Replication", "Circular"), (2, (1, 2) * rank), (True, False)
    ):
        x = rng_for(kind).standard_normal(((2,) if batched else ()) + (3, *SIZES[rank])).astype(NUMPY_DTYPE[dtype])
        words = (padding, 0.75) if kind == "Constant" else (padding,)
        theirs, mine = (getattr(m, f"{kind}Pad{rank}d")(*words) for m in (torch.nn, nn))
        compare(theirs, mine, x, dtype, f"{kind} {padding}")


def test_dropout_in_evaluation_and_its_rates(dtype):
    """Masks come from another generator: what can be compared are shapes of masks, scales and rates."""
    x = np.ones((40, 50, 4), NUMPY_DTYPE[dtype])
    for name in ("Dropout", "Dropout1d"):
        theirs, mine = getattr(torch.nn, name)(0.4), getattr(nn, name)(0.4)
        want, got = theirs(torch.tensor(x)).numpy(), mine(x).data
        assert_exact(np.unique(got), np.unique(want))
        assert np.ptp(want, 2).any() == np.ptp(got, 2).any()
        assert abs((want == 0).mean() - (got == 0).mean()) < 0.1
        assert_exact(mine.eval()(x).data, theirs.eval()(torch.tensor(x)).numpy())
