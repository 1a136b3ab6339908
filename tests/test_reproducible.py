# SPDX-License-Identifier: Apache-2.0
"""Same bits: from run to run, for any number of threads, and for an image alone or inside a batch.

The problems are large enough that 16 threads really share the work, and hold normal floats, whose sums show any
change of order.
"""

from dataclasses import replace

import numpy as np
import pytest

from cases import (
    DTYPES,
    NUMPY_DTYPE,
    PASSES,
    THREADS,
    adaptive_problem,
    arrays,
    isas,
    parse,
    pool_problem,
    run_core,
    supported,
)
from fastconv import _core
from tolerance import assert_same_bits

PROBLEMS = [
    "fwd n3 c24 h19 w23 k40 r3 s3 pad1",
    "fwd n5 c17 h14 w14 k33 r1 s1",
    "fwd n2 c32 h20 w18 k32 r3 s3 stride2 pad1 g4",
    "fwd n2 c48 h21 w22 k48 r3 s3 pad1 g48",
    "fwd n3 c16 h16 w15 k24 r5 s5 pad2 nhwc reflect",
    "fwd n4 c20 w301 k31 s7 stride2 pad3 dil2",
    "fwd n2 c8 d7 h9 w8 k18 t3 r3 s3 pad1",
]


@pytest.fixture(autouse=True)
def keep_threads():
    yield
    _core.set_threads(0)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("text", PROBLEMS)
def test_convolution_does_not_depend_on_threads_or_run(text, pass_):
    for dtype in DTYPES:
        case = parse(text).with_(pass_=pass_, dtype=dtype)
        a = arrays(case, integers=False)
        for isa in isas():
            for row in supported(case, isa=isa):
                results = []
                for threads in (*THREADS, 2):
                    options = _core.Options(algorithm=row["name"], precision=1e9, threads=threads, isa=isa)
                    results.append(run_core(case, a, options))
                for result in results[1:]:
                    assert_same_bits(result, results[0], f"{row['name']} on {isa}: {case}")


@pytest.mark.parametrize("pass_", ["fwd", "bwd_data"])
@pytest.mark.parametrize("text", PROBLEMS)
def test_an_image_does_not_depend_on_its_batch(text, pass_):
    case = parse(text).with_(pass_=pass_)
    a = arrays(case, integers=False)
    for isa in isas():
        for row in supported(case, isa=isa):
            options = _core.Options(algorithm=row["name"], precision=1e9, isa=isa)
            together = run_core(case, a, options)
            for i in range(case.n):
                alone = replace(a, x=a.x[i : i + 1].copy(), dy=a.dy[i : i + 1].copy())
                actual = run_core(case.with_(n=1), alone, options)
                assert_same_bits(actual, together[i : i + 1], f"{row['name']} on {isa}: {case}")


def test_automatic_choice_under_batch_invariant():
    for text in PROBLEMS:
        case = parse(text)
        a = arrays(case, integers=False)
        options = _core.Options(batch_invariant=True)
        together = run_core(case, a, options)
        alone = replace(a, x=a.x[1:2].copy(), dy=a.dy[1:2].copy())
        assert_same_bits(run_core(case.with_(n=1), alone, options), together[1:2], text)


def pools(x, options, layout):
    """Every pooling function on one plane geometry, and on windows of different sizes."""
    results = []
    for adaptive in (False, True):

        def problem(kind, adaptive=adaptive):
            if adaptive:
                return adaptive_problem(kind, x.shape, (5, 3), layout)
            return pool_problem(kind, x.shape, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), True, layout)

        for kind in ("max", "min"):
            y, at = _core.pool_forward(problem(kind), x, 1.0, True, options)
            results += [y, at, _core.scatter_positions(y, at, x.shape, layout, 0, options)]
            results.append(_core.last_positions(at, x.shape, layout, options))
            results.append(_core.gather_positions(x, at, layout, 0, options))
        for kind, p in (("average", 1.0), ("lp", 2.0), ("lp", 2.5), ("signed_lp", 3.0)):
            y, _ = _core.pool_forward(problem(kind), x, p, False, options)
            results += [y, _core.pool_backward(problem(kind), y, x, y, p, options)]
    return results


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling_does_not_depend_on_threads(dtype, layout):
    x = np.random.default_rng(5).standard_normal((3, 21, 25, 20)).astype(NUMPY_DTYPE[dtype])
    results = [pools(x, _core.Options(threads=threads), layout) for threads in THREADS]
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert_same_bits(b, a, layout)


def dense_and_norm(x, w, dy):
    """Every sum outside of the convolutions that a training step takes."""
    n = len(x)
    rows = x.reshape(n, -1)
    gamma, beta = x[0, :, 0, 0].copy(), x[0, :, 1, 1].copy()
    y, mean, variance = _core.batch_norm_forward(x, gamma, beta, 1e-5)
    gradients = _core.batch_norm_backward(y, x, gamma, mean, variance, 1e-5)
    out = _core.dense_forward(rows, w, dy[0].copy())
    loss, probabilities = _core.cross_entropy_forward(out, np.arange(n) % out.shape[1])
    back = (_core.dense_backward_data(dy, w), _core.dense_backward_filter(dy, rows))
    return (y, mean, variance, *gradients, out, loss, probabilities, *back, _core.channel_sum(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_dense_and_loss_do_not_depend_on_threads(dtype):
    rng = np.random.default_rng(6)
    x, w, dy = (rng.standard_normal(s).astype(NUMPY_DTYPE[dtype]) for s in ((37, 19, 12, 11), (53, 2508), (37, 53)))
    results = []
    for threads in THREADS:
        _core.set_threads(threads)
        results.append(dense_and_norm(x, w, dy))
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert_same_bits(b, a)
