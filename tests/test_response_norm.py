# SPDX-License-Identifier: Apache-2.0
"""Local response normalisation across and within channels: reference, gradients of gradients, layouts, threads,
instruction sets, edges; PyTorch's and ONNX's definitions."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import DTYPES, NUMPY_DTYPE, THREADS, isas, rng_for
from fastconv import _core, nn, ops, reference
from tolerance import assert_close, assert_same_bits

LAYOUTS = ("channels_first", "channels_last")
REGIONS = ("across_channels", "within_channel")
SHAPES = [(1, 1, 1), (2, 7, 5), (2, 19), (1, 5, 9, 10), (2, 3, 4, 3, 6), (1, 40, 3, 70)]


@pytest.fixture(autouse=True)
def keep_threads():
    yield
    _core.set_threads(0)


def last(x, layout):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x


def first(x, layout):
    return np.moveaxis(x, -1, 1) if layout == "channels_last" else x


def both(x, dy, *arguments, layout, **words):
    """(y, dx) in channels-first order."""
    y = fc.local_response_norm(last(x, layout), *arguments, layout=layout, **words)
    dx = fc.local_response_norm_backward(last(dy, layout), last(x, layout), *arguments, layout=layout, **words)
    return first(y, layout), first(dx, layout)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_its_reference(shape, region):
    if region == "within_channel" and len(shape) < 3:
        return
    for dtype, size, extra in itertools.product(DTYPES, (1, 2, 3, 5, 8), ("before", "after")):
        if size % 2 and extra == "after":
            continue
        rng = rng_for(f"lrn {shape} {size}")
        x, dy = ((rng.standard_normal(shape) * 2).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
        numbers = (size, 0.7, 0.75, 1.5)
        want = reference.local_response_norm(x, *numbers, region, extra)
        want_dx = reference.local_response_norm_backward(dy, x, *numbers, region, extra)
        for layout in LAYOUTS:
            y, dx = both(x, dy, *numbers, region=region, extra=extra, layout=layout)
            assert_close(y, want, "statistics", what=f"y {size} {extra} {layout}")
            # dx is a difference of terms of the size of dy.
            assert_close(dx, want_dx, "statistics", scale=1.0, what=f"dx {size} {extra} {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_threads_or_batch(dtype):
    for shape, region in itertools.product([(3, 50, 37, 41), (4, 3, 90, 91), (2, 700, 9, 8)], REGIONS):
        rng = rng_for(f"lrn threads {shape}")
        x, dy = (rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
        for layout in LAYOUTS:
            results = []
            for threads in THREADS:
                _core.set_threads(threads)
                results.append(both(x, dy, 5, 0.3, region=region, layout=layout))
            alone = both(x[:1].copy(), dy[:1].copy(), 5, 0.3, region=region, layout=layout)
            for i in range(2):
                assert_same_bits(results[1][i], results[0][i])
                assert_same_bits(results[2][i], results[0][i])
                assert_same_bits(np.ascontiguousarray(alone[i]), np.ascontiguousarray(results[0][i][:1]))


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa != _core.info()["isa"]])
def test_the_other_isas(isa):
    """The tests above, and resizing, once more in a process that FASTCONV_ISA sets to this ISA."""
    if os.environ.get("FASTCONV_ISA"):
        return  # this is that process
    names = [f"{__file__}::test_it_is_its_reference", f"{__file__}::test_results_do_not_depend_on_threads_or_batch"]
    names += [__file__.replace("response_norm", "resize") + "::test_smooth_modes_are_their_reference"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    done = subprocess.run(command, env={**os.environ, "FASTCONV_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("region", REGIONS)
def test_gradients_and_their_gradients(region, layout):
    for shape, size in (((2, 4, 3), 3), ((1, 3, 2, 3), 2), ((1, 2, 2, 2, 2), 3)):
        x = fc.Tensor(last(np.random.default_rng(4).standard_normal(shape), layout), requires_grad=True)

        def f(x, size=size):
            return ops.local_response_norm(x, size, 0.6, 0.75, 1.2, region=region, layout=layout)

        assert fc.gradcheck(f, x) and fc.gradgradcheck(f, x)


@given(st.data())
def test_definitions_meet(data):
    """Odd windows have no `extra`; a window as wide as the channels normalises by all; beta = 0 is the identity; other
    strides and read-only memory compute the same; nothing is written to the input."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=3, max_size=5)))
    size, beta = data.draw(st.integers(1, 7)), data.draw(st.sampled_from((0.0, 0.5, 0.75, 1.0, 2.0)))
    region, layout = data.draw(st.sampled_from(REGIONS)), data.draw(st.sampled_from(LAYOUTS))
    x = rng_for(str(shape)).standard_normal(shape).astype(NUMPY_DTYPE[data.draw(st.sampled_from(DTYPES))])
    words = {"region": region, "layout": layout}
    y = fc.local_response_norm(last(x, layout), size, 0.9, beta, 2.0, **words)
    assert_close(first(y, layout), reference.local_response_norm(x, size, 0.9, beta, 2.0, region), "statistics")
    if size % 2:
        assert_same_bits(fc.local_response_norm(last(x, layout), size, 0.9, beta, 2.0, extra="after", **words), y)
    if beta == 0:
        assert_same_bits(np.ascontiguousarray(first(y, layout)), x)
    strided = last(np.repeat(x, 2, 1), layout)
    strided = strided[..., ::2] if layout == "channels_last" else strided[:, ::2]
    strided.flags.writeable = False
    assert_same_bits(fc.local_response_norm(strided, size, 0.9, beta, 2.0, **words), y)
    wide = fc.local_response_norm(last(x, layout), 2 * shape[1] + 1, 1.0, 0.75, layout=layout)
    total = (x.astype(np.float64) ** 2).sum(1, keepdims=True) / (2 * shape[1] + 1)
    assert_close(first(wide, layout), x / (1 + total) ** 0.75, "statistics")


def test_alexnets_numbers():
    """k = 2, n = 5, alpha = 1e-4, beta = 0.75 on one pixel; the paper's alpha is not divided by n."""
    x = np.arange(1, 8, dtype=np.float64).reshape(1, 7, 1) * 50
    y = fc.local_response_norm(x, 5, 5 * 1e-4, 0.75, 2.0)
    squares = x[0, :, 0] ** 2
    expected = [x[0, i, 0] / (2 + 1e-4 * squares[max(0, i - 2) : i + 3].sum()) ** 0.75 for i in range(7)]
    assert_close(y[0, :, 0], np.array(expected), "statistics")


def test_edges():
    for region in REGIONS:
        empty = fc.Tensor(np.zeros((0, 3, 4), np.float32), requires_grad=True)
        y = ops.local_response_norm(empty, 3, region=region)
        assert y.shape == (0, 3, 4)
        assert fc.local_response_norm_backward(empty.data, empty.data, 3, region=region).shape == (0, 3, 4)
    x = np.zeros((1, 3, 2), np.float32)
    assert (fc.local_response_norm(x, 3) == 0).all()
    x[0, 0, 0] = np.nan
    y = fc.local_response_norm(x + np.float32(1), 2)
    assert np.isnan(y[0, :2, 0]).all() and not np.isnan(y[0, 2]).any() and not np.isnan(y[0, :, 1]).any()
    half = fc.local_response_norm(fc.Tensor(np.ones((1, 3, 2), np.float16)), 3)
    assert half.dtype == np.float16
    assert isinstance(fc.local_response_norm(fc.Tensor(x), 3), fc.Tensor)


def test_layer():
    x = rng_for("lrn layer").standard_normal((2, 6, 4, 5)).astype(np.float32)
    layer = nn.LocalResponseNorm(3, 0.5, 0.6, 1.1, region="within_channel")
    assert_same_bits(layer(x).data, fc.local_response_norm(x, 3, 0.5, 0.6, 1.1, region="within_channel"))
    assert repr(layer) == "LocalResponseNorm(3, alpha=0.5, beta=0.6, k=1.1, region='within_channel')"
    assert repr(nn.LocalResponseNorm(5)) == "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda x: fc.local_response_norm(x, 0), fc.ProblemError, "size is 0; expected at least 1"),
        (lambda x: fc.local_response_norm(x, 2.5), TypeError, "size is 2.5; expected an integer"),
        (lambda x: fc.local_response_norm(x, 3, region="both"), fc.ProblemError, "region is 'both'; expected one of"),
        (lambda x: fc.local_response_norm(x, 3, extra="left"), fc.ProblemError, "extra is 'left'"),
        (lambda x: fc.local_response_norm(x, 3, layout="nchw"), fc.ProblemError, "layout is 'nchw'"),
        (lambda x: fc.local_response_norm(x[0, 0], 3), fc.ProblemError, r"x has shape \(5,\); expected at least"),
        (lambda x: fc.local_response_norm(x[0], 3, region="within_channel"), fc.ProblemError, "1 to 3 spatial axes"),
        (lambda x: fc.local_response_norm(x.astype(int), 3), TypeError, "x has dtype int64"),
        (lambda x: fc.local_response_norm([1.0], 3), TypeError, "x is a list"),
        (lambda x: fc.local_response_norm_backward(x[:1], x, 3), fc.ProblemError, "dy"),
        (lambda x: nn.LocalResponseNorm(0), fc.ProblemError, "size is 0"),
        (lambda x: _core.response_norm_forward(x, -1, 0, 1, 1, 1, False, "channels_first"), fc.ProblemError,
         "before is -1"),
    ],
)  # fmt: skip
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(np.ones((2, 4, 5), np.float32))


# ---- Other people's definitions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch(dtype):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    for shape, size, k in itertools.product(
        [(2, 7, 5), (2, 9, 4, 3), (1, 6, 2, 3, 4)], (1, 2, 3, 4, 5, 12), (1.0, 2.0)
    ):
        rng = rng_for(f"parity {shape}")
        x, dy = ((rng.standard_normal(shape) * 3).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
        tensor = torch.tensor(x, requires_grad=True)
        want = torch.nn.LocalResponseNorm(size, 0.4, 0.7, k)(tensor)
        want.backward(torch.tensor(dy))
        inputs = fc.Tensor(x, requires_grad=True)
        got = nn.LocalResponseNorm(size, 0.4, 0.7, k)(inputs)
        got.backward(fc.Tensor(dy))
        assert_close(got.data, want.detach().numpy(), "parity", what=f"{shape} {size}")
        assert_close(inputs.grad.data, tensor.grad.numpy(), "parity", scale=1.0, what=f"{shape} {size} dx")


def test_onnx():
    """ONNX's window has its extra channel after the centre. Its own evaluator, and its formula for even sizes.

    The evaluator walks the channels in a loop over the batch axis, so that only n = c is right in it.
    """
    pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    for size in (1, 2, 3, 4, 5):
        x = rng_for(f"onnx {size}").standard_normal((6, 6, 3, 4)).astype(np.float32) * 3
        node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.4, beta=0.7, bias=1.5)
        value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n in "xy"]
        graph = helper.make_graph([node], "lrn", value[:1], value[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        (want,) = ReferenceEvaluator(model).run(None, {"x": x})
        assert_close(fc.local_response_norm(x, size, 0.4, 0.7, 1.5, extra="after"), want, "parity", what=str(size))
        before, after = (size - 1) // 2, -(-(size - 1) // 2)  # floor and ceil of (size - 1) / 2
        squares = np.stack([(x[:, max(0, c - before) : c + after + 1] ** 2).sum(1) for c in range(6)], 1)
        formula = x / (1.5 + 0.4 / size * squares) ** 0.7
        assert_close(fc.local_response_norm(x, size, 0.4, 0.7, 1.5, extra="after"), formula, "parity", what=str(size))
