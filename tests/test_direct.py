# SPDX-License-Identifier: Apache-2.0
"""The direct convolution: what remains when no workspace is allowed, and what its masked edges must not do."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import LAYOUTS, PASSES, arrays, isas, parse, rng_for, run_core, run_reference
from fastconv import _core, reference
from tolerance import assert_exact, assert_same_bits

NUMPY_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def direct(isa, **options):
    return _core.Options(algorithm="direct", isa=isa, **options)


@pytest.mark.parametrize("text", ["fwd n2 c5 h9 w20 k7 r3 s3 stride2 pad1", "fwd n1 c4 d3 h5 w9 k6 t2 r3 s3 pad1 g2"])
def test_without_workspace_it_is_what_runs(text):
    for pass_, layout, mode in itertools.product(PASSES, LAYOUTS, ("zeros", "circular")):
        case = parse(text).with_(pass_=pass_, layout=layout, mode=mode)
        a = arrays(case, integers=True)
        rows = {row["name"]: row for row in _core.algorithms(_core.ConvProblem.parse(str(case)), _core.Options())}
        assert rows["direct"]["workspace_bytes"] == 0
        options = _core.Options(max_workspace=0)
        assert _core.choose(_core.ConvProblem.parse(str(case)), options) == "direct", case
        assert_exact(run_core(case, a, options), run_reference(case, a), str(case))


def test_options_without_workspace_serve_a_layer_and_its_gradients():
    rng = rng_for("no workspace")
    x, w, b = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((2, 3, 8, 11), (5, 3, 3, 3), (5,)))
    with fc.options(max_workspace=0), fc.trace() as trace:
        y = fc.conv2d(x, w, b, padding=1)
        dx, dw, db = fc.conv2d_backward(y, x, w, padding=1)
    assert [call["algorithm"] for call in trace.calls] == ["direct"] * 3
    assert_exact(y, reference.conv(x, w, b, padding=1))
    assert_exact(dx, reference.conv_backward_data(y, w, x.shape, padding=1))
    assert_exact(dw, reference.conv_backward_filter(y, x, w.shape, padding=1))
    assert_exact(db, y.sum((0, 2, 3)))


@pytest.mark.parametrize("mode", NUMPY_MODE)
def test_the_edge_sums_in_the_order_of_the_interior(mode):
    """Padding by masks and maps gives the bits of the same image padded beforehand."""
    rng = rng_for(mode)
    for layout, width, filter, stride in itertools.product(LAYOUTS, (5, 16, 37), ((3, 3), (5, 9)), (1, 2, 3)):
        pads = tuple((min(f // 2, 3), min(f // 2 + 1, 3)) for f in filter)
        case = parse(f"fwd n2 c5 h6 w{width} k7 r{filter[0]} s{filter[1]} stride{stride} {layout}")
        case = case.with_(pads=pads, mode=mode)
        axes = (1, 2) if layout == "nhwc" else (2, 3)
        x = rng.standard_normal(case.x_shape, dtype=np.float32)
        around = [(0, 0)] * 4
        for axis, pad in zip(axes, pads, strict=True):
            around[axis] = pad
        wide = np.pad(x, around, mode=NUMPY_MODE[mode])
        beforehand = case.with_(pads=((0, 0), (0, 0)), mode="zeros", size=tuple(wide.shape[axis] for axis in axes))
        a, b = arrays(case, integers=False), arrays(beforehand, integers=False)
        for isa in isas():
            y = run_core(case, type(a)(x, a.w, a.dy, None, None), direct(isa))
            assert_exact(y, run_core(beforehand, type(b)(wide, a.w, b.dy, None, None), direct(isa)), f"{isa}: {case}")


@pytest.mark.parametrize("pass_", ["fwd", "bwd_data"])
def test_an_image_alone_has_the_bits_of_the_batch(pass_):
    for layout, mode in itertools.product(LAYOUTS, ("zeros", "reflect")):
        case = parse("fwd n3 c20 h7 w19 k14 r3 s3 stride2 pad1").with_(pass_=pass_, layout=layout, mode=mode)
        a = arrays(case, integers=False)
        for isa in isas():
            batch = run_core(case, a, direct(isa, threads=2))
            one = run_core(case.with_(n=1), type(a)(a.x[2:], a.w, a.dy[2:], None, None), direct(isa, threads=1))
            assert_same_bits(batch[2:], one, f"{isa}: {case}")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("pass_", PASSES)
def test_padding_is_not_multiplied(pass_, value):
    """Zero times infinity is never formed: a tap in the padding is left out, even of an infinite weight or gradient."""
    shapes = (
        "h5 w6 r3 s3 pad1",
        "h4 w35 r3 s3 stride2 pad1",
        "h6 w21 r3 s5 stride3 pad1x4_2",
        "d3 h3 w9 t1 r3 s3 pad0x1x1",
    )
    for shape, layout, dtype in itertools.product(shapes, LAYOUTS, ("f32", "f64")):
        case = parse(f"fwd n1 c3 {shape} k4 {layout} {dtype}").with_(pass_=pass_)
        a = arrays(case, integers=True)
        if pass_ == "bwd_filter":
            a.dy.flat[[0, -1]] = value  # the corners of the first and of the last channel
        else:
            a.w[1, 2].flat[0] = value
        expected = run_core(case, a, _core.Options(algorithm="reference"))
        assert not np.isfinite(expected).all() and np.isfinite(expected).any()
        for isa in isas():
            assert_exact(run_core(case, a, direct(isa)), expected, f"{isa}: {case}")
