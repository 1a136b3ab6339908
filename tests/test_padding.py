# SPDX-License-Identifier: Apache-2.0
"""What surrounds the input: five modes, in every pass and algorithm, against a padded copy made by NumPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import MODES, NUMPY_DTYPE, PAD_VALUE, PASSES, arrays, isas, parse, run_core, supported
from fastconv import _core
from test_properties import inner, options_for, problems
from tolerance import assert_exact, assert_same_bits

SHOWN = ("reflect", "replicate", "circular")  # padding that shows cells of x
NUMPY_MODE = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
ANY_ALGORITHM = 1e9  # precision


def padded(case, x, value):
    """x with its padding around it, by NumPy."""
    widths = list(case.pads)
    widths = [(0, 0), *widths, (0, 0)] if case.layout == "nhwc" else [(0, 0), (0, 0), *widths]
    words = {"constant_values": value if case.mode == "constant" else 0} if case.mode in MODES[:2] else {}
    return np.pad(x, widths, mode=NUMPY_MODE[case.mode], **words)


def explicit(case):
    """The same convolution of an input that is padded already."""
    size = tuple(s + b + e for s, (b, e) in zip(case.size, case.pads, strict=True))
    return case.with_(size=size, pads=((0, 0),) * len(size), mode="zeros")


@given(problems(modes=MODES), st.data())
def test_padding_is_a_padded_copy(case, data):
    """Forward and filter gradient of the padded copy; its input gradient, added up where cells of x were shown."""
    other, a = explicit(case), arrays(case, integers=True)
    b = arrays(other, integers=True)
    copy = b.__class__(padded(case, a.x, PAD_VALUE), a.w, a.dy, None, None)
    for pass_ in PASSES:
        one, two = case.with_(pass_=pass_), other.with_(pass_=pass_)
        got = run_core(one, a, options_for(one, data))
        expected = run_core(two, copy, _core.Options(algorithm="reference"))
        if pass_ == "bwd_data":
            places = np.arange(a.x.size).reshape(a.x.shape) + 1.0  # 0: shows no cell
            places = padded(case, places, 0).astype(int)
            expected = np.bincount(places.ravel(), expected.ravel(), a.x.size + 1)[1:].reshape(a.x.shape)
        assert_exact(got, expected, f"{one}")


@given(problems(modes=("constant",)), st.data())
def test_a_constant_border_is_affine_in_x(case, data):
    """<y(x) - y(0), dy> = <x, dx>, and <y(x), dy> = <w, dw>: the constant belongs to y and to dw, not to dx."""
    a = arrays(case, integers=True)
    y, dx, dw = (run_core(p, a, options_for(p, data)) for p in (case.with_(pass_=pass_) for pass_ in PASSES))
    nothing = a.__class__(np.zeros_like(a.x), a.w, a.dy, None, None)
    base = run_core(case, nothing, options_for(case, data))
    assert inner(y - base, a.dy) == inner(a.x, dx)
    assert inner(y, a.dy) == inner(a.w, dw)


GRADIENTS = [
    (1, (2, 2, 6), (2, 2, 3), {"padding": ((3, 1),), "stride": 2}),
    (1, (1, 3, 5), (3, 1, 2), {"padding": 2, "dilation": 2, "groups": 3}),
    (2, (1, 2, 4, 5), (2, 2, 3, 2), {"padding": ((1, 2), (3, 0)), "stride": (1, 2)}),
    (2, (1, 2, 4, 4), (4, 1, 3, 3), {"padding": 2, "groups": 2, "dilation": (2, 1)}),
    (2, (1, 4, 3, 2), (2, 2, 3, 3), {"padding": (2, 1), "layout": "channels_last"}),
    (3, (1, 1, 3, 2, 3), (2, 1, 2, 2, 3), {"padding": ((1, 0), (1, 1), (0, 2)), "stride": (2, 1, 1)}),
    (3, (1, 2, 2, 3, 2), (2, 1, 1, 3, 2), {"padding": (1, 2, 1), "groups": 2}),
]


@pytest.mark.parametrize("mode", MODES)
def test_first_and_second_derivatives(mode):
    rng = np.random.default_rng(5)
    for rank, x, w, words in GRADIENTS:
        inputs = [fc.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in (x, w)]

        def f(x, w, rank=rank, words=words):
            return getattr(fc, f"conv{rank}d")(x, w, padding_mode=mode, pad_value=0.7, **words)

        assert fc.gradcheck(f, inputs), (mode, rank, words)
        assert fc.gradgradcheck(f, inputs), (mode, rank, words)


PLANES = [
    "n3 c70 h9 w33 k20 r3 s3 stride1 pad2_1x1_3 dil1 g1",
    "n5 c24 h7 w7 k40 r3 s3 stride2 pad1 dil1 g1",
    "n2 c37 h33 w35 k37 r5 s3 stride1 pad2x3 dil1 g37",
    "n3 c4 d5 h6 w7 k8 t3 r3 s2 stride1x2x1 pad1_2x2x1 dil1 g2",
]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_same_bits_for_any_number_of_threads_and_images(layout):
    ran = 0
    for plane, mode, pass_ in itertools.product(PLANES, MODES, PASSES):
        case = parse(f"{pass_} {plane} {layout} f32 {mode}")
        a = arrays(case, integers=False)
        for row in supported(case):
            if row["name"] == "reference":
                continue  # slow, and tested elsewhere
            results = [
                run_core(case, a, _core.Options(algorithm=row["name"], precision=ANY_ALGORITHM, threads=threads))
                for threads in (1, 3, 16)
            ]
            for other in results[1:]:
                assert_same_bits(results[0], other, f"{row['name']}: {case}")
            if pass_ != "bwd_filter":
                alone = a.__class__(a.x[1:2].copy(), a.w, a.dy[1:2].copy(), None, None)
                options = _core.Options(algorithm=row["name"], precision=ANY_ALGORITHM, threads=2)
                assert_same_bits(run_core(case.with_(n=1), alone, options), results[0][1:2], f"{row['name']}: {case}")
            ran += 1
    assert ran >= len(PLANES) * len(MODES) * len(PASSES)


def test_no_padding_mode_is_left_to_the_reference_or_pays_for_a_copy():
    for plane, mode, pass_, isa in itertools.product(PLANES, SHOWN, PASSES, isas()):
        rows = {}
        for word in (mode, "zeros"):
            p = _core.ConvProblem.parse(f"{pass_} {plane} nchw f32 {word}")
            options = _core.Options(isa=isa)
            assert _core.choose(p, options) != "reference"
            rows[word] = {row["name"]: row for row in _core.algorithms(p, options) if row["supported"]}
        cheapest = {word: min(row["estimate_s"] for row in rows[word].values()) for word in rows}
        # What is chosen: not every algorithm is good at a plane that is mostly border.
        grown = math.prod((n + a + b) / n for n, a, b in zip(p.size, p.pad_begin, p.pad_end, strict=True))
        assert cheapest[mode] <= 2.5 * grown * cheapest["zeros"], (pass_, plane, mode, isa)
        for name in rows["zeros"].keys() & rows[mode].keys():
            shown, zeros = rows[mode][name], rows["zeros"][name]
            assert zeros["estimate_s"] <= shown["estimate_s"], (pass_, plane, name)
            if pass_ != "bwd_data":  # at most tables of cells
                more = shown["workspace_bytes"] - zeros["workspace_bytes"]
                assert 0 <= more < 4 * math.prod(p.x_shape) / 8, (pass_, plane, name)


@pytest.mark.parametrize("mode", MODES)
def test_kinds_of_arrays(mode):
    """Views, read-only arrays, both dtypes, no images: as their copies."""
    for dtype in NUMPY_DTYPE.values():
        base = np.random.default_rng(3).standard_normal((2, 6, 8, 9)).astype(dtype)
        w = np.ones((4, 3, 3, 3), dtype)
        views = [
            base[:, ::2],
            base[:, 1:4, ::-1],
            base[:, :3, :, ::-2],
            base[:, 3:].transpose(0, 1, 3, 2),
            base[:0, :3],
        ]
        for x in views:
            x.flags.writeable = False
            words = {"padding": ((2, 1), (0, 3)), "padding_mode": mode, "pad_value": 2.0}
            y = fc.conv2d(x, w, **words)
            assert_same_bits(y, fc.conv2d(x.copy(), w, **words))
            dx = fc.conv2d_backward_data(y, w, x.shape, padding=words["padding"], padding_mode=mode)
            dw = fc.conv2d_backward_filter(y[..., ::-1], x, w.shape, **words)
            assert_same_bits(dw, fc.conv2d_backward_filter(y[..., ::-1].copy(), x.copy(), w.shape, **words))
            assert dx.shape == x.shape and (len(x) or not dw.any())


def test_padding_that_no_cell_can_fill_is_refused_in_words():
    x, w = np.ones((1, 1, 4, 5)), np.ones((1, 1, 3, 3))
    for mode, padding, output, sentence in (
        ("reflect", (4, 0), (10, 3), "reflect padding of axis h is 4 and 4; expected less than its size 4"),
        ("circular", ((0, 0), (0, 6)), (2, 9), "circular padding of axis w is 0 and 6; expected at most its size 5"),
        ("mirror", 1, (4, 5), "padding_mode is 'mirror'; expected one of"),
    ):
        dy = np.ones((1, 1, *output))
        for call in (
            lambda w, **words: fc.conv2d(x, w, **words),
            lambda w, **words: fc.conv2d(fc.Tensor(x), fc.Tensor(w), **words),
            lambda w, dy=dy, **words: fc.conv2d_backward_data(dy, w, x.shape, **words),
            lambda w, dy=dy, **words: fc.conv2d_backward_filter(dy, x, w.shape, **words),
        ):
            with pytest.raises(fc.ProblemError, match=sentence):
                call(w, padding=padding, padding_mode=mode)
    assert fc.conv2d(x, w, padding=9, padding_mode="replicate").shape == (1, 1, 20, 21)
