# SPDX-License-Identifier: Apache-2.0
"""Random networks of branches, sums, slices and concatenations: a session gives what the model does, whatever its
memory held before."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core, nn, ops
from tolerance import assert_close, assert_exact

SEED = 74
ACTIVATIONS = ("relu", "relu6", "tanh", "silu", "sigmoid")


class Branches(nn.Module):
    """A random net over images: what it is follows from the seed."""

    def __init__(self, seed):
        super().__init__()
        self.rng = np.random.default_rng([SEED, seed])
        self.layers, self.seed = nn.ModuleList(), seed
        self.built = False

    def number(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def layer(self, make):
        """The next layer; the first pass makes it."""
        if not self.built:
            module = make()
            rng = np.random.default_rng([SEED, self.at])  # one of its own: later passes draw the same numbers
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean[...] = rng.standard_normal(part.num_features)
                    part.running_var[...] = rng.random(part.num_features) + 0.5
            self.layers.append(module.to(self.dtype).eval())
        self.at += 1
        return self.layers[self.at - 1]

    def conv(self, x, k):
        c, filter = x.shape[1], (1, 3, 5)[self.number(0, 2)]
        groups = c if k == c and self.number(0, 2) == 0 else 1
        return self.layer(lambda: nn.Conv2d(c, k, filter, padding=filter // 2, groups=groups))(x)

    def step(self, known):
        x = known[self.number(0, len(known) - 1)]
        c, kind = x.shape[1], self.number(0, 8)
        if kind <= 2:
            y = self.conv(x, self.number(1, 9))
            y = self.layer(lambda: nn.BatchNorm2d(y.shape[1]))(y) if self.number(0, 1) else y
            return ops.activation(y, ACTIVATIONS[self.number(0, 4)], 0.0) if self.number(0, 1) else y
        if kind == 3:
            return ops.relu(self.conv(x, c) + x) if self.number(0, 1) else x - self.conv(x, c)
        if kind <= 5:
            return ops.concat([known[self.number(0, len(known) - 1)] for _ in range(self.number(2, 4))], 1)
        if kind == 6 and c > 1:
            begin = self.number(0, c - 1)
            return x[:, begin : self.number(begin + 1, c)]
        if kind == 7 and self.number(0, 1):  # the middle of every plane, in a frame
            inside = x[:, :, 1:-1, 1:-1]
            return ops.pad(inside, ((0, 0), (0, 0), (2, 0), (0, 2)))
        if kind == 7:
            return self.layer(lambda: (nn.MaxPool2d if c % 2 else nn.AvgPool2d)(3, 1, 1))(x)
        return ops.tanh(x) * x if self.number(0, 1) else x * 0.5 + 1.0

    def forward(self, x):
        self.rng, self.at, self.dtype = np.random.default_rng([SEED, self.seed]), 0, x.dtype
        fc.manual_seed(self.seed)
        known = [x]
        for _ in range(self.number(3, 12)):
            y = self.step(known)
            if y.shape[1] <= 40:
                known.append(y)
        self.built = True
        return tuple(known[-self.number(1, min(3, len(known) - 1)) :]) if len(known) > 1 else x * 1.0


def poison(session):
    """Let the memory of the next call be full of NaN."""
    arena = _core.Arena("f64" if session._network.dtype == "float64" else "f32", session.arena_bytes)
    arena.view(0, (session.arena_bytes // (8 if session._network.dtype == "float64" else 4),))[...] = np.nan


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def check(seed, algorithm=None):
    rng = np.random.default_rng([SEED, seed])
    dtype = (np.float32, np.float64)[seed % 2]
    x = rng.standard_normal((int(rng.integers(1, 4)), int(rng.integers(1, 6)), *rng.integers(3, 14, 2))).astype(dtype)
    model = Branches(seed)
    model(fc.Tensor(x))
    with fc.options(algorithm=algorithm):
        session = fc.InferenceSession(model, x)
    with fc.no_grad():
        expected = model(fc.Tensor(x))
    poison(session)
    results = as_tuple(session(x))
    for result, y in zip(results, as_tuple(expected), strict=True):
        assert_close(result, y.data, "model", what=f"seed {seed}")
    assert session._best_piece is not None, "none of these steps mixes images"
    session._best_piece = 0.5  # in pieces of one image, side by side
    with fc.options(threads=2):
        for result, many in zip(results, as_tuple(session(np.concatenate([x, x, x]))), strict=True):
            assert_exact(many, np.concatenate([result, result, result]), f"seed {seed}, in pieces")
    return session, x


@pytest.mark.parametrize("seed", range(60))
def test_random_networks(seed):
    session, x = check(seed)
    assert not any(step.op == "python" for step in session.profile(x, repeats=1).steps)


@pytest.mark.parametrize("algorithm", ["direct", "im2col_gemm", "implicit_gemm", "reference"])
def test_every_general_algorithm_in_place(algorithm):
    for seed in range(100, 108):
        check(seed, algorithm)


@pytest.mark.slow
def test_many_random_networks():
    for seed in range(1000, 3000):
        check(seed)
