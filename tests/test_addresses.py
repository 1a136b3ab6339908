# SPDX-License-Identifier: Apache-2.0
"""Convolutions at addresses: the bits of the calls with arrays, None for what cannot be read, errors that name the
argument."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core
from fastconv.options import native, settings
from tolerance import assert_exact

OPTIONS = native(settings())
# x, w, and the convolution's stride, padding at begin and end, dilation, groups and mode
GEOMETRIES = [
    ((2, 4, 9), (6, 4, 3), ((2,), (1,), (0,), (1,), 1, "zeros")),
    ((2, 4, 9, 8), (6, 2, 3, 3), ((1, 2), (1, 1), (1, 2), (2, 1), 2, "reflect")),
    ((1, 3, 5, 6, 7), (4, 3, 2, 2, 2), ((1, 1, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1), 1, "zeros")),
]
WORDS = {"float32": "f32", "float64": "f64", "float16": "f16"}


def drawn(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def swapped(shape):
    """(N, C, *spatial) as (N, *spatial, C)."""
    return shape[0], *shape[2:], shape[1]


def conv_at(pass_, x, w, dy, bias, geometry, layout="channels_first", dtype="float32", options=OPTIONS):
    return _core.ConvAt(pass_, x, w, dy, bias, *geometry, 0.0, layout, WORDS[dtype], options)


@pytest.mark.parametrize("dtype", WORDS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), GEOMETRIES, ids=["1d", "2d", "3d"])
def test_the_bits_of_the_calls_with_arrays(x_shape, w_shape, geometry, layout, dtype):
    shape = x_shape if layout == "channels_first" else swapped(x_shape)
    x, w, bias = drawn(*shape, dtype=dtype), drawn(*w_shape, dtype=dtype, seed=1), drawn(w_shape[0], dtype=dtype)
    y = _core.conv_forward(x, w, bias, None, *geometry, 0.0, "none", 0.0, layout, OPTIONS, None)
    at = conv_at("fwd", x.shape, w.shape, None, bias.shape, geometry, layout, dtype)
    assert_exact(at(x.ctypes.data, w.ctypes.data, bias.ctypes.data), y)

    # A transposed convolution, which has a bias where it pads with zeros.
    back = drawn(x_shape[1], dtype=dtype, seed=2) if geometry[-1] == "zeros" else None
    dx = _core.conv_backward_data(y, w, x.shape, *geometry, layout, OPTIONS, None, back)
    at = conv_at("bwd_data", x.shape, w.shape, y.shape, None if back is None else back.shape, geometry, layout, dtype)
    assert_exact(at(y.ctypes.data, w.ctypes.data, 0 if back is None else back.ctypes.data), dx)

    dw = _core.conv_backward_filter(y, x, w.shape, *geometry, 0.0, layout, OPTIONS, None)
    at = conv_at("bwd_filter", x.shape, w.shape, y.shape, None, geometry, layout, dtype)
    assert_exact(at(y.ctypes.data, x.ctypes.data), dw)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_plan_at_an_address(layout):
    shape = (2, 4, 9, 8) if layout == "channels_first" else (2, 9, 8, 4)
    x, w, bias = drawn(*shape), drawn(6, 4, 3, 3, seed=1), drawn(6)
    plan = fc.plan(w, bias, x_shape=shape, layout=layout)
    assert_exact(plan.at(x.ctypes.data, 2), plan(x))
    assert_exact(plan.at(x.ctypes.data, 1), plan(x[:1]))  # another batch
    assert plan.at(0, 2) is None
    assert plan.at(x.ctypes.data + 2, 1) is None


def test_none_for_what_cannot_be_read():
    x, w, bias = drawn(2, 4, 9), drawn(6, 4, 3, seed=1), drawn(6)
    places = [a.ctypes.data for a in (x, w, bias)]
    at = conv_at("fwd", x.shape, w.shape, None, bias.shape, GEOMETRIES[0][2])
    assert at(*places) is not None
    for i in range(3):
        for wrong in (0, places[i] + 2):
            assert at(*places[:i], wrong, *places[i + 1 :]) is None
    without = conv_at("fwd", x.shape, w.shape, None, None, GEOMETRIES[0][2])
    assert_exact(without(places[0], places[1]), at(places[0], places[1], np.zeros(6, np.float32).ctypes.data))


def test_errors_name_the_argument():
    _, _, geometry = GEOMETRIES[0]
    with pytest.raises(fc.ProblemError, match="w has 4 channels per group, x has 3"):
        conv_at("fwd", (2, 3, 9), (6, 4, 3), None, None, geometry)
    with pytest.raises(fc.ProblemError, match=r"bias has shape \(5,\); expected \(6,\)"):
        conv_at("fwd", (2, 4, 9), (6, 4, 3), None, (5,), geometry)
    with pytest.raises(fc.ProblemError, match=r"dy has shape \(2, 6, 5\); expected \(2, 6, 4\)"):
        conv_at("bwd_filter", (2, 4, 9), (6, 4, 3), (2, 6, 5), None, geometry)
    with pytest.raises(fc.ProblemError, match="pass_ is 'back'; expected fwd, bwd_data or bwd_filter"):
        conv_at("back", (2, 4, 9), (6, 4, 3), None, None, geometry)
    with pytest.raises(fc.ProblemError, match="dtype is 'bf16'; expected f32, f64 or f16"):
        _core.ConvAt("fwd", (2, 4, 9), (6, 4, 3), None, None, *geometry, 0.0, "channels_first", "bf16", OPTIONS)
    only = native(settings()._replace(algorithm="winograd_f2x2_3x3"))
    x, w = drawn(2, 4, 9), drawn(6, 4, 3)
    with pytest.raises(fc.UnsupportedError, match="winograd"):
        conv_at("fwd", x.shape, w.shape, None, None, geometry, options=only)(x.ctypes.data, w.ctypes.data)
