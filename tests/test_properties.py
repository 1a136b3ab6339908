# SPDX-License-Identifier: Apache-2.0
"""What must hold for every convolution, on problems that hypothesis draws.

Arrays hold small integers, so that both sides of each equation are exact and no tolerance is needed; only the batch
split uses normal floats, because there the bits themselves are promised.
"""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cases import LAYOUTS, NUMPY_DTYPE, PASSES, Case, arrays, run_core, supported
from fastconv import _core
from tolerance import assert_exact, assert_same_bits


@st.composite
def problems(draw, modes=("zeros", "reflect", "replicate", "circular"), layouts=tuple(LAYOUTS)):
    """A valid forward problem of at most a few thousand products."""
    rank = draw(st.integers(1, 3))
    largest = {1: 6, 2: 4, 3: 3}[rank]
    per_axis = st.lists(st.integers(1, largest), min_size=rank, max_size=rank)
    filter, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    pads = [draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(rank)]
    mode = draw(st.sampled_from(modes))
    size = []
    for f, d, (begin, end) in zip(filter, dilation, pads, strict=True):
        least = max(1, (f - 1) * d + 1 - begin - end)
        if mode in ("reflect", "circular"):
            least = max(least, begin + 1, end + 1)
        size.append(least + draw(st.integers(0, 5)))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    return Case(
        pass_="fwd",
        n=draw(st.integers(0, 3)),
        c=groups * draw(st.integers(1, 5)),
        k=groups * draw(st.integers(1, 5)),
        groups=groups,
        size=tuple(size),
        filter=tuple(filter),
        stride=tuple(stride),
        pads=tuple(pads),
        dilation=tuple(dilation),
        layout=draw(st.sampled_from(layouts)),
        dtype=draw(st.sampled_from(("f32", "f64"))),
        mode=mode,
        epilogue=(),
    )


def options_for(case, data):
    """Any algorithm that computes the case exactly on integers; hypothesis chooses."""
    names = [row["name"] for row in supported(case) if row["exact_on_integers"]]
    return _core.Options(algorithm=data.draw(st.sampled_from(names), label="algorithm"), precision=1e9)


def inner(a, b):
    return float(np.sum(a.astype(np.float64) * b.astype(np.float64)))


@given(problems(), st.data())
def test_the_three_passes_are_adjoint(case, data):
    """<conv(x, w), dy> = <x, bwd_data(dy, w)> = <w, bwd_filter(dy, x)>."""
    a = arrays(case, integers=True)
    y, dx, dw = (run_core(p, a, options_for(p, data)) for p in (case.with_(pass_=pass_) for pass_ in PASSES))
    assert inner(y, a.dy) == inner(a.x, dx) == inner(a.w, dw)


@given(problems(), st.data(), st.sampled_from(PASSES))
def test_each_pass_is_linear_in_both_arguments(case, data, pass_):
    case = case.with_(pass_=pass_)
    options = options_for(case, data)
    a, b = arrays(case, integers=True), arrays(case, integers=True, seed="another")
    first, second = {"fwd": ("x", "w"), "bwd_data": ("dy", "w"), "bwd_filter": ("dy", "x")}[pass_]
    for name in (first, second):
        other = replace(a, **{name: getattr(b, name)})
        mixed = replace(a, **{name: 2 * getattr(a, name) - 3 * getattr(b, name)})
        expected = 2 * run_core(case, a, options) - 3 * run_core(case, other, options)
        assert_exact(run_core(case, mixed, options), expected, f"linear in {name}: {case}")


@given(problems(layouts=("nchw",)), st.data())
def test_groups_are_separate_convolutions(case, data):
    a = arrays(case, integers=True)
    y = run_core(case, a, options_for(case, data))
    one = case.with_(c=case.c // case.groups, k=case.k // case.groups, groups=1)
    parts = []
    for g in range(case.groups):
        x = a.x[:, g * one.c : (g + 1) * one.c].copy()
        w = a.w[g * one.k : (g + 1) * one.k].copy()
        parts.append(run_core(one, replace(a, x=x, w=w), options_for(one, data)))
    assert_exact(y, np.concatenate(parts, axis=1), str(case))


@given(problems(), st.data())
def test_layouts_agree(case, data):
    first, last = case.with_(layout="nchw"), case.with_(layout="nhwc")
    a = arrays(first, integers=True)
    b = replace(a, x=np.ascontiguousarray(np.moveaxis(a.x, 1, -1)), dy=np.ascontiguousarray(np.moveaxis(a.dy, 1, -1)))
    for pass_ in PASSES:
        one, other = first.with_(pass_=pass_), last.with_(pass_=pass_)
        expected, actual = run_core(one, a, options_for(one, data)), run_core(other, b, options_for(other, data))
        assert_exact(actual if pass_ == "bwd_filter" else np.moveaxis(actual, -1, 1), expected, str(other))


@given(problems(), st.data())
def test_dilation_is_a_filter_stuffed_with_zeros(case, data):
    a = arrays(case, integers=True)
    stuffed = case.with_(
        filter=tuple((f - 1) * d + 1 for f, d in zip(case.filter, case.dilation, strict=True)),
        dilation=(1,) * len(case.size),
    )
    w = np.zeros(stuffed.w_shape, a.w.dtype)
    w[(..., *(slice(None, None, d) for d in case.dilation))] = a.w
    b = replace(a, w=w)
    y, expected = run_core(case, a, options_for(case, data)), run_core(stuffed, b, options_for(stuffed, data))
    assert_exact(y, expected, str(case))


@given(problems(layouts=("nchw",)), st.data())
def test_stride_leaves_out_outputs(case, data):
    dense = case.with_(stride=(1,) * len(case.size))
    a = arrays(case, integers=True)
    y, every = run_core(case, a, options_for(case, data)), run_core(dense, a, options_for(dense, data))
    assert_exact(y, every[(..., *(slice(None, None, s) for s in case.stride))], str(case))


@given(problems(), st.data(), st.sampled_from(("fwd", "bwd_data")))
def test_an_image_has_the_same_bits_alone_and_in_a_batch(case, data, pass_):
    """For every named algorithm: its order of summation never depends on n."""
    case = case.with_(pass_=pass_, n=3)
    a = arrays(case, integers=False)
    for row in supported(case):
        options = _core.Options(algorithm=row["name"], precision=1e9, threads=data.draw(st.sampled_from((1, 2))))
        together = run_core(case, a, options)
        for i in range(case.n):
            alone = replace(a, x=a.x[i : i + 1].copy(), dy=a.dy[i : i + 1].copy())
            assert_same_bits(run_core(case.with_(n=1), alone, options), together[i : i + 1], f"{row['name']}: {case}")


@given(problems(modes=("zeros",), layouts=("nchw",)), st.data())
def test_a_delta_filter_copies_its_cell(case, data):
    """w with a single 1 per output channel at one tap: y is x, shifted by that tap."""
    case = case.with_(pads=((0, 0),) * len(case.size), stride=(1,) * len(case.size), groups=1)
    size = tuple(max(s, (f - 1) * d + 1) for s, f, d in zip(case.size, case.filter, case.dilation, strict=True))
    case = case.with_(size=size)
    a = arrays(case, integers=True)
    tap = tuple(data.draw(st.integers(0, f - 1)) for f in case.filter)
    w = np.zeros(case.w_shape, NUMPY_DTYPE[case.dtype])
    for k in range(case.k):
        w[(k, k % case.c, *tap)] = 1
    b = replace(a, w=w)
    window = tuple(slice(i * d, i * d + o) for i, d, o in zip(tap, case.dilation, case.output, strict=True))
    expected = a.x[:, [k % case.c for k in range(case.k)]][(..., *window)]
    assert_exact(run_core(case, b, options_for(case, data)), expected, str(case))
