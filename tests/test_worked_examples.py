# SPDX-License-Identifier: Apache-2.0
"""The eight worked examples of lectures on convolution, to the last digit: all that is exact on integers, both dtypes.

facts/worked_examples.json holds what the lectures print and, where they print nothing, what was worked out by hand.
All of them are cross-correlations; the first one, with its asymmetric filters, proves it.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from cases import Case, arrays, run_core, supported
from fastconv import _core, reference
from tolerance import assert_exact

EXAMPLES = json.loads((Path(__file__).parent / "facts" / "worked_examples.json").read_text(encoding="utf-8"))
DTYPES = {"f32": np.float32, "f64": np.float64}


def everywhere(x, w, dtype, bias=None, stride=1, pad=0):
    """The outputs (K, P, Q) of every algorithm on every ISA, by name, and NumPy's."""
    x, w = (np.ascontiguousarray(a, DTYPES[dtype]) for a in (x, w))
    case = Case("fwd", 1, x.shape[0], w.shape[0], 1, x.shape[1:], w.shape[2:], (stride,) * 2, ((pad, pad),) * 2, (1, 1))
    case = case.with_(dtype=dtype, epilogue=() if bias is None else ("bias",))
    a = arrays(case, integers=True)
    a = type(a)(x=x[None], w=w, dy=a.dy, bias=None if bias is None else np.asarray(bias, x.dtype), residual=None)
    results = {"numpy": reference.conv(a.x, a.w, a.bias, stride, pad)[0]}
    for isa in _core.info()["isas"]:
        for row in supported(case, isa=isa):
            if row["exact_on_integers"]:
                options = _core.Options(algorithm=row["name"], precision=1e9, isa=isa)
                results[f"{row['name']} on {isa}"] = run_core(case, a, options)[0]
    assert len(results) > 1
    return results.items()


def planes(example, *names):
    """Single-channel filters (K, 1, R, S) or an image (1, H, W)."""
    return [np.array(example[name])[None] for name in names]


pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def test_cs231n_three_channels_stride_and_bias(dtype):
    example = EXAMPLES["S0.cs231n"]
    x, w = np.array(example["x"]), np.array([example["w0"], example["w1"]])
    expected = np.array(example["o"])
    for name, y in everywhere(x, w, dtype, example["b"], stride=2):
        assert_exact(y, expected, name)
    # The lecture prints x already padded: its inside with padding 1 is the same convolution.
    for name, y in everywhere(x[:, 1:-1, 1:-1], w, dtype, example["b"], stride=2, pad=1):
        assert_exact(y, expected, name)


def test_binary_6x6_with_pooling(dtype):
    example = EXAMPLES["S0.binary6x6"]
    x, w = np.array(example["x"])[None], np.array(example["filters"])[:, None]
    for name, y in everywhere(x, w, dtype):
        assert_exact(y, np.array(example["computed"]), name)
        maps = y.astype(DTYPES[dtype])[None]
        for relu, expected in ((False, example["maxpool2_no_relu"]), (True, example["relu_maxpool2"])):
            active = _core.activation_forward("relu", maps) if relu else maps
            pooled = fc.max_pool2d(active, 2)
            assert_exact(pooled[0], np.array(expected), name)


def test_sharpen(dtype):
    example = EXAMPLES["S1.sharpen"]
    x, w = planes(example, "x", "w")
    for name, y in everywhere(x, w[None], dtype):
        assert_exact(y[0], np.array(example["computed"]), name)
        assert (y[0, 0, 0], y[0, 0, 1]) == (example["printed"]["o[0,0]"], example["printed"]["o[0,1]"])


def test_sharpen_with_zero_padding(dtype):
    example = EXAMPLES["S1.sharpen_zero_pad"]
    x, w = planes(example, "x", "w")
    for name, y in everywhere(x, w[None], dtype, pad=example["pad"]):
        assert_exact(y[0], np.array(example["computed"]), name)
        assert y[0, 0, 0] == example["printed"]["o[0,0]"]


def test_vertical_edges(dtype):
    example = EXAMPLES["S2.vertical"]
    x, w = planes(example, "x", "w")
    for name, y in everywhere(x, w[None], dtype):
        assert_exact(y[0], np.array(example["computed"]), name)
        assert y[0, 0, 0] == example["printed"]["o[0,0]"]


def test_one_edge(dtype):
    example = EXAMPLES["S4.edge"]
    x, w = planes(example, "x", "w")
    for name, y in everywhere(x, w[None], dtype):
        assert_exact(y[0], np.array(example["o"]), name)


def test_curve_detector_hits(dtype):
    example = EXAMPLES["S4.curve_hit"]
    x, w = planes(example, "x", "w")
    for name, y in everywhere(x, w[None], dtype):
        assert_exact(y[0], np.array([[example["printed"]]]), name)


def test_curve_detector_misses(dtype):
    """Printed as 7x8 against 8x8: the printed 0 holds for the first 7 columns and the clean 7x7 filter of the hit."""
    example = EXAMPLES["S4.curve_miss"]
    x, w = np.array(example["x_7x8"])[None, :, :7], np.array(EXAMPLES["S4.curve_hit"]["w"])[None, None]
    for name, y in everywhere(x, w, dtype):
        assert_exact(y[0], np.array([[example["printed"]]]), name)
    # As printed, with the rows of both aligned at the top, the sum would be 1500.
    w_printed = np.array(example["w_8x8"])[None, None, :7]
    for name, y in everywhere(np.array(example["x_7x8"])[None], w_printed, dtype):
        assert_exact(y[0], np.array([[1500]]), name)
