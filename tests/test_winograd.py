# SPDX-License-Identifier: Apache-2.0
"""Winograd's schedules give the same bits: weights whole or piece by piece, planned or not, few tiles or many."""

import numpy as np
import pytest

import fastconv as fc
from cases import isas, rng_for
from fastconv import reference
from tolerance import assert_bound, assert_same_bits

FORMS = {  # filter and stride
    "winograd_f2x2_3x3": (3, 3, 1),
    "winograd_f4x4_3x3": (3, 3, 1),
    "winograd_f4x4_3x3_s2": (3, 3, 2),
    "winograd_f2x2_5x5": (5, 5, 1),
    "winograd_f4_3": (1, 3, 1),
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", FORMS)
def test_few_tiles_with_large_weights_and_many(name, isa):
    """The transformed weights of 200 x 232 channels are too large to keep: one image takes them piece by piece."""
    rng = rng_for(name)
    r, s, stride = FORMS[name]
    size = (5 * stride, 6 * stride)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((48, 200, *size), (232, 200, r, s)))
    words = {"padding": (r // 2, s // 2), "stride": stride}
    with fc.options(isa=isa, algorithm=name, precision="fast"):
        together = fc.conv2d(x, w, **words)
        plan = fc.plan(w, x_shape=x.shape, **words)
        for images in (slice(1), slice(3, 20), slice(48)):
            assert_same_bits(fc.conv2d(x[images], w, **words), together[images], f"{images}")
            assert_same_bits(plan(x[images]), together[images], f"planned {images}")
        dx = fc.conv2d_backward_data(together, w, x.shape, **words)
        one = fc.conv2d_backward_data(together[7:8], w, x[:1].shape, **words)
        assert_same_bits(one, dx[7:8], "backward-data")
        rows = fc.algorithms(f"fwd n1 c1 h5 w5 k1 r{r} s{s} stride{stride}")
        factor = next(row["error_factor"] for row in rows if row["name"] == name)
    expected = reference.conv(x[:1].astype(np.float64), w.astype(np.float64), **words)
    largest = reference.conv(abs(x[:1]).astype(np.float64), abs(w).astype(np.float64), **words).max()
    assert_bound(together[:1], expected, np.full_like(expected, largest), 200 * r * s, factor)


@pytest.mark.parametrize("name", FORMS)
def test_layouts_and_slices_of_channels_give_the_same_bits(name):
    rng = rng_for("slices")
    r, s, stride = FORMS[name]
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 40, 21, 19), (24, 20, r, s)))
    words = {"padding": 1, "stride": stride, "activation": "relu"}
    bias = rng.standard_normal(24).astype(np.float32)
    with fc.options(algorithm=name, precision="fast"):
        y = fc.conv2d(x[:, 10:30].copy(), w, bias, **words)
        assert_same_bits(fc.conv2d(x[:, 10:30], w, bias, **words), y)
        last = np.ascontiguousarray(x[:, 10:30].transpose(0, 2, 3, 1))
        z = fc.conv2d(last, w, bias, layout="channels_last", **words)
        assert_same_bits(np.ascontiguousarray(z.transpose(0, 3, 1, 2)), y)


@pytest.mark.parametrize(("r", "s"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_one_axis_is_the_plane_turned(r, s, mode):
    """F(4, 3) along columns is that along rows of the transposed image, to the bit."""
    rng = rng_for(f"turned {mode}")
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 19, 23, 14), (21, 19, r, s)))
    padding = (r // 2, s // 2)
    with fc.options(algorithm="winograd_f4_3"):
        y = fc.conv2d(x, w, padding=padding, padding_mode=mode)
        turned = fc.conv2d(
            x.transpose(0, 1, 3, 2).copy(), w.transpose(0, 1, 3, 2).copy(), padding=padding[::-1], padding_mode=mode
        )
    assert_same_bits(turned.transpose(0, 1, 3, 2).copy(), y)
    expected = reference.conv(x.astype(np.float64), w.astype(np.float64), padding=padding, padding_mode=mode)
    largest = reference.conv(abs(x).astype(np.float64), abs(w).astype(np.float64), padding=padding).max()
    assert_bound(y, expected, np.full_like(expected, largest), 57, 4)
