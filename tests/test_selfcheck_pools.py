# SPDX-License-Identifier: Apache-2.0
"""FASTCONV_CHECK=1/N on poolings and their gradients: right ones pass, planted errors are told, saved and repeated."""

import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from fastconv import _core, cli, selfcheck
from fastconv.verify_pool import PoolCall

SEED = 12
LAYOUTS = ("channels_first", "channels_last")


@pytest.fixture
def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


def normal(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def every_pool(x, layout):
    """Calls of all poolings, on arrays and on tensors with their gradients."""
    words = {"layout": layout}
    padded = {"padding": 1, "ceil_mode": True, **words}
    for pool in (fc.max_pool2d, fc.min_pool2d):
        pool(x, 3, 2, **padded)
        y, at = pool(x, 3, 2, return_indices=True, **padded)
        fc.max_pool2d_backward(y, at, x.shape, **words)
    fc.avg_pool2d(x, 3, 2, **padded)
    y = fc.avg_pool2d(x, 3, 2, **padded, count_include_pad=False)
    fc.avg_pool2d_backward(y, x.shape, 3, 2, **padded, count_include_pad=False)
    fc.avg_pool2d(x, (2, 3), 1, **words, divisor_override=1)
    for norm, signed in ((1, True), (2, True), (3, True), (3, False), (2.5, False)):
        y = fc.lp_pool2d(x, norm, 3, 2, signed=signed, **padded)
        fc.lp_pool2d_backward(y, x, y, norm, 3, 2, signed=signed, **padded)
    for output in ((3, 2), 1):
        y = fc.adaptive_avg_pool2d(x, output, **words)
        fc.adaptive_avg_pool2d_backward(y, x.shape, **words)
        y, at = fc.adaptive_max_pool2d(x, output, return_indices=True, **words)
        fc.adaptive_max_pool2d_backward(y, at, x.shape, **words)
    fc.global_lp_pool2d(x, 2, **words)
    fc.global_min_pool2d(x, **words)
    y, at = fc.max_pool2d(x, 2, return_indices=True, **words)
    back = fc.max_unpool2d(y, at, 2, output_size=x.shape, **words)
    fc.max_unpool2d_backward(back, at, **words)


def every_gradient(x, layout):
    words = {"layout": layout}
    for pool in (
        lambda t: fc.max_pool2d(t, 3, 2, padding=1, **words),
        lambda t: fc.min_pool2d(t, 2, 1, dilation=2, **words),
        lambda t: fc.avg_pool2d(t, 2, **words),
        lambda t: fc.lp_pool2d(t, 2, 2, **words),
        lambda t: fc.adaptive_max_pool2d(t, 2, **words),
    ):
        t = fc.Tensor(x, requires_grad=True)
        y = pool(t)
        (y * y).sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: d.__name__)
def test_right_poolings_raise_no_warning(rng, install, dtype, layout):
    sampler = install()
    x = normal(rng, *((2, 5, 9, 8) if layout == "channels_first" else (2, 9, 8, 5)), dtype=dtype)
    every_pool(x, layout)
    assert sampler.checked == 33
    every_gradient(x, layout)
    assert sampler.checked == 43


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks_views_and_one_image(rng, install, rank):
    sampler = install()
    x = normal(rng, 3, *(7, 8, 6)[:rank])
    getattr(fc, f"max_pool{rank}d")(x, 2, return_indices=True)
    getattr(fc, f"avg_pool{rank}d")(x, 3, 2, padding="same")
    view = np.moveaxis(np.moveaxis(x[None], 1, -1).copy(), -1, 1)  # channels-last memory
    getattr(fc, f"max_pool{rank}d")(view, 2, return_indices=True)
    getattr(fc, f"lp_pool{rank}d")(view[:, ::2], 2, 2)
    assert sampler.checked == 4


def test_what_is_not_finite_or_tiny_is_no_error(install):
    sampler = install()
    x = np.array([np.nan, 1, np.inf, -np.inf, 3e38, 3e38, 1e-42, 0, -1e-42, 2e-42, 0, 0], np.float32).reshape(1, 1, -1)
    fc.max_pool1d(x, 2, return_indices=True)
    fc.avg_pool1d(x, 2, divisor_override=1)
    y = fc.lp_pool1d(x, 3, 2)
    fc.lp_pool1d_backward(np.ones_like(y), x, y, 3, 2)
    assert sampler.checked == 4


def broken(native, part=0, by=0.01, where=-1):
    """A native function, one element of whose result is off."""

    def run(*arguments):
        results = native(*arguments)
        a = results[part] if isinstance(results, tuple) else results
        a.flat[where] = a.flat[where] + by
        return results

    return run


# name: the native function, the part of its result, what is added, a call that takes it, words of the warning
PLANTED = {
    "maximum": ("pool_forward", 0, 1e-6, lambda x: fc.max_pool2d(x, 3, 2), r"^max pooling of 2x3x9x8 .*error is inf"),
    "index": (
        "pool_forward",
        1,
        1,
        lambda x: fc.max_pool2d(x, 3, 2, return_indices=True),
        r"^max .*error of the positions is inf",
    ),
    "offset": (
        "pool_forward_offsets",
        1,
        1,
        lambda x: fc.min_pool2d(fc.Tensor(x, requires_grad=True), 2),
        r"^min .*error of the positions is inf",
    ),
    "average": ("pool_forward", 0, 1e-5, lambda x: fc.avg_pool2d(x, 3, 2), r"^average pooling of 2x3x9x8 "),
    "norm": ("pool_forward", 0, 1e-3, lambda x: fc.lp_pool2d(x, 2, 3, 2), r"^lp pooling of order 2 "),
    "signed norm": ("pool_forward", 0, 0.1, lambda x: fc.lp_pool2d(x, 3, 3, 2), r"^signed_lp pooling of order 3 "),
    "adaptive": ("pool_forward", 0, 1e-5, lambda x: fc.adaptive_avg_pool2d(x, (3, 2)), r"output 3x2"),
    "average gradient": (
        "pool_backward",
        0,
        1e-5,
        lambda x: fc.avg_pool2d_backward(x[:, :, :4, :4], x.shape, 2),
        r"^gradient of average pooling ",
    ),
    "norm gradient": (
        "pool_backward",
        0,
        1e-3,
        lambda x: fc.lp_pool2d_backward(x[:, :, :4, :4], x, fc.lp_pool2d(x, 2, 2), 2, 2),
        r"^gradient of lp pooling of order 2 ",
    ),
    "gradient by offsets": (
        "pool_backward_offsets",
        0,
        1e-3,
        lambda x: fc.max_pool2d(fc.Tensor(x, requires_grad=True), 2).sum().backward(),
        r"^gradient of max pooling ",
    ),
    "gradient by positions": (
        "scatter_positions",
        0,
        1e-3,
        lambda x: fc.max_pool2d_backward(*fc.max_pool2d(x, 2, return_indices=True), x.shape),
        r"^2x3x4x4 values scattered to 2x3x9x8 ",
    ),
    "gathered": (
        "gather_positions",
        0,
        1e-6,
        lambda x: fc.max_unpool2d_backward(x, fc.max_pool2d(x, 2, return_indices=True)[1]),
        r"^2x3x4x4 values gathered from 2x3x9x8 ",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_pooling_is_told_saved_and_repeated(rng, monkeypatch, install, tmp_path, capsys, name, layout):
    function, part, by, wrong, words = PLANTED[name]
    native = getattr(_core, function)
    monkeypatch.setattr(_core, function, broken(native, part, by))
    install()
    x = normal(rng, 2, 3, 9, 8)
    if layout == "channels_last":  # a view, whose result is one too
        x = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    with pytest.warns(selfcheck.CheckWarning, match=words) as told:
        wrong(x)
    assert len(told) == 1 and told[0].filename == __file__
    [path] = tmp_path.glob("*.npz")
    about, check, results = selfcheck.load(path)
    assert not check.judge(results).right and about["where"] == "cpu"

    # Repeated by the library as it is now: still broken, and then right.
    assert cli.main(["check", str(path)]) == 1
    assert capsys.readouterr().out.endswith("wrong\n")
    monkeypatch.setattr(_core, function, native)
    assert cli.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"problem    {check.title}\n") and out.endswith("right now\n")


def test_files_keep_bfloat16_and_options(rng, monkeypatch, install, tmp_path):
    native = _core.pool_forward
    monkeypatch.setattr(_core, "pool_forward", broken(native))
    monkeypatch.setattr(_core, "conv_forward", broken(_core.conv_forward))
    install()
    x = normal(rng, 1, 2, 6, 6, dtype=ml_dtypes.bfloat16)
    with pytest.warns(selfcheck.CheckWarning), fc.options(threads=2, isa="scalar"):
        fc.avg_pool2d(x, 2)  # computed in float32
        fc.conv2d(x, normal(rng, 3, 2, 3, 3, dtype=ml_dtypes.bfloat16))
    first, second = (selfcheck.load(path) for path in sorted(tmp_path.glob("*.npz")))
    assert first[0]["options"]["threads"] == 2 and first[0]["options"]["isa"] == "scalar"
    assert first[1].arrays["x"].dtype == np.float32 and second[1].arrays["x"].dtype == ml_dtypes.bfloat16
    assert np.array_equal(second[1].arrays["x"], x) and second[2][0].dtype == ml_dtypes.bfloat16


def test_what_has_no_reference_is_not_judged(rng, install):
    """Sums of adaptive windows, as the gradient's gradient of a norm takes them, alone are left out."""
    sampler = install()
    x = normal(rng, 1, 2, 5, 5)
    sums = _core.PoolProblem("average", x.shape, (), (), (), (), (), divisor=1, output=(2, 2))
    _core.pool_forward(sums, x, 1.0, False, _core.Options())
    assert sampler.checked == 0 and not PoolCall(sums, {"x": x}).has_reference
    whole = _core.PoolProblem("average", x.shape, (), (), (), (), (), divisor=1, output=(1, 1))
    _core.pool_forward(whole, x, 1.0, False, _core.Options())
    assert sampler.checked == 1


def test_calls_that_are_captured_are_left_alone(rng, monkeypatch, install):
    """A CUDA graph records calls: there is nothing to look at, and nobody may wait."""
    stream = SimpleNamespace(is_capturing=lambda: True)
    fake = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: stream))
    sampler = install()
    with monkeypatch.context() as once:
        once.setitem(sys.modules, "cupy", fake)
        fc.avg_pool2d(normal(rng, 1, 1, 4, 4), 2)
    assert sampler.checked == 0
    fc.avg_pool2d(normal(rng, 1, 1, 4, 4), 2)
    assert sampler.checked == 1
