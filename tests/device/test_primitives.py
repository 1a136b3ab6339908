# SPDX-License-Identifier: Apache-2.0
"""Primitives on arrays of a device against the same calls on NumPy arrays."""

import re
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core
from tolerance import assert_close

GEOMETRIES = [
    ("2d", (2, 6, 9, 8), (4, 6, 3, 3), {"padding": 1}),
    ("strided", (2, 4, 11, 10), (6, 4, 3, 3), {"stride": 2, "padding": ((1, 0), (0, 1))}),
    ("pointwise", (3, 8, 5, 7), (5, 8, 1, 1), {}),
    ("dilated", (1, 3, 12, 12), (4, 3, 3, 3), {"padding": 2, "dilation": 2}),
    ("grouped", (2, 8, 7, 9), (12, 2, 3, 3), {"padding": 1, "groups": 4}),
    ("depthwise", (2, 5, 9, 11), (5, 1, 5, 5), {"padding": 2, "groups": 5}),
    ("1d", (2, 3, 20), (4, 3, 5), {"padding": 2}),
    ("3d", (1, 3, 5, 6, 7), (4, 3, 3, 3, 3), {"padding": 1}),
    ("reflect", (1, 3, 8, 7), (4, 3, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    ("constant", (1, 3, 8, 7), (4, 3, 3, 3), {"padding": 1, "padding_mode": "constant", "pad_value": 1.5}),
]


def normal(rng, shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("shape", "filters", "geometry"), [g[1:] for g in GEOMETRIES], ids=[g[0] for g in GEOMETRIES])
def test_convolution_and_its_gradients_are_those_of_the_cpu(cp, rng, shape, filters, geometry, dtype):
    name, tier = f"conv{len(shape) - 2}d", "half" if dtype == "float16" else "parity"
    x, w, b = normal(rng, shape, dtype), normal(rng, filters, dtype), normal(rng, filters[:1], dtype)
    y = getattr(fc, name)(x, w, b, activation="relu", **geometry)
    got = getattr(fc, name)(cp.asarray(x), cp.asarray(w), cp.asarray(b), activation="relu", **geometry)
    assert type(got) is cp.ndarray
    scale = float(np.abs(y).max())
    assert_close(cp.asnumpy(got), y, tier, scale=scale)
    dy = normal(rng, y.shape, dtype)
    backward = getattr(fc, f"{name}_backward")
    for wanted, on_device in zip(backward(dy, x, w, **geometry),
                                 backward(*map(cp.asarray, (dy, x, w)), **geometry), strict=True):  # fmt: skip
        assert_close(cp.asnumpy(on_device), wanted, tier, scale=float(np.abs(wanted).max()))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_layouts_views_and_out(cp, rng, layout):
    x, w = normal(rng, (2, 5, 9, 8)), normal(rng, (4, 5, 3, 3))
    expected = fc.conv2d(x, w, padding=1)
    if layout == "channels_last":
        got = fc.conv2d(cp.asarray(x.transpose(0, 2, 3, 1).copy()), cp.asarray(w), padding=1, layout=layout)
        assert_close(cp.asnumpy(got).transpose(0, 3, 1, 2), expected, "parity", scale=10)
        return
    view = cp.asarray(x.transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)
    assert_close(cp.asnumpy(fc.conv2d(view, cp.asarray(w), padding=1)), expected, "parity", scale=10)
    wide = cp.asarray(normal(rng, (2, 7, 9, 8)))
    part = wide[:, 1:6]  # a slice of channels, read where it lies
    assert_close(cp.asnumpy(fc.conv2d(part, cp.asarray(w))), fc.conv2d(cp.asnumpy(part), w), "parity", scale=10)
    flipped = cp.asarray(x)[:, :, ::-1]  # copied
    assert_close(cp.asnumpy(fc.conv2d(flipped, cp.asarray(w))), fc.conv2d(x[:, :, ::-1], w), "parity", scale=10)
    out = cp.empty(expected.shape, dtype="float32")
    assert fc.conv2d(cp.asarray(x), cp.asarray(w), padding=1, out=out) is out
    assert_close(cp.asnumpy(out), expected, "parity", scale=10)
    assert_close(cp.asnumpy(fc.conv2d(cp.asarray(x[0]), cp.asarray(w))), fc.conv2d(x[0], w), "parity", scale=10)


def test_every_algorithm_by_its_name(cp, rng):
    x, w = normal(rng, (2, 16, 12, 12)), normal(rng, (8, 16, 3, 3))
    exact = fc.conv2d(x.astype("float64"), w.astype("float64"), padding=1)
    ran = []
    for name in fc._core.device_info(0)["algorithms"]:
        with fc.options(algorithm=name, precision="tf32"):
            try:
                y = cp.asnumpy(fc.conv2d(cp.asarray(x), cp.asarray(w), padding=1))
            except fc.UnsupportedError as refusal:
                assert str(refusal).startswith(name)
                continue
        ran.append(name)
        tolerance = 2e-2 if name.endswith("tf32") else 2e-4
        assert np.abs(y - exact).max() < tolerance, name
    assert "direct" in ran
    assert len(ran) >= 3


def test_a_plan_packs_once_and_serves_any_batch(cp, rng):
    x, w, b = normal(rng, (3, 16, 8, 8)), normal(rng, (8, 16, 3, 3)), normal(rng, (8,))
    plan = fc.plan(cp.asarray(w), cp.asarray(b), x_shape=x.shape, padding=1, activation="relu")
    for n in (3, 1):
        expected = fc.conv2d(x[:n], w, b, padding=1, activation="relu")
        assert_close(cp.asnumpy(plan(cp.asarray(x[:n]))), expected, "parity", scale=20)
    plan.update(cp.asarray(2 * w), cp.asarray(b))
    expected = fc.conv2d(x, 2 * w, b, padding=1, activation="relu")
    assert_close(cp.asnumpy(plan(cp.asarray(x))), expected, "parity", scale=40)
    with pytest.raises(fc.ProblemError, match="x has shape"):
        plan(cp.asarray(x[:, :8]))


POOLS = [
    ("max_pool2d", {"kernel_size": 2}),
    ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("min_pool2d", {"kernel_size": 3, "stride": 1, "ceil_mode": True}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("lp_pool2d", {"norm_type": 2, "kernel_size": 2}),
    ("adaptive_avg_pool2d", {"output_size": 3}),
    ("adaptive_max_pool2d", {"output_size": (2, 3)}),
]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("name", "arguments"), POOLS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(POOLS)])
def test_pooling_is_that_of_the_cpu(cp, rng, name, arguments, layout):
    x = normal(rng, (2, 5, 9, 11) if layout == "channels_first" else (2, 9, 11, 5))
    pool = getattr(fc, name)
    expected = pool(x, layout=layout, **arguments)
    assert_close(cp.asnumpy(pool(cp.asarray(x), layout=layout, **arguments)), expected, "parity", scale=5)
    if "max" in name:
        y, indices = pool(x, layout=layout, return_indices=True, **arguments)
        on_device, found = pool(cp.asarray(x), layout=layout, return_indices=True, **arguments)
        assert np.array_equal(cp.asnumpy(on_device), y)
        assert np.array_equal(cp.asnumpy(found), indices)
    gradients = []
    for array in (x, cp.asarray(x)):
        tensor = fc.Tensor(array, requires_grad=True)
        y = pool(tensor, layout=layout, **arguments)
        (y * y).sum().backward()
        gradients.append(tensor.grad.data)
    assert_close(cp.asnumpy(gradients[1]), gradients[0], "parity", scale=10)


def test_unpooling_and_backward_by_indices(cp, rng):
    x = normal(rng, (2, 3, 8, 8))
    y, indices = fc.max_pool2d(x, 3, 1, return_indices=True)  # windows share winners
    dy = normal(rng, y.shape)
    expected = fc.max_pool2d_backward(dy, indices, x.shape)
    got = fc.max_pool2d_backward(cp.asarray(dy), cp.asarray(indices), x.shape)
    assert_close(cp.asnumpy(got), expected, "parity", scale=5)
    y, indices = fc.max_pool2d(x, 2, return_indices=True)
    back = fc.max_unpool2d(cp.asarray(y), cp.asarray(indices), 2)
    assert np.array_equal(cp.asnumpy(back), fc.max_unpool2d(y, indices, 2))


@pytest.mark.parametrize("boundary", ["reflect", "mirror", "nearest", "wrap", "constant"])
@pytest.mark.parametrize("mode", ["same", "valid", "full"])
def test_filters_take_kernels_of_either_kind(cp, rng, mode, boundary):
    image, kernel = normal(rng, (20, 23)), normal(rng, (5, 5))
    expected = fc.correlate(image, kernel, mode=mode, boundary=boundary)
    for taps in (kernel, cp.asarray(kernel)):  # a kernel of fc.filters is a NumPy array
        got = fc.correlate(cp.asarray(image), taps, mode=mode, boundary=boundary)
        assert_close(cp.asnumpy(got), expected, "parity", scale=20)
    with pytest.raises(TypeError, match="kernel is a cupy array"):
        fc.correlate(image, cp.asarray(kernel))


def test_filters_of_bytes_and_columns(cp, rng):
    image = rng.integers(0, 256, (15, 17), dtype=np.uint8)
    expected = fc.filters.gaussian_filter(image, 1.5)
    assert_close(cp.asnumpy(fc.filters.gaussian_filter(cp.asarray(image), 1.5)), expected, "parity", scale=255)
    x = normal(rng, (2, 3, 7, 8))
    columns = fc.im2col(x, 3, padding=1)
    assert np.array_equal(cp.asnumpy(fc.im2col(cp.asarray(x), 3, padding=1)), columns)
    back = fc.col2im(columns, (7, 8), 3, padding=1)
    assert np.array_equal(cp.asnumpy(fc.col2im(cp.asarray(columns), (7, 8), 3, padding=1)), back)


def test_errors_name_the_argument(cp, rng):
    x, w = normal(rng, (1, 3, 8, 8)), normal(rng, (4, 3, 3, 3))
    with pytest.raises(TypeError, match=r"conv2d: w is a numpy array, x a cupy array; .*cupy.asarray\(w\)"):
        fc.conv2d(cp.asarray(x), w)
    with pytest.raises(TypeError, match=r"conv2d: w is a cupy array, x a numpy array; .*cupy.asnumpy\(w\)"):
        fc.conv2d(x, cp.asarray(w))
    with pytest.raises(fc.UnsupportedError, match="winograd_f4_3 is not among the algorithms for CUDA"):
        fc.conv2d(cp.asarray(x), cp.asarray(w), algorithm="winograd_f4_3")
    for name in ("grouped_tensor", "grouped_tf32", "implicit_gemm_tf32"):
        with pytest.raises(fc.UnsupportedError, match=f"{name} runs on tensor cores"):
            fc.conv2d(x, w, algorithm=name)
    with pytest.raises(TypeError, match="int32"):
        fc.conv2d(cp.asarray(x).astype("int32"), cp.asarray(w))
    with pytest.raises(fc.ProblemError, match="w has 3 channels per group"):
        fc.conv2d(cp.asarray(x[:, :2]), cp.asarray(w))


def test_the_library_names_what_is_verified(cp):
    header = Path(__file__).parents[2] / "cuda" / "verified.h"
    listed = re.search(r"kVerifiedNames\[\] = \{(.*)nullptr\}", header.read_text(encoding="utf-8"))[1]
    about = _core.device_info(0)
    assert about["verified"] == re.findall(r'"(\w+)"', listed)
    assert set(about["verified"]) <= {*about["algorithms"], "ops", "pool"}
