# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch.patch, and `fc.conv2d` and its family called with torch tensors."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv.geometry import ACTIVATION_ALPHAS
from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")
patching = pytest.importorskip("fastconv.torch.patching")
functional = torch.nn.functional
NAMES = patching.CONVOLUTIONS + patching.POOLINGS
ORIGINALS = {name: getattr(functional, name) for name in NAMES}


@pytest.fixture(autouse=True)
def untouched():
    torch.manual_seed(0)
    yield
    assert {name: getattr(functional, name) for name in NAMES} == ORIGINALS


def is_patched():
    return all(getattr(functional, name) is not ORIGINALS[name] for name in NAMES)


# ---- patch ---------------------------------------------------------------------------------------------------------


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(8, 4, 2, 2), torch.nn.AvgPool2d(2), torch.nn.Flatten(2), torch.nn.Conv1d(4, 4, 3),
        torch.nn.MaxPool1d(2), torch.nn.AvgPool1d(2),
    ).double()  # fmt: skip


def test_a_model_of_torchs_layers_runs_on_ours():
    net, x = network(), torch.randn(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    leaves = [x, *net.parameters()]
    expected = net(x)
    with ft.patch():
        y = net(x)
        assert "_AvgPool" in repr(y.grad_fn)
        found = torch.autograd.grad((y**2).sum(), leaves)
        with torch.no_grad():
            assert_close(net(x).numpy(), y.detach().numpy(), "parity")
    assert_close(y.detach().numpy(), expected.detach().numpy(), "parity")
    for mine, other in zip(found, torch.autograd.grad((expected**2).sum(), leaves), strict=True):
        assert_close(mine.numpy(), other.numpy(), "parity")
    assert "_AvgPool" not in repr(net(x).grad_fn)


def test_every_function_is_swapped():
    x = {rank: torch.randn(1, 2, *(6,) * rank) for rank in (1, 2, 3)}
    for name in NAMES:
        rank = int(name[-2])
        args = (torch.randn(2, 2, *(3,) * rank), None, 2) if "conv" in name else (2,)
        expected = getattr(functional, name)(x[rank], *args)
        with ft.patch(), fc.trace() as trace:
            y = getattr(functional, name)(x[rank], *args)
        assert_close(y.numpy(), expected.numpy(), "parity", what=name)
        assert len(trace.calls) == ("conv" in name), name


def test_blocks_nest_and_restore_after_errors():
    with pytest.raises(ValueError, match="of the program"), ft.patch():
        with ft.patch():
            assert is_patched()
        assert is_patched()
        raise ValueError("of the program")
    assert not is_patched()


def test_blocks_of_several_threads():
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def other():
        with ft.patch():
            entered.set()
            leave.wait(30)
            seen.append(is_patched())

    thread = threading.Thread(target=other)
    with ft.patch():
        thread.start()
        assert entered.wait(30)
    assert is_patched()  # the other block is still open
    leave.set()
    thread.join(30)
    assert seen == [True] and not is_patched()


def test_many_threads_at_once():
    wrong = []

    def enter_and_leave():
        for _ in range(200):
            with ft.patch():
                if not is_patched():
                    wrong.append(1)

    threads = [threading.Thread(target=enter_and_leave) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong and not is_patched()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, of what it loads
def test_what_we_do_not_compute_stays_torchs():
    x = torch.arange(18).reshape(1, 2, 3, 3)
    w = torch.ones(1, 2, 2, 2)

    class Mine(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return "mine"

    with ft.patch():
        assert functional.conv2d(x, w.long()).dtype is torch.int64
        assert functional.conv2d(x.to(torch.complex64), w.to(torch.complex64)).dtype is torch.complex64
        assert functional.max_pool2d(x, 2).dtype is torch.int64
        assert functional.conv2d(torch.ones(1, 2, 3, 3).as_subclass(Mine), w) == "mine"
        with pytest.raises(RuntimeError):  # torch's own error
            functional.conv2d(x.float(), w.double())
        floats = torch.randn(1, 2, 3, 3)
        primal, tangent = torch.func.jvp(lambda x: functional.conv2d(x, w), (floats,), (floats,))
        assert_exact(tangent.numpy(), primal.numpy())
        per_image = torch.func.vmap(torch.func.grad(lambda w, x: functional.conv2d(x[None], w).sum()), (None, 0))
        assert per_image(w, floats.repeat(3, 1, 1, 1)).shape == (3, 1, 2, 2, 2)
        graph = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Conv2d(2, 1, 2), torch.nn.MaxPool2d(2)))
        assert graph(floats).shape == (1, 1, 1, 1)


def test_words_and_positions():
    x, w, b = torch.randn(1, 4, 9, 9), torch.randn(4, 2, 3, 3), torch.randn(4)
    calls = [
        lambda: functional.conv2d(input=x, weight=w, bias=b, stride=[2, 1], padding=(1,), dilation=1, groups=2),
        lambda: functional.conv2d(x, w, b, (1, 2), 1, 2, 2),
        lambda: functional.conv_transpose2d(x, w, None, 2, 1, 1, 2, 1),
        lambda: functional.conv_transpose2d(x, weight=w, stride=2, groups=2),
        lambda: functional.max_pool2d(input=x, kernel_size=[3], stride=[]),
        lambda: functional.avg_pool2d(x, kernel_size=(3, 2), stride=2, padding=1, ceil_mode=True, divisor_override=5),
        lambda: functional.adaptive_avg_pool2d(functional.max_pool2d(x, 2, return_indices=True)[0], 1),
    ]
    for number, call in enumerate(calls):
        expected = call()
        with ft.patch():
            assert_close(call().numpy(), expected.numpy(), "parity", what=str(number))


# ---- fc.conv2d with torch tensors ----------------------------------------------------------------------------------


def as_numpy(t):
    return t.detach().numpy()


@pytest.mark.parametrize("kind", ACTIVATION_ALPHAS)
def test_activations_and_residuals(kind):
    x, w, b, r = torch.randn(2, 3, 8, 7), torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(2, 4, 4, 4)
    words = {"stride": 2, "padding": "same_lower", "activation": kind}
    y = fc.conv2d(x, w.requires_grad_(), b, residual=r, **words)
    assert_close(as_numpy(y), fc.conv2d(*map(as_numpy, (x, w, b)), residual=r.numpy(), **words), "parity")
    assert y.requires_grad


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("batched", [True, False])
def test_the_family_takes_torch_tensors(layout, batched):
    x, w = torch.randn(2, 4, 8, 8), torch.randn(4, 2, 3, 3)
    x = (x if layout == "channels_first" else x.permute(0, 2, 3, 1).contiguous())[slice(None) if batched else 0]
    x.requires_grad_()
    calls = [
        (fc.conv2d, (w,), {"padding": ((1, 0), (2, 1)), "groups": 2, "padding_mode": "circular"}),
        (fc.conv2d, (w,), {"padding": "full", "groups": 2, "padding_mode": "constant", "pad_value": 2.0}),
        (fc.conv_transpose2d, (w,), {"stride": 2, "groups": 2, "output_padding": 1, "activation": "relu"}),
        (fc.conv_transpose2d, (w,), {"stride": 1, "dilation": 3, "output_padding": 2, "groups": 2}),
        (fc.max_pool2d, (3,), {"stride": 2, "padding": 1}),
        (fc.min_pool2d, (2,), {"ceil_mode": True}),
        (fc.avg_pool2d, (3,), {"padding": 1, "count_include_pad": False}),
    ]
    for call, rest, words in calls:
        y = call(x, *rest, layout=layout, **words)
        arrays = [as_numpy(a) if isinstance(a, torch.Tensor) else a for a in (x, *rest)]
        assert_close(as_numpy(y), call(*arrays, layout=layout, **words), "parity", what=call.__name__)
        tensor = fc.Tensor(arrays[0], requires_grad=True)
        call(tensor, *arrays[1:], layout=layout, **words).sum().backward()
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert_close(dx.numpy(), tensor.grad.data, "parity", what=call.__name__)
    y, indices = fc.max_pool2d(x, 2, return_indices=True, layout=layout)
    assert_exact(indices.numpy(), fc.max_pool2d(as_numpy(x), 2, return_indices=True, layout=layout)[1])


def test_parameters_and_options():
    x, w = torch.randn(1, 3, 9, 9), torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    with fc.trace() as trace:
        y = fc.conv2d(x, w, algorithm="im2col_gemm")
    assert y.requires_grad and trace.calls[0]["algorithm"] == "im2col_gemm"
    assert fc.conv1d(x[0, :, 0], w[:, :, 0]).requires_grad


def test_what_does_not_fit_is_an_error():
    x, w = torch.randn(1, 3, 9, 9), torch.randn(4, 3, 3, 3)
    with pytest.raises(TypeError, match=r"conv2d: x is a numpy array, another.*torch\.from_numpy\(x\)"):
        fc.conv2d(x.numpy(), w)
    with pytest.raises(TypeError, match=r"conv2d: w has dtype torch\.float64"):
        fc.conv2d(x, w.double())
    with pytest.raises(TypeError, match="out is for arrays"):
        fc.conv2d(x, w, out=np.empty((1, 4, 7, 7), np.float32))
    with pytest.raises(fc.ProblemError, match="residual has shape"):
        fc.conv2d(x, w, residual=x)
    with pytest.raises(fc.UnsupportedError, match="equal padding at both ends"):
        fc.max_pool2d(x, 3, padding=((0, 1), (0, 0)))
    with pytest.raises(TypeError, match=r"lp_pool2d: x is a torch tensor"):
        fc.lp_pool2d(x, 2, 2)


def test_torch_is_loaded_for_a_tensor_alone():
    code = """if True:
        import sys, numpy as np, fastconv as fc
        fc.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float16).astype(np.float32))
        assert "torch" not in sys.modules
        import torch
        fc.conv2d(np.ones((1, 1, 3, 3), np.float16), np.ones((1, 1, 3, 3), np.float16))
        assert "fastconv.torch" not in sys.modules
        w = torch.ones(1, 1, 3, 3, requires_grad=True)
        assert fc.conv2d(torch.ones(1, 1, 3, 3), w).requires_grad
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_torch_the_extra_is_named():
    code = """if True:
        import sys
        sys.modules["torch"] = None
        try:
            import fastconv.torch
        except ImportError as error:
            assert 'pip install "fastconv[torch]"' in str(error), error
        else:
            raise SystemExit("imported")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
