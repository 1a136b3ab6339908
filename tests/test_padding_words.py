# SPDX-License-Identifier: Apache-2.0
"""Padding by word and by pairs: each means the same numbers in every rank, layout, mode and pass."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from fastconv import reference
from tolerance import assert_exact

WORDS = ("valid", "same", "same_lower", "full", "causal")
MODES = ("zeros", "constant", "reflect", "replicate", "circular")


def integers(*shape):
    return rng_for(str(shape)).integers(-3, 4, shape).astype(np.float64)


def pair(word, size, filter, stride, dilation):
    """(begin, end) by the word's meaning. "same": the least padding that gives ceil(size / stride) windows, found by
    trying; an odd cell goes to the end, with "same_lower" to the beginning."""
    reach = (filter - 1) * dilation
    if word in ("valid", "full", "causal"):
        return {"valid": (0, 0), "full": (reach, reach), "causal": (reach, 0)}[word]
    wanted = -(-size // stride)
    total = next(t for t in itertools.count() if reference.output_size(size, filter, stride, dilation, 0, t) == wanted)
    small, large = total // 2, total - total // 2
    return (small, large) if word == "same" else (large, small)


def fits(mode, pads, size):
    widest = [max(p) for p in pads]
    if mode == "reflect":
        return all(p < n for p, n in zip(widest, size, strict=True))
    return mode != "circular" or all(p <= n for p, n in zip(widest, size, strict=True))


def every_call(rank, x, w, words, named, pads, layout):
    """y, dx and dw by the explicit functions and by the tape, against the reference with plain numbers."""
    geometry = words | {"layout": layout}
    expected = reference.conv(x, w, padding=pads, **geometry)
    dy = rng_for("dy").integers(-3, 4, expected.shape).astype(np.float64)
    plain = {k: v for k, v in geometry.items() if k != "pad_value"}
    dx = reference.conv_backward_data(dy, w, x.shape, padding=pads, **plain)
    dw = reference.conv_backward_filter(dy, x, w.shape, padding=pads, **geometry)
    convolve = getattr(fc, f"conv{rank}d")
    what = f"{named} {geometry}"
    assert_exact(convolve(x, w, padding=named, **geometry), expected, what)
    backward = getattr(fc, f"conv{rank}d_backward")(dy, x, w, padding=named, **geometry)
    for got, want in zip(backward[:2], (dx, dw), strict=True):
        assert_exact(got, want, what)
    back = getattr(fc, f"conv{rank}d_backward_data")(dy, w, x.shape, padding=named, **plain)
    assert_exact(back, dx, what)
    back = getattr(fc, f"conv{rank}d_backward_filter")(dy, x, w.shape, padding=named, **geometry)
    assert_exact(back, dw, what)
    leaves = [fc.Tensor(a, requires_grad=True) for a in (x, w)]
    convolve(*leaves, padding=named, **geometry).backward(dy)
    for leaf, want in zip(leaves, (dx, dw), strict=True):
        assert_exact(leaf.grad.data, want, what)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("word", WORDS)
def test_words(word, rank):
    if word == "causal" and rank > 1:
        with pytest.raises(fc.ProblemError, match=r"padding is 'causal'; expected .*'full'$"):
            getattr(fc, f"conv{rank}d")(integers(1, 1, *(4,) * rank), integers(1, 1, *(2,) * rank), padding=word)
        return
    size = (8, 7, 5)[-rank:]
    ran, modes = 0, itertools.cycle(MODES)
    for filter, stride, dilation in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2)):
        if rank == 3 and (filter + stride + dilation) % 2:
            continue
        pads = tuple(pair(word, n, filter, stride, dilation) for n in size)
        if any(n + b + e < (filter - 1) * dilation + 1 for n, (b, e) in zip(size, pads, strict=True)):
            continue
        mode = next(m for m in modes if fits(m, pads, size))
        words = {"stride": stride, "dilation": dilation, "groups": 2, "padding_mode": mode}
        words |= {"pad_value": 2.0} if mode == "constant" else {}
        for layout in ("channels_first", "channels_last"):
            x = integers(2, 4, *size) if layout == "channels_first" else integers(2, *size, 4)
            every_call(rank, x, integers(2, 2, *(filter,) * rank), words, word, pads, layout)
            ran += 1
    assert ran >= (18 if rank == 3 else 36)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pairs_that_differ(rank):
    size = (6, 7, 5)[-rank:]
    ran = 0
    for mode, (i, pads) in itertools.product(MODES, enumerate((((0, 2), (1, 0), (3, 1)), ((2, 1), (0, 4), (0, 0))))):
        pads = pads[:rank]
        words = {"stride": (1, 2, 1)[:rank], "dilation": 1 + i, "groups": 1, "padding_mode": mode}
        words |= {"pad_value": -1.0} if mode == "constant" else {}
        for layout in ("channels_first", "channels_last"):
            x = integers(1, 3, *size) if layout == "channels_first" else integers(1, *size, 3)
            every_call(rank, x, integers(2, 3, *(2,) * rank), words, pads, pads, layout)
            ran += 1
    assert ran == 20


def test_numbers_stand_for_both_ends():
    x, w = integers(1, 2, 6, 7), integers(3, 2, 3, 3)
    for short, long in ((1, ((1, 1), (1, 1))), ((2, 1), ((2, 2), (1, 1))), (((2, 0), 1), ((2, 0), (1, 1)))):
        assert_exact(fc.conv2d(x, w, padding=short), reference.conv(x, w, padding=long))


@pytest.mark.parametrize(
    ("padding", "error", "sentence"),
    [
        ("Same", fc.ProblemError, "padding is 'Same'; expected a number, a tuple or one of 'valid', 'same', "),
        (-1, fc.ProblemError, "padding is -1; expected at least 0"),
        ((1, 1, 1), fc.ProblemError, "padding has 3 entries; expected an int, a word, or 2"),
        (((1, 2, 3), 1), fc.ProblemError, r"padding entry \(1, 2, 3\); expected an int or \(begin, end\)"),
        (1.5, TypeError, "padding is 1.5; expected an integer"),
        (((1, -2), 1), fc.ProblemError, "padding is -2"),
    ],
)
def test_refused_in_words(padding, error, sentence):
    x, w = integers(1, 2, 6, 7), integers(3, 2, 3, 3)
    for call in (
        lambda: fc.conv2d(x, w, padding=padding),
        lambda: fc.conv2d(fc.Tensor(x), w, padding=padding),
        lambda: fc.conv2d_backward_data(integers(1, 3, 4, 5), w, x.shape, padding=padding),
        lambda: fc.conv2d_backward_filter(integers(1, 3, 4, 5), x, w.shape, padding=padding),
        lambda: fc.conv2d_backward(integers(1, 3, 4, 5), x, w, padding=padding),
    ):
        with pytest.raises(error, match=sentence):
            call()
