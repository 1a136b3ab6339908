# SPDX-License-Identifier: Apache-2.0
"""The same numbers as SciPy and NumPy, wherever their words are ours; and the page that says so, row by row."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from tolerance import assert_close

ndimage = pytest.importorskip("scipy.ndimage", reason='SciPy is not installed: pip install "fastconv[parity]"')
signal = pytest.importorskip("scipy.signal", reason='SciPy is not installed: pip install "fastconv[parity]"')

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "filters.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)
GEOMETRIES = [((11,), (4,)), ((3,), (5,)), ((13, 10), (3, 5)), ((50, 41), (4, 2)), ((6, 7, 5), (2, 3, 3))]


def draw(text, *shapes, dtype=np.float64):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_the_page_has_its_rows():
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_rows_of_the_page(theirs, ours):
    """Each row for kernels of odd and even length, except where the page says that SciPy disagrees with itself."""
    for taps in ((3, 3), (4, 3), (5, 4)):
        x, w, v, a = draw(f"{taps}", (20, 17), taps, taps[:1], (23,))
        names = {"fc": fc, "np": np, "ndimage": ndimage, "signal": signal, "x": x, "w": w, "v": v, "a": a}
        assert_close(eval(ours, names), eval(theirs, names), "parity", what=f"{ours} with {taps}")


def test_the_example_of_the_page():
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    names = {}
    exec(compile(example, "filters.md", "exec"), names)
    assert names["edges"].dtype == np.float32 and names["sharp"].dtype == np.uint8
    assert names["edges"].shape == names["soft"].shape == names["rows"].shape == (48, 64, 3)
    assert names["both"].shape == (2, 48, 64, 3)
    expected = ndimage.correlate(names["photo"].astype(float), fc.filters.sharpen()[..., None], mode="nearest")
    np.testing.assert_array_equal(names["sharp"], expected.clip(0, 255))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "taps"), GEOMETRIES, ids=str)
def test_ndimage_with_every_boundary_and_origin(size, taps, dtype):
    x, w = draw(f"{size}", size, taps, dtype=dtype)
    words = ("reflect", "grid-mirror", "mirror", "nearest", "wrap", "grid-wrap", "constant", "grid-constant")
    count = 0
    for name, word in itertools.product(("correlate", "convolve"), words):
        for origin in range(-(min(taps) // 2), (min(taps) - 1) // 2 + 1):
            got = getattr(fc, name)(x, w, boundary=word, cval=1.5, origin=origin)
            assert_close(got, getattr(ndimage, name)(x, w, mode=word, cval=1.5, origin=origin), "parity", what=word)
            count += 1
    assert count >= 32


@pytest.mark.parametrize("taps", [(3, 3), (4, 2), (5, 6)])
def test_signal_in_two_dimensions(taps):
    x, w = draw(f"{taps}", (12, 15), taps)
    for mode, boundary in itertools.product(("full", "same", "valid"), ("fill", "symm", "wrap")):
        # SciPy's own odd ones out, see the page.
        same = mode == "same"
        origin = [-1 if same and boundary == "wrap" and f % 2 == 0 else 0 for f in taps]
        got = fc.convolve(x, w, mode, boundary, cval=0.5, origin=origin)
        assert_close(got, signal.convolve2d(x, w, mode, boundary, 0.5), "parity", what=f"convolve2d {mode} {boundary}")
        origin = [-1 if same and f % 2 == 0 else 0 for f in taps]
        got = fc.correlate(x, w, mode, boundary, cval=0.5, origin=origin)
        assert_close(
            got, signal.correlate2d(x, w, mode, boundary, 0.5), "parity", what=f"correlate2d {mode} {boundary}"
        )


@pytest.mark.parametrize(("size", "taps"), [((30,), (7,)), ((30,), (8,)), ((14, 11), (4, 3)), ((8, 7, 6), (3, 4, 2))])
def test_signal_in_any_dimension(size, taps):
    x, w = draw(f"{size}", size, taps)
    for name, mode in itertools.product(("correlate", "convolve"), ("full", "same", "valid")):
        expected = getattr(signal, name)(x, w, mode, method="direct")
        assert_close(getattr(fc, name)(x, w, mode, "fill"), expected, "parity", what=f"{name} {mode}")
        if len(size) == 1:
            assert_close(getattr(fc, name)(x, w, mode, "fill"), getattr(np, name)(x, w, mode), "parity", what=mode)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussian_filter(dtype):
    x, rgb = draw("gaussian", (41, 37), (20, 21, 3), dtype=dtype)
    count = 0
    for words in (
        {"sigma": 1.0},
        {"sigma": (0.5, 2.0)},
        {"sigma": 0},
        {"sigma": (0, 3)},
        {"sigma": 1.5, "truncate": 2.0},
        {"sigma": 2.0, "radius": 3},
        {"sigma": 1.2, "order": 1},
        {"sigma": 1.2, "order": (2, 0)},
        {"sigma": 1.2, "order": 3},
        {"sigma": 15.0},  # reaches around the image
    ):
        for word in ("reflect", "mirror", "nearest", "wrap", "constant"):
            got = fc.filters.gaussian_filter(x, boundary=word, cval=0.3, **words)
            assert_close(got, ndimage.gaussian_filter(x, mode=word, cval=0.3, **words), "parity", scale=1.0, what=words)
            count += 1
    got = fc.filters.gaussian_filter(rgb, 1.0, axes=(0, 1))
    assert_close(got, ndimage.gaussian_filter(rgb, 1.0, axes=(0, 1)), "parity")
    assert count == 50


def test_integer_images_are_rounded_where_scipy_cuts_off():
    image = rng_for("uint8").integers(0, 256, (30, 31)).astype(np.uint8)
    exact = ndimage.correlate(image.astype(np.float64), fc.filters.box(3))
    got = fc.correlate(image, fc.filters.box(3), output=np.uint8)
    assert np.abs(got - exact).max() <= 0.5 + 1e-4
    cut = ndimage.correlate(image, fc.filters.box(3))
    assert np.abs(got.astype(int) - cut).max() <= 1
