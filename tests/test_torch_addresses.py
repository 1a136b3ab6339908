# SPDX-License-Identifier: Apache-2.0
"""Tensors that fastconv.torch hands to native code by their addresses, and those of which it must not."""

import re

import pytest

from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")
conv_kernels = pytest.importorskip("fastconv.torch.conv_kernels")
theirs = torch.nn.functional
ours = ft.functional


FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


def leaves(last=False):
    """x, w and bias."""
    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=g) for shape in ((2, 4, 6, 5), (8, 4, 3, 3), (8,)))
    return [x.to(memory_format=FORMATS[last]).requires_grad_(), w.requires_grad_(), b.requires_grad_()]


@pytest.fixture
def no_views(monkeypatch):
    """Arrays of tensors are an error."""

    def refuse(*_):
        raise AssertionError("a dense tensor was viewed as an array")

    monkeypatch.setattr(conv_kernels, "as_array", refuse)
    monkeypatch.setattr(conv_kernels, "image_array", refuse)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_dense_tensors_are_not_viewed(no_views, last):
    mine, other = leaves(last), leaves(last)
    y, expected = ours.conv2d(*mine, padding=1), theirs.conv2d(*other, padding=1)
    assert_close(y.detach().numpy(), expected.detach().numpy(), "parity")
    assert y.is_contiguous(memory_format=FORMATS[last])
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(memory_format=FORMATS[last])
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(mine, other, strict=True):
        assert_close(a.grad.numpy(), b.grad.numpy(), "parity")
    layer = ft.nn.Conv2d(4, 8, 3).eval()
    with torch.no_grad():
        for _ in range(2):
            assert_close(layer(mine[0]).numpy(), theirs.conv2d(mine[0], layer.weight, layer.bias).numpy(), "parity")


def misaligned(t):
    """The same values where no float32 may lie."""
    memory = bytearray(2) + bytearray(t.numpy().tobytes())
    return torch.frombuffer(memory, dtype=t.dtype, offset=2).view(t.shape)


OTHERS = {
    "slice of channels": lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
    "every second element": lambda t: torch.stack([t, t], -1)[..., 0],
    "misaligned": misaligned,
    "negated when read": lambda t: torch._neg_view(-t),
}


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_what_an_address_does_not_tell(how, last):
    x, w, b = (t.detach() for t in leaves(last))
    expected = ours.conv2d(x, w, b, padding=1)
    for i in range(2):
        words = [x, w, b]
        words[i] = OTHERS[how](words[i])
        assert_close(ours.conv2d(*words, padding=1).numpy(), expected.numpy(), "parity")
    assert_exact(ours.conv2d(x, w, OTHERS["misaligned"](b), padding=1).numpy(), expected.numpy())
    dy = OTHERS[how](expected)
    leaf = x.clone().requires_grad_(), w.clone().requires_grad_()
    dx, dw = torch.autograd.grad(ours.conv2d(*leaf, padding=1), leaf, dy)
    other = torch.autograd.grad(theirs.conv2d(*leaf, padding=1), leaf, expected)
    assert_close(dx.numpy(), other[0].numpy(), "parity")
    assert_close(dw.numpy(), other[1].numpy(), "parity")
    layer = ft.nn.Conv2d(4, 8, 3).eval()
    with torch.no_grad():
        assert_close(layer(OTHERS[how](x)).numpy(), layer(x).numpy(), "parity")


def test_the_self_check_sees_tensors(install):
    """FASTCONV_CHECK: calls go as arrays, which it takes samples of."""
    conv_kernels._call.cache_clear()
    sampler = install()
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    ours.conv2d(x, w).sum().backward()
    assert sampler.checked == 3
    layer = ft.nn.Conv2d(3, 4, 3).eval()
    with torch.no_grad():
        layer(x)
    assert sampler.checked == 4
    conv_kernels._call.cache_clear()


@pytest.mark.parametrize("freed", ["x", "w"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_whose_memory_was_freed_is_refused(freed, dtype):
    """FSDP frees parameters between their uses; NumPy's view of one is memory that nobody has written."""
    t = {"x": torch.randn(1, 4, 8, 8).to(dtype), "w": torch.randn(4, 4, 3, 3).to(dtype)}
    t[freed].untyped_storage().resize_(0)
    layer = ft.nn.Conv2d(4, 4, 3, bias=False, dtype=dtype).eval()
    layer.weight = torch.nn.Parameter(t["w"])
    calls = [
        lambda: ft.functional.conv2d(t["x"], t["w"]),
        lambda: torch.ops.fastconv.conv(t["x"], t["w"], None, [1, 1], [0, 0], [0, 0], [1, 1], 1, "zeros"),
        lambda: layer(t["x"]),
        torch.no_grad()(lambda: layer(t["x"])),
    ]
    if freed == "x" and dtype is torch.float32:  # torch itself widens the other, and refuses
        calls.append(lambda: ft.functional.max_pool2d(t["x"], 2))
        calls.append(lambda: ft.functional.batch_norm(t["x"], None, None, training=True))
    for call in calls:
        with pytest.raises(RuntimeError, match=re.escape(f"of shape {tuple(t[freed].shape)} was freed")):
            call()
