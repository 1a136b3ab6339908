# SPDX-License-Identifier: Apache-2.0
"""Arrays of any shape, dtype and strides for the property tests, and what an operation makes of them."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastconv as fc
from cases import NUMPY_DTYPE

DTYPE = st.sampled_from(("f32", "f64"))
SEED = st.integers(0, 2**32 - 1)
SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def strided(rng, a):
    """The same values in another place: axes in any order in memory, backwards, every second element."""
    order = rng.permutation(a.ndim)
    steps = tuple(slice(None, None, int(s)) for s in rng.choice((1, -1, 2, -2), a.ndim))
    room = np.zeros([a.shape[i] * abs(steps[i].step) for i in order], a.dtype)
    view = room.transpose(np.argsort(order))[(*steps, ...)]
    view[...] = a
    return view


def integers(rng, shape, dtype):
    return strided(rng, rng.integers(-8, 9, shape).astype(NUMPY_DTYPE[dtype]))


def normal(rng, shape, dtype):
    return strided(rng, np.asarray(rng.standard_normal(shape), NUMPY_DTYPE[dtype]))


def backward(f, arrays, seed=None):
    """(y, dy, gradients) of f, whose dy is given or drawn from integers; dtypes and shapes are checked."""
    leaves = [fc.Tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    dy = integers(np.random.default_rng(0), y.shape, "f64").astype(y.dtype) if seed is None else seed
    y.backward(fc.Tensor(dy))
    for leaf, a in zip(leaves, arrays, strict=True):
        assert leaf.grad.shape == a.shape and leaf.grad.dtype == a.dtype
    return y, dy, [leaf.grad.data for leaf in leaves]


def dot(a, b):
    return np.sum(a.astype(np.float64) * b.astype(np.float64))
