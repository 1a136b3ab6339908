# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch's way to the device's kernels, with stand-ins for CUDA tensors: they say that they are on a GPU, and
are copied to the device and back where real ones would be handed over by DLPack."""

from types import SimpleNamespace

import pytest

from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
conv_kernels = pytest.importorskip("fastconv.torch.conv_kernels")
pool_kernels = pytest.importorskip("fastconv.torch.pool_kernels")
tensors = pytest.importorskip("fastconv.torch.tensors")


class OnDevice:
    """A tensor that says it is on a GPU."""

    is_cpu, is_cuda, device = False, True, SimpleNamespace(type="cuda", index=0)

    def __init__(self, tensor):
        self.tensor = tensor

    def __getattr__(self, name):
        found = getattr(self.tensor, name)
        if not callable(found) or name in ("stride", "dtype"):
            return found

        def call(*args, **words):
            result = found(*args, **words)
            return OnDevice(result) if isinstance(result, torch.Tensor) else result

        return call


@pytest.fixture
def streams(cp, monkeypatch):
    """The streams that were made CuPy's, by their addresses."""
    seen = []

    class Stream:
        def __init__(self, pointer, device):
            self.entry = pointer, device

        def __enter__(self):
            seen.append(self.entry)

        def __exit__(self, *_):
            seen.append("left")

    monkeypatch.setattr(cp.cuda, "ExternalStream", Stream, raising=False)
    monkeypatch.setattr(cp, "from_dlpack", lambda t: cp.asarray(t.tensor.numpy()), raising=False)
    monkeypatch.setattr(torch, "from_dlpack", lambda a: torch.from_numpy(cp.asnumpy(a)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234))
    return seen


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_convolution(streams, dtype, last):
    torch.manual_seed(0)
    s = conv_kernels.Static((1, 2), (1, 0), (1, 1), (1, 1), 2)
    x, w, b = torch.randn(2, 4, 7, 8), torch.randn(6, 2, 3, 3), torch.randn(6)
    x, w, b = (t.to(dtype) for t in (x.to(memory_format=torch.channels_last) if last else x, w, b))
    y = conv_kernels.forward(x, w, b, last, s)
    dy = torch.randn(y.shape).to(dtype)
    lent = [OnDevice(t) for t in (x, w, b, dy)]
    pairs = [
        (conv_kernels.forward(*lent[:3], last, s), y),
        (
            conv_kernels.transpose(lent[3], lent[1], None, (7, 8), last, s),
            conv_kernels.transpose(dy, w, None, (7, 8), last, s),
        ),
        (conv_kernels.backward_filter(lent[3], lent[0], (3, 3), s), conv_kernels.backward_filter(dy, x, (3, 3), s)),
    ]
    for mine, expected in pairs:
        assert mine.dtype is dtype
        assert_close(mine.float().numpy(), expected.float().numpy(), "half" if dtype is torch.float16 else "parity",
                     dtype=str(dtype)[6:])  # fmt: skip
    assert streams == [(1234, 0), "left"] * 3


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_pooling(streams, last):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 8)
    x = x.to(memory_format=torch.channels_last) if last else x
    s = pool_kernels.MaxStatic((3, 2), (2, 2), (1, 0), (1, 1), True)
    y, winners, indices = pool_kernels.max_forward(x, s, True, True)
    found = pool_kernels.max_forward(OnDevice(x), s, True, True)
    for mine, expected in zip(found, (y, winners, indices), strict=True):
        assert_exact(mine.numpy(), expected.numpy())
    dy = torch.randn(y.shape)
    lent = OnDevice(dy), OnDevice(winners)
    assert_close(
        pool_kernels.scatter(*lent, (9, 8), s).numpy(), pool_kernels.scatter(dy, winners, (9, 8), s).numpy(), "parity"
    )
    gathered = pool_kernels.gather(OnDevice(x), OnDevice(winners), s)
    assert_exact(gathered.numpy(), y.numpy())
    assert_exact(pool_kernels.indices_of(OnDevice(winners), (9, 8), s).numpy(), indices.numpy())
    a = pool_kernels.AvgStatic((3, 2), (2, 1), (1, 0), False, False, 0)
    mean = pool_kernels.avg_forward(x, a)
    assert_close(pool_kernels.avg_forward(OnDevice(x), a).numpy(), mean.numpy(), "parity")
    back = pool_kernels.avg_backward(OnDevice(mean), (9, 8), last, a)
    assert_close(back.numpy(), pool_kernels.avg_backward(mean, (9, 8), last, a).numpy(), "parity")
    assert len(streams) == 12 and streams[:2] == [(1234, 0), "left"]


def test_other_devices_are_refused(cp):
    with pytest.raises(tensors._core.UnsupportedError, match="a tensor is on mps"):
        tensors.kernels(SimpleNamespace(is_cpu=False, is_cuda=False, device="mps"))
