# SPDX-License-Identifier: Apache-2.0
"""Every tolerance of the tests, and the only place where one is written.

exact      integers whose sums stay below 2^24: bit-equal.
bound      normal floats through one convolution or other sum of products: the error of each element is compared with
           error_factor * eps * sqrt(terms) * (the same sum of absolute values) + tiny. The root is what independent
           rounding errors add up to; error_factor is what the algorithm publishes, 1 for a plain sum.
relative   float16 and bfloat16: at most twice the error of the plain computation: sums in float32, rounded once.
others     elementwise functions, statistics, whole models and other people's libraries: multiples of eps of the
           dtype, of each element and of the largest one. The reasons stand beside the numbers.
"""

import math

import ml_dtypes
import numpy as np

# tier: (multiple of eps * |expected|, multiple of eps * max |expected|)
_TIERS = {
    # One division or one vectorised exp, tanh or erf: a few units in the last place; gelu and silu cancel near zero.
    "pointwise": (16, 4),
    # A sum in float64, rounded once; a mean is divided besides.
    "rounded": (1.5, 0),
    # Powers, a sum and a root of each window: every power multiplies the error, and signed ones cancel.
    "norm": (64, 64),
    # Means and variances over up to some thousand cells, and what is divided by their root.
    "statistics": (64, 64),
    # Several layers one after the other.
    "model": (4096, 4096),
    # The same with batch norms over a few cells in training, whose small variances enlarge rounding: 2e-10 in float64.
    "network": (2**20, 2**20),
    # Twenty steps of an optimiser: Adam divides by the root of a mean of squares, which enlarges the error of a
    # small gradient. In float64 this is 1e-9.
    "trained": (2**22, 2**22),
    # A few operations in float16 or bfloat16, each of which rounds once, against the same in float32; and many.
    "half": (4, 2),
    "half layer": (8, 8),
    "half model": (32, 32),
    # Another library sums in another order; both sides carry an error.
    "parity": (256, 256),
}


def eps_of(dtype) -> float:
    return float(ml_dtypes.finfo(dtype).eps)  # NumPy's does not know bfloat16


# What an elementwise function may be off, in multiples of eps * |expected| (two units in the last place each, at most).
_ULPS = {
    # One polynomial, a division or two: the worst measured is 2.2.
    "elementary": 4,
    # Slopes, against eps times the slope's largest value of about 1: they cross zero, and 1 - y^2 has lost digits.
    "slope": 4,
}


def assert_elementwise(actual, expected, kind, condition=1.0, slack=1.0, what=""):
    """Every element for itself, infinities and NaN included.

    condition: the condition number of the function at each element, where rounding inside of it counts. slack: how
    many times the smallest normal number is lost to subnormal ones, which count as zero.
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    assert np.array_equal(actual[~finite], expected[~finite].astype(actual.dtype), equal_nan=True), f"{what}: limits"
    assert np.isfinite(actual[finite]).all(), f"{what}: not finite where the function is"
    info = np.finfo(actual.dtype)
    size = 1.0 if kind == "slope" else np.abs(expected)
    allowed = _ULPS[kind] * float(info.eps) * size * condition + slack * float(info.tiny)
    allowed = np.broadcast_to(allowed, expected.shape)[finite]
    error = np.abs(actual[finite].astype(np.float64) - expected[finite])
    worst = float(np.max(error / allowed, initial=0.0))
    assert worst <= 1, f"{what}: error is {worst:.3g} times what {kind!r} allows"


def assert_exact(actual, expected, what=""):
    """Same shape and same values; NaN equals NaN. The dtype may differ: expected is usually float64."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if not np.array_equal(actual, expected.astype(actual.dtype), equal_nan=True):
        wrong = np.argwhere(~((actual == expected) | (np.isnan(actual) & np.isnan(expected))))
        at = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{what}: {len(wrong)} of {actual.size} elements differ, "
            f"the first at {at}: {actual[at]}, expected {expected[at]}"
        )


def assert_same_bits(actual, expected, what=""):
    """Equal byte for byte: also the sign of a zero."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, f"{what}: dtype or shape differ"
    unsigned = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(unsigned) == np.ascontiguousarray(expected).view(unsigned)
    assert same.all(), f"{what}: {np.count_nonzero(~same)} of {same.size} elements have other bits"


def bound(magnitude, terms, dtype, error_factor=1.0):
    """The largest error allowed where `terms` products were summed, whose absolute values sum to `magnitude`."""
    tiny = float(np.finfo(dtype).tiny)
    # The sum is rounded to dtype once more at the end: at least one term.
    return error_factor * eps_of(dtype) * math.sqrt(max(terms, 1)) * magnitude + tiny


def assert_bound(actual, expected, magnitude, terms, error_factor=1.0, what=""):
    """|actual - expected| <= bound(...), element by element; actual's dtype is the one that is judged."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    allowed = bound(magnitude, terms, actual.dtype, error_factor)
    # In expected's precision, which is the wider one.
    error = np.abs(actual.astype(expected.dtype) - expected)
    worst = float(np.max(error / allowed, initial=0.0))
    assert np.isfinite(actual).all(), f"{what}: not every element was written, or one overflowed"
    assert worst <= 1, f"{what}: error is {worst:.3g} times the bound"


def assert_relative(actual, exact, what="", plain=None):
    """The largest and the mean square error of a half against float64 are at most twice those of `plain`.

    plain: what is compared with, in the dtype of actual; None: `exact` rounded to it, the best there can be.
    """
    assert actual.shape == exact.shape, f"{what}: shape {actual.shape}, expected {exact.shape}"
    plain = exact.astype(actual.dtype) if plain is None else plain
    assert plain.dtype == actual.dtype, f"{what}: dtype {actual.dtype}, expected {plain.dtype}"
    ours, theirs = (np.abs(a.astype(np.float64) - exact) for a in (actual, plain))
    # float32's own rounding on top: what cancelled may have been as large as the largest result.
    slack = 64 * eps_of(np.float32) * float(np.max(np.abs(exact), initial=0.0))
    for name, size in (("largest", np.max), ("root mean square", lambda e: np.sqrt(np.mean(e * e)))):
        mine, best = (float(size(error)) if error.size else 0.0 for error in (ours, theirs))
        assert mine <= 2 * best + slack, f"{what}: {name} error {mine:.3g}, the plain computation has {best:.3g}"


def assert_close(actual, expected, tier, dtype=None, scale=0.0, what=""):
    """Within the tier's multiples of eps.

    dtype: what was computed in, where actual arrives in another. scale: the size of what cancelled, where that is
    larger than every expected value.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert np.array_equal(np.isnan(actual), np.isnan(expected)), f"{what}: NaN in other places"
    each, largest = _TIERS[tier]
    eps = eps_of(dtype or actual.dtype)
    size = np.abs(np.nan_to_num(expected.astype(np.float64)))
    allowed = eps * (each * size + largest * np.max(size, initial=scale)) + float(np.finfo(np.float32).tiny)
    error = np.abs(np.nan_to_num(actual.astype(np.float64)) - np.nan_to_num(expected.astype(np.float64)))
    worst = float(np.max(error / allowed, initial=0.0))
    assert worst <= 1, f"{what}: error is {worst:.3g} times what tier {tier!r} allows"


# What the onnx package's own runner allows, relative and absolute, where a case says nothing else.
ONNX_CASE = (1e-3, 1e-7)


def assert_onnx_case(actual, expected, tolerance=ONNX_CASE):
    """An output of one of the onnx package's test cases: dtype, shape, and values within the case's tolerance."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), f"{actual.dtype} {actual.shape}"
    if expected.dtype.kind in "biu":
        assert_exact(actual, expected)
    else:
        relative, absolute = tolerance
        np.testing.assert_allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=relative, atol=absolute)


def assert_slope(value, exact, magnitude, what=""):
    """The derivative of value(t) at 0, a network in float64 along a line, against central differences.

    magnitude: the sum of the absolute terms of which `exact` is made. A difference over a step h is off by the third
    derivative times h^2, by rounding over h, and, where max or relu turn within the step, by some h of what turned:
    the best of two steps counts.
    """
    assert magnitude > 0, f"{what}: all gradients are zero"
    errors = []
    for step in (1e-6, 1e-7):
        numeric = (value(step) - value(-step)) / (2 * step)
        errors.append(abs(numeric - exact) / magnitude)
    assert min(errors) <= 1e-6, f"{what}: the slope is off by {min(errors):.3g} of its terms"
