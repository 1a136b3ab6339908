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
    "winograd_f3x3_4x4": (4, 4, 1),
    "winograd_f5x5_2x2": (2, 2, 1),
    "winograd_f2x2_5x5": (5, 5, 1),
    "winograd_f4_3": (1, 3, 1),
}
PHASED = [  # by phases of the stride: algorithm, filter, stride, padding
    ("winograd_f4x4_3x3", (11, 11), (4, 4), (2, 2)),
    ("winograd_f4x4_3x3", (5, 3), (2, 1), (2, 1)),
    ("winograd_f4x4_3x3", (6, 5), (2, 2), (2, 2)),
    ("winograd_f2x2_3x3", (9, 5), (3, 2), (4, 2)),
    ("winograd_f3x3_4x4", (7, 7), (2, 2), (3, 3)),
    ("winograd_f5x5_2x2", (4, 4), (2, 2), (1, 1)),
    ("winograd_f5x5_2x2", (3, 7), (2, 4), (1, 3)),
    ("winograd_f2x2_5x5", (9, 10), (2, 2), (4, 4)),
    ("winograd_f4_3", (1, 6), (1, 2), (0, 2)),
]


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


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("name", "filter", "stride", "pad"), PHASED)
def test_strides_by_phases(name, filter, stride, pad, isa):
    """All passes, layouts, groups and padding modes; plans, calls and batches give the same bits."""
    rng = rng_for(f"phases {name} {filter}")
    n, groups, c, k = 5, 2, 6, 10
    size = [(7 * s if s > 1 else 19) + f - 2 * p + s - 1 for f, s, p in zip(filter, stride, pad, strict=True)]
    x = rng.standard_normal((n, c, *size)).astype(np.float32)
    w = rng.standard_normal((k, c // groups, *filter)).astype(np.float32)
    bias = rng.standard_normal(k).astype(np.float32)
    words = {"stride": stride, "padding": pad, "groups": groups}
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    factor = next(row["error_factor"] for row in fc.algorithms("fwd n1 c1 h9 w9 k1 r3 s3") if row["name"] == name)
    for more in ({}, {"padding_mode": "reflect"}, {"padding_mode": "constant", "pad_value": 0.5}):
        with fc.options(isa=isa, algorithm=name, precision="fast"):
            y = fc.conv2d(x, w, bias, activation="relu", **words, **more)
            assert_same_bits(fc.conv2d(x[1:2], w, bias, activation="relu", **words, **more), y[1:2], "one image")
            z = fc.conv2d(last, w, bias, activation="relu", layout="channels_last", **words, **more)
            assert_same_bits(np.ascontiguousarray(z.transpose(0, 3, 1, 2)), y, "channels last")
            dw = fc.conv2d_backward_filter(y, x, w.shape, **words, **more)
        wide, large = ([a.astype(np.float64) for a in (x, w, bias)], [abs(a).astype(np.float64) for a in (x, w, bias)])
        expected = reference.conv(*wide, activation="relu", **words, **more)
        bound = np.full_like(expected, reference.conv(*large, **words, **more).max())
        assert_bound(y, expected, bound, c // groups * filter[0] * filter[1], factor)
        gradient = reference.conv_backward_filter(y.astype(np.float64), wide[0], w.shape, **words, **more)
        bound = reference.conv_backward_filter(y.astype(np.float64), large[0], w.shape, **words, **more)
        assert_bound(dw, gradient, np.full_like(bound, bound.max()), n * y[0, 0].size, factor)
    with fc.options(isa=isa, algorithm=name, precision="fast"):
        plan = fc.plan(w, x_shape=x.shape, **words)
        assert_same_bits(plan(x), fc.conv2d(x, w, **words), "planned")
        dx = fc.conv2d_backward_data(y, w, x.shape, **words)
        shape = (n, *size, c)
        dy = np.ascontiguousarray(y.transpose(0, 2, 3, 1))
        turned = fc.conv2d_backward_data(dy, w, shape, layout="channels_last", **words)
        up = fc.conv_transpose2d(y, w, bias[:c], **words, activation="silu")
    assert_same_bits(np.ascontiguousarray(turned.transpose(0, 3, 1, 2)), dx, "channels last")
    expected = reference.conv_backward_data(y.astype(np.float64), wide[1], x.shape, **words)
    bound = reference.conv_backward_data(y.astype(np.float64), large[1], x.shape, **words)
    assert_bound(dx, expected, np.full_like(bound, bound.max()), k // groups * filter[0] * filter[1], factor)
    expected = reference.conv_transpose(y.astype(np.float64), wide[1], wide[2][:c], **words, activation="silu")
    assert_bound(up, expected, np.full_like(expected, bound.max() + 3), k // groups * filter[0] * filter[1], factor)


def test_phases_say_what_they_refuse():
    """Windows that leave cells of x out; a dilation; taps that are not the form's."""
    dy, w = np.ones((1, 2, 4, 4), np.float32), np.ones((2, 3, 6, 6), np.float32)
    with fc.options(algorithm="winograd_f4x4_3x3"):
        assert fc.conv2d_backward_data(dy, w, (1, 3, 12, 12), stride=2).shape == (1, 3, 12, 12)
        with pytest.raises(fc.UnsupportedError, match="whose windows reach all of x, got x of 13 x 12"):
            fc.conv2d_backward_data(dy, w, (1, 3, 13, 12), stride=2)
        with pytest.raises(fc.UnsupportedError, match="dilation 1 where it has a stride, got 2 x 2"):
            fc.conv2d(np.ones((1, 3, 20, 20), np.float32), w, stride=2, dilation=2)
        with pytest.raises(fc.UnsupportedError, match="at a phase of its stride, got 4 x 4"):
            fc.conv2d(np.ones((1, 3, 20, 20), np.float32), np.ones((2, 3, 7, 7), np.float32), stride=2)
