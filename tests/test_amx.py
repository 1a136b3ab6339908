# SPDX-License-Identifier: Apache-2.0
"""implicit_gemm_amx where the processor has the tiles: numbers as sums of bfloat16, the choice, who may have it."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from cases import isas, rng_for
from fastconv import reference
from tolerance import assert_bound, assert_exact, assert_same_bits

NAME = "implicit_gemm_amx"
CUT = "implicit_gemm_amx_bf16x2"
needs_amx = pytest.mark.skipif("amx" not in isas(), reason="needs a processor with AMX")


def test_other_instruction_sets_refuse():
    """A sentence, which names what is missing; nothing else is taken instead."""
    with (
        fc.options(isa="scalar", algorithm=NAME),
        pytest.raises(fc.UnsupportedError, match="needs a processor with AMX"),
    ):
        fc.conv2d(np.zeros((1, 1, 3, 3), np.float32), np.zeros((1, 1, 1, 1), np.float32))


@needs_amx
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2])
def test_float32_is_the_sum_of_three_parts(stride, layout):
    """Errors like those of float32 sums, also where numbers differ by many powers of two: 24 bits are kept."""
    rng = rng_for(f"amx {stride} {layout}")
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 70, 19, 21), (40, 70, 3, 3)))
    x *= np.exp2(rng.integers(-12, 12, x.shape)).astype(np.float32)
    if layout == "channels_last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    words = {"stride": stride, "padding": 1}
    y = fc.conv2d(x, w, algorithm=NAME, **words)
    exact = reference.conv(x.astype(np.float64), w.astype(np.float64), stride=(stride,) * 2, padding=(1, 1))
    magnitude = reference.conv(
        abs(x).astype(np.float64), abs(w).astype(np.float64), stride=(stride,) * 2, padding=(1, 1)
    )
    assert_bound(y, exact, magnitude, 70 * 9)
    plain = fc.conv2d(x, w, algorithm="im2col_gemm", **words)
    ours, theirs = (np.sqrt(np.mean(((a - exact) / magnitude) ** 2)) for a in (y, plain))
    assert ours < 1.5 * theirs


@needs_amx
def test_integers_of_many_bits_are_exact():
    """Products of 12 and 11 bits, one of 23 and one of 1: parts that are left out would show."""
    rng = rng_for("amx integers")
    for bits, terms in (((12, 11), 2), ((23, 1), 1), ((1, 23), 1), ((16, 7), 2)):
        x, w = (
            rng.integers(-(2**b) + 1, 2**b, s).astype(np.float32)
            for b, s in zip(bits, ((1, terms, 40), (20, terms, 1)), strict=True)
        )
        y = fc.conv1d(x, w, algorithm=NAME)
        assert_exact(y, np.einsum("nci,kcj->nki", x.astype(np.float64), w.astype(np.float64)), f"{bits}")


@needs_amx
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_two_parts_keep_sixteen_bits(layout):
    """Each number is off by 2^-18 of itself and a product of parts is left out: 3 * 2^-18 in all, whatever the sum."""
    rng = rng_for(f"amx cut {layout}")
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 70, 19, 21), (40, 70, 3, 3)))
    if layout == "channels_last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    words = {"algorithm": CUT, "precision": 128}
    y = fc.conv2d(x, w, padding=1, **words)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx, dw, _ = fc.conv2d_backward(dy, x, w, padding=1, **words)
    wide = [a.astype(np.float64) for a in (dy, x, w)]
    exact = [fc.conv2d(wide[1], wide[2], padding=1), *fc.conv2d_backward(*wide, padding=1)[:2]]
    magnitudes = [abs(a) for a in wide]
    most = [fc.conv2d(magnitudes[1], magnitudes[2], padding=1), *fc.conv2d_backward(*magnitudes, padding=1)[:2]]
    for got, expected, magnitude in zip((y, dx, dw), exact, most, strict=True):
        error = abs(got - expected) / magnitude
        assert 2.0**-24 < error.max() < 3.1 * 2.0**-18


@needs_amx
def test_two_parts_hold_sixteen_bits_exactly():
    """8 and 16 bits: the product of the second parts, which is left out, is 0."""
    rng = rng_for("amx cut integers")
    x, w = (rng.integers(-(2**b) + 1, 2**b, s).astype(np.float32) for b, s in ((15, (1, 1, 40)), (7, (20, 1, 1))))
    y = fc.conv1d(x, w, algorithm=CUT, precision="tf32")
    assert_exact(y, np.einsum("nci,kcj->nki", x.astype(np.float64), w.astype(np.float64)))


@needs_amx
def test_two_parts_are_taken_where_asked_for():
    layer = "fwd n1 c512 h14 w14 k512 r1 s1 f32"
    for precision, expected in (("tf32", True), (128, True), ("fast", False), ("default", False), ("strict", False)):
        with fc.options(isa="amx", precision=precision):
            rows = {row["name"]: row for row in fc.algorithms(layer)}
            taken = min((r for r in rows.values() if r["supported"]), key=lambda row: row["estimate_s"])["name"]
        assert (taken == CUT) == expected == rows[CUT]["supported"], precision
    x, w = np.zeros((1, 1, 3, 3), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(fc.UnsupportedError, match="has error factor 128; precision allows 8"):
        fc.conv2d(x, w, algorithm=CUT)


@needs_amx
def test_the_ends_of_the_range():
    """The largest numbers stay finite; what is not finite does not become so; subnormal numbers count as zero."""
    largest = np.finfo(np.float32).max
    x = np.array([largest, -largest, np.inf, np.nan, 1e-40, 3.0], np.float32).reshape(1, 1, 6)
    y = fc.conv1d(x, np.full((1, 1, 1), 0.5, np.float32), algorithm=NAME)[0, 0]
    assert_exact(y[[0, 1, 4, 5]], np.array([largest / 2, -largest / 2, 0, 1.5]))
    assert not np.isfinite(y[2]) and np.isnan(y[3])
    half = x.astype(ml_dtypes.bfloat16)
    y = fc.conv1d(half, np.full((1, 1, 1), 0.5, ml_dtypes.bfloat16), algorithm=NAME)[0, 0].astype(np.float32)
    assert np.isposinf(y[2]) and np.isnan(y[3]) and y[5] == 1.5


@needs_amx
@pytest.mark.parametrize("pass_", ["fwd", "bwd_data", "bwd_filter"])
def test_strips_of_long_rows_and_of_many_images(pass_):
    """Strips that are parts of a row, and strips over images: the bound, any number of threads, an image alone."""
    rng = rng_for(f"amx strips {pass_}")
    for n, c, k, width, taps, stride in ((2, 40, 40, 5001, 5, 2), (1, 40, 33, 9000, 9, 1), (300, 33, 20, 5, 3, 1)):
        x, w = (rng.standard_normal(s).astype(np.float32) for s in ((n, c, width), (k, c, taps)))
        words = {"stride": stride, "padding": taps // 2, "algorithm": NAME}
        dy = rng.standard_normal(fc.conv1d(x, w, **words).shape).astype(np.float32)

        def call(x, dy, w=w, words=words):
            if pass_ == "fwd":
                return fc.conv1d(x, w, **words)
            if pass_ == "bwd_data":
                return fc.conv1d_backward_data(dy, w, x.shape, **words)
            return fc.conv1d_backward_filter(dy, x, w.shape, **words)

        with fc.options(threads=1):
            found = call(x, dy)
        with fc.options(threads=3):
            assert_same_bits(call(x, dy), found, "threads")
        if pass_ != "bwd_filter":
            assert_same_bits(call(x[-1:], dy[-1:]), found[-1:], "an image alone")
        plain = call(x, dy, words=words | {"algorithm": "reference"})
        terms = {"fwd": c * taps, "bwd_data": k * taps, "bwd_filter": n * dy.shape[2]}[pass_]
        assert_bound(found, plain.astype(np.float64), np.full(found.shape, np.sqrt(terms)), terms, 8)


@needs_amx
def test_bfloat16_is_what_it_is_chosen_for():
    layer = "fwd n1 c256 h14 w14 k256 r3 s3 pad1"
    chosen = {}
    for dtype in ("f32", "bf16"):
        for isa in ("amx", "avx512"):
            with fc.options(isa=isa):
                rows = [row for row in fc.algorithms(f"{layer} {dtype}") if row["supported"]]
            chosen[dtype, isa] = min(rows, key=lambda row: row["estimate_s"])["name"]
    assert chosen["bf16", "amx"] == NAME
    assert NAME not in (chosen["bf16", "avx512"], chosen["f32", "avx512"], chosen["f32", "amx"])
