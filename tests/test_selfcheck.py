# SPDX-License-Identifier: Apache-2.0
"""FASTCONV_CHECK=1/N: what it finds, what it saves, and that it costs nothing where it is not asked for."""

import os
import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from fastconv import _core, cli, selfcheck
from fastconv.tuning.table import Entry, Tuning, here

SEED = 11


@pytest.fixture
def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


def broken(native, where=-1):
    """A native function whose result is off in one element."""

    def run(*arguments):
        result = native(*arguments)
        result.flat[where] = result.flat[where] + 0.01
        return result

    return run


def normal(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_right_results_raise_no_warning(rng, install, dtype):
    sampler = install()
    x, w = normal(rng, 2, 5, 9, 8, dtype=dtype), normal(rng, 7, 5, 3, 3, dtype=dtype)
    bias = normal(rng, 7, dtype=dtype)
    dy = normal(rng, 2, 7, 9, 8, dtype=dtype)
    for mode in ("zeros", "constant", "reflect"):
        fc.conv2d(x, w, bias, padding=1, padding_mode=mode, pad_value=0.1, activation="gelu", residual=dy)
    fc.conv2d(np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1), w, padding=1)  # strides of channels last
    fc.conv2d_backward(dy, x, w, padding=1)
    fc.conv_transpose2d(dy, w, padding=1)
    fc.plan(w, bias, x_shape=x.shape, padding=1, activation=("leaky_relu", 0.3))(x[:1])
    planned = fc.plan(w, x_shape=x.shape, padding=1, layout="channels_first", residual=True)
    planned.update(2 * w)
    planned(x, dy)
    assert sampler.checked == 9 and planned.algorithm in fc.info()["algorithms"]


def test_one_call_in_n(rng, install):
    sampler = install(3)
    x, w = normal(rng, 1, 2, 4, 4), normal(rng, 2, 2, 3, 3)
    for _ in range(10):
        fc.conv2d(x, w)
    assert sampler.checked == 4


def test_a_wrong_result_is_told_saved_and_repeated(rng, monkeypatch, install, tmp_path, capsys):
    native = _core.conv_forward
    monkeypatch.setattr(_core, "conv_forward", broken(native))
    install()
    x, w = normal(rng, 2, 3, 7, 6), normal(rng, 4, 3, 3, 3)
    with (
        fc.options(algorithm="direct", threads=2),
        pytest.warns(selfcheck.CheckWarning, match=r"the largest at \(1, 3, 6, 5\).*check") as told,
    ):
        fc.conv2d(x, w, padding=1)
    assert len(told) == 1 and told[0].filename == __file__
    [path] = tmp_path.glob("fastconv-check-*.npz")
    assert str(path) in str(told[0].message)
    about, check, (result,) = selfcheck.load(path)
    assert about["options"]["algorithm"] == "direct" and about["options"]["threads"] == 2
    assert np.array_equal(check.arrays["x"], x) and np.array_equal(check.arrays["w"], w)
    assert not np.array_equal(result, native_result(native, x, w))

    # Repeated by the library as it is now: still broken, and then right.
    assert cli.main(["check", str(path)]) == 1
    assert capsys.readouterr().out.endswith("wrong\n")
    monkeypatch.setattr(_core, "conv_forward", native)
    assert cli.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "direct" in out and out.endswith("right now\n") and f"problem    {check.title}" in out


def native_result(native, x, w):
    options = _core.Options(algorithm="direct", threads=2)
    geometry = ((1, 1), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return native(x, w, None, None, *geometry, 0.0, "none", 0.0, "channels_first", options, None)


def test_what_a_tuning_chose_is_saved(rng, monkeypatch, install, tmp_path):
    x, w = normal(rng, 1, 4, 8, 8), normal(rng, 4, 4, 3, 3)
    problem = _core.ConvProblem.parse("fwd n1 c4 h8 w8 k4 r3 s3 pad1")
    key = str(_core.shape_class(problem))
    entry = Entry("call", key, 3, str(problem), {"winograd_f4x4_3x3": 1.0, "direct": 2.0})
    native = _core.conv_forward
    monkeypatch.setattr(_core, "conv_forward", broken(native))
    install()
    with (
        fc.options(tuning=Tuning({here(): {("call", key): entry}}), precision="strict"),
        pytest.warns(selfcheck.CheckWarning),
    ):
        fc.conv2d(x, w, padding=1)
    (file,) = tmp_path.glob("*.npz")
    assert selfcheck.load(file)[0]["options"]["algorithm"] == "direct"
    monkeypatch.setattr(_core, "conv_forward", native)
    assert selfcheck.check_file(file)[0]


def test_wrong_gradients_and_plans_are_found(rng, monkeypatch, install, tmp_path):
    class BrokenPlan:
        def __init__(self, *arguments):
            self.native = native_plan(*arguments)

        def __getattr__(self, name):
            return getattr(self.native, name)

        def __call__(self, *arguments):
            return broken(self.native)(*arguments)

    native_plan = _core.Plan
    monkeypatch.setattr(_core, "Plan", BrokenPlan)
    for name in ("conv_backward_data", "conv_backward_filter"):
        monkeypatch.setattr(_core, name, broken(getattr(_core, name)))
    install()
    x, w, dy = normal(rng, 2, 3, 7, 6), normal(rng, 4, 3, 3, 3), normal(rng, 2, 4, 5, 4)
    for expected, wrong in (
        ("bwd_data", lambda: fc.conv2d_backward_data(dy, w, x.shape)),
        ("bwd_filter", lambda: fc.conv2d_backward_filter(dy, x, w.shape)),
        ("fwd", lambda: fc.plan(w, x_shape=x.shape)(x)),
    ):
        with pytest.warns(selfcheck.CheckWarning, match=rf"^{expected} "):
            wrong()
    files = sorted(tmp_path.glob("*.npz"))
    assert [selfcheck.load(path)[0]["planned"] for path in files] == [False, False, True]
    monkeypatch.setattr(_core, "Plan", native_plan)
    assert selfcheck.check_file(files[2])[0]


def test_a_nan_where_none_belongs_is_wrong_and_one_that_was_put_in_is_not(rng, monkeypatch, install):
    native = _core.conv_forward
    sampler = install()
    x, w = normal(rng, 1, 3, 7, 6), normal(rng, 4, 3, 3, 3)
    x[0, 0, 0, 0] = np.nan
    fc.conv2d(x, w)
    assert sampler.checked == 1

    def nan(*arguments):
        y = native(*arguments)
        y[0, 0, 0, 0] = np.nan
        return y

    monkeypatch.setattr(_core, "conv_forward", nan)
    install()
    with pytest.warns(selfcheck.CheckWarning, match="inf times"):
        fc.conv2d(normal(rng, 1, 3, 7, 6), w)


def test_what_is_too_large_for_float16_is_an_infinity_and_right(install):
    sampler = install()
    x, w = np.full((1, 2, 3, 3), 300, np.float16), np.full((2, 2, 3, 3), 300, np.float16)
    w[1] = -w[1]
    assert np.array_equal(fc.conv2d(x, w).ravel(), [np.inf, -np.inf]) and sampler.checked == 1


def test_files_do_not_fill_the_disk(rng, monkeypatch, install, tmp_path):
    monkeypatch.setattr(_core, "conv_forward", broken(_core.conv_forward))
    install()
    x, w = normal(rng, 1, 1, 4, 4), normal(rng, 1, 1, 3, 3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(selfcheck.MOST_FILES + 2):
            fc.conv2d(x, w)
    assert len(told) == selfcheck.MOST_FILES + 2
    assert len(list(tmp_path.iterdir())) == selfcheck.MOST_FILES
    assert "enough" in str(told[-1].message)


def python(code, **environment):
    words = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, text=True, timeout=60)


def test_nothing_is_replaced_unless_it_is_asked_for():
    code = (
        "import sys, fastconv; from fastconv import _core\n"
        "assert 'fastconv.selfcheck' not in sys.modules and 'fastconv.verify' not in sys.modules\n"
        "assert all(type(getattr(_core, n)).__module__ == 'builtins' or n == 'Plan'\n"
        "           for n in ('conv_forward', 'Plan'))\n"
    )
    done = python(code, FASTCONV_CHECK="")
    assert done.returncode == 0, done.stderr


def test_the_environment_switches_it_on(tmp_path):
    code = (
        "import numpy as np, fastconv as fc; from fastconv import _core, selfcheck\n"
        "print(_core.conv_forward.__module__)\n"
        "fc.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32))\n"
    )
    done = python(code, FASTCONV_CHECK="1/2", FASTCONV_CHECK_DIR=str(tmp_path))
    assert done.stdout == "fastconv.selfcheck.convolutions\n" and done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["7", "2/3", "1/0", "1/x", "yes"])
def test_a_wrong_share_is_refused(text):
    with pytest.raises(fc.ProblemError, match="expected 1/N"):
        selfcheck.every_of(text)
    assert selfcheck.every_of("1/100") == 100


def test_another_file_is_refused(tmp_path, capsys):
    path = tmp_path / "weights.npz"
    np.savez(path, w=np.ones(3))
    assert cli.main(["check", str(path)]) == 1
    assert "holds no call" in capsys.readouterr().err
