# SPDX-License-Identifier: Apache-2.0
"""Winograd's schedules give the same bits: weights whole or piece by piece, planned or not, few tiles or many."""

import numpy as np
import pytest

import fastconv as fc
from cases import isas, rng_for
from fastconv import reference
from tolerance import assert_bound, assert_same_bits

FORMS = ("winograd_f2x2_3x3", "winograd_f4x4_3x3")


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", FORMS)
def test_few_tiles_with_large_weights_and_many(name, isa):
    """The transformed weights of 200 x 232 channels are too large to keep: one image takes them piece by piece."""
    rng = rng_for(name)
    x, w = rng.standard_normal((48, 200, 5, 6)).astype(np.float32), rng.standard_normal((232, 200, 3, 3))
    w = w.astype(np.float32)
    with fc.options(isa=isa, algorithm=name, precision="fast"):
        together = fc.conv2d(x, w, padding=1)
        plan = fc.plan(w, x_shape=x.shape, padding=1)
        for images in (slice(1), slice(3, 20), slice(48)):
            assert_same_bits(fc.conv2d(x[images], w, padding=1), together[images], f"{images}")
            assert_same_bits(plan(x[images]), together[images], f"planned {images}")
        dx = fc.conv2d_backward_data(together, w, x.shape, padding=1)
        one = fc.conv2d_backward_data(together[7:8], w, x[:1].shape, padding=1)
        assert_same_bits(one, dx[7:8], "backward-data")
        factor = next(row["error_factor"] for row in fc.algorithms("fwd n1 c1 h4 w4 k1 r3 s3") if row["name"] == name)
    expected = reference.conv(x[:1].astype(np.float64), w.astype(np.float64), padding=1)
    largest = reference.conv(abs(x[:1]).astype(np.float64), abs(w).astype(np.float64), padding=1).max()
    assert_bound(together[:1], expected, np.full_like(expected, largest), 1800, factor)


@pytest.mark.parametrize("name", FORMS)
def test_layouts_and_slices_of_channels_give_the_same_bits(name):
    rng = rng_for("slices")
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 40, 21, 19), (24, 20, 3, 3)))
    bias = rng.standard_normal(24).astype(np.float32)
    with fc.options(algorithm=name, precision="fast"):
        y = fc.conv2d(x[:, 10:30].copy(), w, bias, padding=1, activation="relu")
        assert_same_bits(fc.conv2d(x[:, 10:30], w, bias, padding=1, activation="relu"), y)
        last = np.ascontiguousarray(x[:, 10:30].transpose(0, 2, 3, 1))
        z = fc.conv2d(last, w, bias, padding=1, activation="relu", layout="channels_last")
        assert_same_bits(np.ascontiguousarray(z.transpose(0, 3, 1, 2)), y)
