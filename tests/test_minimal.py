# SPDX-License-Identifier: Apache-2.0
"""If one test file alone is run, then this one: does the installed package compute, train and say what it is?"""

import subprocess
import sys

import numpy as np

import fastconv as fc


def test_convolution_and_its_gradients():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x = rng.integers(-3, 4, (2, 3, 9, 8)).astype(dtype)
        w = rng.integers(-3, 4, (5, 3, 3, 3)).astype(dtype)
        y = fc.conv2d(x, w, stride=2, padding=1)
        assert y.dtype == dtype
        assert np.array_equal(y, fc.reference.conv(x, w, stride=2, padding=1))
        dx, dw, db = fc.conv2d_backward(y, x, w, stride=2, padding=1)
        assert np.array_equal(dx, fc.reference.conv_backward_data(y, w, x.shape, stride=2, padding=1))
        assert np.array_equal(dw, fc.reference.conv_backward_filter(y, x, w.shape, stride=2, padding=1))
        assert np.array_equal(db, y.sum(axis=(0, 2, 3)))


def test_every_algorithm_is_listed_with_a_reason_or_an_estimate():
    rows = fc.algorithms("fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1 dil1 g1 nchw f32")
    assert rows[-1]["name"] == "reference"
    assert all(row["estimate_s"] > 0 if row["supported"] else row["reason"] for row in rows)


def test_a_network_learns_one_batch():
    fc.manual_seed(0)
    model = fc.models.lenet5()
    optimizer = fc.optim.Adam(model.parameters(), lr=2e-3)
    x = np.random.default_rng(1).standard_normal((8, 1, 32, 32)).astype(np.float32)
    labels = np.arange(8)
    losses = []
    for _ in range(30):
        loss = fc.nn.CrossEntropyLoss()(model(fc.Tensor(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.data))
    assert losses[-1] < 0.1 * losses[0]


def test_command_line_says_what_it_is():
    done = subprocess.run([sys.executable, "-m", "fastconv", "info"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert fc.info()["isa"] in done.stdout
