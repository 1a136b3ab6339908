# SPDX-License-Identifier: Apache-2.0
"""Session files for bench.fuzz_files: good ones to begin with, and changes of the network that they describe."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import nn

NUMBERS = (0, 1, 2, 3, -1, -2, 7, 64, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, -(2**31), -(2**63), 0.5, 1e30)
WORDS = ("", "conv", "concat", "pool", "relu", "nhwc", "float64", "reference", "python", None, True, [], {}, [[1]])
MOST_INPUT = 2**24  # elements of an input that is worth a run


class _Net(nn.Module):
    """Branches, a residual, a concatenation and what goes up again: most of the steps there are."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Upsample(scale_factor=2))
        self.c = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1))

    def forward(self, x: Any) -> Any:
        a = self.a(x)
        return self.head(self.c(fc.ops.concat([a, a + self.b(a)], 1)))


def write(folder: Path) -> None:
    """A dense net and one with branches."""
    x = np.zeros((2, 3, 8, 8), np.float32)
    fc.InferenceSession(_Net(), x).save(folder / "branches.session")
    fc.InferenceSession(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), x.reshape(-1, 6)).save(folder / "dense.session")


def read(path: Path) -> Any:
    """Load it, and run it on zeros if its input is small."""
    session = fc.InferenceSession.load(path)
    shapes = session.input_shapes
    if sum(int(np.prod(shape)) for shape in shapes) > MOST_INPUT:
        return None
    return session(*(np.zeros(shape, session.dtype) for shape in shapes))


def change(rng: random.Random, data: bytes) -> bytes:
    """One or two values of the description, or an array, are others."""
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    network = json.loads(arrays["network"].tobytes())
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.15:
            name = rng.choice(sorted(set(arrays) - {"network"}))
            arrays[name] = arrays[name].reshape(-1)[: rng.randrange(arrays[name].size + 1)]
        else:
            _change_value(rng, network)
    arrays["network"] = np.frombuffer(json.dumps(network).encode(), np.uint8)
    changed = io.BytesIO()
    np.savez(changed, **arrays)
    return changed.getvalue()


def _change_value(rng: random.Random, tree: Any) -> None:
    """Walk to a random leaf and put something else there, or take an entry out or in twice."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = tree[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.95:
            tree = inner
            continue
        kind = rng.randrange(4)
        if kind == 0 and isinstance(tree, list):
            tree.insert(key, inner)
        elif kind == 0:
            del tree[key]
        elif kind == 1:
            tree[key] = rng.choice(WORDS)
        elif kind == 2 and type(inner) is int:
            tree[key] = inner + rng.choice((-1, 1, 8))
        else:
            tree[key] = rng.choice(NUMBERS)
        return
