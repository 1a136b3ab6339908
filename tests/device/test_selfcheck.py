# SPDX-License-Identifier: Apache-2.0
"""FASTCONV_CHECK=1/N on arrays of a device: its results are copied to the host and compared with float64 there."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import cli, device, selfcheck


def normal(cp, rng, *shape, dtype="float32"):
    return cp.asarray(rng.standard_normal(shape).astype(dtype))


def broken(native, part=0, by=0.01):
    """A function of the device, the last element of whose result is off."""

    def run(*arguments):
        results = native(*arguments)
        a = results[part] if isinstance(results, tuple) else results
        last = (slice(-1, None),) * a.ndim
        a[last] = a[last] + a.dtype.type(by)
        return results

    return run


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_right_convolutions_and_plans_raise_no_warning(cp, rng, install, dtype):
    sampler = install()
    x, w = normal(cp, rng, 2, 6, 9, 8, dtype=dtype), normal(cp, rng, 7, 6, 3, 3, dtype=dtype)
    bias, dy = normal(cp, rng, 7, dtype=dtype), normal(cp, rng, 2, 7, 9, 8, dtype=dtype)
    fc.conv2d(x, w, bias, padding=1, activation="gelu", residual=dy)
    fc.conv2d(x[:, ::-1], w, padding=1)
    fc.conv2d_backward(dy, x, w, padding=1)
    fc.conv_transpose2d(dy, w, padding=1)
    fc.plan(w, bias, x_shape=x.shape, padding=1, activation=("leaky_relu", 0.3))(x[:1])
    planned = fc.plan(w, x_shape=x.shape, padding=1)
    planned.update(2 * w)
    planned(x)
    assert sampler.checked == 7


def test_every_algorithm_is_within_its_bound(cp, rng, install):
    sampler = install()
    x, w = normal(cp, rng, 2, 16, 12, 12), normal(cp, rng, 8, 16, 3, 3)
    ran = []
    for name in fc._core.device_info(0)["algorithms"]:
        with fc.options(algorithm=name, precision="tf32"):
            try:
                fc.conv2d(x, w, padding=1)
            except fc.UnsupportedError:
                continue
        ran.append(name)
    assert sampler.checked == len(ran) >= 3


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_right_poolings_raise_no_warning(cp, rng, install, layout):
    sampler = install()
    x = normal(cp, rng, *((2, 5, 9, 8) if layout == "channels_first" else (2, 9, 8, 5)))
    words = {"layout": layout}
    for pool in (fc.max_pool2d, fc.min_pool2d):
        y, at = pool(x, 3, 2, 1, return_indices=True, **words)
        fc.max_pool2d_backward(y, at, x.shape, **words)
        t = fc.Tensor(x, requires_grad=True)
        pool(t, 3, 2, 1, **words).sum().backward()
    y = fc.avg_pool2d(x, 3, 2, 1, **words)
    fc.avg_pool2d_backward(y, x.shape, 3, 2, 1, **words)
    for norm in (2, 3, 2.5):
        y = fc.lp_pool2d(x, norm, 3, 2, **words)
        fc.lp_pool2d_backward(y, x, y, norm, 3, 2, **words)
    fc.adaptive_avg_pool2d(x, (3, 2), **words)
    fc.adaptive_max_pool2d(x, 2, return_indices=True, **words)
    y, at = fc.max_pool2d(x, 2, return_indices=True, **words)
    fc.max_unpool2d_backward(fc.max_unpool2d(y, at, 2, output_size=x.shape, **words), at, **words)
    assert sampler.checked == 21


PLANTED = {
    "forward": ("conv_forward", lambda x, w: fc.conv2d(x, w, algorithm="direct"), r"^fwd n2 c3 "),
    "plan": ("Plan", lambda x, w: fc.plan(w, x_shape=x.shape)(x), r"^fwd n2 c3 "),
    "data": ("conv_backward_data", lambda x, w: fc.conv_transpose2d(x, w[:3]), r"^bwd_data n2 "),
    "maximum": ("pool_forward", lambda x, w: fc.max_pool2d(x, 3, 2), r"^max pooling of 2x3x9x8 "),
    "offsets": (
        "pool_backward_offsets",
        lambda x, w: fc.max_pool2d(fc.Tensor(x, requires_grad=True), 2).sum().backward(),
        r"^gradient of max pooling ",
    ),
    "norm": ("pool_forward", lambda x, w: fc.lp_pool2d(x, 2, 3, 2), r"^lp pooling of order 2 "),
    "positions": (
        "scatter_positions",
        lambda x, w: fc.max_pool2d_backward(*fc.max_pool2d(x, 2, return_indices=True), x.shape),
        r"^2x3x4x4 values scattered to 2x3x9x8 ",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_result_is_told_saved_and_repeated(cp, rng, monkeypatch, install, tmp_path, capsys, name):
    function, wrong, words = PLANTED[name]
    native = getattr(device, function)
    off = broken(native)
    if function == "Plan":

        class Off(native):
            __call__ = broken(native.__call__)

        off = Off
    monkeypatch.setattr(device, function, off)
    install()
    x, w = normal(cp, rng, 2, 3, 9, 8), normal(cp, rng, 4, 3, 3, 3)
    with pytest.warns(selfcheck.CheckWarning, match=words) as told:
        wrong(x, w)
    assert len(told) == 1 and told[0].filename == __file__
    [path] = tmp_path.glob("*.npz")
    about, check, results = selfcheck.load(path)
    assert about["where"] == "cuda:0" and not check.judge(results).right
    assert all(type(a) is np.ndarray for a in check.arrays.values())

    # Repeated by the library as it is now, on the device: still broken, and then right.
    assert cli.main(["check", str(path)]) == 1
    assert "cuda:0" in capsys.readouterr().out
    monkeypatch.setattr(device, function, native)
    assert cli.main(["check", str(path)]) == 0
    assert capsys.readouterr().out.endswith("right now\n")
    # Without the device the same call is made on the CPU, which says so.
    monkeypatch.setattr(device, "numbered", _no_device)
    assert cli.main(["check", str(path)]) == 0
    assert "computed on the CPU: there is no device\n" in capsys.readouterr().out


def _no_device(where, caller):
    raise fc.DeviceError("there is no device")
